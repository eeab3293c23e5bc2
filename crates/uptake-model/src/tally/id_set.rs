//! A growing set of request ids as a vector.

use crate::ids::RequestId;

/// A growing set of request ids as a vector: a sorted part without repeats, then what came since.
///
/// Sorting only when the unsorted part has grown as long as the sorted one makes adding cheap
/// (amortised O(log n)) and keeps 8 bytes a member, which a hash set does not.
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    items: Vec<u64>,
    sorted: usize,
}

impl IdSet {
    /// Adds one id.
    #[inline]
    pub fn insert(&mut self, id: RequestId) {
        self.items.push(id.0);
        if self.items.len() - self.sorted >= self.sorted.max(32) {
            self.settle();
        }
    }

    /// How many different ids there are. Sorts what came since the last call.
    pub fn len(&mut self) -> usize {
        self.settle();
        self.items.len()
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The ids in ascending order, without repeats.
    pub fn as_sorted(&mut self) -> &[u64] {
        self.settle();
        &self.items
    }

    /// Takes the ids out, in ascending order, without repeats.
    pub(super) fn into_sorted(mut self) -> Vec<u64> {
        self.settle();
        self.items
    }

    /// Whether there are more than `max` ids. Counts only when there may be.
    #[inline]
    pub(super) fn exceeds(&mut self, max: usize) -> bool {
        self.items.len() > max && self.len() > max
    }

    /// Adds ids that ascend without repeats.
    pub(super) fn add_sorted(&mut self, ids: Vec<u64>) {
        if self.items.is_empty() {
            self.sorted = ids.len();
            self.items = ids;
        } else {
            // Two ascending runs are merged in linear time.
            self.settle();
            self.items.extend(ids);
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.sorted == self.items.len() {
            return;
        }
        self.items[self.sorted..].sort_unstable();
        if self.sorted > 0 && self.items[self.sorted] <= self.items[self.sorted - 1] {
            // The stable sort finds the two ascending runs and merges them in linear time.
            self.items.sort();
        }
        self.items.dedup();
        self.sorted = self.items.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_set_is_a_set(
            steps in prop::collection::vec((0u64..500, any::<bool>(), 0u64..40), 0..2000),
        ) {
            let (mut fast, mut plain) = (IdSet::default(), BTreeSet::new());
            for (id, look, run) in steps {
                if run == 0 {
                    let ids: Vec<u64> = (id..2 * id).step_by(3).collect();
                    plain.extend(&ids);
                    fast.add_sorted(ids);
                }
                fast.insert(RequestId(id));
                plain.insert(id);
                if look {
                    prop_assert_eq!(fast.len(), plain.len());
                }
                prop_assert_eq!(fast.clone().exceeds(100), plain.len() > 100);
            }
            prop_assert_eq!(fast.as_sorted().to_vec(), plain.into_iter().collect::<Vec<_>>());
        }
    }
}
