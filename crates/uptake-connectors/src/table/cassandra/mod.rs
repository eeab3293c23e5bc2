//! The table in Cassandra, or ScyllaDB by the same protocol.
//!
//! A row's rank is the timestamp of its write ([`timestamp`]), so that the server itself keeps the
//! larger one, whoever writes and in whatever order. A write is many requests, no transaction: a
//! failed one may be partly done, which the next attempt completes. `docs/cassandra.md` says how
//! other programs read the tables.

mod link;
mod options;
mod schema;
mod timestamp;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
pub use options::CassandraOptions;
use scylla::statement::prepared::PreparedStatement;
use uptake_model::tally::{Counts, TallySets};
use uptake_model::{Epoch, RequestId, TallyRow};
pub(super) use write::sets_at;

use self::link::Link;
use super::sqlite::{decode_set, stored_contains};
use super::{Found, Result, Table, by_plays, check_range};
use crate::error::{FailureKind, RemoteError, TableError};
use crate::runtime::block_on;

/// A table in a keyspace.
pub struct CassandraTable {
    link: Link,
    statements: Statements,
    concurrency: usize,
}

struct Statements {
    put_row: PreparedStatement,
    put_sets: PreparedStatement,
    put_index: PreparedStatement,
    put_epoch: PreparedStatement,
    put_meta: PreparedStatement,
    row: PreparedStatement,
    video: PreparedStatement,
    all_sets: PreparedStatement,
    index: PreparedStatement,
    segments: PreparedStatement,
    epochs: PreparedStatement,
    latest: PreparedStatement,
    meta: PreparedStatement,
    any: PreparedStatement,
}

impl Statements {
    async fn prepare(link: &Link) -> Result<Self> {
        let ks = &link.keyspace;
        let bare = "video_id, segment, epoch, plays, impressions, exact, sealed";
        let sets = "play_set, impression_set";
        Ok(Self {
            put_row: link.prepare(&format!("INSERT INTO {ks}.tallies ({bare}, {sets}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?")).await?,
            put_sets: link.prepare(&format!("UPDATE {ks}.tallies USING TIMESTAMP ? SET play_set = ?, impression_set = ? WHERE video_id = ? AND segment = ? AND epoch = ?")).await?,
            put_index: link.prepare(&format!("INSERT INTO {ks}.epoch_index (segment, epoch, bucket, video_id, plays, impressions, exact, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?")).await?,
            put_epoch: link.prepare(&format!("INSERT INTO {ks}.epochs (segment, part, epoch) VALUES (?, 0, ?) USING TIMESTAMP ?")).await?,
            put_meta: link.prepare(&format!("INSERT INTO {ks}.meta (key, value) VALUES (?, ?)")).await?,
            row: link.prepare(&format!("SELECT {bare}, {sets} FROM {ks}.tallies WHERE video_id = ? AND segment = ? AND epoch = ?")).await?,
            video: link.prepare(&format!("SELECT {bare} FROM {ks}.tallies WHERE video_id = ? AND segment = ? ORDER BY epoch ASC")).await?,
            all_sets: link.prepare(&format!("SELECT video_id, segment, epoch, {sets} FROM {ks}.tallies")).await?,
            index: link.prepare(&format!("SELECT {bare} FROM {ks}.epoch_index WHERE segment = ? AND epoch = ? AND bucket = ?")).await?,
            segments: link.prepare(&format!("SELECT DISTINCT segment, part FROM {ks}.epochs")).await?,
            epochs: link.prepare(&format!("SELECT epoch FROM {ks}.epochs WHERE segment = ? AND part = 0")).await?,
            latest: link.prepare(&format!("SELECT epoch FROM {ks}.epochs WHERE segment = ? AND part = 0 LIMIT 1")).await?,
            meta: link.prepare(&format!("SELECT value FROM {ks}.meta WHERE key = ?")).await?,
            any: link.prepare(&format!("SELECT epoch FROM {ks}.tallies LIMIT 1")).await?,
        })
    }
}

/// A row without its sets, as it is read.
type Bare = (String, String, i64, Option<i64>, Option<i64>, Option<bool>, Option<bool>);

