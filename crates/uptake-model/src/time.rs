//! Event time and the half hours it is cut into.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When something happened on the member's device: milliseconds since 1970-01-01T00:00 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event.
    pub const MIN: Self = Self(i64::MIN);
    /// After every event.
    pub const MAX: Self = Self(i64::MAX);
    /// The last millisecond of the year 9999, the latest time an event may carry.
    pub const LATEST: Self = Self(253_402_300_799_999);

    /// This time and `ms` milliseconds, without overflow.
    #[inline]
    pub fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This time less `ms` milliseconds, without overflow.
    #[inline]
    pub fn minus(self, ms: i64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// RFC 3339 to the millisecond, as `2026-01-15T09:30:00.123Z`.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A half hour of event time (or another configured length): ⌊t / length⌋, counted from 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long an epoch is, in milliseconds of event time.
///
/// ```
/// use uptake_model::{Epoch, EpochLength, EventTime};
/// let half_hour = EpochLength::default();
/// assert_eq!(half_hour.epoch(EventTime(1_768_435_200_123)), Epoch(982_464));
/// assert_eq!(half_hour.label(Epoch(982_464)), "2026-01-15T00-00");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochLength(i64);

impl Default for EpochLength {
    fn default() -> Self {
        Self(30 * 60 * 1000)
    }
}

impl EpochLength {
    /// A length of `ms` milliseconds; `None` unless it is at least one second and at most a week.
    pub fn from_ms(ms: i64) -> Option<Self> {
        (1_000..=7 * 86_400_000).contains(&ms).then_some(Self(ms))
    }

    /// The length in milliseconds.
    pub fn ms(self) -> i64 {
        self.0
    }

    /// The epoch that `time` lies in.
    #[inline]
    pub fn epoch(self, time: EventTime) -> Epoch {
        Epoch(time.0.div_euclid(self.0))
    }

    /// The first instant of `epoch`.
    #[inline]
    pub fn start(self, epoch: Epoch) -> EventTime {
        EventTime(epoch.0.saturating_mul(self.0))
    }

    /// The first instant after `epoch`.
    #[inline]
    pub fn end(self, epoch: Epoch) -> EventTime {
        self.start(epoch).plus(self.0)
    }

    /// The start of `epoch` as a name that sorts by time and is safe in a path:
    /// `2026-01-15T09-30`, with seconds where the length is not in whole minutes.
    pub fn label(self, epoch: Epoch) -> String {
        let format = if self.0 % 60_000 == 0 { "%Y-%m-%dT%H-%M" } else { "%Y-%m-%dT%H-%M-%S" };
        match jiff::Timestamp::from_millisecond(self.start(epoch).0) {
            Ok(t) => t.strftime(format).to_string(),
            Err(_) => format!("n{}", epoch.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_before_1970_round_down() {
        let half_hour = EpochLength::default();
        assert_eq!(half_hour.epoch(EventTime(-1)), Epoch(-1));
        assert_eq!(half_hour.epoch(EventTime(0)), Epoch(0));
        assert_eq!(half_hour.start(Epoch(-1)), EventTime(-1_800_000));
        assert_eq!(half_hour.end(Epoch(-1)), EventTime(0));
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(EventTime(1_768_435_200_123).to_string(), "2026-01-15T00:00:00.123Z");
    }
}
