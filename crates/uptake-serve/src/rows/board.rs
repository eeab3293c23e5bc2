//! The rows that somebody asks for, kept ready in memory and looked at again in the background.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uptake_model::{Epoch, EventTime};
use uptake_trends::rows::Choice;

use super::{Item, Ranked, RowName, Rows, only_pinned};
use crate::settings::ITEMS_MAX;
use crate::tables::{Tables, TablesError};

/// The most rows that are kept ready; one more pushes out the one that nobody asked for longest.
const KEPT_MAX: usize = 1_000;
/// A row that nobody asks for is not looked at any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// A row as it was when it was last looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) ranked: Ranked,
    /// Says whether two are the same, in every process.
    pub(crate) version: u64,
}

impl Ready {
    fn of(ranked: Ranked, scorer: &str) -> Self {
        Self { version: version(scorer, ranked.epoch, &ranked.items), ranked }
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

    /// Looks at a row for the first time. Reads the table.
    pub(crate) fn make_ready(
        &self,
        tables: &Tables,
        row: RowName,
        segment: &str,
        choice: &Choice<'_>,
    ) -> Result<watch::Receiver<Arc<Ready>>, TablesError> {
        let ranked = self.rank(tables, row, segment, choice)?;
        let ready = Arc::new(Ready::of(ranked, self.rows.scorer()));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().filter(|(_, kept)| kept.sender.receiver_count() == 0);
            let oldest = oldest.min_by_key(|(_, kept)| kept.asked());
            match oldest.map(|(key, _)| key.clone()) {
                Some(key) => drop(kept.remove(&key)),
                // Everybody is subscribed to another one: this one is served and not kept.
                None => return Ok(watch::Sender::new(ready).subscribe()),
            }
        }
        let one = kept.entry((row, segment.to_owned())).or_insert_with(|| {
            Arc::new(Kept {
                past: Mutex::default(),
                asked: Mutex::new(Instant::now()),
                sender: watch::Sender::new(ready),
            })
        });
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
            let ready = Ready::of(self.rank(tables, row, &segment, choice)?, self.rows.scorer());
            one.note(&ready, choice.now);
            one.sender.send_if_modified(|now| {
                let is_new = now.version != ready.version;
                // Whom is drawn from may change where the row does not.
                *now = Arc::new(ready);
                is_new
            });
        }
        Ok(())
    }
}
