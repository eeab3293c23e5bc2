//! Small numbers for values that recur: a table that counts its references and gives numbers out
//! again, so it is as large as what is in use, not as what was ever seen.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Values of type `T` by a number each.
#[derive(Debug)]
pub struct Interner<T> {
    /// The values stand in the table beside their numbers: a look-up touches one line of memory.
    table: HashTable<(T, u32)>,
    values: Vec<T>,
    references: Vec<u32>,
    free: Vec<u32>,
    /// Of each of a thousand parts of all values the one asked for last, with its number. A few
    /// values are asked for most, and this stays in the fastest cache where the table does not.
    recent: Vec<(T, u32)>,
}

const RECENT: usize = 1 << 10;

/// The number of no value.
const NONE: u32 = u32::MAX;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            values: Vec::new(),
            references: Vec::new(),
            free: Vec::new(),
            recent: Vec::new(),
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    FixedState::with_seed(2).hash_one(value)
}

impl<T: Copy + Eq + Hash> Interner<T> {
    /// The number of `value`. Without [`Interner::acquire`] it must be given back by
    /// [`Interner::forget_unused`].
    #[inline]
    pub fn intern(&mut self, value: T) -> u32 {
        let h = hash(&value);
        let place = h as usize % RECENT;
        if let Some(&(v, n)) = self.recent.get(place)
            && v == value
            && n != NONE
        {
            return n;
        }
        let n = match self.table.find(h, |(v, _)| *v == value) {
            Some(&(_, n)) => n,
            None => self.insert(h, value),
        };
        if self.recent.is_empty() {
            self.recent = vec![(value, NONE); RECENT];
        }
        self.recent[place] = (value, n);
        n
    }

    #[cold]
    fn insert(&mut self, h: u64, value: T) -> u32 {
        let n = match self.free.pop() {
            Some(n) => {
                self.values[n as usize] = value;
                n
            }
            None => {
                self.values.push(value);
                self.references.push(0);
                self.values.len() as u32 - 1
            }
        };
        self.table.insert_unique(h, (value, n), |(v, _)| hash(v));
        n
    }

    /// The value of a number in use.
    #[inline]
    pub fn get(&self, n: u32) -> T {
        self.values[n as usize]
    }

    /// Counts one more reference to a number that [`Interner::intern`] gave.
    #[inline]
    pub fn acquire(&mut self, n: u32) {
        self.references[n as usize] += 1;
    }

    /// Gives back one reference; the last one frees the number.
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.references[n as usize] -= 1;
        self.forget_unused(n);
    }

    /// Frees a number that nothing refers to.
    #[inline]
    pub fn forget_unused(&mut self, n: u32) {
        if self.references[n as usize] > 0 {
            return;
        }
        let h = hash(&self.values[n as usize]);
        if let Ok(found) = self.table.find_entry(h, |&(_, m)| m == n) {
            found.remove();
            if let Some(recent) = self.recent.get_mut(h as usize % RECENT)
                && recent.1 == n
            {
                recent.1 = NONE;
            }
            self.free.push(n);
        }
    }

    /// How many values are in use.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no value is in use.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.table.allocation_size()
            + self.values.capacity() * size_of::<T>()
            + self.recent.capacity() * size_of::<(T, u32)>()
            + (self.references.capacity() + self.free.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_interner_is_two_maps(steps in proptest::collection::vec((0u64..3_000, 0u8..3), 0..2_000)) {
            let (mut fast, mut plain) = (Interner::default(), std::collections::BTreeMap::new());
            for (value, step) in steps {
                let n = fast.intern(value);
                let (number, references) = *plain.get(&value).unwrap_or(&(n, 0));
                assert_eq!((n, fast.get(n)), (number, value));
                match step {
                    0 => {
                        fast.acquire(n);
                        plain.insert(value, (n, references + 1));
                    }
                    1 if references > 0 => {
                        fast.release(n);
                        plain.insert(value, (n, references - 1));
                    }
                    _ => fast.forget_unused(n),
                }
                plain.retain(|_, (_, references)| *references > 0);
                assert_eq!(fast.len(), plain.len());
                let mut numbers: Vec<u32> = plain.values().map(|(n, _)| *n).collect();
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), plain.len(), "one number, one value");
            }
        }
    }

    #[test]
    fn numbers_are_given_out_again() {
        let mut names = Interner::default();
        let a = names.intern("a");
        names.acquire(a);
        names.acquire(a);
        let b = names.intern("b");
        names.acquire(b);
        assert_eq!((names.intern("a"), names.get(b), names.len()), (a, "b", 2));
        names.release(a);
        assert_eq!(names.len(), 2, "one reference is left");
        names.release(a);
        assert_eq!(names.intern("c"), a, "the number is free again");
        names.forget_unused(a);
        assert_eq!(names.len(), 1);
    }
}
