//! The verdict on one event, and the record that it becomes.
//!
//! What is taken is what the pipeline's own decoder can read, so nothing that was accepted here
//! becomes a dead letter there. On the way the request id is checked and bared, the member id
//! becomes a pseudonym, and the time one that we stand for.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Number, Value};
use uptake_connectors::log::Record;
use uptake_model::decode::{DecodeConfig, Decoder, Members, Sink, TimestampUnit};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{DimsHash, Epoch, EpochLength, Event, EventTime, Kind, Reason, RequestId, VideoHash};

use crate::clock::Known;
use crate::ids::{Pseudonyms, Signed, Signer};
use crate::metrics::Metrics;
use crate::settings::{CheckIds, MemberIds, Secrets, Settings};

/// Where the tracker says what its monotonic clock counted since the row arrived.
const SINCE_ROW: &str = "since_row_ms";
/// Where it says when it sent the event, by its own clock.
const SENT: &str = "sent";

/// An event that is taken.
pub(super) struct Taken {
    pub(super) kind: Kind,
    pub(super) request: RequestId,
    pub(super) record: Record,
    /// The video, of a play.
    pub(super) played: Option<String>,
}

/// Judges events.
pub(crate) struct Judge {
    decode: Arc<DecodeConfig>,
    signer: Arc<Signer>,
    pseudonyms: Pseudonyms,
    check_ids: CheckIds,
    member_ids: MemberIds,
    age_max_ms: i64,
    delay_max_ms: i64,
    bytes_max: usize,
    /// Each learns what the clients' records look like; as many as ever judged at once.
    decoders: Mutex<Vec<Decoder>>,
}

impl Judge {
    pub(crate) fn new(
        settings: &Settings,
        secrets: &Secrets,
        decode: &Arc<DecodeConfig>,
        signer: Arc<Signer>,
    ) -> Self {
        Self {
            // What is written here is of the canonical form, whatever else is in the log.
            decode: Arc::new(DecodeConfig { foreign: None, ..(**decode).clone() }),
            signer,
            pseudonyms: Pseudonyms::new(&secrets.member_key),
            check_ids: settings.request_ids,
            member_ids: settings.member_ids,
            age_max_ms: settings.request_age_max_ms,
            delay_max_ms: settings.delay_max_ms,
            bytes_max: settings.event_bytes_max.min(decode.bytes_max),
            decoders: Mutex::default(),
        }
    }

