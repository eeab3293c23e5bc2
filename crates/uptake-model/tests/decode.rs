//! Decoding, in rows: what each line becomes, and that learned layouts change nothing but the time
//! it takes. Three ways of reading meet on random input: a decoder that has learned many layouts,
//! one that never learns, and a plain one on `serde_json::Value`.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use serde_json::value::RawValue;
use uptake_model::decode::{
    DecodeConfig, Decoded, Decoder, Fields, Foreign, KindRule, Members, TimestampUnit,
};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{
    DimsHash, Epoch, EpochLength, Event, EventTime, Kind, MemberHash, Reason, RequestId, VideoHash,
};

const NOW: EventTime = EventTime(1_768_435_300_000);

fn segments(dimensions: &[&str]) -> Segments {
    Segments::new(vec![vec![], dimensions.iter().map(|d| d.to_string()).collect()]).unwrap()
}

fn filters(rules: &[&str]) -> Filters {
    Filters::parse(&rules.iter().map(|rule| rule.to_string()).collect::<Vec<_>>()).unwrap()
}

fn decoder(config: DecodeConfig, rules: &[&str]) -> Decoder {
    let segments = segments(&["country", "device"]);
    Decoder::new(config.into(), &segments, &filters(rules), EpochLength::default(), Members::All)
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    decoder.decode_block(block, NOW, 7, &mut decoded);
    decoded
}

/// What a block becomes, in words: `i`/`p` with its names, a reason, `filtered 0` or `blank`.
fn in_words(decoded: &Decoded) -> String {
    let mut words = Vec::new();
    for event in &decoded.events {
        let kind = if event.kind == Kind::Play { 'p' } else { 'i' };
        words.push(format!("{kind} {}", event.time.0));
    }
    words.extend(decoded.dead.iter().map(|(_, reason, _)| reason.to_string()));
    words.extend(decoded.filtered.iter().map(|rule| format!("filtered {rule}")));
    words.extend(vec!["blank".to_owned(); decoded.blank]);
    words.join(", ")
}

/// The block alone, and again by a decoder that has seen it before.
#[track_caller]
fn check_with(config: &DecodeConfig, rules: &[&str], block: impl AsRef<[u8]>, expect: &str) {
    let block = block.as_ref();
    let shown = String::from_utf8_lossy(block.get(..500).unwrap_or(block)).into_owned();
    assert_eq!(in_words(&decode(&mut decoder(config.clone(), rules), block)), expect, "{shown}");
    let mut learned = decoder(config.clone(), rules);
    decode(&mut learned, block);
    assert_eq!(in_words(&decode(&mut learned, block)), expect, "learned: {shown}");
}

#[track_caller]
fn check(block: impl AsRef<[u8]>, expect: &str) {
    check_with(&DecodeConfig::default(), &["device = \"test\""], block, expect);
}

const LINE: &str = r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456}"#;
const CANONICAL: &str = r#"{"kind":"impression","request_id":"7f3a91c04be2d655","video_id":"v123","timestamp":1768435200123,"member_id":"m456","row":"trending","position":3,"dimensions":{"country":"BR","device":"tv"}}"#;

/// [`LINE`] with one piece of it written otherwise.
fn with(from: &str, to: &str) -> String {
    assert!(LINE.contains(from));
    LINE.replace(from, to)
}

