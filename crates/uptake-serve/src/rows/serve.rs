//! Serving a row: rules applied, a request id minted and signed, what was served written down.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use uptake_connectors::log::Record;
use uptake_model::segment;
use uptake_trends::Catalogue;
use uptake_trends::explore::{Random, draw};
use uptake_trends::rows::Groups;

use super::board::{Ready, version};
use super::{Candidate, Item, RowName};
use crate::app::{App, SERVED_ROWS};
use crate::collect::{Batch, NotWritten};
use crate::ids::{new_request, random};
use crate::problem::{Answer, Problem};

/// What a row is asked for with.
#[derive(Clone, Deserialize, Default, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// The segment, as `country=BR,device=tv`; everyone where there is none.
    #[serde(default)]
    pub(crate) segment: String,
    /// How many items, at most 100; 20 where it is not said.
    pub(crate) limit: Option<usize>,
    /// Ids of videos to leave out, with commas between them.
    #[serde(default)]
    pub(crate) exclude: String,
    /// Only titles of this genre, as the catalogue names it.
    pub(crate) genre: Option<String>,
}

/// A row as it is served.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Served {
    /// The signed request id, which comes back with every impression and play of this row.
    request_id: String,
    row: &'static str,
    segment: String,
    /// The epoch that the numbers are of; null where nothing was counted yet.
    epoch: Option<i64>,
    epoch_start: Option<String>,
    /// When it was served, in milliseconds since 1970 UTC.
    served_at: i64,
    scorer: String,
    items: Vec<Item>,
}

/// How long a row waits until it is written down.
const LOGGED_WITHIN: Duration = Duration::from_millis(200);
/// The most ids that are left out.
const EXCLUDED_MAX: usize = 500;

/// The row that a name in an address means.
pub(crate) fn named(name: &str) -> Answer<RowName> {
    crate::rows::of_name(name).ok_or_else(|| {
        Problem::new(
            404,
            "no-such-row",
            format!("there is no row {name:?}; there are popular, loved, trending"),
        )
    })
}

impl Asked {
    pub(crate) fn checked(query: Result<Query<Self>, QueryRejection>) -> Answer<Self> {
        let Query(asked) = query.map_err(|error| Problem::new(400, "bad-query", error.body_text()))?;
        if asked.limit.is_some_and(|limit| !(1..=100).contains(&limit)) {
            return Err(Problem::new(400, "bad-query", "limit is a number from 1 to 100"));
        }
        if asked.segment.len() > 1_024 || asked.excluded().count() > EXCLUDED_MAX {
            let detail =
                format!("a segment has at most 1024 bytes, and at most {EXCLUDED_MAX} videos are left out");
            return Err(Problem::new(400, "bad-query", detail));
        }
        Ok(asked)
    }

    /// Says of a video whether the client wants to see it.
    fn wanted(&self, app: &App) -> impl Fn(&str) -> bool {
        let excluded: HashSet<&str> = self.excluded().collect();
        let (catalogue, genre) = (app.catalogue(), self.genre.as_deref());
        move |video| {
            let has = |genre: &str| {
                let title = catalogue.get(video);
                title.is_some_and(|title| title.genres.iter().any(|of| of.eq_ignore_ascii_case(genre)))
            };
            !excluded.contains(video) && genre.is_none_or(has)
        }
    }

    fn excluded(&self) -> impl Iterator<Item = &str> {
        self.exclude.split(',').map(str::trim).filter(|id| !id.is_empty())
    }
}

