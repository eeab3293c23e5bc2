//! Event files: lines of JSON, plain or compressed, and Parquet, as blocks of whole lines.
//!
//! Files are read in the order they were named, folders in the order of their names. What a file
//! is shows in its first bytes, not in its name. Every line is delivered exactly once, with its
//! number, or passed over because an earlier run read it; a line is never split, and one that is
//! too long is reported and passed over without ever being in memory whole.

mod files;
mod lines;
mod parquet;
mod skip;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::InputError;
use files::{Format, Listed};
use lines::Lines;
use parquet::Rows;
pub use skip::LinesRead;
use skip::{Skips, Turn};

/// How event files are cut into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputOptions {
    /// About how many bytes a block has. A single longer line makes a longer block.
    pub block_bytes: usize,
    /// The longest line (without its end) that is delivered, in bytes.
    pub line_bytes_max: usize,
}

impl Default for InputOptions {
    /// Blocks of 256 KiB, which stay in a core's cache from the read to the decoder; lines of up
    /// to 16 MiB.
    fn default() -> Self {
        Self { block_bytes: 256 << 10, line_bytes_max: 16 << 20 }
    }
}

/// How much of an oversized line is kept, in bytes.
pub const OVERSIZED_HEAD_BYTES: usize = 64 << 10;

/// Bytes that grow and shrink over memory that stays initialised: reading into a `Vec` again and
/// again would zero it each time first.
#[derive(Clone, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Adds bytes at its end.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Room for `n` more bytes; [`Buffer::grow`] says how many were written.
    pub(crate) fn spare(&mut self, n: usize) -> &mut [u8] {
        let end = self.len + n;
        if end > self.memory.len() {
            self.memory.resize(end.max(self.memory.len() * 3 / 2), 0);
        }
        &mut self.memory[self.len..end]
    }

    pub(crate) fn grow(&mut self, n: usize) {
        self.len = (self.len + n).min(self.memory.len());
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// Whole lines of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The lines, each ended by `\n` (added where the file's last line has none).
    pub bytes: Buffer,
    /// How many lines: those in `bytes`, or 1 for an oversized one.
    pub lines: usize,
    /// The file.
    pub file: Arc<str>,
    /// Its place in [`EventFiles::files`].
    pub file_index: usize,
    /// The number of the block's first line in the file, from 0.
    pub first_line: u64,
    /// A line that was too long to deliver. A block with one has nothing else, so that the line
    /// numbers of all other blocks are consecutive.
    pub oversized: Vec<Oversized>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            bytes: Buffer::default(),
            lines: 0,
            file: "".into(),
            file_index: 0,
            first_line: 0,
            oversized: Vec::new(),
        }
    }
}

impl Block {
    fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
        self.oversized.clear();
    }
}

/// A line longer than [`InputOptions::line_bytes_max`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Oversized {
    /// The number of the line in the file, from 0.
    pub line: u64,
    /// Its length in bytes, without its end.
    pub bytes: u64,
    /// Its first [`OVERSIZED_HEAD_BYTES`] bytes.
    pub head: Vec<u8>,
}

/// Event files, read one after the other.
///
/// ```
/// use uptake_connectors::input::{Block, EventFiles, InputOptions};
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.jsonl"), "{}\n{}")?;
/// let mut files = EventFiles::open(&[folder.path().into()], InputOptions::default())?;
/// let (mut block, mut lines) = (Block::default(), 0);
/// while files.next_block(10_000, &mut block)? {
///     lines += block.lines;
/// }
/// assert_eq!(lines, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventFiles {
    options: InputOptions,
    files: Vec<Listed>,
    skipped: Vec<PathBuf>,
    /// The next of `files` to open.
    next: usize,
    current: Option<Current>,
    skips: Skips,
    /// An error met after lines of the same block, to be told next.
    failed: Option<InputError>,
    total_bytes: u64,
    /// Bytes of the files that are finished.
    finished_bytes: u64,
    /// Bytes read of the current one; its reader adds to it.
    current_bytes: Arc<AtomicU64>,
    recycled: VecDeque<Vec<u8>>,
}

