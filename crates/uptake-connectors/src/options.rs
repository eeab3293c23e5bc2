//! What a server needs to be told beside its URL: credentials, timeouts, and the like, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::OptionError;

/// Options of a connector, by name. Their values are never printed.
///
/// ```
/// use uptake_connectors::Options;
/// let options: Options = [("user", "uptake"), ("password", "hunter2")].into_iter().collect();
/// assert_eq!(format!("{options:?}"), r#"Options {"password", "user"}"#);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Sets an option.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// The value of an option.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Refuses names that are not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), OptionError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(error(key, format!("is unknown here; there are {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// A value of any type that is read from text.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str, default: T) -> Result<T, OptionError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.parse().map_err(|_| error(key, "has a value that makes no sense".to_owned()))
            }
        }
    }

    /// A duration: a number with `ms`, `s`, `m`, `h` or `d`.
    pub(crate) fn duration(&self, key: &str, default: Duration) -> Result<Duration, OptionError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let wrong = || error(key, "is no duration; write 500ms, 15s, 10m, 2h or 30d".to_owned());
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let number: u64 = value[..digits].parse().map_err(|_| wrong())?;
        let ms: u64 = match &value[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        Ok(Duration::from_millis(number.checked_mul(ms).ok_or_else(wrong)?))
    }
}

/// For options that were told nothing wrong but each other's contrary.
pub(crate) fn error(key: &str, what: impl Into<String>) -> OptionError {
    OptionError { key: key.to_owned(), what: what.into() }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(options: I) -> Self {
        Self(options.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Options ")?;
        self.0.keys().collect::<BTreeSet<_>>().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_refused() {
        let of = |value: &str| {
            [("t", value)]
                .into_iter()
                .collect::<Options>()
                .duration("t", Duration::ZERO)
                .ok()
                .map(|d| d.as_millis())
        };
        assert_eq!(
            ["500ms", "15s", "2m", "1h", "90d"].map(of),
            [500, 15_000, 120_000, 3_600_000, 7_776_000_000].map(Some)
        );
        assert_eq!(["", "s", "5", "-1s", "1w", "99999999999999999999s"].map(of), [None; 6]);
    }
}