/// A row: what is ranked now, with a request id for what comes of it.
#[utoipa::path(
    get, path = "/v1/rows/{name}", tag = "rows",
    params(("name" = String, Path, description = "popular, loved or trending"), Asked),
    responses(
        (status = 200, description = "The row", body = Served),
        (status = 304, description = "The items are those of the given ETag: the earlier request id stays in use"),
        (status = 400, description = "A segment that is not kept, or a limit that is none"),
        (status = 404, description = "There is no row of that name"),
    )
)]
pub(crate) async fn row(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Answer<Response> {
    let name = named(&name)?;
    let asked = Asked::checked(query)?;
    let (segment, ready) = follow(&app, name, &asked).await?;
    let ready = ready.borrow().clone();
    let items = chosen(&app, &asked, &ready);
    let tag = tag(&app, &ready, &items);
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let list = value.to_str().unwrap_or_default();
        list.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == tag || one == "*")
    });
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(serve(&app, name, segment, &asked, &ready, items).await?).into_response()
    };
    let out = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    // Each has a request id of its own, with its time: nobody may keep it for others, and a browser not for a later
    // page, whose events would be told from that time on. Who holds a row may ask with its tag all the same.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The segment as the table names it, and the row, now and as it changes.
pub(crate) async fn follow(
    app: &Arc<App>,
    name: RowName,
    asked: &Asked,
) -> Answer<(String, watch::Receiver<Arc<Ready>>)> {
    if let Some(ready) = app.board.ready(name, &asked.segment) {
        return Ok((asked.segment.clone(), ready));
    }
    let (for_it, asked) = (Arc::clone(app), asked.segment.clone());
    app.blocking(move || {
        let segment = stored_segment(&for_it, &asked)?;
        if let Some(ready) = for_it.board.ready(name, &segment) {
            return Ok((segment, ready));
        }
        loop {
            let ready =
                for_it.choosing(|choice| for_it.board.make_ready(&for_it.tables, name, &segment, choice));
            let ready = ready.map_err(|e| for_it.table_away(&e))?;
            let ranked_by = ready.borrow().rules;
            // A rule that was added while the table was read holds already.
            if ranked_by >= for_it.rules.known().rules.version() {
                return Ok((segment, ready));
            }
        }
    })
    .await
}

/// The segment as the table names it.
pub(crate) fn stored_segment(app: &App, asked: &str) -> Answer<String> {
    if asked.trim().is_empty() {
        return Ok(String::new());
    }
    let stored = app.tables.with(|table| table.segments()).map_err(|error| app.table_away(&error))?;
    let stored = stored.unwrap_or_default();
    let found = segment::find(asked, stored.iter().map(|name| &**name));
    found.map_err(|what| Problem::new(400, "no-such-segment", format!("segment {asked}: {what}")))
}

/// The items that are served, without those that are left out, with what the catalogue says of them.
pub(crate) fn chosen(app: &App, asked: &Asked, ready: &Ready) -> Vec<Item> {
    let (catalogue, wanted) = (app.catalogue(), asked.wanted(app));
    let limit = asked.limit.unwrap_or(20);
    let items = ready.ranked.items.iter().filter(|item| wanted(&item.video_id)).take(limit);
    items.map(|item| described(item, &catalogue)).collect()
}

fn described(item: &Item, catalogue: &Catalogue) -> Item {
    let mut item = item.clone();
    if let Some(title) = catalogue.get(&item.video_id) {
        item.title = Some(title.title.clone()).filter(|text| !text.is_empty());
        item.year = title.year;
        item.genres.clone_from(&title.genres);
    }
    item
}

/// A row as short as this has no place to spare.
const EXPLORED_FROM: usize = 5;