struct Current {
    path: Arc<str>,
    index: usize,
    bytes: u64,
    source: Source,
}

impl Current {
    /// Says in the block which file its lines are of.
    fn mark(&self, block: &mut Block) {
        block.file = self.path.clone();
        block.file_index = self.index;
    }
}

enum Source {
    Lines(Lines),
    Rows(Box<Rows>),
}

impl Source {
    /// Lines and bytes of text that were delivered or passed over.
    fn position(&self) -> (u64, u64) {
        match self {
            Self::Lines(lines) => lines.position(),
            Self::Rows(rows) => rows.position(),
        }
    }

    fn fill(&mut self, max_lines: usize, block: &mut Block) -> std::io::Result<Filled> {
        match self {
            Self::Lines(lines) => lines.fill(max_lines, block),
            Self::Rows(rows) => rows.fill(max_lines, block),
        }
    }
}

/// What a source could put into a block.
enum Filled {
    /// At least one line.
    Some,
    /// Nothing more in this file.
    End,
}

impl EventFiles {
    /// Finds the files behind `paths`: each path that is a file, whatever its name; in each
    /// folder and its sub-folders those ending in `.jsonl`, `.ndjson`, `.json` or `.parquet`,
    /// also with `.gz`, `.zst` or `.zstd` behind, in the order of their paths (bytewise). Hidden
    /// files of a folder are passed over.
    ///
    /// # Errors
    /// No path at all; or, all at once: a path that is missing or cannot be read, a folder
    /// without an event file.
    pub fn open(paths: &[PathBuf], options: InputOptions) -> Result<Self, InputError> {
        let options = InputOptions {
            // A block of at most the longest line: so a line that is too long never hides inside.
            block_bytes: options.block_bytes.clamp(1, options.line_bytes_max.max(1)),
            line_bytes_max: options.line_bytes_max.max(1),
        };
        let (files, skipped) = files::find(paths)?;
        let total_bytes = files.iter().map(|file| file.bytes).sum();
        Ok(Self {
            options,
            files,
            skipped,
            next: 0,
            current: None,
            skips: Skips::default(),
            failed: None,
            total_bytes,
            finished_bytes: 0,
            current_bytes: Arc::new(AtomicU64::new(0)),
            recycled: VecDeque::new(),
        })
    }

