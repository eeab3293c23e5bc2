//! Whatever arrives, in whatever order and however it is cut, joined and spread over workers: the
//! pipeline comes to what the plain contract says of the same events, and its books balance.
//!
//! Streams are random and nasty; the seed is printed, and `UPTAKE_TEST_SEED` runs it again.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};
use serde_json::{Value, json};
use uptake::clock::Clock;
use uptake::config::Config;
use uptake::data_dir::{DEAD_LETTERS, DataDir, LATE};
use uptake::engine::{self, Setup};
use uptake::stages::collect::{Input, SharedFiles};
use uptake_connectors::archive::{Archive, MemoryArchive};
use uptake_connectors::input::{EventFiles, InputOptions};
use uptake_connectors::log::Stored;
use uptake_connectors::table::{MemoryTable, Table};
use uptake_flow::Halt;
use uptake_model::contract::{counting, tallies};
use uptake_model::ledger::{Account, Ledger};
use uptake_model::tally::RequestSet;
use uptake_model::{Event, EventTime, Kind, RequestId, TallyRow, VideoHash};

/// 2024-01-15T00:00Z.
const START_MS: i64 = 1_705_276_800_000;
const MINUTE_MS: i64 = 60_000;

/// Streams that each property tries; each is replayed with all three methods.
const STREAMS: u32 = 256;

/// One record on its way.
#[derive(Clone, Debug)]
struct Sent {
    request: u8,
    video: u8,
    play: bool,
    /// After the request's beginning, in half minutes: coarse, so that pairs lie exactly on the
    /// horizon and events repeat exactly.
    half_minutes: u16,
    /// The client's clock is wrong by this many hours.
    skew_hours: i8,
    /// Between its happening and its arrival, in seconds.
    delay_s: u16,
    /// Delivered again, that many seconds later.
    again_s: Option<u16>,
    country: u8,
    flaw: Option<Flaw>,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    Truncated(u8),
    UnknownKind,
    TestDevice,
    EmptyRequest,
    EmptyVideo,
    TextTimestamp,
    Blank,
}

fn sent() -> impl Strategy<Value = Sent> {
    let flaw = prop_oneof![
        any::<u8>().prop_map(Flaw::Truncated),
        Just(Flaw::UnknownKind),
        Just(Flaw::TestDevice),
        Just(Flaw::EmptyRequest),
        Just(Flaw::EmptyVideo),
        Just(Flaw::TextTimestamp),
        Just(Flaw::Blank),
    ];
    (
        prop_oneof![3 => Just(0u8), 7 => 0u8..16], // a hot request
        prop_oneof![3 => Just(0u8), 7 => 0u8..6],  // a hot video
        prop::bool::weighted(0.3),
        prop_oneof![3 => 0u16..4, 2 => 0u16..240],
        prop_oneof![8 => Just(0i8), 1 => Just(2i8), 1 => Just(-2i8)],
        prop_oneof![8 => 0u16..60, 1 => 0u16..2_400], // a late burst
        prop_oneof![9 => Just(None), 1 => (0u16..600).prop_map(Some)],
        0u8..4,
        prop_oneof![9 => Just(None), 1 => flaw.prop_map(Some)],
    )
        .prop_map(|(request, video, play, half_minutes, skew_hours, delay_s, again_s, country, flaw)| {
            Sent { request, video, play, half_minutes, skew_hours, delay_s, again_s, country, flaw }
        })
}