/// Draws the last places of a row anew, for this request alone. Returns whom each was drawn from.
///
/// The row's ETag is that of the row before the draw, so a draw is no news to who has the row.
fn explore(
    app: &App,
    name: RowName,
    asked: &Asked,
    ready: &Ready,
    items: &mut [Item],
) -> Vec<Vec<Candidate>> {
    let mut draws = Vec::new();
    if items.len() < EXPLORED_FROM || !app.settings.explore_rows.contains(&name) {
        return draws;
    }
    let (catalogue, wanted) = (app.catalogue(), asked.wanted(app));
    let is_free = |video: &str| wanted(video) && items.iter().all(|item| *item.video_id != *video);
    let mut from: Vec<Candidate> =
        ready.ranked.candidates.iter().filter(|one| is_free(&one.item.video_id)).cloned().collect();
    let places: Vec<usize> = (0..items.len()).rev().filter(|at| !items[*at].pinned).collect();
    let groups_of = |video: &str| Groups::of(video, &app.settings.rows, &catalogue);
    for at in places.into_iter().take(app.settings.explore_slots) {
        // A genre or a franchise has no more places for a draw.
        let mut groups = Groups::default();
        for (_, item) in items.iter().enumerate().filter(|(other, _)| *other != at) {
            groups.take(&groups_of(&item.video_id));
        }
        from.retain(|one| groups.full(&groups_of(&one.item.video_id)).is_none());
        let Some(bits) = random::<8>() else { break };
        let unit = Random::new(u64::from_le_bytes(bits)).unit();
        let shares: Vec<f64> = from.iter().map(|one| one.share).collect();
        let (whole, Some(drawn)) = (shares.iter().sum::<f64>(), draw(&shares, unit)) else { break };
        from.iter_mut().for_each(|one| one.share /= whole);
        draws.push(from.clone());
        let drawn = from.remove(drawn);
        items[at] = described(&drawn.item, &catalogue);
        (items[at].propensity, items[at].explored) = (drawn.share, true);
    }
    draws
}

/// Says whether two rows show the same; in quotation marks, as an ETag is.
pub(crate) fn tag(app: &App, ready: &Ready, items: &[Item]) -> String {
    format!("\"{:016x}\"", version(app.board.rows().scorer(), ready.ranked.epoch, items))
}

/// Mints the request id and writes down what is served under it.
pub(crate) async fn serve(
    app: &App,
    name: RowName,
    segment: String,
    asked: &Asked,
    ready: &Ready,
    mut items: Vec<Item>,
) -> Answer<Served> {
    let draws = explore(app, name, asked, ready, &mut items);
    let draws: Vec<Value> = draws
        .iter()
        .map(|from| {
            let one = |one: &Candidate| json!({ "video_id": one.item.video_id, "share": one.share, "rate": one.rate });
            from.iter().map(one).collect()
        })
        .collect();
    let request =
        new_request().ok_or_else(|| Problem::new(500, "no-random", "the system gives no random bytes"))?;
    let served_at = app.now().0;
    let list: Vec<_> = (1..)
        .zip(&items)
        .map(|(position, item)| {
            json!({
                "video_id": item.video_id, "position": position, "score": item.score,
                "propensity": item.propensity, "pinned": item.pinned,
                "explored": item.explored,
            })
        })
        .collect();
    let epoch = ready.ranked.epoch;
    let record = json!({
        "request_id": request.to_string(), "served_at": served_at, "row": name.as_str(), "segment": segment,
        "scorer": app.board.rows().scorer(), "epoch": epoch.map(|epoch| epoch.0), "items": list,
        "draws": draws,
    });
    let batch = Batch {
        topic: SERVED_ROWS.into(),
        partition: request.partition(app.served_partitions),
        records: vec![Record::new(request.to_string(), record.to_string())],
    };
    // A row is served also while the log is away. What is not written by then may still be; what never is is counted
    // where it fails, or here where it was not even taken.
    let logging = tokio::time::timeout(LOGGED_WITHIN, app.writer.append(vec![batch])).await;
    if logging == Ok(Err(NotWritten::Full)) {
        app.metrics.rows_unlogged.inc();
    }
    app.metrics.row(name.as_str());
    Ok(Served {
        request_id: app.signer.sign(request, served_at),
        row: name.as_str(),
        segment,
        epoch: epoch.map(|epoch| epoch.0),
        epoch_start: epoch.map(|epoch| app.epochs(epoch)),
        served_at,
        scorer: app.board.rows().scorer().to_owned(),
        items,
    })
}