    /// The files, in the order they are read.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Passes over lines that were read before; the blocks of an earlier run say which. They may
    /// come in any order, repeat and overlap. Their files are read through, so damage in them is
    /// an error all the same. To be called before the first block: what was delivered was
    /// delivered.
    ///
    /// ```
    /// use uptake_connectors::input::{Block, EventFiles, InputOptions, LinesRead};
    /// # let folder = tempfile::tempdir()?;
    /// # std::fs::write(folder.path().join("a.jsonl"), "0\n1\n2\n")?;
    /// let mut files = EventFiles::open(&[folder.path().into()], InputOptions::default())?;
    /// files.skip(vec![LinesRead { file_index: 0, first_line: 1, lines: 1 }]);
    /// let (mut block, mut lines) = (Block::default(), Vec::new());
    /// while files.next_block(10_000, &mut block)? {
    ///     lines.push((block.first_line, block.bytes.to_vec()));
    /// }
    /// assert_eq!(lines, [(0, b"0\n".to_vec()), (2, b"2\n".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn skip(&mut self, read: Vec<LinesRead>) {
        self.skips.add(read);
    }

    /// Passes over everything before a line of a file: the files before it, which are not even
    /// opened, and its lines with lower numbers. To be called before the first block.
    pub fn skip_before(&mut self, file_index: usize, line: u64) {
        self.skips.add_files_before(file_index);
        self.skips.add([LinesRead { file_index, first_line: 0, lines: line }]);
    }

    /// What lies in the named folders and is not read, by path: other names, hidden files,
    /// links to folders.
    pub fn skipped(&self) -> &[PathBuf] {
        &self.skipped
    }

    /// The sizes of all files, as they are stored (compressed), in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How much of [`EventFiles::total_bytes`] has been read. Costs nothing.
    pub fn bytes_done(&self) -> u64 {
        self.finished_bytes + self.current_bytes.load(Ordering::Relaxed)
    }

    /// Fills `block` with the next lines of one file: at most `max_lines` (at least 1) and about
    /// [`InputOptions::block_bytes`]. Returns false at the end of the last file, with an empty
    /// block. The block's buffer is used again, so reuse the block.
    ///
    /// # Errors
    /// A file broke off or is damaged. All lines before were delivered; calling again goes on
    /// with the next file.
    pub fn next_block(&mut self, max_lines: usize, block: &mut Block) -> Result<bool, InputError> {
        let max_lines = max_lines.max(1);
        block.clear();
        if let Some(error) = self.failed.take() {
            self.finish_file();
            return Err(error);
        }
        loop {
            let Some(current) = &mut self.current else {
                if !self.open_next()? {
                    return Ok(false);
                }
                continue;
            };
            let turn = self.skips.turn(current.index, current.source.position().0);
            let (wanted, passes_over) = match turn {
                Turn::PassOver(lines) => (lines, true),
                Turn::Deliver(lines) => (lines.min(max_lines as u64), false),
            };
            let filled = current.source.fill(usize::try_from(wanted).unwrap_or(usize::MAX), block);
            if passes_over {
                block.clear();
            }
            match filled {
                Ok(Filled::Some) if passes_over => {}
                Ok(Filled::Some) => {
                    current.mark(block);
                    return Ok(true);
                }
                Ok(Filled::End) => self.finish_file(),
                Err(source) => {
                    let (lines, bytes) = current.source.position();
                    let path = current.path.to_string();
                    let error = InputError::Read { path, lines, bytes, source };
                    if block.lines > 0 {
                        current.mark(block);
                        self.failed = Some(error);
                        return Ok(true);
                    }
                    self.finish_file();
                    return Err(error);
                }
            }
        }
    }

    /// As [`EventFiles::next_block`], but goes on with the next file where one broke off or is damaged, and puts why
    /// into `errors`.
    pub fn next_readable_block(
        &mut self,
        max_lines: usize,
        block: &mut Block,
        errors: &mut Vec<InputError>,
    ) -> bool {
        loop {
            match self.next_block(max_lines, block) {
                Ok(more) => return more,
                Err(error) => errors.push(error),
            }
        }
    }

    fn open_next(&mut self) -> Result<bool, InputError> {
        let (index, listed) = loop {
            let index = self.next;
            let Some(listed) = self.files.get(index) else { return Ok(false) };
            self.next += 1;
            if !self.skips.has_file(index) {
                break (index, listed);
            }
            self.finished_bytes += listed.bytes;
        };
        let path: Arc<str> = listed.path.to_string_lossy().into();
        let source = open_source(listed, &path, self.options, &self.current_bytes, self.recycled.pop_front());
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                self.finished_bytes += listed.bytes;
                return Err(error);
            }
        };
        self.current = Some(Current { path, index, bytes: listed.bytes, source });
        Ok(true)
    }

    fn finish_file(&mut self) {
        if let Some(current) = self.current.take() {
            self.finished_bytes += current.bytes;
            // What was counted of this file is in `finished_bytes` now.
            self.current_bytes.store(0, Ordering::Relaxed);
            if let Source::Lines(lines) = current.source {
                self.recycled.push_back(lines.into_buffer());
            }
        }
    }
}

fn open_source(
    listed: &Listed,
    path: &Arc<str>,
    options: InputOptions,
    bytes_read: &Arc<AtomicU64>,
    buffer: Option<Vec<u8>>,
) -> Result<Source, InputError> {
    let failed = |source| InputError::Read { path: path.to_string(), lines: 0, bytes: 0, source };
    let file = File::open(&listed.path).map_err(failed)?;
    let (format, head, file) = files::format(file).map_err(failed)?;
    if format == Format::Parquet {
        return Ok(Source::Rows(Box::new(Rows::open(file, path, listed.bytes, options, bytes_read)?)));
    }
    let reader = lines::reader(format, head, file, bytes_read.clone()).map_err(failed)?;
    Ok(Source::Lines(Lines::new(reader, options, buffer.unwrap_or_default())))
}
