//! The rows that somebody asks for, kept ready in memory and looked at again in the background.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uptake_model::{Epoch, EventTime};
use uptake_trends::rows::Choice;

use super::{Item, Ranked, RowName, Rows, SEGMENTS_KNOWN, only_pinned};
use crate::settings::ITEMS_MAX;
use crate::tables::{Tables, TablesError};

/// Of as many segments rows are kept ready; one more pushes out the one that nobody asked for longest. What ranks them
/// must know more segments than that: one that it had forgotten would be read anew at each look, and push out the next.
const SEGMENTS_MAX: usize = SEGMENTS_KNOWN * 3 / 4;
/// A row that nobody asks for is not looked at any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// A row as it was when it was last looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) ranked: Ranked,
    /// Says whether two are the same, in every process.
    pub(crate) version: u64,
    /// The version of the rules that it was ranked by, in this process.
    pub(crate) rules: u64,
}

impl Ready {
    fn of(ranked: Ranked, scorer: &str, choice: &Choice<'_>) -> Self {
        let rules = choice.rules.version();
        Self { version: version(scorer, ranked.epoch, &ranked.items), ranked, rules }
    }
}

/// Says whether two rows show the same, in every process.
pub(crate) fn version(scorer: &str, epoch: Option<Epoch>, items: &[Item]) -> u64 {
    let mut hasher = DefaultHasher::new();
    scorer.hash(&mut hasher);
    epoch.map(|Epoch(epoch)| epoch).hash(&mut hasher);
    for item in items {
        (&item.video_id, item.plays, item.impressions, item.score.to_bits(), item.pinned).hash(&mut hasher);
    }
    hasher.finish()
}

/// A row as it stood at a time of the events' clock.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) at: EventTime,
    pub(crate) videos: Vec<Arc<str>>,
}

/// Pasts of a row are as far apart, in milliseconds.
const PAST_EVERY_MS: i64 = 60_000;
/// So many are kept: more than an hour.
const PASTS_MAX: usize = 70;

struct Kept {
    past: Mutex<VecDeque<Past>>,
    asked: Mutex<Instant>,
    sender: watch::Sender<Arc<Ready>>,
}

impl Kept {
    /// Notes how the row stands now, if it was not noted a moment ago.
    fn note(&self, ready: &Ready, at: EventTime) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.back().is_none_or(|last| at.0 - last.at.0 >= PAST_EVERY_MS) {
            let videos = ready.ranked.items.iter().map(|item| Arc::clone(&item.video_id)).collect();
            past.push_back(Past { at, videos });
            if past.len() > PASTS_MAX {
                past.pop_front();
            }
        }
    }

    /// Tells who is subscribed, if the row has changed. What was ranked by rules that are older than those of the row
    /// as it stands is not taken: a rule that was answered holds.
    fn publish(&self, ready: Ready) {
        self.sender.send_if_modified(|now| {
            if ready.rules < now.rules {
                return false;
            }
            let is_new = now.version != ready.version;
            // Whom is drawn from may change where the row does not.
            *now = Arc::new(ready);
            is_new
        });
    }

    fn asked(&self) -> Instant {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows.
pub(crate) struct Board {
    rows: Arc<dyn Rows>,
    kept: Mutex<HashMap<(RowName, String), Arc<Kept>>>,
}

impl Board {
    pub(crate) fn new(rows: Arc<dyn Rows>) -> Self {
        Self { rows, kept: Mutex::default() }
    }

    pub(crate) fn rows(&self) -> &dyn Rows {
        &*self.rows
    }

    /// A row that is ready, if it is.
    pub(crate) fn ready(&self, row: RowName, segment: &str) -> Option<watch::Receiver<Arc<Ready>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get(&(row, segment.to_owned()))?;
        *kept.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Some(kept.sender.subscribe())
    }

    /// How a row stood at `at`, or as soon after it as is known.
    pub(crate) fn past(&self, row: RowName, segment: &str, at: EventTime) -> Option<Past> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let one = kept.get(&(row, segment.to_owned()))?;
        let past = one.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.iter().find(|past| past.at >= at).cloned()
    }

    /// Looks at a row for the first time. Reads the table. By which rules is said with it: those that were added
    /// meanwhile are not among them, and who added them did not find the row here.
    pub(crate) fn make_ready(
        &self,
        tables: &Tables,
        row: RowName,
        segment: &str,
        choice: &Choice<'_>,
    ) -> Result<watch::Receiver<Arc<Ready>>, TablesError> {
        let ready = Ready::of(self.rank(tables, row, segment, choice)?, self.rows.scorer(), choice);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_room(&mut kept, segment) {
            // Everybody is subscribed to another one: this one is served and not kept.
            return Ok(watch::Sender::new(Arc::new(ready)).subscribe());
        }
        let one = kept.entry((row, segment.to_owned())).or_insert_with(|| {
            Arc::new(Kept {
                past: Mutex::default(),
                asked: Mutex::new(Instant::now()),
                sender: watch::Sender::new(Arc::default()),
            })
        });
        one.publish(ready);
        Ok(one.sender.subscribe())
    }

    fn rank(
        &self,
        tables: &Tables,
        row: RowName,
        segment: &str,
        choice: &Choice<'_>,
    ) -> Result<Ranked, TablesError> {
        let ranked = tables.with(|table| self.rows.rank(table, row, segment, ITEMS_MAX, choice))?;
        Ok(ranked.unwrap_or_else(|| only_pinned(row, segment, choice)))
    }

    /// Looks at all rows again; who is subscribed to one that changed is told.
    pub(crate) fn refresh(&self, tables: &Tables, choice: &Choice<'_>) -> Result<(), TablesError> {
        let all: Vec<((RowName, String), Arc<Kept>)> = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, one| one.sender.receiver_count() > 0 || one.asked().elapsed() < FORGOTTEN_AFTER);
            kept.iter().map(|(key, one)| (key.clone(), Arc::clone(one))).collect()
        };
        for ((row, segment), one) in all {
            let ready = Ready::of(self.rank(tables, row, &segment, choice)?, self.rows.scorer(), choice);
            one.note(&ready, choice.now);
            one.publish(ready);
        }
        Ok(())
    }
}

