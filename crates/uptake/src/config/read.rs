//! Reading: TOML values by key, each turned into what is meant or into a mistake.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::Value;
use uptake_connectors::Backend;
use uptake_model::decode::{DecodeConfig, Fields, Foreign, KindRule, Route, TimestampUnit};
use uptake_model::filter::Filters;
use uptake_model::join::{JoinKind, JoinRules};
use uptake_model::segment::Segments;
use uptake_model::tally::TallyLimits;
use uptake_model::{EpochLength, EventTime, Kind};

use super::places::{is_driver_key, places, without_lines};
use super::{Config, JoinMethod, KEYS, OnGap, Place, UNBOUNDED};
use crate::memory::Budget;
use crate::traces::Receiver;

/// Other defaults of the section `events`, as configuration files.
const PRESETS: [(&str, &str); 4] = [
    ("ga4", include_str!("../../presets/ga4.toml")),
    ("snowplow", include_str!("../../presets/snowplow.toml")),
    ("segment", include_str!("../../presets/segment.toml")),
    ("posthog", include_str!("../../presets/posthog.toml")),
];

/// What was typed, by key.
pub(super) type Values = BTreeMap<String, Value>;

/// The values of a file.
pub(super) fn file(path: &Path, mistakes: &mut Vec<String>) -> Values {
    let mut values = Values::new();
    match std::fs::read_to_string(path) {
        Err(error) => mistakes.push(format!("{}: cannot be read: {error}", path.display())),
        Ok(text) => match text.parse::<toml::Table>() {
            Err(error) => {
                mistakes.push(format!("{}: is not TOML: {}", path.display(), without_lines(&error)))
            }
            Ok(table) => flatten("", table, &mut values, mistakes),
        },
    }
    values
}

/// One `key=value`. A value that is not TOML is taken as text, so quotes can be left out.
pub(super) fn setting(text: &str, values: &mut Values, mistakes: &mut Vec<String>) {
    let Some((key, value)) = text.split_once('=') else {
        mistakes.push(format!("--set {text}: is not of the form key=value"));
        return;
    };
    let (key, value) = (key.trim(), value.trim());
    let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut table = toml::Table::new();
    table.insert(key.to_owned(), value);
    flatten("", table, values, mistakes);
}

fn flatten(prefix: &str, table: toml::Table, values: &mut Values, mistakes: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            _ if KEYS.iter().any(|k| k.name == key) => {
                values.insert(key, value);
            }
            Value::Table(inner) => flatten(&key, inner, values, mistakes),
            _ if is_driver_key(&key) => {
                values.insert(key, value);
            }
            _ => mistakes.push(format!("{key}: there is no such key{}", nearest(&key))),
        }
    }
}

/// The keys of a section, or the key that was most likely meant.
fn nearest(key: &str) -> String {
    let of_it: Vec<&str> = KEYS.iter().map(|k| k.name).filter(|name| is_in(name, key)).collect();
    if !of_it.is_empty() {
        return format!("; it is a section, of {}", of_it.join(", "));
    }
    let distance = |other: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (key.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, ca) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, cb) in b.iter().enumerate() {
                let change = diagonal + usize::from(ca != cb);
                diagonal = row[j + 1];
                row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[b.len()]
    };
    let best = KEYS.iter().map(|k| (distance(k.name), k.name)).min();
    best.filter(|(d, _)| *d <= key.len() / 2)
        .map_or(String::new(), |(_, name)| format!("; did you mean {name}?"))
}

/// Whether a key is in a section.
fn is_in(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// Takes values by key and notes what is wrong with them.
pub(super) struct Reader<'a> {
    values: Values,
    mistakes: &'a mut Vec<String>,
}

