//! The watermark: up to which event time the input is thought to be complete.
//!
//! Per partition it is the greatest event time seen less the lateness; the global one is the
//! least over the partitions that still have something to read, and never goes back. It
//! frees memory, seals epochs and says which events are too late to be joined; which of the others count is
//! decided by the events alone.

use std::collections::BTreeMap;

use crate::time::EventTime;

/// What is known of one partition.
#[derive(Clone, Debug, Default)]
struct Partition {
    newest: Option<EventTime>,
    idle: bool,
    /// The number of the first piece that has not been observed, and what lies beyond it.
    next_piece: u64,
    beyond: BTreeMap<u64, Option<EventTime>>,
}

/// Follows the partitions of all sources.
///
/// ```
/// use uptake_model::watermark::Watermark;
/// use uptake_model::EventTime;
/// let mut watermark = Watermark::new(10);
/// watermark.observe(0, Some(EventTime(100)), false);
/// watermark.observe(1, Some(EventTime(50)), false);
/// assert_eq!(watermark.advance(), EventTime(40)); // partition 1 holds it
/// watermark.observe(1, None, true); // partition 1 has been read to its end
/// assert_eq!(watermark.advance(), EventTime(90));
/// ```
#[derive(Clone, Debug)]
pub struct Watermark {
    lateness_ms: i64,
    partitions: Vec<Partition>,
    current: EventTime,
}

impl Watermark {
    /// A watermark `lateness_ms` behind the newest event.
    pub fn new(lateness_ms: i64) -> Self {
        Self { lateness_ms, partitions: Vec::new(), current: EventTime::MIN }
    }

    /// The same, but never below `watermark`: that of an earlier process, which this one goes on
    /// from.
    pub fn starting_at(self, watermark: EventTime) -> Self {
        Self { current: self.current.max(watermark), ..self }
    }

    /// Says what a partition has come to: the newest event time of what was read since the last
    /// call (`None` if nothing), and whether it has been read to its end, as the log itself
    /// tells. An idle partition does not hold the others.
    pub fn observe(&mut self, partition: u32, newest: Option<EventTime>, idle: bool) {
        let p = self.partition(partition);
        p.newest = p.newest.max(newest);
        p.idle = idle;
    }

    /// The same for a partition that several readers share in pieces, which are numbered from 0
    /// in the partition's order. A piece moves the watermark only when all pieces before it have
    /// been observed: else a reader that is ahead would make those behind it late.
    pub fn observe_piece(&mut self, partition: u32, piece: u64, newest: Option<EventTime>) {
        let p = self.partition(partition);
        p.idle = false;
        p.beyond.insert(piece, newest);
        while let Some(newest) = p.beyond.remove(&p.next_piece) {
            p.newest = p.newest.max(newest);
            p.next_piece += 1;
        }
    }

    fn partition(&mut self, partition: u32) -> &mut Partition {
        let index = partition as usize;
        if index >= self.partitions.len() {
            self.partitions.resize(index + 1, Partition { idle: true, ..Partition::default() });
        }
        &mut self.partitions[index]
    }

    /// The newest event time of a partition; `None` before its first event.
    pub fn newest(&self, partition: u32) -> Option<EventTime> {
        self.partitions.get(partition as usize)?.newest
    }

    /// How far the slowest partition has come that is not idle: the least of their newest event
    /// times. `None` if all are idle or one has shown no event yet.
    pub fn slowest(&self) -> Option<EventTime> {
        self.partitions.iter().filter(|p| !p.idle).map(|p| p.newest).min().flatten()
    }

    /// The global watermark now.
    ///
    /// A partition that has more to read but of which no event was seen yet holds it where it
    /// is. When all partitions are idle it follows the newest event of any.
    pub fn advance(&mut self) -> EventTime {
        let newest = if self.partitions.iter().all(|p| p.idle) {
            self.partitions.iter().filter_map(|p| p.newest).max()
        } else {
            self.slowest()
        };
        if let Some(newest) = newest {
            self.current = self.current.max(newest.minus(self.lateness_ms));
        }
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(i64) -> Option<EventTime> = |t| Some(EventTime(t));

    #[test]
    fn never_goes_back() {
        let mut w = Watermark::new(0);
        w.observe(0, T(100), false);
        assert_eq!(w.advance(), EventTime(100));
        w.observe(0, T(20), false);
        assert_eq!(w.advance(), EventTime(100), "an old event");
        w.observe(1, T(30), false);
        assert_eq!(w.advance(), EventTime(100), "a partition that starts late");
    }

    #[test]
    fn a_partition_with_unread_records_and_no_event_yet_holds_it() {
        let mut w = Watermark::new(0);
        w.observe(0, T(100), false);
        w.observe(1, None, false);
        assert_eq!(w.advance(), EventTime::MIN);
        w.observe(1, None, true);
        assert_eq!(w.advance(), EventTime(100));
    }

    #[test]
    fn a_piece_waits_for_those_before_it() {
        let mut w = Watermark::new(0);
        w.observe_piece(0, 2, T(300));
        w.observe_piece(0, 1, None);
        assert_eq!(w.advance(), EventTime::MIN);
        w.observe_piece(0, 0, T(100));
        assert_eq!(w.advance(), EventTime(300));
        w.observe_piece(0, 4, T(900));
        w.observe_piece(0, 3, T(200));
        assert_eq!(w.advance(), EventTime(900));
    }

    #[test]
    fn when_all_are_idle_it_follows_the_newest() {
        let mut w = Watermark::new(5);
        w.observe(0, T(10), true);
        w.observe(1, T(100), true);
        assert_eq!(w.advance(), EventTime(95));
    }

    #[test]
    fn a_restored_watermark_does_not_go_back() {
        let mut w = Watermark::new(0).starting_at(EventTime(100));
        assert_eq!(w.advance(), EventTime(100));
        w.observe(0, T(50), false);
        assert_eq!(w.advance(), EventTime(100));
        w.observe(0, T(150), false);
        assert_eq!(w.advance(), EventTime(150));
    }

    #[test]
    fn the_slowest_partition_is_a_busy_one() {
        let mut w = Watermark::new(5);
        assert_eq!((w.slowest(), w.newest(0)), (None, None));
        w.observe(0, T(100), false);
        w.observe(2, T(70), false);
        w.observe(1, T(30), true);
        assert_eq!((w.slowest(), w.newest(1), w.newest(2)), (T(70), T(30), T(70)));
        w.observe(3, None, false);
        assert_eq!((w.slowest(), w.newest(3)), (None, None), "it may be anywhere");
        for partition in 0..4 {
            w.observe(partition, None, true);
        }
        assert_eq!((w.slowest(), w.newest(0)), (None, T(100)));
    }
}
