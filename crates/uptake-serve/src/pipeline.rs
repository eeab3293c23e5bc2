//! The pipeline as the server sees it: the books of the newest checkpoint, the lag, and the age of the rows; as JSON for
//! the page and as metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Map, Value, json};
use uptake_model::Reason;

use crate::access::Admin;
use crate::app::App;
use crate::problem::{Answer, Problem};

/// How far a partition of the input was read, as the newest checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadUpTo {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset to be read next.
    pub offset: u64,
}

/// Knows what the pipeline did, as of its newest checkpoint.
pub trait Books: Send + Sync {
    /// The ledger, the watermark and the checkpoint as JSON, and how far each partition was read;
    /// `None` where nothing was run yet.
    ///
    /// # Errors
    /// They cannot be read.
    fn newest(&self) -> Result<Option<(Value, Vec<ReadUpTo>)>, String>;

    /// How many dead letters there are, by reason, and the newest `limit` of them.
    ///
    /// # Errors
    /// The log cannot be read.
    fn dead_letters(&self, limit: usize) -> Result<Value, String>;

    /// Appends dead letters that can be used by now to the input again; only counts them if `dry_run`.
    ///
    /// # Errors
    /// There is no such reason, or the log cannot be read or written.
    fn replay_dead_letters(&self, reason: Option<&str>, dry_run: bool) -> Result<Value, String>;
}

