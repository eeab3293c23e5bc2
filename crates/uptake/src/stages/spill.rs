//! Requests that memory has no room for wait on the local disk, by the time of their deadline.
//!
//! A bucket takes the requests whose deadlines lie within some minutes, as an LSM tree of its own
//! that is only ever added to in sorted runs, read, and deleted whole. Which requests are there
//! and in which bucket is known in memory (7 to 14 bytes a request), so that a new request seldom
//! costs a look at the disk. What is on disk belongs to this process alone: who restarts goes on from a
//! checkpoint, which holds these requests, too.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;
use lsm_tree::{AbstractTree, AnyTree, Cache, Guard, SeqNo, UserValue};
use uptake_flow::{Cold, EventTime, Stop};
use uptake_model::RequestId;
use uptake_model::join::RequestState;

use crate::checkpoint::{Coordinator, ROUND};
use crate::config::Config;

/// Into how many buckets the time that a request waits is divided. All of a bucket comes back when
/// the watermark reaches its first deadline, so more buckets need less memory then.
const BUCKETS: i64 = 64;
/// Buckets that there are at once at most; a request for one more stays in memory.
const BUCKETS_MAX: usize = 200;
/// Runs of a bucket beyond which they are made one: each is looked at for a request that comes back.
const RUNS_MAX: usize = 8;
/// Requests that come back at a time when their bucket is due.
const DUE_AT_ONCE: usize = 4_096;
/// Of what was read from disk so much stays in memory.
const CACHE_BYTES: u64 = 8 << 20;
/// A table of a bucket is at most so large.
const TABLE_BYTES: u64 = 64 << 20;
/// Keys of one part of a checkpoint.
const PART_KEYS: Key = Key::MAX / ROUND as Key + 1;
/// A deadline that never comes, in seconds.
const NEVER: u32 = u32::MAX;

/// Where requests may be put, and when.
#[derive(Clone, Debug)]
pub struct Spill {
    /// A folder of this process alone, which is not there before and not after.
    pub folder: PathBuf,
    /// The most requests that a worker holds in memory; where nothing is said, as many as the
    /// budget of memory allows.
    pub held_max: Option<usize>,
}

impl Spill {
    /// In a data directory, for the process that holds the lock of this name, as the
    /// configuration says. What an earlier process left there is removed.
    pub fn new(data: &Path, lock: &str, config: &Config) -> Option<Self> {
        let folder = data.join("spill").join(lock);
        // Where that fails, making it anew says why.
        drop(fs::remove_dir_all(&folder));
        config.spills.then_some(Self { folder, held_max: None })
    }
}

/// The disk does not do what it should.
#[derive(Debug, thiserror::Error)]
#[error(
    "requests that wait cannot be kept in {}: {what}. Make room there, or give the process more memory \
     (memory.bytes_max); nothing is lost, the next run goes on from the last checkpoint",
    folder.display()
)]
pub struct SpillError {
    folder: PathBuf,
    what: String,
}

/// The requests of one worker that are on disk; a clone is the same.
#[derive(Clone, Debug)]
pub struct Spilled(Rc<RefCell<Buckets>>);

/// A key of the trees: an id, mixed, so that keys spread evenly whatever the ids are.
type Key = u64;

