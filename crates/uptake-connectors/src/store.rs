//! A store of objects behind HTTP: S3 and all that speak as it does, Azure's, Google's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig, UpdateVersion,
};

use crate::error::{FailureKind, OptionError, RemoteError};
use crate::options::{Options, error};
use crate::runtime::block_on;
use crate::url::{Backend, Service};

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// What is the store's, before it is somebody's.
#[derive(Debug)]
pub(crate) enum StoreError {
    Remote(RemoteError),
    Option(OptionError),
}

impl From<RemoteError> for StoreError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<OptionError> for StoreError {
    fn from(error: OptionError) -> Self {
        Self::Option(error)
    }
}

macro_rules! into_family {
    ($($family:ident),*) => {$(
        impl From<StoreError> for crate::error::$family {
            fn from(error: StoreError) -> Self {
                match error {
                    StoreError::Remote(error) => error.into(),
                    StoreError::Option(error) => error.into(),
                }
            }
        }
    )*};
}
into_family!(ArchiveError, ObjectsError);

/// Bytes of a part of a large object: each request is small enough to have a short timeout.
const PART_BYTES: usize = 8 << 20;
/// Larger objects go up in parts.
const SINGLE_BYTES: usize = 16 << 20;
/// Requests of one object on their way at once.
const AT_ONCE: usize = 4;

/// How long a put waits that met somebody who was deleting; twice as long each time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);
/// No longer than this: some ten attempts in five seconds.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_secs(4);

const OURS: [&str; 3] = ["connect_timeout", "request_timeout", "retry_timeout"];

/// What became of a conditional put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    Yes,
    /// The condition did not hold.
    No,
}

/// An object as it was read.
pub(crate) struct Found {
    pub(crate) bytes: Bytes,
    pub(crate) version: UpdateVersion,
}

/// A bucket, and the prefix that all names in it have.
#[derive(Debug)]
pub(crate) struct Store {
    store: Arc<dyn ObjectStore>,
    url: String,
    prefix: String,
}

impl Store {
    /// Opens the bucket of `backend` and looks whether it is there; names are below `folder`.
    pub(crate) fn open(backend: &Backend, folder: &str, options: &Options) -> Result<Self> {
        let url = backend.to_string();
        let Backend::S3 { service, bucket, prefix } = backend else {
            return Err(error("backend", "is no store of objects").into());
        };
        let connect = options.duration("connect_timeout", Duration::from_secs(5))?;
        let request = options.duration("request_timeout", Duration::from_secs(10))?;
        let retry = RetryConfig {
            max_retries: 3,
            retry_timeout: options.duration("retry_timeout", Duration::from_secs(10))?,
            ..RetryConfig::default()
        };
        let store = build(*service, bucket, options, Clients { connect, request, retry })?;
        let prefix = if prefix.is_empty() { folder.to_owned() } else { format!("{prefix}/{folder}") };
        let store = Self { store, url, prefix };
        // Twice the time of a request: it may be tried again.
        let looked = async { tokio::time::timeout(request * 2, store.look()).await };
        match store.wait("open", looked)? {
            Ok(Ok(())) => Ok(store),
            Ok(Err(e)) => Err(store.refused("open", e)),
            Err(_) => {
                let advice = format!("it did not answer within {:?}; check the option endpoint", request * 2);
                Err(store.error("open", advice, FailureKind::Transient, None))
            }
        }
    }

