//! The tables in a keyspace: made, told apart, brought up to date.

use std::time::Duration;

use super::CassandraOptions;
use super::link::Link;
use crate::error::{FailureKind, TableError};
use crate::table::Result;

/// The version of this layout, in `meta`.
const VERSION: i64 = 1;
const VERSION_KEY: &str = "uptake.schema";

/// An epoch's videos are spread over so many partitions, by CRC-32C of the video id.
pub(super) const BUCKETS: u32 = 16;

/// `epochs` has a constant in its key because the segment of everyone is the empty text, which
/// cannot be a whole key.
const TABLES: [(&str, &str); 4] = [
    (
        "tallies",
        "video_id text, segment text, epoch bigint, plays bigint, impressions bigint, exact boolean, \
         sealed boolean, play_set blob, impression_set blob, PRIMARY KEY ((video_id, segment), epoch)) \
         WITH CLUSTERING ORDER BY (epoch DESC) AND comment = \
         'uptake: plays and impressions of a video by epoch and segment; USING TIMESTAMP is the size, not a time'",
    ),
    (
        "epoch_index",
        "segment text, epoch bigint, bucket int, video_id text, plays bigint, impressions bigint, exact boolean, \
         sealed boolean, PRIMARY KEY ((segment, epoch, bucket), video_id)) \
         WITH comment = 'uptake: the rows of tallies by epoch; bucket = crc32c(video_id) mod 16'",
    ),
    (
        "epochs",
        "segment text, part int, epoch bigint, PRIMARY KEY ((segment, part), epoch)) \
         WITH CLUSTERING ORDER BY (epoch DESC) AND comment = 'uptake: the epochs of a segment; part is 0'",
    ),
    ("meta", "key text PRIMARY KEY, value text) WITH comment = 'uptake: small values'"),
];

/// Makes or brings up to date the keyspace and its tables. Harmless to do again.
pub(super) async fn migrate(link: &Link, options: &CassandraOptions) -> Result<()> {
    let keyspace = &link.keyspace;
    let there = link
        .rows::<(String,)>(
            "read",
            "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?",
            (keyspace,),
        )
        .await?;
    if there.is_empty() {
        let Some(replication) = options.replication_cql()? else {
            let advice = format!(
                "there is no keyspace {keyspace}, and the option replication does not say how to make it \
                 (write 1 for a single server, or dc1:3,dc2:3)"
            );
            return Err(link.error("make the tables of", advice, FailureKind::Permanent, None).into());
        };
        link.plain(&format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}"))
            .await?;
    } else if let Some(found) = version(link).await?.filter(|found| *found > VERSION) {
        return Err(TableError::Newer { path: link.url.clone().into(), found, known: VERSION });
    }
    for (name, columns) in TABLES {
        link.plain(&format!("CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns}")).await?;
        if name != "meta" && ttl(link, name).await? != options.ttl {
            let seconds = options.ttl.as_secs();
            link.plain(&format!("ALTER TABLE {keyspace}.{name} WITH default_time_to_live = {seconds}"))
                .await?;
        }
    }
    let insert = format!("INSERT INTO {keyspace}.meta (key, value) VALUES (?, ?)");
    link.rows_or_nothing("write to", &insert, (VERSION_KEY, VERSION.to_string())).await
}

async fn ttl(link: &Link, table: &str) -> Result<Duration> {
    let cql =
        "SELECT default_time_to_live FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let found = link.rows::<(i32,)>("read", cql, (&link.keyspace, table)).await?;
    Ok(Duration::from_secs(found.first().map_or(0, |(seconds,)| u64::try_from(*seconds).unwrap_or(0))))
}

/// The version of the layout, if there is one.
async fn version(link: &Link) -> Result<Option<i64>> {
    let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'meta'";
    if link.rows::<(String,)>("read", cql, (&link.keyspace,)).await?.is_empty() {
        return Ok(None);
    }
    let cql = format!("SELECT value FROM {}.meta WHERE key = ?", link.keyspace);
    let found = link.rows::<(String,)>("read", &cql, (VERSION_KEY,)).await?;
    Ok(found.first().and_then(|(value,)| value.parse().ok()))
}

/// Refuses a keyspace that is not as this program would have it.
pub(super) async fn check(link: &Link) -> Result<()> {
    match version(link).await? {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => {
            Err(TableError::Newer { path: link.url.clone().into(), found, known: VERSION })
        }
        _ => Err(TableError::NoSchema { url: link.url.clone() }),
    }
}

/// Whether the tables were never made.
pub(super) fn is_missing(result: &Result<()>) -> bool {
    matches!(result, Err(TableError::NoSchema { .. }))
}
