//! Eight bytes at a time: where a string or a number ends.
//!
//! Every function stops at the first byte it does not know, so a record is read exactly once and
//! nothing has to be found out about it beforehand. Words are loaded with `from_le_bytes` out of a
//! [`Window`] of fixed size, which the compiler turns into one plain load without a check.

use memchr::memchr;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Records up to this length can be read by a layout.
pub(super) const REACH: usize = 4096;
/// Bytes that may be looked at beyond it: with them, no load has to ask whether it is allowed.
const SLACK: usize = 32;

/// The bytes from the start of a record on, whatever comes after it. A position is taken modulo
/// [`REACH`], which the compiler can see to be inside: whoever moves beyond must notice it later.
pub(super) type Window = [u8; REACH + SLACK];

/// The byte at `at`.
#[inline(always)]
pub(super) fn byte(window: &Window, at: usize) -> u8 {
    window[at % REACH]
}

/// The eight bytes from `at`, the first one lowest.
#[inline(always)]
pub(super) fn load(window: &Window, at: usize) -> u64 {
    let at = at % REACH;
    window[at..at + 8].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// A window for the last bytes of a block, of which fewer are left than a window has.
#[derive(Debug)]
pub(super) struct Tail {
    window: Box<Window>,
}

impl Default for Tail {
    fn default() -> Self {
        Self { window: Box::new([0; REACH + SLACK]) }
    }
}

impl Tail {
    /// The first line of `bytes`, followed by zeros, at which every value ends; `None` if it is
    /// too long.
    pub(super) fn window(&mut self, bytes: &[u8]) -> Option<&Window> {
        let end = memchr(b'\n', bytes).unwrap_or(bytes.len());
        if end > REACH {
            return None;
        }
        self.window.get_mut(..end)?.copy_from_slice(bytes.get(..end)?);
        self.window.get_mut(end..end + SLACK)?.fill(0);
        Some(&self.window)
    }
}

/// The first position from `at` on whose byte is a quote, a backslash, a control byte or not
/// ASCII; at least [`REACH`] if there is none.
// Tried and slower on the reference workload: 16 bytes at once, in two words (113 ns per event, the
// whole of decoding, instead of 100) or in a vector register (124). Where a text ends is where the
// next one begins, so what counts is how soon that is known, and most texts are short.
#[inline(always)]
pub(super) fn plain_text_end(window: &Window, mut at: usize) -> usize {
    while at < REACH {
        let word = load(window, at);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        // A subtraction borrows only from bytes above one that is marked itself, so the lowest
        // mark is always right. A byte that is not ASCII is marked by one of the three, too.
        let marks =
            (quote.wrapping_sub(ONES) | backslash.wrapping_sub(ONES) | word.wrapping_sub(ONES * 0x20)) & HIGH;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at
}

/// How many digits stand at `at`, up to eight, and their value.
#[inline(always)]
fn digits_of_word(window: &Window, at: usize) -> (usize, u64) {
    let values = load(window, at) ^ (ONES * 0x30);
    let marks = (values.wrapping_add(ONES * 0x76) | values) & HIGH;
    let count = marks.trailing_zeros() as usize / 8; // 8 where no mark is set: 64 zeros
    // Shifted up, the missing digits become leading zeros; then pairs, fours and eights are added.
    // No digit at all is a shift by all 64 bits, in two steps because one cannot be that long.
    let ones = values << (32 - 4 * count) << (32 - 4 * count);
    let pairs = ones.wrapping_mul(2561) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(6_553_601) >> 16 & 0x0000_ffff_0000_ffff;
    (count, fours.wrapping_mul(42_949_672_960_001) >> 32)
}

const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many digits stand at `at` and their value; 16 may mean that there are more.
#[inline(always)]
pub(super) fn digits(window: &Window, at: usize) -> (usize, u64) {
    let (count, value) = digits_of_word(window, at);
    if count < 8 {
        return (count, value);
    }
    let (more, rest) = digits_of_word(window, at + 8);
    (8 + more, value * POWERS[more % POWERS.len()] + rest)
}

/// The end of the JSON number at `at`; `None` where there is none. Only the grammar counts, as
/// `serde_json` does for a value that is skipped: `1e400` is a number.
pub(super) fn number_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let skip_digits = |at: usize| at + bytes.iter().skip(at).take_while(|b| b.is_ascii_digit()).count();
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match bytes.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => skip_digits(at),
        _ => return None,
    };
    if bytes.get(at).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    if bytes.get(at) == Some(&b'.') {
        let end = skip_digits(at + 1);
        if end == at + 1 {
            return None;
        }
        at = end;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = skip_digits(at + 1 + sign);
        if end == at + 1 + sign {
            return None;
        }
        at = end;
    }
    Some(at)
}