    async fn look(&self) -> object_store::Result<()> {
        let nothing = Path::parse(format!("{}/nothing", self.prefix))?;
        self.store.list(Some(&nothing)).next().await.transpose().map(drop)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    fn path(&self, operation: &'static str, name: &str) -> Result<Path> {
        Path::parse(format!("{}/{name}", self.prefix)).map_err(|e| self.refused(operation, e.into()))
    }

    fn wait<T>(&self, operation: &'static str, future: impl Future<Output = T>) -> Result<T> {
        let refused = |e: io::Error| {
            self.error(
                operation,
                "the system refuses threads".into(),
                FailureKind::Transient,
                Some(Box::new(e)),
            )
        };
        block_on(future).map_err(refused)
    }

    fn error(
        &self,
        operation: &'static str,
        advice: String,
        kind: FailureKind,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        RemoteError { operation, url: self.url.clone(), advice, kind, source }.into()
    }

    fn refused(&self, operation: &'static str, error: Error) -> StoreError {
        let said = error.to_string();
        let (advice, kind) = match &error {
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => (
                "it refuses the keys; check access_key_id, secret_access_key and what they may do",
                FailureKind::Permanent,
            ),
            Error::NotFound { .. } => {
                ("there is no such bucket; make it, or check its name", FailureKind::Permanent)
            }
            Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::UnknownConfigurationKey { .. } => ("it cannot do this", FailureKind::Permanent),
            // Stores that do not say so by the status code.
            _ if said.contains("InvalidAccessKeyId") || said.contains("SignatureDoesNotMatch") => {
                ("it refuses the keys; check access_key_id and secret_access_key", FailureKind::Permanent)
            }
            _ if said.contains("NoSuchBucket") => {
                ("there is no such bucket; make it, or check its name", FailureKind::Permanent)
            }
            _ => (
                "it does not answer; check the option endpoint, and that the server runs",
                FailureKind::Transient,
            ),
        };
        self.error(operation, advice.to_owned(), kind, Some(Box::new(error)))
    }

    /// Puts an object unless there is one of that name.
    pub(crate) fn create(&self, name: &str, bytes: Vec<u8>) -> Result<Done> {
        let path = self.path("put an object into", name)?;
        let bytes = Bytes::from(bytes);
        let mut pause = CONFLICT_PAUSE;
        loop {
            match self.wait("put an object into", self.try_create(&path, &bytes))? {
                Ok(()) => return Ok(Done::Yes),
                Err(Error::AlreadyExists { .. }) if self.size(name)?.is_some() => return Ok(Done::No),
                // S3 refuses with one code that an object is there and with another that somebody just
                // now deletes it or its neighbour, which the driver takes for the same.
                Err(Error::AlreadyExists { .. }) if pause < CONFLICT_PAUSE_MAX => {
                    self.wait("put an object into", async { tokio::time::sleep(pause).await })?;
                    pause *= 2;
                }
                Err(Error::AlreadyExists { .. }) => {
                    let advice = format!("others put and delete {name} all the time");
                    return Err(self.error("put an object into", advice, FailureKind::Transient, None));
                }
                Err(e) => return Err(self.refused("put an object into", e)),
            }
        }
    }

    async fn try_create(&self, path: &Path, bytes: &Bytes) -> object_store::Result<()> {
        if bytes.len() > SINGLE_BYTES {
            return self.in_parts(path, bytes.clone()).await;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(path, bytes.clone().into(), options).await.map(drop)
    }

    /// Puts a large object in parts under a hidden name, and copies it, in the store, to its own
    /// unless there is one: no way leads from parts to a name on a condition.
    async fn in_parts(&self, path: &Path, bytes: Bytes) -> object_store::Result<()> {
        let hidden = Path::parse(format!("{}/uploads/{}", self.prefix, unique()))?;
        let mut upload = self.store.put_multipart(&hidden).await?;
        let parts: Vec<_> = (0..bytes.len())
            .step_by(PART_BYTES)
            .map(|at| upload.put_part(PutPayload::from(bytes.slice(at..bytes.len().min(at + PART_BYTES)))))
            .collect();
        let sent: object_store::Result<()> =
            stream::iter(parts).buffer_unordered(AT_ONCE).try_collect().await;
        if let Err(e) = sent {
            // What cannot be taken back now is for the bucket's own rule on unfinished uploads.
            let _ = upload.abort().await;
            return Err(e);
        }
        upload.complete().await?;
        let copied = self.store.copy_if_not_exists(&hidden, path).await;
        let _ = self.store.delete(&hidden).await;
        copied
    }

    /// Puts an object in the place of the one that was read, if it still is that.
    pub(crate) fn replace(&self, name: &str, version: UpdateVersion, bytes: Vec<u8>) -> Result<Done> {
        let path = self.path("put an object into", name)?;
        let options = PutOptions { mode: PutMode::Update(version), ..PutOptions::default() };
        match self.wait("put an object into", self.store.put_opts(&path, bytes.into(), options))? {
            Ok(_) => Ok(Done::Yes),
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(Done::No),
            Err(e) => Err(self.refused("put an object into", e)),
        }
    }

    /// The whole object, if there is one.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Found>> {
        let path = self.path("read from", name)?;
        let read = async {
            loop {
                match self.read_whole(&path).await {
                    // Somebody replaced it between two ranges.
                    Err(Error::Precondition { .. }) => {}
                    read => return read,
                }
            }
        };
        self.absent("read from", self.wait("read from", read)?)
    }

    async fn read_whole(&self, path: &Path) -> object_store::Result<Found> {
        let meta = self.store.head(path).await?;
        let ranges = (0..meta.size).step_by(PART_BYTES).map(|at| at..meta.size.min(at + PART_BYTES as u64));
        let reads = ranges.map(|range| {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range)),
                if_match: meta.e_tag.clone(),
                ..GetOptions::default()
            };
            async { self.store.get_opts(path, options).await?.bytes().await }
        });
        let mut parts: Vec<Bytes> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let bytes = if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() };
        Ok(Found { bytes, version: UpdateVersion { e_tag: meta.e_tag, version: meta.version } })
    }

    /// How large an object is, if there is one.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path("read from", name)?;
        let size = self.wait("read from", self.store.head(&path))?.map(|meta| meta.size);
        self.absent("read from", size)
    }

    /// A range of an object that is not empty and lies within it.
    pub(crate) fn range(&self, name: &str, start: u64, end: u64) -> Result<Option<Bytes>> {
        let path = self.path("read from", name)?;
        let ranges = (start..end).step_by(PART_BYTES).map(|at| at..end.min(at + PART_BYTES as u64));
        let reads = ranges.map(|range| self.store.get_range(&path, range));
        let read = async {
            let parts: Vec<Bytes> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
            Ok(Bytes::from(parts.concat()))
        };
        self.absent("read from", self.wait("read from", read)?)
    }

    fn absent<T>(&self, operation: &'static str, result: object_store::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => Ok(None),
            Err(e) => Err(self.refused(operation, e)),
        }
    }

    /// The objects below `folder`, a whole step or empty, as (name, size).
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let path = match folder {
            "" => Path::parse(&self.prefix).map_err(|e| self.refused("list", e.into()))?,
            folder => self.path("list", folder)?,
        };
        let all: object_store::Result<Vec<ObjectMeta>> =
            self.wait("list", self.store.list(Some(&path)).try_collect())?;
        let skip = self.prefix.len() + 1;
        let name = |meta: ObjectMeta| Some((meta.location.as_ref().get(skip..)?.to_owned(), meta.size));
        let mut all: Vec<_> =
            all.map_err(|e| self.refused("list", e))?.into_iter().filter_map(name).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Deletes an object; fine where there is none.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let path = self.path("delete from", name)?;
        let deleted = self.wait("delete from", self.store.delete(&path))?;
        self.absent("delete from", deleted).map(drop)
    }
}

