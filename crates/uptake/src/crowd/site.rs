//! What a visitor's device asks of a site: a row, and to take events.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::commands::text::grouped;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A deployment of Uptake, by its URL.
#[derive(Debug)]
pub(crate) struct Site {
    base: String,
    key: Option<String>,
    client: reqwest::Client,
    requests: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    /// What its CPUs had worked before.
    cpu_before: Mutex<Option<f64>>,
}

/// What a crowd cost a site.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) requests: u64,
    /// Bytes of bodies, as they were sent to the site.
    pub(crate) bytes_sent: u64,
    /// Bytes of bodies that it answered.
    pub(crate) bytes_received: u64,
    /// Seconds that the CPUs of the process that answers worked meanwhile, if it says so in its metrics.
    pub(crate) cpu_seconds: Option<f64>,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = grouped(self.requests);
        let kib = |bytes: u64| grouped(bytes >> 10);
        let (sent, received) = (kib(self.bytes_sent), kib(self.bytes_received));
        write!(f, "cost          {requests:>12}  requests, {sent} KiB sent, {received} KiB received")?;
        match self.cpu_seconds {
            None => Ok(()),
            Some(seconds) => {
                let each = seconds * 1e6 / self.requests.max(1) as f64;
                write!(f, "; {seconds:.1} s of CPU where they are answered, {each:.0} \u{b5}s a request")
            }
        }
    }
}

/// Why a site did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    /// It may later: it is away, or has too much to do.
    #[error("{0}")]
    Later(String),
    /// It will not.
    #[error("{0}")]
    Never(String),
}

/// A row as it was served.
#[derive(Deserialize, Debug)]
pub(crate) struct Served {
    pub(crate) request_id: String,
    pub(crate) served_at: i64,
    pub(crate) epoch: Option<i64>,
    pub(crate) items: Vec<Item>,
}

/// A title of a row.
#[derive(Deserialize, Debug)]
pub(crate) struct Item {
    pub(crate) video_id: String,
    pub(crate) plays: u64,
}

/// What a site counted of a title in an epoch.
#[derive(Deserialize, Debug)]
pub(crate) struct Counted {
    pub(crate) epoch: i64,
    pub(crate) plays: u64,
    pub(crate) impressions: u64,
    pub(crate) exact: bool,
}

#[derive(Deserialize)]
struct Series {
    epochs: Vec<Counted>,
}

#[derive(Deserialize)]
struct Verdicts {
    items: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    status: String,
}

impl Site {
    /// The site at `base`, as `http://127.0.0.1:8080`; `key` is its write key, if it wants one.
    pub(crate) fn new(base: &str, key: Option<String>) -> Result<Self, SiteError> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build();
        let client = client.map_err(|error| SiteError::Never(error.to_string()))?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key,
            client,
            requests: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            cpu_before: Mutex::default(),
        })
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, SiteError> {
        let answer = request.send().await.map_err(|error| SiteError::Later(words(&error)))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| SiteError::Later(words(&error)))?;
        self.requests.fetch_add(1, Relaxed);
        self.bytes_received.fetch_add(body.len() as u64, Relaxed);
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let said: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        let what = format!("{status}: {said}");
        Err(match status.is_server_error() || status.as_u16() == 429 {
            true => SiteError::Later(what),
            false => SiteError::Never(what),
        })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, SiteError> {
        let body = self.ask(self.client.get(format!("{}{path}", self.base))).await?;
        serde_json::from_slice(&body).map_err(|error| SiteError::Never(format!("{path}: {error}")))
    }

    /// A row of so many titles.
    pub(crate) async fn row(&self, name: &str, limit: usize) -> Result<Served, SiteError> {
        self.get(&format!("/v1/rows/{name}?limit={limit}")).await
    }

    /// Sends events; says of each whether it was taken.
    pub(crate) async fn send(&self, body: Vec<u8>) -> Result<Vec<bool>, SiteError> {
        self.bytes_sent.fetch_add(body.len() as u64, Relaxed);
        let mut request = self.client.post(format!("{}/v1/events", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let body = self.ask(request.header("content-type", "application/json").body(body)).await?;
        let verdicts: Verdicts =
            serde_json::from_slice(&body).map_err(|error| SiteError::Never(error.to_string()))?;
        Ok(verdicts.items.iter().map(|item| item.status == "accepted").collect())
    }

    /// What was asked of it before is no cost.
    pub(crate) async fn begin_counting_cost(&self) {
        let cpu = self.cpu().await;
        *self.cpu_before.lock().unwrap_or_else(PoisonError::into_inner) = cpu;
        for counter in [&self.requests, &self.bytes_sent, &self.bytes_received] {
            counter.store(0, Relaxed);
        }
    }

    /// What it cost since.
    pub(crate) async fn cost(&self) -> Cost {
        let counted = [&self.requests, &self.bytes_sent, &self.bytes_received];
        let [requests, bytes_sent, bytes_received] = counted.map(|counter| counter.load(Relaxed));
        let cpu = self.cpu().await;
        let before = *self.cpu_before.lock().unwrap_or_else(PoisonError::into_inner);
        Cost {
            requests,
            bytes_sent,
            bytes_received,
            cpu_seconds: cpu.zip(before).map(|(now, then)| now - then),
        }
    }

    /// Seconds that the CPUs of the site's process have worked; `None` where it has no metrics that say so.
    async fn cpu(&self) -> Option<f64> {
        let text = self.ask(self.client.get(format!("{}/metrics", self.base))).await.ok()?;
        let text = String::from_utf8(text).ok()?;
        text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "))?.trim().parse().ok()
    }

    /// What was counted of a title, epoch by epoch; nothing where nothing was.
    pub(crate) async fn series(&self, video: &str) -> Result<Vec<Counted>, SiteError> {
        match self.get::<Series>(&format!("/v1/videos/{video}")).await {
            Ok(series) => Ok(series.epochs),
            Err(SiteError::Never(what)) if what.starts_with("404") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// An error with its causes: reqwest names only the first.
fn words(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(of) = cause {
        text.push_str(&format!(": {of}"));
        cause = of.source();
    }
    text
}
