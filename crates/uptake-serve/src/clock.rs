//! Whose clock says when an event happened: as far as possible ours.
//!
//! A member's clock may be wrong by years, but it counts milliseconds well. So for an event of a
//! row that we served, the time is that of serving plus what the client's monotonic clock counted
//! since; otherwise the time of arrival less what lay between happening and sending.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uptake_model::EventTime;

/// What is known of an event's time, in milliseconds; those of the client by its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// When it arrived, by our clock.
    pub received: i64,
    /// When its row was served, by our clock, as the signed request id says.
    pub served: Option<i64>,
    /// What the client's monotonic clock counted since the row arrived.
    pub since_row: Option<i64>,
    /// When it happened, as the client says.
    pub happened: Option<i64>,
    /// When it was sent, as the client says.
    pub sent: Option<i64>,
}

impl Known {
    /// The event time; `None` where only the client's own word is there, or not even that.
    ///
    /// ```
    /// use uptake_serve::clock::Known;
    /// let known = Known { received: 9_000, served: Some(1_000), since_row: Some(500), ..Known::default() };
    /// assert_eq!(known.event_time(60_000), Some(1_500));
    /// let wrong_clock = Known { received: 9_000, happened: Some(77), sent: Some(80), ..Known::default() };
    /// assert_eq!(wrong_clock.event_time(60_000), Some(8_997));
    /// ```
    pub fn event_time(self, delay_max: i64) -> Option<i64> {
        let Self { received, served, since_row, happened, sent } = self;
        if let (Some(served), Some(since)) = (served, since_row) {
            return Some(served.saturating_add(since.max(0)).min(received.max(served)));
        }
        let (happened, sent) = (happened?, sent?);
        Some(received.saturating_sub(sent.saturating_sub(happened).clamp(0, delay_max.max(0))))
    }

    /// How far the client's clock is behind ours, with the way there.
    pub fn skew(self) -> Option<i64> {
        Some(self.received.saturating_sub(self.sent?))
    }
}

/// Says what time it is where the events happen: read where a request arrives and nowhere below.
pub type Now = Arc<dyn Fn() -> EventTime + Send + Sync>;

/// The system's wall time.
///
/// ```
/// assert!((uptake_serve::clock::system())().0 > 1_700_000_000_000);
/// ```
pub fn system() -> Now {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EventTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_client_says_the_time_is_between_serving_and_arrival() {
        let t = |served, since_row, happened, sent| {
            Known { received: 10_000, served, since_row, happened, sent }.event_time(5_000)
        };
        assert_eq!(t(Some(4_000), Some(1_000), None, None), Some(5_000));
        assert_eq!(t(Some(4_000), Some(i64::MAX), None, None), Some(10_000), "no further than now");
        assert_eq!(t(Some(4_000), Some(-9), None, None), Some(4_000), "not before it was served");
        assert_eq!(t(Some(12_000), Some(5), None, None), Some(12_000), "two servers' clocks");
        assert_eq!(t(None, Some(1_000), Some(50), Some(80)), Some(9_970), "unsigned: no serve time");
        assert_eq!(t(None, None, Some(80), Some(50)), Some(10_000), "happened after it was sent");
        assert_eq!(t(None, None, Some(i64::MIN), Some(i64::MAX)), Some(5_000), "clamped");
        assert_eq!(t(None, None, Some(50), None), None, "a server's word is taken as it is");
        assert_eq!(Known { received: 10, sent: Some(4), ..Known::default() }.skew(), Some(6));
    }
}
