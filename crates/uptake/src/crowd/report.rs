//! What a crowd has to say in the end: whether the site's tallies are right, and how fast it was.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use uptake_sim::{Requests, Season};

use super::site::Cost;
use super::{Crowd, SiteError};

/// How long plays took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// From the sending to the tally.
    pub(super) tally: Vec<Duration>,
    /// From the sending to the row that shows it.
    pub(super) row: Vec<Duration>,
    /// Plays that no tally showed in time.
    pub(super) missed: u64,
}

/// Quantiles, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p95: u64,
    pub(crate) p99: u64,
    pub(crate) measured: usize,
}

impl Quantiles {
    pub(crate) fn of(delays: &[Duration]) -> Option<Self> {
        let mut sorted = delays.to_vec();
        sorted.sort_unstable();
        let at = |part: f64| {
            let place = (part * (sorted.len() - 1) as f64).round() as usize;
            sorted[place].as_millis() as u64
        };
        (!sorted.is_empty()).then(|| Self {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            measured: sorted.len(),
        })
    }
}

impl Latency {
    /// From the sending of a play to its tally.
    pub(crate) fn tally(&self) -> Option<Quantiles> {
        Quantiles::of(&self.tally)
    }

    /// From the sending of a play to the row that shows it.
    pub(crate) fn row(&self) -> Option<Quantiles> {
        Quantiles::of(&self.row)
    }
}

/// What a crowd has to say.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) visits: u64,
    /// Visits that did not take place because too many were under way.
    pub(crate) turned_away: u64,
    pub(crate) failed_rows: u64,
    pub(crate) events_made: u64,
    pub(crate) events_taken: u64,
    pub(crate) events_taken_again: u64,
    pub(crate) events_refused: u64,
    pub(crate) deliveries_retried: u64,
    /// Events that were never taken.
    pub(crate) events_lost: u64,
    pub(crate) robot_plays: u64,
    /// Milliseconds from a play to its tally, and to the row that shows it.
    pub(crate) play_to_tally_ms: Option<Quantiles>,
    pub(crate) play_to_row_ms: Option<Quantiles>,
    /// Plays that were looked for and not found in half a minute.
    pub(crate) plays_not_seen: u64,
    /// Tallies that were compared with what the crowd knows.
    pub(crate) tallies: u64,
    pub(crate) tallies_estimated: u64,
    /// Those that differ.
    pub(crate) differing: Vec<String>,
    pub(crate) cost: Cost,
}

