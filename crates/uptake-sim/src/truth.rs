//! The truth: what the lines that were sent amount to, counted by the audience itself.
//!
//! It shares no code with Uptake on purpose. A request is counted when its last line has been
//! sent, so only open requests take memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// What is to be counted: the rule of the join and the length of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counting {
    /// How far apart a play and an impression of a request may lie to count, in milliseconds.
    pub horizon_ms: i64,
    /// The length of an epoch, in milliseconds.
    pub epoch_ms: i64,
    /// Whether impressions count without any play (a left join).
    pub impressions_alone: bool,
}

impl Default for Counting {
    /// 90 minutes, half hours, an inner join.
    fn default() -> Self {
        Self { horizon_ms: 90 * 60_000, epoch_ms: 30 * 60_000, impressions_alone: false }
    }
}

/// How many distinct requests were shown a video in an epoch, and how many played it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Distinct requests with a play that counts.
    pub played: u64,
    /// Distinct requests with an impression that counts.
    pub shown: u64,
}

/// What the lines so far amount to.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    counting: Counting,
    closed: BTreeMap<(u16, i64), Requests>,
    open: HashMap<u64, Open>,
}

#[derive(Clone, Debug)]
struct Open {
    /// Events that have not been sent yet.
    to_come: usize,
    sent: Vec<Seen>,
}

/// An event of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The title, by its place among all.
    pub title: u16,
    /// Whether it was played.
    pub is_play: bool,
    /// When, in milliseconds since 1970 UTC.
    pub stamp_ms: i64,
}

impl Truth {
    /// Nothing was sent.
    pub fn new(counting: Counting) -> Self {
        Self { counting, ..Self::default() }
    }

    /// A request will send this many events.
    pub fn open(&mut self, request: u64, events: usize) {
        self.open.insert(request, Open { to_come: events, sent: Vec::with_capacity(events.min(64)) });
    }

    /// The same, unless it is known already.
    pub fn open_if_new(&mut self, request: u64, events: usize) {
        self.open.entry(request).or_insert_with(|| Open { to_come: events, sent: Vec::new() });
    }

    /// One of them was sent. Unknown requests, as those of test devices, are no matter.
    pub fn sent(&mut self, request: u64, event: Seen) {
        let Some(open) = self.open.get_mut(&request) else { return };
        open.sent.push(event);
        open.to_come -= 1;
        if open.to_come == 0
            && let Some(open) = self.open.remove(&request)
        {
            count(&open.sent, self.counting, &mut self.closed);
        }
    }

    /// By title (its place among all) and epoch (⌊time / length⌋), everything that
    /// has a counting event.
    pub fn table(&self) -> BTreeMap<(u16, i64), Requests> {
        self.table_of(i64::MIN..i64::MAX)
    }

    /// The same of some epochs only, without a copy of the others.
    pub fn table_of(&self, epochs: Range<i64>) -> BTreeMap<(u16, i64), Requests> {
        let is_of = |(_, epoch): &(u16, i64)| epochs.contains(epoch);
        let closed = self.closed.iter().filter(|(key, _)| is_of(key));
        let mut table: BTreeMap<(u16, i64), Requests> = closed.map(|(key, of)| (*key, *of)).collect();
        self.open.values().for_each(|open| count(&open.sent, self.counting, &mut table));
        table.retain(|key, _| is_of(key));
        table
    }
}

/// Adds one request to the table.
fn count(events: &[Seen], counting: Counting, table: &mut BTreeMap<(u16, i64), Requests>) {
    let counts = |event: &&Seen| {
        let pairs = |other: &Seen| {
            other.is_play != event.is_play && (other.stamp_ms - event.stamp_ms).abs() <= counting.horizon_ms
        };
        !event.is_play && counting.impressions_alone || events.iter().any(pairs)
    };
    let key = |event: &Seen| (event.title, event.stamp_ms.div_euclid(counting.epoch_ms), event.is_play);
    let mut keys: Vec<(u16, i64, bool)> = events.iter().filter(counts).map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    for (title, epoch, is_play) in keys {
        let requests = table.entry((title, epoch)).or_default();
        *if is_play { &mut requests.played } else { &mut requests.shown } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn check(events: &[(bool, u16, i64)], expected: &[(u16, i64, u64, u64)]) {
        let mut truth = Truth::new(Counting::default());
        truth.open(1, events.len() + 1); // one never comes
        for &(is_play, title, minute) in events {
            truth.sent(1, Seen { title, is_play, stamp_ms: minute * MINUTE });
        }
        let table: Vec<_> = truth.table().into_iter().map(|((t, e), r)| (t, e, r.played, r.shown)).collect();
        assert_eq!(table, expected);
        for epoch in 0..4 {
            let of_it = truth.table_of(epoch..epoch + 1).into_iter();
            let of_it: Vec<_> = of_it.map(|((t, e), r)| (t, e, r.played, r.shown)).collect();
            let is_of_it = |row: &&(u16, i64, u64, u64)| row.1 == epoch;
            assert_eq!(of_it, expected.iter().filter(is_of_it).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_request_counts_once_where_both_halves_are_within_the_horizon() {
        check(&[(false, 1, 10), (true, 1, 11)], &[(1, 0, 1, 1)]);
        check(&[(false, 1, 10), (false, 1, 12), (true, 1, 11), (true, 1, 11)], &[(1, 0, 1, 1)]);
        check(&[(false, 1, 29), (true, 2, 31)], &[(1, 0, 0, 1), (2, 1, 1, 0)]);
        check(&[(false, 1, 0), (true, 1, 90)], &[(1, 0, 0, 1), (1, 3, 1, 0)]);
        check(&[(false, 1, 0), (true, 1, 91)], &[]);
        check(&[(true, 1, 0)], &[]);
    }
}
