//! Which lines were read before, in an earlier run.

use std::collections::BTreeMap;
use std::ops::Range;

/// Consecutive lines of one file that were read before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinesRead {
    /// The file, as [`super::Block::file_index`].
    pub file_index: usize,
    /// The number of the first line in the file, from 0.
    pub first_line: u64,
    /// How many lines.
    pub lines: u64,
}

/// The lines to pass over.
#[derive(Default)]
pub(super) struct Skips {
    /// Of each file, in order, apart from each other and not empty.
    ranges: BTreeMap<usize, Vec<Range<u64>>>,
    /// All files before this one were read.
    files: usize,
}

/// What to do at a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Pass over so many lines.
    PassOver(u64),
    /// Deliver at most so many.
    Deliver(u64),
}

impl Skips {
    pub(super) fn add(&mut self, read: impl IntoIterator<Item = LinesRead>) {
        for LinesRead { file_index, first_line, lines } in read {
            if lines > 0 {
                let range = first_line..first_line.saturating_add(lines);
                self.ranges.entry(file_index).or_default().push(range);
            }
        }
        for ranges in self.ranges.values_mut() {
            ranges.sort_unstable_by_key(|range| range.start);
            ranges.dedup_by(|next, range| {
                let joins = next.start <= range.end;
                if joins {
                    range.end = range.end.max(next.end);
                }
                joins
            });
        }
    }

    pub(super) fn add_files_before(&mut self, file_index: usize) {
        self.files = self.files.max(file_index);
    }

    /// Whether all of the file was read.
    pub(super) fn has_file(&self, file_index: usize) -> bool {
        file_index < self.files
    }

    /// What to do at a line of a file.
    pub(super) fn turn(&self, file_index: usize, line: u64) -> Turn {
        let ranges = self.ranges.get(&file_index).map_or(&[][..], Vec::as_slice);
        match ranges.get(ranges.partition_point(|range| range.end <= line)) {
            Some(range) if range.start <= line => Turn::PassOver(range.end - line),
            Some(range) => Turn::Deliver(range.start - line),
            None => Turn::Deliver(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Turn::{Deliver, PassOver};
    use super::*;

    #[test]
    fn ranges_in_any_order_are_joined() {
        let read = |file_index, first_line, lines| LinesRead { file_index, first_line, lines };
        let mut skips = Skips::default();
        skips.add([read(1, 8, 2), read(1, 3, 2), read(1, 5, 1), read(1, 20, 0), read(0, 0, 1)]);
        skips.add([read(1, 4, 1), read(1, 9, 6), read(1, u64::MAX, 7)]);
        for (line, turn) in [
            (0, Deliver(3)),
            (2, Deliver(1)),
            (3, PassOver(3)),
            (5, PassOver(1)),
            (6, Deliver(2)),
            (8, PassOver(7)),
            (15, Deliver(u64::MAX - 15)),
        ] {
            assert_eq!(skips.turn(1, line), turn, "line {line}");
        }
        assert_eq!(skips.turn(0, 0), PassOver(1));
        assert_eq!(skips.turn(2, 0), Deliver(u64::MAX));
        assert!(!skips.has_file(0));
        skips.add_files_before(2);
        skips.add_files_before(1);
        assert!(skips.has_file(1) && !skips.has_file(2));
    }
}
