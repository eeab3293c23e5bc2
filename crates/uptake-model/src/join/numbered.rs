//! Small numbers for values that recur, with a mark beside each: what a number is kept for is for
//! [`Interner`](super::interner::Interner) and [`Dated`](super::dated::Dated) to say.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

use crate::index::Index;

/// Values of type `T` by a number each, which are kept for what `K` says.
#[derive(Debug)]
pub(super) struct Numbered<T, K> {
    index: Index,
    values: Vec<T>,
    /// By number: 0 for a new one.
    pub(super) marks: Vec<u32>,
    free: Vec<u32>,
    /// Of each of a thousand parts of all values the one asked for last, with its number. A few
    /// values are asked for most, and this stays in the fastest cache where all of them do not.
    recent: Vec<(T, u32)>,
    pub(super) keeping: K,
}

const RECENT: usize = 1 << 10;

/// The number of no value.
const NONE: u32 = u32::MAX;

impl<T, K: Default> Default for Numbered<T, K> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            values: Vec::new(),
            marks: Vec::new(),
            free: Vec::new(),
            recent: Vec::new(),
            keeping: K::default(),
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    FixedState::with_seed(2).hash_one(value)
}

impl<T: Copy + Eq + Hash, K> Numbered<T, K> {
    /// The number of `value`.
    #[inline]
    pub(super) fn intern(&mut self, value: T) -> u32 {
        let h = hash(&value);
        let place = h as usize % RECENT;
        if let Some(&(v, n)) = self.recent.get(place)
            && v == value
            && n != NONE
        {
            return n;
        }
        let n = match self.index.find(h, |n| self.values[n as usize] == value) {
            Some(n) => n,
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
                (self.values[n as usize], self.marks[n as usize]) = (value, 0);
                n
            }
            None => {
                self.values.push(value);
                self.marks.push(0);
                self.values.len() as u32 - 1
            }
        };
        let values = &self.values;
        self.index.insert(h, n, |n| hash(&values[n as usize]));
        n
    }

    /// The value of a number in use.
    #[inline]
    pub(super) fn get(&self, n: u32) -> T {
        self.values[n as usize]
    }

    /// The values by number. What stands at a number that is not in use is nothing.
    pub(super) fn values(&self) -> &[T] {
        &self.values
    }

    /// Takes a number out of use, unless it is already; it will stand for another value.
    pub(super) fn forget(&mut self, n: u32) {
        let h = hash(&self.values[n as usize]);
        let values = &self.values;
        if self.index.remove(h, n, |n| hash(&values[n as usize])) {
            if let Some(recent) = self.recent.get_mut(h as usize % RECENT)
                && recent.1 == n
            {
                recent.1 = NONE;
            }
            self.free.push(n);
        }
    }

    /// How many values are in use.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes held on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes()
            + self.values.capacity() * size_of::<T>()
            + self.recent.capacity() * size_of::<(T, u32)>()
            + (self.marks.capacity() + self.free.capacity()) * size_of::<u32>()
    }
}
