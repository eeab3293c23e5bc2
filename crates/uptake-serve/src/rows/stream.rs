//! Rows as they change: server-sent events, resumed by what the client saw last.
//!
//! Each event's id is the version of its row, the same in every process; who comes back with the
//! one that is still current is sent nothing until it changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::RowName;
use super::board::Ready;
use super::serve::{Asked, chosen, follow, named, serve, tag};
use crate::app::App;
use crate::problem::{Answer, Problem};

/// How often something is sent where nothing changes, so that no one in between hangs up.
const HEARTBEAT: Duration = Duration::from_secs(15);

struct Subscriber {
    app: Arc<App>,
    name: RowName,
    segment: String,
    asked: Asked,
    ready: watch::Receiver<Arc<Ready>>,
    stopping: watch::Receiver<bool>,
    last: String,
    is_first: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.app.metrics.streams.dec();
    }
}

/// A row now and whenever it changes, as server-sent events named `row`.
#[utoipa::path(
    get, path = "/v1/rows/{name}/stream", tag = "rows",
    params(
        ("name" = String, Path, description = "popular, loved or trending"),
        Asked,
        ("last-event-id" = Option<String>, Header, description = "The version that was seen last")
    ),
    responses(
        (status = 200, description = "Events named row, each as GET /v1/rows/{name} answers", content_type = "text/event-stream"),
        (status = 400, description = "A segment that is not kept, or a limit that is none"),
        (status = 404, description = "There is no row of that name"),
        (status = 503, description = "There are as many subscribers as are allowed"),
    )
)]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Answer<Response> {
    let name = named(&name)?;
    let asked = Asked::checked(query)?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        Problem::new(503, "too-many-streams", "there are as many subscribers as are allowed").retry_after(30)
    })?;
    let (segment, ready) = follow(&app, name, &asked).await?;
    app.metrics.streams.inc();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let subscriber = Subscriber {
        name,
        segment,
        asked,
        ready,
        stopping: app.stopping.subscribe(),
        last: last.to_owned(),
        is_first: true,
        app,
        _permit: permit,
    };
    let events = futures_util::stream::unfold(subscriber, next);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    // A proxy that gathers the answer would show nothing for ever.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn next(mut one: Subscriber) -> Option<(Result<Event, Infallible>, Subscriber)> {
    loop {
        if *one.stopping.borrow() {
            return None;
        }
        let ready = one.ready.borrow_and_update().clone();
        let items = chosen(&one.app, &one.asked, &ready);
        let version = tag(&one.app, &ready, &items).trim_matches('"').to_owned();
        if version != one.last {
            let served =
                serve(&one.app, one.name, one.segment.clone(), &one.asked, &ready, items).await.ok()?;
            one.last.clone_from(&version);
            let event = Event::default().event("row").id(version).json_data(served).ok()?;
            // Who is cut off comes back after two seconds.
            let event =
                if std::mem::take(&mut one.is_first) { event.retry(Duration::from_secs(2)) } else { event };
            return Some((Ok(event), one));
        }
        tokio::select! {
            changed = one.ready.changed() => changed.ok()?,
            _ = one.stopping.changed() => return None,
        }
    }
}