/// A finalizer of SplitMix64: no two ids become one key.
fn key_of(request: RequestId) -> Key {
    let z = request.0;
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What is known in memory of a request that is on disk: half of its key, and its bucket. Another
/// key may have the same half, which the bucket then tells.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place([u8; 5]);

impl Place {
    fn new(key: Key, bucket: u8) -> Self {
        let [a, b, c, d, ..] = key.to_be_bytes();
        Self([a, b, c, d, bucket])
    }

    /// A hash of the half of the key: where the place stands in a table.
    fn hash(&self) -> u64 {
        let [a, b, c, d, _] = self.0;
        u64::from(u32::from_be_bytes([a, b, c, d])).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn bucket(&self) -> u8 {
        self.0[4]
    }
}

/// The places of all requests that are on disk.
///
/// A table that is full is made anew at twice its size, so there are several, of which each takes a
/// little more of the keys than the one before and the last twice as many as the first: they are full
/// one after the other, and together they grow evenly.
struct Places {
    tables: Vec<HashTable<Place>>,
    /// By the first byte of a key, its table.
    of_byte: [u8; 256],
}

impl Places {
    const TABLES: usize = 16;

    fn new() -> Self {
        let share = |table: usize| f64::exp2(table as f64 / Self::TABLES as f64);
        let all: f64 = (0..Self::TABLES).map(share).sum();
        let mut of_byte = [0; 256];
        let (mut table, mut until) = (0, share(0));
        for (byte, of) in of_byte.iter_mut().enumerate() {
            while byte as f64 / 256.0 >= until / all && table + 1 < Self::TABLES {
                table += 1;
                until += share(table);
            }
            *of = table as u8;
        }
        Self { tables: (0..Self::TABLES).map(|_| HashTable::new()).collect(), of_byte }
    }

    fn table(&mut self, place: Place) -> &mut HashTable<Place> {
        &mut self.tables[usize::from(self.of_byte[usize::from(place.0[0])])]
    }

    fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    fn insert(&mut self, place: Place) {
        self.table(place).insert_unique(place.hash(), place, Place::hash);
    }

    fn remove(&mut self, place: Place) {
        if let Ok(found) = self.table(place).find_entry(place.hash(), |other| *other == place) {
            found.remove();
        }
    }

    /// Where a request of this key may be.
    fn find(&mut self, key: Key) -> Vec<Place> {
        let place = Place::new(key, 0);
        let may_be = |found: &&Place| **found == Place::new(key, found.bucket());
        self.table(place).iter_hash(place.hash()).filter(may_be).copied().collect()
    }

    fn clear(&mut self) {
        self.tables.iter_mut().for_each(HashTable::clear);
    }
}

struct Bucket {
    folder: PathBuf,
    tree: AnyTree,
    /// What was put and is in no run yet.
    new: Vec<(Key, Vec<u8>)>,
    /// Keys of requests that are in it and nowhere else.
    live: usize,
    /// Keys of which the tree has a state that does not hold any more.
    gone: HashSet<Key>,
    /// Once it is due, the first key that has not come back yet.
    due_from: Option<Key>,
}

impl Bucket {
    /// Whether a state that the tree has of this key holds.
    fn may_have(&self, key: Key) -> bool {
        self.due_from.is_none_or(|from| key >= from) && !self.gone.contains(&key)
    }
}

struct Buckets {
    folder: PathBuf,
    stop: Stop,
    /// Seconds of deadlines of a bucket.
    width: u32,
    buckets: Vec<Option<Bucket>>,
    /// By its deadlines divided by the width, a bucket's place in `buckets`.
    by_time: BTreeMap<u32, u8>,
    places: Places,
    cache: Arc<Cache>,
    unsaved: Unsaved,
    /// The watermark when requests were last asked for that are due.
    watermark: EventTime,
    failed: bool,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets")
            .field("folder", &self.folder)
            .field("requests", &self.places.len())
            .finish_non_exhaustive()
    }
}

/// A request as it is on disk. As bytes: id u64, deadline in seconds u32, state.
struct Waiting {
    request: RequestId,
    deadline: u32,
    state: Vec<u8>,
}

impl Waiting {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + self.state.len());
        bytes.extend_from_slice(&self.request.0.to_le_bytes());
        bytes.extend_from_slice(&self.deadline.to_le_bytes());
        bytes.extend_from_slice(&self.state);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (request, rest) = bytes.split_first_chunk()?;
        let (deadline, state) = rest.split_first_chunk()?;
        Some(Self {
            request: RequestId(u64::from_le_bytes(*request)),
            deadline: u32::from_le_bytes(*deadline),
            state: state.to_vec(),
        })
    }

    fn deadline(&self) -> EventTime {
        match self.deadline {
            NEVER => EventTime::MAX,
            seconds => EventTime(i64::from(seconds) * 1000),
        }
    }
}

/// What went to disk before a checkpoint had it: copies in the order in which they came, for the
/// next one, each length u32 and a [`Waiting`].
#[derive(Default)]
struct Unsaved {
    file: Option<File>,
    /// What was put since the last [`Cold::settle`].
    new: Vec<u8>,
    /// Where the bytes of each settling end in the file.
    ends: Vec<u64>,
}

