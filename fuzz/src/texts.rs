//! What must hold of texts that people write, whatever is in them: rules of filters, paths into other people's
//! events, catalogues, names of segments. They are refused in words, or mean the same to the decoder that has
//! learned its input as to the one that has not; nothing panics.
//!
//! The first byte of an input chooses what the rest is. This file is shared by the fuzz target and the test
//! that replays the corpus.

use std::collections::BTreeMap;

use uptake_model::decode::{
    DecodeConfig, Decoded, Decoder, Fields, Foreign, KindRule, Members, TimestampUnit,
};
use uptake_model::filter::Filters;
use uptake_model::segment::{self, Segments};
use uptake_model::{EpochLength, EventTime};
use uptake_trends::Catalogue;

const NOW: EventTime = EventTime(1_768_435_300_000);

const PLAIN: &[u8] = br#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456,"row":"a","position":4}
{"kind":"impression","request_id":"r1","video_id":"v2","timestamp":1768435260457,"geo":{"country":"BR"},"tags":["x",1]}
"#;

const OTHERS: &[u8] = br#"{"name":"seen","params":[{"key":"page","value":{"int":7}}],"user":"u1","us":"1768435200123456","items":[{"id":"v1","class":"y"},{"id":12,"at":3}]}
"#;

/// Panics if anything that must hold of `input` does not.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match choice % 4 {
        0 => filter(text),
        1 => paths(text),
        2 => catalogue(text),
        _ => segments(text),
    }
}

/// With and without learning, one block three times.
fn decoded(config: &DecodeConfig, filters: &Filters, segments: &Segments, block: &[u8]) {
    let new = || Decoder::new(config.clone().into(), segments, filters, EpochLength::default(), Members::All);
    let (mut reference, mut learned) = (new().without_learning(), new());
    for _ in 0..3 {
        let decode = |decoder: &mut Decoder| {
            let mut decoded = Decoded::default();
            decoder.decode_block(block, NOW, 3, &mut decoded);
            decoded
        };
        assert_eq!(decode(&mut learned), decode(&mut reference));
    }
}

fn filter(text: &str) {
    let rules: Vec<String> = text.lines().map(str::to_owned).collect();
    let Ok(filters) = Filters::parse(&rules) else { return };
    assert_eq!(filters.count(), rules.len(), "each rule is one");
    decoded(&DecodeConfig::default(), &filters, &Segments::default(), PLAIN);
}

/// A line for each: kind, request, video, time, member, the list.
fn paths(text: &str) {
    let mut lines = text.lines().map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let fields = Fields {
        kind: next(),
        request_id: next(),
        video_id: next(),
        timestamp: next(),
        member_id: next(),
        row: String::new(),
        position: String::new(),
        dimensions: BTreeMap::new(),
    };
    let kinds = KindRule::ByField { impression: vec!["seen".into()], play: vec!["start".into()] };
    let Ok(foreign) = Foreign::parse(&fields, &next(), kinds, TimestampUnit::Us) else { return };
    let config = DecodeConfig { foreign: Some(foreign), ..DecodeConfig::default() };
    decoded(&config, &Filters::none(), &Segments::default(), OTHERS);
}

fn catalogue(text: &str) {
    for catalogue in [Catalogue::from_csv(text), Catalogue::from_json(text)].into_iter().flatten() {
        assert!(catalogue.get("").is_none() || text.contains('['), "a line without an id is refused");
        catalogue.is_available("v1", NOW);
    }
}

fn segments(text: &str) {
    let stored = ["", "country=BR", "country=BR,device=tv"];
    if let Ok(found) = segment::find(text, stored) {
        assert_eq!(segment::find(&found, stored).as_deref(), Ok(&*found), "a name finds itself");
    }
    let lists: Vec<Vec<String>> =
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    if let Ok(segments) = Segments::new(lists) {
        decoded(&DecodeConfig::default(), &Filters::none(), &segments, PLAIN);
    }
}
