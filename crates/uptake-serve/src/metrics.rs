//! All numbers that the server shows, and the few lines it says: this is the list.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::app::SERVED_ROWS;
use crate::pipeline::Seen;
use crate::process::Process;

/// As many clients have numbers of their own: whoever sends events may say what it likes.
const CLIENTS_MAX: usize = 50;
const CLIENT_BYTES_MAX: usize = 64;

type Labels = Vec<(&'static str, String)>;

/// The numbers.
pub(crate) struct Metrics {
    registry: Registry,
    /// What the pipeline did, as of the last scrape.
    pub(crate) pipeline: Seen,
    requests: Family<Labels, Counter>,
    events: Family<Labels, Counter>,
    of_clients: Family<Labels, Counter>,
    /// The clients that have numbers of their own.
    clients: Mutex<BTreeSet<String>>,
    request_ids: Family<Labels, Counter>,
    skew: Histogram,
    seconds: Histogram,
    appends: Counter,
    appended: Counter,
    append_failures: Counter,
    rows_served: Family<Labels, Counter>,
    /// Served rows that were not written down.
    pub(crate) rows_unlogged: Counter,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Subscribers of row streams.
    pub(crate) streams: Gauge,
    /// When a failure was last said, so that a log that is away fills no disk.
    said_ms: AtomicI64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process));
        let registry = all.sub_registry_with_prefix("uptake");
        let pipeline = Seen::default();
        registry.register_collector(Box::new(pipeline.clone()));
        let skew =
            Histogram::new([-86_400., -3_600., -60., -5., -1., 0., 0.1, 0.5, 1., 5., 60., 3_600., 86_400.]);
        let seconds = Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1., 5.]);
        let (requests, events) = (Family::default(), Family::<Labels, Counter>::default());
        // A number that is there from the start shows its first step: to an alert, what appears has not grown.
        let _ = events.get_or_create(&one("verdict", "accepted"));
        let of_clients = Family::default();
        let (request_ids, rows_served) = (Family::default(), Family::default());
        let (appends, appended, append_failures) =
            (Counter::default(), Counter::default(), Counter::default());
        let (rows_unlogged, connections, streams) = (Counter::default(), Gauge::default(), Gauge::default());
        registry.register(
            "http_requests",
            "Requests answered, by route and status",
            Family::clone(&requests),
        );
        registry.register("http_seconds", "How long requests took", seconds.clone());
        registry.register("http_connections", "Connections that are open", Gauge::clone(&connections));
        registry.register("collector_events", "Events by verdict", Family::clone(&events));
        registry.register(
            "client_events",
            "Events by client and what they are: an impression, a play, or why they were refused",
            Family::clone(&of_clients),
        );
        registry.register(
            "collector_request_ids",
            "Request ids that were not signed, forged or expired",
            Family::clone(&request_ids),
        );
        registry.register(
            "collector_clock_skew_seconds",
            "How far clients' clocks are behind ours, with the way here",
            skew.clone(),
        );
        registry.register("log_appends", "Appends to the log", Counter::clone(&appends));
        registry.register("log_records", "Records that were appended", Counter::clone(&appended));
        registry.register("log_append_failures", "Appends that failed", Counter::clone(&append_failures));
        registry.register("rows_served", "Rows that were served", Family::clone(&rows_served));
        registry.register(
            "rows_unlogged",
            "Served rows that could not be written to served-rows",
            Counter::clone(&rows_unlogged),
        );
        registry.register("streams", "Subscribers of row streams", Gauge::clone(&streams));
        Self {
            registry: all,
            pipeline,
            requests,
            events,
            of_clients,
            clients: Mutex::default(),
            request_ids,
            skew,
            seconds,
            appends,
            appended,
            append_failures,
            rows_served,
            rows_unlogged,
            connections,
            streams,
            said_ms: AtomicI64::new(0),
        }
    }
}

