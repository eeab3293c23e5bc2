//! What the numbers in saved request states stand for: small numbers of their own, because those
//! of a worker's dictionary mean nothing to another worker.

use crate::DamagedState;
use crate::bytes::{check_count, check_end, put_u64, put_varint, take_u64, take_varint};
use crate::ids::VideoHash;
use crate::join::context::Context;
use crate::join::request::JoinDictionary;

/// Gives the videos and contexts of the request states that are saved together their numbers, in
/// order of first use, so that what is used most has the shortest.
///
/// It keeps its memory when cleared: 4 bytes per number of the dictionary.
#[derive(Debug, Default)]
pub struct JoinSaver {
    videos: Numbers<VideoHash>,
    contexts: Numbers<Context>,
}

impl JoinSaver {
    /// The table of what the numbers given out stand for, to be stored beside the states.
    pub fn names(&self) -> Vec<u8> {
        let (videos, contexts) = (&self.videos.values, &self.contexts.values);
        let mut out = Vec::with_capacity(16 + 8 * videos.len() + 20 * contexts.len());
        put_varint(&mut out, videos.len() as u64);
        videos.iter().for_each(|video| put_u64(&mut out, video.0));
        put_varint(&mut out, contexts.len() as u64);
        contexts.iter().for_each(|context| context.put(&mut out));
        out
    }

    /// Forgets all numbers, to begin another table.
    pub fn clear(&mut self) {
        self.videos.values.clear();
        self.contexts.values.clear();
    }

    #[inline]
    pub(super) fn video(&mut self, n: u32, dictionary: &JoinDictionary) -> u64 {
        self.videos.of(n, dictionary.videos.get(n))
    }

    #[inline]
    pub(super) fn context(&mut self, n: u32, dictionary: &JoinDictionary) -> u64 {
        self.contexts.of(n, dictionary.contexts.get(n))
    }
}

#[derive(Debug)]
struct Numbers<T> {
    /// The values in the order of their numbers.
    values: Vec<T>,
    /// By the dictionary's number, the number given here. It holds only where `values` agrees,
    /// so it need not be cleared, and the dictionary may have changed in between.
    given: Vec<u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), given: Vec::new() }
    }
}

impl<T: Copy + Eq> Numbers<T> {
    #[inline]
    fn of(&mut self, n: u32, value: T) -> u64 {
        match self.given.get(n as usize) {
            Some(&given) if self.values.get(given as usize) == Some(&value) => u64::from(given),
            _ => self.give(n, value),
        }
    }

    fn give(&mut self, n: u32, value: T) -> u64 {
        let given = self.values.len();
        self.values.push(value);
        if self.given.len() <= n as usize {
            self.given.resize(n as usize + 1, 0);
        }
        self.given[n as usize] = given as u32;
        given as u64
    }
}

/// The table of names as it was read.
#[derive(Debug)]
pub struct JoinNames {
    videos: Vec<VideoHash>,
    contexts: Vec<Context>,
}

impl JoinNames {
    /// Reads what [`JoinSaver::names`] gave.
    ///
    /// # Errors
    ///
    /// If the bytes are damaged.
    pub fn read(mut bytes: &[u8]) -> Result<Self, DamagedState> {
        let bytes = &mut bytes;
        let n = check_count(take_varint(bytes)?, 8, bytes)?;
        let videos = (0..n).map(|_| take_u64(bytes).map(VideoHash)).collect::<Result<_, _>>()?;
        let n = check_count(take_varint(bytes)?, Context::SAVED_BYTES_MIN, bytes)?;
        let contexts = (0..n).map(|_| Context::take(bytes)).collect::<Result<_, _>>()?;
        check_end(bytes)?;
        Ok(Self { videos, contexts })
    }

    #[inline]
    pub(super) fn video(&self, n: u64) -> Result<VideoHash, DamagedState> {
        let video = usize::try_from(n).ok().and_then(|n| self.videos.get(n));
        video.copied().ok_or(DamagedState("a video has no name"))
    }

    #[inline]
    pub(super) fn context(&self, n: u64) -> Result<Context, DamagedState> {
        let context = usize::try_from(n).ok().and_then(|n| self.contexts.get(n));
        context.copied().ok_or(DamagedState("a context has no name"))
    }
}
