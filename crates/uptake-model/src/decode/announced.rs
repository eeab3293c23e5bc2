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
    /// What was told of an earlier epoch is forgotten, and is told each time it is used.
    since: Option<Epoch>,
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
            // Who listens forgets too, at a time of its own: only what is told anew is surely known.
            None if self.since.is_some_and(|since| epoch < since) => true,
            None => {
                self.table.insert_unique(hash, (hash, epoch), |entry| entry.0);
                true
            }
        }
    }

    /// Forgets what was announced last for an epoch before `epoch`.
    pub(super) fn forget_before(&mut self, epoch: Epoch) {
        self.since = self.since.max(Some(epoch));
        self.table.retain(|entry| entry.1 >= epoch);
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to_fit(|entry| entry.0);
        }
    }
}
