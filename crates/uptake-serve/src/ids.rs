//! Request ids that a stranger cannot invent, and member ids that nobody can read back.
//!
//! A row is served with a token `ID.TIME.SIGNATURE`: the request id (16 hex digits), the
//! milliseconds since 1970 at which it was served (hex), and 128 bits of HMAC-SHA-256 over both.
//! The log gets the bare id, so duplicates of an event stay duplicates; the time in the token is
//! what makes a client's monotonic clock an event time.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use aws_lc_rs::{constant_time, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uptake_model::RequestId;

/// Bytes of a signature that are kept.
const SIGNATURE_BYTES: usize = 16;

/// Signs request ids, with the first of its keys, and checks them, with any.
///
/// ```
/// use uptake_model::RequestId;
/// use uptake_serve::ids::{Signed, Signer};
/// let signer = Signer::new(&[b"a secret of at least 32 bytes....".to_vec()]);
/// let token = signer.sign(RequestId(255), 1_768_435_200_123);
/// assert_eq!(signer.check(&token), Signed::By { id: "00000000000000ff", served_ms: 1_768_435_200_123 });
/// assert_eq!(signer.check(&token.replace("ff.", "fe.")), Signed::Forged);
/// assert_eq!(signer.check("7f3a91c04be2d655"), Signed::Not);
/// ```
pub struct Signer {
    keys: Vec<Key>,
}

/// What a request id that came back says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signed<'a> {
    /// One of the keys signed it.
    By {
        /// The bare request id.
        id: &'a str,
        /// When the row was served.
        served_ms: i64,
    },
    /// It looks like a token, and no key signed it.
    Forged,
    /// It is no token.
    Not,
}

impl Signer {
    /// A signer of these keys; more than one while a key is being replaced.
    pub fn new(keys: &[Vec<u8>]) -> Self {
        Self { keys: keys.iter().map(|key| Key::new(HMAC_SHA256, key)).collect() }
    }

    /// The token of a request that is served now.
    pub fn sign(&self, request: RequestId, served_ms: i64) -> String {
        let mut token = format!("{request}.{served_ms:x}");
        if let Some(key) = self.keys.first() {
            let tag = hmac::sign(key, token.as_bytes());
            token.push('.');
            URL_SAFE_NO_PAD.encode_string(&tag.as_ref()[..SIGNATURE_BYTES], &mut token);
        }
        token
    }

    /// Whether a token is one of ours. Takes as long for a wrong signature as for a right one.
    pub fn check<'a>(&self, token: &'a str) -> Signed<'a> {
        let Some((said, signature)) = token.rsplit_once('.') else { return Signed::Not };
        let Some((id, time)) = said.split_once('.') else { return Signed::Not };
        let is_hex = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if id.len() != 16 || !is_hex(id) || time.is_empty() || time.len() > 15 || !is_hex(time) {
            return Signed::Not;
        }
        let Ok(served_ms) = i64::from_str_radix(time, 16) else { return Signed::Not };
        let mut bytes = [0; SIGNATURE_BYTES + 2];
        if URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes) != Ok(SIGNATURE_BYTES) {
            return Signed::Forged;
        }
        let is_ours = self.keys.iter().any(|key| {
            let tag = hmac::sign(key, said.as_bytes());
            is_equal(&tag.as_ref()[..SIGNATURE_BYTES], &bytes[..SIGNATURE_BYTES])
        });
        if is_ours { Signed::By { id, served_ms } } else { Signed::Forged }
    }
}

/// Gives members names that say nothing of them without the key.
///
/// ```
/// use uptake_serve::ids::Pseudonyms;
/// let pseudonyms = Pseudonyms::new(b"a secret of at least 32 bytes....");
/// assert_eq!(pseudonyms.of("m456"), pseudonyms.of("m456"));
/// assert_ne!(pseudonyms.of("m456"), pseudonyms.of("m457"));
/// ```
pub struct Pseudonyms(Key);

impl Pseudonyms {
    /// Pseudonyms by this key: with another one every member gets another name.
    pub fn new(key: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// The name of a member: 128 bits, as text.
    pub fn of(&self, member: &str) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, member.as_bytes()).as_ref()[..16])
    }
}

/// A request id that nobody can guess.
pub(crate) fn new_request() -> Option<RequestId> {
    Some(RequestId(u64::from_le_bytes(random()?)))
}

/// Random bytes; `None` where the system has none, which it always has.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Compares two secrets in a time that does not depend on where they differ.
pub(crate) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_a_token_is_noticed() {
        let (old, new) = (vec![1; 32], vec![2; 32]);
        let signer = Signer::new(&[new, old.clone()]);
        let token = signer.sign(RequestId(7), 1_768_435_200_123);
        for place in 0..token.len() {
            for with in ["0", "1", "A", "Q", "."] {
                let mut changed = token.clone();
                changed.replace_range(place..=place, with);
                let is_same = changed == token;
                assert_eq!(matches!(signer.check(&changed), Signed::By { .. }), is_same, "{changed}");
            }
        }
        let before = Signer::new(&[old]).sign(RequestId(7), 5);
        assert_eq!(signer.check(&before), Signed::By { id: "0000000000000007", served_ms: 5 }, "rotation");
        for strange in ["", ".", "..", "a.b.c", "0000000000000007.5", "🦀.🦀.🦀"] {
            assert_eq!(signer.check(strange), Signed::Not, "{strange}");
        }
        assert_eq!(signer.check("0000000000000007.5."), Signed::Forged);
    }
}
