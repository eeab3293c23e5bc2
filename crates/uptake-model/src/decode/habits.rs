//! What the records of one layout have in common for a while.
//!
//! A page reports its impressions one after another, so most records name the request, the member
//! and the device of the record before. Between two values that change, the bytes are then the
//! same as before, all of them: comparing them is one comparison, where reading them is a scan for
//! each value. Which values stay is found out by looking, now and then, at a few records in a row.
//!
//! That a run of bytes is the same as one that was read before at the same place of the same
//! layout says all there is to say about it: it begins where a value ended, and ends with constant
//! bytes, so nothing outside it had a part in how it was read.

use std::ops::Range;

use super::layout::{Constant, Layout, Step};
use super::leaf::Leaf;
use super::scan::{REACH, Window};
use crate::event::Event;

/// Of so many records of a layout in a row, the first [`STUDIED`] are compared with each other.
const PERIOD: u32 = 1 << 13;
const STUDIED: u32 = 64;
/// How many of the studied records must have a value of the one before, for it to be one that
/// stays: where it does not, the comparison was for nothing.
const STAYS: u32 = STUDIED * 3 / 4;

/// Which values of a layout stay the same for many records, and what they were in the last one.
#[derive(Debug, Default)]
pub(super) struct Habits {
    runs: Vec<Run>,
    /// Records read.
    records: u32,
    /// The last record that was studied, where its values are, and how often each was the same as
    /// in the one before.
    studied: Vec<u8>,
    spans: Vec<Range<usize>>,
    same: Vec<u32>,
    /// The leaves of video and timestamp, if all else of an event lies in runs that stay the same.
    changing: Option<[u16; 2]>,
    is_steady: bool,
    /// The event of the last record, if that was one; `None` once a run was another.
    last: Option<Event>,
}

/// Constant bytes and values that stay between two values that change.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The values that stay. There may be none: then it is the constant bytes alone.
    pub(super) values: Range<usize>,
    /// The constant bytes it begins with.
    pub(super) constant: Constant,
    /// The value that changes, after it; the last run has none.
    pub(super) then: Option<Step>,
    /// What stood here in the last record.
    text: Vec<u8>,
    /// The values of it that are wanted, by their place among the leaves. They count their
    /// positions from the start of the run.
    leaves: Vec<(u16, Leaf)>,
}

impl Run {
    /// If what stands at `at` is what stood here before: its values are put among the leaves and
    /// the position after it is returned.
    #[inline(always)]
    pub(super) fn recall(&self, window: &Window, at: usize, leaves: &mut [Leaf]) -> Option<usize> {
        let end = at + self.text.len();
        if end > REACH || self.text.is_empty() || window.get(at..end)? != self.text {
            return None;
        }
        for &(place, leaf) in &self.leaves {
            if let Some(there) = leaves.get_mut(usize::from(place)) {
                *there = leaf.moved(at as u32);
            }
        }
        Some(end)
    }

    /// Remembers what stands from `start` to `end`. `wanted`: the places of its values.
    pub(super) fn remember(
        &mut self,
        window: &Window,
        run: Range<usize>,
        wanted: impl Iterator<Item = u16>,
        leaves: &[Leaf],
    ) {
        self.text.clear();
        self.text.extend_from_slice(window.get(run.clone()).unwrap_or_default());
        self.leaves.clear();
        let there = wanted.filter_map(|place| Some((place, *leaves.get(usize::from(place))?)));
        self.leaves.extend(there.map(|(place, leaf)| (place, leaf.moved((run.start as u32).wrapping_neg()))));
    }
}

impl Habits {
    /// Of a layout of whose records nothing is known yet.
    pub(super) fn new(layout: &Layout, changing: Option<[u16; 2]>) -> Self {
        let mut habits = Self { same: vec![0; layout.steps().len()], changing, ..Self::default() };
        habits.plan(layout);
        habits
    }

    /// The runs, one more than there are values that change, and the event of the last record, to be forgotten
    /// when a run is another.
    #[inline(always)]
    pub(super) fn runs(&mut self) -> (&mut [Run], &mut Option<Event>) {
        (&mut self.runs, &mut self.last)
    }

    /// The event of a record before, of which the one just read differs in video and time alone.
    #[inline(always)]
    pub(super) fn last(&self) -> Option<&Event> {
        self.last.as_ref()
    }

