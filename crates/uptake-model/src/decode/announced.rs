//! Which names were told, and for which epoch last.
//!
//! One look per event, so the table holds the bare hash and the epoch, and the hash, which is
//! already well mixed, is its own place in the table.

use hashbrown::HashTable;

use crate::time::Epoch;

/// Hashes with the last epoch each was announced for.
#[derive(Debug)]
pub(super) struct Announced {
    table: HashTable<(u64, Epoch)>,
    /// Of each of a thousand parts of all hashes the one asked for last. A few names are in most
    /// events, and this stays in the fastest cache where the table does not.
    recent: Box<[(u64, Epoch); RECENT]>,
    /// What was told of an earlier epoch is forgotten, and is told each time it is used.
    since: Option<Epoch>,
}

const RECENT: usize = 1 << 10;

/// Told of no epoch.
const NOTHING: (u64, Epoch) = (0, Epoch(i64::MIN));

impl Default for Announced {
    fn default() -> Self {
        Self { table: HashTable::new(), recent: Box::new([NOTHING; RECENT]), since: None }
    }
}

impl Announced {
    /// Whether an event in `epoch` is to be announced; then it counts as announced.
    #[inline]
    pub(super) fn is_new(&mut self, hash: u64, epoch: Epoch) -> bool {
        let recent = self.recent[hash as usize % RECENT];
        if recent.0 == hash && recent.1 >= epoch && epoch.0 > i64::MIN {
            return false;
        }
        let is_new = self.look_up(hash, epoch);
        if !is_new {
            self.recent[hash as usize % RECENT] = (hash, epoch);
        }
        is_new
    }

    fn look_up(&mut self, hash: u64, epoch: Epoch) -> bool {
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
        self.recent.fill(NOTHING);
        self.table.retain(|entry| entry.1 >= epoch);
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to_fit(|entry| entry.0);
        }
    }
}
