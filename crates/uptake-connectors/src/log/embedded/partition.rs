//! One partition, shared by threads and processes.
//!
//! Who appends holds the partition's lock, so that there is one at a time in all processes. It
//! takes in what others appended, cuts what a crash left of a frame (nobody else is writing, so
//! nobody is just finishing it), and writes its own. Who reads holds no lock: an incomplete frame
//! at the very end is not there yet.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cursor::{Cursor, Reading, Until};
use super::segment::{self, Frames, HEADER_BYTES};
use super::state::{State, index_of};
use super::tape::write_or_cut;
use super::{Durability, Keeping, frame};
use crate::error::LogError;
use crate::faults::point;
use crate::files;
use crate::log::{Record, Result, StoredRef, check_offset};

#[derive(Debug)]
pub(super) struct Partition {
    topic: String,
    number: u32,
    directory: PathBuf,
    options: Keeping,
    /// Never held while anything is appended or waited for, so that readers do not wait either.
    state: Mutex<State>,
    /// Taken before `state`.
    writer: Mutex<Writer>,
}

/// What only the one that appends needs.
#[derive(Debug, Default)]
struct Writer {
    lock: Option<File>,
    /// The last segment, by its first offset.
    active: Option<(u64, File)>,
}

/// The partition's lock, until it is dropped.
struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // If even this is refused, the system lets go of the lock with the process.
        let _ = self.0.unlock();
    }
}

/// The last segment, fit to be appended to.
struct Ready<'a> {
    file: &'a mut File,
    /// Where the next frame goes.
    position: u64,
    /// The offset of the next record.
    first: u64,
    cut: Cut,
}

