//! Rows: which titles stand where, and for how long they stay.
//!
//! A row is chosen from ranked candidates. An incumbent stays up to rank K + h; a newcomer takes an
//! empty place, or at rank K or better that of an incumbent beyond K + h, or at rank K − h or better
//! that of the worst incumbent beyond K. A genre or a franchise has at most so many places; ranks count
//! only those that have one by their score, and a title takes the place of one of its own group that ranks at
//! least h behind it. Within some minutes at most a budget of titles pushes others out, but a takedown
//! yields at once. People's rules come first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::EventTime;

use crate::catalogue::Catalogue;
use crate::rules::Rules;
use crate::trends::{Numbers, Trends};

/// Which row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowName {
    /// What is played most.
    Popular,
    /// What is played most when it is seen.
    Loved,
    /// What is played more than was to be expected, and surely so.
    Trending,
}

impl RowName {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Popular, Self::Loved, Self::Trending];

    /// Its name in addresses and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Popular => "popular",
            Self::Loved => "loved",
            Self::Trending => "trending",
        }
    }
}

/// The form of a row.
#[derive(Clone, PartialEq, Debug)]
pub struct RowOptions {
    /// K: how many places it has.
    pub places: usize,
    /// h: how far beyond K an incumbent may fall before it leaves.
    pub hysteresis: usize,
    /// At most this many titles push others out within [`entries_every_ms`](Self::entries_every_ms).
    pub entries_max: usize,
    /// For how long an entry counts, in milliseconds, however often the row is refreshed.
    pub entries_every_ms: i64,
    /// At most this many of one genre; 0 is no limit.
    pub genre_max: usize,
    /// At most this many of one franchise; 0 is no limit.
    pub franchise_max: usize,
    /// How many titles are kept ready behind those that have a place.
    pub behind: usize,
}

impl Default for RowOptions {
    fn default() -> Self {
        Self {
            places: 20,
            hysteresis: 5,
            entries_max: 3,
            entries_every_ms: 300_000,
            genre_max: 0,
            franchise_max: 1,
            behind: 0,
        }
    }
}

/// Why a title is not in a row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Lacks {
    /// No tally of it.
    Unseen,
    /// Too little was shown of it.
    Evidence {
        /// Discounted exposure.
        has: f64,
        /// What is asked for.
        needs: f64,
    },
    /// Too few plays in the last epochs.
    Plays {
        /// Plays.
        has: f64,
        /// What is asked for.
        needs: f64,
    },
    /// Its rise may be chance.
    Rise {
        /// ln of the evidence.
        has: f64,
        /// What is asked for.
        needs: f64,
    },
    /// It is thought to be pushed.
    Suspicious(crate::robots::Suspicion),
    /// A person blocked it.
    Blocked,
    /// The catalogue does not have it now.
    Unavailable,
    /// Its genre or franchise has its places.
    Capped {
        /// Which one.
        group: String,
    },
    /// Its rank is beyond what enters.
    Rank {
        /// From 1, among those that genres and franchises have places for.
        has: usize,
        /// The last rank that enters now; 0 if none does before somebody leaves.
        needs: usize,
    },
    /// The row has let in as many of late as it may.
    Budget,
    /// Those that people pinned have all places.
    Pinned,
}

/// The score of a title in a row, or what it lacks to have one.
///
/// Popular: discounted plays. Loved: rate − z·sd. Trending: the lift's lower bound.
pub fn score(trends: &Trends, row: RowName, numbers: &Numbers) -> Result<f64, Lacks> {
    let o = trends.options();
    if let Some(suspicion) = numbers.suspicion {
        return Err(Lacks::Suspicious(suspicion));
    }
    let needs = match (o.exposure, row) {
        (_, RowName::Popular) | (crate::Exposure::Epochs, _) => 0.0,
        _ => o.evidence_min,
    };
    if numbers.evidence < needs {
        return Err(Lacks::Evidence { has: numbers.evidence, needs });
    }
    match row {
        RowName::Popular if numbers.plays <= 0.0 => Err(Lacks::Plays { has: 0.0, needs: 1.0 }),
        RowName::Popular => Ok(numbers.plays),
        RowName::Loved => Ok(numbers.estimate.lower(o.loved_z)),
        RowName::Trending if numbers.recent_plays < o.rising_plays_min => {
            Err(Lacks::Plays { has: numbers.recent_plays, needs: o.rising_plays_min })
        }
        RowName::Trending if !numbers.rising => {
            Err(Lacks::Rise { has: numbers.ln_evidence, needs: -o.level.ln() })
        }
        RowName::Trending => Ok(numbers.lift_lower),
    }
}

