//! A stream of bytes as blocks of whole lines.
//!
//! Bytes are read into the block itself; only what lies behind its last line is kept back and
//! copied, once, to a later block. Line ends are counted, not visited, so the cost is that of
//! reading and of one pass of memchr.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use memchr::{memchr, memchr_iter, memrchr};

use super::files::Format;
use super::{Block, Buffer, Filled, InputOptions, OVERSIZED_HEAD_BYTES, Oversized};

/// Counts what passes through it.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The text of a file that begins with `head` and goes on in `file`.
pub(super) fn reader(
    format: Format,
    head: Vec<u8>,
    file: File,
    bytes: Arc<AtomicU64>,
) -> io::Result<Box<dyn Read + Send>> {
    let counted = Counted { inner: Cursor::new(head).chain(file), bytes };
    let packed = |counted| BufReader::with_capacity(64 << 10, counted);
    Ok(match format {
        Format::Gzip => Box::new(MultiGzDecoder::new(packed(counted))),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed(counted))?),
        Format::Plain | Format::Parquet => Box::new(counted),
    })
}

/// The lines of one stream.
pub(super) struct Lines {
    reader: Box<dyn Read + Send>,
    options: InputOptions,
    /// Bytes that were read beyond the last block; those before `kept_from` are delivered.
    kept: Vec<u8>,
    kept_from: usize,
    /// Line ends in what is kept.
    kept_lines: usize,
    /// The number of the next line.
    line: u64,
    /// Bytes of text before the next line.
    bytes: u64,
    at_end: bool,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>, options: InputOptions, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { reader, options, kept: buffer, kept_from: 0, kept_lines: 0, line: 0, bytes: 0, at_end: false }
    }

    /// Lines and bytes of text that were delivered.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.line, self.bytes)
    }

    /// The buffer, for the next file.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.kept
    }

    /// Fills an empty block. On an error the block has the lines before it.
    pub(super) fn fill(&mut self, max_lines: usize, block: &mut Block) -> io::Result<Filled> {
        block.first_line = self.line;
        if self.kept_lines >= max_lines {
            self.take_kept(max_lines, block);
            return Ok(self.deliver(block));
        }
        block.bytes.extend_from_slice(&self.kept[self.kept_from..]);
        self.kept.clear();
        self.kept_from = 0;
        let mut ends = std::mem::take(&mut self.kept_lines);
        // Past a first read, only a line longer than a block asks for more.
        while !self.at_end {
            let before = block.bytes.len();
            let target = self.options.block_bytes.saturating_sub(if ends > 0 { before } else { 0 });
            let read = self.read_into(&mut block.bytes, target);
            ends += memchr_iter(b'\n', &block.bytes[before..]).count();
            if let Err(error) = read {
                // The line that broke off is not one.
                block.bytes.truncate(memrchr(b'\n', &block.bytes).map_or(0, |end| end + 1));
                self.cut(max_lines, ends, block);
                if self.kept_lines > 0 {
                    // More lines than asked for: they come first, the error again with the last.
                    self.fail_later(error);
                    return Ok(self.deliver(block));
                }
                self.deliver(block);
                return Err(error);
            }
            let first = match (ends > 0).then(|| memchr(b'\n', &block.bytes)).flatten() {
                Some(end) => end,
                None => block.bytes.len(),
            };
            if first > self.options.line_bytes_max {
                return self.oversized(first, ends, block);
            }
            if ends > 0 {
                break;
            }
        }
        if self.at_end && block.bytes.last().is_some_and(|last| *last != b'\n') {
            block.bytes.extend_from_slice(b"\n");
            ends += 1;
        }
        self.cut(max_lines, ends, block);
        Ok(self.deliver(block))
    }

    /// Reads until `want` more bytes are there or the stream ends.
    fn read_into(&mut self, bytes: &mut Buffer, mut want: usize) -> io::Result<()> {
        while want > 0 {
            match self.reader.read(bytes.spare(want)) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(n) => {
                    bytes.grow(n);
                    want -= n.min(want);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves the first `max_lines` of the kept lines, of which there are as many, to the block,
    /// as far as they fit in.
    fn take_kept(&mut self, max_lines: usize, block: &mut Block) {
        let kept = &self.kept[self.kept_from..];
        let end = memchr_iter(b'\n', kept).nth(max_lines - 1).map_or(kept.len(), |end| end + 1);
        block.bytes.extend_from_slice(&kept[..end]);
        block.lines = max_lines;
        self.kept_from += end;
        self.kept_lines -= max_lines;
    }

    /// Leaves at most `max_lines` whole lines of the `ends` that are in the block, and keeps back
    /// what follows them.
    fn cut(&mut self, max_lines: usize, ends: usize, block: &mut Block) {
        let end = if ends > max_lines {
            memchr_iter(b'\n', &block.bytes).nth(max_lines - 1)
        } else {
            memrchr(b'\n', &block.bytes)
        };
        let end = end.map_or(0, |end| end + 1);
        self.kept.extend_from_slice(&block.bytes[end..]);
        block.bytes.truncate(end);
        block.lines = ends.min(max_lines);
        self.kept_lines = ends - block.lines;
    }

    fn deliver(&mut self, block: &Block) -> Filled {
        self.line += block.lines as u64;
        self.bytes += block.bytes.len() as u64;
        if block.lines > 0 { Filled::Some } else { Filled::End }
    }

    /// Ends the stream with `error` once what is kept is delivered.
    fn fail_later(&mut self, error: io::Error) {
        struct Failed(Option<io::Error>);
        impl Read for Failed {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0.take().map_or(Ok(0), Err)
            }
        }
        self.reader = Box::new(Failed(Some(error)));
    }

    /// The block begins with a line that is too long, of which `seen` bytes are there. Passes
    /// over the rest of it and reports it; what follows is kept.
    fn oversized(&mut self, seen: usize, ends: usize, block: &mut Block) -> io::Result<Filled> {
        let mut head = block.bytes[..seen.min(OVERSIZED_HEAD_BYTES)].to_vec();
        let mut length = seen as u64;
        if ends > 0 {
            self.kept.extend_from_slice(&block.bytes[seen + 1..]);
            self.kept_lines = ends - 1;
        }
        let mut found = ends > 0;
        while !found && !self.at_end {
            block.bytes.clear();
            if let Err(error) = self.read_into(&mut block.bytes, self.options.block_bytes) {
                // The line broke off: not a line at all.
                if memchr(b'\n', &block.bytes).is_none() {
                    block.bytes.clear();
                    return Err(error);
                }
                self.fail_later(error);
            }
            let end = memchr(b'\n', &block.bytes);
            let more = &block.bytes[..end.unwrap_or(block.bytes.len())];
            length += more.len() as u64;
            head.extend_from_slice(&more[..more.len().min(OVERSIZED_HEAD_BYTES - head.len())]);
            if let Some(end) = end {
                self.kept.extend_from_slice(&block.bytes[end + 1..]);
                self.kept_lines = memchr_iter(b'\n', &self.kept).count();
                found = true;
            }
        }
        block.bytes.clear();
        block.lines = 1;
        block.oversized.push(Oversized { line: self.line, bytes: length, head });
        self.line += 1;
        self.bytes += length + 1;
        Ok(Filled::Some)
    }
}