impl Reader<'_> {
    /// The keys that were given.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether a text is empty, or was not given and is by default.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        self.values.get(key).is_none_or(|value| value.as_str() == Some(""))
    }

    /// The value of a key, or its default.
    pub(super) fn value(&mut self, key: &str) -> Value {
        self.values.remove(key).unwrap_or_else(|| {
            let default = KEYS.iter().find(|k| k.name == key).map_or("\"\"", |k| k.default);
            let table = format!("v = {default}").parse::<toml::Table>().ok();
            table.and_then(|mut t| t.remove("v")).unwrap_or(Value::Boolean(false))
        })
    }

    pub(super) fn mistake(&mut self, key: &str, what: impl std::fmt::Display) {
        self.mistakes.push(format!("{key}: {what}"));
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        match self.value(key) {
            Value::String(text) => text,
            other => {
                self.mistake(key, format_args!("{other} is not a text"));
                String::new()
            }
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let value = self.value(key);
        let list = match &value {
            Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        list.unwrap_or_else(|| {
            self.mistake(key, format_args!("{value} is not a list of texts"));
            Vec::new()
        })
    }

    /// A whole number from `least` to `most`; "off" gives `off` where the key may be off.
    pub(super) fn number(&mut self, key: &str, least: i64, most: i64, off: Option<i64>) -> i64 {
        match (self.value(key), off) {
            (Value::Integer(n), _) if (least..=most).contains(&n) => n,
            (Value::String(text), Some(off)) if text == "off" => off,
            (other, off) => {
                let or_off = if off.is_some() { ", or \"off\"" } else { "" };
                self.mistake(
                    key,
                    format_args!("{other} is not a whole number from {least} to {most}{or_off}"),
                );
                least
            }
        }
    }

    /// A duration in milliseconds.
    pub(super) fn duration(&mut self, key: &str, least_ms: i64, off: Option<i64>) -> i64 {
        let value = self.value(key);
        let ms = match (&value, off) {
            (Value::String(text), Some(off)) if text == "off" => return off,
            (Value::String(text), _) => text.parse::<jiff::Span>().ok().and_then(|span| {
                let exact = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
                i64::try_from(exact.as_millis()).ok()
            }),
            (Value::Integer(n), _) => {
                self.mistake(key, format_args!("{n} has no unit; write \"{n}ms\", \"{n}s\" or \"{n}min\""));
                return least_ms;
            }
            _ => None,
        };
        match ms {
            Some(ms) if (least_ms..=UNBOUNDED).contains(&ms) => ms,
            Some(_) => {
                self.mistake(key, format_args!("{value} is too short or too long; at least {least_ms} ms"));
                least_ms
            }
            None => {
                let or_off = if off.is_some() { ", or \"off\"" } else { "" };
                self.mistake(
                    key,
                    format_args!("{value} is not a duration, as 500ms, 90s, 30min, 2h, 7d{or_off}"),
                );
                least_ms
            }
        }
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(key);
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *value,
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
                self.mistake(key, format_args!("{text:?} is none of {}", names.join(", ")));
                choices[0].1
            }
        }
    }
}