#[test]
fn usable_lines_are_events() {
    check(LINE, "p 1768435260456");
    check(CANONICAL, "i 1768435200123");
    check(format!("{LINE}\n"), "p 1768435260456");
    check(format!("{LINE}\r\n{LINE}\r\n"), "p 1768435260456, p 1768435260456");
    check(format!("  {LINE}\t "), "p 1768435260456");
    check(LINE.replace(':', " : ").replace(',', " ,\t"), "p 1768435260456");
    check(with("play", "\\u0070lay"), "p 1768435260456");
    check(with("\"kind\"", "\"\\u006bind\""), "p 1768435260456");
    check(with("1768435260456", "0"), "p 0");
    check(with("1768435260456", "-0"), "p 0");
    check(with("r1", "r\u{e9}\u{1f600}"), "p 1768435260456");
    check(with("r1", &"r".repeat(1024)), "p 1768435260456");
    check(with("{", r#"{"unknown":[1,{"a":null}],"more":-1.5e-3,"#), "p 1768435260456");
    check(with("{", r#"{"huge":1e400,"half":"\ud800","#), "p 1768435260456");
    check(with("{", r#"{"kind":"hover","kind":7,"#), "p 1768435260456"); // the last one counts
    check(with("{", r#"{"member_id":17,"dimensions":"none","#), "p 1768435260456");
}

#[test]
fn each_reason_has_its_lines() {
    let small = DecodeConfig { bytes_max: 80, ..DecodeConfig::default() };
    check_with(&small, &[], LINE, "p 1768435260456");
    check_with(&small, &[], format!("{LINE}{}", " ".repeat(80)), "too-long");
    check_with(
        &small,
        &[],
        format!("{LINE}\n{}\n{LINE}", "x".repeat(81)),
        "p 1768435260456, p 1768435260456, too-long",
    );
    check_with(&small, &[], [0xff; 81], "too-long");
    let longer = with("r1", "a request id of some length");
    check_with(&small, &[], format!("{LINE}\n{longer}"), "p 1768435260456, too-long");
    check(b"\xff\xfe", "not-utf8");
    check([with("v1", "v").as_bytes(), b"\xc3\x28"].concat(), "not-utf8");
    check("{", "not-json");
    check("nonsense", "not-json");
    check("\u{feff}{}", "no-kind"); // a byte order mark is passed over
    check(format!("\u{feff}{LINE}"), "p 1768435260456");
    check(format!("\u{feff}\u{feff}{LINE}"), "not-json");
    check("\0", "not-json");
    check("\u{a0}", "not-json");
    check(format!("{LINE}}}"), "not-json");
    check(format!("{LINE}{LINE}"), "not-json");
    check(format!("{LINE},"), "not-json");
    check(with("r1", "r\t1"), "not-json");
    check(with("r1", "\\ud800"), "not-json");
    check(with("r1", "\\x"), "not-json");
    check(with("1768435260456", "01"), "not-json");
    check(with("1768435260456", "1."), "not-json");
    check(with("1768435260456", "+1"), "not-json");
    check(with("1768435260456", "NaN"), "not-json");
    check(with("}", ",}"), "not-json");
    check("12", "not-an-object");
    check("\"text\"", "not-an-object");
    check("null", "not-an-object");
    check("{}", "no-kind");
    check(with("\"play\"", "null"), "no-kind");
    check(with("\"play\"", "1"), "no-kind");
    check(with("\"play\"", "[\"play\"]"), "no-kind");
    check(with("play", "Play"), "unknown-kind");
    check(with("play", ""), "unknown-kind");
    check(with("\"request_id\":\"r1\",", ""), "no-request-id");
    check(with("\"r1\"", "\"\""), "no-request-id");
    check(with("\"r1\"", "17"), "no-request-id");
    check(with("{", r#"{"video_id":"v0","#).replace("\"v1\"", "null"), "no-video-id");
    check(with("\"v1\"", "17"), "no-video-id");
    check(with("\"v1\"", "{}"), "no-video-id");
    check(with("r1", &"r".repeat(1025)), "id-too-long");
    check(with("v1", &"\u{e9}".repeat(513)), "id-too-long");
    let country = |bytes| with("{", &format!(r#"{{"country":"{}","#, "c".repeat(bytes)));
    check(country(1025), "id-too-long");
    check(country(1024), "p 1768435260456");
    check(with(",\"timestamp\":1768435260456", ""), "no-timestamp");
    check(with("1768435260456", "true"), "no-timestamp");
    check(with("1768435260456", "1768435260456.0"), "no-timestamp");
    check(with("1768435260456", "1e400"), "no-timestamp");
    check(with("1768435260456", "\"1768435260456\""), "no-timestamp");
    check(with("1768435260456", "-1"), "timestamp-out-of-range");
    check(with("1768435260456", "253402300800000"), "timestamp-out-of-range");
    check(with("1768435260456", "9223372036854775808"), "timestamp-out-of-range");
    check(with("1768435260456", &"9".repeat(400)), "timestamp-out-of-range");
    check(with("1768435260456", "1768435600001"), "timestamp-in-future");
    check(with("1768435260456", "1768435600000"), "p 1768435600000"); // now and five minutes
    check("", "");
    check("\n\n \t\r\n", "blank, blank, blank");
}

#[test]
fn checks_have_an_order() {
    let line = r#"{"kind":"x","request_id":"","video_id":"","timestamp":-1}"#;
    check(line, "unknown-kind");
    check(line.replace('x', "play"), "no-request-id");
    check(line.replace('x', "play").replace("id\":\"\",\"v", "id\":\"r\",\"v"), "no-video-id");
    let long = "v".repeat(1025);
    check(line.replace('x', "play").replace("\"\"", &format!("\"{long}\"")), "id-too-long");
    check(line.replace('x', "play").replace("\"\"", "\"a\""), "timestamp-out-of-range");
}

#[test]
fn an_array_is_its_elements() {
    check(format!("[{LINE}, {LINE}]"), "p 1768435260456, p 1768435260456");
    check(format!(" [ {LINE} ,7,[{LINE}],{{}} ] "), "p 1768435260456, not-an-object, not-an-object, no-kind");
    check("[]", "blank");
    check(format!("[{LINE}"), "not-json");
    check(format!("[{LINE},]"), "not-json");
    check(format!("[{LINE}]]"), "not-json");
    let mut fresh = decoder(DecodeConfig::default(), &[]);
    let decoded = decode(&mut fresh, format!("\n[{LINE}, {{ \"kind\":\"play\"}} ]\n").as_bytes());
    assert_eq!(decoded.dead, [(1, Reason::NoRequestId, b"{ \"kind\":\"play\"}".to_vec())]);
}

#[test]
fn nesting_of_any_depth_is_survived() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [10, 127, 128, 129, 10_000, 150_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            check(with("{", &format!("{{\"deep\":{nested},")), "p 1768435260456");
            check(with("{", &format!("{{\"dimensions\":{nested},")), "p 1768435260456");
            assert_eq!(
                decode(&mut decoder(DecodeConfig::default(), &[]), open.repeat(depth).as_bytes()).dead.len(),
                1
            );
        }
    }
}

#[test]
fn a_line_cut_anywhere_is_one_dead_letter() {
    for line in [CANONICAL, LINE] {
        let mut learned = decoder(DecodeConfig::default(), &[]);
        decode(&mut learned, format!("{line}\n{line}\n").as_bytes());
        for end in 1..line.len() {
            let cut = &line.as_bytes()[..end];
            assert_eq!(decode(&mut learned, cut).dead, [(0, Reason::NotJson, cut.to_vec())]);
            let block = [cut, b"\n", line.as_bytes(), b"\n"].concat();
            let decoded = decode(&mut learned, &block);
            assert_eq!(decoded.dead, [(0, Reason::NotJson, cut.to_vec())]);
            assert_eq!(decoded.events.len(), 1);
        }
    }
}

#[test]
fn an_event_has_the_hashes_of_its_texts() {
    let decoded = decode(&mut decoder(DecodeConfig::default(), &[]), CANONICAL.as_bytes());
    let dims = DimsHash::from_values([b"BR".as_slice(), b"tv"]);
    let expect = Event {
        request: RequestId(0x7f3a_91c0_4be2_d655),
        video: VideoHash::from_text(b"v123"),
        time: EventTime(1_768_435_200_123),
        member: MemberHash::from_text(b"m456"),
        dims,
        partition: 7,
        kind: Kind::Impression,
    };
    assert_eq!(decoded.events, [expect]);
    assert_eq!(decoded.videos, [(expect.video, "v123".to_owned(), Epoch(982_464))]);
    assert_eq!(decoded.dims, [(dims, vec!["BR".to_owned(), "tv".to_owned()], Epoch(982_464))]);

    let everyone = Segments::default();
    let config = DecodeConfig::default();
    let mut plain =
        Decoder::new(config.into(), &everyone, &Filters::none(), EpochLength::default(), Members::None);
    let decoded = decode(&mut plain, CANONICAL.as_bytes());
    assert_eq!(decoded.events, [Event { member: MemberHash::NONE, dims: DimsHash::NONE, ..expect }]);
    assert!(decoded.dims.is_empty());
}

#[test]
fn names_are_announced_once_per_later_epoch() {
    let at = |epoch: i64| with("1768435260456", &(epoch * 1_800_000).to_string()) + "\n";
    let mut decoder = decoder(DecodeConfig::default(), &[]);
    let mut told = |epoch: i64| {
        let decoded = decode(&mut decoder, at(epoch).as_bytes());
        assert_eq!(decoded.events.len(), 1);
        assert_eq!(decoded.videos.len(), decoded.dims.len());
        decoded.videos.len()
    };
    assert_eq!([told(10), told(10), told(9), told(11), told(10), told(11)], [1, 0, 0, 1, 0, 0]);
    decoder.forget_before(Epoch(11));
    assert_eq!(decode(&mut decoder, at(11).as_bytes()).videos.len(), 0);
    decoder.forget_before(Epoch(12));
    assert_eq!(decode(&mut decoder, at(9).as_bytes()).videos.len(), 1);
}

#[test]
fn dimensions_are_looked_up_at_both_places() {
    let values = |fields: &str| {
        let line = with("{", &format!("{{{fields},"));
        let (mut fast, mut slow) =
            (decoder(DecodeConfig::default(), &[]), decoder(DecodeConfig::default(), &[]));
        decode(&mut fast, line.as_bytes());
        fast.forget_before(Epoch(i64::MAX));
        let decoded = decode(&mut fast, line.as_bytes());
        assert_eq!(decoded, decode(&mut slow, line.as_bytes()));
        decoded.dims[0].1.join("/")
    };
    assert_eq!(values(r#""country":"BR","device":"tv""#), "BR/tv");
    assert_eq!(values(r#""country":"BR","dimensions":{"country":"US","device":"tv"}"#), "BR/tv");
    assert_eq!(values(r#""country":"","device":null,"dimensions":{"country":"US","device":"tv"}"#), "US/tv");
    assert_eq!(values(r#""country":17,"device":true"#), "17/true");
    assert_eq!(values(r#""country":-1.50e1,"device":false"#), "-1.50e1/false");
    assert_eq!(values(r#""country":[1],"device":{"a":"b"}"#), "/");
    assert_eq!(values(r#""dimensions":{"country":"US"},"dimensions":{"device":"tv"}"#), "/tv");
    assert_eq!(values(r#""dimensions":{"country":"US"},"dimensions":null"#), "/");
    assert_eq!(values(r#""country":"a\"b","device":"\u00e9""#), "a\"b/\u{e9}");
}

fn mapped() -> DecodeConfig {
    DecodeConfig {
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
    }
}

const MAPPED: &str = r#"{"event":{"type":"seen"},"ctx":{"page_view_id":"p1","user":null,"item":{"id":"x"}},"ts":1768435200.25,"geo":{"country":"BR"},"device":"tv"}"#;

fn by_topic() -> DecodeConfig {
    DecodeConfig {
        kind: KindRule::Always(Kind::Play),
        timestamp_unit: TimestampUnit::Rfc3339,
        ..DecodeConfig::default()
    }
}

const BY_TOPIC: &str =
    r#"{"request_id":"r1","video_id":"v1","timestamp":"2026-01-15T00:01:00.456Z","kind":"x"}"#;

#[test]
fn other_peoples_events_are_read_by_mapping() {
    check_with(&mapped(), &[], MAPPED, "i 1768435200250");
    check_with(&mapped(), &[], MAPPED.replace("seen", "start").replace(".25", ""), "p 1768435200000");
    check_with(&mapped(), &[], MAPPED.replace("seen", "impression"), "unknown-kind");
    check_with(&mapped(), &[], MAPPED.replace("1768435200.25", "1.76843520025E9"), "i 1768435200250");
    let decoded = decode(&mut decoder(mapped(), &[]), MAPPED.as_bytes());
    assert_eq!(decoded.dims[0].1, ["BR", "tv"]);
    check_with(&by_topic(), &[], BY_TOPIC, "p 1768435260456");
    check_with(&by_topic(), &[], BY_TOPIC.replace("2026", "20x6"), "no-timestamp");
    // One field may serve twice.
    let twice = Fields { video_id: "kind".to_owned(), request_id: "kind".to_owned(), ..Fields::default() };
    let config = DecodeConfig { fields: twice, ..DecodeConfig::default() };
    let decoded = decode(&mut decoder(config.clone(), &[]), format!("{LINE}\n{LINE}\n").as_bytes());
    assert_eq!(decoded.events.len(), 2);
    assert_eq!(decoded.events[1].video, VideoHash::from_text(b"play"));
    check_with(&config, &["kind = \"play\""], LINE, "filtered 0");
}

#[test]
fn filters_drop_what_fits() {
    let fits = |rule: &str, fields: &str| {
        let line = with("{", &format!("{{{fields}"));
        check_with(&DecodeConfig::default(), &[rule], line, "filtered 0");
    };
    let passes = |rule: &str, fields: &str| {
        let line = with("{", &format!("{{{fields}"));
        check_with(&DecodeConfig::default(), &[rule], line, "p 1768435260456");
    };
    fits(r#"device = "test""#, r#""device":"test","#);
    fits(r#"device = "test""#, r#""dimensions":{"device":"test"},"#);
    fits(r#"device = "test""#, r#""device":"te\u0073t","#);
    passes(r#"device = "test""#, r#""device":"tv","dimensions":{"device":"test"},"#);
    passes(r#"device = "test""#, "");
    fits(r#"kind = "play""#, "");
    passes(r#"kind = "impression""#, "");
    fits(r#"kind != "impression" and video_id = "v1""#, "");
    passes(r#"kind = "play" and video_id = "v2""#, "");
    fits(r#"request_id in ["r0", "r1"]"#, "");
    passes(r#"request_id not in ["r0", "r1"]"#, "");
    fits("timestamp >= 1768435260456", "");
    passes("timestamp > 1768435260456", "");
    fits(r#"kind = "play" and watch_ms < 30000"#, r#""watch_ms":29999,"#);
    fits("watch_ms < 30000", r#""watch_ms":2.9e4,"#);
    fits("watch_ms < 0.5", r#""watch_ms":-1,"#);
    fits("watch_ms > 1e300", r#""watch_ms":1e400,"#);
    fits("watch_ms = 9223372036854775809", r#""watch_ms":9223372036854775809,"#);
    passes("watch_ms = 9223372036854775809", r#""watch_ms":9223372036854775808,"#);
    passes("watch_ms < 30000", r#""watch_ms":30000,"#);
    passes("watch_ms < 30000", r#""watch_ms":"5","#);
    passes("watch_ms < 30000", "");
    passes("watch_ms != 1", "");
    passes("watch_ms != 1", r#""watch_ms":1.0,"#);
    fits("watch_ms != 1", r#""watch_ms":"1","#);
    fits(r#"member_id in ["17"]"#, r#""member_id":17,"#);
    passes("member_id = 17", r#""member_id":"17","#);
    fits("member_id in [16, 17]", r#""member_id":17,"#);
    fits(r#"title >= "b""#, r#""title":"bravo","#);
    passes(r#"title >= "b""#, r#""title":"alpha","#);
    fits("bot = true", r#""bot":true,"#);
    passes("bot = true", r#""bot":false,"#);
    fits("bot != true", r#""bot":false,"#);
    fits("bot exists", r#""bot":false,"#);
    fits("bot exists", r#""dimensions":{"bot":0},"#);
    fits("player exists", r#""player":{},"#);
    fits("player missing", r#""player":null,"#);
    fits("player missing", r#""player":"","#);
    fits("player.version missing", r#""player":{},"#);
    fits(r#"player.version = "1""#, r#""player":{"version":1},"#);
    passes("player.version exists", r#""player.version":1,"#);
    check_with(&DecodeConfig::default(), &["row exists", "kind = \"play\""], LINE, "filtered 1");
    // A dead letter is not filtered.
    check_with(&DecodeConfig::default(), &["video_id missing"], with("v1", ""), "no-video-id");
    check_with(&mapped(), &[r#"member_id = "u1""#], MAPPED.replace("null", "\"u1\""), "filtered 0");
}

#[test]
fn mistakes_in_rules_are_told_with_their_place() {
    for (rule, position, says) in [
        ("", 1, "field's name"),
        ("= 1", 1, "field's name"),
        ("device", 7, "expected `=`"),
        ("device = ", 10, "expected a value"),
        ("device = test", 10, "in quotes"),
        ("device == \"test\"", 9, "single `=`"),
        ("device = \"test", 10, "expected a value"),
        ("device = \"\"", 10, "missing"),
        ("device = null", 10, "missing"),
        ("device = [1]", 10, "`in`"),
        ("device in 1", 11, "a list"),
        ("device in [null]", 11, "missing"),
        ("device not 1", 12, "expected `in`"),
        ("device < true", 10, "no order"),
        ("kind = \"hover\"", 8, "\"impression\" or \"play\""),
        ("kind < 3", 8, "\"impression\" or \"play\""),
        ("a..b = 1", 1, "empty name"),
        ("a = 1 or b = 2", 7, "for each side of `or`"),
        ("\u{e9} = 1 and", 10, "field's name"),
    ] {
        let mistakes = Filters::parse(&[rule.to_owned(), "device = 1".to_owned()]).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].contains(&format!("`{rule}`, position {position}: ")), "{}", mistakes[0]);
        assert!(mistakes[0].contains(says), "{}", mistakes[0]);
    }
    assert_eq!(Filters::default().text(0), "device = \"test\"");
    assert_eq!(Filters::parse(&["x".to_owned(), "y".to_owned()]).unwrap_err().len(), 2);
}

/// The configurations that random lines are read with, each with a line that fits it.
fn configs() -> Vec<(DecodeConfig, &'static [&'static str], &'static str)> {
    let wide = Fields { video_id: "kind".to_owned(), ..Fields::default() };
    vec![
        (DecodeConfig::default(), &["device = \"test\"", "position > 5 and row = \"top10\""], CANONICAL),
        (DecodeConfig::default(), &["video_id = \"v127\""], CANONICAL),
        (DecodeConfig::default(), &["timestamp > 1768435200125 and row = \"trending\""], CANONICAL),
        (DecodeConfig { bytes_max: 150, ..DecodeConfig::default() }, &["title missing"], LINE),
        (mapped(), &["ctx exists and ctx.item.id = \"x1\""], MAPPED),
        (by_topic(), &["member_id in [\"m1\", 2]"], BY_TOPIC),
        (DecodeConfig { fields: wide, ..DecodeConfig::default() }, &[], LINE),
        (foreign(), &["item.class = \"x\"", "position > 5"], FOREIGN),
    ]
}

/// A form in which one record tells of a list of titles.
fn foreign() -> DecodeConfig {
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
    let form = Foreign::parse(&fields, "list.items | items", kinds, TimestampUnit::Us).unwrap();
    DecodeConfig { foreign: Some(form), ..DecodeConfig::default() }
}

const FOREIGN: &str = r#"{"name":"seen","user":"u1","params":[{"key":"page","value":{"int":7}}],"us":"1768435200123456","geo":{"country":"BR"},"device":"tv","items":[{"id":"v1","class":"y","at":1},{"id":12}]}"#;

#[test]
fn records_of_another_form() {
    let with = |part: &str| FOREIGN.replace(r#"[{"id":"v1","class":"y","at":1},{"id":12}]"#, part);
    let many = |n: usize| with(&format!("[{}]", vec![r#"{"id":"v"}"#; n].join(",")));
    for (line, becomes) in [
        (FOREIGN.to_owned(), "i u1/7 v1 | i u1/7 12"),
        // What was dropped, what cannot be used and what can are told apart within one record.
        (with(r#"[{"id":"v1","class":"x"},{"at":1},{"id":"v3"}]"#), "i u1/7 v3 | filtered 0 | no-video-id"),
        (with("[]"), "blank"),
        (with("3"), "no-video-id"),
        (FOREIGN.replace("\"items\"", "\"list\":{\"items\":[{\"id\":\"w\"}]},\"items\""), "i u1/7 w"),
        (FOREIGN.replace("\"key\":\"page\"", "\"key\":\"other\""), "no-request-id"),
        (FOREIGN.replace("\"user\":\"u1\"", "\"request\":\"r9\""), "i r9 v1 | i r9 12"),
        (FOREIGN.replace("seen", "impression"), "unknown-kind"),
        (FOREIGN.replace("\"name\":\"seen\",", ""), "no-kind"),
        (FOREIGN.replace("\"17684352", "\"X"), "no-timestamp"),
        (
            r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456}"#.to_owned(),
            "p r1 v1",
        ),
        ("{\"name\":\"seen\",}".to_owned(), "not-json"),
        (many(1_001), "too-long"),
    ] {
        let decoded = decode(&mut decoder(foreign(), &["item.class = \"x\""]), line.as_bytes());
        let mut words: Vec<String> = decoded
            .events
            .iter()
            .map(|event| {
                let kind = if event.kind == Kind::Play { 'p' } else { 'i' };
                let names = ["u1/7", "r9", "r1"]
                    .iter()
                    .find(|id| RequestId::from_text(id.as_bytes()) == event.request);
                let videos = ["v1", "v3", "w", "12"]
                    .iter()
                    .find(|id| VideoHash::from_text(id.as_bytes()) == event.video);
                format!("{kind} {} {}", names.unwrap(), videos.unwrap())
            })
            .collect();
        words.extend(decoded.filtered.iter().map(|rule| format!("filtered {rule}")));
        words.extend(decoded.dead.iter().map(|(_, reason, _)| reason.name().to_owned()));
        words.extend((0..decoded.blank).map(|_| "blank".to_owned()));
        assert_eq!(words.join(" | "), becomes, "{line}");
    }
    assert_eq!(decode(&mut decoder(foreign(), &[]), many(1_000).as_bytes()).events.len(), 1_000);
    // A dead letter is the record as it came, or with what could not be used alone.
    let line = with(r#"[{"id":"v1"},{"at":1},{"at":2}]"#);
    let decoded = decode(&mut decoder(foreign(), &[]), line.as_bytes());
    let [(0, Reason::NoVideoId, bytes)] = &decoded.dead[..] else { panic!("{decoded:?}") };
    let left: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(left["items"].to_string(), r#"[{"at":1},{"at":2}]"#);
    assert_eq!(left["us"], "1768435200123456");
    let alone = with(r#"[ {"at":1}]"#);
    assert_eq!(decode(&mut decoder(foreign(), &[]), alone.as_bytes()).dead[0].2, alone.as_bytes());
}

/// Pieces that break lines in interesting ways.
const PIECES: [&[u8]; 40] = [
    b"\"",
    b"\\",
    b",",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"0",
    b"1",
    b"9999999999",
    b"-",
    b".5",
    b"e5",
    b"E+400",
    b"null",
    b"true",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\xff",
    "\u{e9}".as_bytes(),
    "\u{1f600}".as_bytes(),
    b"\\u0041",
    b"\\ud800",
    b"\\n",
    b"\"a\":1,",
    b"\"kind\":\"play\",",
    b"\"device\":\"test\",",
    b"\"dimensions\":{\"country\":\"US\"},",
    b",\"position\":7",
    b"{}",
    b"\"\"",
    b"\xef\xbb\xbf",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(prop::sample::Index, usize),
    Replace(prop::sample::Index, usize),
    Delete(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (index(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Replace(at, piece)),
        (index(), 1..12usize).prop_map(|(at, count)| Change::Delete(at, count)),
        (index(), index(), 1..40usize).prop_map(|(from, to, count)| Change::Copy(from, to, count)),
    ]
}

fn changed(line: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut line = line.to_vec();
    for change in changes {
        let length = line.len();
        let end = |at: usize, count: usize| (at + count).min(length);
        match change {
            _ if length == 0 => line = b"{}".to_vec(),
            Change::Insert(at, piece) => {
                let at = at.index(length + 1);
                line.splice(at..at, PIECES[*piece].iter().copied());
            }
            Change::Replace(at, piece) => {
                let at = at.index(length);
                line.splice(at..=at, PIECES[*piece].iter().copied());
            }
            Change::Delete(at, count) => {
                let at = at.index(length);
                line.drain(at..end(at, *count));
            }
            Change::Copy(from, to, count) => {
                let from = from.index(length);
                let copy = line[from..end(from, *count)].to_vec();
                let to = to.index(length);
                line.splice(to..to, copy);
            }
        }
    }
    line
}

/// A line that fits a configuration, with other values at times.
fn line(base: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["[a-z]{0,3}", "[0-9a-f]{16}", "[ -~&&[^\"\\\\]]{0,40}", "\\PC{0,9}"];
    (text, any::<u64>(), 0..5usize, any::<prop::sample::Index>()).prop_map(move |(text, number, way, at)| {
        // One of the base's quoted values (or, on purpose, keys) becomes another text.
        let quoted: Vec<&str> = base.split('"').skip(1).step_by(2).collect();
        let old = format!("\"{}\"", quoted[at.index(quoted.len())]);
        let quote = |text: &str| serde_json::to_string(text).unwrap();
        match way {
            0 => base.to_owned(),
            1 => base.replacen(&old, &quote(&text), 1),
            2 => base.replacen(&old, &number.to_string(), 1),
            3 => base.replacen("17684352", &(17_684_350 + number % 9).to_string(), 1),
            _ => base.replacen('{', &format!("{{{}:{},", quote(&text), number % 1000), 1),
        }
        .into_bytes()
    })
}

fn block(base: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop_oneof![Just(Vec::new()), prop::collection::vec(change(), 1..4)];
    let line = (line(base), changes).prop_map(|(line, changes)| changed(&line, &changes));
    let lines = prop::collection::vec(line, 1..12);
    (lines, any::<bool>(), 0..3usize).prop_map(move |(lines, end, way)| {
        let mut block = [base.as_bytes(), b"\n"].concat();
        match way {
            0 => {
                block.push(b'[');
                block.extend(lines.join(&b','));
                block.push(b']');
            }
            _ => block.extend(lines.join(&b'\n')),
        }
        if end {
            block.push(b'\n');
        }
        block
    })
}

/// How many outcomes a block must have: one a line, or one an element of an array.
fn outcomes_due(block: &[u8], bytes_max: usize) -> usize {
    let lines = block.strip_suffix(b"\n").unwrap_or(block).split(|&b| b == b'\n');
    let due = |line: &[u8]| match serde_json::from_slice::<Vec<&RawValue>>(line) {
        Ok(elements) if line.strip_suffix(b"\r").unwrap_or(line).len() <= bytes_max => elements.len().max(1),
        _ => 1,
    };
    if block.is_empty() { 0 } else { lines.map(due).sum() }
}

fn outcomes(decoded: &Decoded) -> usize {
    decoded.events.len() + decoded.dead.len() + decoded.filtered.len() + decoded.blank
}

/// Runs `property` on random blocks for each configuration.
fn on_blocks(cases: u32, property: impl Fn(usize, &[u8])) {
    for (index, (_, _, base)) in configs().into_iter().enumerate() {
        let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
        let run = runner.run(&block(base), |block| {
            property(index, &block);
            Ok(())
        });
        if let Err(failure) = run {
            panic!("configuration {index}: {failure}");
        }
    }
}

#[test]
fn learned_layouts_read_what_the_general_parser_reads() {
    let configs = configs();
    // One pair lives through all blocks and forgets layouts again and again.
    let old: Vec<_> = configs
        .iter()
        .map(|(config, rules, _)| {
            let slow = decoder(config.clone(), rules).without_learning();
            RefCell::new((decoder(config.clone(), rules), slow))
        })
        .collect();
    on_blocks(1500, |index, block| {
        let (config, rules, _) = &configs[index];
        let (fast, slow) = &mut *old[index].borrow_mut();
        let expect = decode(slow, block);
        assert_eq!(decode(fast, block), expect);
        let (told, due) = (outcomes(&expect), outcomes_due(block, config.bytes_max));
        // A record of another form may hold many events.
        let balances = told == due || config.foreign.is_some() && told > due;
        assert!(balances, "the books balance: {told} of {due}");
        let mut fresh = decoder(config.clone(), rules);
        decode(&mut fresh, block);
        let mut again = decode(&mut fresh, block);
        let expect = decode(slow, block);
        (again.videos, again.dims) = Default::default(); // all told before
        assert_eq!(again, Decoded { videos: Vec::new(), dims: Vec::new(), ..expect });
    });
}

/// Lines like `base`, of whose runs of digits those in `changing` have another last digit each time.
fn lines_in_a_row(base: &str, changing: u64, count: usize) -> Vec<u8> {
    let mut block = Vec::new();
    for n in 0..count {
        let (mut line, mut run) = (base.as_bytes().to_vec(), 0);
        for at in 0..line.len() {
            let ends = line[at].is_ascii_digit() && !line.get(at + 1).is_some_and(u8::is_ascii_digit);
            if ends && changing >> (run % 64) & 1 == 1 {
                line[at] = b'0' + (n % 10) as u8;
            }
            run += u32::from(ends);
        }
        block.extend(line);
        block.push(b'\n');
    }
    block
}

#[test]
fn values_that_stay_for_many_records_are_read_as_if_they_did_not() {
    let configs = configs();
    on_blocks(150, |index, block| {
        let (config, rules, base) = &configs[index];
        let mut fast = decoder(config.clone(), rules);
        let mut slow = decoder(config.clone(), rules).without_learning();
        // Which values change is as random as the block is.
        let chance = RequestId::from_text(block).0;
        for round in 0..3 {
            let changing = chance.rotate_left(13 * round) & chance.rotate_left(29 * round + 7);
            let before = lines_in_a_row(base, changing, 90);
            assert_eq!(decode(&mut fast, &before), decode(&mut slow, &before), "changing: {changing:x}");
            for block in [block, &lines_in_a_row(base, !changing, 3), block, &before[..before.len() / 2]] {
                assert_eq!(decode(&mut fast, block), decode(&mut slow, block), "changing: {changing:x}");
            }
        }
    });
}

/// Decoding of the canonical form, as plainly as it can be said.
fn plainly(line: &[u8]) -> Result<Event, Reason> {
    let text = std::str::from_utf8(line).map_err(|_| Reason::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|_| Reason::NotJson)?;
    let object = value.as_object().ok_or(Reason::NotAnObject)?;
    let get = |key: &str| object.get(key);
    let kind = match get("kind").and_then(Value::as_str).ok_or(Reason::NoKind)? {
        "impression" => Kind::Impression,
        "play" => Kind::Play,
        _ => return Err(Reason::UnknownKind),
    };
    let id = |key| get(key).and_then(Value::as_str).filter(|id| !id.is_empty());
    let request = id("request_id").ok_or(Reason::NoRequestId)?;
    let video = id("video_id").ok_or(Reason::NoVideoId)?;
    if request.len() > 1024 || video.len() > 1024 {
        return Err(Reason::IdTooLong);
    }
    // A number beyond 64 bits is a float to `Value`, so such lines are left to the rows above.
    let time = match get("timestamp") {
        Some(Value::Number(n)) if n.is_u64() => n.as_u64().unwrap(),
        Some(Value::Number(n)) if n.is_i64() => return Err(Reason::TimestampOutOfRange),
        _ => return Err(Reason::NoTimestamp),
    };
    if time > EventTime::LATEST.0 as u64 {
        return Err(Reason::TimestampOutOfRange);
    }
    if time as i64 > NOW.0 + 300_000 {
        return Err(Reason::TimestampInFuture);
    }
    let scalar = |value: Option<&Value>| match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        _ => None,
    };
    let dimension =
        |name| scalar(get(name)).or_else(|| scalar(get("dimensions")?.get(name))).unwrap_or_default();
    let (country, device) = (dimension("country"), dimension("device"));
    if country.len() > 1024 || device.len() > 1024 {
        return Err(Reason::IdTooLong);
    }
    Ok(Event {
        request: RequestId::from_text(request.as_bytes()),
        video: VideoHash::from_text(video.as_bytes()),
        time: EventTime(time as i64),
        member: MemberHash::from_text(scalar(get("member_id")).unwrap_or_default().as_bytes()),
        dims: DimsHash::from_values([country.as_bytes(), device.as_bytes()]),
        partition: 7,
        kind,
    })
}

#[test]
fn canonical_lines_mean_what_the_plain_reading_says() {
    let decoder = RefCell::new(decoder(DecodeConfig::default(), &[]));
    let mut runner = TestRunner::new(ProptestConfig { cases: 4000, ..ProptestConfig::default() });
    let compared = RefCell::new(0);
    let lines = prop_oneof![block(CANONICAL), block(LINE)];
    let run = runner.run(&lines, |block| {
        for line in block.split(|&b| b == b'\n') {
            // What `Value` reads otherwise than by the text: numbers that are not 64-bit integers,
            // and what it refuses in fields that nobody asked for.
            let float = |w: &[u8]| w[0].is_ascii_digit() && matches!(w[1], b'.' | b'e' | b'E');
            let unlike = line.windows(2).any(|w| float(w) || w == b"-0" || w == b"\\u")
                || line.split(|b| !b.is_ascii_digit()).any(|digits| digits.len() > 18);
            let first = line.iter().find(|b| !b" \t\r".contains(b));
            if unlike || matches!(first, None | Some(b'[')) {
                continue;
            }
            let decoded = decode(&mut decoder.borrow_mut(), line);
            let result = decoded.events.first().copied().ok_or_else(|| decoded.dead[0].1);
            assert_eq!(result, plainly(line), "{}", String::from_utf8_lossy(line));
            *compared.borrow_mut() += 1;
        }
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
    assert!(compared.into_inner() > 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_bytes_are_survived(block in prop::collection::vec(any::<u8>(), 0..300)) {
        for (config, rules, base) in configs() {
            let mut fast = decoder(config.clone(), rules);
            decode(&mut fast, base.as_bytes());
            let decoded = decode(&mut fast, &block);
            prop_assert_eq!(outcomes(&decoded), outcomes_due(&block, config.bytes_max));
        }
    }
}

#[test]
fn shapes_without_end_neither_slow_down_nor_push_out_the_usual_one() {
    let mut decoder = decoder(DecodeConfig::default(), &[]);
    let mut block = String::new();
    for n in 0..20_000 {
        block += &with("{", &format!("{{\"key{n}\":{n},"));
        block += "\n";
        block += CANONICAL;
        block += "\n";
    }
    let decoded = decode(&mut decoder, block.as_bytes());
    assert_eq!(decoded.events.len(), 40_000);
    assert!(format!("{decoder:?}").len() < 200_000, "layouts are few");
}
