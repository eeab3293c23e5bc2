//! What must hold of any block: learned layouts change nothing, block boundaries change nothing,
//! every line has exactly one outcome, and nothing panics.
//!
//! The first byte of an input chooses one of the configurations, the rest is the block. This file
//! is shared by the fuzz target and the test that replays the corpus.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use uptake_model::decode::{
    DecodeConfig, Decoded, Decoder, Fields, Foreign, KindRule, Members, TimestampUnit,
};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{EpochLength, EventTime, Kind};

const NOW: EventTime = EventTime(1_768_435_300_000);

/// A configuration, filters, and lines that fit it, for layouts to be learned from.
struct Setting {
    config: DecodeConfig,
    filters: &'static [&'static str],
    lines: &'static str,
}

fn setting(choice: u8) -> Setting {
    match choice % 4 {
        0 => Setting {
            config: DecodeConfig { bytes_max: 5000, ..DecodeConfig::default() },
            filters: &[
                "device = \"test\"",
                "kind = \"play\" and watch_ms < 30000",
                "member_id in [\"m1\", 2]",
            ],
            lines: concat!(
                r#"{"kind":"impression","request_id":"7f3a91c04be2d655","video_id":"v123","timestamp":1768435200123,"#,
                r#""member_id":"m456","row":"trending","position":3,"dimensions":{"country":"BR","device":"tv"}}"#,
                "\n",
                r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456}"#,
                "\n",
                r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":17,"device":"web","watch_ms":-1.5,"x":null}"#,
                "\n",
            ),
        },
        1 => Setting {
            config: DecodeConfig {
                fields: Fields {
                    kind: "event.type".to_owned(),
                    request_id: "ctx.page_view_id".to_owned(),
                    video_id: "ctx.item.id".to_owned(),
                    timestamp: "ts".to_owned(),
                    member_id: "ctx.user".to_owned(),
                    dimensions: BTreeMap::from([("country".to_owned(), "geo.country".to_owned())]),
                    ..Fields::default()
                },
                kind: KindRule::ByField {
                    impression: vec!["view".to_owned(), "seen".to_owned()],
                    play: vec!["start".to_owned()],
                },
                timestamp_unit: TimestampUnit::S,
                ..DecodeConfig::default()
            },
            filters: &["ctx exists and ctx.item.id = \"x1\"", "event.type != \"seen\" and title missing"],
            lines: concat!(
                r#"{"event":{"type":"seen"},"ctx":{"page_view_id":"p1","user":null,"item":{"id":"x"}},"#,
                r#""ts":1768435200.25,"geo":{"country":"BR"},"device":"tv","list":[1,"two",[]]}"#,
                "\n",
            ),
        },
        3 => Setting {
            config: DecodeConfig { bytes_max: 5000, foreign: Some(foreign()), ..DecodeConfig::default() },
            filters: &["item.class = \"x\"", "device = \"test\"", "geo.city missing and position > 3"],
            lines: concat!(
                r#"{"name":"seen","params":[{"key":"page","value":{"int":7}}],"user":"u1","us":"1768435200123456","#,
                r#""geo":{"country":"BR","city":"c"},"items":[{"id":"v1","class":"y"},{"id":12,"at":3},{"id":"v3"}]}"#,
                "\n",
                r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456}"#,
                "\n",
            ),
        },
        _ => Setting {
            config: DecodeConfig {
                kind: KindRule::Always(Kind::Play),
                timestamp_unit: TimestampUnit::Rfc3339,
                ..DecodeConfig::default()
            },
            filters: &["position >= 5 and row not in [\"top10\", 3, true]"],
            lines: concat!(
                r#"{"request_id":"r1","video_id":"v1","timestamp":"2026-01-15T00:01:00.456Z","row":"a","position":4}"#,
                "\n",
            ),
        },
    }
}

/// Lists of titles, and parameters by their keys.
fn foreign() -> Foreign {
    let text = str::to_owned;
    let fields = Fields {
        kind: text("name"),
        request_id: text("request | user + params[key=page].value.int"),
        video_id: text("item.id | ids[0]"),
        timestamp: text("us"),
        member_id: text("user"),
        row: text("item.row"),
        position: text("item.at"),
        dimensions: BTreeMap::from([(text("country"), text("geo.country"))]),
    };
    let kinds = KindRule::ByField { impression: vec![text("seen")], play: vec![text("start")] };
    Foreign::parse(&fields, "items", kinds, TimestampUnit::Us).expect("good paths")
}

fn decoder(setting: &Setting) -> Decoder {
    let dimensions = vec!["country".to_owned(), "device".to_owned()];
    let segments = Segments::new(vec![vec![], dimensions]).expect("good segments");
    let rules: Vec<String> = setting.filters.iter().map(|rule| rule.to_string()).collect();
    let filters = Filters::parse(&rules).expect("good rules");
    Decoder::new(setting.config.clone().into(), &segments, &filters, EpochLength::default(), Members::All)
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    decoder.decode_block(block, NOW, 3, &mut decoded);
    decoded
}

/// How many outcomes a block must have: one a line, or one an element of an array.
fn outcomes_due(block: &[u8], bytes_max: usize) -> usize {
    if block.is_empty() {
        return 0;
    }
    let lines = block.strip_suffix(b"\n").unwrap_or(block).split(|&byte| byte == b'\n');
    let due = |line: &[u8]| match serde_json::from_slice::<Vec<&RawValue>>(line) {
        Ok(elements) if line.strip_suffix(b"\r").unwrap_or(line).len() <= bytes_max => elements.len().max(1),
        _ => 1,
    };
    lines.map(due).sum()
}

/// Panics if anything that must hold of `input` does not.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, block)) = input.split_first() else { return };
    let setting = setting(*choice);
    let lines = setting.lines.as_bytes();

    let mut reference = decoder(&setting).without_learning();
    let known = decode(&mut reference, lines);
    assert_eq!(known.dead, [], "the setting's own lines are good");
    let expect = decode(&mut reference, block);
    let outcomes = expect.events.len() + expect.dead.len() + expect.filtered.len() + expect.blank;
    let due = outcomes_due(block, setting.config.bytes_max);
    // A record may hold many events.
    let balances = outcomes == due || setting.config.foreign.is_some() && outcomes > due;
    assert!(balances, "the books balance: {outcomes} of {due}");

    let mut learned = decoder(&setting);
    assert_eq!(decode(&mut learned, lines), known);
    assert_eq!(decode(&mut learned, block), expect, "with the layouts of the setting");
    let again = decode(&mut reference, block);
    assert_eq!(decode(&mut learned, block), again, "with the layouts of the block, too");
    assert!(again.videos.is_empty() && again.dims.is_empty(), "nothing is told twice");

    let mut one_by_one = Decoded::default();
    for (number, line) in block.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let mut decoded = decode(&mut learned, line);
        one_by_one.events.append(&mut decoded.events);
        one_by_one.filtered.append(&mut decoded.filtered);
        one_by_one.blank += decoded.blank;
        one_by_one.dead.extend(decoded.dead.into_iter().map(|(_, reason, bytes)| (number, reason, bytes)));
    }
    assert_eq!(one_by_one, again, "line by line");
}