/// A title in its place.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// The title.
    pub video: Arc<str>,
    /// Its score, with boosts.
    pub score: f64,
    /// Whether a person pinned it.
    pub pinned: bool,
}

/// What a row is chosen with.
pub struct Choice<'a> {
    /// The form of the row.
    pub options: &'a RowOptions,
    /// People's rules.
    pub rules: &'a Rules,
    /// What is known of the titles; one that it does not hold is shown, unless it is strict.
    pub catalogue: &'a Catalogue,
    /// Now.
    pub now: EventTime,
}

/// A row that remembers who stands in it.
///
/// ```
/// use uptake_model::EventTime;
/// use uptake_trends::rows::{Choice, RowName, RowOptions, Shelf};
/// use uptake_trends::{Catalogue, Rules};
/// let options = RowOptions { places: 2, hysteresis: 1, ..RowOptions::default() };
/// let (rules, catalogue) = (Rules::default(), Catalogue::default());
/// let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(0) };
/// let mut shelf = Shelf::default();
/// let ranked = |names: &[&str]| -> Vec<(f64, std::sync::Arc<str>)> {
///     names.iter().rev().enumerate().map(|(i, v)| (i as f64, (*v).into())).rev().collect()
/// };
/// let names = |shelf: &Shelf| shelf.placed().iter().map(|p| p.video.to_string()).collect::<Vec<_>>();
/// shelf.update(RowName::Loved, "", ranked(&["a", "b", "c"]), &choice);
/// assert_eq!(names(&shelf), ["a", "b"]);
/// shelf.update(RowName::Loved, "", ranked(&["a", "c", "b"]), &choice); // b fell to 3: it stays
/// assert_eq!(names(&shelf), ["a", "b"]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    placed: Vec<Placed>,
    behind: Vec<Placed>,
    /// When titles pushed others out of late.
    pushed: Vec<EventTime>,
    /// Why candidates that were looked at are not in.
    left_out: BTreeMap<Arc<str>, Lacks>,
}

impl Shelf {
    /// Who stands in it, first place first.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// Who would be shown next, if somebody asks for more titles or will not have some of these.
    pub fn behind(&self) -> &[Placed] {
        &self.behind
    }

    /// Why a candidate that was looked at is not in.
    pub fn left_out(&self, video: &str) -> Option<&Lacks> {
        self.left_out.get(video)
    }