impl Crowd {
    /// Waits until the site's tallies are those that the crowd knows to be right, at most as long as `within`, and
    /// reports. `of_others` is what was counted before the crowd came, and what others do meanwhile.
    pub(crate) async fn report(
        &self,
        within: Duration,
        mut of_others: impl FnMut() -> Result<Tallies, SiteError>,
    ) -> Result<Report, SiteError> {
        let (begun, cost) = (Instant::now(), self.site.cost().await);
        let truth = self.state().truth.table();
        let compared = loop {
            let compared = compare(&self.tallies().await?, &of_others()?, &truth);
            if compared.differing.is_empty() || begun.elapsed() > within {
                break compared;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let counts = &self.counts;
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let (made, taken) = (get(&counts.made), get(&counts.taken));
        let latency = self.latency().clone();
        Ok(Report {
            visits: get(&counts.visits),
            turned_away: get(&counts.turned_away),
            failed_rows: get(&counts.failed_rows),
            events_made: made,
            events_taken: taken,
            events_taken_again: get(&counts.taken_again),
            events_refused: get(&counts.refused),
            deliveries_retried: get(&counts.retried),
            events_lost: get(&counts.lost),
            robot_plays: get(&counts.robots),
            play_to_tally_ms: latency.tally(),
            play_to_row_ms: latency.row(),
            plays_not_seen: latency.missed,
            tallies: compared.equal,
            tallies_estimated: compared.estimated,
            differing: compared.differing,
            cost,
        })
    }

    /// Compares tallies of some epochs with what the crowd knows so far: how many are equal, and which are
    /// not. `of_others` is what others did.
    pub(crate) fn compare_some(
        &self,
        epochs: Range<i64>,
        tallies: &Tallies,
        of_others: &Tallies,
    ) -> (u64, Vec<String>) {
        let compared = compare(tallies, of_others, &self.state().truth.table_of(epochs));
        (compared.equal, compared.differing)
    }

    /// The site's tallies of all titles of the season.
    pub(crate) async fn tallies(&self) -> Result<Tallies, SiteError> {
        let mut all = Tallies::new();
        for (show, title) in (0..).zip(Season::real().shows()) {
            for one in self.site.series(title.id).await? {
                all.insert((show, one.epoch), (one.plays, one.impressions, one.exact));
            }
        }
        Ok(all)
    }
}

/// By title and epoch: plays, impressions, and whether they are exact.
pub(crate) type Tallies = BTreeMap<(u16, i64), (u64, u64, bool)>;

struct Compared {
    equal: u64,
    estimated: u64,
    differing: Vec<String>,
}

/// Compares tallies, less what was there before, with the truth.
fn compare(site: &Tallies, before: &Tallies, truth: &BTreeMap<(u16, i64), Requests>) -> Compared {
    let (mut equal, mut estimated, mut differing) = (0, 0, Vec::new());
    let keys: std::collections::BTreeSet<(u16, i64)> = site.keys().chain(truth.keys()).copied().collect();
    for key in keys {
        let (plays, impressions, exact) = site.get(&key).copied().unwrap_or((0, 0, true));
        let (plays_before, impressions_before, _) = before.get(&key).copied().unwrap_or_default();
        let known = truth.get(&key).copied().unwrap_or_default();
        let counted = (plays - plays_before.min(plays), impressions - impressions_before.min(impressions));
        if !exact {
            estimated += 1;
        } else if counted == (known.played, known.shown) {
            equal += 1;
        } else {
            let title = Season::real().shows()[usize::from(key.0)].name;
            differing.push(format!(
                "{title} in epoch {}: {} plays of {} impressions counted, {} of {} made",
                key.1, counted.0, counted.1, known.played, known.shown
            ));
        }
    }
    Compared { equal, estimated, differing }
}

impl Report {
    /// Whether the site lost nothing and counted right.
    pub(crate) fn is_right(&self) -> bool {
        self.differing.is_empty()
            && self.events_lost == 0
            && self.events_made == self.events_taken + self.events_refused
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::commands::text::grouped;
        let n = |n: u64| grouped(n);
        writeln!(
            f,
            "visits        {:>12}  {} turned away, {} rows failed",
            n(self.visits),
            n(self.turned_away),
            n(self.failed_rows)
        )?;
        writeln!(
            f,
            "events        {:>12}  {} taken, {} refused, {} lost; {} taken again; {} deliveries tried again",
            n(self.events_made),
            n(self.events_taken),
            n(self.events_refused),
            n(self.events_lost),
            n(self.events_taken_again),
            n(self.deliveries_retried)
        )?;
        if self.robot_plays > 0 {
            writeln!(f, "robot         {:>12}  plays claimed", n(self.robot_plays))?;
        }
        for (name, quantiles) in
            [("play to tally", self.play_to_tally_ms), ("play to row", self.play_to_row_ms)]
        {
            match quantiles {
                Some(q) => writeln!(
                    f,
                    "{name:<13} {:>9} ms  p95 {} ms, p99 {} ms, of {} measured",
                    q.p50, q.p95, q.p99, q.measured
                )?,
                None => writeln!(f, "{name:<13} {:>12}  not measured", "")?,
            }
        }
        let sketches = match self.tallies_estimated {
            0 => String::new(),
            n => format!(" ({} more are estimated by sketches)", grouped(n)),
        };
        writeln!(f, "{}", self.cost)?;
        match self.differing.first() {
            None => write!(f, "tallies       {:>12}  as the crowd knows them{sketches}", n(self.tallies)),
            Some(first) => write!(
                f,
                "tallies       {:>12}  as the crowd knows them{sketches}, and {} that differ, as {first}",
                n(self.tallies),
                n(self.differing.len() as u64)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found() {
        let truth = BTreeMap::from([
            ((1, 7), Requests { played: 2, shown: 9 }),
            ((2, 7), Requests { played: 0, shown: 1 }),
        ]);
        let right = Tallies::from([((1, 7), (5, 9, true)), ((2, 7), (0, 1, true))]);
        let before = Tallies::from([((1, 7), (3, 0, true))]);
        let compared = compare(&right, &before, &truth);
        assert_eq!((compared.equal, compared.differing.len()), (2, 0));
        assert_eq!(compare(&right, &Tallies::new(), &truth).differing.len(), 1, "one was there before");
        assert_eq!(compare(&Tallies::new(), &Tallies::new(), &truth).differing.len(), 2, "missing");
        let more = Tallies::from([((9, 9), (1, 1, true))]);
        assert_eq!(compare(&more, &Tallies::new(), &BTreeMap::new()).differing.len(), 1, "nobody made it");
    }

    #[test]
    fn quantiles_are_those_of_the_sorted() {
        let delays: Vec<Duration> = (0..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(Quantiles::of(&delays), Some(Quantiles { p50: 50, p95: 95, p99: 99, measured: 101 }));
        assert_eq!(Quantiles::of(&[]), None);
    }
}
