//! Blocks: how records travel from worker to worker.

use std::collections::VecDeque;

use timely::container::{ContainerBuilder, LengthPreservingContainerBuilder, PushInto};

/// The most bytes of records in a block: the engine's own 8 KiB are 170 events, and what each block costs by itself
/// (room, a place in a queue, a word to the worker that sleeps) shows then.
const BLOCK_BYTES: usize = 32 << 10;

/// Gathers records to blocks.
pub(crate) struct Blocks<D> {
    current: Vec<D>,
    full: VecDeque<Vec<D>>,
    /// What was given away last, whose room comes back where it was only read.
    given: Vec<D>,
}

impl<D> Blocks<D> {
    const RECORDS: usize = match size_of::<D>() {
        0 => BLOCK_BYTES,
        size if size > BLOCK_BYTES => 1,
        size => BLOCK_BYTES / size,
    };
}

impl<D> Default for Blocks<D> {
    fn default() -> Self {
        Self { current: Vec::new(), full: VecDeque::new(), given: Vec::new() }
    }
}

impl<D> PushInto<D> for Blocks<D> {
    #[inline]
    fn push_into(&mut self, record: D) {
        if self.current.capacity() == 0 {
            self.current = std::mem::take(&mut self.given);
            self.current.clear();
            self.current.reserve(Self::RECORDS);
        }
        self.current.push(record);
        if self.current.len() == Self::RECORDS {
            self.full.push_back(std::mem::take(&mut self.current));
        }
    }
}

impl<D: 'static> ContainerBuilder for Blocks<D> {
    type Container = Vec<D>;

    #[inline]
    fn extract(&mut self) -> Option<&mut Vec<D>> {
        self.given = self.full.pop_front()?;
        Some(&mut self.given)
    }

    fn finish(&mut self) -> Option<&mut Vec<D>> {
        if !self.current.is_empty() {
            self.full.push_back(std::mem::take(&mut self.current));
        }
        self.extract()
    }
}

impl<D: 'static> LengthPreservingContainerBuilder for Blocks<D> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that comes out of pushing `records`, block by block. Every `kept`th block is left where it was, as one
    /// is that was only read; the others are taken away.
    fn blocks<D: Copy + 'static>(records: &[D], kept: usize) -> Vec<Vec<D>> {
        let (mut builder, mut out) = (Blocks::default(), Vec::new());
        let take = |block: &mut Vec<D>, out: &mut Vec<Vec<D>>| {
            out.push(block.clone());
            if !out.len().is_multiple_of(kept) {
                drop(std::mem::take(block));
            }
        };
        for record in records {
            builder.push_into(*record);
            while let Some(block) = builder.extract() {
                take(block, &mut out);
            }
        }
        while let Some(block) = builder.finish() {
            take(block, &mut out);
        }
        assert!(builder.finish().is_none() && builder.extract().is_none());
        out
    }

    fn check<D: Copy + PartialEq + std::fmt::Debug + 'static>(records: &[D], kept: usize) {
        let blocks = blocks(records, kept);
        assert_eq!(blocks.concat(), records, "all of them, in order");
        let (full, last) = blocks.split_at(blocks.len().saturating_sub(1));
        assert!(full.iter().all(|block| block.len() == Blocks::<D>::RECORDS));
        assert!(last.iter().all(|block| (1..=Blocks::<D>::RECORDS).contains(&block.len())));
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(n in 0..3_000_usize, kept in 1..4_usize) {
            check(&(0..n).map(|i| [i; 6]).collect::<Vec<_>>(), kept);
            check(&vec![(); 12 * n], kept);
            check(&vec![[7_u8; BLOCK_BYTES + 1]; n % 4], kept);
        }
    }
}
