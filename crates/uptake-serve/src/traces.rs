//! A span for a request, as a part of the trace that its sender names, if it names one.

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};

/// The name of the scope of uptake's spans.
pub const TRACER: &str = "uptake";

/// A request that is being answered.
pub(crate) struct Answering(BoxedSpan);

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// Begins the span of a request. It says the route as it is written in the API, not what stands in its places:
/// neither ids nor queries are told to whoever receives the spans.
pub(crate) fn begin(method: &Method, route: Option<&str>, headers: &HeaderMap) -> Answering {
    let parent = global::get_text_map_propagator(|known| {
        known.extract_with_context(&Context::new(), &Headers(headers))
    });
    let tracer = global::tracer(TRACER);
    let name = format!("{method} {}", route.unwrap_or("none"));
    let mut about = vec![KeyValue::new("http.request.method", method.to_string())];
    about.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
    let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(about);
    Answering(span.start_with_context(&tracer, &parent))
}

impl Answering {
    /// Ends it with the answer's status.
    pub(crate) fn end(&mut self, status: StatusCode) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}
