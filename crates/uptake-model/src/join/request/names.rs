//! What the numbers in saved request states stand for: those of a worker's dictionary mean nothing to
//! another worker.

use crate::DamagedState;
use crate::bytes::{check_count, check_end, put_u64, put_varint, take_u64, take_varint};
use crate::ids::VideoHash;
use crate::join::context::Context;
use crate::join::request::JoinDictionary;

/// Gives the videos and contexts of the request states that are saved together their numbers, in
/// order of first use, so that what is used most has the shortest.
///
/// Where many states are saved, next to the videos that the dictionary has numbers for, the videos keep those:
/// states that only wait are then copied as they lie, and all videos are in the table.
///
/// All states have one dictionary, which stays as it is until the saver begins anew. It keeps its memory
/// then: 4 bytes per number of the dictionary.
#[derive(Debug, Default)]
pub struct JoinSaver {
    videos: Numbers<VideoHash>,
    contexts: Numbers<Context>,
    /// Whether videos have the numbers of the dictionary.
    keeps_videos: bool,
}

/// Videos to a state, at most, where the table has all videos: their names then take a sixth of the room that the
/// states take.
const VIDEOS_PER_STATE: usize = 2;

impl JoinSaver {
    /// The table of what the numbers given out stand for, to be stored beside the states.
    pub fn names(&self, dictionary: &JoinDictionary) -> Vec<u8> {
        let videos = if self.keeps_videos { dictionary.videos.values() } else { &self.videos.values };
        let contexts = &self.contexts.values;
        let mut out = Vec::with_capacity(16 + 8 * videos.len() + 20 * contexts.len());
        put_varint(&mut out, videos.len() as u64);
        videos.iter().for_each(|video| put_u64(&mut out, video.0));
        put_varint(&mut out, contexts.len() as u64);
        contexts.iter().for_each(|context| context.put(&mut out));
        out
    }

    /// Forgets all numbers, to begin another table, for about as many `states`.
    pub fn begin(&mut self, dictionary: &JoinDictionary, states: usize) {
        self.videos.clear();
        self.contexts.clear();
        self.keeps_videos = dictionary.videos.values().len() < states.saturating_mul(VIDEOS_PER_STATE);
    }

    /// Whether videos have the numbers of the dictionary.
    #[inline]
    pub(super) fn keeps_videos(&self) -> bool {
        self.keeps_videos
    }

    #[inline]
    pub(super) fn video(&mut self, n: u32, dictionary: &JoinDictionary) -> u64 {
        if self.keeps_videos { n.into() } else { self.videos.of(n, || dictionary.videos.get(n)) }
    }

    #[inline]
    pub(super) fn context(&mut self, n: u32, dictionary: &JoinDictionary) -> u64 {
        self.contexts.of(n, || dictionary.contexts.get(n))
    }
}

#[derive(Debug)]
struct Numbers<T> {
    /// The values in the order of their numbers.
    values: Vec<T>,
    /// By the dictionary's number, the number given here and `first`. What is less than `first` was given for
    /// an earlier table and is nothing, so it need not be cleared.
    given: Vec<u32>,
    /// At least 1.
    first: u32,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), given: Vec::new(), first: 1 }
    }
}

impl<T> Numbers<T> {
    fn clear(&mut self) {
        // Half of all numbers are kept for the table that begins.
        let used = self.first.saturating_add(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        if used > u32::MAX / 2 {
            self.given.fill(0);
            self.first = 1;
        } else {
            self.first = used;
        }
        self.values.clear();
    }

    #[inline]
    fn of(&mut self, n: u32, value: impl FnOnce() -> T) -> u64 {
        match self.given.get(n as usize) {
            Some(&given) if given >= self.first => u64::from(given - self.first),
            _ => self.give(n, value()),
        }
    }

    #[cold]
    fn give(&mut self, n: u32, value: T) -> u64 {
        let given = self.values.len() as u32;
        self.values.push(value);
        if self.given.len() <= n as usize {
            self.given.resize(n as usize + 1, 0);
        }
        self.given[n as usize] = self.first + given;
        u64::from(given)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_earlier_table_are_none() {
        for first in [1, 7, u32::MAX / 2 - 1, u32::MAX / 2] {
            let mut numbers = Numbers { first, ..Numbers::default() };
            for table in 0..5u64 {
                // What was given number 0 is given 2, and the other way round.
                let order = if table % 2 == 0 { [3, 900, 5] } else { [5, 900, 3] };
                for (given, n) in (0..).zip(order) {
                    assert_eq!(numbers.of(n, || n), given, "first {first}, table {table}");
                }
                assert_eq!((numbers.of(order[1], || 0), &numbers.values[..]), (1, &order[..]));
                numbers.clear();
            }
        }
    }
}
