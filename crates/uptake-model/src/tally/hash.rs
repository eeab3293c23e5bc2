//! Puts a known hash into a theta sketch.
//!
//! The sketches' library takes values, which it hashes, and cannot turn a stored sketch into one
//! that grows. But its hash, the first half of MurmurHash3 x64 128, can be computed backwards: for
//! 16 bytes of input it is a bijection. So the value is made up that has the hash.

use std::hash::{Hash, Hasher};

/// The library's default seed.
const SEED: u64 = 9001;
/// Hashes of a sketch are below: 63 bits.
pub(super) const HASH_END: u64 = i64::MAX as u64;

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// x with x · `odd` = 1: each of Newton's steps doubles the number of right bits, from 3.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut bits = 3;
    while bits < u64::BITS {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        bits *= 2;
    }
    x
}

/// Murmur's last step backwards. x ^ x >> 33 is its own inverse.
fn unmix(mut k: u64) -> u64 {
    const A: u64 = inverse(0xff51_afd7_ed55_8ccd);
    const B: u64 = inverse(0xc4ce_b9fe_1a85_ec53);
    k ^= k >> 33;
    k = k.wrapping_mul(B);
    k ^= k >> 33;
    k = k.wrapping_mul(A);
    k ^ k >> 33
}

/// A value that has this hash in a sketch; it must lie between 0 and [`HASH_END`].
pub(super) struct OfHash(pub(super) u64);

impl Hash for OfHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        const FIFTH: u64 = inverse(5);
        const D1: u64 = inverse(C1);
        const D2: u64 = inverse(C2);
        // The library drops the lowest bit of the first half, and the second half.
        let (mut h1, mut h2) = (self.0 << 1, 0u64);
        h2 = h2.wrapping_sub(h1);
        h1 = h1.wrapping_sub(h2);
        (h1, h2) = (unmix(h1), unmix(h2));
        h2 = h2.wrapping_sub(h1);
        h1 = h1.wrapping_sub(h2);
        // The length of the input.
        (h1, h2) = (h1 ^ 16, h2 ^ 16);
        let k2 = h2.wrapping_sub(0x3849_5ab5).wrapping_mul(FIFTH).wrapping_sub(h1).rotate_right(31) ^ SEED;
        let k1 = h1.wrapping_sub(0x52dc_e729).wrapping_mul(FIFTH).wrapping_sub(SEED).rotate_right(27) ^ SEED;
        let k2 = k2.wrapping_mul(D1).rotate_right(33).wrapping_mul(D2);
        let k1 = k1.wrapping_mul(D2).rotate_right(31).wrapping_mul(D1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&k1.to_le_bytes());
        bytes[8..].copy_from_slice(&k2.to_le_bytes());
        state.write(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sketch_has_the_hashes_it_was_given(hash in 1..HASH_END, shift in 0u32..63) {
            let hash = (hash >> shift).max(1);
            let mut sketch = super::super::new_sketch(5);
            sketch.update(OfHash(hash));
            prop_assert_eq!(sketch.iter().map(|e| e.hash()).collect::<Vec<_>>(), [hash]);
        }
    }
}
