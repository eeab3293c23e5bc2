//! Tables: the tallies as rows, to serve and to explain.
//!
//! A write gives absolute values and **the larger row wins**, so writes commute: retries,
//! replays and a paused old process that wakes up all end in the same table, in any order. A
//! stored set lets anyone ask which request is behind a number.

mod cassandra;
mod erase;
mod memory;
mod sqlite;

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use cassandra::{CassandraOptions, CassandraTable};
pub use erase::without;
pub use memory::MemoryTable;
pub use sqlite::{FILE_NAME, Held, SqliteTable};
use uptake_model::{Epoch, RequestId, TallyRow};

use crate::error::TableError;
use crate::options::Options;
use crate::url::{Backend, Content};

/// The result of a table's operation.
pub type Result<T> = std::result::Result<T, TableError>;

/// A row whose stored sets hold a request, or may hold it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The video.
    pub video_id: Arc<str>,
    /// The segment.
    pub segment: Arc<str>,
    /// The epoch.
    pub epoch: Epoch,
    /// Whether the request played the video; `None` where only a sketch is left to ask.
    pub played: Option<bool>,
    /// Whether the request was shown the video; `None` where only a sketch is left to ask.
    pub shown: Option<bool>,
}

impl Found {
    /// Whether one of the sets surely holds the request.
    pub fn is_certain(&self) -> bool {
        self.played == Some(true) || self.shown == Some(true)
    }
}

/// A table of tallies.
///
/// Which of two rows with one key stays is decided by `(plays + impressions, plays, exact)`, the
/// larger. Where these are equal the rows say the same, and the stored one gains what the other
/// adds: the sealed flag, and the sets (of two different ones, the one with the larger bytes).
///
/// ```
/// use uptake_connectors::table::{MemoryTable, Table};
/// use uptake_model::{Epoch, TallyRow, tally::Counts};
/// let row = |plays, impressions| TallyRow {
///     video_id: "v1".into(),
///     segment: "".into(),
///     epoch: Epoch(982_464),
///     counts: Counts { plays, impressions, exact: true },
///     sealed: false,
///     sets: None,
/// };
/// let mut table = MemoryTable::new();
/// table.write(&[row(2, 9)])?;
/// table.write(&[row(1, 4)])?; // an older state, written late: changes nothing
/// assert_eq!(table.get("v1", "", Epoch(982_464))?.map(|r| r.counts.plays), Some(2));
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
pub trait Table: Send {
    /// Writes `rows` in one transaction: all of them, or on an error none.
    ///
    /// # Errors
    /// A count is beyond 2⁶², the device is full, or the driver refuses.
    fn write(&mut self, rows: &[TallyRow]) -> Result<()>;

    /// From now on, sealed rows of epochs that lie more than so many before the newest that is written go, some with
    /// each write. A table that has a way of its own, or that is gone with its process, keeps what it has.
    fn keep_epochs(&mut self, _epochs: i64) {}

    /// One row, with its sets where they are stored.
    ///
    /// # Errors
    /// The driver refuses, or the stored row is damaged. So for all that read.
    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Result<Option<TallyRow>>;

    /// Calls `each` with every row of `segment`, without sets, by video id (bytewise), then
    /// epoch. An error of `each` ends the scan and is returned.
    ///
    /// # Errors
    /// As [`Table::get`], and those of `each`.
    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Result<()>) -> Result<()>;

    /// The `limit` rows of one epoch with the most plays, then impressions, then by video id;
    /// without sets. Without an epoch, of the latest one that has rows in `segment`.
    ///
    /// # Errors
    /// As [`Table::get`].
    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Result<Vec<TallyRow>>;

    /// All epochs of one video in `segment`, oldest first, without sets.
    ///
    /// # Errors
    /// As [`Table::get`].
    fn video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>>;

    /// The rows whose stored sets hold `request`, and those where only a sketch is left to ask
    /// and it may be in there ([`Found::is_certain`] tells them apart). By video id, segment and
    /// epoch. Reads every stored set; rows without sets (not sealed yet) are not found.
    ///
    /// # Errors
    /// As [`Table::get`].
    fn find_request(&self, request: RequestId) -> Result<Vec<Found>>;

    /// The names of the segments that have rows, ascending; the reserved ones too
    /// ([`is_reserved`](uptake_model::segment::is_reserved)).
    ///
    /// # Errors
    /// As [`Table::get`].
    fn segments(&self) -> Result<Vec<Arc<str>>>;

    /// A small value kept beside the rows, such as the configuration's fingerprint.
    ///
    /// # Errors
    /// As [`Table::get`].
    fn meta_get(&self, key: &str) -> Result<Option<String>>;

    /// Keeps a small value beside the rows, in place of an earlier one.
    ///
    /// # Errors
    /// As [`Table::write`].
    fn meta_put(&mut self, key: &str, value: &str) -> Result<()>;

    /// Whether there are no rows.
    ///
    /// # Errors
    /// As [`Table::get`].
    fn is_empty(&self) -> Result<bool>;
}

