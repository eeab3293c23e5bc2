//! Numbers that are used as long as something refers to them.

use std::hash::Hash;

use crate::join::numbered::Numbered;

/// Values of type `T` by a small number each. It counts the references to a number and gives it out
/// again, so it is as large as what is in use, not as what was ever seen.
///
/// A number is to be [acquired](Interner::acquire) by who interns its value.
pub(super) type Interner<T> = Numbered<T, References>;

/// The marks are how many references there are.
#[derive(Debug, Default)]
pub(super) struct References;

impl<T: Copy + Eq + Hash> Interner<T> {
    /// Counts one more reference to a number that [`Numbered::intern`] gave.
    #[inline]
    pub(super) fn acquire(&mut self, n: u32) {
        self.marks[n as usize] += 1;
    }

    /// Gives back one reference; the last one frees the number.
    #[inline]
    pub(super) fn release(&mut self, n: u32) {
        self.marks[n as usize] -= 1;
        self.forget_unused(n);
    }

    /// Frees a number that nothing refers to.
    #[inline]
    fn forget_unused(&mut self, n: u32) {
        if self.marks[n as usize] == 0 {
            self.forget(n);
        }
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