    /// Judges events that arrived together; `Err` is the stable name of the reason.
    pub(super) fn all(
        &self,
        events: &[&[u8]],
        sent: Option<i64>,
        now: i64,
        metrics: &Metrics,
    ) -> Vec<Result<Taken, &'static str>> {
        let free = self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = free.unwrap_or_else(|| {
            let (segments, filters) = (Segments::default(), Filters::none());
            Decoder::new(Arc::clone(&self.decode), &segments, &filters, EpochLength::default(), Members::None)
        });
        let judged = events.iter().map(|event| self.one(event, sent, now, &mut decoder, metrics)).collect();
        self.decoders.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
        judged
    }

    fn one(
        &self,
        bytes: &[u8],
        sent: Option<i64>,
        now: i64,
        decoder: &mut Decoder,
        metrics: &Metrics,
    ) -> Result<Taken, &'static str> {
        if bytes.len() > self.bytes_max {
            return Err(Reason::TooLong.name());
        }
        let mut value = match serde_json::from_slice::<Value>(bytes) {
            Ok(Value::Object(fields)) => self.rewritten(fields, sent, now, metrics)?,
            Ok(_) => return Err(Reason::NotAnObject.name()),
            Err(_) if std::str::from_utf8(bytes).is_err() => return Err(Reason::NotUtf8.name()),
            Err(_) => return Err(Reason::NotJson.name()),
        };
        let record = value.to_string().into_bytes();
        let mut found = Found(Err(Reason::NotAnObject));
        decoder.decode_block(&record, EventTime(now), 0, &mut found);
        let event = found.0.map_err(Reason::name)?;
        let record = Record::new(event.request.to_string(), record);
        let video = at(&mut value, &self.decode.fields.video_id).and_then(|value| value.as_str());
        let played = video.filter(|_| event.kind == Kind::Play).map(str::to_owned);
        Ok(Taken { kind: event.kind, request: event.request, record, played })
    }

    fn rewritten(
        &self,
        mut event: Map<String, Value>,
        sent: Option<i64>,
        now: i64,
        metrics: &Metrics,
    ) -> Result<Value, &'static str> {
        let since_row = event.remove(SINCE_ROW);
        let own_sent = event.remove(SENT);
        let mut event = Value::Object(event);
        let fields = &self.decode.fields;
        let mut served = None;
        if let Some(place) = at(&mut event, &fields.request_id)
            && let Value::String(token) = place
        {
            let (bare, said) = self.request(token, now);
            if let Some(what) = said {
                metrics.request_ids(what);
                if self.check_ids == CheckIds::Require {
                    return Err(what);
                }
            }
            if let Some((id, served_ms)) = bare {
                served = Some(served_ms);
                *token = id;
            }
        }
        let number = |value: Option<Value>| TimestampUnit::Ms.milliseconds(value.as_ref()?);
        let known = Known {
            received: now,
            served,
            since_row: number(since_row),
            happened: at(&mut event, &fields.timestamp)
                .and_then(|place| self.decode.timestamp_unit.milliseconds(place)),
            sent: number(own_sent).or(sent),
        };
        if let Some(skew) = known.skew() {
            metrics.skew(skew);
        }
        if let Some(time) = known.event_time(self.delay_max_ms) {
            put(&mut event, &fields.timestamp, in_unit(time, self.decode.timestamp_unit));
        }
        self.hide_member(&mut event);
        Ok(event)
    }

    /// The bare id and serve time of a request that we signed, and what is wrong with it, if anything.
    fn request(&self, token: &str, now: i64) -> (Option<(String, i64)>, Option<&'static str>) {
        match self.signer.check(token) {
            Signed::By { id, served_ms } => {
                let is_expired = now.saturating_sub(served_ms) > self.age_max_ms;
                (Some((id.to_owned(), served_ms)), is_expired.then_some("expired-request"))
            }
            _ if self.check_ids == CheckIds::Off => (None, None),
            Signed::Forged => (None, Some("forged-request")),
            Signed::Not => (None, Some("unsigned-request")),
        }
    }

    fn hide_member(&self, event: &mut Value) {
        let path = &self.decode.fields.member_id;
        let Some(place) = at(event, path) else { return };
        let member = match (&*place, self.member_ids) {
            (_, MemberIds::Keep) => return,
            (_, MemberIds::Drop) => String::new(),
            (Value::String(text), MemberIds::Pseudonym) => text.clone(),
            (Value::Number(number), MemberIds::Pseudonym) => number.to_string(),
            _ => String::new(),
        };
        *place = match member.is_empty() {
            true => Value::Null,
            false => Value::String(self.pseudonyms.of(&member)),
        };
    }
}

/// The value at a path with dots.
fn at<'a>(event: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(event, |value, name| value.get_mut(name))
}