/// Opens the table that `backend` names, to write and to read; creates a file where there is none.
///
/// # Errors
/// As [`SqliteTable::open`] and [`CassandraTable::open`]; or the options make no sense.
pub fn open(backend: &Backend, options: &Options) -> Result<Box<dyn Table>> {
    Ok(match backend {
        Backend::Memory => Box::new(MemoryTable::new()),
        Backend::File(directory) => Box::new(SqliteTable::open(directory)?),
        Backend::Cassandra { hosts, keyspace } => {
            Box::new(CassandraTable::open(hosts, keyspace, &CassandraOptions::read(options)?)?)
        }
        Backend::Kafka { .. } | Backend::S3 { .. } => {
            return Err(backend.cannot_hold(Content::Table).into());
        }
    })
}

/// Opens the table that `backend` names, to read only; `memory:` is an empty one.
///
/// # Errors
/// As [`SqliteTable::open_read_only`] and [`CassandraTable::open`]; or the options make no sense.
pub fn open_read_only(backend: &Backend, options: &Options) -> Result<Box<dyn Table>> {
    Ok(match backend {
        Backend::File(directory) => Box::new(SqliteTable::open_read_only(directory)?),
        Backend::Cassandra { hosts, keyspace } => {
            let options = CassandraOptions { create_schema: false, ..CassandraOptions::read(options)? };
            Box::new(CassandraTable::open(hosts, keyspace, &options)?)
        }
        _ => open(backend, options)?,
    })
}

/// Makes what the table that `backend` names needs before it is opened, or brings it up to date;
/// harmless to do again. Only servers need it.
///
/// # Errors
/// As [`CassandraTable::migrate`]; or the options make no sense.
pub fn migrate(backend: &Backend, options: &Options) -> Result<()> {
    match backend {
        Backend::Cassandra { hosts, keyspace } => {
            CassandraTable::migrate(hosts, keyspace, &CassandraOptions::read(options)?)
        }
        _ => Ok(()),
    }
}

/// Counts stay below 2⁶² so that their sum is a 64-bit integer in every table.
const COUNT_MAX: u64 = 1 << 62;

fn check_range(rows: &[TallyRow]) -> Result<()> {
    match rows.iter().find(|row| row.counts.plays >= COUNT_MAX || row.counts.impressions >= COUNT_MAX) {
        Some(row) => Err(TableError::OutOfRange { video_id: row.video_id.to_string(), epoch: row.epoch.0 }),
        None => Ok(()),
    }
}

/// What decides between two rows of one key.
fn rank(row: &TallyRow) -> (u64, u64, bool) {
    (row.counts.size(), row.counts.plays, row.counts.exact)
}

/// The order of a table's answer to `top`.
fn by_plays(a: &TallyRow, b: &TallyRow) -> Ordering {
    (b.counts.plays, b.counts.impressions, &a.video_id).cmp(&(
        a.counts.plays,
        a.counts.impressions,
        &b.video_id,
    ))
}

/// A table that several hold, for one after the other to use.
impl<T: Table + ?Sized> Table for Arc<Mutex<T>> {
    fn write(&mut self, rows: &[TallyRow]) -> Result<()> {
        held(self).write(rows)
    }

    fn keep_epochs(&mut self, epochs: i64) {
        held(self).keep_epochs(epochs);
    }

    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Result<Option<TallyRow>> {
        held(self).get(video, segment, epoch)
    }

    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Result<()>) -> Result<()> {
        held(self).scan(segment, each)
    }

    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Result<Vec<TallyRow>> {
        held(self).top(segment, epoch, limit)
    }

    fn video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>> {
        held(self).video(video, segment)
    }

    fn find_request(&self, request: RequestId) -> Result<Vec<Found>> {
        held(self).find_request(request)
    }

    fn segments(&self) -> Result<Vec<Arc<str>>> {
        held(self).segments()
    }

    fn meta_get(&self, key: &str) -> Result<Option<String>> {
        held(self).meta_get(key)
    }

    fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        held(self).meta_put(key, value)
    }

    fn is_empty(&self) -> Result<bool> {
        held(self).is_empty()
    }
}

fn held<T: ?Sized>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // A table changes all at once, so what a panic left is consistent.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
