//! What can be configured, checked, and the secrets, which are read apart and never printed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use uptake_trends::{RowName, RowOptions};

use crate::ids::random;

/// How many items of a row are kept ready.
pub const ITEMS_MAX: usize = 500;

/// Whether request ids must be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CheckIds {
    /// Not looked at.
    Off,
    /// Counted in the metrics, and taken all the same.
    #[default]
    Report,
    /// What is unsigned, forged or expired is refused.
    Require,
}

/// What becomes of a member id at the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemberIds {
    /// Replaced by its keyed hash.
    #[default]
    Pseudonym,
    /// Taken out.
    Drop,
    /// Kept as it came.
    Keep,
}

/// How the collector and the API behave.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: String,
    /// The certificate and its key, as PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Origins of pages that may send events and read rows; `*` for all.
    pub origins: Vec<String>,
    /// A file of write keys, one a line.
    pub write_keys_file: Option<PathBuf>,
    /// A file that holds the admin token.
    pub admin_token_file: Option<PathBuf>,
    /// A file of the keys that sign request ids, the newest first.
    pub request_key_file: Option<PathBuf>,
    /// A file that holds the key of pseudonyms.
    pub member_key_file: Option<PathBuf>,
    /// Whether request ids must be signed.
    pub request_ids: CheckIds,
    /// How long after its row was served an event of a request is taken.
    pub request_age_max_ms: i64,
    /// How far before its arrival an event may have happened by the clock rule.
    pub delay_max_ms: i64,
    /// What becomes of member ids.
    pub member_ids: MemberIds,
    /// The largest body, as it came.
    pub body_bytes_max: usize,
    /// The largest body, decompressed.
    pub decoded_bytes_max: usize,
    /// The most events in a body.
    pub events_max: usize,
    /// The largest event.
    pub event_bytes_max: usize,
    /// The most events that wait to be appended.
    pub queue_events_max: usize,
    /// The most bytes of bodies that are being read and decoded at once, and of records that wait to be appended.
    pub bodies_bytes_max: usize,
    /// Whether an answered event survives a power cut.
    pub survives_power_cut: bool,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long a client may take to send a request.
    pub read_timeout: Duration,
    /// The most connections at once; of one address a quarter of them, unless it is a proxy's.
    pub connections_max: usize,
    /// Requests a second by one key or address; `None` for no limit.
    pub rate_per_second: Option<u32>,
    /// How many proxies in front add to `X-Forwarded-For`.
    pub proxies: usize,
    /// The most subscribers of row streams.
    pub streams_max: usize,
    /// How often rows are looked at again.
    pub rows_refresh: Duration,
    /// The form of the rows.
    pub rows: RowOptions,
    /// How many of a row's last places are drawn, to learn how titles are taken.
    pub explore_slots: usize,
    /// In which rows.
    pub explore_rows: Vec<RowName>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            tls: None,
            origins: Vec::new(),
            write_keys_file: None,
            admin_token_file: None,
            request_key_file: None,
            member_key_file: None,
            request_ids: CheckIds::Report,
            request_age_max_ms: 6 * 3_600_000,
            delay_max_ms: 24 * 3_600_000,
            member_ids: MemberIds::Pseudonym,
            body_bytes_max: 1 << 20,
            decoded_bytes_max: 8 << 20,
            events_max: 1_000,
            event_bytes_max: 16 << 10,
            queue_events_max: 100_000,
            bodies_bytes_max: 256 << 20,
            survives_power_cut: false,
            timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            rate_per_second: Some(1_000),
            proxies: 0,
            streams_max: 1_000,
            rows_refresh: Duration::from_millis(500),
            rows: RowOptions { behind: ITEMS_MAX, ..RowOptions::default() },
            explore_slots: 1,
            explore_rows: vec![RowName::Loved],
        }
    }
}

/// The secrets. There is no way to print them.
pub struct Secrets {
    pub(crate) write_keys: Vec<Vec<u8>>,
    pub(crate) admin_token: Option<Vec<u8>>,
    pub(crate) request_keys: Vec<Vec<u8>>,
    pub(crate) member_key: Vec<u8>,
}