/// How a stream arrives and what is made of it.
#[derive(Clone, Debug)]
struct Case {
    sent: Vec<Sent>,
    /// Arrives in an order that has nothing to do with time.
    shuffled: Option<u64>,
    files: usize,
    block_bytes: usize,
    left: bool,
    workers: usize,
    events_max: usize,
    in_flight: usize,
    horizon: &'static str,
    lateness: &'static str,
    epoch: &'static str,
    countries: bool,
    shards: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let arrival = (
        prop::collection::vec(sent(), 0..160),
        prop::option::weighted(0.3, any::<u64>()),
        1usize..4,
        prop::sample::select(vec![64, 1_000, 256 << 10]),
    );
    let work = (
        any::<bool>(),
        prop::sample::select(vec![1, 2, 4]),
        prop::sample::select(vec![1, 7, 1_000, 50_000]),
        prop::sample::select(vec![1, 4]),
    );
    let meaning = (
        prop::sample::select(vec!["0s", "1min", "45min", "90min", "1d"]),
        prop::sample::select(vec!["off", "150min", "1min"]),
        prop::sample::select(vec!["30min", "7min"]),
        any::<bool>(),
        prop::sample::select(vec![1, 3]),
    );
    (arrival, work, meaning).prop_map(|(arrival, work, meaning)| Case {
        sent: arrival.0,
        shuffled: arrival.1,
        files: arrival.2,
        block_bytes: arrival.3,
        left: work.0,
        workers: work.1,
        events_max: work.2,
        in_flight: work.3,
        horizon: meaning.0,
        lateness: meaning.1,
        epoch: meaning.2,
        countries: meaning.3,
        shards: meaning.4,
    })
}

impl Sent {
    fn line(&self) -> String {
        let flaw = |wanted: fn(&Flaw) -> bool| self.flaw.as_ref().is_some_and(wanted);
        let kind = match self.flaw {
            Some(Flaw::UnknownKind) => "hover",
            _ if self.play => "play",
            _ => "impression",
        };
        // Ids of every form: 16 hex digits, plain text, text beyond ASCII.
        let request = match self.request % 3 {
            0 => format!("{:016x}", u64::from(self.request).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            1 => format!("r{}", self.request),
            _ => format!("ré\"{}", self.request),
        };
        let video = if self.video == 5 { "v,\u{1f3ac}".to_owned() } else { format!("v{}", self.video) };
        let mut event = json!({
            "kind": kind,
            "request_id": if flaw(|f| matches!(f, Flaw::EmptyRequest)) { "" } else { &request },
            "video_id": if flaw(|f| matches!(f, Flaw::EmptyVideo)) { "" } else { &video },
            "timestamp": self.time(),
        });
        match self.flaw {
            Some(Flaw::TestDevice) => event["device"] = "test".into(),
            Some(Flaw::TextTimestamp) => event["timestamp"] = self.time().to_string().into(),
            Some(Flaw::Blank) => return "  ".to_owned(),
            _ => {}
        }
        // At the top level, among the dimensions, or nowhere.
        match self.country {
            0 => event["country"] = "BR".into(),
            1 => event["dimensions"] = json!({ "country": "BR" }),
            2 => event["country"] = "a=b,c".into(),
            _ => {}
        }
        let mut line = event.to_string();
        if let Some(Flaw::Truncated(at)) = self.flaw {
            let mut end = 1 + usize::from(at) % (line.len() - 1);
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end.max(1));
        }
        line
    }

    fn time(&self) -> i64 {
        let begun = i64::from(self.request) * 67 * MINUTE_MS;
        START_MS
            + 12 * 60 * MINUTE_MS
            + begun
            + i64::from(self.half_minutes) * MINUTE_MS / 2
            + i64::from(self.skew_hours) * 60 * MINUTE_MS
    }
}

