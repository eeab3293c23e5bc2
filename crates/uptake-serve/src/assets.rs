//! Files that are part of the program: the tracker, the element, and the pages.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What a page of ours may do: its own scripts and styles, its own server, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Address, content type, bytes.
const FILES: [(&str, &str, &str); 15] = [
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/", "text/html; charset=utf-8", include_str!("assets/watch.html")),
    ("/watch.js", "text/javascript; charset=utf-8", include_str!("assets/built/watch.js")),
    ("/title", "text/html; charset=utf-8", include_str!("assets/title.html")),
    ("/title.js", "text/javascript; charset=utf-8", include_str!("assets/built/title.js")),
    ("/row", "text/html; charset=utf-8", include_str!("assets/row.html")),
    ("/row.js", "text/javascript; charset=utf-8", include_str!("assets/built/row.js")),
    ("/pipeline", "text/html; charset=utf-8", include_str!("assets/pipeline.html")),
    ("/pipeline.js", "text/javascript; charset=utf-8", include_str!("assets/built/pipeline.js")),
    ("/title.css", "text/css; charset=utf-8", include_str!("assets/built/title.css")),
    ("/tracker.js", "text/javascript; charset=utf-8", include_str!("assets/built/tracker.js")),
    ("/trending-row.js", "text/javascript; charset=utf-8", include_str!("assets/built/trending-row.js")),
    ("/docs", "text/html; charset=utf-8", include_str!("assets/docs.html")),
    ("/docs.js", "text/javascript; charset=utf-8", include_str!("assets/docs.js")),
    ("/uptake.css", "text/css; charset=utf-8", include_str!("assets/uptake.css")),
];

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |routes, (address, kind, text)| {
        routes.route(address, get(move || async move { page_file(kind, text) }))
    })
}

/// A file of a page of ours, with the policy that keeps it to its own server.
///
/// ```
/// let answer = uptake_serve::page_file("text/css", "p {}");
/// assert!(answer.headers().contains_key("content-security-policy"));
/// ```
pub fn page_file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text).into_response()
}
