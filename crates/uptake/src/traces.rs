//! Spans of what the pipeline does beside its workers, by OpenTelemetry: sent as OTLP over HTTP to whoever
//! `traces.url` names, in the background, from a bounded queue. Without it a span costs next to nothing.
//!
//! The SDK's own variables hold too: `OTEL_EXPORTER_OTLP_HEADERS` (a login), `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{Link, Span, SpanKind, Status, TraceId, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample, SpanData};

use crate::outputs::notice;

/// The name of our spans' scope.
pub use uptake_serve::TRACER;

/// How long the end of the program waits for the last spans.
const LAST: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// The receiver's address, without the path of OTLP.
    pub url: String,
    /// Of so many requests to the server one is traced.
    pub every: u64,
}

/// The spans of this process are sent while this lives.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins, if there is somebody to send to.
    ///
    /// # Errors
    /// The address, or a variable of the SDK, cannot be used.
    pub fn start(receiver: Option<&Receiver>) -> Result<Self, ExporterBuildError> {
        let Some(Receiver { url, every }) = receiver else { return Ok(Self(None)) };
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
        let exporter = Telling { exporter, url: url.clone(), away: AtomicBool::new(false) };
        let resource = Resource::builder();
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = if named { resource } else { resource.with_service_name("uptake") };
        let requests = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(1.0 / *every as f64)));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampling { requests })
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        global::set_tracer_provider(provider.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(Some(provider)))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            // Whoever is away was told of already.
            drop(provider.shutdown_with_timeout(LAST));
        }
    }
}

/// One of many requests, and those whose sender says so; all of what the pipeline does.
#[derive(Clone, Debug)]
struct Sampling {
    requests: Sampler,
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if *kind == SpanKind::Server { &self.requests } else { &Sampler::AlwaysOn };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// An exporter whose failures are said, once until it works again: spans are lost then, nothing else.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    url: String,
    away: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let was_away = self.away.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_away => {
                notice(&format!("spans cannot be sent to {}, and are lost meanwhile: {error}", self.url))
            }
            Ok(()) if was_away => notice(&format!("spans are sent to {} again", self.url)),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn attributes(about: &[(&'static str, u64)]) -> Vec<KeyValue> {
    let of = |(name, value): &(&'static str, u64)| {
        KeyValue::new(format!("uptake.{name}"), i64::try_from(*value).unwrap_or(i64::MAX))
    };
    about.iter().map(of).collect()
}

/// Does `work` within a span; an error of it is the span's.
///
/// ```
/// let doubled = uptake::traces::span("doubling", &[("of", 4)], || Ok::<_, std::fmt::Error>(8));
/// assert_eq!(doubled, Ok(8));
/// ```
///
/// # Errors
/// Those of `work`.
pub fn span<T, E: Display>(
    name: &'static str,
    about: &[(&'static str, u64)],
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let tracer = global::tracer(TRACER);
    let mut span = tracer.span_builder(name).with_attributes(attributes(about)).start(&tracer);
    let outcome = work();
    if let Err(error) = &outcome {
        span.set_status(Status::error(error.to_string()));
    }
    span.end();
    outcome
}

/// A span of what began at a time since 1970 UTC, in milliseconds, and took so long.
pub fn span_of(name: &'static str, began_ms: i64, took: Duration, about: &[(&'static str, u64)]) {
    let began = UNIX_EPOCH + Duration::from_millis(u64::try_from(began_ms).unwrap_or(0));
    let tracer = global::tracer(TRACER);
    let span = tracer.span_builder(name).with_start_time(began).with_attributes(attributes(about));
    span.start(&tracer).end_with_timestamp(began + took);
}
