//! The records of a simulation, when they come to the log and where, and what they come to by the
//! plain contract.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use uptake_model::contract::counting;
use uptake_model::join::JoinRules;
use uptake_model::segment::{CAPPED, MEMBERS};
use uptake_model::{DimsHash, Epoch, EpochLength, Event, EventTime, Kind, MemberHash, RequestId, VideoHash};

use crate::dice::Dice;

/// 2024-01-15T00:00Z.
pub(crate) const START_MS: i64 = 1_705_276_800_000;
pub(crate) const MINUTE_MS: i64 = 60_000;
/// Further ahead of its arrival no event may be.
const FUTURE_MAX_MS: i64 = 5 * MINUTE_MS;

/// What a line is, known because it was made so.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Blank,
    Dead,
    Test,
    Event(Box<Made>),
}

/// An event that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) event: Event,
    pub(crate) video: String,
    pub(crate) country: &'static str,
    pub(crate) device: &'static str,
    pub(crate) member: u64,
}

/// A record on its way to the log.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// By its place among the partitions of all topics.
    pub(crate) partition: usize,
    pub(crate) appended_ms: i64,
    pub(crate) value: Vec<u8>,
    /// Several if the record has several lines.
    pub(crate) lines: Vec<(Line, Vec<u8>)>,
}

impl Arrival {
    /// The newest event time in it.
    pub(crate) fn newest(&self) -> Option<i64> {
        let times = self.lines.iter().map(|(line, _)| match line {
            Line::Event(made) => Some(made.event.time.0),
            _ => None,
        });
        times.max().flatten()
    }
}

/// How events lie in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) horizon_ms: i64,
    /// `None`: any order.
    pub(crate) lateness_ms: Option<i64>,
    pub(crate) epoch_ms: i64,
}

/// Makes the records, in the order of their arrival.
pub(crate) fn arrivals(dice: &mut Dice, times: Times, partitions: usize) -> Vec<Arrival> {
    let requests = dice.pick(&[1, 4, 12, 30, 60]);
    let scale = times.horizon_ms + times.lateness_ms.unwrap_or(10 * MINUTE_MS) + times.epoch_ms;
    let span = scale.max(MINUTE_MS) * dice.pick(&[1, 4, 12]);
    let ahead_max = times.lateness_ms.map_or(4 * MINUTE_MS, |lateness| lateness.min(8 * MINUTE_MS) / 4);
    let delay_max = times.lateness_ms.map_or(2 * span, |lateness| lateness - ahead_max);
    let (flawed, again, in_pairs) = (dice.pick(&[0, 5, 20]), dice.pick(&[0, 10, 30]), dice.pick(&[0, 0, 5]));
    let prompt = dice.pick(&[30, 80]);
    let mut all = Vec::new();
    for request in 0..requests {
        let begun = START_MS + dice.below(span as u64) as i64;
        for _ in 0..dice.pick(&[1u64, 2, 3, 5, 9]) {
            let h = times.horizon_ms;
            let after = match dice.below(5) {
                0 => 0,
                1 => h / 2,
                2 => h,
                3 => h + 1,
                _ => dice.below((h + h / 2 + MINUTE_MS) as u64) as i64,
            };
            let time = begun + after;
            // A clock that is ahead, an event that was held up, or one that comes at once.
            let arrives = |dice: &mut Dice| match dice.below(100) {
                n if n < prompt => time + dice.below(delay_max.clamp(1, 2_000) as u64) as i64,
                n if n < 90 || times.lateness_ms.is_none() => {
                    time + dice.below(delay_max.max(1) as u64) as i64
                }
                n if n < 95 => time + delay_max,
                _ => time - ahead_max,
            };
            let choices = dice.below(u64::MAX);
            all.push((arrives(dice), time, request, choices));
            if dice.percent(again) {
                all.push((arrives(dice), time, request, choices));
            }
        }
    }
    all.sort();
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (arrives, time, request, choices) in all {
        let line = line(choices, time, arrives, request, flawed);
        let partition = dice.below(partitions as u64) as usize;
        if let Some(last) = arrivals.last_mut()
            && dice.percent(in_pairs)
            && last.appended_ms == arrives
            && ![&line, &last.lines[0]].into_iter().any(|line| matches!(line.0, Line::Blank))
        {
            last.value.push(b'\n');
            last.value.extend_from_slice(&line.1);
            last.lines.push(line);
            continue;
        }
        arrivals.push(Arrival { partition, appended_ms: arrives, value: line.1.clone(), lines: vec![line] });
    }
    arrivals
}

