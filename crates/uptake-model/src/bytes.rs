//! Numbers as bytes in saved state: varints, zigzag and little-endian words.
//!
//! What is taken may be damaged. Taking never panics, and a count is checked against the bytes
//! that are there, so that no damage makes a reader allocate more than in proportion to its input.

/// Saved state that cannot be loaded: its bytes are not what a save wrote, or not for these rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("saved state is damaged: {0}")]
pub struct DamagedState(pub(crate) &'static str);

/// Bytes of the longest varint: 64 bits in sevens.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// A number whose sign stands in its lowest bit, so that small negative ones are short varints.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The number that [`zigzag`] was given.
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// How many bytes a varint takes.
#[inline]
pub(crate) fn varint_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes a varint into a buffer that has room for it; returns where it ends.
#[inline]
pub(crate) fn write_varint<const N: usize>(bytes: &mut [u8; N], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let end = write_varint(&mut bytes, 0, value);
    out.extend_from_slice(&bytes[..end]);
}

/// Appends 8 bytes, little-endian.
#[inline]
pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Takes a varint off the front.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DamagedState> {
    match *bytes {
        [first, rest @ ..] if *first < 0x80 => {
            *bytes = rest;
            Ok(u64::from(*first))
        }
        [first, second, rest @ ..] if *second < 0x80 => {
            *bytes = rest;
            Ok(u64::from(first & 0x7f) | u64::from(*second) << 7)
        }
        _ => take_long_varint(bytes),
    }
}

fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, DamagedState> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            // The tenth byte holds the 64th bit and nothing else.
            let fits = i + 1 < VARINT_BYTES_MAX || byte <= 1;
            *bytes = &bytes[i + 1..];
            return if fits { Ok(value) } else { Err(DamagedState("a number is too large")) };
        }
    }
    Err(DamagedState("a number has no end"))
}

/// Takes 8 bytes, little-endian, off the front.
#[inline]
pub(crate) fn take_u64(bytes: &mut &[u8]) -> Result<u64, DamagedState> {
    let Some((word, rest)) = bytes.split_first_chunk() else {
        return Err(DamagedState("it ends too early"));
    };
    *bytes = rest;
    Ok(u64::from_le_bytes(*word))
}

/// Checks that `count` things of at least `bytes_min` bytes each can be in `bytes`.
#[inline]
pub(crate) fn check_count(count: u64, bytes_min: usize, bytes: &[u8]) -> Result<usize, DamagedState> {
    match usize::try_from(count) {
        Ok(count) if count <= bytes.len() / bytes_min => Ok(count),
        _ => Err(DamagedState("it counts more than is there")),
    }
}

/// Checks that everything was taken.
#[inline]
pub(crate) fn check_end(bytes: &[u8]) -> Result<(), DamagedState> {
    if bytes.is_empty() { Ok(()) } else { Err(DamagedState("it goes on behind its end")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_is_taken(value in any::<u64>(), shift in 0u32..64, tail in any::<[u8; 3]>()) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_bytes(value));
            put_u64(&mut out, value);
            put_varint(&mut out, zigzag(value as i64));
            out.extend(tail);
            let mut bytes = out.as_slice();
            prop_assert_eq!(take_varint(&mut bytes), Ok(value));
            prop_assert_eq!(take_u64(&mut bytes), Ok(value));
            prop_assert_eq!(take_varint(&mut bytes).map(unzigzag), Ok(value as i64));
            prop_assert_eq!(bytes, tail);
        }
    }

    #[test]
    fn damaged_numbers_are_errors() {
        for damaged in [&[][..], &[0x80], &[0xff, 0xff], &[0xff; 10], &[0xff; 11]] {
            assert!(take_varint(&mut &*damaged).is_err(), "{damaged:?}");
        }
        let largest = [[0xff; 9].as_slice(), &[1]].concat();
        assert_eq!(take_varint(&mut &*largest), Ok(u64::MAX));
        let beyond = [[0xff; 9].as_slice(), &[2]].concat();
        assert!(take_varint(&mut &*beyond).is_err());
        assert!(take_u64(&mut [0; 7].as_slice()).is_err());
        assert!(check_count(u64::MAX, 8, &[0; 64]).is_err() && check_count(9, 8, &[0; 64]).is_err());
        assert_eq!(check_count(8, 8, &[0; 64]), Ok(8));
    }
}