/// What opening a partition had to cut away: from which file, how many bytes.
pub(super) type Cut = Option<(PathBuf, u64)>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is known moves on only over whole frames, so what a panic left is true.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// The partition in `directory`, which is looked at when somebody asks.
    pub(super) fn new(directory: &Path, topic: &str, number: u32, options: Keeping) -> Self {
        Self {
            topic: topic.to_owned(),
            number,
            directory: directory.to_path_buf(),
            options,
            state: Mutex::new(State::new(directory)),
            writer: Mutex::default(),
        }
    }

    /// Makes the first segment if there is none, and cuts away what a crash left.
    pub(super) fn repair(&self) -> Result<Cut> {
        self.with_lock(|active| self.prepare(active).map(|ready| ready.cut))
    }

    pub(super) fn append(&self, records: &[Record], now_ms: i64) -> Result<u64> {
        if records.is_empty() {
            return self.end();
        }
        let mut frame = frame::encode(&self.topic, records, now_ms)?;
        self.with_lock(|active| {
            let Ready { mut file, mut position, first, .. } = self.prepare(active)?;
            let bytes = frame.len() as u64;
            if position > HEADER_BYTES && position + bytes > self.options.segment_bytes {
                file = self.begin_segment(active, first)?;
                position = HEADER_BYTES;
            }
            frame::seal(&mut frame, first);
            match write_or_cut(file, position, &frame, self.is_powerful()) {
                Ok(()) => {
                    locked(&self.state).wrote(position, bytes, records.len() as u64);
                    Ok(first)
                }
                Err(e) => {
                    let mut state = locked(&self.state);
                    // A reader may have taken in the frame before it was cut away.
                    state.forget_last();
                    drop(state);
                    let path = segment::path(&self.directory, active.as_ref().map_or(0, |(base, _)| *base));
                    Err(LogError::io("append to", &path, e))
                }
            }
        })
    }

    /// The first offset that is kept.
    pub(super) fn start(&self) -> Result<u64> {
        let mut state = locked(&self.state);
        state.catch_up()?;
        state.start()
    }

    /// The offset of the next record.
    pub(super) fn end(&self) -> Result<u64> {
        let mut state = locked(&self.state);
        state.catch_up()?;
        Ok(state.end)
    }

    /// As [`crate::log::Log::read_each`].
    pub(super) fn read_each(
        &self,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<u64> {
        let mut reading =
            Reading { next: from, from, records_left: max_records, bytes_left: max_bytes, is_full: false };
        self.unless_changed(|| match self.read_on(&mut reading, each) {
            // What comes next is told to the next call, which begins there.
            Err(_) if reading.next > from => Ok(()),
            outcome => outcome,
        })?;
        Ok(reading.next)
    }

    fn read_on(&self, reading: &mut Reading, each: &mut dyn FnMut(StoredRef<'_>)) -> Result<()> {
        let (_, end) = self.range_with(reading.next)?;
        while reading.next < end && reading.records_left > 0 && !reading.is_full {
            let (before, mut cursor) = (reading.next, self.cursor_at(reading.next)?);
            cursor.visit(reading, each)?;
            locked(&self.state).keep_cursor(cursor);
            if reading.next == before {
                // What was the end is not any more: an append could not be flushed.
                break;
            }
        }
        Ok(())
    }

    pub(super) fn offset_for_time(&self, ms: i64) -> Result<u64> {
        self.unless_changed(|| {
            let mut next = self.start()?;
            let (_, end) = self.range_with(next)?;
            while next < end {
                let (before, mut cursor) = (next, self.cursor_at(next)?);
                while let Some(head) = cursor.next_frame()? {
                    if head.appended_ms >= ms {
                        return Ok(head.first);
                    }
                    next = head.end();
                }
                if next == before {
                    break;
                }
            }
            Ok(end)
        })
    }

    pub(super) fn truncate_before(&self, offset: u64) -> Result<u64> {
        self.with_lock(|_| {
            let mut state = locked(&self.state);
            state.catch_up()?;
            state.start()?;
            // The last segment is written to and stays, even where all of it may go. The oldest
            // goes first, so what a crash leaves has no gap.
            while let [first, second, ..] = state.segments()
                && second.base <= offset
            {
                files::remove(&first.path)?;
                state.drop_first();
            }
            files::sync_directory(&self.directory)?;
            state.start()
        })
    }

    fn is_powerful(&self) -> bool {
        self.options.durability == Durability::Power
    }

    /// Runs `f` while no other thread or process appends; `f` gets the file that is written to.
    fn with_lock<T>(&self, f: impl FnOnce(&mut Option<(u64, File)>) -> Result<T>) -> Result<T> {
        let mut writer = locked(&self.writer);
        let Writer { lock, active } = &mut *writer;
        let path = self.directory.join(".lock");
        let file = match lock {
            Some(file) => &*file,
            None => &*lock.insert(files::lock_file(&path)?),
        };
        file.lock().map_err(|e| LogError::io("lock", &path, e))?;
        let _held = Held(file);
        f(active)
    }

    /// Under the lock: takes in what others did, and makes the last segment fit to be appended
    /// to.
    fn prepare<'a>(&self, active: &'a mut Option<(u64, File)>) -> Result<Ready<'a>> {
        let mut state = locked(&self.state);
        state.catch_up()?;
        let Some(last) = state.segments().last() else {
            drop(state);
            let file = self.begin_segment(active, 0)?;
            return Ok(Ready { file, position: HEADER_BYTES, first: 0, cut: None });
        };
        let (base, path) = (last.base, last.path.clone());
        let opened = match active.take().filter(|(of, _)| *of == base) {
            Some(opened) => opened,
            None => {
                let file = File::options().read(true).write(true).open(&path);
                (base, file.map_err(|e| LogError::io("open", &path, e))?)
            }
        };
        let file = &mut active.insert(opened).1;
        if state.whole_bytes >= HEADER_BYTES && state.torn_bytes() == 0 {
            return Ok(Ready { file, position: state.whole_bytes, first: state.end, cut: None });
        }
        // A reader of this process may have met these bytes while they were being written. Under
        // the lock they are what they are.
        state.forget_last();
        state.catch_up()?;
        let (whole, torn) = (state.whole_bytes, state.torn_bytes());
        let mut repair = || {
            point("about to repair a segment");
            file.set_len(whole)?;
            point("torn frame cut");
            if whole < HEADER_BYTES {
                // The process ended while it began this segment.
                return segment::write_header(file, base, true);
            }
            file.sync_all()?;
            point("segment flushed");
            Ok(())
        };
        repair().map_err(|e| LogError::io("repair", &path, e))?;
        let position = whole.max(HEADER_BYTES);
        state.cut(position);
        Ok(Ready { file, position, first: state.end, cut: (torn > 0).then_some((path, torn)) })
    }

    /// Under the lock: begins the segment of offset `base`.
    fn begin_segment<'a>(&self, active: &'a mut Option<(u64, File)>, base: u64) -> Result<&'a mut File> {
        if let Some((of, file)) = active {
            // From here on nobody writes to the old segment, so it is safe for good.
            file.sync_all().map_err(|e| LogError::io("flush", &segment::path(&self.directory, *of), e))?;
            point("full segment flushed");
        }
        let file = segment::create(&self.directory, base, self.is_powerful())?;
        let mut state = locked(&self.state);
        // A reader of this process may have found it already.
        if state.segments().last().is_none_or(|last| last.base != base) {
            state.begin(base, HEADER_BYTES);
        } else {
            state.cut(HEADER_BYTES);
        }
        Ok(&mut active.insert((base, file)).1)
    }

    /// Start and end, which `offset` lies between.
    fn range_with(&self, offset: u64) -> Result<(u64, u64)> {
        let mut state = locked(&self.state);
        state.catch_up()?;
        let (start, end) = (state.start()?, state.end);
        check_offset(&self.topic, self.number, offset, start, end)?;
        Ok((start, end))
    }

    /// A cursor at the record of `offset`, or at an earlier one of the same segment.
    fn cursor_at(&self, offset: u64) -> Result<Cursor> {
        let mut state = locked(&self.state);
        let after = state.segments().partition_point(|segment| segment.base <= offset);
        let Some(segment) = after.checked_sub(1).and_then(|place| state.segments().get(place)) else {
            let (start, end) = (state.start()?, state.end);
            check_offset(&self.topic, self.number, offset, start, end)?;
            return Err(LogError::io("find", &self.directory, io::ErrorKind::NotFound.into()));
        };
        let (base, path) = (segment.base, segment.path.clone());
        let until = match state.segments().get(after) {
            Some(next) => Until::Offset(next.base),
            None => Until::Bytes(state.whole_bytes),
        };
        let find = |index: &super::state::Index| {
            let after = index.partition_point(|(first, _)| *first <= offset);
            index[..after].last().copied().unwrap_or((base, HEADER_BYTES))
        };
        let known = match &segment.index {
            _ if offset == base => Some((base, HEADER_BYTES)),
            Some(index) => Some(find(index)),
            None => None,
        };
        if let Some(mut cursor) = state.take_cursor(base, offset) {
            cursor.read_until(until)?;
            return Ok(cursor);
        }
        // Others need not wait while a whole segment is read.
        drop(state);
        let (first, position) = match known {
            Some(known) => known,
            None => {
                let index = index_of(Frames::open_whole(&path, base)?)?;
                let found = find(&index);
                locked(&self.state).keep_index(base, index);
                found
            }
        };
        Cursor::new(Frames::open(&path, base, position, first, 0)?, until)
    }

    /// Runs `f`, and if it meets damage or a missing file looks at the files again: were they
    /// dropped or begun meanwhile, it is run once more.
    fn unless_changed<T>(&self, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        match f() {
            Err(error) if is_suspect(&error) => {
                // What is wrong there is told by the error at hand.
                let changed = locked(&self.state).look_again().unwrap_or(false);
                if changed { f() } else { Err(error) }
            }
            outcome => outcome,
        }
    }
}

fn is_suspect(error: &LogError) -> bool {
    match error {
        LogError::Corrupt { .. } => true,
        LogError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
