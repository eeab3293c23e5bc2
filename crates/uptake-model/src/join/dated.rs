//! Numbers that are used until a time, so that nobody has to give them back one by one.

use std::hash::Hash;

use crate::join::numbered::Numbered;
use crate::time::EventTime;

/// A time in steps of 65.5 s since 1970, rounded up by a step or two.
type Steps = u32;
const STEP_BITS: u32 = 16;
/// The mark of what stays for good: of a time after 2105, when states wait for the end of all time, too.
const FOR_GOOD: Steps = u32::MAX - 1;
/// The mark of a number that is not in use.
const FREE: Steps = u32::MAX;
/// Every 17 minutes of event time is looked through all numbers.
const BETWEEN_LOOKS: Steps = 16;

/// Values of type `T` by a small number each, which is kept until the latest of the times given with it.
///
/// The number of a value may be another one after the next [`Dated::forget_before`] unless it is
/// [kept](Dated::keep).
pub(super) type Dated<T> = Numbered<T, Until>;

/// The marks are how long a number is kept.
#[derive(Debug, Default)]
pub(super) struct Until {
    /// When they are looked through next.
    look_at: Steps,
}

fn steps(time: EventTime) -> Steps {
    const LAST: i64 = (u32::MAX as i64 * 1000) >> STEP_BITS;
    match (time.0 >> STEP_BITS).saturating_add(2) {
        LAST.. => FOR_GOOD,
        steps => steps.max(0) as Steps,
    }
}

impl<T: Copy + Eq + Hash> Dated<T> {
    /// Keeps a number at least until the watermark has passed `time`.
    #[inline]
    pub(super) fn keep(&mut self, n: u32, time: EventTime) {
        let (mark, until) = (&mut self.marks[n as usize], steps(time));
        // Most are kept for as long already, and nothing is written.
        if *mark < until {
            *mark = until;
        }
    }

    /// Keeps all numbers in use at least until the watermark has passed `time`.
    pub(super) fn keep_all(&mut self, time: EventTime) {
        let until = steps(time);
        // Those that are free have the largest mark.
        self.marks.iter_mut().for_each(|mark| *mark = until.max(*mark));
    }

    /// Forgets, now and then, what was to be kept until a time before `watermark`; all at the end of time.
    pub(super) fn forget_before(&mut self, watermark: EventTime) {
        let now = match watermark {
            EventTime::MAX => FREE,
            watermark => (watermark.0 >> STEP_BITS).clamp(0, i64::from(FOR_GOOD)) as Steps,
        };
        if now < self.keeping.look_at {
            return;
        }
        self.keeping.look_at = now.saturating_add(BETWEEN_LOOKS);
        for n in 0..self.marks.len() {
            if self.marks[n] < now {
                self.forget(n as u32);
                self.marks[n] = FREE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// A value has its number for as long as it is kept; no two have the same; at the end none has one.
        #[test]
        fn a_number_stands_for_its_value_until_its_time(
            steps in proptest::collection::vec((0u64..300, 0i64..20_000_000, 0i64..900_000), 1..1_000),
        ) {
            let (mut dated, mut kept) = (Dated::default(), std::collections::BTreeMap::new());
            let mut watermark = 1_768_435_200_000;
            for (value, keep_ms, forward_ms) in steps {
                let n = dated.intern(value);
                let until = watermark + keep_ms;
                dated.keep(n, EventTime(until));
                let (number, last) = *kept.get(&value).unwrap_or(&(n, until));
                assert_eq!((n, dated.get(n)), (number, value));
                kept.insert(value, (n, until.max(last)));
                watermark += forward_ms;
                kept.retain(|_, (_, until)| *until >= watermark);
                dated.forget_before(EventTime(watermark));
                let numbers: std::collections::BTreeSet<u32> = kept.values().map(|(n, _)| *n).collect();
                assert_eq!(numbers.len(), kept.len(), "one number, one value");
                for (value, (n, _)) in &kept {
                    assert_eq!(dated.get(*n), *value);
                }
            }
            dated.forget_before(EventTime::MAX);
            assert_eq!(dated.len(), 0);
        }
    }

    #[test]
    fn what_is_over_is_forgotten_and_its_number_given_out_again() {
        let hour = 3_600_000;
        let mut dated = Dated::default();
        let [a, b] = ["a", "b"].map(|value| dated.intern(value));
        dated.keep(a, EventTime(hour));
        dated.keep(b, EventTime(9 * hour));
        dated.keep(b, EventTime(hour));
        dated.forget_before(EventTime(hour));
        assert_eq!(dated.len(), 2, "the watermark has not passed it");
        dated.forget_before(EventTime(2 * hour));
        assert_eq!((dated.len(), dated.intern("b"), dated.intern("c")), (1, b, a));
        dated.keep_all(EventTime(20 * hour));
        dated.forget_before(EventTime(19 * hour));
        assert_eq!((dated.len(), dated.get(a)), (2, "c"));
    }

    #[test]
    fn no_time_is_too_large_or_too_small() {
        let mut dated = Dated::default();
        let [before, after] = [EventTime(i64::MIN), EventTime(i64::MAX)].map(|time| {
            let n = dated.intern(time.0);
            dated.keep(n, time);
            n
        });
        assert_ne!(before, after);
        dated.forget_before(EventTime(i64::MIN));
        assert_eq!(dated.len(), 2);
        dated.forget_before(EventTime(i64::MAX - 1));
        assert_eq!((dated.len(), dated.get(after)), (1, i64::MAX));
        dated.forget_before(EventTime::MAX);
        assert_eq!(dated.len(), 0);
    }
}
