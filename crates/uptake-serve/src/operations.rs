//! For those who run it: whether we are well, all numbers, and the API in writing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::OpenApi;

use crate::app::App;
use crate::collect::{Verdict, Verdicts};
use crate::pipeline;
use crate::problem::{Answer, Problem};
use crate::rows::Item;
use crate::rows::serve::Served;
use crate::rules::{ActionSchema, Entry, RuleSchema};

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
    let for_it = Arc::clone(&app);
    // A log that is away leaves the other numbers, and says so.
    let seen = app.blocking(move || pipeline::read(&for_it)).await;
    app.metrics.pipeline.set(seen.ok());
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
        pipeline::pipeline,
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
