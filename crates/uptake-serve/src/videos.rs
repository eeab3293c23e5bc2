//! What is known of a video, why it stands where it does, and where a request counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde_json::{Value, json};
use uptake_model::{RequestId, TallyRow};

use crate::access::Admin;
use crate::app::App;
use crate::ids::Signed;
use crate::problem::{Answer, Problem};
use crate::rows::serve::{Asked, stored_segment};

/// The segment that is asked for, as the table names it, and a video's tallies there, oldest first.
pub(crate) fn tallies(app: &App, id: &str, asked: &Asked) -> Answer<(String, Vec<TallyRow>)> {
    let segment = stored_segment(app, &asked.segment)?;
    let rows = app.tables.with(|table| table.video(id, &segment));
    let rows = rows.map_err(|error| app.table_away(&error))?.unwrap_or_default();
    match rows.is_empty() {
        true => Err(Problem::new(404, "no-tally", "nothing of this video counted in this segment")),
        false => Ok((segment, rows)),
    }
}

/// The tallies of a video, epoch by epoch, oldest first.
#[utoipa::path(get, path = "/v1/videos/{id}", tag = "videos",
    params(("id" = String, Path, description = "The video's id"),
        ("segment" = Option<String>, Query, description = "As country=BR,device=tv")),
    responses((status = 200, description = "Its series", body = Object), (status = 404, description = "It has no tally"),
        (status = 400, description = "A segment that is not kept")))]
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Value>> {
    let asked = Asked::checked(query)?;
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let (segment, rows) = tallies(&for_it, &id, &asked)?;
        let epochs: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "epoch": row.epoch, "start": for_it.epochs(row.epoch), "plays": row.counts.plays,
                    "impressions": row.counts.impressions, "exact": row.counts.exact, "sealed": row.sealed,
                })
            })
            .collect();
        let title = for_it.catalogue().get(&id).map(|title| title.title.clone());
        Ok(Json(json!({ "video_id": id, "title": title, "segment": segment, "epochs": epochs })))
    })
    .await
}

/// Why a video stands where it does in the rows, or what it lacks.
#[utoipa::path(get, path = "/v1/videos/{id}/why", tag = "videos",
    params(("id" = String, Path, description = "The video's id"),
        ("segment" = Option<String>, Query, description = "As country=BR,device=tv")),
    responses((status = 200, description = "Its numbers", body = Object),
        (status = 400, description = "A segment that is not kept")))]
pub(crate) async fn why(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Value>> {
    let asked = Asked::checked(query)?;
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let segment = stored_segment(&for_it, &asked.segment)?;
        let why = for_it.choosing(|choice| {
            for_it.tables.with(|table| for_it.board.rows().why(table, &segment, &id, choice))
        });
        let why = why.map_err(|error| for_it.table_away(&error))?;
        let why = why.unwrap_or_else(|| json!({ "known": false, "lacks": "there is no table yet" }));
        let scorer = for_it.board.rows().scorer();
        Ok(Json(json!({ "video_id": id, "segment": segment, "scorer": scorer, "why": why })))
    })
    .await
}

/// In which tallies a request counts: by its id, bare or signed. Reads every stored set.
#[utoipa::path(get, path = "/v1/explain/request/{id}", tag = "videos",
    params(("id" = String, Path, description = "The request id")),
    responses((status = 200, description = "The sealed tallies it counts in", body = Object),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn explain(
    // It reads the whole table, so not everyone may ask for it.
    _: Admin,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let bare = match for_it.signer.check(&id) {
            Signed::By { id, .. } => id,
            _ => &id,
        };
        let request = RequestId::from_text(bare.as_bytes());
        let found = for_it.tables.with(|table| table.find_request(request));
        let found = found.map_err(|error| for_it.table_away(&error))?.unwrap_or_default();
        let (certain, possible): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.is_certain());
        let tallies: Vec<Value> = certain
            .iter()
            .map(|found| {
                json!({
                    "video_id": found.video_id, "segment": found.segment, "epoch": found.epoch,
                    "start": for_it.epochs(found.epoch), "shown": found.shown, "played": found.played,
                })
            })
            .collect();
        Ok(Json(json!({
            "request_id": request.to_string(), "tallies": tallies, "sketches_not_asked": possible.len(),
            "note": "only sealed epochs keep their requests",
        })))
    })
    .await
}
