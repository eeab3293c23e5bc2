//! The collector: events in over HTTP, durable in the log when they are answered.
//!
//! A body is read, decompressed and split within bounds; each event gets its verdict; those that
//! are taken go to the partition of their request as `uptake append` would put them. The same
//! body again changes nothing in the tallies, so whoever got no answer may simply send it again.

#[cfg(test)]
#[path = "../../../../fuzz/src/bodies.rs"]
mod bodies;
mod body;
#[cfg(test)]
#[path = "../../../../fuzz/src/damaged.rs"]
mod damaged;
mod judge;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uptake_model::Kind;

use crate::app::App;
use crate::problem::{Answer, Problem};

pub(crate) use judge::Judge;
pub(crate) use writer::{Batch, NotWritten, Writer};

/// The header in which a client that sends no envelope says what it is, as `app/7.1`.
pub(crate) const CLIENT: &str = "uptake-client";

/// What became of the events of a body, in their order.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Verdicts {
    /// How many are in the log.
    accepted: u64,
    /// How many never will be.
    refused: u64,
    /// One for each event.
    items: Vec<Verdict>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Verdict {
    /// `accepted` or `refused`.
    status: &'static str,
    /// Why it was refused: a stable name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Takes events: an object, an array, lines (NDJSON), or a beacon's envelope.
#[utoipa::path(
    post, path = "/v1/events", tag = "collector",
    request_body(content = String, content_type = "application/json",
        description = "An event, an array of events, NDJSON, or {\"events\":[…],\"sent\":…,\"key\":…,\"client\":…}; also as \
                       application/x-ndjson and text/plain; content-encoding gzip or zstd"),
    responses(
        (status = 202, description = "A verdict for each event; the accepted ones are in the log", body = Verdicts),
        (status = 400, description = "No event, or a body that is not what its headers say"),
        (status = 401, description = "No write key, or a wrong one"),
        (status = 413, description = "Too many bytes or events"),
        (status = 415, description = "Not a content type or encoding that is taken"),
        (status = 429, description = "Too many requests from this key or address"),
        (status = 503, description = "The log is away or too much waits; send the same again"),
    )
)]
pub(crate) async fn events(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Answer<Response> {
    check_content_type(&headers)?;
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?").to_owned());
    let encoding = encoding.filter(|e| !e.trim().is_empty() && !e.trim().eq_ignore_ascii_case("identity"));
    app.access.check_before_reading(&headers, encoding.is_some())?;
    let room = room(&app, &headers, encoding.is_some())?;
    let raw = read(&app, body).await?;
    let max = app.settings.decoded_bytes_max;
    let plain = match &encoding {
        Some(encoding) => body::decompressed(&raw, encoding, max)?.into(),
        None => raw,
    };
    let items = body::split(&plain, app.settings.events_max)?;
    app.access.check_write_key(&headers, items.key.as_deref())?;
    let judged = app.judge.all(&items.events, items.sent, app.now().0, &app.metrics);
    let mut verdicts = Verdicts { accepted: 0, refused: 0, items: Vec::with_capacity(judged.len()) };
    let mut groups: BTreeMap<(usize, u32), Batch> = BTreeMap::new();
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut played: Vec<String> = Vec::new();
    let mut kinds = [0u64; 2];
    for judged in judged {
        match judged {
            Ok(taken) => {
                kinds[usize::from(taken.kind == Kind::Play)] += 1;
                let topic = app.input.of(taken.kind);
                let partition = taken.request.partition(app.input.partitions[topic]);
                let batch = groups.entry((topic, partition)).or_insert_with(|| Batch {
                    topic: Arc::clone(&app.input.topics[topic]),
                    partition,
                    records: Vec::new(),
                });
                batch.records.push(taken.record);
                played.extend(taken.played);
                verdicts.accepted += 1;
                verdicts.items.push(Verdict { status: "accepted", reason: None });
            }
            Err(reason) => {
                *reasons.entry(reason).or_default() += 1;
                verdicts.refused += 1;
                verdicts.items.push(Verdict { status: "refused", reason: Some(reason) });
            }
        }
    }
    // What is taken is counted anew, as what waits.
    drop(room);
    let header = headers.get(CLIENT).and_then(|value| value.to_str().ok());
    let client = app.metrics.client(items.client.as_deref().or(header));
    match app.writer.append(groups.into_values().collect()).await {
        Ok(()) => played.iter().for_each(|video| app.row_age.took(video, || app.plays(video))),
        Err(NotWritten::Full) => {
            app.metrics.events("turned-away", verdicts.accepted);
            let detail = "too many events wait to be written; send the same again";
            return Err(Problem::new(503, "busy", detail).retry_after(1));
        }
        Err(NotWritten::Failed) => {
            app.metrics.events("not-written", verdicts.accepted);
            let detail = "the log does not take the events now; send the same again";
            return Err(Problem::new(503, "log-away", detail).retry_after(5));
        }
    }
    app.metrics.events("accepted", verdicts.accepted);
    ["impression", "play"]
        .into_iter()
        .zip(kinds)
        .for_each(|(kind, count)| app.metrics.of_client(&client, kind, count));
    for (reason, count) in reasons {
        app.metrics.events(reason, count);
        app.metrics.of_client(&client, reason, count);
    }
    Ok((StatusCode::ACCEPTED, Json(verdicts)).into_response())
}

/// The topics of the input: that of impressions and that of plays, which may be one.
pub(crate) struct InputTopics {
    pub(crate) topics: [Arc<str>; 2],
    pub(crate) partitions: [u32; 2],
}

impl InputTopics {
    fn of(&self, kind: Kind) -> usize {
        usize::from(kind == Kind::Play && self.topics[0] != self.topics[1])
    }
}

fn check_content_type(headers: &HeaderMap) -> Answer<()> {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    let kind = kind.unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        ""
        | "text/plain"
        | "application/json"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl" => Ok(()),
        other => {
            let detail = format!(
                "content-type {other:?} is none of application/json, application/x-ndjson, text/plain"
            );
            Err(Problem::new(415, "unknown-content-type", detail))
        }
    }
}

/// Room for the bytes of this body among those that are being read: as many as it says it has, or
/// as it may have.
fn room(app: &App, headers: &HeaderMap, is_compressed: bool) -> Answer<tokio::sync::OwnedSemaphorePermit> {
    let max = app.settings.body_bytes_max;
    let said = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|bytes| bytes > max) {
        return Err(body::too_large(max));
    }
    let more = if is_compressed { app.settings.decoded_bytes_max } else { 0 };
    let wanted = u32::try_from(said.unwrap_or(max) + more).unwrap_or(u32::MAX);
    Arc::clone(&app.bodies).try_acquire_many_owned(wanted).map_err(|_| {
        Problem::new(503, "busy", "too many bodies are being read; send the same again").retry_after(1)
    })
}

async fn read(app: &App, body: Body) -> Answer<axum::body::Bytes> {
    let max = app.settings.body_bytes_max;
    let reading = axum::body::to_bytes(body, max);
    match tokio::time::timeout(app.settings.read_timeout, reading).await {
        Err(_) => Err(Problem::new(408, "timeout", "the body did not arrive in time")),
        Ok(Ok(bytes)) => Ok(bytes),
        // Of the two ways in which reading fails the other one leaves nobody to answer.
        Ok(Err(_)) => Err(body::too_large(max)),
    }
}
