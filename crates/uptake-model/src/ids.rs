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

/// Value of a lower-case hex digit, or 0x80 for any other byte.
const HEX: [u8; 256] = {
    let mut table = [0x80u8; 256];
    let mut i = 0;
    while i < 16 {
        table[b"0123456789abcdef"[i] as usize] = i as u8;
        i += 1;
    }
    table
};

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
        if let Ok(digits) = <&[u8; 16]>::try_from(text) {
            let (mut value, mut bad) = (0u64, 0u8);
            for &c in digits {
                let digit = HEX[c as usize];
                bad |= digit;
                value = value << 4 | u64::from(digit & 15);
            }
            if bad & 0x80 == 0 {
                return Self(value);
            }
        }
        Self(hash_text(text))
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
