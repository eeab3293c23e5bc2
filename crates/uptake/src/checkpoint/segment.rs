//! A segment: what one worker adds to a checkpoint, as one object.
//!
//! ```text
//! "uptkckpt" | version u32 | 0 u32
//! sections, one behind the other
//! index: count u32, then per section:
//!     kind u8 | form u8 | shard u16 | offset u64 | length u64 | plain length u64 | crc32c u32
//! index offset u64 | index length u64 | crc32c of index and both numbers u32 | "uptkckpt"
//! ```
//!
//! All numbers are little-endian; the form is 0 for plain bytes, 1 for zstd. A section belongs to
//! one virtual shard. Every byte that is used is under a checksum. Two earlier versions are read as well: 2 looks the
//! same, but what version 3 has of states and of counted events means nothing to its programs; 1 has
//! neither form nor plain length, its sections are plain.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::CheckpointError;

const MAGIC: [u8; 8] = *b"uptkckpt";
/// The version that is written.
const VERSION: u32 = 3;
/// The oldest that is still read.
const OLDEST: u32 = 1;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 1 + 1 + 2 + 8 + 8 + 8 + 4;
const ENTRY_BYTES_BEFORE: usize = 1 + 2 + 8 + 8 + 4;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The fastest level that is not one of haste: what is written is read seldom.
const ZSTD_LEVEL: i32 = 1;
/// Below this size compressing gains less than it costs.
const COMPRESS_FROM: usize = 512;
/// A section of which more than so many hundredths are left is a sign that the others of its kind are not worth it:
/// request ids and varints become a sixth smaller, and that takes a twentieth of all that a replay takes.
const WORTH_PERCENT: usize = 75;
/// The largest section that is believed, so that damaged numbers ask for no endless memory.
const SECTION_BYTES_MAX: usize = 1 << 32;
const TRAILER_BYTES: usize = 8 + 8 + 4 + 8;

/// What a section holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SectionKind {
    /// The videos and contexts that the request states of this segment refer to.
    JoinNames = 1,
    /// Request states: for each its request id, its deadline, and its events.
    Requests = 2,
    /// Counting events by member and epoch.
    Members = 3,
    /// The names of videos.
    Names = 4,
    /// Tallies: for each its key and its sets.
    Tallies = 5,
    /// Events counted since the checkpoint before, as versions 1 and 2 have them.
    CountedBefore = 6,
    /// The values of dimensions, which every worker needs.
    Dimensions = 7,
    /// Who was behind plays since the checkpoint before.
    Behind = 8,
    /// Events counted since the checkpoint before.
    Counted = 9,
}

impl SectionKind {
    const ALL: [Self; 9] = [
        Self::JoinNames,
        Self::Requests,
        Self::Members,
        Self::Names,
        Self::Tallies,
        Self::CountedBefore,
        Self::Dimensions,
        Self::Behind,
        Self::Counted,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The sections of a segment, by kind and shard; what is about all shards stands under shard 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sections(BTreeMap<(SectionKind, u16), Vec<u8>>);

impl Sections {
    /// The bytes of a section, to be added to.
    pub fn section(&mut self, kind: SectionKind, shard: u32) -> &mut Vec<u8> {
        self.0.entry((kind, shard as u16)).or_default()
    }

    /// Takes the bytes of all shards of a kind, gathered in the order of the shards.
    pub fn put_shards(&mut self, kind: SectionKind, shards: Vec<Vec<u8>>) {
        for (shard, bytes) in (0..).zip(shards).filter(|(_, bytes)| !bytes.is_empty()) {
            self.0.insert((kind, shard), bytes);
        }
    }

    /// Takes the sections of another stage.
    pub fn absorb(&mut self, other: Self) {
        for (key, bytes) in other.0 {
            match self.0.entry(key) {
                Entry::Vacant(vacant) => drop(vacant.insert(bytes)),
                Entry::Occupied(mut there) => {
                    debug_assert_ne!(key.0, SectionKind::Counted, "its slots would mean something else");
                    there.get_mut().extend_from_slice(&bytes);
                }
            }
        }
    }

    /// How many bytes there are in all.
    pub fn bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The segment's bytes. A section is let go of as soon as it is in them.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + self.0.len() * ENTRY_BYTES + 64);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        let mut index = Vec::with_capacity(4 + self.0.len() * ENTRY_BYTES);
        let is_used = |bytes: &Vec<u8>| !bytes.is_empty();
        index.extend_from_slice(
            &(self.0.values().filter(|bytes| is_used(bytes)).count() as u32).to_le_bytes(),
        );
        let mut compressor = Compressor::default();
        for ((kind, shard), bytes) in self.0.into_iter().filter(|(_, bytes)| is_used(bytes)) {
            let compressed = compressor.compress(kind, &bytes);
            let form = if compressed.is_some() { ZSTD } else { PLAIN };
            let stored = compressed.unwrap_or(&bytes);
            index.extend_from_slice(&[kind as u8, form]);
            index.extend_from_slice(&shard.to_le_bytes());
            index.extend_from_slice(&(out.len() as u64).to_le_bytes());
            index.extend_from_slice(&(stored.len() as u64).to_le_bytes());
            index.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            index.extend_from_slice(&crc32c::crc32c(stored).to_le_bytes());
            out.extend_from_slice(stored);
        }
        let (offset, length) = (out.len() as u64, index.len() as u64);
        index.extend_from_slice(&offset.to_le_bytes());
        index.extend_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&index);
        out.extend_from_slice(&index);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }
}

