//! A data directory: the log, the table and the archive of one deployment, in one place.
//!
//! Each of them may also be elsewhere, as the configuration's URLs say; the directory then holds
//! what is left, and the locks of the processes of this machine. No lock spans machines, and none
//! is needed: a run claims its number with put-if-absent, the newest run's checkpoints count, and
//! rows are absolute. Two runs under one name on two machines cost work, not truth.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uptake_connectors::archive::Archive;
use uptake_connectors::log::{Durability, Log, LogOptions, Recovered};
use uptake_connectors::objects::Objects;
use uptake_connectors::table::Table;
use uptake_connectors::{Backend, archive, log, objects, table};
use uptake_model::EventTime;
use uptake_model::join::JoinKind;

use crate::config::Config;

/// The topic of dead letters.
pub const DEAD_LETTERS: &str = "dead-letters";
/// The topic that says which dead letters were appended to the input again.
pub const DEAD_LETTERS_REPLAYED: &str = "dead-letters-replayed";
/// The topic of late events.
pub const LATE: &str = "late";

/// Wall time, where the program meets it.
pub fn now() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What can go wrong with a data directory as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made.
    #[error("cannot make the data directory {}: {source}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its tallies mean something else.
    #[error(
        "{place} holds tallies of another meaning ({stored}); this run would write {asked}. \
         Use another --data directory or table.url, or the same configuration"
    )]
    OtherMeaning {
        /// Which directory or URL.
        place: String,
        /// What the table holds.
        stored: String,
        /// What the configuration says.
        asked: String,
    },
    /// Another process does the same there.
    #[error("{} is in use by another process ({name}). Stop it first, or use another --data directory", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// As what.
        name: String,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] uptake_connectors::LogError),
    /// The table.
    #[error(transparent)]
    Table(#[from] uptake_connectors::TableError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] uptake_connectors::ArchiveError),
    /// The checkpoints.
    #[error(transparent)]
    Objects(#[from] uptake_connectors::ObjectsError),
}

/// An opened data directory.
pub struct DataDir {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The table.
    pub table: Box<dyn Table>,
    /// The archive.
    pub archive: Box<dyn Archive>,
    /// Checkpoints.
    pub objects: Arc<dyn Objects>,
    /// What had to be repaired.
    pub notices: Vec<String>,
}

impl DataDir {
    /// Opens `path` to write tallies as `config` means them; makes it where there is none.
    ///
    /// # Errors
    /// If it cannot be made or opened, another process writes to it, or its table was written
    /// with another meaning.
    pub fn open(path: &Path, config: &Config) -> Result<Self, DataDirError> {
        std::fs::create_dir_all(path)
            .map_err(|source| DataDirError::Create { path: path.to_owned(), source })?;
        let places = &config.places;
        let [log, table, archive, checkpoints] =
            [&places.log, &places.table, &places.archive, &places.checkpoints].map(|p| p.backend(path));
        Self::open_backends(&log, &table, &archive, &checkpoints, config)
    }

    /// A data directory in memory, for tests.
    ///
    /// # Errors
    /// None of its own.
    pub fn memory(config: &Config) -> Result<Self, DataDirError> {
        let memory = Backend::Memory;
        Self::open_backends(&memory, &memory, &memory, &memory, config)
    }

    fn open_backends(
        log: &Backend,
        table_at: &Backend,
        archive: &Backend,
        checkpoints: &Backend,
        config: &Config,
    ) -> Result<Self, DataDirError> {
        let (log, notices) = log_with_topics(log, config, Durability::default())?;
        let mut table = table::open(table_at, &config.places.cassandra)?;
        check_meaning(&*table, table_at, config)?;
        write_meaning(&mut *table, config)?;
        if let Some(keep) = config.table_keep {
            let ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
            table.keep_epochs(ms.saturating_add(config.epoch.ms() - 1) / config.epoch.ms());
        }
        let (archive, objects) = (
            archive::open(archive, &config.places.s3)?,
            objects::open(checkpoints, objects::CHECKPOINTS, &config.places.s3)?.into(),
        );
        Ok(Self { log, table, archive, objects, notices })
    }
}

/// Where a backend is, for people: a directory by its path.
pub(crate) fn shown(backend: &Backend) -> String {
    match backend {
        Backend::File(path) => path.display().to_string(),
        other => other.to_string(),
    }
}

/// Opens the log alone, which a producer may do whatever becomes of table and archive meanwhile;
/// also says what had to be repaired.
///
/// # Errors
/// If it cannot be made or opened.
pub fn open_log(
    path: &Path,
    config: &Config,
    durability: Durability,
) -> Result<(Arc<dyn Log>, Vec<String>), DataDirError> {
    std::fs::create_dir_all(path).map_err(|source| DataDirError::Create { path: path.to_owned(), source })?;
    log_with_topics(&config.places.log.backend(path), config, durability)
}

fn log_with_topics(
    backend: &Backend,
    config: &Config,
    durability: Durability,
) -> Result<(Arc<dyn Log>, Vec<String>), DataDirError> {
    let options = LogOptions { durability, ..config.places.log_options() };
    let (log, recovered) = log::open(backend, options)?;
    log.create_topic(DEAD_LETTERS, 1)?;
    log.create_topic(LATE, 1)?;
    for topic in &config.input_topics {
        if log.partitions(topic).is_err() {
            log.create_topic(topic, config.input_partitions)?;
        }
    }
    let notices = repaired(&recovered).collect();
    Ok((log.into(), notices))
}

/// What had to be repaired in a log, one line each.
pub(crate) fn repaired(recovered: &[Recovered]) -> impl Iterator<Item = String> {
    recovered.iter().map(|r| {
        format!("cut {} bytes of an append that had not finished off {}", r.bytes_cut, r.path.display())
    })
}

/// Keeps every other process from doing the same in a data directory, as long as the file is held.
///
/// # Errors
/// Another one does, or the system refuses.
pub fn lock(path: &Path, name: &str) -> Result<File, DataDirError> {
    let create = |source| DataDirError::Create { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(create)?;
    let file = File::create(path.join(format!(".{name}.lock"))).map_err(create)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(DataDirError::InUse { path: path.to_owned(), name: name.to_owned() })
        }
        Err(TryLockError::Error(source)) => Err(create(source)),
    }
}

