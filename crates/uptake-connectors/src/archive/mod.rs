//! Archives: the tallies of closed epochs, one object per epoch and shard, for everyone else.
//!
//! The same rows give the same bytes, and an object is put only where there is none: putting a
//! part again is harmless, and of two different ones the larger stays.

mod directory;
mod memory;
mod parquet;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use directory::DirectoryArchive;
pub use memory::MemoryArchive;
pub use store::StoreArchive;
use uptake_model::{Epoch, EpochLength, TallyRow};

use crate::error::ArchiveError;
use crate::options::Options;
use crate::url::{Backend, Content};

/// The result of an archive's operation.
pub type Result<T> = std::result::Result<T, ArchiveError>;

/// Which object: the tallies of one epoch that fall into one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TallyPart {
    /// The epoch.
    pub epoch: Epoch,
    /// How long an epoch is.
    pub length: EpochLength,
    /// The shard, from 0.
    pub shard: u32,
    /// How many shards the epoch is split into.
    pub shards: u32,
}

impl TallyPart {
    /// The object's name in the archive, with `/` between its steps.
    ///
    /// ```
    /// use uptake_connectors::archive::TallyPart;
    /// use uptake_model::{Epoch, EpochLength};
    /// let part = TallyPart { epoch: Epoch(982_464), length: EpochLength::default(), shard: 0, shards: 1 };
    /// assert_eq!(part.name(), "tallies/epoch=2026-01-15T00-00/shard-000-of-001.parquet");
    /// ```
    pub fn name(&self) -> String {
        let label = self.length.label(self.epoch);
        format!("tallies/epoch={label}/shard-{:03}-of-{:03}.parquet", self.shard, self.shards)
    }
}

/// What became of a part that was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// There was none; now there is.
    Created,
    /// The same one was there.
    Identical,
    /// A smaller one was there; this one took its place.
    Replaced,
    /// Another one, at least as large, was there and stays.
    Kept,
}

/// A part as the archive lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartInfo {
    /// Which.
    pub part: TallyPart,
    /// How many rows it has.
    pub rows: u64,
    /// Plays and impressions of all its rows: the larger part wins.
    pub size: u64,
}

/// An archive of tallies.
///
/// ```
/// use uptake_connectors::archive::{Archive, MemoryArchive, Put, TallyPart};
/// use uptake_model::{Epoch, EpochLength, TallyRow, tally::Counts};
/// let part = TallyPart { epoch: Epoch(982_464), length: EpochLength::default(), shard: 0, shards: 1 };
/// let mut rows = vec![TallyRow {
///     video_id: "v1".into(),
///     segment: "".into(),
///     epoch: part.epoch,
///     counts: Counts { plays: 4, impressions: 5, exact: true },
///     sealed: true,
///     sets: None,
/// }];
/// let mut archive = MemoryArchive::new();
/// assert_eq!(archive.put_tallies(&part, &mut rows)?, Put::Created);
/// assert_eq!(archive.put_tallies(&part, &mut rows)?, Put::Identical);
/// assert_eq!(archive.read_tallies(&part)?, rows);
/// # Ok::<(), uptake_connectors::ArchiveError>(())
/// ```
pub trait Archive: Send {
    /// Puts the rows of `part`, sorting them by video id and segment. Archived rows are sealed:
    /// that flag of theirs is not stored.
    ///
    /// # Errors
    /// A row is of another epoch, or is there twice, or its counts are beyond 2⁶³ − 1; the device
    /// is full or the system refuses. Nothing is left behind then.
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put>;

    /// The parts that were put, by epoch, then length, shards and shard.
    ///
    /// # Errors
    /// The system refuses, or an object is damaged.
    fn parts(&self) -> Result<Vec<PartInfo>>;

    /// Puts rows in the place of those of `part`, however large they are; other than [`Archive::put_tallies`]
    /// it does not commute with other writers, and is for what must leave the archive.
    ///
    /// # Errors
    /// As [`Archive::put_tallies`].
    fn replace_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<()>;