impl Spilled {
    /// For the worker of this number; `wait_ms` is how long a request waits at least.
    pub fn new(spill: &Spill, worker: usize, wait_ms: i64, stop: Stop) -> Self {
        let folder = spill.folder.join(worker.to_string());
        let width = u32::try_from(wait_ms / 1000 / BUCKETS).unwrap_or(NEVER).max(60);
        Self(Rc::new(RefCell::new(Buckets {
            folder,
            stop,
            width,
            buckets: Vec::new(),
            by_time: BTreeMap::new(),
            places: Places::new(),
            cache: Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)),
            unsaved: Unsaved::default(),
            watermark: EventTime::MIN,
            failed: false,
        })))
    }

    /// Calls `save` with every request on disk that belongs into checkpoint `number`: this
    /// checkpoint's part of all, then those that no checkpoint has as they are. An older state of a
    /// request may come after the one that holds, never before it. `false` if the disk failed: then
    /// there must be no checkpoint.
    pub fn each_due(&self, number: u64, save: &mut dyn FnMut(RequestId, &RequestState, EventTime)) -> bool {
        let mut buckets = self.0.borrow_mut();
        for part in (0..ROUND).filter(|&part| Coordinator::takes_part(number, part)) {
            let from = part as Key * PART_KEYS;
            buckets.each_in(from..=from + (PART_KEYS - 1), save);
        }
        buckets.drain_unsaved(save);
        !buckets.failed
    }
}

impl Cold<RequestId, RequestState> for Spilled {
    fn put(
        &mut self,
        request: &RequestId,
        state: RequestState,
        deadline: EventTime,
        unsaved: bool,
    ) -> Result<(), RequestState> {
        self.0.borrow_mut().put(*request, state, deadline, unsaved)
    }

    fn settle(&mut self) {
        self.0.borrow_mut().attempt(Buckets::settle);
    }

    fn take(&mut self, request: &RequestId) -> Option<(RequestState, EventTime)> {
        let mut buckets = self.0.borrow_mut();
        let key = key_of(*request);
        let waiting = buckets.attempt(|buckets| buckets.take(key)).flatten()?;
        let deadline = waiting.deadline();
        Some((RequestState::unpack(waiting.state), deadline))
    }

    fn take_due(
        &mut self,
        watermark: EventTime,
        each: &mut dyn FnMut(RequestId, RequestState, EventTime),
    ) -> bool {
        let due = self.0.borrow_mut().attempt(|buckets| buckets.take_due(watermark)).flatten();
        let is_some = due.is_some();
        for waiting in due.unwrap_or_default() {
            let deadline = waiting.deadline();
            each(waiting.request, RequestState::unpack(waiting.state), deadline);
        }
        is_some
    }

    fn each(&mut self, each: &mut dyn FnMut(&RequestId, &RequestState)) {
        self.0.borrow_mut().each_in(.., &mut |request, state, _| each(&request, state));
    }

    fn len(&self) -> usize {
        self.0.borrow().places.len()
    }
}

