//! A program that claims plays of one title: with the request id of a page that it was served, over and over, and with
//! ids of pages that never were.

use serde_json::{Value, json};
use uptake_model::RequestId;
use uptake_sim::{Season, Seen};

use super::site::Served;
use super::{MARK, request_of};

/// How many plays it claims at once.
pub(super) const CLAIMS: usize = 50;
/// About so often all titles of the season are looked up in an hour: by that it is scaled to a site's visits.
const ALL_VIEWS: f64 = 200_000.0;
/// It asks for a new page every half hour of the season.
const PAGE_MS: i64 = 30 * 60_000;

/// One that was served a page.
pub(super) struct Robot {
    page: i64,
    token: String,
    request: u64,
    served_at: i64,
    /// Epochs for which the truth knows of its play.
    known: Vec<i64>,
}

/// The title that is a robot's.
pub(super) fn title() -> Option<u16> {
    Season::real().shows().iter().position(|show| show.is_robots).map(|show| show as u16)
}

/// How many bodies of claims it sends in `passed` milliseconds of the season, to a site of so many visits an hour.
pub(super) fn bodies(show: u16, season: i64, passed: i64, visits: f64) -> f64 {
    let per_hour = f64::from(Season::real().robots(show, season)) / ALL_VIEWS * visits;
    per_hour * passed as f64 / 3.6e6 / CLAIMS as f64
}

impl Robot {
    /// The number of the page that it has at this time of the season.
    pub(super) fn page_at(season: i64) -> i64 {
        season.div_euclid(PAGE_MS)
    }

    /// Whether it has to ask for another page.
    pub(super) fn is_of(&self, page: i64) -> bool {
        self.page == page
    }

    /// The request of its page.
    pub(super) fn request(&self) -> u64 {
        self.request
    }

    pub(super) fn new(page: i64, served: Served) -> Self {
        let request = request_of(&served.request_id);
        Self { page, token: served.request_id, request, served_at: served.served_at, known: Vec::new() }
    }

    /// A body of claims at `now`, and what of it is new to the truth: the first play of a title in an epoch, and its
    /// impression. `made_up` gives request ids that nobody was served.
    pub(super) fn claim(
        &mut self,
        show: u16,
        now: i64,
        epoch_ms: i64,
        mut made_up: impl FnMut() -> u64,
    ) -> (Vec<u8>, Vec<(u64, Seen)>) {
        let (id, since) = (Season::real().shows()[usize::from(show)].id, now - self.served_at);
        let mut body = vec![json!({
            "kind": "impression", "request_id": self.token, "video_id": id, "since_row_ms": 0, "timestamp": now, MARK: true,
        })];
        body.extend((0..CLAIMS).map(|n| {
            let (token, since) = match n % 2 {
                0 => (self.token.clone(), since),
                _ => (RequestId(made_up()).to_string(), 0),
            };
            json!({
                "kind": "play", "request_id": token, "video_id": id, "since_row_ms": since, "timestamp": now,
                MARK: true,
            })
        }));
        let epoch = now.div_euclid(epoch_ms);
        let mut events = Vec::new();
        if !self.known.contains(&epoch) {
            self.known.push(epoch);
            let seen = |is_play, stamp_ms| (self.request, Seen { title: show, is_play, stamp_ms });
            events.extend([seen(false, self.served_at), seen(true, now)]);
        }
        (Value::Array(body).to_string().into_bytes(), events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_it_claims_one_play_an_epoch_is_new() {
        let show = title().unwrap();
        let night = Season::MOMENTS[3].at_ms + 3 * 3_600_000;
        assert!(bodies(show, night, 3_600_000, 1_000.0) > 5.0);
        assert_eq!(bodies(show, night - 24 * 3_600_000, 3_600_000, 1_000.0), 0.0);
        let served = Served {
            request_id: "00000000000000ff".to_owned(),
            served_at: night,
            epoch: None,
            items: Vec::new(),
        };
        let mut robot = Robot::new(Robot::page_at(night), served);
        assert!(robot.is_of(Robot::page_at(night)) && !robot.is_of(Robot::page_at(night + PAGE_MS)));
        let epoch = 1_800_000;
        let (body, events) = robot.claim(show, night + 1_000, epoch, || 7);
        let body: Vec<Value> = serde_json::from_slice(&body).unwrap();
        assert_eq!((body.len(), events.len()), (CLAIMS + 1, 2));
        assert_eq!(
            body.iter().filter(|event| event["request_id"] == "00000000000000ff").count(),
            CLAIMS / 2 + 1
        );
        assert!(robot.claim(show, night + 2_000, epoch, || 7).1.is_empty());
        assert_eq!(robot.claim(show, night + epoch, epoch, || 7).1.len(), 2, "another epoch");
    }
}