/// Why the secrets cannot be had. Says which, never what it holds.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read or written.
    #[error("{name}: cannot use {}: {source}", path.display())]
    File {
        /// The setting.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One is too short to be a secret.
    #[error("{name}: a secret has at least {least} characters, this one is shorter")]
    Short {
        /// The setting.
        name: &'static str,
        /// How many it needs.
        least: usize,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

impl Secrets {
    /// Reads the secrets: from the environment, else from the file that is configured. The keys of
    /// request ids and pseudonyms are made and kept in `directory` where neither is given, so that
    /// all processes over one data directory have the same.
    ///
    /// # Errors
    /// A file that is named cannot be read, or a secret is too short.
    pub fn load(settings: &Settings, directory: &Path) -> Result<Self, SecretsError> {
        let write =
            given("UPTAKE_WRITE_KEYS", "serve.write_keys_file", settings.write_keys_file.as_deref(), 8)?;
        let admin =
            given("UPTAKE_ADMIN_TOKEN", "serve.admin_token_file", settings.admin_token_file.as_deref(), 16)?;
        let request =
            given("UPTAKE_REQUEST_KEY", "serve.request_key_file", settings.request_key_file.as_deref(), 32)?;
        Ok(Self {
            write_keys: write.unwrap_or_default(),
            admin_token: admin.and_then(|lines| lines.into_iter().next()),
            request_keys: match request {
                Some(keys) => keys,
                None => made(&directory.join("request.key"), "serve.request_key_file")?,
            },
            member_key: match member_key(settings, directory)? {
                Some(key) => key,
                None => made(&directory.join("member.key"), "serve.member_key_file")?.remove(0),
            },
        })
    }
}

/// The key of members' pseudonyms, as [`Secrets::load`] finds it; `None` where there is none yet.
///
/// # Errors
/// A file that is named cannot be read, or the key is too short.
pub fn member_key(settings: &Settings, directory: &Path) -> Result<Option<Vec<u8>>, SecretsError> {
    let kept = directory.join("member.key");
    let named = settings.member_key_file.as_deref();
    let file = named.or_else(|| kept.exists().then_some(&*kept));
    let found = given("UPTAKE_MEMBER_KEY", "serve.member_key_file", file, 32)?;
    Ok(found.and_then(|lines| lines.into_iter().next()))
}

/// The lines of a secret from the environment or its file.
fn given(
    variable: &str,
    name: &'static str,
    file: Option<&Path>,
    least: usize,
) -> Result<Option<Vec<Vec<u8>>>, SecretsError> {
    let text = match (std::env::var(variable), file) {
        (Ok(text), _) if !text.trim().is_empty() => text,
        (_, Some(path)) => fs::read_to_string(path).map_err(|source| SecretsError::File {
            name,
            path: path.to_owned(),
            source,
        })?,
        (_, None) => return Ok(None),
    };
    lines(&text, name, least).map(Some)
}

fn lines(text: &str, name: &'static str, least: usize) -> Result<Vec<Vec<u8>>, SecretsError> {
    let found: Vec<Vec<u8>> = text
        .split([',', '\n'])
        .map(|line| line.trim().as_bytes().to_vec())
        .filter(|line| !line.is_empty())
        .collect();
    if found.is_empty() || found.iter().any(|line| line.len() < least) {
        return Err(SecretsError::Short { name, least });
    }
    Ok(found)
}

/// A key that is kept in a file, which is made where there is none.
fn made(path: &Path, name: &'static str) -> Result<Vec<Vec<u8>>, SecretsError> {
    let failed = |source| SecretsError::File { name, path: path.to_owned(), source };
    if !path.exists() {
        let secret = URL_SAFE_NO_PAD.encode(random::<32>().ok_or(SecretsError::NoRandom)?);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let own = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&own).map_err(failed)?;
        writeln!(file, "{secret}").and_then(|()| file.sync_all()).map_err(failed)?;
        // Of two processes that begin at once the first one's key stays, whole.
        let linked = fs::hard_link(&own, path);
        fs::remove_file(&own).map_err(failed)?;
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
    }
    lines(&fs::read_to_string(path).map_err(failed)?, name, 32)
}
