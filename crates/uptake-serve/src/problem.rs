//! What went wrong, as RFC 9457 says it: every answer of 400 and above has this form.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// A problem, to be answered with.
///
/// ```
/// use uptake_serve::problem::Problem;
/// let problem = Problem::new(413, "body-too-large", "the body has more than 1048576 bytes");
/// assert_eq!(problem.json()["type"], "urn:uptake:problem:body-too-large");
/// assert_eq!(problem.json()["status"], 413);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
}

/// What a handler returns.
pub(crate) type Answer<T> = Result<T, Problem>;

impl Problem {
    /// A problem with a stable name, which scripts may go by, and a sentence for people.
    pub fn new(status: u16, name: &'static str, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, name, detail: detail.into(), retry_after_s: None }
    }

    /// The same request may succeed in so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The body.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "type": format!("urn:uptake:problem:{}", self.name),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Gives what the routing itself refuses (404, 405, a malformed query) the form of a problem.
pub(crate) async fn in_one_form(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 4_096).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&text).trim().to_owned();
    let (name, usual) = match status.as_u16() {
        404 => ("not-found", "there is nothing at this address"),
        405 => ("method-not-allowed", "this address does not take that method"),
        408 => ("timeout", "the request took too long"),
        _ => ("refused", "the request cannot be understood"),
    };
    let detail = if said.is_empty() { usual.to_owned() } else { said };
    let mut answer = Problem::new(status.as_u16(), name, detail).into_response();
    for (key, value) in &parts.headers {
        if key != header::CONTENT_TYPE && key != header::CONTENT_LENGTH {
            answer.headers_mut().insert(key, value.clone());
        }
    }
    answer
}

/// A defect of ours is answered, not a closed connection.
#[allow(clippy::needless_pass_by_value, reason = "the layer passes it so")]
pub(crate) fn of_panic(_: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    Problem::new(500, "defect", "the server met a defect of its own; the request was not finished")
        .into_response()
}