/// What became of every record, how far the pipeline is behind, and its watermark.
#[utoipa::path(get, path = "/v1/pipeline", tag = "operations",
    responses((status = 200, description = "As of the newest checkpoint", body = Object),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn pipeline(_: Admin, State(app): State<Arc<App>>) -> Answer<Json<Value>> {
    let for_it = Arc::clone(&app);
    app.blocking(move || read(&for_it).map(Json)).await
}

/// Looks. Reads the newest checkpoint's manifest, and asks the log for its ends.
pub(crate) fn read(app: &App) -> Answer<Value> {
    let newest = app.books.newest().map_err(|what| {
        app.metrics.say(&format!("cannot read the checkpoints: {what}"));
        Problem::new(503, "checkpoints-away", "the checkpoints cannot be read now").retry_after(5)
    })?;
    let (books, read) = newest.map_or((Value::Null, Vec::new()), |(books, read)| (books, read));
    let log_away = |error: uptake_connectors::LogError| {
        app.metrics.say(&format!("cannot read the log: {error}"));
        Problem::new(503, "log-away", "the log cannot be read now").retry_after(5)
    };
    let mut lags = Vec::new();
    let mut lag_sum = 0;
    for topic in &app.input_topics {
        for partition in 0..app.log.partitions(topic).map_err(log_away)? {
            let end = app.log.end_offset(topic, partition).map_err(log_away)?;
            let is_it = |up_to: &&ReadUpTo| up_to.topic == *topic && up_to.partition == partition;
            let offset = read.iter().find(is_it).map_or(0, |up_to| up_to.offset);
            let lag = end.saturating_sub(offset);
            lag_sum += lag;
            lags.push(
                json!({ "topic": topic, "partition": partition, "read_up_to": offset, "end": end, "lag": lag }),
            );
        }
    }
    Ok(json!({
        "newest_checkpoint": books, "lag": lag_sum, "partitions": lags, "row_age_ms": app.row_age.ages(),
    }))
}

/// What became of a record for good, by its name in the ledger.
const FATES: [&str; 8] = ["counted", "expired", "filtered", "dead", "duplicate", "late", "capped", "gap"];

/// What was seen last, for the next scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<Value>>>);

impl Seen {
    /// `None` where it could not be read.
    pub(crate) fn set(&self, seen: Option<Value>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// Writes one metric with several labels.
type Labelled<'a> = Vec<(Vec<(&'static str, &'a str)>, f64)>;

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let readable = ConstGauge::new(i64::from(seen.is_some()));
        let help = "1 where log and checkpoints can be read, else 0";
        let metric = encoder.encode_descriptor("pipeline_readable", help, None, MetricType::Gauge)?;
        readable.encode(metric)?;
        let Some(seen) = seen else { return Ok(()) };
        let empty = Map::new();
        let books = seen["newest_checkpoint"].as_object().unwrap_or(&empty);
        let number = |name: &str| books.get(name).and_then(Value::as_f64);
        for (name, help, entry, scale) in [
            (
                "pipeline_watermark_seconds",
                "Event time up to which all came, since 1970 UTC",
                "watermark_ms",
                1e-3,
            ),
            (
                "pipeline_checkpoint_seconds",
                "When the newest checkpoint was made, since 1970 UTC",
                "created_ms",
                1e-3,
            ),
            ("pipeline_waiting_records", "Records that wait for their other half", "waiting", 1.0),
            (
                "pipeline_spilled_requests",
                "Requests that wait on disk because memory has no room for them",
                "spilled",
                1.0,
            ),
            ("pipeline_state_bytes", "Bytes of the state in the newest checkpoint", "state_bytes", 1.0),
        ] {
            if let Some(value) = number(entry) {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value * scale).encode(metric)?;
            }
        }
        let plays = encoder.encode_descriptor(
            "pipeline_expired_plays",
            "Plays that no impression came for, as of the newest checkpoint; a part of those that expired",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(number("expired_plays").unwrap_or(0.0)).encode(plays)?;
        let mut write = |name: &str, help: &str, is_counter: bool, values: Labelled<'_>| {
            if values.is_empty() {
                return Ok(());
            }
            let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in values {
                let one = metric.encode_family(&labels)?;
                if is_counter {
                    ConstCounter::new(value).encode(one)
                } else {
                    ConstGauge::new(value).encode(one)
                }?;
            }
            Ok(())
        };
        // Before the first checkpoint all are 0: to an alert, a number that appears has not grown.
        let fates = FATES.iter().map(|fate| (vec![("fate", *fate)], number(fate).unwrap_or(0.0))).collect();
        write(
            "pipeline_records",
            "Records by what became of them, as of the newest checkpoint",
            true,
            fates,
        )?;
        let mut by_reason: BTreeMap<&str, f64> =
            Reason::ALL.iter().map(|reason| (reason.name(), 0.0)).collect();
        let dead = books.get("dead_by_reason").and_then(Value::as_object).unwrap_or(&empty).iter();
        by_reason.extend(dead.filter_map(|(reason, n)| Some((reason.as_str(), n.as_f64()?))));
        write(
            "pipeline_dead_letters",
            "Records that could not be used, by reason",
            true,
            by_reason.into_iter().map(|(reason, n)| (vec![("reason", reason)], n)).collect(),
        )?;
        let partitions = seen["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Vec<String> = partitions.iter().map(|of| of["partition"].to_string()).collect();
        let lags = partitions.iter().zip(&numbers).filter_map(|(of, number)| {
            let labels = vec![("topic", of["topic"].as_str()?), ("partition", number.as_str())];
            Some((labels, of["lag"].as_f64()?))
        });
        write(
            "pipeline_lag_records",
            "Records that the newest checkpoint has not read",
            false,
            lags.collect(),
        )?;
        let ages = [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")].into_iter();
        let ages = ages.filter_map(|(quantile, name)| {
            Some((vec![("quantile", quantile)], seen["row_age_ms"][name].as_f64()? / 1e3))
        });
        let help = "How long plays took from the log to the row that counts them, in the last five minutes";
        write("row_age_seconds", help, false, ages.collect())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn metrics_say_what_the_page_says() {
        let (seen, mut registry) = (Seen::default(), Registry::with_prefix("uptake"));
        registry.register_collector(Box::new(seen.clone()));
        let text = || {
            let mut text = String::new();
            assert!(prometheus_client::encoding::text::encode(&mut text, &registry).is_ok());
            text
        };
        assert!(text().contains("uptake_pipeline_readable 0\n"), "{}", text());
        seen.set(Some(json!({ "newest_checkpoint": null, "partitions": [], "row_age_ms": {} })));
        for zero in
            ["records_total{fate=\"late\"}", "dead_letters_total{reason=\"not-json\"}", "expired_plays_total"]
        {
            assert!(text().contains(&format!("uptake_pipeline_{zero} 0.0\n")), "{}", text());
        }
        assert!(!text().contains("checkpoint_seconds"), "{}", text());
        seen.set(Some(json!({
            "newest_checkpoint": {
                "counted": 7, "expired": 3, "expired_plays": 1, "late": 2, "waiting": 4, "dead_by_reason": { "not-json": 3 }, "watermark_ms": 1_500, "created_ms": 2_000,
                "spilled": 6, "state_bytes": 99,
            },
            "partitions": [{ "topic": "plays", "partition": 1, "lag": 5 }], "row_age_ms": { "p50": 250, "p95": 300, "p99": 400 },
        })));
        let text = text();
        for line in [
            "uptake_pipeline_readable 1",
            "uptake_pipeline_records_total{fate=\"counted\"} 7.0",
            "uptake_pipeline_records_total{fate=\"late\"} 2.0",
            "uptake_pipeline_expired_plays_total 1.0",
            "uptake_pipeline_dead_letters_total{reason=\"not-json\"} 3.0",
            "uptake_pipeline_dead_letters_total{reason=\"no-video-id\"} 0.0",
            "uptake_pipeline_lag_records{topic=\"plays\",partition=\"1\"} 5.0",
            "uptake_pipeline_watermark_seconds 1.5",
            "uptake_pipeline_checkpoint_seconds 2.0",
            "uptake_pipeline_state_bytes 99.0",
            "uptake_pipeline_waiting_records 4.0",
            "uptake_pipeline_spilled_requests 6.0",
            "uptake_row_age_seconds{quantile=\"0.99\"} 0.4",
        ] {
            assert!(text.lines().any(|of| of == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