/// A name that nobody else uses.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{now:x}-{:x}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

struct Clients {
    connect: Duration,
    request: Duration,
    retry: RetryConfig,
}

/// The client of a service: its own variables of the environment, then the options.
fn build(
    service: Service,
    bucket: &str,
    options: &Options,
    clients: Clients,
) -> Result<Arc<dyn ObjectStore>> {
    let mut client = ClientOptions::new().with_connect_timeout(clients.connect).with_timeout(clients.request);
    if options.get("allow_http") == Some("true") {
        client = client.with_allow_http(true);
    }
    let given = || options.iter().filter(|(key, _)| !OURS.contains(key) && *key != "allow_http");
    let unknown = |key: &str| error(key, "is unknown here");
    let failed = |e: Error| error("of the store", format!("make no sense together: {e}"));
    Ok(match service {
        Service::S3 => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client)
                .with_retry(clients.retry)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
            for (key, value) in given() {
                builder =
                    builder.with_config(key.parse::<AmazonS3ConfigKey>().map_err(|_| unknown(key))?, value);
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        Service::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_client_options(client)
                .with_retry(clients.retry);
            for (key, value) in given() {
                builder =
                    builder.with_config(key.parse::<AzureConfigKey>().map_err(|_| unknown(key))?, value);
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        Service::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client)
                .with_retry(clients.retry);
            for (key, value) in given() {
                builder =
                    builder.with_config(key.parse::<GoogleConfigKey>().map_err(|_| unknown(key))?, value);
            }
            Arc::new(builder.build().map_err(failed)?)
        }
    })
}