impl Buckets {
    /// Does something with the disk. Where that fails the run stops, and nothing is held any more.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, lsm_tree::Error>) -> Option<T> {
        if self.failed {
            return None;
        }
        match work(self) {
            Ok(done) => Some(done),
            Err(error) => {
                self.fail(&match error {
                    lsm_tree::Error::Io(error) => error.to_string(),
                    other => other.to_string(),
                });
                None
            }
        }
    }

    fn fail(&mut self, what: &str) {
        self.failed = true;
        self.places.clear();
        self.stop.fail(SpillError { folder: self.folder.clone(), what: what.to_owned() });
    }

    fn put(
        &mut self,
        request: RequestId,
        state: RequestState,
        deadline: EventTime,
        unsaved: bool,
    ) -> Result<(), RequestState> {
        let deadline = u32::try_from(deadline.0 / 1000).unwrap_or(NEVER);
        let number = deadline / self.width;
        // It would come back at once.
        if self.is_due(number) {
            return Err(state);
        }
        let id = match self.by_time.get(&number) {
            Some(&id) => Some(id),
            None => self.attempt(|buckets| buckets.make(number)).flatten(),
        };
        let Some((id, bucket)) = id.and_then(|id| Some((id, self.buckets[usize::from(id)].as_mut()?))) else {
            return Err(state);
        };
        let waiting = Waiting { request, deadline, state: state.pack()? };
        let (key, bytes) = (key_of(request), waiting.bytes());
        if unsaved {
            self.unsaved.new.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.unsaved.new.extend_from_slice(&bytes);
        }
        bucket.new.push((key, bytes));
        bucket.live += 1;
        bucket.gone.remove(&key);
        self.places.insert(Place::new(key, id));
        Ok(())
    }

    /// Whether the watermark has reached the first deadline of a bucket.
    fn is_due(&self, number: u32) -> bool {
        let starts = i64::from(number) * i64::from(self.width) * 1000;
        let is_never = number == NEVER / self.width;
        self.watermark.0 > starts && (!is_never || self.watermark == EventTime::MAX)
    }

    /// A new bucket, if there may be one more.
    fn make(&mut self, number: u32) -> Result<Option<u8>, lsm_tree::Error> {
        let free = self.buckets.iter().position(Option::is_none).unwrap_or(self.buckets.len());
        if free >= BUCKETS_MAX {
            return Ok(None);
        }
        let folder = self.folder.join(number.to_string());
        fs::create_dir_all(&folder)?;
        let tree = lsm_tree::Config::new(&folder, Default::default(), Default::default())
            .use_cache(Arc::clone(&self.cache))
            .open()?;
        if free == self.buckets.len() {
            self.buckets.push(None);
        }
        self.buckets[free] =
            Some(Bucket { folder, tree, new: Vec::new(), live: 0, gone: HashSet::new(), due_from: None });
        self.by_time.insert(number, free as u8);
        Ok(Some(free as u8))
    }

    fn settle(&mut self) -> Result<(), lsm_tree::Error> {
        for bucket in self.buckets.iter_mut().flatten().filter(|bucket| !bucket.new.is_empty()) {
            let mut new = std::mem::take(&mut bucket.new);
            new.sort_unstable_by_key(|(key, _)| *key);
            let mut run = bucket.tree.ingestion()?;
            for (key, bytes) in new {
                run.write(key.to_be_bytes(), bytes)?;
            }
            run.finish()?;
            if bucket.tree.table_count() > RUNS_MAX {
                bucket.tree.major_compact(TABLE_BYTES, SeqNo::MAX)?;
            }
        }
        self.unsaved.settle(&self.folder)?;
        // A bucket for which everything was refused has nothing in it.
        self.drop_empty()
    }

    fn take(&mut self, key: Key) -> Result<Option<Waiting>, lsm_tree::Error> {
        for place in self.places.find(key) {
            let Some(bucket) = &mut self.buckets[usize::from(place.bucket())] else { continue };
            if !bucket.may_have(key) {
                continue;
            }
            let Some(bytes) = bucket.tree.get(key.to_be_bytes(), SeqNo::MAX)? else { continue };
            bucket.live -= 1;
            bucket.gone.insert(key);
            let is_empty = bucket.live == 0;
            self.places.remove(place);
            if is_empty {
                self.drop_empty()?;
            }
            return Waiting::read(&bytes).map(Some).ok_or_else(lost);
        }
        Ok(None)
    }

    /// Some of the first bucket that is due; `None` if none is.
    fn take_due(&mut self, watermark: EventTime) -> Result<Option<Vec<Waiting>>, lsm_tree::Error> {
        self.watermark = watermark;
        let Some((&number, &id)) = self.by_time.first_key_value() else { return Ok(None) };
        if !self.is_due(number) {
            return Ok(None);
        }
        let Some(bucket) = &mut self.buckets[usize::from(id)] else { return Ok(None) };
        let from = bucket.due_from.unwrap_or(0);
        let (mut due, mut keys, mut end) = (Vec::new(), Vec::new(), None);
        let range = from.to_be_bytes()..;
        for read in bucket.tree.range(range, SeqNo::MAX, None).take(DUE_AT_ONCE) {
            let (key, bytes) = key_and_bytes(read)?;
            end = Some(key);
            if !bucket.gone.remove(&key) {
                keys.push(key);
                due.push(Waiting::read(&bytes).ok_or_else(lost)?);
            }
        }
        bucket.live -= keys.len();
        bucket.due_from = end.and_then(|end| end.checked_add(1)).or(Some(Key::MAX));
        let (is_empty, is_read) = (bucket.live == 0, end.is_none());
        for key in keys {
            self.places.remove(Place::new(key, id));
        }
        if is_empty {
            self.drop_empty()?;
        } else if is_read {
            return Err(lost());
        }
        Ok(Some(due))
    }

    /// Deletes buckets in which nothing is left.
    fn drop_empty(&mut self) -> Result<(), lsm_tree::Error> {
        let empty =
            |bucket: &Option<Bucket>| bucket.as_ref().is_some_and(|b| b.live == 0 && b.new.is_empty());
        for id in 0..self.buckets.len() {
            if empty(&self.buckets[id])
                && let Some(bucket) = self.buckets[id].take()
            {
                self.by_time.retain(|_, of| usize::from(*of) != id);
                drop(bucket.tree);
                fs::remove_dir_all(&bucket.folder)?;
            }
        }
        Ok(())
    }

    fn each_in(
        &mut self,
        keys: impl RangeBounds<Key>,
        each: &mut dyn FnMut(RequestId, &RequestState, EventTime),
    ) {
        let bytes = |bound: Bound<&Key>| bound.map(|key| key.to_be_bytes());
        let range = (bytes(keys.start_bound()), bytes(keys.end_bound()));
        self.attempt(|buckets| {
            for bucket in buckets.buckets.iter().flatten() {
                for read in bucket.tree.range(range, SeqNo::MAX, None) {
                    let (key, bytes) = key_and_bytes(read)?;
                    if bucket.may_have(key) {
                        show(&bytes, each)?;
                    }
                }
            }
            Ok(())
        });
    }

    fn drain_unsaved(&mut self, each: &mut dyn FnMut(RequestId, &RequestState, EventTime)) {
        let mut unsaved = std::mem::take(&mut self.unsaved);
        self.attempt(|_| {
            let (mut chunk, mut end) = (Vec::new(), unsaved.ends.pop());
            while let Some(to) = end {
                end = unsaved.ends.pop();
                let from = end.unwrap_or(0);
                let Some(file) = &mut unsaved.file else { return Err(lost()) };
                chunk.resize((to - from) as usize, 0);
                file.seek(SeekFrom::Start(from))?;
                file.read_exact(&mut chunk)?;
                let mut rest = chunk.as_slice();
                while let Some((length, behind)) = rest.split_first_chunk() {
                    let at = u32::from_le_bytes(*length) as usize;
                    let (bytes, behind) = behind.split_at_checked(at).ok_or_else(lost)?;
                    show(bytes, each)?;
                    rest = behind;
                }
            }
            Ok(())
        });
    }
}