/// The line of one event, or what became of it.
fn line(choices: u64, time: i64, arrives: i64, request: u64, flawed: u64) -> (Line, Vec<u8>) {
    let mut dice = Dice::of(choices, 7);
    let play = dice.percent(35);
    let video = dice.pick(&["v0", "v0", "v1", "v2", "v,\u{1f3ac}"]);
    let (country, device) =
        (["BR", "US", "a=b,c", ""][request as usize % 4], ["tv", "phone"][request as usize % 2]);
    let id = match request % 3 {
        0 => format!("{:016x}", (request + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        1 => format!("r{request}"),
        _ => format!("ré\"{request}"),
    };
    let member = request % 3;
    let mut value = json!({
        "kind": if play { "play" } else { "impression" },
        "request_id": id,
        "video_id": video,
        "timestamp": time,
        "device": device,
        "member_id": format!("m{member}"),
    });
    match country {
        "" => {}
        "US" => value["dimensions"] = json!({ "country": country }),
        _ => value["country"] = country.into(),
    }
    if dice.percent(flawed) {
        let line = match dice.below(6) {
            0 => return (Line::Blank, b"  ".to_vec()),
            1 => {
                value["device"] = "test".into();
                Line::Test
            }
            2 => {
                value["kind"] = "hover".into();
                Line::Dead
            }
            3 => {
                value["request_id"] = "".into();
                Line::Dead
            }
            4 => {
                value["timestamp"] = (arrives + FUTURE_MAX_MS + 1 + dice.below(100_000_000) as i64).into();
                Line::Dead
            }
            _ => {
                let mut text = value.to_string().into_bytes();
                text.truncate(1 + dice.below(text.len() as u64 - 1) as usize);
                return (Line::Dead, text);
            }
        };
        return (line, value.to_string().into_bytes());
    }
    let event = Event {
        request: RequestId::from_text(id.as_bytes()),
        video: VideoHash::from_text(video.as_bytes()),
        time: EventTime(time),
        kind: if play { Kind::Play } else { Kind::Impression },
        member: MemberHash::NONE,
        dims: DimsHash::NONE,
        partition: 0,
    };
    let made = Made { event, video: video.to_owned(), country, device, member };
    (Line::Event(Box::new(made)), value.to_string().into_bytes())
}

/// Segment, video, epoch.
pub(crate) type RowKey = (String, String, i64);
/// Who played and who was shown.
pub(crate) type Requests = (BTreeSet<u64>, BTreeSet<u64>);

/// What all records come to.
#[derive(Default, Debug)]
pub(crate) struct Expected {
    pub(crate) rows: BTreeMap<RowKey, Requests>,
    pub(crate) read: u64,
    pub(crate) counted: u64,
    pub(crate) duplicate: u64,
    /// Never met their other half.
    pub(crate) alone: u64,
    pub(crate) filtered: u64,
    pub(crate) dead: u64,
    pub(crate) blank: u64,
    /// Of those that count, what a cap per member and epoch would leave out.
    pub(crate) capped: u64,
    /// Topic, partition, offset and bytes of what cannot be used.
    pub(crate) letters: BTreeSet<(String, u32, u64, Vec<u8>)>,
}

/// What is asked of the expectation.
pub(crate) struct Question<'a> {
    pub(crate) rules: &'a JoinRules,
    pub(crate) epoch: EpochLength,
    /// Dimensions of each segment.
    pub(crate) segments: &'a [&'a [&'a str]],
    pub(crate) member_max: Option<u64>,
    /// Whether it is counted who is behind plays, and whether a cap cuts some of them.
    pub(crate) counts_members: bool,
    pub(crate) cuts: bool,
}

impl Expected {
    /// `at`: topic, partition and offset of each arrival.
    pub(crate) fn of(arrivals: &[Arrival], at: &[(String, u32, u64)], question: &Question<'_>) -> Self {
        let mut expected = Self::default();
        let mut events: Vec<(&Made, Event)> = Vec::new();
        for (arrival, place) in arrivals.iter().zip(at) {
            for (line, bytes) in &arrival.lines {
                match line {
                    Line::Blank => expected.blank += 1,
                    Line::Dead => {
                        expected.dead += 1;
                        let (topic, partition, offset) = place.clone();
                        expected.letters.insert((topic, partition, offset, bytes.clone()));
                    }
                    Line::Test => expected.filtered += 1,
                    Line::Event(made) => events.push((made, made.event)),
                }
            }
        }
        expected.read = events.len() as u64 + expected.dead + expected.filtered;
        let plain: Vec<Event> = events.iter().map(|(_, event)| *event).collect();
        let counts = counting(&plain, question.rules);
        let mut seen = BTreeSet::new();
        let mut members: BTreeMap<(u64, i64), u64> = BTreeMap::new();
        for ((made, event), counts) in events.iter().zip(counts) {
            if !seen.insert((event.request, event.kind, event.video, event.time)) {
                expected.duplicate += 1;
                continue;
            }
            if !counts {
                expected.alone += 1;
                continue;
            }
            let epoch = question.epoch.epoch(event.time).0;
            let of_member = members.entry((made.member, epoch)).or_default();
            *of_member += 1;
            if question.member_max.is_some_and(|most| *of_member > most) {
                expected.capped += 1;
            } else {
                expected.counted += 1;
            }
            for dimensions in question.segments {
                let parts: Vec<String> = dimensions
                    .iter()
                    .map(|name| {
                        let value = if *name == "country" { made.country } else { made.device };
                        let value = value.replace('%', "%25").replace('=', "%3D").replace(',', "%2C");
                        format!("{name}={value}")
                    })
                    .collect();
                let (played, shown) =
                    expected.rows.entry((parts.join(","), made.video.clone(), epoch)).or_default();
                if event.kind == Kind::Play { played } else { shown }.insert(event.request.0);
            }
            if question.counts_members && event.kind == Kind::Play {
                let key = |segment: &str| (segment.to_owned(), made.video.clone(), epoch);
                let member = MemberHash::from_text(format!("m{}", made.member).as_bytes());
                let (members, plays) = expected.rows.entry(key(MEMBERS)).or_default();
                members.insert(member.within(event.video, Epoch(epoch)));
                plays.insert(event.request.0);
                // Which of them a cap cuts depends on the order: at most these.
                if question.cuts {
                    expected.rows.entry(key(CAPPED)).or_default().0.insert(event.request.0);
                }
            }
        }
        expected
    }
}
