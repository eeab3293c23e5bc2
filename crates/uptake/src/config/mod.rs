//! The configuration: what was typed becomes what is meant, in one place, with every mistake told.
//!
//! A TOML file and `key=value` settings are flattened to keys and read against [`KEYS`], which is
//! also what `uptake config` prints. Code below the commands never sees the raw form.

mod keys;
mod places;
mod read;
mod serve;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uptake_model::decode::DecodeConfig;
use uptake_model::filter::Filters;
use uptake_model::join::JoinRules;
use uptake_model::segment::Segments;
use uptake_model::tally::TallyLimits;
use uptake_model::{Epoch, EpochLength, EventTime, Kind};

pub use keys::{KEYS, Key, reference};
pub use places::{Place, Places};
pub(crate) use serve::is_address;

use crate::memory::Budget;

/// "off" as a duration or a number: so large that it never matters, and sums do not overflow.
pub(crate) const UNBOUNDED: i64 = i64::MAX / 8;

/// How events are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinMethod {
    /// One state per request.
    State,
    /// Both sides in event-time windows.
    Window,
    /// Each batch joined to the windows.
    BatchToWindow,
}

/// What to do when the log's retention overtook the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnGap {
    /// Go on, with the gap declared in the ledger.
    Declare,
    /// Stop.
    Stop,
}

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where log, table, archive and checkpoints are.
    pub places: Places,
    /// How records look.
    pub decode: Arc<DecodeConfig>,
    /// What is dropped.
    pub filters: Filters,
    /// How events are joined.
    pub join_method: JoinMethod,
    /// The rules of the join.
    pub join: JoinRules,
    /// The most counting events of one member in one epoch; `None` for no cap.
    pub member_epoch_events_max: Option<u32>,
    /// Whether it is counted how many members are behind the plays of a title.
    pub counts_members: bool,
    /// The length of an epoch.
    pub epoch: EpochLength,
    /// The segments.
    pub segments: Segments,
    /// When a tally stops being exact.
    pub tally: TallyLimits,
    /// The most records in a batch, over all workers.
    pub batch_events_max: usize,
    /// How often a batch begins when there is nothing to read.
    pub batch_tick: Duration,
    /// Batches under way at once.
    pub batches_in_flight: u64,
    /// How often changed tallies are written to the table.
    pub table_write_interval: Duration,
    /// Objects per epoch in the archive.
    pub archive_shards: u32,
    /// How long the embedded log keeps what was read; `None` for ever.
    pub log_keep: Option<Duration>,
    /// How long the embedded table keeps sealed rows, in event time; `None` for ever.
    pub table_keep: Option<Duration>,
    /// The topics of the log that are read.
    pub input_topics: Vec<String>,
    /// Partitions of a topic that is made.
    pub input_partitions: u32,
    /// How far a partition may be read ahead of the others, in milliseconds of event time.
    pub input_pace_ms: i64,
    /// What to do when the log dropped records before they were read.
    pub on_gap: OnGap,
    /// How often a checkpoint is taken.
    pub checkpoint_interval: Duration,
    /// How many are kept.
    pub checkpoint_keep: usize,
    /// After as many records of one worker one is taken before the interval is over.
    pub checkpoint_events_max: usize,
    /// The most memory that this process may hold.
    pub memory_max: Budget,
    /// Whether requests that wait go to disk when memory is short.
    pub spills: bool,
    /// How long an output that fails is tried again.
    pub output_retry_for: Duration,
    /// How long the processes of a cluster wait for one another at the start.
    pub cluster_start_deadline: Duration,
    /// How long a batch may take before a process of a cluster is taken for lost.
    pub cluster_progress_deadline: Duration,
    /// A file that says what is known of the titles.
    pub catalogue: Option<std::path::PathBuf>,
    /// Whether what it does not hold is not shown.
    pub hides_unknown_titles: bool,
    /// Where spans are sent, if anywhere.
    pub traces: Option<crate::traces::Receiver>,
    /// How the collector and the API behave.
    pub serve: uptake_serve::settings::Settings,
}

impl Config {
    /// Whether a topic is one of the input. Others may be in a checkpoint, which were read before.
    pub fn reads(&self, topic: &str) -> bool {
        self.input_topics.iter().any(|of| of == topic)
    }

    /// The names of the segments, with `*` for each value.
    pub fn segment_forms(&self) -> Vec<std::sync::Arc<str>> {
        let any = vec!["*"; self.segments.dimensions().len()];
        self.segments.names(&any).collect()
    }

    /// When an epoch is sealed: the watermark has then passed all that can still count in it.
    #[inline]
    pub fn sealed_at(&self, epoch: Epoch) -> EventTime {
        self.epoch.end(epoch).plus(self.join.retention_ms())
    }

    /// The first epoch that may not be sealed yet when the watermark stands at `watermark`.
    ///
    /// Deadlines are kept in whole seconds, rounded up, and are over when the watermark has passed
    /// them: an epoch before this one is sealed for sure, this one perhaps.
    pub fn sealed_before(&self, watermark: EventTime) -> Epoch {
        self.sealed_before_by(&self.join, watermark)
    }

    /// The same by the rules of another run.
    pub fn sealed_before_by(&self, rules: &JoinRules, watermark: EventTime) -> Epoch {
        match watermark {
            EventTime::MIN => Epoch(i64::MIN),
            watermark => self.epoch.epoch(watermark.minus(rules.retention_ms()).minus(1_000)),
        }
    }

    /// How many epochs of this length before the newest one may still grow.
    pub fn open_epochs(&self, length: EpochLength) -> i64 {
        uptake_trends::options::open_epochs(length, self.join.horizon_ms, self.join.lateness_ms)
    }

    /// Whether it is told that a cap cut an event of this kind: what plays were cut says something of who plays.
    pub fn tells_cut(&self, kind: Kind) -> bool {
        self.counts_members && kind == Kind::Play
    }

    /// Reads a configuration file, if one is given, and `key=value` settings, which win.
    ///
    /// # Errors
    /// All mistakes at once, each with its key.
    pub fn load(file: Option<&Path>, settings: &[String]) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let mut values = match file {
            Some(path) => read::file(path, &mut mistakes),
            None => read::Values::default(),
        };
        for setting in settings {
            read::setting(setting, &mut values, &mut mistakes);
        }
        let config = read::config(values, &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes }) }
    }
}

impl Default for Config {
    fn default() -> Self {
        read::config(read::Values::default(), &mut Vec::new())
    }
}

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One line each, beginning with the key.
    pub mistakes: Vec<String>,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mistakes.len() {
            1 => f.write_str("the configuration has a mistake:")?,
            n => write!(f, "the configuration has {n} mistakes:")?,
        }
        self.mistakes.iter().try_for_each(|m| write!(f, "\n  {m}"))?;
        f.write_str("\n`uptake config` prints every key with its default")
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