fn key_and_bytes(read: impl Guard) -> Result<(Key, UserValue), lsm_tree::Error> {
    let (key, bytes) = read.into_inner()?;
    Ok((Key::from_be_bytes(key.as_ref().try_into().map_err(|_| lost())?), bytes))
}

fn show(
    bytes: &[u8],
    each: &mut dyn FnMut(RequestId, &RequestState, EventTime),
) -> Result<(), lsm_tree::Error> {
    let waiting = Waiting::read(bytes).ok_or_else(lost)?;
    let deadline = waiting.deadline();
    each(waiting.request, &RequestState::unpack(waiting.state), deadline);
    Ok(())
}

fn lost() -> lsm_tree::Error {
    std::io::Error::other("a request that was put there is not there any more").into()
}

impl Unsaved {
    fn settle(&mut self, folder: &Path) -> std::io::Result<()> {
        if self.new.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            let path = folder.join("unsaved");
            let options = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
            self.file = Some(options);
        }
        let end = self.ends.last().copied().unwrap_or(0);
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(&self.new)?;
        }
        self.ends.push(end + self.new.len() as u64);
        self.new = Vec::new();
        Ok(())
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        self.buckets.clear();
        // What cannot be removed now is removed, or complained about, when the next run begins. The
        // folders above it go with the last worker.
        drop(fs::remove_dir_all(&self.folder));
        let above = self.folder.ancestors().skip(1).take(2);
        above.take_while(|folder| fs::remove_dir(folder).is_ok()).for_each(drop);
    }
}