impl Case {
    /// The lines in the order of their arrival.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for sent in &self.sent {
            let happened = sent.time() - i64::from(sent.skew_hours) * 60 * MINUTE_MS;
            let arrives = happened + i64::from(sent.delay_s) * 1_000;
            lines.push((arrives, sent.line()));
            if let Some(again) = sent.again_s {
                lines.push((arrives + i64::from(again) * 1_000, sent.line()));
            }
        }
        if let Some(mut random) = self.shuffled {
            for (at, _) in &mut lines {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *at = (random >> 33) as i64;
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn config(&self, method: &str) -> Config {
        let segments = if self.countries { r#"[[], ["country"]]"# } else { "[[]]" };
        let settings = [
            format!("join.method={method}"),
            format!("join.kind={}", if self.left { "left" } else { "inner" }),
            format!("join.horizon={}", self.horizon),
            format!("join.lateness={}", self.lateness),
            "join.request_events_max=off".to_owned(),
            format!("epoch.length={}", self.epoch),
            format!("segments={segments}"),
            format!("batch.events_max={}", self.events_max),
            format!("batch.in_flight={}", self.in_flight),
            format!("archive.shards={}", self.shards),
            "table.write_interval=0ms".to_owned(),
        ];
        Config::load(None, &settings).unwrap()
    }
}

/// What a line is, decided here with nothing but `serde_json`.
enum Line {
    Blank,
    Dead,
    Test,
    Event { event: Event, video: String, country: String },
}

fn decode(line: &str) -> Line {
    if line.trim().is_empty() {
        return Line::Blank;
    }
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Line::Dead };
    let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty());
    let kind = match text("kind") {
        Some("impression") => Kind::Impression,
        Some("play") => Kind::Play,
        _ => return Line::Dead,
    };
    let (Some(request), Some(video), Some(time)) =
        (text("request_id"), text("video_id"), value["timestamp"].as_i64())
    else {
        return Line::Dead;
    };
    if text("device") == Some("test") {
        return Line::Test;
    }
    let country = text("country").or(value["dimensions"]["country"].as_str()).unwrap_or("");
    let event = Event {
        request: RequestId::from_text(request.as_bytes()),
        video: VideoHash::from_text(video.as_bytes()),
        time: EventTime(time),
        kind,
        ..Event::default()
    };
    // How a value stands in a segment's name.
    let country = country.replace('%', "%25").replace('=', "%3D").replace(',', "%2C");
    Line::Event { event, video: video.to_owned(), country }
}

/// What makes two events the same one.
fn identity(event: &Event) -> (RequestId, Kind, VideoHash, EventTime) {
    (event.request, event.kind, event.video, event.time)
}

/// By segment, video and epoch: who played and who was shown.
type Sets = BTreeMap<(String, String, i64), (BTreeSet<u64>, BTreeSet<u64>)>;

/// What a run came to.
struct Came {
    rows: Vec<TallyRow>,
    archived: Vec<TallyRow>,
    ledger: Ledger,
    dead: Vec<Stored>,
    late: Vec<Stored>,
}

/// The pipeline in this process, with everything in memory.
fn came_to(config: Config, case: &Case, lines: &[String]) -> Came {
    let folder = tempfile::tempdir().unwrap();
    for (number, part) in lines.chunks(lines.len().div_ceil(case.files).max(1)).enumerate() {
        // The last line of a file has no end.
        std::fs::write(folder.path().join(format!("{number}.jsonl")), part.join("\n")).unwrap();
    }
    if lines.is_empty() {
        std::fs::write(folder.path().join("0.jsonl"), "").unwrap();
    }
    let options = InputOptions { block_bytes: case.block_bytes, ..InputOptions::default() };
    let files = EventFiles::open(&[folder.path().to_path_buf()], options).unwrap();
    let config = Arc::new(config);
    let (table, archive) =
        (Arc::new(Mutex::new(MemoryTable::new())), Arc::new(Mutex::new(MemoryArchive::new())));
    let data = DataDir {
        table: Box::new(Arc::clone(&table)),
        archive: Box::new(Arc::clone(&archive)),
        ..DataDir::memory(&config).unwrap()
    };
    let log = Arc::clone(&data.log);
    let setup = Setup {
        workers: case.workers,
        data,
        input: Input::Files(Arc::new(SharedFiles::new(files))),
        seals_at_end: true,
        checkpoints: None,
        spill: None,
        keeping: None,
        halt: Halt::default(),
        cluster: None,
        clock: Clock::system(),
        schedule: None,
        config,
    };
    let ledger = engine::run(setup, None).unwrap().ledger;
    let mut rows = Vec::new();
    for segment in table.segments().unwrap() {
        let mut keys = Vec::new();
        table
            .scan(&segment, &mut |row| {
                keys.push((row.video_id, row.epoch));
                Ok(())
            })
            .unwrap();
        assert!(keys.is_sorted(), "{keys:?}");
        rows.extend(keys.iter().map(|(video, epoch)| table.get(video, &segment, *epoch).unwrap().unwrap()));
    }
    let archive = archive.lock().unwrap();
    let parts = archive.parts().unwrap();
    let archived = parts.iter().flat_map(|info| archive.read_tallies(&info.part).unwrap()).collect();
    let read = |topic: &str| log.read(topic, 0, 0, usize::MAX, usize::MAX).unwrap();
    Came { rows, archived, ledger, dead: read(DEAD_LETTERS), late: read(LATE) }
}