/// The configuration that the values mean.
pub(super) fn config(mut values: Values, mistakes: &mut Vec<String>) -> Config {
    let preset = values.get("events.preset").and_then(Value::as_str);
    if let Some((_, text)) = preset.and_then(|name| PRESETS.iter().find(|(known, _)| *known == name)) {
        let (mut defaults, table) = (Values::new(), text.parse().unwrap_or_default());
        flatten("", table, &mut defaults, mistakes);
        defaults.into_iter().for_each(|(key, value)| {
            values.entry(key).or_insert(value);
        });
    }
    let mut r = Reader { values, mistakes };
    r.choice("events.preset", &{
        let mut all = vec![("", ())];
        all.extend(PRESETS.iter().map(|(name, _)| (*name, ())));
        all
    });
    let always = r.choice(
        "events.kind.always",
        &[("", None), ("impression", Some(Kind::Impression)), ("play", Some(Kind::Play))],
    );
    let (impression, play) = (r.texts("events.kind.impression"), r.texts("events.kind.play"));
    if always.is_none() && (impression.is_empty() || play.is_empty()) {
        r.mistake("events.kind", "the list of impressions or of plays is empty");
    }
    for both in impression.iter().filter(|i| play.contains(i)) {
        r.mistake("events.kind", format_args!("{both:?} is both an impression and a play"));
    }
    let units = [
        ("ms", TimestampUnit::Ms),
        ("s", TimestampUnit::S),
        ("us", TimestampUnit::Us),
        ("ns", TimestampUnit::Ns),
        ("rfc3339", TimestampUnit::Rfc3339),
    ];
    let kinds = always.map_or(KindRule::ByField { impression, play }, KindRule::Always);
    let timestamp_unit = r.choice("events.timestamp_unit", &units);
    let plain = DecodeConfig {
        bytes_max: r.number("events.bytes_max", 64, 16 << 20, None) as usize,
        future_max_ms: r.duration("events.future_max", 0, Some(UNBOUNDED)),
        ..DecodeConfig::default()
    };
    let (fields, items, missing) = (fields(&mut r), r.text("events.items"), r.texts("events.missing"));
    let decode = match is_foreign(&fields, &items, &missing) {
        true => {
            let form = Foreign::parse(&fields, &items, kinds, timestamp_unit);
            let wrong = form.as_ref().err().into_iter().flatten();
            for (name, what) in wrong {
                let section = if *name == "items" { "events" } else { "events.fields" };
                r.mistake(&format!("{section}.{name}"), what);
            }
            DecodeConfig { foreign: form.ok().map(|form| Foreign { missing, ..form }), ..plain }
        }
        false => DecodeConfig { fields, kind: kinds, timestamp_unit, ..plain },
    };
    let filters = r.texts("filters");
    let mut filters = Filters::parse(&filters).unwrap_or_else(|wrong| {
        wrong.into_iter().for_each(|what| r.mistake("filters", what));
        Filters::none()
    });
    if r.choice("events.kind.others", &[("dead", false), ("drop", true)]) {
        filters = filters.and_other_kinds();
    }
    let methods = [
        ("state", JoinMethod::State),
        ("window", JoinMethod::Window),
        ("batch-to-window", JoinMethod::BatchToWindow),
    ];
    let request_events_max = r.number("join.request_events_max", 2, u32::MAX.into(), Some(i64::MAX));
    let member_events_max = r.number("join.member_epoch_events_max", 1, u32::MAX.into(), Some(-1));
    let epoch_ms = r.duration("epoch.length", 1_000, None);
    let epoch = EpochLength::from_ms(epoch_ms).unwrap_or_else(|| {
        r.mistake("epoch.length", "longer than a week");
        EpochLength::default()
    });
    let places = places(&mut r);
    let [log_keep, table_keep] =
        ["log.keep", "table.keep"].map(|key| match r.duration(key, 3_600_000, Some(UNBOUNDED)) {
            UNBOUNDED => None,
            keep => Some(ms(keep)),
        });
    if table_keep.is_some() && matches!(places.table, Place::Url(Backend::Cassandra { .. })) {
        r.mistake("table.keep", "Cassandra lets go of its rows itself; set cassandra.ttl");
    }
    if log_keep.is_some() && matches!(places.log, Place::Url(Backend::Kafka { .. })) {
        r.mistake(
            "log.keep",
            "Kafka keeps its records itself; set kafka.topic.retention.ms, or change its topics",
        );
    }
    Config {
        places,
        decode: decode.into(),
        filters,
        join_method: r.choice("join.method", &methods),
        join: JoinRules {
            kind: r.choice("join.kind", &[("inner", JoinKind::Inner), ("left", JoinKind::Left)]),
            horizon_ms: r.duration("join.horizon", 0, None),
            lateness_ms: r.duration("join.lateness", 0, Some(UNBOUNDED)),
            request_events_max: request_events_max as usize,
            closed_before: EventTime::MIN,
        },
        member_epoch_events_max: u32::try_from(member_events_max).ok(),
        counts_members: r.choice("robots.count_members", &[("on", true), ("off", false)]),
        epoch,
        segments: segments(&mut r),
        tally: TallyLimits {
            exact_max: r.number("tally.exact_max", 16, 1 << 32, None) as usize,
            sketch_lg_k: r.number("tally.sketch_lg_k", 5, 20, None) as u8,
        },
        batch_events_max: r.number("batch.events_max", 1, 10_000_000, None) as usize,
        batch_tick: ms(r.duration("batch.tick", 1, None)),
        batches_in_flight: r.number("batch.in_flight", 1, 64, None) as u64,
        table_write_interval: ms(r.duration("table.write_interval", 0, None)),
        archive_shards: r.number("archive.shards", 1, 256, None) as u32,
        log_keep,
        table_keep,
        input_topics: topics(&mut r),
        input_partitions: r.number("input.partitions", 1, 4_096, None) as u32,
        input_pace_ms: r.duration("input.pace", 0, Some(UNBOUNDED)),
        on_gap: r.choice("input.on_gap", &[("declare", OnGap::Declare), ("stop", OnGap::Stop)]),
        checkpoint_interval: ms(r.duration("checkpoint.interval", 10, None)),
        checkpoint_keep: r.number("checkpoint.keep", 1, 1_000, None) as usize,
        checkpoint_events_max: r.number("checkpoint.events_max", 1, i64::MAX, None) as usize,
        memory_max: budget(&mut r),
        spills: r.choice("memory.spill", &[("on", true), ("off", false)]),
        output_retry_for: ms(r.duration("output.retry_for", 0, Some(UNBOUNDED))),
        cluster_start_deadline: ms(r.duration("cluster.start_deadline", 1_000, None)),
        cluster_progress_deadline: ms(r.duration("cluster.progress_deadline", 1_000, None)),
        traces: traces(&mut r),
        catalogue: super::serve::path(&mut r, "rows.catalogue"),
        hides_unknown_titles: r.choice("rows.unknown_titles", &[("show", false), ("hide", true)]),
        serve: super::serve::settings(&mut r),
    }
}

