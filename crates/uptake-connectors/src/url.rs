//! A URL picks the backend: `memory:`, `file:PATH`, `kafka://HOST:PORT`.
//!
//! One directory serves all families: `file:data` keeps the log in `data/log/`, the table in
//! `data/table.sqlite`, the archive in `data/tallies/` and checkpoints in `data/checkpoints/`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::UrlError;
use crate::log::is_secret;

/// Where a log, a table, an archive or objects live.
///
/// ```
/// use uptake_connectors::Backend;
/// assert_eq!("memory:".parse(), Ok(Backend::Memory));
/// assert_eq!("file:data".parse(), Ok(Backend::File("data".into())));
/// assert_eq!("file:///var/lib/uptake".parse(), Ok(Backend::File("/var/lib/uptake".into())));
/// let kafka: Backend = "kafka://a:9092,b?compression.type=zstd".parse()?;
/// assert_eq!(kafka.to_string(), "kafka://a:9092,b:9092?compression.type=zstd");
/// assert!("data".parse::<Backend>().is_err());
/// # Ok::<(), uptake_connectors::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// In this process, gone with it.
    Memory,
    /// In a directory of the file system.
    File(PathBuf),
    /// In Kafka; the log only.
    Kafka {
        /// `host:port` of some brokers, who name the others.
        servers: Vec<String>,
        /// Options of the driver; never a secret.
        options: BTreeMap<String, String>,
    },
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
            "kafka" => kafka(url, rest),
            "cassandra" | "s3" => {
                Err(UrlError::NotBuiltIn { url: url.to_owned(), scheme: scheme.to_owned() })
            }
            _ => Err(unknown()),
        }
    }
}

/// The port of a broker that names none.
const KAFKA_PORT: &str = "9092";

fn kafka(url: &str, rest: &str) -> Result<Backend, UrlError> {
    let wrong = |what: String| UrlError::Kafka { what };
    let rest = rest.strip_prefix("//").ok_or_else(|| UrlError::Unknown { url: url.to_owned() })?;
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    if hosts.contains('@') {
        return Err(wrong("a login does not belong in a URL; give sasl.username and sasl.password".into()));
    }
    let mut servers = Vec::new();
    for host in hosts.trim_end_matches('/').split(',') {
        // A colon inside of the brackets is one of an IPv6 address.
        let after = host.rfind(']').map_or(0, |bracket| bracket + 1);
        let (name, port) = match host[after..].rfind(':') {
            Some(colon) => (&host[..after + colon], &host[after + colon + 1..]),
            None => (host, KAFKA_PORT),
        };
        if name.is_empty() || name.contains(['/', ' ']) || port.parse::<u16>().is_err() {
            return Err(wrong(format!("\"{host}\" is not HOST:PORT, as in kafka://localhost:9092")));
        }
        servers.push(format!("{name}:{port}"));
    }
    let mut options = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(wrong("behind the question mark stand options, as in ?compression.type=zstd".into()));
        };
        if is_secret(key) {
            return Err(wrong(format!(
                "{key} does not belong in a URL, which ends up in logs; configure it"
            )));
        }
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong(format!("{key} is given twice")));
        }
    }
    Ok(Backend::Kafka { servers, options })
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Kafka { servers, options } => {
                write!(f, "kafka://{}", servers.join(","))?;
                for (place, (key, value)) in options.iter().enumerate() {
                    write!(f, "{}{key}={value}", if place == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
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
            ("kafka:host", "names no backend"),
            ("kafka://", "is not HOST:PORT"),
            ("kafka://a:b", "is not HOST:PORT"),
            ("kafka://a,", "is not HOST:PORT"),
            ("kafka://me:pw@a", "a login does not belong in a URL"),
            ("kafka://a?acks", "stand options"),
            ("kafka://a?sasl.password=pw", "sasl.password does not belong in a URL"),
            ("kafka://a?acks=1&acks=all", "acks is given twice"),
            ("s3://bucket/prefix", "s3 is not built into this program"),
        ] {
            let error = url.parse::<Backend>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_backend_prints_as_its_url() {
        for url in
            ["memory:", "file:data", "file:/var/lib/uptake", "kafka://a:1,[::1]:9092?acks=all&linger.ms=5"]
        {
            assert_eq!(url.parse::<Backend>().unwrap().to_string(), url);
        }
    }
}
