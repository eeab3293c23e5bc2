//! Small numbers for values that recur: a table that counts its references and gives numbers out
//! again, so it is as large as what is in use, not as what was ever seen.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Values of type `T` by a number each.
#[derive(Debug)]
pub struct Interner<T> {
    table: HashTable<u32>,
    entries: Vec<(T, u32)>,
    free: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { table: HashTable::new(), entries: Vec::new(), free: Vec::new() }
    }
}

fn hash(value: &impl Hash) -> u64 {
    FixedState::with_seed(2).hash_one(value)
}

impl<T: Copy + Eq + Hash> Interner<T> {
    /// The number of `value` if it is in use.
    #[inline]
    pub fn find(&self, value: &T) -> Option<u32> {
        self.table.find(hash(value), |&n| self.entries[n as usize].0 == *value).copied()
    }

    /// The number of `value`, with one more reference to it.
    #[inline]
    pub fn acquire(&mut self, value: T) -> u32 {
        let h = hash(&value);
        if let Some(&n) = self.table.find(h, |&n| self.entries[n as usize].0 == value) {
            self.entries[n as usize].1 += 1;
            return n;
        }
        let n = match self.free.pop() {
            Some(n) => {
                self.entries[n as usize] = (value, 1);
                n
            }
            None => {
                self.entries.push((value, 1));
                self.entries.len() as u32 - 1
            }
        };
        let entries = &self.entries;
        self.table.insert_unique(h, n, |&n| hash(&entries[n as usize].0));
        n
    }

    /// The value of a number in use.
    #[inline]
    pub fn get(&self, n: u32) -> T {
        self.entries[n as usize].0
    }

    /// Gives back one reference; the last one frees the number.
    #[inline]
    pub fn release(&mut self, n: u32) {
        let entry = &mut self.entries[n as usize];
        entry.1 -= 1;
        if entry.1 == 0 {
            if let Ok(found) = self.table.find_entry(hash(&entry.0), |&m| m == n) {
                found.remove();
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
        self.table.capacity() * 5 + self.entries.capacity() * size_of::<(T, u32)>() + self.free.capacity() * 4
    }
}