/// Puts a value at a path with dots; nothing where something else than an object is in the way.
fn put(event: &mut Value, path: &str, value: Value) {
    let (way, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = event;
    for step in way.split('.').filter(|step| !step.is_empty()) {
        let Value::Object(fields) = place else { return };
        place = fields.entry(step).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(fields) = place {
        fields.insert(name.to_owned(), value);
    }
}

fn in_unit(ms: i64, unit: TimestampUnit) -> Value {
    match unit {
        TimestampUnit::Ms => ms.into(),
        TimestampUnit::S => Number::from_f64(ms as f64 / 1e3).map_or(Value::Null, Value::Number),
        TimestampUnit::Us => ms.saturating_mul(1_000).into(),
        TimestampUnit::Ns => ms.saturating_mul(1_000_000).into(),
        TimestampUnit::Rfc3339 => {
            jiff::Timestamp::from_millisecond(ms).map_or(Value::Null, |time| time.to_string().into())
        }
    }
}

/// The event that a record is, or why it is none.
struct Found(Result<Event, Reason>);

impl Sink for Found {
    fn event(&mut self, event: Event) {
        self.0 = Ok(event);
    }
    fn dead(&mut self, _: usize, reason: Reason, _: &[u8]) {
        self.0 = Err(reason);
    }
    fn filtered(&mut self, _: usize) {}
    fn blank(&mut self) {}
    fn video(&mut self, _: VideoHash, _: &str, _: Epoch) {}
    fn dims(&mut self, _: DimsHash, _: &[&str], _: Epoch) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_435_200_000;

    fn judge(mode: CheckIds, unit: TimestampUnit) -> Judge {
        let settings = Settings { request_ids: mode, ..Settings::default() };
        let secrets = Secrets {
            write_keys: Vec::new(),
            admin_token: None,
            request_keys: vec![vec![7; 32]],
            member_key: vec![8; 32],
        };
        let signer = Arc::new(Signer::new(&secrets.request_keys));
        let decode = DecodeConfig { timestamp_unit: unit, ..DecodeConfig::default() };
        Judge::new(&settings, &secrets, &decode.into(), signer)
    }

    fn verdict(judge: &Judge, event: &str) -> Result<Value, &'static str> {
        let taken = judge.all(&[event.as_bytes()], None, NOW, &Metrics::default()).remove(0)?;
        Ok(serde_json::from_slice(&taken.record.value).unwrap())
    }

    #[test]
    fn verdicts() {
        let judge = judge(CheckIds::Report, TimestampUnit::Ms);
        let with = |part: &str| format!(r#"{{"kind":"play","video_id":"v1","timestamp":{NOW},{part}}}"#);
        assert!(verdict(&judge, &with(r#""request_id":"r1""#)).is_ok());
        for (event, reason) in [
            ("nonsense", "not-json"),
            ("[]", "not-an-object"),
            (r#"{"kind":"dance"}"#, "unknown-kind"),
            (&with(r#""request_id":"""#), "no-request-id"),
            (&with(&format!(r#""request_id":"r","x":"{}""#, "x".repeat(17_000))), "too-long"),
            (&with(&format!(r#""request_id":"{}""#, "r".repeat(1_025))), "id-too-long"),
            (r#"{"kind":"play","request_id":"r","video_id":"v"}"#, "no-timestamp"),
            (
                r#"{"kind":"play","request_id":"r","video_id":"v","timestamp":1768435600000}"#,
                "timestamp-in-future",
            ),
        ] {
            assert_eq!(verdict(&judge, event), Err(reason), "{event}");
        }
    }

    #[test]
    fn forged_and_old_requests_are_refused_where_they_must_be_signed() {
        let signer = Signer::new(&[vec![7; 32]]);
        let event = |request: &str| {
            format!(r#"{{"kind":"play","video_id":"v1","timestamp":{NOW},"request_id":"{request}"}}"#)
        };
        let good = event(&signer.sign(RequestId(255), NOW - 5_000));
        let old = event(&signer.sign(RequestId(255), NOW - 7 * 3_600_000));
        let forged = event(&signer.sign(RequestId(255), NOW - 5_000).replace("ff.", "fe."));
        let strict = judge(CheckIds::Require, TimestampUnit::Ms);
        assert_eq!(verdict(&strict, &good).unwrap()["request_id"], "00000000000000ff");
        assert_eq!(verdict(&strict, &old), Err("expired-request"));
        assert_eq!(verdict(&strict, &forged), Err("forged-request"));
        assert_eq!(verdict(&strict, &event("7f3a91c04be2d655")), Err("unsigned-request"));
        let lenient = judge(CheckIds::Report, TimestampUnit::Ms);
        let taken = verdict(&lenient, &forged).unwrap();
        assert_ne!(taken["request_id"], "00000000000000fe", "a forged id is nobody's request");
        assert!(verdict(&lenient, &old).is_ok());
    }

    #[test]
    fn time_and_member_are_ours() {
        let token = Signer::new(&[vec![7; 32]]).sign(RequestId(255), NOW - 5_000);
        for (unit, written) in [
            (TimestampUnit::Ms, serde_json::json!(NOW - 4_250)),
            (TimestampUnit::S, serde_json::json!((NOW - 4_250) as f64 / 1e3)),
            (TimestampUnit::Us, serde_json::json!((NOW - 4_250) * 1_000)),
            (TimestampUnit::Rfc3339, serde_json::json!("2026-01-14T23:59:55.75Z")),
        ] {
            let event = format!(
                r#"{{"kind":"play","video_id":"v1","request_id":"{token}","since_row_ms":750.5,"member_id":"m1"}}"#
            );
            let record = verdict(&judge(CheckIds::Require, unit), &event).unwrap();
            assert_eq!(record["timestamp"], written);
            assert_eq!(record["member_id"].as_str().map(str::len), Some(22));
            assert!(record.get("since_row_ms").is_none());
        }
    }
}
