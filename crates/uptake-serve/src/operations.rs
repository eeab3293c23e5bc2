//! For those who run it: the pipeline's books, whether we are well, all numbers, and the API in writing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::app::App;
use crate::collect::{Verdict, Verdicts};
use crate::problem::{Answer, Problem};
use crate::rows::Item;
use crate::rows::serve::Served;
use crate::rules::{ActionSchema, Entry, RuleSchema};

/// How far a partition of the input was read, as the newest checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadUpTo {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset to be read next.
    pub offset: u64,
}

/// Knows what the pipeline did, as of its newest checkpoint.
pub trait Books: Send + Sync {
    /// The ledger, the watermark and the checkpoint as JSON, and how far each partition was read;
    /// `None` where nothing was run yet.
    ///
    /// # Errors
    /// They cannot be read.
    fn newest(&self) -> Result<Option<(Value, Vec<ReadUpTo>)>, String>;

    /// How many dead letters there are, by reason, and the newest `limit` of them.
    ///
    /// # Errors
    /// The log cannot be read.
    fn dead_letters(&self, limit: usize) -> Result<Value, String>;

    /// Appends dead letters that can be used by now to the input again; only counts them if `dry_run`.
    ///
    /// # Errors
    /// There is no such reason, or the log cannot be read or written.
    fn replay_dead_letters(&self, reason: Option<&str>, dry_run: bool) -> Result<Value, String>;
}

/// What became of every record, how far the pipeline is behind, and its watermark.
#[utoipa::path(get, path = "/v1/pipeline", tag = "operations",
    responses((status = 200, description = "As of the newest checkpoint", body = Object),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn pipeline(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer<Json<Value>> {
    app.access.check_admin(&headers)?;
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let newest = for_it.books.newest().map_err(|what| {
            for_it.metrics.say(&format!("cannot read the checkpoints: {what}"));
            Problem::new(503, "checkpoints-away", "the checkpoints cannot be read now").retry_after(5)
        })?;
        let (books, read) = newest.map_or((Value::Null, Vec::new()), |(books, read)| (books, read));
        let log_away = |error: uptake_connectors::LogError| {
            for_it.metrics.say(&format!("cannot read the log: {error}"));
            Problem::new(503, "log-away", "the log cannot be read now").retry_after(5)
        };
        let mut lags = Vec::new();
        let mut lag_sum = 0;
        for topic in &for_it.input_topics {
            for partition in 0..for_it.log.partitions(topic).map_err(log_away)? {
                let end = for_it.log.end_offset(topic, partition).map_err(log_away)?;
                let is_it = |up_to: &&ReadUpTo| up_to.topic == *topic && up_to.partition == partition;
                let offset = read.iter().find(is_it).map_or(0, |up_to| up_to.offset);
                let lag = end.saturating_sub(offset);
                lag_sum += lag;
                lags.push(json!({ "topic": topic, "partition": partition, "read_up_to": offset, "end": end, "lag": lag }));
            }
        }
        Ok(Json(json!({
            "newest_checkpoint": books, "lag": lag_sum, "partitions": lags, "row_age_ms": for_it.row_age.ages(),
        })))
    })
    .await
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It runs")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests should come here: log and table can be read, and no stop was asked for.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "Yes"), (status = 503, description = "Not now")))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Answer<&'static str> {
    if *app.stopping.borrow() {
        return Err(Problem::new(503, "stopping", "the server is stopping").retry_after(5));
    }
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let log = for_it.log.end_offset(&for_it.input.topics[0], 0).map(|_| ());
        log.map_err(|error| {
            for_it.metrics.say(&format!("cannot read the log: {error}"));
            Problem::new(503, "log-away", "the log cannot be read now").retry_after(5)
        })?;
        for_it.tables.with(|_| Ok(())).map_err(|error| for_it.table_away(&error))?;
        Ok("ready\n")
    })
    .await
}

/// All numbers, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "OpenMetrics text")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        app.metrics.text(),
    )
}

/// The API in writing.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Uptake",
        description = "Events in, rows out. Every answer of 400 and above is a problem of RFC 9457."
    ),
    paths(
        crate::collect::events,
        crate::rows::serve::row,
        crate::rows::stream::stream,
        crate::rows::inspect::inspect,
        crate::videos::series,
        crate::videos::why,
        crate::timeline::timeline,
        crate::videos::explain,
        crate::rules::list,
        crate::rules::audit,
        crate::rules::add,
        crate::rules::remove,
        crate::letters::list,
        crate::letters::replay,
        pipeline,
        healthz,
        readyz,
        metrics
    ),
    components(schemas(Verdicts, Verdict, Served, Item, RuleSchema, ActionSchema, Entry))
)]
struct Api;

/// The API as OpenAPI 3.1.
pub(crate) async fn openapi() -> Json<Value> {
    Json(serde_json::to_value(Api::openapi()).unwrap_or_default())
}