    /// Chooses anew from `ranked`, best first. Returns how many titles came in.
    pub fn update(
        &mut self,
        row: RowName,
        segment: &str,
        ranked: Vec<(f64, Arc<str>)>,
        choice: &Choice,
    ) -> usize {
        let o = choice.options;
        self.left_out.clear();
        let before: BTreeSet<Arc<str>> = self.placed.iter().map(|placed| placed.video.clone()).collect();
        let mut candidates: Vec<(f64, Arc<str>)> = Vec::with_capacity(ranked.len());
        for (score, video) in ranked {
            if choice.rules.is_blocked(&video, row, segment, choice.now) {
                self.left_out.insert(video, Lacks::Blocked);
            } else if !choice.catalogue.is_available(&video, choice.now) {
                self.left_out.insert(video, Lacks::Unavailable);
            } else {
                candidates.push((score * choice.rules.boost(&video, row, segment, choice.now), video));
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let blocked = |video: &Arc<str>| {
            choice.rules.is_blocked(video, row, segment, choice.now)
                || !choice.catalogue.is_available(video, choice.now)
        };
        let pinned = choice.rules.pinned(row, segment, choice.now);
        let pinned: Vec<(usize, Arc<str>)> = pinned.into_iter().filter(|(_, pin)| !blocked(pin)).collect();
        let score_of =
            |pin: &Arc<str>| candidates.iter().find(|(_, video)| video == pin).map(|(score, _)| *score);
        let scores: Vec<f64> = pinned.iter().map(|(_, pin)| score_of(pin).unwrap_or(0.0)).collect();
        let mut groups = Groups::default();
        pinned.iter().for_each(|(_, pin)| groups.take(&Groups::of(pin, o, choice.catalogue)));
        let free = o.places.saturating_sub(pinned.iter().filter(|(at, _)| *at <= o.places).count());
        let entrants = Entrant::ranked(candidates, &pinned, &groups, choice);
        // Incumbents first, so that nobody flutters in and out.
        let mut chosen: Vec<&Entrant> = Vec::with_capacity(free);
        for one in entrants.iter().filter(|one| before.contains(&one.video)) {
            if chosen.len() < free && groups.full(&one.groups).is_none() {
                groups.take(&one.groups);
                chosen.push(one);
            }
        }
        let mut entered = 0;
        let since = choice.now.minus(o.entries_every_ms);
        self.pushed.retain(|at| since < *at && *at <= choice.now);
        for one in &entrants {
            if chosen.iter().any(|chosen| chosen.video == one.video) {
                continue;
            }
            let out = match groups.full(&one.groups) {
                // One of its own group makes room for it, if it has fallen far enough behind.
                Some(group) => match groups.makes_room(&chosen, one, o.hysteresis) {
                    Some(at) => at,
                    None => {
                        self.left_out.insert(one.video.clone(), Lacks::Capped { group });
                        continue;
                    }
                },
                None if chosen.len() < free => {
                    // A place is empty: it is filled, whatever the budget says.
                    groups.take(&one.groups);
                    chosen.push(one);
                    entered += usize::from(!before.contains(&one.video));
                    continue;
                }
                None => {
                    // A better one pushes the worst out, if the worst is beyond K and the budget allows it.
                    let Some((at, worst)) = worst(chosen.iter().copied().enumerate()) else {
                        self.left_out.insert(one.video.clone(), Lacks::Pinned);
                        continue;
                    };
                    // The first ranks always push the worst out; the others only one that is beyond K + h.
                    let enters = match worst.rank >= free + o.hysteresis {
                        true => free,
                        false => free.saturating_sub(o.hysteresis),
                    };
                    if one.rank >= enters || worst.rank < free {
                        // Where all stand within K, it has to be better than the last of them.
                        let needs = if worst.rank < free { free.min(one.rank) } else { enters };
                        self.left_out.insert(one.video.clone(), Lacks::Rank { has: one.rank + 1, needs });
                        continue;
                    }
                    at
                }
            };
            if self.pushed.len() >= o.entries_max {
                self.left_out.insert(one.video.clone(), Lacks::Budget);
                continue;
            }
            groups.release(&chosen[out].groups);
            groups.take(&one.groups);
            chosen[out] = one;
            self.pushed.push(choice.now);
            entered += 1;
        }
        chosen.sort_by_key(|one| one.at);
        chosen.iter().for_each(|one| _ = self.left_out.remove(&one.video));
        let place = |one: &Entrant| Placed { video: one.video.clone(), score: one.score, pinned: false };
        let placed = chosen.len() + o.places - free;
        let is_chosen: BTreeSet<usize> = chosen.iter().map(|one| one.at).collect();
        let mut line: Vec<Placed> = chosen.into_iter().map(place).collect();
        for one in entrants.iter().filter(|one| !is_chosen.contains(&one.at)) {
            if o.behind == 0 || line.len() >= o.places + o.behind {
                break;
            }
            if groups.full(&one.groups).is_none() {
                groups.take(&one.groups);
                line.push(place(one));
            }
        }
        for ((position, video), score) in pinned.into_iter().zip(scores) {
            let at = (position - 1).min(line.len());
            line.insert(at, Placed { video, score, pinned: true });
        }
        self.behind = line.split_off(placed.min(line.len()));
        self.placed = line;
        entered
    }
}

/// Who may enter a row: all but those that a person pinned.
struct Entrant {
    /// From 0, by score.
    at: usize,
    score: f64,
    video: Arc<str>,
    groups: Vec<(String, usize)>,
    /// From 0, among those that genres and franchises have places for: how many of them are better.
    rank: usize,
}

impl Entrant {
    /// Best first. `groups` are taken by whom a person pinned.
    fn ranked(
        candidates: Vec<(f64, Arc<str>)>,
        pinned: &[(usize, Arc<str>)],
        groups: &Groups,
        choice: &Choice,
    ) -> Vec<Self> {
        let pins: BTreeSet<&Arc<str>> = pinned.iter().map(|(_, video)| video).collect();
        let mut groups = groups.clone();
        let mut rank = 0;
        let free = candidates.into_iter().filter(|(_, video)| !pins.contains(video));
        let entrant = |(at, (score, video)): (usize, (f64, Arc<str>))| {
            let of = Groups::of(&video, choice.options, choice.catalogue);
            let one = Self { at, score, video, groups: of, rank };
            if groups.full(&one.groups).is_none() {
                groups.take(&one.groups);
                rank += 1;
            }
            one
        };
        free.enumerate().map(entrant).collect()
    }
}

/// The worst of some, and its place among them.
fn worst<'a>(of: impl Iterator<Item = (usize, &'a Entrant)>) -> Option<(usize, &'a Entrant)> {
    of.max_by_key(|(_, one)| one.at)
}

