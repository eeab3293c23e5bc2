//! Timestamps in the units that clients send, to milliseconds since 1970.

use super::TimestampUnit;
use super::leaf::{Leaf, Leaves, Shape};
use crate::event::Reason;
use crate::time::EventTime;

/// The time that `leaf`, one of `leaves`, tells.
///
/// # Errors
/// [`Reason::NoTimestamp`] if it is not of the unit's form, [`Reason::TimestampOutOfRange`].
#[inline]
pub(super) fn time_of(unit: TimestampUnit, leaf: &Leaf, leaves: Leaves<'_>) -> Result<EventTime, Reason> {
    if unit == TimestampUnit::Ms && leaf.shape == Shape::Int {
        return in_range(leaf.int);
    }
    time_in_general(unit, leaf, leaves.text(leaf))
}

fn in_range(ms: i64) -> Result<EventTime, Reason> {
    if (0..=EventTime::LATEST.0).contains(&ms) { Ok(EventTime(ms)) } else { Err(Reason::TimestampOutOfRange) }
}

fn time_in_general(unit: TimestampUnit, leaf: &Leaf, text: &[u8]) -> Result<EventTime, Reason> {
    let ms = match unit {
        TimestampUnit::Ms => integer(leaf, text)?,
        TimestampUnit::Us => integer(leaf, text)?.div_euclid(1_000),
        TimestampUnit::Ns => integer(leaf, text)?.div_euclid(1_000_000),
        TimestampUnit::S => match leaf.shape {
            Shape::Int => i128::from(leaf.int) * 1_000,
            Shape::Number => thousandths(text),
            _ => return Err(Reason::NoTimestamp),
        },
        TimestampUnit::Rfc3339 => match leaf.shape {
            Shape::Text | Shape::Unescaped => i128::from(rfc3339(text).ok_or(Reason::NoTimestamp)?),
            _ => return Err(Reason::NoTimestamp),
        },
    };
    in_range(i64::try_from(ms).map_err(|_| Reason::TimestampOutOfRange)?)
}

fn rfc3339(text: &[u8]) -> Option<i64> {
    let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(time.as_nanosecond().div_euclid(1_000_000) as i64)
}

/// A whole number of any length; one that is far outside every range stays just that.
fn integer(leaf: &Leaf, text: &[u8]) -> Result<i128, Reason> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match leaf.shape {
        Shape::Int => return Ok(i128::from(leaf.int)),
        Shape::Number if digits.iter().all(u8::is_ascii_digit) => {}
        _ => return Err(Reason::NoTimestamp),
    }
    let value = digits.iter().fold(0i128, |value, digit| {
        value.saturating_mul(10).saturating_add(i128::from(digit.saturating_sub(b'0')))
    });
    Ok(if negative { -value } else { value })
}

/// A decimal JSON number, with or without an exponent, times 1,000, rounded down. Floating point
/// would do for today's dates, but not to the last millisecond of every date.
fn thousandths(text: &[u8]) -> i128 {
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        text => (false, text),
    };
    let mantissa_end = text.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(mantissa_end);
    let exponent = match exponent {
        [_, b'-', digits @ ..] => -small(digits),
        [_, b'+', digits @ ..] | [_, digits @ ..] => small(digits),
        [] => 0,
    };
    let point = mantissa.iter().position(|&b| b == b'.').unwrap_or(mantissa.len());
    let digits = mantissa.iter().filter(|&&b| b != b'.').map(|b| i128::from(b.saturating_sub(b'0')));
    // How many of the digits (and zeros after them) stand before the point of the product.
    let whole = (point as i64).saturating_add(exponent).saturating_add(3);
    let (mut value, mut cut, mut count) = (0i128, false, 0i64);
    for digit in digits {
        if count < whole {
            value = value.saturating_mul(10).saturating_add(digit);
        } else {
            cut |= digit != 0;
        }
        count += 1;
    }
    while count < whole && value != 0 && value < i128::MAX / 10 {
        value *= 10;
        count += 1;
    }
    if negative { -value - i128::from(cut) } else { value }
}

fn small(digits: &[u8]) -> i64 {
    let add = |n: i64, digit: &u8| (n * 10 + i64::from(digit.saturating_sub(b'0'))).min(1_000_000_000);
    digits.iter().fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: TimestampUnit, json: &str, expect: Result<i64, Reason>) {
        let record = json.as_bytes();
        let leaf = match json.len() {
            _ if !json.starts_with('"') => Leaf::number(record, 0),
            length => Leaf { int: 0, start: 1, end: length as u32 - 1, shape: Shape::Text },
        };
        let leaves = Leaves { record, scratch: &[], leaves: &[leaf] };
        assert_eq!(time_of(unit, &leaf, leaves).map(|t| t.0), expect, "{unit:?} {json}");
    }

    #[test]
    fn every_unit_reads_its_form_and_no_other() {
        use Reason::{NoTimestamp, TimestampOutOfRange};
        use TimestampUnit::{Ms, Ns, Rfc3339, S, Us};
        check(Ms, "1768435200123", Ok(1_768_435_200_123));
        check(Ms, "0", Ok(0));
        check(Ms, "-0", Ok(0));
        check(Ms, "-1", Err(TimestampOutOfRange));
        check(Ms, "253402300799999", Ok(253_402_300_799_999));
        check(Ms, "253402300800000", Err(TimestampOutOfRange));
        check(Ms, "99999999999999999999999999999999999999999999999999", Err(TimestampOutOfRange));
        check(Ms, "-99999999999999999999999999999999999999999999999999", Err(TimestampOutOfRange));
        check(Ms, "1.0", Err(NoTimestamp));
        check(Ms, "1e400", Err(NoTimestamp));
        check(Ms, "\"1768435200123\"", Err(NoTimestamp));
        check(Us, "1768435200123999", Ok(1_768_435_200_123));
        check(Us, "-1", Err(TimestampOutOfRange));
        check(Ns, "1768435200123999999", Ok(1_768_435_200_123));
        check(Ns, "253402300799999999999", Ok(253_402_300_799_999));
        check(Ns, "1.5", Err(NoTimestamp));
        check(S, "1768435200", Ok(1_768_435_200_000));
        check(S, "1768435200.1239", Ok(1_768_435_200_123));
        check(S, "1768435200.1", Ok(1_768_435_200_100));
        check(S, "1.768435200123E9", Ok(1_768_435_200_123));
        check(S, "1768435200123e-3", Ok(1_768_435_200_123));
        check(S, "0.0001", Ok(0));
        check(S, "-0.0001", Err(TimestampOutOfRange));
        check(S, "-0.0", Ok(0));
        check(S, "1e400", Err(TimestampOutOfRange));
        check(S, "0e999999999999999999999", Ok(0));
        check(S, "1e-999999999999999999999", Ok(0));
        check(S, "\"1768435200\"", Err(NoTimestamp));
        check(Rfc3339, "\"2026-01-15T00:00:00.123Z\"", Ok(1_768_435_200_123));
        check(Rfc3339, "\"2026-01-15T01:00:00.1239+01:00\"", Ok(1_768_435_200_123));
        check(Rfc3339, "\"1969-12-31T23:59:59.9999Z\"", Err(TimestampOutOfRange));
        check(Rfc3339, "\"2026-01-15\"", Err(NoTimestamp));
        check(Rfc3339, "\"\"", Err(NoTimestamp));
        check(Rfc3339, "1768435200123", Err(NoTimestamp));
    }
}
