//! What a seed decides before anything runs: the records, the configuration, how many clusters
//! there are and how their runs end.

use std::sync::Arc;
use std::time::Duration;

use uptake::config::Config;

use crate::dice::Dice;
use crate::events::{Arrival, MINUTE_MS, Times, arrivals};

/// How all runs of a cluster end at last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    /// The end of the input is the end of all.
    Sealed,
    /// All is read and a checkpoint holds what waits.
    CaughtUp,
    /// That, and one more run that seals what the checkpoint holds.
    CaughtUpThenSealed,
}

/// How one run ends, if nothing ends it before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Everything of it is lost at this turn.
    Crash(u64),
    /// It is told to stop.
    Halt(u64),
    /// When the log that there is has been read.
    CaughtUp,
    /// The same, and everything is sealed.
    Sealed,
}

/// How many runs a cluster has before its last one, at most.
const RUNS_MAX: u64 = 6;

/// One simulation.
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) times: Times,
    pub(crate) settings: Vec<String>,
    pub(crate) segments: &'static [&'static [&'static str]],
    /// Topics and their partitions.
    pub(crate) topics: Vec<(&'static str, u32)>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) member_max: Option<u64>,
    /// Some tallies become sketches.
    pub(crate) sketches: bool,
    /// The name, the number of runs before the last one, and the last one of each cluster; a
    /// cluster without a last one is a rival that gives up.
    pub(crate) clusters: Vec<(&'static str, u64, Option<Last>)>,
    pub(crate) rates: Rates,
}

/// How often something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Records come to the log once in so many turns, at most so many.
    pub(crate) append: (u64, u64),
    /// Table, archive and checkpoints take a step once in so many turns.
    pub(crate) pump: [u64; 3],
    /// The clock goes on by up to so many milliseconds a turn.
    pub(crate) clock_ms: u64,
    /// One call of an edge in so many fails; 0: none.
    pub(crate) fault: u64,
    /// One call of the log in so many fails, which ends the run.
    pub(crate) log_fault: u64,
    /// One failure in so many is the beginning of an outage.
    pub(crate) outage: u64,
    /// One put object in so many is torn, and the writer dies.
    pub(crate) torn: u64,
    /// A run ends after so many turns at most.
    pub(crate) turns: u64,
}

const SEGMENTS: [&[&[&str]]; 3] =
    [&[&[]], &[&[], &["country"]], &[&[], &["country"], &["country", "device"]]];

impl Case {
    pub(crate) fn of(seed: u64) -> Self {
        let dice = &mut Dice::of(seed, 1);
        let lateness =
            dice.pick(&[("off", None), ("1min", Some(1)), ("10min", Some(10)), ("150min", Some(150))]);
        let horizon = dice.pick(&[("0s", 0), ("1min", 1), ("5min", 5), ("45min", 45)]);
        let epoch = dice.pick(&[("1min", 1), ("7min", 7), ("30min", 30)]);
        let times = Times {
            horizon_ms: horizon.1 * MINUTE_MS,
            lateness_ms: lateness.1.map(|minutes| minutes * MINUTE_MS),
            epoch_ms: epoch.1 * MINUTE_MS,
        };
        let segments = dice.pick(&SEGMENTS);
        let topics: Vec<(&str, u32)> = match dice.below(3) {
            0 => vec![("events", dice.within(1, 4) as u32)],
            _ => vec![("impressions", dice.within(1, 2) as u32), ("plays", dice.within(1, 2) as u32)],
        };
        let partitions = topics.iter().map(|(_, partitions)| *partitions as usize).sum();
        let arrivals = arrivals(dice, times, partitions);
        let member_max = if dice.percent(15) { Some(dice.pick(&[2, 10, 1_000_000])) } else { None };
        let sketches = dice.percent(10);
        let names: Vec<String> = topics.iter().map(|(name, _)| format!("{name:?}")).collect();
        let mut settings = vec![
            format!("input.topics=[{}]", names.join(",")),
            format!("join.method={}", dice.pick(&["state", "state", "window", "batch-to-window"])),
            format!("join.kind={}", dice.pick(&["inner", "inner", "left"])),
            format!("join.horizon={}", horizon.0),
            format!("join.lateness={}", lateness.0),
            format!("join.request_events_max={}", dice.pick(&["off", "1000"])),
            format!("epoch.length={}", epoch.0),
            format!("segments={segments:?}"),
            format!("archive.shards={}", dice.pick(&[1, 1, 3])),
            format!("input.pace={}", dice.pick(&["off", "10min", "1s"])),
            format!("output.retry_for={}", dice.pick(&["off", "1h", "2s"])),
            format!("robots.count_members={}", dice.pick(&["on", "on", "off"])),
        ];
        settings.extend(member_max.map(|most| format!("join.member_epoch_events_max={most}")));
        if sketches {
            settings.extend(["tally.exact_max=16".to_owned(), "tally.sketch_lg_k=12".to_owned()]);
        }
        let last = |dice: &mut Dice| {
            Some(dice.pick(&[Last::Sealed, Last::Sealed, Last::CaughtUp, Last::CaughtUpThenSealed]))
        };
        let mut clusters = vec![("main", dice.below(RUNS_MAX + 1), last(dice))];
        match dice.below(20) {
            0 | 1 => clusters.push(("second", dice.below(RUNS_MAX), last(dice))),
            2 => clusters.push(("main", 1 + dice.below(RUNS_MAX), None)),
            _ => {}
        }
        let calm = dice.percent(20);
        let or_never = |rate: u64| if calm { 0 } else { rate };
        let rates = Rates {
            append: dice.pick(&[(1, 10), (2, 2), (5, 20), (20, 4), (100, 200)]),
            pump: [0; 3].map(|_| dice.pick(&[1, 2, 5, 30, 200])),
            clock_ms: dice.pick(&[1, 20, 400]),
            fault: or_never(dice.pick(&[0, 10, 40, 200])),
            log_fault: or_never(dice.pick(&[0, 0, 200])),
            outage: dice.pick(&[0, 3, 20]),
            torn: or_never(dice.pick(&[0, 0, 10, 50])),
            turns: dice.pick(&[60, 300, 1_000, 3_000]),
        };
        Self { seed, times, settings, segments, topics, arrivals, member_max, sketches, clusters, rates }
    }

    /// The configuration of one run: what may change from one to the next is drawn anew.
    pub(crate) fn config(&self, dice: &mut Dice) -> Arc<Config> {
        let mut settings = self.settings.clone();
        settings.extend([
            format!("batch.events_max={}", dice.pick(&[1, 3, 10, 50, 1000])),
            format!("batch.in_flight={}", dice.pick(&[1, 2, 4])),
            format!("table.write_interval={}", dice.pick(&["0ms", "1s", "1h"])),
            format!("checkpoint.keep={}", dice.pick(&[1, 1, 2, 5])),
            format!("checkpoint.events_max={}", dice.pick(&["2000000", "5"])),
        ]);
        let config = Config::load(None, &settings);
        let mut config = config.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        // Shorter than anybody may configure: after each batch.
        config.checkpoint_interval = Duration::from_millis(dice.pick(&[0, 0, 10, 100, 1_000, 1_000_000_000]));
        Arc::new(config)
    }

    /// Topic and partition by the place among all.
    pub(crate) fn partition(&self, mut at: usize) -> (&'static str, u32) {
        for (topic, partitions) in &self.topics {
            match at.checked_sub(*partitions as usize) {
                None => return (topic, at as u32),
                Some(rest) => at = rest,
            }
        }
        unreachable!("there is no such partition")
    }
}

impl Case {
    /// Whether a cap leaves out events that count: which ones depends on their order.
    pub(crate) fn cuts(&self) -> bool {
        self.member_max.is_some_and(|most| most < 1_000)
    }

    /// Whether a table or archive that fails for long ends the run.
    pub(crate) fn gives_up(&self) -> bool {
        !self.settings.iter().any(|setting| setting == "output.retry_for=off")
    }
}
