//! A segment: the file `FIRST-OFFSET.log`, a 24-byte header (magic, version, first offset) and
//! frames.
//!
//! Only the last segment of a partition is written to. What lies before the end of its last
//! whole frame is never changed, so it can be read while others append.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::frame::{self, Head};
use crate::error::LogError;
use crate::faults::point;
use crate::files;
use crate::log::Result;

const MAGIC: [u8; 8] = *b"uptkslog";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: u64 = 24;

/// How much is read at once: stays in a core's cache from the checksum to the visitor.
const CHUNK_BYTES: usize = 256 << 10;

/// The file of the segment that begins with offset `base`.
pub(super) fn path(directory: &Path, base: u64) -> PathBuf {
    directory.join(format!("{base:020}.log"))
}

/// The first offsets of the segments in `directory`, in order.
pub(super) fn bases(directory: &Path) -> Result<Vec<u64>> {
    let base = |path: &PathBuf| files::file_name(path).strip_suffix(".log")?.parse().ok();
    let mut bases: Vec<u64> = files::list(directory)?.iter().filter_map(base).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Makes an empty segment. A file that is there already is left as it is.
pub(super) fn create(directory: &Path, base: u64, power: bool) -> Result<File> {
    let path = path(directory, base);
    let create = || {
        point("about to create a segment");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        point("segment created");
        if let Err(e) = write_header(&mut file, base, power) {
            // Best effort: what stays is a segment without a header, which an append repairs.
            let _ = std::fs::remove_file(&path);
            return Err(e);
        }
        Ok(file)
    };
    let file = create().map_err(|e| LogError::io("create", &path, e))?;
    files::sync_directory(directory)?;
    Ok(file)
}

/// Writes the header of a segment that has nothing else.
pub(super) fn write_header(file: &mut File, base: u64, power: bool) -> io::Result<()> {
    file.rewind()?;
    file.write_all(&header(base))?;
    point("segment's header written");
    if power {
        file.sync_all()?;
        point("segment's header flushed");
    }
    Ok(())
}

fn header(base: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..].copy_from_slice(&base.to_le_bytes());
    header
}

fn check_header(found: &[u8; HEADER_BYTES as usize], base: u64) -> std::result::Result<(), String> {
    if found[..8] != MAGIC {
        return Err("it is not a segment of uptake's log".to_owned());
    }
    if found[8..12] != VERSION.to_le_bytes() {
        let version = found[8..12].first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        return Err(format!("it has format {version}, this program reads {VERSION}"));
    }
    if *found != header(base) {
        return Err("its name and its header name different offsets".to_owned());
    }
    Ok(())
}

/// Reads a segment's frames one after the other.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) base: u64,
    path: PathBuf,
    file: File,
    /// Where the next frame begins in the file.
    pub(super) position: u64,
    /// Up to where the file is read, in bytes.
    limit: u64,
    /// The offset that the next frame must begin with.
    pub(super) expected: u64,
    memory: Vec<u8>,
    /// What was read of the file from `position` on.
    ahead: Range<usize>,
    /// The records of the last frame.
    records: Range<usize>,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole frame, whose records are [`Frames::records`] now.
    Frame(Head),
    /// Nothing before the limit.
    End,
    /// No whole frame, and why.
    Bad(&'static str),
}

impl Frames {
    /// Opens a segment to read the frames from `position` on, of which the first one has the
    /// offset `expected`, up to `limit` bytes of the file.
    pub(super) fn open(path: &Path, base: u64, position: u64, expected: u64, limit: u64) -> Result<Self> {
        let open = || {
            let mut file = File::open(path)?;
            let mut header = [0; HEADER_BYTES as usize];
            file.read_exact(&mut header)?;
            file.seek(SeekFrom::Start(position))?;
            Ok((file, header))
        };
        let (file, header) = open().map_err(|e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(path, 0, "its header is cut off"),
            _ => LogError::io("read", path, e),
        })?;
        check_header(&header, base).map_err(|what| damaged(path, 0, what))?;
        Ok(Self {
            base,
            path: path.to_path_buf(),
            file,
            position,
            limit,
            expected,
            memory: Vec::new(),
            ahead: 0..0,
            records: 0..0,
        })
    }

    /// Opens a segment from its first frame to the end of the file.
    pub(super) fn open_whole(path: &Path, base: u64) -> Result<Self> {
        let mut frames = Self::open(path, base, HEADER_BYTES, base, 0)?;
        frames.limit = frames.file_bytes()?;
        Ok(frames)
    }

    /// Reads on up to another limit, which is not below the present one.
    pub(super) fn read_up_to(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// How long the file is.
    pub(super) fn file_bytes(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|e| LogError::io("read", &self.path, e))?.len())
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Result<Step> {
        if self.position >= self.limit {
            return Ok(Step::End);
        }
        if !self.fill(frame::PREFIX_BYTES)? {
            return Ok(Step::Bad("a frame is cut off"));
        }
        let Some(bytes) = frame::total_bytes(&self.memory[self.ahead.clone()]) else {
            return Ok(Step::Bad("a frame has an impossible length"));
        };
        if !self.fill(bytes)? {
            return Ok(Step::Bad("a frame is cut off"));
        }
        let start = self.ahead.start;
        let Some(head) = frame::check(&self.memory[start..start + bytes]) else {
            return Ok(Step::Bad("a frame's checksum does not fit its bytes"));
        };
        if head.first != self.expected {
            return Ok(Step::Bad("a frame has another offset than comes next"));
        }
        self.records = start + frame::RECORDS_AT..start + bytes;
        self.ahead.start += bytes;
        self.position += bytes as u64;
        self.expected = head.end();
        Ok(Step::Frame(head))
    }

    /// The records of the last frame.
    pub(super) fn records(&self) -> &[u8] {
        &self.memory[self.records.clone()]
    }

    /// How much memory is held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Whether a whole frame begins behind `position`, where none does.
    pub(super) fn whole_frame_follows(&mut self) -> Result<bool> {
        let rest = usize::try_from(self.limit.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let whole = self.fill(rest)?;
        Ok(whole && frame::follows(&self.memory[self.ahead.clone()], self.expected))
    }

    /// An error about the frame at `position`.
    pub(super) fn damaged(&self, what: impl Into<String>) -> LogError {
        damaged(&self.path, self.position, what)
    }

    /// Reads until `bytes` are ahead; false if the limit or the file's end comes first.
    fn fill(&mut self, bytes: usize) -> Result<bool> {
        if self.ahead.len() >= bytes {
            return Ok(true);
        }
        let room = self.limit.saturating_sub(self.position);
        if bytes as u64 > room {
            return Ok(false);
        }
        let (start, end) = (self.ahead.start, self.ahead.end);
        self.memory.copy_within(start..end, 0);
        self.ahead = 0..end - start;
        let most = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK_BYTES).max(bytes);
        if self.memory.len() < most {
            self.memory.resize(most, 0);
        }
        while self.ahead.end < bytes {
            match self.file.read(&mut self.memory[self.ahead.end..most]) {
                Ok(0) => return Ok(false),
                Ok(n) => self.ahead.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LogError::io("read", &self.path, e)),
            }
        }
        Ok(true)
    }
}

fn damaged(path: &Path, position: u64, what: impl Into<String>) -> LogError {
    LogError::Corrupt { path: path.to_path_buf(), position, what: what.into() }
}
