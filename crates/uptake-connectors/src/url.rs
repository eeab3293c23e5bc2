//! A URL picks the backend: `memory:`, `file:PATH`, `kafka://HOST:PORT`,
//! `cassandra://HOST/KEYSPACE`, `s3://BUCKET/PREFIX`.
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
    /// A table in Cassandra or ScyllaDB.
    Cassandra {
        /// Where to ask first, each `host:port`.
        hosts: Vec<String>,
        /// The keyspace.
        keyspace: String,
    },
    /// An archive or objects in S3, or a store like it.
    S3 {
        /// Whose store it is.
        service: Service,
        /// The bucket, or container.
        bucket: String,
        /// What all names begin with; may be empty.
        prefix: String,
    },
}

/// Whose store of objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Service {
    /// Amazon's, and all that speak as it does.
    S3,
    /// Azure's blobs.
    Azure,
    /// Google's cloud storage.
    Google,
}

impl Service {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "az",
            Self::Google => "gs",
        }
    }
}

/// What a backend is to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A log.
    Log,
    /// A table of tallies.
    Table,
    /// An archive.
    Archive,
    /// Checkpoints.
    Checkpoints,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "a log",
            Self::Table => "a table",
            Self::Archive => "an archive",
            Self::Checkpoints => "checkpoints",
        }
    }

    /// How the URLs of the backends look that can hold it.
    fn urls(self) -> &'static str {
        match self {
            Self::Log => "memory:, file:PATH or kafka://HOST:PORT",
            Self::Table => "memory:, file:PATH or cassandra://HOST/KEYSPACE",
            Self::Archive | Self::Checkpoints => "memory:, file:PATH or s3://BUCKET/PREFIX",
        }
    }
}

impl Backend {
    /// The backend of a URL, for what it is to hold.
    ///
    /// ```
    /// use uptake_connectors::{Backend, url::Content};
    /// assert_eq!(Backend::parse_for("memory:", Content::Log), Ok(Backend::Memory));
    /// let error = Backend::parse_for("s3://bucket", Content::Table).unwrap_err().to_string();
    /// assert!(error.ends_with("use memory:, file:PATH or cassandra://HOST/KEYSPACE"));
    /// ```
    ///
    /// # Errors
    /// It is no URL of a backend, or of one that holds other things.
    pub fn parse_for(url: &str, content: Content) -> Result<Self, UrlError> {
        let backend: Self = match url.parse() {
            Err(UrlError::Unknown { url, .. }) => {
                return Err(UrlError::Unknown { url, known: content.urls() });
            }
            parsed => parsed?,
        };
        let holds = match content {
            Content::Log => matches!(backend, Self::Memory | Self::File(_) | Self::Kafka { .. }),
            Content::Table => matches!(backend, Self::Memory | Self::File(_) | Self::Cassandra { .. }),
            Content::Archive | Content::Checkpoints => {
                matches!(backend, Self::Memory | Self::File(_) | Self::S3 { .. })
            }
        };
        if holds { Ok(backend) } else { Err(backend.cannot_hold(content)) }
    }

    /// The error of asking here for `content`.
    pub(crate) fn cannot_hold(&self, content: Content) -> UrlError {
        UrlError::OtherThing { url: self.to_string(), what: content.name(), instead: content.urls() }
    }
}

/// Where nothing says what it is to hold.
const ALL: &str = "memory:, file:PATH, kafka://HOST:PORT, cassandra://HOST/KEYSPACE or s3://BUCKET/PREFIX";

fn unknown(url: &str) -> UrlError {
    UrlError::Unknown { url: url.to_owned(), known: ALL }
}

impl FromStr for Backend {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| unknown(url))?;
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
            "cassandra" => cassandra(url, rest),
            "s3" => bucket(url, Service::S3, rest),
            "az" => bucket(url, Service::Azure, rest),
            "gs" => bucket(url, Service::Google, rest),
            _ => Err(unknown(url)),
        }
    }
}

/// The port of a broker that names none.
const KAFKA_PORT: &str = "9092";

fn kafka(url: &str, rest: &str) -> Result<Backend, UrlError> {
    let wrong = |what: String| UrlError::Kafka { what };
    let rest = rest.strip_prefix("//").ok_or_else(|| unknown(url))?;
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

/// `//host[:port][,host2]/keyspace`
fn cassandra(url: &str, rest: &str) -> Result<Backend, UrlError> {
    let wrong = || UrlError::Cassandra { url: shown(url) };
    let (hosts, keyspace) =
        rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
    let with_port = |host: &str| if host.contains(':') { host.to_owned() } else { format!("{host}:9042") };
    let is_host = |host: &str| {
        let (name, port) = host.split_once(':').unwrap_or((host, "9042"));
        !name.is_empty() && !name.contains('@') && port.parse::<u16>().is_ok()
    };
    let letters = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !hosts.split(',').all(is_host) || !letters(keyspace) || !(1..=48).contains(&keyspace.len()) {
        return Err(wrong());
    }
    Ok(Backend::Cassandra { hosts: hosts.split(',').map(with_port).collect(), keyspace: keyspace.to_owned() })
}

/// `//bucket[/prefix]`
fn bucket(url: &str, service: Service, rest: &str) -> Result<Backend, UrlError> {
    let wrong = || UrlError::Bucket { url: shown(url), scheme: service.scheme() };
    let rest = rest.strip_prefix("//").ok_or_else(wrong)?.trim_end_matches('/');
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let step = |step: &str| !step.is_empty() && !step.starts_with('.');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-=/".contains(c);
    let good = prefix.is_empty() || prefix.split('/').all(step) && prefix.chars().all(allowed);
    if bucket.is_empty() || bucket.contains('@') || !good {
        return Err(wrong());
    }
    Ok(Backend::S3 { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// The URL without what stands before an `@`: it may be a password.
fn shown(url: &str) -> String {
    match (url.split_once("//"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}//…@{rest}"),
        _ => url.to_owned(),
    }
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
            Self::Cassandra { hosts, keyspace } => write!(f, "cassandra://{}/{keyspace}", hosts.join(",")),
            Self::S3 { service, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", service.scheme())
            }
            Self::S3 { service, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", service.scheme()),
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
            ("cassandra://host", "write cassandra://HOST[:PORT][,HOST]/KEYSPACE"),
            ("cassandra://host:x/ks", "write cassandra://"),
            ("cassandra://host/k-s", "write cassandra://"),
            ("cassandra://u:hunter2@host/ks", "cassandra://…@host/ks"),
            ("s3://", "write s3://BUCKET"),
            ("az://b//p", "write az://BUCKET"),
        ] {
            let error = url.parse::<Backend>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_backend_prints_as_its_url() {
        let (kafka, cassandra) =
            ("kafka://a:1,[::1]:9092?acks=all&linger.ms=5", "cassandra://a:9042,b:9043/uptake");
        for url in [
            "memory:",
            "file:data",
            "file:/var/lib/uptake",
            kafka,
            cassandra,
            "s3://b",
            "az://b/p",
            "gs://b/p/q",
        ] {
            assert_eq!(url.parse::<Backend>().unwrap().to_string(), url);
        }
    }
}