/// A row with them.
type Full = (
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<bool>,
    Option<bool>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// Runs a future on the shared runtime.
fn wait<T>(url: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    block_on(future).map_err(|e| RemoteError {
        operation: "start a runtime for",
        url: url.to_owned(),
        advice: "the system refuses threads".to_owned(),
        kind: FailureKind::Transient,
        source: Some(Box::new(e)),
    })?
}

impl CassandraTable {
    /// Connects to `hosts`, each `host:port`, and opens the table in `keyspace`.
    ///
    /// # Errors
    /// No host answers in time, or none takes the password; there are no tables, and the options
    /// do not say to make them, or they are of a newer release.
    pub fn open(hosts: &[String], keyspace: &str, options: &CassandraOptions) -> Result<Self> {
        wait(&hosts.join(","), async {
            let link = Link::connect(hosts, keyspace, options).await?;
            let mut checked = schema::check(&link).await;
            if options.create_schema && schema::is_missing(&checked) {
                checked = schema::migrate(&link, options).await;
            }
            checked?;
            let statements = Statements::prepare(&link).await?;
            Ok(Self { link, statements, concurrency: options.concurrency })
        })
    }

    /// Makes the keyspace and its tables, or brings them up to date; harmless to do again.
    ///
    /// # Errors
    /// As [`CassandraTable::open`]; or there is no keyspace and the options do not say how it is
    /// to be replicated.
    pub fn migrate(hosts: &[String], keyspace: &str, options: &CassandraOptions) -> Result<()> {
        wait(&hosts.join(","), async {
            let link = Link::connect(hosts, keyspace, options).await?;
            schema::migrate(&link, options).await
        })
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        wait(&self.link.url, future)
    }

    fn damaged(&self, what: String) -> TableError {
        TableError::Corrupt { path: self.link.url.clone().into(), what }
    }

    fn bare(&self, row: Bare) -> Result<TallyRow> {
        let (video, segment, epoch, plays, impressions, exact, sealed) = row;
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (Some(plays), Some(impressions), Some(exact), Some(sealed)) =
            (count(plays), count(impressions), exact, sealed)
        else {
            return Err(
                self.damaged(format!("the counts of video {video} in epoch {epoch}, segment \"{segment}\""))
            );
        };
        Ok(TallyRow {
            video_id: video.into(),
            segment: segment.into(),
            epoch: Epoch(epoch),
            counts: Counts { plays, impressions, exact },
            sealed,
            sets: None,
        })
    }

    async fn read_video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>> {
        let mut rows = Vec::new();
        self.link
            .each("read", &self.statements.video, (video, segment), |row: Bare| {
                rows.push(self.bare(row)?);
                Ok(())
            })
            .await?;
        Ok(rows)
    }

    /// The rows of an epoch's bucket.
    async fn read_bucket(&self, segment: &str, epoch: i64, bucket: i32) -> Result<Vec<TallyRow>> {
        let mut rows = Vec::new();
        self.link
            .each("read", &self.statements.index, (segment, epoch, bucket), |row: Bare| {
                rows.push(self.bare(row)?);
                Ok(())
            })
            .await?;
        Ok(rows)
    }

    fn buckets() -> impl Iterator<Item = i32> + Clone {
        0..schema::BUCKETS as i32
    }

    async fn read_top(&self, segment: &str, epoch: i64, limit: usize) -> Result<Vec<TallyRow>> {
        let buckets = Self::buckets().map(|bucket| self.read_bucket(segment, epoch, bucket));
        let keep = |mut top: Vec<TallyRow>, rows: Vec<TallyRow>| async move {
            top.extend(rows);
            top.sort_by(by_plays);
            top.truncate(limit);
            Ok(top)
        };
        stream::iter(buckets).buffer_unordered(schema::BUCKETS as usize).try_fold(Vec::new(), keep).await
    }

    /// The videos of a segment, by id: what a scan holds in memory.
    async fn videos(&self, segment: &str) -> Result<BTreeSet<Arc<str>>> {
        let mut epochs = Vec::new();
        self.link
            .each("read", &self.statements.epochs, (segment,), |(epoch,): (i64,)| {
                epochs.push(epoch);
                Ok(())
            })
            .await?;
        let buckets = epochs.iter().flat_map(|epoch| Self::buckets().map(move |bucket| (*epoch, bucket)));
        let reads = buckets.map(|(epoch, bucket)| self.read_bucket(segment, epoch, bucket));
        let add = |mut videos: BTreeSet<Arc<str>>, rows: Vec<TallyRow>| async move {
            videos.extend(rows.into_iter().map(|row| row.video_id));
            Ok(videos)
        };
        stream::iter(reads).buffer_unordered(self.concurrency).try_fold(BTreeSet::new(), add).await
    }
}

impl Table for CassandraTable {
    /// Not one transaction: of a write that failed some rows may be there. As the larger row wins,
    /// writing all again, or later ones first, ends in the same table.
    fn write(&mut self, rows: &[TallyRow]) -> Result<()> {
        check_range(rows)?;
        self.wait(self.write_rows(rows))
    }

    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Result<Option<TallyRow>> {
        self.wait(async {
            let mut found = None;
            let values = (video, segment, epoch.0);
            self.link
                .each("read", &self.statements.row, values, |row: Full| {
                    found = Some(row);
                    Ok(())
                })
                .await?;
            let Some((video, segment, epoch, plays, impressions, exact, sealed, played, shown)) = found
            else {
                return Ok(None);
            };
            let row = self.bare((video, segment, epoch, plays, impressions, exact, sealed))?;
            let (played, shown) = (played.unwrap_or_default(), shown.unwrap_or_default());
            if played.is_empty() && shown.is_empty() {
                return Ok(Some(row));
            }
            match (decode_set(&played), decode_set(&shown)) {
                (Some(played), Some(shown)) => {
                    Ok(Some(TallyRow { sets: Some(TallySets { played, shown }.into()), ..row }))
                }
                _ => Err(self.damaged(format!("the sets of video {} in epoch {}", row.video_id, row.epoch))),
            }
        })
    }

    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Result<()>) -> Result<()> {
        self.wait(async {
            let videos = self.videos(segment).await?;
            let reads = videos.iter().map(|video| self.read_video(video, segment));
            let mut rows = stream::iter(reads).buffered(self.concurrency);
            while let Some(rows) = rows.try_next().await? {
                rows.into_iter().try_for_each(&mut *each)?;
            }
            Ok(())
        })
    }

    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Result<Vec<TallyRow>> {
        self.wait(async {
            let mut latest = epoch.map(|epoch| epoch.0);
            if latest.is_none() {
                self.link
                    .each("read", &self.statements.latest, (segment,), |(epoch,): (i64,)| {
                        latest = Some(epoch);
                        Ok(())
                    })
                    .await?;
            }
            match latest {
                Some(epoch) => self.read_top(segment, epoch, limit).await,
                None => Ok(Vec::new()),
            }
        })
    }

    fn video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>> {
        self.wait(self.read_video(video, segment))
    }

    fn find_request(&self, request: RequestId) -> Result<Vec<Found>> {
        type Sets = (String, String, i64, Option<Vec<u8>>, Option<Vec<u8>>);
        self.wait(async {
            let mut all = Vec::new();
            self.link
                .each(
                    "read",
                    &self.statements.all_sets,
                    (),
                    |(video, segment, epoch, played, shown): Sets| {
                        let (played, shown) = (played.unwrap_or_default(), shown.unwrap_or_default());
                        if played.is_empty() && shown.is_empty() {
                            return Ok(());
                        }
                        let contains = |bytes: &[u8]| {
                            stored_contains(bytes, request).ok_or_else(|| {
                                self.damaged(format!("the sets of video {video} in epoch {epoch}"))
                            })
                        };
                        let (played, shown) = (contains(&played)?, contains(&shown)?);
                        if played != Some(false) || shown != Some(false) {
                            let (video_id, segment) = (video.into(), segment.into());
                            all.push(Found { video_id, segment, epoch: Epoch(epoch), played, shown });
                        }
                        Ok(())
                    },
                )
                .await?;
            all.sort_by(|a, b| (&a.video_id, &a.segment, a.epoch).cmp(&(&b.video_id, &b.segment, b.epoch)));
            Ok(all)
        })
    }

    fn segments(&self) -> Result<Vec<Arc<str>>> {
        self.wait(async {
            let mut segments = Vec::new();
            self.link
                .each("read", &self.statements.segments, (), |(segment, _): (String, i32)| {
                    segments.push(Arc::from(segment));
                    Ok(())
                })
                .await?;
            segments.sort_unstable();
            Ok(segments)
        })
    }

    fn meta_get(&self, key: &str) -> Result<Option<String>> {
        self.wait(async {
            let mut found = None;
            self.link
                .each("read", &self.statements.meta, (key,), |(value,): (Option<String>,)| {
                    found = value;
                    Ok(())
                })
                .await?;
            Ok(found)
        })
    }

    fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        self.wait(async {
            let done = self.link.session.execute_unpaged(&self.statements.put_meta, (key, value)).await;
            done.map_err(|e| self.link.refused("write to", e))?;
            Ok(())
        })
    }

    fn is_empty(&self) -> Result<bool> {
        self.wait(async {
            let mut empty = true;
            self.link
                .each("read", &self.statements.any, (), |_: (i64,)| {
                    empty = false;
                    Ok(())
                })
                .await?;
            Ok(empty)
        })
    }
}