    /// What the record just read was.
    #[inline(always)]
    pub(super) fn remember(&mut self, event: Option<Event>) {
        if self.is_steady {
            self.last = event;
        }
    }

    /// Takes note of a record that was read.
    #[inline(always)]
    pub(super) fn note(&mut self, layout: &Layout, record: &[u8], window: &Window) {
        if self.records % PERIOD < STUDIED {
            self.study(layout, record, window);
        }
        self.records = self.records.wrapping_add(1);
    }

    #[cold]
    fn study(&mut self, layout: &Layout, record: &[u8], window: &Window) {
        let Some(spans) = layout.values(window) else { return };
        for ((now, before), same) in spans.iter().zip(&self.spans).zip(&mut self.same) {
            let is_same = record.get(now.clone()) == self.studied.get(before.clone());
            *same += u32::from(is_same);
        }
        self.spans = spans;
        self.studied.clear();
        self.studied.extend_from_slice(record);
        if self.records % PERIOD == STUDIED - 1 {
            self.plan(layout);
            self.same.fill(0);
        }
    }

    fn plan(&mut self, layout: &Layout) {
        self.runs.clear();
        (self.last, self.is_steady) = (None, self.changing.is_some());
        let mut first = 0;
        let changing = self.same.iter().enumerate().filter(|(_, same)| **same < STAYS).map(|(n, _)| n);
        for value in changing.chain([self.same.len()]) {
            let constant = layout.constants().get(first).copied().unwrap_or_default();
            let then = layout.steps().get(value).copied();
            let changing = self.changing.unwrap_or_default();
            self.is_steady &= then.is_none_or(|step| step.goes_at_most_to(changing));
            self.runs.push(Run { values: first..value, constant, then, ..Run::default() });
            first = value + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{DecodeConfig, Decoded, Decoder, Members};
    use crate::filter::Filters;
    use crate::segment::Segments;
    use crate::time::{EpochLength, EventTime};

    #[test]
    fn what_stays_is_found_out_and_found_out_again() {
        let (segments, filters) = (Segments::default(), Filters::default());
        let config = DecodeConfig::default().into();
        let mut decoder = Decoder::new(config, &segments, &filters, EpochLength::default(), Members::All);
        let mut read = |from: u32, count: u32, line: fn(u32) -> String| {
            let block: String = (from..from + count).map(line).collect();
            let mut decoded = Decoded::default();
            decoder.decode_block(block.as_bytes(), EventTime(1_768_435_300_000), 0, &mut decoded);
            assert_eq!(decoded.events.len(), count as usize);
            let runs = &decoder.layouts.list[0].habits.runs;
            runs.iter().map(|run| (run.values.clone(), run.text.len())).collect::<Vec<_>>()
        };
        let by_request = |n: u32| {
            format!(
                "{{\"kind\":\"impression\",\"request_id\":\"r{}\",\"video_id\":\"v{n}\",\
                 \"member_id\":\"m1\",\"timestamp\":1768435204806}}\n",
                n / 50
            )
        };
        // Before anything is known each value may change: request, video, member, time.
        let unknown = [0..0, 1..1, 2..2, 3..3, 4..4].map(|values| (values, 0));
        assert_eq!(read(0, 60, by_request), unknown);
        let request = "{\"kind\":\"impression\",\"request_id\":\"r1\",\"video_id\":\"".len();
        let others = "\",\"member_id\":\"m1\",\"timestamp\":1768435204806}".len();
        assert_eq!(read(60, 30, by_request), [(0..1, request), (2..4, others)]);
        // Other habits are noticed when it is looked again.
        let by_time = |n: u32| {
            format!(
                "{{\"kind\":\"impression\",\"request_id\":\"r{n}\",\"video_id\":\"v1\",\
                 \"member_id\":\"m{n}\",\"timestamp\":{}}}\n",
                1_768_435_204_000_u64 + u64::from(n % 1000)
            )
        };
        let runs = read(90, PERIOD + STUDIED, by_time);
        assert_eq!(
            runs.iter().map(|(values, _)| values.clone()).collect::<Vec<_>>(),
            [0..0, 1..2, 3..3, 4..4]
        );
        assert!(runs[1].1 > 0 && runs[0].1 == 0);
    }
}
