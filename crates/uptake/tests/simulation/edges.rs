//! Log, table, archive and objects of one run: those in memory, which now and then fail.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use uptake::checkpoint::{Manifest, Number};
use uptake_connectors::archive::{self, Archive, PartInfo, Put, TallyPart};
use uptake_connectors::log::{self, Log, Record, StoredRef};
use uptake_connectors::objects::{self, ObjectInfo, Objects, PutObject};
use uptake_connectors::table::{self, Found, Table};
use uptake_connectors::{ArchiveError, LogError, ObjectsError, TableError};
use uptake_model::segment::is_reserved;
use uptake_model::{Epoch, RequestId, TallyRow};

use crate::dice::Dice;
use crate::events::RowKey;
use crate::world::{Edge, Fate, Violation, World};

/// A way to the world for one run of a cluster.
pub(crate) struct Way {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: usize,
}

/// What the system said.
fn said(fate: Fate) -> io::Error {
    match fate {
        Fate::Full => ErrorKind::StorageFull.into(),
        Fate::Dead | Fate::Torn(_) => io::Error::new(ErrorKind::InvalidData, "its run is dead"),
        _ => ErrorKind::TimedOut.into(),
    }
}

fn path() -> PathBuf {
    "simulated".into()
}

impl Way {
    /// Does something, or not, as it is fated.
    fn go<T, E>(
        &self,
        edge: Edge,
        changes: bool,
        what: &str,
        failed: impl Fn(io::Error) -> E,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let fate = self.world.fate(self.cluster, edge, changes);
        self.world.trace(format_args!("{}: {edge:?} {what}: {fate:?}", self.cluster));
        match fate {
            Fate::Done => act(),
            Fate::Unheard => act().and_then(|_| Err(failed(said(fate)))),
            _ => Err(failed(said(fate))),
        }
    }
}

fn table_failed(source: io::Error) -> TableError {
    match source.kind() {
        ErrorKind::StorageFull => TableError::Full { path: path(), source },
        _ => TableError::Io { operation: "write to", path: path(), source },
    }
}

fn archive_failed(source: io::Error) -> ArchiveError {
    match source.kind() {
        ErrorKind::StorageFull => ArchiveError::NoSpace { path: path(), source },
        _ => ArchiveError::Io { operation: "write to", path: path(), source },
    }
}

fn objects_failed(source: io::Error) -> ObjectsError {
    match source.kind() {
        ErrorKind::StorageFull => ObjectsError::NoSpace { path: path(), source },
        _ => ObjectsError::Io { operation: "use", path: path(), source },
    }
}

fn log_failed(source: io::Error) -> LogError {
    LogError::Io { operation: "use", path: path(), source }
}

/// Rows in the trace.
fn told(rows: &[TallyRow]) -> String {
    let row = |row: &TallyRow| {
        let (plays, impressions) = (row.counts.plays, row.counts.impressions);
        let sealed = if row.sealed { "!" } else { "" };
        format!("{}/{}/{}={plays}+{impressions}{sealed} ", row.video_id, row.segment, row.epoch)
    };
    rows.iter().map(row).collect()
}

/// The table; remembers what this run wrote.
pub(crate) struct SimulatedTable {
    pub(crate) way: Way,
    pub(crate) written: BTreeMap<RowKey, u64>,
}

impl Table for SimulatedTable {
    fn write(&mut self, rows: &[TallyRow]) -> table::Result<()> {
        let world = Arc::clone(&self.way.world);
        let what = told(rows);
        for row in rows {
            let key = (row.segment.to_string(), row.video_id.to_string(), row.epoch.0);
            let size = row.counts.size();
            if self.written.insert(key, size).is_some_and(|before| before > size) {
                world.violated(format!("a row shrank within a run: {row:?}"));
            }
            if (row.sealed && !is_reserved(&row.segment)) != row.sets.is_some() {
                world.violated(format!("sealed rows have sets, and they alone: {row:?}"));
            }
        }
        self.way.go(Edge::Table, true, &what, table_failed, || {
            world.table.clone().write(rows)?;
            world.sealed(rows.iter().filter(|row| row.sealed));
            Ok(())
        })
    }

    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> table::Result<Option<TallyRow>> {
        self.way.world.table.get(video, segment, epoch)
    }

    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> table::Result<()>) -> table::Result<()> {
        self.way.world.table.scan(segment, each)
    }

    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> table::Result<Vec<TallyRow>> {
        self.way.world.table.top(segment, epoch, limit)
    }

    fn video(&self, video: &str, segment: &str) -> table::Result<Vec<TallyRow>> {
        self.way.world.table.video(video, segment)
    }

    fn find_request(&self, request: RequestId) -> table::Result<Vec<Found>> {
        self.way.world.table.find_request(request)
    }

    fn segments(&self) -> table::Result<Vec<Arc<str>>> {
        self.way.world.table.segments()
    }

    fn meta_get(&self, key: &str) -> table::Result<Option<String>> {
        self.way.world.table.meta_get(key)
    }

    fn meta_put(&mut self, key: &str, value: &str) -> table::Result<()> {
        self.way.world.table.clone().meta_put(key, value)
    }

    fn is_empty(&self) -> table::Result<bool> {
        self.way.world.table.is_empty()
    }
}

/// The archive: a part is put once, or again the same.
pub(crate) struct SimulatedArchive(pub(crate) Way);

