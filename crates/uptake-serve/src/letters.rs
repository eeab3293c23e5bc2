//! Dead letters: what could not be used, to be looked at, and after a fix to be read again.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::access::Admin;
use crate::app::App;
use crate::problem::{Answer, Problem};

/// The most letters that are listed.
const LISTED_MAX: usize = 200;

/// Which are to be listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listed {
    /// How many of the newest, at most 200; 50 where it is not said.
    limit: Option<usize>,
}

/// Which are to be appended again.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Again {
    /// Only those for this reason, as unknown-kind.
    reason: Option<String>,
    /// Append nothing: say how many could be used now.
    #[serde(default)]
    dry_run: bool,
}

/// What could not be used: how many by reason, and the newest.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "operations", params(Listed),
    responses((status = 200, description = "Counts by reason, and letters", body = Object),
        (status = 400, description = "A limit that is none"), (status = 401, description = "Not the admin token")))]
pub(crate) async fn list(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<Listed>, QueryRejection>,
) -> Answer<Json<Value>> {
    let Query(Listed { limit }) = query.map_err(|error| Problem::new(400, "bad-query", error.body_text()))?;
    let limit = limit.unwrap_or(50);
    if !(1..=LISTED_MAX).contains(&limit) {
        return Err(Problem::new(400, "bad-query", format!("limit is a number from 1 to {LISTED_MAX}")));
    }
    let for_it = Arc::clone(&app);
    app.blocking(move || for_it.books.dead_letters(limit).map(Json).map_err(|what| away(&for_it, &what)))
        .await
}

/// Appends those that the configuration of this server can read now to the input again, each once.
#[utoipa::path(post, path = "/v1/dead-letters/replay", tag = "operations", request_body = Again,
    responses((status = 200, description = "What became of them", body = Object),
        (status = 400, description = "Not JSON, or no such reason"), (status = 401, description = "Not the admin token"),
        (status = 415, description = "Not application/json"), (status = 422, description = "Not these fields")))]
pub(crate) async fn replay(
    _: Admin,
    State(app): State<Arc<App>>,
    again: Result<Json<Again>, JsonRejection>,
) -> Answer<Json<Value>> {
    let Json(Again { reason, dry_run }) =
        again.map_err(|error| Problem::new(error.status().as_u16(), "bad-replay", error.body_text()))?;
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        if let Some(reason) = &reason
            && !uptake_model::Reason::ALL.iter().any(|known| known.name() == reason)
        {
            return Err(Problem::new(400, "no-such-reason", format!("there is no reason {reason:?}")));
        }
        let done = for_it.books.replay_dead_letters(reason.as_deref(), dry_run);
        done.map(Json).map_err(|what| away(&for_it, &what))
    })
    .await
}

fn away(app: &App, what: &str) -> Problem {
    app.metrics.say(&format!("cannot do with the dead letters what was asked: {what}"));
    Problem::new(503, "log-away", "the log cannot be read or written now").retry_after(5)
}