/// The sets of rows; each must be sealed, exact, and of the size it says.
fn sets_of(rows: &[TallyRow]) -> Sets {
    let mut sets = Sets::new();
    for row in rows {
        assert!(row.sealed && row.counts.exact, "after the last event every row is sealed: {row:?}");
        let stored = row.sets.as_ref().expect("a sealed row has its sets");
        let set = |set: &RequestSet| match set {
            RequestSet::Exact(ids) => ids.iter().copied().collect::<BTreeSet<u64>>(),
            RequestSet::Sketch(_) => panic!("{row:?}"),
        };
        let (played, shown) = (set(&stored.played), set(&stored.shown));
        assert_eq!((row.counts.plays, row.counts.impressions), (played.len() as u64, shown.len() as u64));
        let key = (row.segment.to_string(), row.video_id.to_string(), row.epoch.0);
        assert!(sets.insert(key, (played, shown)).is_none(), "two rows for one key: {row:?}");
    }
    sets
}

fn check(case: &Case, method: &str) {
    let config = case.config(method);
    let (rules, length) = (config.join, config.epoch);
    let lines = case.lines();
    let came = came_to(config, case, &lines);
    let account: Account = came.ledger.total();
    assert!(came.ledger.balances() && account.waiting == 0, "{account:?}");

    let (mut events, mut about, mut dead, mut test, mut blank) = (Vec::new(), Vec::new(), Vec::new(), 0, 0);
    for line in &lines {
        match decode(line) {
            Line::Blank => blank += 1,
            Line::Dead => dead.push(line.clone()),
            Line::Test => test += 1,
            Line::Event { event, video, country } => {
                events.push(event);
                about.push((video, country));
            }
        }
    }
    assert_eq!(account.read as usize, events.len() + dead.len() + test, "{account:?}");
    assert_eq!((account.blank, account.filtered_sum()), (blank, test as u64));
    let mut kept_dead: Vec<String> =
        came.dead.iter().map(|stored| String::from_utf8(stored.value.clone()).unwrap()).collect();
    kept_dead.sort();
    dead.sort();
    assert_eq!(kept_dead, dead, "dead letters are kept byte for byte");

    // Late events are in their log, whole. Whatever was not late is joined exactly.
    assert_eq!(account.late as usize, came.late.len());
    let disordered = case.shuffled.is_some() || case.lateness == "1min";
    assert!(disordered || account.late == 0, "nothing is late by more than the lateness: {account:?}");
    assert!(case.lateness != "off" || account.late == 0, "{account:?}");
    for stored in &came.late {
        let late: Value = serde_json::from_slice(&stored.value).unwrap();
        let Line::Event { event, video, country } = decode(&late.to_string()) else {
            panic!("a late event can be replayed as it is: {late}");
        };
        let at = (0..events.len()).find(|&i| identity(&events[i]) == identity(&event) && about[i].0 == video);
        let at = at.unwrap_or_else(|| panic!("this late event was never sent: {late}"));
        // Of events that are the same, the one with the same country is taken if it is there.
        let same = |i: &usize| identity(&events[*i]) == identity(&event) && about[*i].1 == country;
        let at = if case.countries { (0..events.len()).find(same).expect("with its country") } else { at };
        events.swap_remove(at);
        about.swap_remove(at);
    }

    let counts = counting(&events, &rules);
    let (mut expected, mut seen, mut counted, mut expired_plays) = (Sets::new(), BTreeSet::new(), 0, 0);
    for ((event, (video, country)), counts) in events.iter().zip(&about).zip(counts) {
        let first = seen.insert(identity(event));
        counted += u64::from(first && counts);
        expired_plays += u64::from(first && !counts && event.kind == Kind::Play);
        if !counts {
            continue;
        }
        let mut segments = vec![String::new()];
        if case.countries {
            segments.push(format!("country={country}"));
        }
        for segment in segments {
            let key = (segment, video.clone(), length.epoch(event.time).0);
            let (played, shown) = expected.entry(key).or_default();
            let _ = if event.kind == Kind::Play { played } else { shown }.insert(event.request.0);
        }
    }
    let found = sets_of(&came.rows);
    assert_eq!(found, expected);
    assert_eq!(sets_of(&came.archived), expected, "the archive has what the table has");

    // The model's own oracle, which knows no segments, says the same of everyone.
    let everyone: BTreeMap<_, _> = tallies(&events, &rules, length)
        .into_iter()
        .map(|((video, epoch), sets)| {
            let ids = |set: &BTreeSet<RequestId>| set.iter().map(|id| id.0).collect::<BTreeSet<u64>>();
            ((video, epoch.0), (ids(&sets.played), ids(&sets.shown)))
        })
        .collect();
    let of_everyone = found.into_iter().filter(|((segment, ..), _)| segment.is_empty());
    let of_everyone: BTreeMap<_, _> = of_everyone
        .map(|((_, video, epoch), sets)| ((VideoHash::from_text(video.as_bytes()), epoch), sets))
        .collect();
    assert_eq!(of_everyone, everyone);

    let ours = (account.counted, account.duplicate, account.expired, account.expired_plays, account.capped);
    let repeated = (events.len() - seen.len()) as u64;
    assert_eq!(ours, (counted, repeated, seen.len() as u64 - counted, expired_plays, 0), "{account:?}");
}