impl Archive for SimulatedArchive {
    fn replace_tallies(&mut self, _: &TallyPart, _: &mut Vec<TallyRow>) -> Result<(), ArchiveError> {
        unreachable!("no run replaces what is archived")
    }

    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> archive::Result<Put> {
        let world = Arc::clone(&self.0.world);
        let what = format!("{}: {}", part.name(), told(rows));
        self.0.go(Edge::Archive, true, &what, archive_failed, || {
            let put = world.archive.clone().put_tallies(part, rows)?;
            world.lock().counts.archived += u64::from(put == Put::Created);
            if !matches!(put, Put::Created | Put::Identical) && !world.case.cuts() {
                world.violated(format!("{} was sealed twice and differently: {put:?}", part.name()));
            }
            world.sealed(rows.iter());
            Ok(put)
        })
    }

    fn parts(&self) -> archive::Result<Vec<PartInfo>> {
        self.0.world.archive.parts()
    }

    fn read_tallies(&self, part: &TallyPart) -> archive::Result<Vec<TallyRow>> {
        self.0.world.archive.read_tallies(part)
    }
}

/// The objects, some of which are torn.
pub(crate) struct SimulatedObjects(pub(crate) Way);

impl SimulatedObjects {
    fn go<T>(
        &self,
        changes: bool,
        what: &str,
        act: impl FnOnce() -> objects::Result<T>,
    ) -> objects::Result<T> {
        self.0.go(Edge::Objects, changes, what, objects_failed, act)
    }
}

impl Objects for SimulatedObjects {
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> objects::Result<PutObject> {
        let world = &self.0.world;
        let fate = world.fate(self.0.cluster, Edge::Objects, true);
        let crc = crc32c::crc32c(bytes);
        world.trace(format_args!("{}: put {name} {crc:08x}: {fate:?}", self.0.cluster));
        if let Fate::Torn(how) = fate {
            let mut dice = Dice::of(how, 5);
            let mut torn = bytes.to_vec();
            if !torn.is_empty() {
                let at = dice.below(torn.len() as u64) as usize;
                if dice.once_in(2) { torn.truncate(at) } else { torn[at] ^= 1 + dice.below(255) as u8 }
            }
            if world.objects.put_if_absent(name, &torn)? == PutObject::Created && torn != bytes {
                world.lock().torn.insert(name.to_owned());
            }
            return Err(objects_failed(said(fate)));
        }
        if !matches!(fate, Fate::Done | Fate::Unheard) {
            return Err(objects_failed(said(fate)));
        }
        let put = world.objects.put_if_absent(name, bytes)?;
        if put == PutObject::Created && name.contains("/manifest-") {
            let manifest = Manifest::decode(name, bytes).map_err(|_| objects_failed(said(Fate::Dead)))?;
            let cluster = name.split('/').next().unwrap_or_default().to_owned();
            let mut state = world.lock();
            state.counts.checkpoints += 1;
            let before = state.watermarks.insert(cluster.clone(), manifest.watermark);
            if before.is_some_and(|before| before > manifest.watermark) {
                let what = format!("the watermark went back from {before:?} to {}", manifest.watermark);
                state.violation.get_or_insert(Violation(what));
            }
            state.committed.push((cluster, Number(manifest.number)));
        }
        if fate == Fate::Unheard { Err(objects_failed(said(fate))) } else { Ok(put) }
    }

    fn get(&self, name: &str) -> objects::Result<Option<Vec<u8>>> {
        self.go(false, name, || self.0.world.objects.get(name))
    }

    fn get_range(&self, name: &str, start: u64, len: u64) -> objects::Result<Option<Vec<u8>>> {
        self.go(false, name, || self.0.world.objects.get_range(name, start, len))
    }

    fn list(&self, prefix: &str) -> objects::Result<Vec<ObjectInfo>> {
        self.go(false, prefix, || self.0.world.objects.list(prefix))
    }

    fn delete(&self, name: &str) -> objects::Result<()> {
        let world = &self.0.world;
        let fate = world.fate(self.0.cluster, Edge::Objects, false);
        world.trace(format_args!("{}: delete {name}: {fate:?}", self.0.cluster));
        if fate == Fate::Done { world.objects.delete(name) } else { Err(objects_failed(said(fate))) }
    }
}

/// The log.
pub(crate) struct SimulatedLog(pub(crate) Way);

impl Log for SimulatedLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> log::Result<()> {
        self.0.world.log.create_topic(topic, partitions)
    }

    fn partitions(&self, topic: &str) -> log::Result<u32> {
        self.0.world.log.partitions(topic)
    }

    fn topics(&self) -> Vec<String> {
        self.0.world.log.topics()
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> log::Result<u64> {
        let what = format!("append {} to {topic}", records.len());
        self.0.go(Edge::Log, true, &what, log_failed, || {
            self.0.world.log.append(topic, partition, records, now_ms)
        })
    }

    fn read_each(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> log::Result<u64> {
        let what = format!("read {topic}/{partition} {from} {max_records}");
        self.0.go(Edge::Log, false, &what, log_failed, || {
            self.0.world.log.read_each(topic, partition, from, max_records, max_bytes, each)
        })
    }

    fn start_offset(&self, topic: &str, partition: u32) -> log::Result<u64> {
        self.0.world.log.start_offset(topic, partition)
    }

    fn end_offset(&self, topic: &str, partition: u32) -> log::Result<u64> {
        self.0.world.begins_batch(self.0.cluster, topic, partition);
        self.0.go(Edge::Log, false, "end", log_failed, || self.0.world.log.end_offset(topic, partition))
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> log::Result<u64> {
        self.0.world.log.offset_for_time(topic, partition, ms)
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> log::Result<u64> {
        self.0.world.log.truncate_before(topic, partition, offset)
    }
}