/// How many places genres and franchises have taken.
///
/// ```
/// use uptake_trends::catalogue::Title;
/// use uptake_trends::rows::{Groups, RowOptions};
/// use uptake_trends::Catalogue;
/// let part = |id: &str| Title { id: id.into(), franchise: Some("saga".into()), ..Title::default() };
/// let catalogue = Catalogue::new(vec![part("one"), part("two")]);
/// let of = |video| Groups::of(video, &RowOptions::default(), &catalogue);
/// let mut groups = Groups::default();
/// assert_eq!(groups.full(&of("one")), None);
/// groups.take(&of("one"));
/// assert_eq!(groups.full(&of("two")).as_deref(), Some("franchise saga"));
/// assert_eq!(groups.full(&of("three")), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Groups(BTreeMap<String, usize>);

impl Groups {
    /// The groups of a title of which a row has at most so many.
    pub fn of(video: &str, options: &RowOptions, catalogue: &Catalogue) -> Vec<(String, usize)> {
        let Some(title) = catalogue.get(video) else { return Vec::new() };
        let genres = title.genres.iter().map(|genre| (format!("genre {genre}"), options.genre_max));
        let franchise = title.franchise.iter();
        let franchise = franchise.map(|name| (format!("franchise {name}"), options.franchise_max));
        genres.chain(franchise).filter(|(_, max)| *max > 0).collect()
    }

    /// The first of these groups that has all its places.
    pub fn full(&self, of: &[(String, usize)]) -> Option<String> {
        let is_full = |(group, max): &&(String, usize)| self.0.get(group).is_some_and(|n| n >= max);
        of.iter().find(is_full).map(|(group, _)| group.clone())
    }

    /// A title of these groups takes a place.
    pub fn take(&mut self, of: &[(String, usize)]) {
        of.iter().for_each(|(group, _)| *self.0.entry(group.clone()).or_default() += 1);
    }

    /// A title of these groups gives its place up.
    fn release(&mut self, of: &[(String, usize)]) {
        for (group, _) in of {
            self.0.entry(group.clone()).and_modify(|taken| *taken = taken.saturating_sub(1));
        }
    }

    /// Which of `chosen` gives its place up to one that groups have no place for: the worst of those without
    /// which they have one, if it ranks at least `margin` behind.
    fn makes_room(&self, chosen: &[&Entrant], one: &Entrant, margin: usize) -> Option<usize> {
        let would = |other: &Entrant| {
            one.groups.iter().all(|(group, max)| {
                let freed = other.groups.iter().filter(|(of, _)| of == group).count();
                self.0.get(group).is_none_or(|taken| taken.saturating_sub(freed) < *max)
            })
        };
        let behind = |other: &Entrant| other.at > one.at && other.rank >= one.rank + margin;
        let of = chosen.iter().copied().enumerate();
        worst(of.filter(|(_, other)| behind(other) && would(other))).map(|(at, _)| at)
    }
}

/// The candidates of a row, best first: all that lack nothing.
pub fn candidates(trends: &Trends, row: RowName, segment: &str) -> Vec<(f64, Arc<str>)> {
    if row == RowName::Trending {
        let mut rising: Vec<(f64, Arc<str>)> = trends
            .rising(segment)
            .into_iter()
            .filter_map(|numbers| Some((score(trends, row, &numbers).ok()?, numbers.video)))
            .collect();
        rising.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        return rising;
    }
    let all = trends.ranked(segment, |numbers| score(trends, row, numbers).unwrap_or(f64::NEG_INFINITY));
    all.into_iter()
        .take_while(|(score, _)| *score > f64::NEG_INFINITY)
        .map(|(score, numbers)| (score, numbers.video))
        .collect()
}

/// A row without what one member shall not see: the ids to exclude and what was played already.
pub fn without<'a>(
    placed: &'a [Placed],
    excluded: &'a BTreeSet<String>,
    limit: usize,
) -> impl Iterator<Item = &'a Placed> {
    placed.iter().filter(|placed| !excluded.contains(&*placed.video)).take(limit)
}
