//! Numbers of slots by the hashes of their keys.
//!
//! A look-up waits for memory and does little else, so it is to touch as few lines of it as it can: a place is 4
//! bytes, sixteen are in a line, and the number in it leaves bits for a part of the hash, by which other keys are
//! passed without a look at their slots. Linear probing with at most three quarters of the places in use: Knuth, The
//! Art of Computer Programming 3, 6.4, gives 2.5 places to a key that is there, and 8.5 to one that is not. What is
//! taken out leaves no mark, those behind it move up (Algorithm R there), so that it is put in order anew only when
//! it grows.

/// A hash table of numbers, of which whoever has it knows the keys: small ones, each of one key.
///
/// ```
/// use uptake_model::index::Index;
/// let keys = ["a", "b"];
/// let hash = |n: u32| u64::from(keys[n as usize].as_bytes()[0]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
/// let mut index = Index::default();
/// (0..2).for_each(|n| index.insert(hash(n), n, hash));
/// assert_eq!(index.find(hash(1), |n| keys[n as usize] == "b"), Some(1));
/// index.remove(hash(1), 1, hash);
/// assert_eq!(index.find(hash(1), |n| keys[n as usize] == "b"), None);
/// ```
#[derive(Debug)]
pub struct Index {
    /// 2^`bits` places, or none yet. A number is in the lowest `bits`, a part of the hash above it.
    places: Vec<u32>,
    bits: u32,
    /// Places with a number.
    used: usize,
}

/// A place where a search ends. No number with its part of a hash is as large.
const EMPTY: u32 = u32::MAX;
const BITS_MIN: u32 = 5;

impl Default for Index {
    fn default() -> Self {
        Self { places: Vec::new(), bits: BITS_MIN, used: 0 }
    }
}

impl Index {
    /// How many numbers there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    #[inline]
    fn mask(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// What a number with this hash is in its place, without the number. The highest bits: the lowest say where it
    /// is, and those between are much the same in all keys of one worker.
    #[inline]
    fn part(&self, hash: u64) -> u32 {
        ((hash >> 32) as u32) & !self.mask()
    }

    /// The number for which `is_it` says that it is that of the key with this hash; asked of few others.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.place(hash, is_it).map(|place| self.places[place] & self.mask())
    }

    #[inline]
    fn place(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        let (mask, part) = (self.mask(), self.part(hash));
        let mut place = hash as u32 & mask;
        loop {
            let found = *self.places.get(place as usize)?;
            if found == EMPTY {
                return None;
            }
            if found & !mask == part && is_it(found & mask) {
                return Some(place as usize);
            }
            place = (place + 1) & mask;
        }
    }

    /// Adds a number that is not there; `hash_of` knows the hashes of the others.
    ///
    /// # Panics
    /// If it has to grow and the number, or how many there are, is 2^30 or more.
    pub fn insert(&mut self, hash: u64, n: u32, hash_of: impl Fn(u32) -> u64) {
        if self.used >= self.places.len() / 4 * 3 || n >= self.mask() {
            self.grow(n, hash_of);
        }
        self.put(hash, n);
    }

    fn put(&mut self, hash: u64, n: u32) {
        let mask = self.mask();
        let mut place = (hash as u32 & mask) as usize;
        while self.places[place] != EMPTY {
            place = (place + 1) & mask as usize;
        }
        self.used += 1;
        self.places[place] = self.part(hash) | n;
    }

    /// Makes room for one more, and for `n`.
    #[cold]
    fn grow(&mut self, n: u32, hash_of: impl Fn(u32) -> u64) {
        assert!(self.used.max(n as usize) < 1 << 30, "an index of a billion numbers");
        let mask = self.mask();
        self.bits += u32::from(!self.places.is_empty());
        while n >= self.mask() {
            self.bits += 1;
        }
        let before = std::mem::replace(&mut self.places, vec![EMPTY; 1 << self.bits]);
        self.used = 0;
        for n in before.into_iter().filter(|place| *place != EMPTY).map(|place| place & mask) {
            self.put(hash_of(n), n);
        }
    }

    /// Takes a number out; false if it is not there. `hash_of` knows the hashes of the others.
    pub fn remove(&mut self, hash: u64, n: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let Some(mut free) = self.place(hash, |m| m == n) else { return false };
        let mask = self.mask() as usize;
        let mut place = free;
        loop {
            place = (place + 1) & mask;
            let there = self.places[place];
            if there == EMPTY {
                break;
            }
            // It moves up unless a search for it begins behind the free place.
            let first = hash_of(there & mask as u32) as usize;
            if place.wrapping_sub(first) & mask >= place.wrapping_sub(free) & mask {
                self.places[free] = there;
                free = place;
            }
        }
        self.places[free] = EMPTY;
        self.used -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Hashes of which many begin or end alike.
    fn hash(key: u32, alike: u32) -> u64 {
        let mixed = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match alike {
            0 => mixed,
            1 => mixed >> 56,
            2 => mixed >> 56 << 56,
            _ => u64::MAX,
        }
    }

    proptest! {
        #[test]
        fn an_index_is_a_map(
            steps in prop::collection::vec((0u32..400, prop_oneof![3 => Just(true), 2 => Just(false)]), 0..3_000),
            alike in 0u32..4, stride in prop_oneof![Just(1u32), Just(3_000)],
        ) {
            let (mut index, mut plain) = (Index::default(), BTreeMap::new());
            for (key, adds) in steps {
                let n = key * stride;
                let find = |index: &Index, n: u32| index.find(hash(n, alike), |m| m == n);
                prop_assert_eq!(find(&index, n), plain.get(&key).copied());
                match adds {
                    true if !plain.contains_key(&key) => {
                        index.insert(hash(n, alike), n, |n| hash(n, alike));
                        plain.insert(key, n);
                    }
                    _ => {
                        index.remove(hash(n, alike), n, |n| hash(n, alike));
                        plain.remove(&key);
                    }
                }
                prop_assert_eq!(index.len(), plain.len());
            }
            for key in 0..400 {
                let n = key * stride;
                prop_assert_eq!(index.find(hash(n, alike), |m| m == n), plain.get(&key).copied());
            }
            let empty = index.places.iter().filter(|place| **place == EMPTY).count();
            prop_assert_eq!(empty, index.places.len() - index.used);
            prop_assert!(index.places.is_empty() || empty > 0, "a search ends");
        }
    }

    #[test]
    fn what_comes_and_goes_takes_no_more_room() {
        let mut index = Index::default();
        for n in 0..1_000_000u32 {
            let slot = n % 1_000;
            // The key that has a slot now: this turn's, or that of the turn before for those behind it.
            let turn = n - slot;
            let hash_of =
                |other: u32| hash(if other < slot { turn + other } else { turn - 1_000 + other }, 0);
            if n >= 1_000 {
                assert!(index.remove(hash(n - 1_000, 0), slot, hash_of));
            }
            index.insert(hash(n, 0), slot, |other| if other == slot { hash(n, 0) } else { hash_of(other) });
        }
        assert_eq!((index.len(), index.heap_bytes()), (1_000, 4 * 2_048));
    }
}
