//! How to reach a cluster, and how to write to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scylla::statement::Consistency;

use crate::error::OptionError;
use crate::options::{Options, error};

const KNOWN: [&str; 14] = [
    "user",
    "password",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "consistency",
    "local_datacenter",
    "ttl",
    "replication",
    "concurrency",
    "connect_timeout",
    "request_timeout",
    "create_schema",
    "page_rows",
];

/// Options of a table in Cassandra.
///
/// ```
/// use uptake_connectors::Options;
/// use uptake_connectors::table::CassandraOptions;
/// let given: Options = [("ttl", "30d"), ("user", "uptake"), ("password", "hunter2")].into_iter().collect();
/// let options = CassandraOptions::read(&given)?;
/// assert_eq!(options.ttl.as_secs(), 30 * 86_400);
/// assert!(!format!("{options:?}").contains("hunter2"));
/// # Ok::<(), uptake_connectors::error::OptionError>(())
/// ```
#[derive(Clone)]
pub struct CassandraOptions {
    /// `user` and `password`, where the server asks for them.
    pub login: Option<(String, String)>,
    /// `tls_ca`: the certificates to trust, a PEM file. Connections are encrypted if it is given.
    pub tls_ca: Option<PathBuf>,
    /// `tls_cert` and `tls_key`: our own certificate and its key, PEM files.
    pub tls_own: Option<(PathBuf, PathBuf)>,
    /// `consistency` of reads and writes: `ONE`, `LOCAL_ONE`, `LOCAL_QUORUM` (default), `QUORUM`, `ALL`.
    pub consistency: Consistency,
    /// `local_datacenter`: the one to ask first.
    pub local_datacenter: Option<String>,
    /// `ttl`: how long rows are kept, 90 days by default; 0 for ever. Takes effect by `migrate`.
    pub ttl: Duration,
    /// `replication` of a keyspace that is to be made: a number, or `dc1:3,dc2:3`.
    pub replication: Option<String>,
    /// `concurrency`: the most requests on their way at once, 256 by default.
    pub concurrency: usize,
    /// `connect_timeout`: when opening is given up, 10 s by default.
    pub connect_timeout: Duration,
    /// `request_timeout`: when a request is given up, 10 s by default.
    pub request_timeout: Duration,
    /// `create_schema`: whether opening makes the tables where there are none, as `migrate` does.
    pub create_schema: bool,
    /// `page_rows`: rows of a page of an answer, 1,000 by default.
    pub page_rows: i32,
}

impl CassandraOptions {
    /// Reads options given by name.
    ///
    /// # Errors
    /// A name is unknown, or a value makes no sense.
    pub fn read(given: &Options) -> Result<Self, OptionError> {
        given.only(&KNOWN)?;
        let pair = |a: &str, b: &str| match (given.get(a), given.get(b)) {
            (Some(a), Some(b)) => Ok(Some((a.to_owned(), b.to_owned()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(error(b, format!("is missing beside {a}"))),
            (None, Some(_)) => Err(error(a, format!("is missing beside {b}"))),
        };
        let options = Self {
            login: pair("user", "password")?,
            tls_ca: given.get("tls_ca").map(PathBuf::from),
            tls_own: pair("tls_cert", "tls_key")?.map(|(cert, key)| (cert.into(), key.into())),
            consistency: consistency(given.get("consistency").unwrap_or("LOCAL_QUORUM"))?,
            local_datacenter: given.get("local_datacenter").map(str::to_owned),
            ttl: given.duration("ttl", Duration::from_secs(90 * 86_400))?,
            replication: given.get("replication").map(str::to_owned),
            concurrency: given.parsed("concurrency", 256)?,
            connect_timeout: given.duration("connect_timeout", Duration::from_secs(10))?,
            request_timeout: given.duration("request_timeout", Duration::from_secs(10))?,
            create_schema: given.parsed("create_schema", false)?,
            page_rows: given.parsed("page_rows", 1_000)?,
        };
        // Twenty years is the most that Cassandra takes.
        if options.ttl > Duration::from_secs(20 * 365 * 86_400) {
            return Err(error("ttl", "is more than 20 years"));
        }
        if options.concurrency == 0 || options.page_rows < 1 {
            return Err(error(
                if options.concurrency == 0 { "concurrency" } else { "page_rows" },
                "must be at least 1",
            ));
        }
        if options.tls_own.is_some() && options.tls_ca.is_none() {
            return Err(error("tls_ca", "is missing beside tls_cert"));
        }
        options.replication_cql()?;
        Ok(options)
    }

    /// The replication of a keyspace that is to be made, as CQL.
    pub(super) fn replication_cql(&self) -> Result<Option<String>, OptionError> {
        let Some(given) = &self.replication else { return Ok(None) };
        if let Ok(factor) = given.parse::<u8>() {
            return Ok(Some(format!("{{'class': 'SimpleStrategy', 'replication_factor': {factor}}}")));
        }
        let wrong = || error("replication", "is neither a number nor like dc1:3,dc2:3");
        let mut cql = "{'class': 'NetworkTopologyStrategy'".to_owned();
        for part in given.split(',') {
            let (datacenter, factor) = part.split_once(':').ok_or_else(wrong)?;
            let factor: u8 = factor.parse().map_err(|_| wrong())?;
            if datacenter.is_empty()
                || datacenter.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c))
            {
                return Err(wrong());
            }
            cql += &format!(", '{datacenter}': {factor}");
        }
        Ok(Some(cql + "}"))
    }

    /// The configuration of TLS, if connections are to be encrypted.
    pub(super) fn tls(&self) -> Result<Option<Arc<rustls::ClientConfig>>, OptionError> {
        let Some(ca) = &self.tls_ca else { return Ok(None) };
        let certificates = |key: &str, path: &PathBuf| {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            read.map_err(|e| error(key, format!("cannot be read from {}: {e}", path.display())))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("tls_ca", ca)? {
            roots
                .add(certificate)
                .map_err(|e| error("tls_ca", format!("holds what is no certificate: {e}")))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| error("tls_ca", e.to_string()))?
            .with_root_certificates(roots);
        Ok(Some(Arc::new(match &self.tls_own {
            None => builder.with_no_client_auth(),
            Some((cert, path)) => {
                let key = PrivateKeyDer::from_pem_file(path)
                    .map_err(|e| error("tls_key", format!("cannot be read from {}: {e}", path.display())))?;
                let own = builder.with_client_auth_cert(certificates("tls_cert", cert)?, key);
                own.map_err(|e| error("tls_cert", format!("does not go with its key: {e}")))?
            }
        })))
    }
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self::read(&Options::default()).expect("the defaults make sense")
    }
}

fn consistency(name: &str) -> Result<Consistency, OptionError> {
    Ok(match name {
        "ONE" => Consistency::One,
        "LOCAL_ONE" => Consistency::LocalOne,
        "LOCAL_QUORUM" => Consistency::LocalQuorum,
        "QUORUM" => Consistency::Quorum,
        "ALL" => Consistency::All,
        _ => return Err(error("consistency", "is none of ONE, LOCAL_ONE, LOCAL_QUORUM, QUORUM, ALL")),
    })
}

impl fmt::Debug for CassandraOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraOptions")
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("tls_ca", &self.tls_ca)
            .field("consistency", &self.consistency)
            .field("local_datacenter", &self.local_datacenter)
            .field("ttl", &self.ttl)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