/// Compresses one section after another with the same tables and into the same bytes: there are hundreds of
/// them, and beginning anew costs as much as compressing one.
#[derive(Default)]
struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
    /// The kind whose sections are not worth it. They come kind by kind.
    not_worth: Option<SectionKind>,
}

impl Compressor {
    /// `None` where plain bytes are better.
    fn compress(&mut self, kind: SectionKind, bytes: &[u8]) -> Option<&[u8]> {
        if bytes.len() < COMPRESS_FROM || self.not_worth == Some(kind) {
            return None;
        }
        // Compressing in memory cannot fail; if it ever does, plain bytes are as good.
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let length = self.zstd.as_mut()?.compress_to_buffer(bytes, &mut self.out).ok()?;
        if length > bytes.len() / 100 * WORTH_PERCENT {
            self.not_worth = Some(kind);
        }
        (length < bytes.len()).then_some(&self.out)
    }
}

/// A segment as it was read. Its sections stay compressed until they are asked for: all together
/// are as large as the state.
#[derive(Debug)]
pub struct Segment {
    name: String,
    body: Body,
    index: BTreeMap<(SectionKind, u16), Stored>,
}

/// Where the bytes of a segment are.
#[derive(Debug)]
enum Body {
    Memory(Vec<u8>),
    /// A file that has no name any more, so that nobody has to delete it.
    File(Mutex<File>),
}

/// A section as it stands in a segment.
#[derive(Clone, Copy, Debug)]
struct Stored {
    start: usize,
    bytes: usize,
    plain_bytes: usize,
    form: u8,
}

impl Segment {
    /// Reads a segment and checks all of it.
    ///
    /// # Errors
    /// It is damaged, or of a version that this program does not know.
    pub fn decode(name: &str, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let index = read_index(&bytes).map_err(|what| CheckpointError::damaged(name, what))?;
        Ok(Self { name: name.to_owned(), body: Body::Memory(bytes), index })
    }

    /// The same with its bytes in a file in `folder` instead of in memory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn spooled_to(self, folder: &Path) -> Result<Self, CheckpointError> {
        let Body::Memory(bytes) = &self.body else { return Ok(self) };
        let spool = || {
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::tempfile_in(folder)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        let file = spool().map_err(|source| CheckpointError::Spool { folder: folder.to_owned(), source })?;
        Ok(Self { body: Body::File(Mutex::new(file)), ..self })
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is something in a section.
    pub fn has(&self, kind: SectionKind, shard: u32) -> bool {
        self.index.contains_key(&(kind, shard as u16))
    }

    /// The bytes of a section; empty where there is none.
    ///
    /// # Errors
    /// They cannot be read again, or not be decompressed.
    pub fn section(&self, kind: SectionKind, shard: u32) -> Result<Vec<u8>, CheckpointError> {
        let Some(&stored) = self.index.get(&(kind, shard as u16)) else { return Ok(Vec::new()) };
        match &self.body {
            Body::Memory(bytes) => self.plain(stored, &bytes[stored.start..stored.start + stored.bytes]),
            Body::File(file) => {
                let mut bytes = vec![0; stored.bytes];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(stored.start as u64))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|error| self.damaged(format!("its copy on disk cannot be read: {error}")))?;
                self.plain(stored, &bytes)
            }
        }
    }

    fn plain(&self, stored: Stored, bytes: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        match stored.form {
            PLAIN => Ok(bytes.to_vec()),
            _ => {
                let plain = zstd::bulk::decompress(bytes, stored.plain_bytes)
                    .map_err(|error| self.damaged(error.to_string()))?;
                (plain.len() == stored.plain_bytes)
                    .then_some(plain)
                    .ok_or_else(|| self.damaged("a section has another length than it says"))
            }
        }
    }

    /// An error about this segment.
    pub fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(&self.name, what)
    }
}

