//! A row to be looked at by who is responsible for it: with the numbers of each title, and as it stood before.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde_json::{Value, json};
use uptake_model::EventTime;
use uptake_model::segment::is_reserved;

use super::serve::{Asked, chosen, follow, named};
use crate::app::App;
use crate::problem::Answer;

/// How long ago is "before", in milliseconds.
const BEFORE_MS: i64 = 30 * 60_000;

/// A row as it stands, with the numbers of each title, and as it stood half an hour ago where this server knows. It
/// mints no request id and writes nothing down.
#[utoipa::path(
    get, path = "/v1/rows/{name}/inspect", tag = "rows",
    params(("name" = String, Path, description = "popular, loved or trending"), Asked),
    responses(
        (status = 200, description = "The row with its numbers", body = Object),
        (status = 400, description = "A segment that is not kept, or a limit that is none"),
        (status = 404, description = "There is no row of that name"),
    )
)]
pub(crate) async fn inspect(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Value>> {
    let name = named(&name)?;
    let asked = Asked::checked(query)?;
    let (segment, ready) = follow(&app, name, &asked).await?;
    let ready = ready.borrow().clone();
    let items = chosen(&app, &asked, &ready);
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let now = for_it.now();
        let past = for_it.board.past(name, &segment, EventTime(now.0 - BEFORE_MS));
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let why = for_it.choosing(|choice| {
                for_it.tables.with(|table| for_it.board.rows().why(table, &segment, &item.video_id, choice))
            });
            let why = why.map_err(|error| for_it.table_away(&error))?.unwrap_or_default();
            let before = past.as_ref().map(|past| past.videos.iter().position(|video| *video == item.video_id));
            let before = before.map(|place| place.map(|place| place + 1));
            let of = |key: &str| why.pointer(&format!("/{key}/{}", name.as_str())).cloned().unwrap_or(Value::Null);
            rows.push(json!({ "item": item, "place_before": before, "numbers": of("rows"), "words": of("words") }));
        }
        let segments = for_it.tables.with(|table| table.segments()).map_err(|error| for_it.table_away(&error))?;
        let segments = segments.unwrap_or_default().into_iter().filter(|name| !is_reserved(name));
        let segments: Vec<String> = segments.map(|name| name.to_string()).collect();
        Ok(Json(json!({
            "row": name.as_str(), "segment": segment, "epoch_start": ready.ranked.epoch.map(|epoch| for_it.epochs(epoch)),
            "at": now.0, "before_at": past.map(|past| past.at.0), "segments": segments, "items": rows,
        })))
    })
    .await
}