fn one(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

impl Metrics {
    /// As Prometheus reads them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a text does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A request was answered.
    pub(crate) fn request(&self, route: &str, status: u16, seconds: f64) {
        let labels = vec![("route", route.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(seconds);
    }

    /// Events got this verdict.
    pub(crate) fn events(&self, verdict: &'static str, count: u64) {
        self.events.get_or_create(&one("verdict", verdict)).inc_by(count);
    }

    /// Under which name a client is counted: its own, or `other` where it is no name or there are too many.
    pub(crate) fn client(&self, said: Option<&str>) -> String {
        let Some(said) = said.map(str::trim).filter(|said| !said.is_empty()) else { return "unknown".into() };
        let is_name = said.len() <= CLIENT_BYTES_MAX && said.bytes().all(|byte| byte.is_ascii_graphic());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.contains(said) || is_name && clients.len() < CLIENTS_MAX {
            clients.insert(said.to_owned());
            return said.to_owned();
        }
        "other".into()
    }

    /// Events of a client were this, or were refused for that. None is a number too: an alert compares it.
    pub(crate) fn of_client(&self, client: &str, what: &'static str, count: u64) {
        let labels = vec![("client", client.to_owned()), ("what", what.to_owned())];
        self.of_clients.get_or_create(&labels).inc_by(count);
    }

    /// A request id was not as it should be.
    pub(crate) fn request_ids(&self, what: &'static str) {
        self.request_ids.get_or_create(&one("what", what)).inc();
    }

    /// A client's clock differs from ours.
    pub(crate) fn skew(&self, ms: i64) {
        self.skew.observe(ms as f64 / 1e3);
    }

    /// Records were appended together, or not.
    pub(crate) fn append(&self, topic: &str, records: usize, is_done: bool) {
        if is_done {
            self.appends.inc();
            self.appended.inc_by(records as u64);
            return;
        }
        self.append_failures.inc();
        if topic == SERVED_ROWS {
            self.rows_unlogged.inc_by(records as u64);
        }
    }

    /// A row was served.
    pub(crate) fn row(&self, name: &str) {
        self.rows_served.get_or_create(&one("row", name)).inc();
    }

    /// Says that the log refuses, once in ten seconds.
    pub(crate) fn say_not_appended(&self, topic: &str, partition: u32, error: &dyn Display) {
        self.say(&format!("cannot append to {topic}/{partition}: {error}; clients are told to try again"));
    }

    /// Says what went wrong, once in ten seconds.
    pub(crate) fn say(&self, text: &str) {
        let now = crate::clock::system()().0;
        let last = self.said_ms.load(Ordering::Relaxed);
        if now.saturating_sub(last) > 10_000 {
            self.said_ms.store(now, Ordering::Relaxed);
            uptake_connectors::notices::notice(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_within_bounds() {
        let metrics = Metrics::default();
        assert_eq!(metrics.client(Some("app/7.1")), "app/7.1");
        assert_eq!(metrics.client(None), "unknown");
        assert_eq!(metrics.client(Some("  ")), "unknown");
        assert_eq!(metrics.client(Some("a\"b\nc")), "other");
        assert_eq!(metrics.client(Some(&"x".repeat(65))), "other");
        let names: BTreeSet<String> = (0..1_000).map(|n| metrics.client(Some(&format!("app/{n}")))).collect();
        assert_eq!(names.len(), CLIENTS_MAX, "49 more of their own, and the others");
        assert_eq!(metrics.client(Some("app/7.1")), "app/7.1");
        metrics.of_client("app/7.1", "play", 3);
        metrics.of_client("app/7.1", "impression", 0);
        let text = metrics.text();
        assert!(text.contains("uptake_client_events_total{client=\"app/7.1\",what=\"play\"} 3"), "{text}");
        assert!(
            text.contains("uptake_client_events_total{client=\"app/7.1\",what=\"impression\"} 0"),
            "{text}"
        );
        assert!(text.contains("uptake_collector_events_total{verdict=\"accepted\"} 0"), "{text}");
    }
}