fn read_index(bytes: &[u8]) -> Result<BTreeMap<(SectionKind, u16), Stored>, String> {
    let head = bytes.get(..HEADER_BYTES).ok_or("it is shorter than a header")?;
    if head[..8] != MAGIC {
        return Err("it is no segment of a checkpoint".to_owned());
    }
    let entry_bytes = match u32_at(bytes, 8) {
        Some(OLDEST) => ENTRY_BYTES_BEFORE,
        Some(OLDEST..=VERSION) => ENTRY_BYTES,
        other => {
            let version = other.unwrap_or(0);
            return Err(format!("it has format {version}, this program reads {OLDEST} to {VERSION}"));
        }
    };
    let torn = "it breaks off before its end";
    let trailer = bytes.len().checked_sub(TRAILER_BYTES).filter(|&at| at >= HEADER_BYTES).ok_or(torn)?;
    if bytes[bytes.len() - 8..] != MAGIC {
        return Err(torn.to_owned());
    }
    let number = |at| u64_at(bytes, at).and_then(|n| usize::try_from(n).ok());
    let (offset, length) = number(trailer).zip(number(trailer + 8)).ok_or(torn)?;
    let whole = bytes.get(offset..trailer + 16).filter(|_| offset.checked_add(length) == Some(trailer));
    let whole = whole.ok_or("its index lies elsewhere than it says")?;
    if u32_at(bytes, trailer + 16) != Some(crc32c::crc32c(whole)) {
        return Err("the checksum of its index does not fit".to_owned());
    }
    let count = u32_at(bytes, offset).unwrap_or(0) as usize;
    if Some(length) != count.checked_mul(entry_bytes).and_then(|n| n.checked_add(4)) {
        return Err("its index has another length than it says".to_owned());
    }
    let mut sections = BTreeMap::new();
    for entry in bytes[offset + 4..trailer].chunks_exact(entry_bytes) {
        // A section that a later program added says something that this one does not need.
        let Some(kind) = SectionKind::of(entry[0]) else { continue };
        let (form, rest) =
            if entry_bytes == ENTRY_BYTES { (entry[1], &entry[2..]) } else { (PLAIN, &entry[1..]) };
        let shard = u16::from_le_bytes([rest[0], rest[1]]);
        let number = |at| u64_at(rest, at).and_then(|n| usize::try_from(n).ok());
        let (start, length) = number(2).zip(number(10)).ok_or(torn)?;
        let stored = start.checked_add(length).and_then(|end| bytes.get(start..end));
        let stored = stored.ok_or("a section lies outside of it")?;
        if u32_at(rest, rest.len() - 4) != Some(crc32c::crc32c(stored)) {
            return Err(format!("the checksum of section {kind:?} of shard {shard} does not fit"));
        }
        let plain_bytes = match form {
            PLAIN => length,
            ZSTD => number(18).filter(|&n| n <= SECTION_BYTES_MAX).ok_or("a section is too large")?,
            _ => return Err(format!("section {kind:?} has a form that this program does not know")),
        };
        sections.insert((kind, shard), Stored { start, bytes: length, plain_bytes, form });
    }
    Ok(sections)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sections(of: &[(u8, u32, Vec<u8>)]) -> Sections {
        let mut sections = Sections::default();
        for (kind, shard, bytes) in of {
            let kind = SectionKind::ALL[*kind as usize % SectionKind::ALL.len()];
            sections.section(kind, *shard).extend_from_slice(bytes);
        }
        sections
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_any_changed_byte_is_noticed(
            of in prop::collection::vec((0u8..9, 0u32..256, prop_oneof![prop::collection::vec(any::<u8>(), 1..60), prop::collection::vec(0u8..4, 1..1500)]), 0..12),
            place in any::<prop::sample::Index>(), flip in 1u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let written = sections(&of);
            let bytes = written.clone().encode();
            let folder = tempfile::tempdir().unwrap();
            let read = Segment::decode("s", bytes.clone()).unwrap();
            let spooled = Segment::decode("s", bytes.clone()).unwrap().spooled_to(folder.path()).unwrap();
            for kind in SectionKind::ALL {
                for shard in 0..256 {
                    let expected = written.0.get(&(kind, shard as u16)).map_or(&[][..], Vec::as_slice);
                    prop_assert_eq!(read.section(kind, shard).unwrap(), expected);
                    prop_assert_eq!(spooled.section(kind, shard).unwrap(), expected);
                    prop_assert_eq!(read.has(kind, shard), !expected.is_empty());
                }
            }
            let mut torn = bytes.clone();
            torn.truncate(cut.index(bytes.len()));
            prop_assert!(Segment::decode("s", torn).is_err());
            let mut changed = bytes.clone();
            let at = place.index(bytes.len());
            changed[at] ^= flip;
            // The four reserved bytes say nothing; version 2 looks the same, and without any section 1 does, too.
            let is_other_version = match u32_at(&changed, 8) {
                Some(OLDEST) => written.0.is_empty(),
                version => version == Some(2),
            };
            let is_noticed = !(12..16).contains(&at) && !is_other_version;
            prop_assert_eq!(Segment::decode("s", changed).is_err(), is_noticed);
        }
    }

    #[test]
    fn kinds_that_hardly_become_smaller_stay_plain() {
        // Six random bits of eight, beside what becomes a fraction.
        let mut state = 1u64;
        let mut six_bits = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 58) as u8
        };
        let mut all = Vec::new();
        for shard in 0..3 {
            all.push((1, shard, (0..4_000).map(|_| six_bits()).collect()));
            all.push((3, shard, b"the same name ".repeat(100)));
        }
        let segment = Segment::decode("s", sections(&all).encode()).unwrap();
        let form = |kind, shard| segment.index[&(kind, shard)].form;
        assert_eq!([0, 1, 2].map(|shard| form(SectionKind::Requests, shard)), [ZSTD, PLAIN, PLAIN]);
        assert_eq!([0, 1, 2].map(|shard| form(SectionKind::Names, shard)), [ZSTD; 3]);
    }
}