fn traces(r: &mut Reader<'_>) -> Option<Receiver> {
    let (url, every) = (r.text("traces.url"), r.number("traces.every", 1, 1_000_000, None));
    if url.is_empty() {
        return None;
    }
    let parsed = reqwest::Url::parse(&url).ok();
    match parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        Some(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            r.mistake(
                "traces.url",
                "it holds a login; give it as a header in the variable OTEL_EXPORTER_OTLP_HEADERS",
            );
            None
        }
        Some(_) => Some(Receiver { url, every: every as u64 }),
        None => {
            r.mistake("traces.url", format_args!("{url:?} is no address as http://HOST:4318"));
            None
        }
    }
}

fn topics(r: &mut Reader<'_>) -> Vec<String> {
    let topics = r.texts("input.topics");
    if topics.is_empty() {
        r.mistake("input.topics", "the list is empty");
    }
    for (n, topic) in topics.iter().enumerate() {
        if topics[..n].contains(topic) {
            r.mistake("input.topics", format_args!("{topic:?} is there twice"));
        }
    }
    topics
}

fn budget(r: &mut Reader<'_>) -> Budget {
    let key = "memory.bytes_max";
    let value = r.value(key);
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Budget::parse(&text).unwrap_or_else(|| {
        r.mistake(
            key,
            format_args!("{value} is not an amount of at least 1 MiB, as 512MiB, 2GiB, 80%, or \"off\""),
        );
        Budget::Off
    })
}

pub(super) fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

fn fields(r: &mut Reader<'_>) -> Fields {
    let mut path = |name: &str| {
        let key = format!("events.fields.{name}");
        let path = r.text(&key);
        if !Route::is_needed_for(&path) && (path.is_empty() || path.split('.').any(str::is_empty)) {
            r.mistake(&key, format_args!("{path:?} is not a name or a path with dots"));
        }
        path
    };
    let (kind, request_id, video_id) = (path("kind"), path("request_id"), path("video_id"));
    let (timestamp, member_id) = (path("timestamp"), path("member_id"));
    let (row, position) = (path("row"), path("position"));
    let mut dimensions = BTreeMap::new();
    let key = "events.fields.dimensions";
    match r.value(key) {
        Value::Table(table) => {
            for (name, path) in table {
                match path.as_str().filter(|p| !p.is_empty() && !p.split('.').any(str::is_empty)) {
                    Some(path) => drop(dimensions.insert(name, path.to_owned())),
                    None => r.mistake(key, format_args!("the path of {name}, {path}, is not a path")),
                }
            }
        }
        other => r.mistake(key, format_args!("{other} is not a table of paths")),
    }
    Fields { kind, request_id, video_id, timestamp, member_id, row, position, dimensions }
}

/// Whether records are of a form that only the general way can read.
fn is_foreign(fields: &Fields, items: &str, missing: &[String]) -> bool {
    let mut paths = fields
        .paths()
        .into_iter()
        .map(|(_, path)| path)
        .chain(fields.dimensions.values().map(String::as_str));
    !items.is_empty() || !missing.is_empty() || paths.any(Route::is_needed_for)
}

fn segments(r: &mut Reader<'_>) -> Segments {
    let value = r.value("segments");
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let list = |v: &Value| v.as_array().and_then(|l| l.iter().map(text).collect::<Option<Vec<_>>>());
    let lists = value.as_array().and_then(|lists| lists.iter().map(list).collect::<Option<Vec<_>>>());
    let Some(lists) = lists else {
        r.mistake("segments", format_args!("{value} is not a list of lists of dimensions"));
        return Segments::default();
    };
    Segments::new(lists).unwrap_or_else(|wrong| {
        wrong.into_iter().for_each(|what| r.mistake("segments", what));
        Segments::default()
    })
}
