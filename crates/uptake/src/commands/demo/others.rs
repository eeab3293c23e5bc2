//! What others than the crowd do: whoever has a page open, looks and plays.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use uptake_connectors::LogError;
use uptake_connectors::log::Log;
use uptake_model::RequestId;
use uptake_sim::{Counting, Season, Seen, Truth};

use crate::config::Config;
use crate::crowd::{MARK, Tallies};

/// The most that is read in one go.
const RECORDS: usize = 10_000;
const BYTES: usize = 4 << 20;

/// Their events, as the log has them.
pub(super) struct Others {
    log: Arc<dyn Log>,
    /// Topic, partition, and what is read next.
    places: Vec<(String, u32, u64)>,
    truth: Truth,
}

#[derive(Deserialize)]
struct Event {
    kind: String,
    request_id: String,
    video_id: String,
    timestamp: i64,
}

impl Others {
    /// From now on.
    pub(super) fn new(log: Arc<dyn Log>, config: &Config, counting: Counting) -> Result<Self, LogError> {
        let mut places = Vec::new();
        for topic in &config.input_topics {
            for partition in 0..log.partitions(topic)? {
                places.push((topic.clone(), partition, log.end_offset(topic, partition)?));
            }
        }
        Ok(Self { log, places, truth: Truth::new(counting) })
    }

    /// What of the tallies of some epochs is theirs.
    pub(super) fn tallies(&mut self, epochs: Range<i64>) -> Result<Tallies, LogError> {
        let Self { log, places, truth } = self;
        for (topic, partition, next) in places {
            let end = log.end_offset(topic, *partition)?;
            while *next < end {
                *next = log.read_each(topic, *partition, *next, RECORDS, BYTES, &mut |record| {
                    note(truth, record.value);
                })?;
            }
        }
        let table = truth.table_of(epochs).into_iter();
        Ok(table.map(|(key, of)| (key, (of.played, of.shown, true))).collect())
    }
}

/// Takes in an event of theirs; a title that is not of the season has no tally to compare.
fn note(truth: &mut Truth, value: &[u8]) {
    let is_the_crowds = value.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    let event = (!is_the_crowds).then(|| serde_json::from_slice::<Event>(value).ok()).flatten();
    let Some(event) = event else { return };
    let Some(title) = Season::real().by_id(&event.video_id) else { return };
    let request = RequestId::from_text(event.request_id.as_bytes()).0;
    let seen = Seen { title, is_play: event.kind == "play", stamp_ms: event.timestamp };
    // Nobody knows how many events it will have.
    truth.open_if_new(request, usize::MAX);
    truth.sent(request, seen);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use uptake_connectors::log::{MemoryLog, Record};

    use super::*;

    #[test]
    fn only_what_the_crowd_did_not_do_is_theirs() {
        let config = Config::default();
        let log = Arc::new(MemoryLog::new());
        for topic in &config.input_topics {
            log.create_topic(topic, 1).unwrap();
        }
        let counting = Counting { impressions_alone: true, ..Counting::default() };
        let mut others = Others::new(Arc::<MemoryLog>::clone(&log), &config, counting).unwrap();
        let id = Season::real().shows()[3].id;
        let event = |kind: &str, request: &str, more: &str| {
            let text = format!(
                r#"{{"kind":"{kind}","request_id":"{request}","video_id":"{id}","timestamp":1800001{more}}}"#
            );
            Record::new(request, text)
        };
        let mark = format!(r#","{MARK}":true"#);
        let all = [
            event("impression", "a1", ""),
            event("play", "a1", ""),
            event("play", "a1", ""),
            event("impression", "b2", &mark),
            event("play", "b2", &mark),
            event("play", "c3", ""),
            Record::new("", "not JSON"),
        ];
        log.append(&config.input_topics[0], 0, &all, 0).unwrap();
        assert_eq!(others.tallies(0..9).unwrap(), Tallies::from([((3, 1), (1, 1, true))]));
        assert_eq!(others.tallies(2..9).unwrap(), Tallies::new());
    }
}
