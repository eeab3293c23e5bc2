//! Which names were told, and for which epoch last.
//!
//! One look per event, so the table holds the bare hash and the epoch, and the hash, which is
//! already well mixed, is its own place in the table.

use hashbrown::HashTable;

use crate::time::Epoch;

/// Hashes with the last epoch each was announced for.
#[derive(Debug, Default)]
pub(super) struct Announced {
    table: HashTable<(u64, Epoch)>,
}

impl Announced {
    /// Whether an event in `epoch` is to be announced; then it counts as announced.
    #[inline]
    pub(super) fn is_new(&mut self, hash: u64, epoch: Epoch) -> bool {
        match self.table.find_mut(hash, |entry| entry.0 == hash) {
            Some((_, last)) if *last >= epoch => false,
            Some((_, last)) => {
                *last = epoch;
                true
            }
            None => {
                self.table.insert_unique(hash, (hash, epoch), |entry| entry.0);
                true
            }
        }
    }

    /// Forgets what was announced last for an epoch before `epoch`.
    pub(super) fn forget_before(&mut self, epoch: Epoch) {
        self.table.retain(|entry| entry.1 >= epoch);
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to_fit(|entry| entry.0);
        }
    }
}
