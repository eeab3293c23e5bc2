//! A URL picks the backend: `memory:`, `file:PATH`.
//!
//! One directory serves all families: `file:data` keeps the log in `data/log/`, the table in
//! `data/table.sqlite`, the archive in `data/tallies/` and checkpoints in `data/checkpoints/`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::UrlError;

/// Where a log, a table, an archive or objects live.
///
/// ```
/// use uptake_connectors::Backend;
/// assert_eq!("memory:".parse(), Ok(Backend::Memory));
/// assert_eq!("file:data".parse(), Ok(Backend::File("data".into())));
/// assert_eq!("file:///var/lib/uptake".parse(), Ok(Backend::File("/var/lib/uptake".into())));
/// assert!("data".parse::<Backend>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// In this process, gone with it.
    Memory,
    /// In a directory of the file system.
    File(PathBuf),
}

impl FromStr for Backend {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let unknown = || UrlError::Unknown { url: url.to_owned() };
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        match scheme {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(UrlError::NoPath { url: url.to_owned() });
                }
                Ok(Self::File(path.into()))
            }
            "kafka" | "cassandra" | "s3" => {
                Err(UrlError::NotBuiltIn { url: url.to_owned(), scheme: scheme.to_owned() })
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_name_no_backend_say_what_to_write() {
        for (url, says) in [
            ("", "names no backend"),
            ("memory:x", "names no backend"),
            ("ftp://host", "names no backend"),
            ("file:", "has no path"),
            ("file://", "has no path"),
            ("kafka://host:9092", "kafka is not built into this program"),
            ("s3://bucket/prefix", "s3 is not built into this program"),
        ] {
            let error = url.parse::<Backend>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_backend_prints_as_its_url() {
        for url in ["memory:", "file:data", "file:/var/lib/uptake"] {
            assert_eq!(url.parse::<Backend>().unwrap().to_string(), url);
        }
    }
}
