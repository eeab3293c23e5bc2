//! The keys of the collector and the API.

use std::path::PathBuf;

use uptake_serve::settings::{CheckIds, ITEMS_MAX, MemberIds, Settings};
use uptake_trends::{RowName, RowOptions};

use super::UNBOUNDED;
use super::read::{Reader, ms};

/// The largest size that a limit of bytes may have: half of what a permit can count.
const BYTES_MAX: i64 = 1 << 30;

pub(super) fn settings(r: &mut Reader<'_>) -> Settings {
    let listen = r.text("serve.listen");
    if !is_address(&listen) {
        r.mistake("serve.listen", format_args!("{listen:?} is not of the form host:port"));
    }
    let (certificate, key) = (path(r, "serve.tls_cert"), path(r, "serve.tls_key"));
    if certificate.is_some() != key.is_some() {
        r.mistake("serve.tls_cert", "the certificate and serve.tls_key need one another");
    }
    let origins = r.texts("serve.origins");
    for origin in origins.iter().filter(|origin| !is_origin(origin)) {
        r.mistake(
            "serve.origins",
            format_args!("{origin:?} is no origin, as https://www.example.org, nor \"*\""),
        );
    }
    let check_ids = [("off", CheckIds::Off), ("report", CheckIds::Report), ("require", CheckIds::Require)];
    let member_ids =
        [("pseudonym", MemberIds::Pseudonym), ("drop", MemberIds::Drop), ("keep", MemberIds::Keep)];
    let rate = r.number("serve.rate_per_second", 1, 10_000_000, Some(0));
    let decoded_bytes_max = r.number("serve.decoded_bytes_max", 1_024, BYTES_MAX, None) as usize;
    let body_bytes_max = r.number("serve.body_bytes_max", 1_024, BYTES_MAX, None) as usize;
    let bodies_bytes_max = r.number("serve.bodies_bytes_max", 1_024, 4 * BYTES_MAX - 1, None) as usize;
    if bodies_bytes_max < decoded_bytes_max + body_bytes_max {
        r.mistake(
            "serve.bodies_bytes_max",
            "one body must fit: serve.body_bytes_max and serve.decoded_bytes_max",
        );
    }
    let events_max = r.number("serve.events_max", 1, 1_000_000, None) as usize;
    let queue_events_max = r.number("serve.queue_events_max", 1, 100_000_000, None) as usize;
    if queue_events_max < events_max {
        r.mistake("serve.queue_events_max", "the events of one body must fit: serve.events_max");
    }
    Settings {
        listen,
        tls: certificate.zip(key),
        origins,
        write_keys_file: path(r, "serve.write_keys_file"),
        admin_token_file: path(r, "serve.admin_token_file"),
        request_key_file: path(r, "serve.request_key_file"),
        member_key_file: path(r, "serve.member_key_file"),
        request_ids: r.choice("serve.request_ids", &check_ids),
        request_age_max_ms: r.duration("serve.request_age_max", 1_000, None),
        delay_max_ms: r.duration("serve.delay_max", 0, Some(UNBOUNDED)),
        member_ids: r.choice("serve.member_ids", &member_ids),
        body_bytes_max,
        decoded_bytes_max,
        events_max,
        event_bytes_max: r.number("serve.event_bytes_max", 64, 16 << 20, None) as usize,
        queue_events_max,
        bodies_bytes_max,
        survives_power_cut: r.choice("serve.durability", &[("process", false), ("power", true)]),
        timeout: ms(r.duration("serve.timeout", 100, None)),
        read_timeout: ms(r.duration("serve.read_timeout", 100, None)),
        connections_max: r.number("serve.connections_max", 1, 1_000_000, None) as usize,
        rate_per_second: u32::try_from(rate).ok().filter(|rate| *rate > 0),
        proxies: r.number("serve.proxies", 0, 10, None) as usize,
        streams_max: r.number("serve.streams_max", 0, 1_000_000, None) as usize,
        rows_refresh: ms(r.duration("serve.rows_refresh", 10, None)),
        rows: row_options(r),
        explore_slots: r.number("rows.explore_slots", 0, 2, None) as usize,
        explore_rows: explore_rows(r),
    }
}

fn row_options(r: &mut Reader<'_>) -> RowOptions {
    let entries_every_ms = r.duration("rows.entries_every", 0, None);
    let mut number = |key, least, most| r.number(key, least, most, None) as usize;
    RowOptions {
        places: number("rows.places", 1, ITEMS_MAX as i64),
        hysteresis: number("rows.hysteresis", 0, ITEMS_MAX as i64),
        entries_every_ms,
        entries_max: number("rows.entries_max", 1, ITEMS_MAX as i64),
        genre_max: number("rows.genre_max", 0, ITEMS_MAX as i64),
        franchise_max: number("rows.franchise_max", 0, ITEMS_MAX as i64),
        behind: ITEMS_MAX,
    }
}

fn explore_rows(r: &mut Reader<'_>) -> Vec<RowName> {
    let mut rows = Vec::new();
    for text in r.texts("rows.explore_rows") {
        match RowName::ALL.into_iter().find(|row| row.as_str() == text) {
            Some(row) => rows.push(row),
            None => {
                r.mistake("rows.explore_rows", format_args!("{text:?} is not popular, loved or trending"))
            }
        }
    }
    rows
}

pub(super) fn path(r: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    Some(r.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// Whether a text is `host:port`.
pub(crate) fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Whether a text is what a browser sends as its origin: no path, not even a slash.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'/' | b'?' | b'#' | b'@' | b','))
    };
    text == "*" || host.is_some_and(plain)
}
