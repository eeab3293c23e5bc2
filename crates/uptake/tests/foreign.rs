//! Events of other systems: what their records come to, and that they are the same events as in our own form.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::collections::BTreeMap;

use common::{Place, dead_letters, say, uptake};
use proptest::prelude::*;
use serde_json::{Value, json};
use uptake::config::Config;
use uptake_model::decode::{DecodeConfig, Decoded, Decoder, Members};
use uptake_model::segment::Segments;
use uptake_model::{EpochLength, Event, EventTime};

const PRESETS: [&str; 4] = ["ga4", "snowplow", "segment", "posthog"];
const NOON_MS: i64 = 1_768_478_400_000;

/// The file of `preset` in the folder of examples, or in the one of what trackers sent.
fn example(preset: &str) -> String {
    let path = format!("{}/tests/fixtures/foreign/{preset}.ndjson", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_examples_of_each_system_come_to_what_happened_in_them() {
    // What is no event of ours; what cannot be used and why; empty lists; what was told twice.
    for (preset, filtered, dead, blank, duplicate) in [
        ("ga4", 3, "no-video-id", 1, 3),
        ("snowplow", 2, "no-request-id", 0, 3),
        ("segment", 3, "no-video-id", 0, 3),
        ("posthog", 2, "no-request-id", 0, 1),
    ] {
        let place = Place::new();
        place.write("in/events.jsonl", example(preset));
        let setting = format!("events.preset={preset}");
        let books = place.books(&["--set", &setting, "--set", r#"segments=[[],["country"]]"#]);
        assert_eq!(place.told(), "v1 00:00 2/3 | v2 00:00 2/2 | v3 00:00 0/1", "{preset}");
        let numbers =
            [books.n("filtered"), books.dead(dead), books.n("dead"), books.n("blank"), books.n("duplicate")];
        assert_eq!(numbers, [filtered, 1, 1, blank, duplicate], "{preset}: {}", books.0);
        assert_eq!(
            books.0["filtered_by_rule"],
            json!({"another kind of event": filtered, "device = \"test\"": 0}),
            "{preset}"
        );
        let country = if preset == "ga4" { "country=Brazil" } else { "country=BR" };
        let data = place.data();
        let args = ["tallies", "--segment", country, "--data", data.to_str().unwrap(), "--format", "csv"];
        // Segment tells no country, unless a service of its own adds one.
        let rows = if preset == "segment" { 1 } else { 4 };
        assert_eq!(uptake(args).ok().lines().count(), rows, "{preset}");
    }
}

/// Three pages as the systems' own trackers told of them: one that v1 was played on, one that v2 was, and one that
/// shows v1 and v4 and was left.
#[test]
fn what_the_trackers_themselves_sent_comes_to_what_happened() {
    for preset in ["snowplow", "segment", "posthog"] {
        let place = Place::new();
        place.write("in/events.jsonl", example(&format!("recorded/{preset}")));
        let setting = format!("events.preset={preset}");
        let books = place.books(&["--set", &setting]);
        let at_seven_pm = "v1,997766,1,2,true\nv2,997766,1,2,true\nv3,997766,0,1,true\n";
        assert_eq!(place.csv().split_once('\n').unwrap().1, at_seven_pm, "{preset}");
        // Of each page one event says that it was opened.
        let numbers = ["read", "counted", "expired", "filtered"].map(|of| books.n(of));
        assert_eq!(numbers, [12, 7, 2, 3], "{preset}: {}", books.0);
        // The trackers say who it was.
        let data = place.data();
        let args = ["tallies", "--data", data.to_str().unwrap(), "--format", "csv", "--segment", "~members"];
        let members = uptake(args).ok();
        assert_eq!(
            members.lines().skip(1).collect::<Vec<_>>(),
            ["v1,997766,1,1,true", "v2,997766,1,1,true"],
            "{preset}"
        );
    }
}

#[test]
fn of_a_list_only_what_could_not_be_used_is_kept_and_comes_back_after_a_fix() {
    let place = Place::new();
    place.write("in/events.jsonl", example("ga4"));
    let data = place.data();
    let on = |args: &[&str]| uptake([args, &["--data", data.to_str().unwrap()]].concat());
    on(&["append", place.path("in").to_str().unwrap(), "--set", "events.preset=ga4"]).ok();
    on(&["run", "--until-caught-up", "--set", "events.preset=ga4"]).ok();
    let kept = dead_letters(&data);
    let [letter] = &kept[..] else { panic!("{kept:?}") };
    let record: Value = serde_json::from_slice(&letter.bytes).unwrap();
    assert_eq!(record["items"].as_array().unwrap().len(), 1, "the title beside it was counted");
    // Their titles without an id have at least a name.
    let fix = ["--set", "events.preset=ga4", "--set", "events.fields.video_id=item.item_id | item.item_name"];
    on(&[&["dead-letters", "replay"][..], &fix].concat()).ok();
    on(&[&["run", "--until-caught-up"][..], &fix].concat()).ok();
    assert_eq!(place.told(), "Title  00:00 0/1 | v1 00:00 2/3 | v2 00:00 2/2 | v3 00:00 0/1");
}

/// Google Analytics writes "(not set)" where a site tells nothing: no title is called so, and no country.
#[test]
fn a_text_that_stands_for_nothing_is_no_value() {
    let place = Place::new();
    let event = |name: &str, items: Value, country: &str| {
        json!({"event_name": name, "event_timestamp": "1705320000000000", "user_pseudo_id": "u", "items": items,
            "geo": {"country": country}, "channel": country, "event_params": [{"key": "request_id", "value": {"string_value": "r1"}}]})
        .to_string()
    };
    let item = |id: &str| json!({"item_id": id, "item_name": "Title", "item_list_id": "(not set)"});
    let lines = [
        event("view_item_list", json!([item("v1"), item("(not set)")]), "(not set)"),
        event("select_item", json!([item("v1")]), "Brazil"),
    ];
    place.write("in/events.jsonl", lines.join("\n"));
    let set = ["--set", "events.preset=ga4", "--set", r#"segments=[[],["country"],["channel"]]"#];
    let books = place.books(&set);
    assert_eq!((place.told().as_str(), books.dead("no-video-id")), ("v1 12:00 1/1", 1), "{}", books.0);
    let data = place.data();
    let args = ["tallies", "--format", "csv", "--data", data.to_str().unwrap(), "--segment"];
    // Of a dimension that a path leads to, and of one that stands where its name says.
    for dimension in ["country", "channel"] {
        let rows_of = |value: &str| {
            let segment = format!("{dimension}={value}");
            uptake([&args[..], &[&segment]].concat()).ok().lines().count() - 1
        };
        assert_eq!((rows_of("(not set)"), rows_of("Brazil")), (0, 1), "{dimension}");
    }
    // Whoever wants such titles counted says so.
    let place = Place::new();
    place.write("in/events.jsonl", lines.join("\n"));
    place.books(&[&set[..], &["--set", "events.missing=[]"]].concat());
    assert_eq!(place.told(), "(not set) 12:00 0/1 | v1 12:00 1/1");
}

#[test]
fn what_is_wrong_with_a_mapping_is_told_by_its_key() {
    let wrong = [
        "events.preset=matomo",
        "events.items=a[",
        "events.fields.kind=a[b]",
        "events.fields.request_id=a | ",
        "events.kind.others=ignore",
    ];
    let error = Config::load(None, &wrong.map(str::to_owned)).unwrap_err();
    for (mistake, key) in error.mistakes.iter().zip([
        "events.preset: \"matomo\" is none of \"\", \"ga4\"",
        "events.fields.kind: \"a[b]\" is not a path",
        "events.fields.request_id: \"\" is not a path",
        "events.items: \"a[\" is not a path",
        "events.kind.others: \"ignore\" is none of",
    ]) {
        assert!(mistake.starts_with(key), "{mistake}\n{key}");
    }
    assert_eq!(error.mistakes.len(), 5, "{error}");
}

/// What somebody saw or played.
#[derive(Clone, Debug)]
struct Act {
    is_play: bool,
    request: u8,
    titles: Vec<u8>,
    ms: i64,
    country: &'static str,
}

fn act() -> impl Strategy<Value = Act> {
    let titles = prop::collection::vec(0_u8..6, 1..5);
    let country = prop::sample::select(vec!["BR", "DE", "a \"quoted\" place", "ü"]);
    (any::<bool>(), 0_u8..5, titles, 0_i64..3_600_000, country).prop_map(
        |(is_play, request, titles, ms, country)| Act {
            is_play,
            request,
            titles: if is_play { vec![titles[0]] } else { titles },
            ms: NOON_MS + ms,
            country,
        },
    )
}

impl Act {
    fn canonical(&self) -> Vec<Value> {
        let kind = if self.is_play { "play" } else { "impression" };
        let one = |title: &u8| {
            json!({"kind": kind, "request_id": format!("r{}", self.request), "video_id": format!("v{title}"),
                "timestamp": self.ms, "country": self.country, "member_id": "m"})
        };
        self.titles.iter().map(one).collect()
    }

    fn rfc3339(&self) -> String {
        let seconds = self.ms.div_euclid(1_000) - NOON_MS / 1_000;
        let (h, m, s) = (12 + seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("2026-01-15T{h:02}:{m:02}:{s:02}.{:03}Z", self.ms.rem_euclid(1_000))
    }

    fn foreign(&self, preset: &str) -> Value {
        let request = format!("r{}", self.request);
        let name =
            |impression: &'static str, play: &'static str| if self.is_play { play } else { impression };
        let list = |id: &str| -> Vec<Value> {
            self.titles.iter().map(|title| json!({id: format!("v{title}"), "position": 1})).collect()
        };
        match preset {
            "ga4" => json!({"event_name": name("view_item_list", "select_item"),
                "event_timestamp": (self.ms * 1_000 + 999).to_string(), "user_pseudo_id": "m",
                "event_params": [{"key": "other", "value": {"int_value": "7"}},
                    {"key": "request_id", "value": {"string_value": request}}],
                "geo": {"country": self.country}, "items": list("item_id")}),
            "snowplow" => {
                let action =
                    "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1";
                json!({action: {"type": name("list_view", "list_click")}, "derived_tstamp": self.rfc3339(),
                    "contexts_com_snowplowanalytics_snowplow_web_page_1": [{"id": request}], "domain_userid": "m",
                    "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": list("id"),
                    "geo_country": self.country})
            }
            "segment" => {
                let properties = match self.is_play {
                    true => json!({"request_id": request, "product_id": format!("v{}", self.titles[0])}),
                    false => json!({"request_id": request, "products": list("product_id")}),
                };
                json!({"type": "track", "event": name("Product List Viewed", "Product Clicked"),
                    "timestamp": self.rfc3339(), "anonymousId": "m", "properties": properties,
                    "context": {"location": {"country": self.country}}})
            }
            _ => json!({"event": name("Product List Viewed", "play"), "distinct_id": "m",
                "timestamp": self.rfc3339(), "properties": {"$pageview_id": request,
                "$geoip_country_code": self.country, "products": list("video_id")}}),
        }
    }
}

fn decoded(config: &DecodeConfig, lines: &str) -> (Vec<Event>, BTreeMap<u64, Vec<String>>) {
    let segments = Segments::new(vec![vec![], vec!["country".to_owned()]]).unwrap();
    let filters = uptake_model::filter::Filters::default().and_other_kinds();
    let mut decoder =
        Decoder::new(config.clone().into(), &segments, &filters, EpochLength::default(), Members::All);
    let mut decoded = Decoded::default();
    decoder.decode_block(lines.as_bytes(), EventTime(NOON_MS + 7_200_000), 3, &mut decoded);
    assert_eq!((decoded.dead.len(), decoded.filtered.len()), (0, 0), "{lines}");
    (decoded.events, decoded.dims.into_iter().map(|(dims, values, _)| (dims.0, values)).collect())
}

#[test]
fn in_whatever_form_events_come_they_are_the_same_events() {
    let mut runner = proptest::test_runner::TestRunner::default();
    for preset in PRESETS {
        let config = Config::load(None, &[format!("events.preset={preset}")]).unwrap();
        let acts = prop::collection::vec(act(), 1..30);
        let run = runner.run(&acts, |acts| {
            let lines =
                |values: Vec<Value>| values.iter().map(|value| format!("{value}\n")).collect::<String>();
            let own = lines(acts.iter().flat_map(Act::canonical).collect());
            let expected = decoded(&DecodeConfig::default(), &own);
            let theirs = lines(acts.iter().map(|act| act.foreign(preset)).collect());
            prop_assert_eq!(&decoded(&config.decode, &theirs), &expected);
            // What our own collector took is read beside.
            prop_assert_eq!(&decoded(&config.decode, &own), &expected);
            // As one array on a line, too.
            let array = Value::Array(acts.iter().map(|act| act.foreign(preset)).collect()).to_string();
            prop_assert_eq!(&decoded(&config.decode, &array), &expected);
            Ok(())
        });
        run.unwrap_or_else(|failure| panic!("{preset}: {failure}"));
        say(&format!("{preset}: the same events"));
    }
}
