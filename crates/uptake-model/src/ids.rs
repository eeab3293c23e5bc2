//! Ids as numbers: what travels through the pipeline instead of text.
//!
//! Each id is 64 bits made from the text by a fixed function, the same in every process and
//! release, so that two hosts, a replay and a stored table agree on it. The text of a video is
//! kept beside the tallies; the text of a request or a member is not kept.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};

/// The one hash of text in this crate. The seed is part of what is stored on disk: changing it
/// would make a stored table and a new run disagree about every id.
fn hash_text(text: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x7570_7461_6b65).build_hasher();
    hasher.write(text);
    hasher.finish()
}

/// The value of 8 lower-case hex digits, all at once: a request id is parsed for every event.
#[inline]
fn hex8(digits: [u8; 8]) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_be_bytes(digits);
    // Letters have bit 6 set and their low four bits count from 1.
    let value = (text & (ONES * 0x0f)) + (text >> 6 & ONES) * 9;
    // What the digit of this value looks like: '0' + value, and 39 further on from 10 up.
    let expected = value + ONES * 0x30 + (value.wrapping_add(ONES * 6) >> 4 & ONES) * 39;
    if expected != text || value & (ONES * 0xf0) != 0 {
        return None;
    }
    let pairs = (value | value >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    Some((fours | fours >> 16) & 0xffff_ffff)
}

/// The request (page or row) that was the source of an event: the join key.
///
/// A text of 16 lower-case hex digits is its own number, so it can be printed back; any other
/// text is its 64-bit hash.
///
/// ```
/// use uptake_model::RequestId;
/// assert_eq!(RequestId::from_text(b"7f3a91c04be2d655").to_string(), "7f3a91c04be2d655");
/// assert_eq!(RequestId::from_text(b"r1"), RequestId::from_text(b"r1"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The number of a request id given as text.
    #[inline]
    pub fn from_text(text: &[u8]) -> Self {
        if let Some((high, low)) = text.split_first_chunk::<8>()
            && let Ok(low) = <[u8; 8]>::try_from(low)
            && let (Some(high), Some(low)) = (hex8(*high), hex8(low))
        {
            return Self(high << 32 | low);
        }
        Self(hash_text(text))
    }

    /// The partition, of so many, that the events of this request are written to.
    ///
    /// ```
    /// use uptake_model::RequestId;
    /// assert_eq!(RequestId(7).partition(4), 3);
    /// ```
    #[inline]
    pub fn partition(self, partitions: u32) -> u32 {
        (self.0 % u64::from(partitions.max(1))) as u32
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A video, by the hash of its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct VideoHash(pub u64);

impl VideoHash {
    /// The hash of a video id given as text.
    #[inline]
    pub fn from_text(text: &[u8]) -> Self {
        Self(hash_text(text))
    }
}

/// A member, by the hash of the member id; 0 stands for an event without one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct MemberHash(pub u64);

impl MemberHash {
    /// No member id came with the event.
    pub const NONE: Self = Self(0);

    /// The hash of a member id given as text; the empty text is [`MemberHash::NONE`].
    #[inline]
    pub fn from_text(text: &[u8]) -> Self {
        if text.is_empty() { Self::NONE } else { Self(hash_text(text).max(1)) }
    }

    /// What stands for the member in a set that belongs to one video and epoch: the same member has the
    /// same number there, so that different members can be counted, and unrelated ones everywhere else, so
    /// that two sets do not tell what a member watched.
    ///
    /// ```
    /// use uptake_model::{Epoch, MemberHash, VideoHash};
    /// let member = MemberHash(7);
    /// let at = |video, epoch| member.within(VideoHash(video), Epoch(epoch));
    /// assert_eq!(at(1, 5), at(1, 5));
    /// assert!(at(1, 5) != at(1, 6) && at(1, 5) != at(2, 5));
    /// ```
    #[inline]
    pub fn within(self, video: VideoHash, epoch: crate::Epoch) -> u64 {
        FixedState::with_seed(0x6d65_6d62).hash_one((self.0, video.0, epoch.0))
    }
}

/// The values of an event's dimensions that the configured segments use, by their hash; 0 where
/// no segment uses any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct DimsHash(pub u64);

impl DimsHash {
    /// No segment uses a dimension.
    pub const NONE: Self = Self(0);

    /// The hash of the values, in the order of [`crate::segment::Segments::dimensions`].
    /// An absent value is the empty text.
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = FixedState::with_seed(0x6469_6d73).build_hasher();
        let mut any = false;
        for value in values {
            any = true;
            hasher.write_u64(value.len() as u64);
            hasher.write(value);
        }
        if any { Self(hasher.finish().max(1)) } else { Self::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_are_told_from_every_other_byte() {
        for byte in 0..=255u8 {
            for place in 0..16 {
                let mut text = *b"0123456789abcdef";
                text[place] = byte;
                let plain =
                    std::str::from_utf8(&text).ok().filter(|t| t.bytes().all(|c| !c.is_ascii_uppercase()));
                let plain = plain.and_then(|t| u64::from_str_radix(t, 16).ok()).filter(|_| byte != b'+');
                let fast = hex8(text[..8].try_into().unwrap()).zip(hex8(text[8..].try_into().unwrap()));
                assert_eq!(fast.map(|(high, low)| high << 32 | low), plain, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn ids_are_the_same_numbers_in_every_release() {
        // Stored tables hold these numbers: a change here is a change of the stored format.
        assert_eq!(RequestId::from_text(b"00000000000000ff"), RequestId(255));
        assert_ne!(RequestId::from_text(b"00000000000000FF"), RequestId(255));
        assert_ne!(RequestId::from_text(b"ff"), RequestId(255));
        assert_eq!(MemberHash::from_text(b""), MemberHash::NONE);
        assert_ne!(
            DimsHash::from_values([b"a".as_slice(), b"bc"]),
            DimsHash::from_values([b"ab".as_slice(), b"c"])
        );
    }
}
