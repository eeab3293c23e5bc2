//! Which names were told, and for which epoch last.
//!
//! One look per event, so the table holds the bare hash and the epoch, and the hash, which is
//! already well mixed, is its own place in the table.

use crate::time::Epoch;

/// Hashes with the last epoch each was announced for.
#[derive(Debug)]
pub(super) struct Announced {
    /// A power of two of places, of which three quarters are taken at most: a hash is in the place that its lowest
    /// bits say, or in one of the next, before the first that is free.
    table: Vec<(u64, Epoch)>,
    /// How many are taken.
    taken: usize,
    /// Of each of a thousand parts of all hashes the one asked for last. A few names are in most
    /// events, and this stays in the fastest cache where the table does not.
    recent: Box<[(u64, Epoch); RECENT]>,
    /// What was told of an earlier epoch is forgotten, and is told each time it is used.
    since: Option<Epoch>,
}

const RECENT: usize = 1 << 10;
const TABLE_MIN: usize = 1 << 5;

/// Told of no epoch; a place that is free.
const NOTHING: (u64, Epoch) = (0, Epoch(i64::MIN));

impl Default for Announced {
    fn default() -> Self {
        Self { table: vec![NOTHING; TABLE_MIN], taken: 0, recent: Box::new([NOTHING; RECENT]), since: None }
    }
}

impl Announced {
    /// Whether an event in `epoch` is to be announced; then it counts as announced.
    #[inline]
    pub(super) fn is_new(&mut self, hash: u64, epoch: Epoch) -> bool {
        let recent = self.recent[hash as usize % RECENT];
        if recent.0 == hash && recent.1 >= epoch && epoch > NOTHING.1 {
            return false;
        }
        let is_new = self.look_up(hash, epoch);
        if !is_new {
            self.recent[hash as usize % RECENT] = (hash, epoch);
        }
        is_new
    }

    /// The place of `hash`, or the free one where it is to be.
    #[inline]
    fn place(&mut self, hash: u64) -> &mut (u64, Epoch) {
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        while self.table[place].0 != hash && self.table[place] != NOTHING {
            place = (place + 1) & mask;
        }
        &mut self.table[place]
    }

    fn look_up(&mut self, hash: u64, epoch: Epoch) -> bool {
        let since = self.since;
        let place = self.place(hash);
        match *place {
            // No event is of the first epoch there could be, so it is always told.
            _ if epoch == NOTHING.1 => true,
            (_, last) if last >= epoch => false,
            // Who listens forgets too, at a time of its own: only what is told anew is surely known.
            NOTHING if since.is_some_and(|since| epoch < since) => true,
            NOTHING => {
                *place = (hash, epoch);
                self.taken += 1;
                if self.taken > self.table.len() / 4 * 3 {
                    self.rebuild(2 * self.table.len());
                }
                true
            }
            _ => {
                place.1 = epoch;
                true
            }
        }
    }

    fn rebuild(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.table, vec![NOTHING; places]);
        for entry in before.into_iter().filter(|entry| *entry != NOTHING) {
            *self.place(entry.0) = entry;
        }
    }

    /// Forgets what was announced last for an epoch before `epoch`.
    pub(super) fn forget_before(&mut self, epoch: Epoch) {
        self.since = self.since.max(Some(epoch));
        self.recent.fill(NOTHING);
        self.table.retain(|entry| *entry != NOTHING && entry.1 >= epoch);
        self.taken = self.table.len();
        self.rebuild((self.taken + self.taken / 2).next_power_of_two().max(TABLE_MIN));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The obviously right one: a map from hash to epoch.
        #[test]
        fn what_was_told_is_not_told_again(
            steps in prop::collection::vec(
                (0u64..300, prop_oneof![50 => -5i64..40, 1 => Just(i64::MIN), 1 => Just(i64::MAX)], 0u32..60),
                0..2_000,
            ),
            alike in prop_oneof![Just(1u64), Just(1 << 40), Just(0x9e37_79b9_7f4a_7c15)],
        ) {
            let (mut announced, mut plain, mut since) = (Announced::default(), BTreeMap::new(), i64::MIN);
            for (name, epoch, step) in steps {
                if step == 0 {
                    since = since.max(epoch);
                    announced.forget_before(Epoch(epoch));
                    plain.retain(|_, last| *last >= epoch);
                    continue;
                }
                let hash = name.wrapping_mul(alike);
                let last = plain.get(&hash).copied();
                // No event is of the first epoch there could be: it is told each time.
                let is_new = epoch == i64::MIN || last.is_none_or(|last| last < epoch);
                if epoch > i64::MIN && is_new && (last.is_some() || epoch >= since) {
                    plain.insert(hash, epoch);
                }
                prop_assert_eq!(announced.is_new(hash, Epoch(epoch)), is_new);
            }
            prop_assert_eq!(announced.taken, plain.len());
        }
    }
}
