//! From a body to its events: decompressed within bounds, and split.

use std::borrow::Cow;
use std::io::Read;

use serde::Deserialize;
use serde_json::value::RawValue;
use uptake_model::decode::TimestampUnit;

use crate::problem::{Answer, Problem};

/// Decompresses a body to at most `bytes_max` bytes: what would be more is refused unread.
///
/// # Errors
/// An encoding we do not take, damaged bytes, or too many.
pub(super) fn decompressed(body: &[u8], encoding: &str, bytes_max: usize) -> Answer<Vec<u8>> {
    let mut found = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = match encoding.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut found),
        "zstd" => match zstd::Decoder::new(body) {
            Ok(mut decoder) => {
                // A frame may ask for a window that has nothing to do with its size.
                match decoder.window_log_max(23) {
                    Ok(()) => decoder.take(limit).read_to_end(&mut found),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        },
        other => {
            let detail = format!("content-encoding {other:?} is none of identity, gzip, zstd");
            return Err(Problem::new(415, "unknown-encoding", detail));
        }
    };
    if found.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    match read {
        Ok(_) => Ok(found),
        Err(error) => {
            Err(Problem::new(400, "damaged-body", format!("the body cannot be decompressed: {error}")))
        }
    }
}

/// The refusal of a body that is too large.
pub(super) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(413, "body-too-large", format!("the body has more than {bytes_max} bytes"))
}

/// The events of a body, as they came, and what was said of all of them.
#[derive(Default)]
pub(super) struct Items<'a> {
    pub(super) events: Vec<&'a [u8]>,
    /// The client's clock when it sent them.
    pub(super) sent: Option<i64>,
    /// The write key, where no header can be set, as with a beacon.
    pub(super) key: Option<Cow<'a, str>>,
    /// Which client sent them, with its version, as it says.
    pub(super) client: Option<Cow<'a, str>>,
}

/// What a beacon sends: it has no headers of its own.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    sent: Option<serde_json::Number>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client: Option<Cow<'a, str>>,
}

/// Splits a body: an object, an array, an envelope `{"events":[…],"sent":…,"key":…,"client":…}`, or lines.
///
/// # Errors
/// It is empty, an array that is no JSON, or has too many events.
pub(super) fn split(body: &[u8], events_max: usize) -> Answer<Items<'_>> {
    let text = body.trim_ascii();
    let items = match text.first() {
        None => return Err(Problem::new(400, "empty-body", "the body holds no event")),
        Some(b'[') if serde_json::from_slice::<&RawValue>(text).is_ok() || !text.contains(&b'\n') => {
            let events: Vec<&RawValue> = serde_json::from_slice(text)
                .map_err(|error| Problem::new(400, "not-json", format!("the array is no JSON: {error}")))?;
            Items { events: events.into_iter().map(bytes).collect(), ..Items::default() }
        }
        Some(b'{') if let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(text) => Items {
            events: envelope.events.into_iter().map(bytes).collect(),
            sent: envelope.sent.and_then(|sent| TimestampUnit::Ms.milliseconds(&sent.into())),
            key: envelope.key,
            client: envelope.client,
        },
        // One event over several lines, as a person writes it.
        Some(b'{') if text.contains(&b'\n') && serde_json::from_slice::<&RawValue>(text).is_ok() => {
            Items { events: vec![text], ..Items::default() }
        }
        _ => {
            let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            let events = lines.filter(|line| !line.is_empty()).take(events_max + 1).collect();
            Items { events, ..Items::default() }
        }
    };
    if items.events.len() > events_max {
        let detail = format!("the body has more than {events_max} events; send them in parts");
        return Err(Problem::new(413, "too-many-events", detail));
    }
    Ok(items)
}

fn bytes(raw: &RawValue) -> &[u8] {
    raw.get().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{bodies, damaged::with_damage};
    use super::*;
    use std::io::Write;

    fn count(body: &str) -> Result<usize, u64> {
        split(body.as_bytes(), 3)
            .map(|items| items.events.len())
            .map_err(|problem| problem.json()["status"].as_u64().unwrap_or(0))
    }

    #[test]
    fn a_body_is_one_event_or_many() {
        assert_eq!(count("{}"), Ok(1));
        assert_eq!(count("{\n \"kind\": 1\n}"), Ok(1), "one event over lines");
        assert_eq!(count("[{},{} , {}]"), Ok(3));
        assert_eq!(count("[\n{},\n{}\n]"), Ok(2));
        assert_eq!(count("[]"), Ok(0));
        assert_eq!(count("{}\n\n{}\r\nnonsense\n"), Ok(3), "one bad line leaves the others");
        assert_eq!(count(r#"{"events":[{},{}],"sent":5.5,"key":"k"}"#), Ok(2));
        assert_eq!(count(""), Err(400));
        assert_eq!(count("[{},"), Err(400));
        assert_eq!(count("[1,2,3,4]"), Err(413));
        assert_eq!(count("{}\n{}\n{}\n{}\n{}"), Err(413));
        let body = br#"{"events":[{}],"sent":1768435200123.9,"key":"a\u0062","client":"app/7"}"#;
        let items = split(body, 3).ok().unwrap();
        assert_eq!(items.client.as_deref(), Some("app/7"));
        assert_eq!((items.sent, items.key.as_deref()), (Some(1_768_435_200_123), Some("ab")));
    }

    #[test]
    fn a_bomb_is_refused_unread() {
        let zeros = vec![0; 4 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&zeros).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&zeros[..], 3).unwrap();
        for (body, name) in [(&gzip, "gzip"), (&zstd, "zstd")] {
            assert_eq!(decompressed(body, name, 1 << 20).unwrap_err().json()["status"], 413);
            assert_eq!(decompressed(body, name, 4 << 20).unwrap().len(), 4 << 20);
            assert_eq!(decompressed(&body[..9], name, 1 << 20).unwrap_err().json()["status"], 400);
        }
        assert_eq!(decompressed(b"", "br", 1).unwrap_err().json()["status"], 415);
    }

    #[test]
    fn any_body_is_refused_with_a_reason_or_split_within_the_bounds() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/bodies");
        let mut count = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let input = std::fs::read(&path).unwrap();
            with_damage(&input, bodies::check);
            count += 1;
        }
        assert!(count >= 19, "only {count} inputs in {}", directory.display());
    }
}