/// Whether a row of the segment may be kept. If its segment is one too many, that which nobody asked for longest goes.
fn has_room(kept: &mut HashMap<(RowName, String), Arc<Kept>>, segment: &str) -> bool {
    let mut asked: HashMap<&str, (bool, Instant)> = HashMap::new();
    for ((_, name), one) in &*kept {
        let (is_followed, last) = asked.entry(name).or_insert((false, one.asked()));
        *is_followed |= one.sender.receiver_count() > 0;
        *last = one.asked().max(*last);
    }
    if asked.contains_key(segment) || asked.len() < SEGMENTS_MAX {
        return true;
    }
    let free = asked.iter().filter(|(_, (is_followed, _))| !is_followed);
    let Some(oldest) = free.min_by_key(|(_, (_, last))| *last).map(|(name, _)| (*name).to_owned()) else {
        return false;
    };
    kept.retain(|(_, name), _| *name != oldest);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::TrendsRows;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use uptake_model::EpochLength;
    use uptake_trends::{Catalogue, RowOptions, Rules};

    fn board() -> Board {
        Board::new(Arc::new(TrendsRows::new(EpochLength::default(), 8, &[])))
    }

    /// The rules with another title at the top.
    fn pinned(rules: &Rules, video: &str) -> Rules {
        let mut rules = rules.clone();
        rules.remove("top");
        let rule = serde_json::json!({ "id": "top", "action": "pin", "video_id": video, "position": 1 });
        rules.set(serde_json::from_value(rule).unwrap());
        rules
    }

    fn choosing<T>(rules: &Rules, choose: impl FnOnce(&Choice<'_>) -> T) -> T {
        let (options, catalogue) = (RowOptions::default(), Catalogue::default());
        choose(&Choice { options: &options, rules, catalogue: &catalogue, now: EventTime(0) })
    }

    fn first(ready: &watch::Receiver<Arc<Ready>>) -> Option<String> {
        ready.borrow().ranked.items.first().map(|item| item.video_id.to_string())
    }

    /// A table that is opened only when it is said; says when somebody waits for it.
    fn slow_tables() -> (Arc<Tables>, Receiver<()>, Sender<()>) {
        let ((waits, is_waiting), (go, is_free)) = (channel(), channel::<()>());
        let is_free = Mutex::new(is_free);
        let open = move || {
            waits.send(()).unwrap();
            is_free.lock().unwrap().recv().unwrap();
            Ok(None)
        };
        (Arc::new(Tables::new(Box::new(open))), is_waiting, go)
    }

    #[test]
    fn who_ranked_by_older_rules_does_not_take_a_newer_rule_back() {
        let board = Arc::new(board());
        let quick = Tables::new(Box::new(|| Ok(None)));
        let old = pinned(&Rules::default(), "v1");
        let row = choosing(&old, |choice| board.make_ready(&quick, RowName::Popular, "", choice)).unwrap();
        assert_eq!(first(&row).as_deref(), Some("v1"));
        // The background has taken the rules and reads the table when one more is added.
        let (slow, is_waiting, go) = slow_tables();
        let (for_it, rules) = (Arc::clone(&board), old.clone());
        let background =
            std::thread::spawn(move || choosing(&rules, |choice| for_it.refresh(&slow, choice)).unwrap());
        is_waiting.recv().unwrap();
        let new = pinned(&old, "v0");
        choosing(&new, |choice| board.refresh(&quick, choice)).unwrap();
        assert_eq!(first(&row).as_deref(), Some("v0"));
        go.send(()).unwrap();
        background.join().unwrap();
        assert_eq!(first(&row).as_deref(), Some("v0"), "it was answered");
        // What a request finds meanwhile is told apart too.
        let again = choosing(&old, |choice| board.make_ready(&quick, RowName::Popular, "", choice)).unwrap();
        assert_eq!(first(&again).as_deref(), Some("v0"));
        let loved = choosing(&old, |choice| board.make_ready(&quick, RowName::Loved, "", choice)).unwrap();
        assert!(loved.borrow().rules < new.version());
    }

    #[test]
    fn rows_of_so_many_segments_are_kept_and_those_that_are_followed_stay() {
        let (board, tables, rules) = (board(), Tables::new(Box::new(|| Ok(None))), Rules::default());
        let ask = |row, segment: &str| {
            choosing(&rules, |choice| board.make_ready(&tables, row, segment, choice)).unwrap()
        };
        let followed = ask(RowName::Popular, "followed");
        for n in 0..3 * SEGMENTS_MAX {
            RowName::ALL.into_iter().for_each(|row| drop(ask(row, &format!("s{n}"))));
        }
        let kept = |segment: &str| board.ready(RowName::Popular, segment).is_some();
        assert!(kept("followed") && kept(&format!("s{}", 3 * SEGMENTS_MAX - 1)) && !kept("s0"));
        assert_eq!((0..3 * SEGMENTS_MAX).filter(|n| kept(&format!("s{n}"))).count(), SEGMENTS_MAX - 1);
        drop(followed);
        let all: Vec<_> = (0..SEGMENTS_MAX).map(|n| ask(RowName::Popular, &format!("f{n}"))).collect();
        assert_eq!(first(&ask(RowName::Popular, "one more")), None);
        assert!(!kept("one more") && all.len() == SEGMENTS_MAX, "it is served and not kept");
    }
}