/// The key under which a table says what its rows mean.
const MEANING: &str = "meaning";

/// What two runs must agree on for their rows to mean the same.
pub(crate) fn meaning(config: &Config) -> String {
    let kind = match config.join.kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
    };
    format!("epoch.length={}ms join.kind={kind} join.horizon={}ms", config.epoch.ms(), config.join.horizon_ms)
}

/// The key under which a table says in how many objects an epoch stands in the archive.
const SHARDS: &str = "archive.shards";

/// What a table holds to: what its rows mean, and what has to stay as it is.
fn kept(config: &Config) -> [(&'static str, String); 2] {
    [(MEANING, meaning(config)), (SHARDS, config.archive_shards.to_string())]
}

/// Writes down what a new table holds to.
fn write_meaning(table: &mut dyn Table, config: &Config) -> Result<(), uptake_connectors::TableError> {
    for (key, value) in kept(config) {
        if table.meta_get(key)?.is_none() {
            table.meta_put(key, &value)?;
        }
    }
    Ok(())
}

/// What a table holds and what this configuration would write, where they mean different things: an epoch in another
/// number of objects would stand in the archive twice.
pub(crate) fn other_meaning(
    table: &dyn Table,
    config: &Config,
) -> Result<Option<(String, String)>, uptake_connectors::TableError> {
    for (key, asked) in kept(config) {
        if let Some(stored) = table.meta_get(key)?.filter(|stored| *stored != asked) {
            // A meaning names its keys itself.
            let told = |value: String| if key == MEANING { value } else { format!("{key}={value}") };
            return Ok(Some((told(stored), told(asked))));
        }
    }
    Ok(None)
}

/// That a table holds what this configuration means.
///
/// # Errors
/// It holds something else, or cannot be read.
pub(crate) fn check_meaning(table: &dyn Table, at: &Backend, config: &Config) -> Result<(), DataDirError> {
    match other_meaning(table, config)? {
        Some((stored, asked)) => Err(DataDirError::OtherMeaning { place: shown(at), stored, asked }),
        None => Ok(()),
    }
}

/// The length of the epochs of a table, as it was written.
pub fn epoch_length(table: &dyn Table) -> Result<uptake_model::EpochLength, uptake_connectors::TableError> {
    let stored = table.meta_get(MEANING)?.unwrap_or_default();
    let ms = stored
        .split_whitespace()
        .find_map(|w| w.strip_prefix("epoch.length=")?.strip_suffix("ms")?.parse().ok());
    Ok(ms.and_then(uptake_model::EpochLength::from_ms).unwrap_or_default())
}