/// The position of the quote that ends a JSON string whose content begins at `at`, where other
/// things than plain ASCII may stand in it; `None` if it is not a string. Escapes are accepted if
/// `escapes` says so, and then only by their grammar, as `serde_json` does for a skipped value.
#[cold]
pub(super) fn string_end(bytes: &[u8], at: usize, escapes: bool) -> Option<usize> {
    let mut end = at;
    loop {
        match bytes.get(end)? {
            b'"' => break,
            b'\\' if escapes => match bytes.get(end + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => end += 2,
                b'u' if bytes.get(end + 2..end + 6)?.iter().all(u8::is_ascii_hexdigit) => end += 6,
                _ => return None,
            },
            b'\\' | ..0x20 => return None,
            _ => end += 1,
        }
    }
    std::str::from_utf8(bytes.get(at..end)?).is_ok().then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_byte_that_is_not_plain() {
        let mut tail = Tail::default();
        for length in 0..40 {
            for stop in [b'"', b'\\', b'\n', 0, 0x1f, 0x80, 0xff] {
                for after in [b'a', b'"', 0x21, 0x23, 0x7f, 0xff] {
                    let mut text = vec![b'!'; length];
                    text.push(stop);
                    text.extend([after; 9]);
                    assert_eq!(plain_text_end(tail.window(&text).unwrap(), 0), length, "{stop} then {after}");
                    assert_eq!(plain_text_end(tail.window(&text[..length]).unwrap(), 0), length);
                }
            }
        }
        for byte in 0..=255u8 {
            let plain = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            let end = plain_text_end(tail.window(&[b'a', b'b', byte, b'c']).unwrap(), 0);
            assert_eq!(end, if plain { 4 } else { 2 }, "{byte}");
        }
        let plain: Vec<u8> = (0x20..0x80).filter(|b| !b"\"\\".contains(b)).collect();
        assert_eq!(plain_text_end(tail.window(&plain).unwrap(), 0), plain.len());
        assert!(plain_text_end(&[b'a'; REACH + SLACK], 3) >= REACH);
        assert!(tail.window(&[b'a'; REACH]).is_some());
        assert!(tail.window(&[b'a'; REACH + 1]).is_none());
    }

    #[test]
    fn digits_have_their_value() {
        let mut tail = Tail::default();
        for length in 0..=16usize {
            let text: String = "9182736450918273".chars().take(length).collect();
            for after in
                ["", "x", "/", ":", ",\"position\":0", "\u{ff}\u{ff}\u{ff}\u{ff}", "\0\0\0\0\0\0\0\0"]
            {
                let line = format!("{text}{after}");
                let value = text.parse().unwrap_or(0);
                assert_eq!(digits(tail.window(line.as_bytes()).unwrap(), 0), (length, value), "{line:?}");
            }
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        for (text, end) in [
            ("0", Some(1)),
            ("-0", Some(2)),
            ("10,", Some(2)),
            ("1.5e-3}", Some(6)),
            ("1E400 ", Some(5)),
            ("01", None),
            ("-", None),
            ("1.", None),
            ("1e", None),
            ("1e+", None),
            (".5", None),
            ("+1", None),
            ("", None),
        ] {
            assert_eq!(number_end(text.as_bytes(), 0), end, "{text:?}");
        }
    }

    #[test]
    fn strings_are_those_of_json() {
        for (text, escapes, end) in [
            ("caf\u{e9}\" ", false, Some(5)),
            (r#"a\"b" "#, true, Some(4)),
            (r#"a\"b" "#, false, None),
            (r#"\ud800" "#, true, Some(6)),
            (r#"\ud80" "#, true, None),
            (r#"\x" "#, true, None),
            ("a\nb\"", true, None),
            ("open", true, None),
        ] {
            assert_eq!(string_end(text.as_bytes(), 0, escapes), end, "{text:?}");
        }
        assert_eq!(string_end(b"\xff\"", 0, true), None);
    }
}