    /// The rows of `part`, by video id and segment, all sealed.
    ///
    /// # Errors
    /// There is no such part, the system refuses, or the object is damaged.
    fn read_tallies(&self, part: &TallyPart) -> Result<Vec<TallyRow>>;
}

/// Opens the archive that `backend` names.
///
/// # Errors
/// As [`StoreArchive::open`]; or the options make no sense.
pub fn open(backend: &Backend, options: &Options) -> Result<Box<dyn Archive>> {
    Ok(match backend {
        Backend::Memory => Box::new(MemoryArchive::new()),
        Backend::File(directory) => Box::new(DirectoryArchive::open(directory)),
        Backend::S3 { .. } => Box::new(StoreArchive::open(backend, options)?),
        Backend::Kafka { .. } | Backend::Cassandra { .. } => {
            return Err(backend.cannot_hold(Content::Archive).into());
        }
    })
}

/// Sorts the rows and checks that they make a part; returns their size.
fn prepare(part: &TallyPart, rows: &mut [TallyRow]) -> Result<u64> {
    if part.shard >= part.shards {
        return Err(ArchiveError::Shard { shard: part.shard, shards: part.shards });
    }
    rows.sort_unstable_by(|a, b| (&a.video_id, &a.segment).cmp(&(&b.video_id, &b.segment)));
    let mut size = 0u64;
    for row in &*rows {
        if row.epoch != part.epoch {
            return Err(ArchiveError::WrongEpoch { part: part.epoch.0, row: row.epoch.0 });
        }
        let large = i64::MAX as u64;
        if row.counts.plays > large || row.counts.impressions > large {
            return Err(ArchiveError::OutOfRange { video_id: row.video_id.to_string(), epoch: row.epoch.0 });
        }
        size = size.saturating_add(row.counts.size());
    }
    match rows.windows(2).find(|w| (&w[0].video_id, &w[0].segment) == (&w[1].video_id, &w[1].segment)) {
        Some(w) => Err(ArchiveError::Twice {
            video_id: w[0].video_id.to_string(),
            segment: w[0].segment.to_string(),
            epoch: part.epoch.0,
        }),
        None => Ok(size),
    }
}

/// Whether a part of `size` takes the place of another one that is there: the larger wins.
fn against(existing: &PartInfo, part: &TallyPart, size: u64, path: &Path) -> Result<Put> {
    if existing.part.length != part.length {
        return Err(ArchiveError::OtherLength {
            path: path.to_path_buf(),
            found_ms: existing.part.length.ms(),
            asked_ms: part.length.ms(),
        });
    }
    Ok(if size > existing.size { Put::Replaced } else { Put::Kept })
}

/// Whether a file of a folder below `tallies/` is a part, by their names.
fn is_part(folder: &str, file: &str) -> bool {
    folder.starts_with("epoch=") && file.starts_with("shard-") && file.ends_with(".parquet")
}

/// The order in which parts are listed.
fn part_order(part: &TallyPart) -> (Epoch, i64, u32, u32) {
    (part.epoch, part.length.ms(), part.shards, part.shard)
}

/// An archive that several hold, for one after the other to use.
impl<T: Archive + ?Sized> Archive for Arc<Mutex<T>> {
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put> {
        self.lock().unwrap_or_else(PoisonError::into_inner).put_tallies(part, rows)
    }

    fn replace_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<()> {
        self.lock().unwrap_or_else(PoisonError::into_inner).replace_tallies(part, rows)
    }

    fn parts(&self) -> Result<Vec<PartInfo>> {
        self.lock().unwrap_or_else(PoisonError::into_inner).parts()
    }

    fn read_tallies(&self, part: &TallyPart) -> Result<Vec<TallyRow>> {
        self.lock().unwrap_or_else(PoisonError::into_inner).read_tallies(part)
    }
}