thread_local! {
    /// Whether this thread is trying streams: what goes wrong then is told once, at the end, of the
    /// smallest stream, and not for each of a thousand on the way there.
    static TRYING: Cell<bool> = const { Cell::new(false) };
}

fn quiet_while_trying() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !TRYING.get() {
                usual(panic);
            }
        }));
    });
}

/// Runs random streams of which `focus` makes what a test is about.
fn property(focus: impl Fn(&mut Case)) {
    let asked = std::env::var("UPTAKE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed: u64 = asked.unwrap_or_else(now);
    eprintln!("UPTAKE_TEST_SEED={seed} runs these streams again");
    let cases = Cases {
        cases: STREAMS,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        // A stream that fails is made smaller for as long as this many attempts.
        max_shrink_iters: 1_000,
        ..Cases::default()
    };
    quiet_while_trying();
    TRYING.set(true);
    let result = TestRunner::new(cases).run(&case(), |mut case| {
        focus(&mut case);
        for method in ["state", "window", "batch-to-window"] {
            check(&case, method);
        }
        Ok(())
    });
    TRYING.set(false);
    result.unwrap_or_else(|failure| panic!("{failure}\nUPTAKE_TEST_SEED={seed}"));
}

/// Without a bound on lateness every order of arrival comes to the contract.
#[test]
fn in_any_order() {
    property(|case| (case.lateness, case.countries) = ("off", false));
}

/// An event that comes behind the newest one by no more than the lateness is joined, however the
/// input is spread over workers: state is let go of on the way, and nothing is missed for it.
#[test]
fn in_an_order_within_the_lateness() {
    property(|case| {
        (case.lateness, case.countries, case.shuffled) = ("150min", false, None);
    });
}

/// What is late is left out whole and kept; the rest comes to the contract of the rest.
#[test]
fn with_late_events() {
    property(|case| {
        case.countries = false;
        if case.lateness == "off" {
            case.lateness = "1min";
        }
        case.shuffled = case.shuffled.or(Some(1));
    });
}

#[test]
fn by_segment() {
    property(|case| {
        (case.lateness, case.countries) = ("off", true);
        // An event delivered again with another country belongs to the country that came first,
        // which depends on the workers: here all deliveries of an event agree.
        case.sent.iter_mut().for_each(|sent| sent.country = sent.request % 4);
    });
}
