//! The embedded table: one file, `table.sqlite`, that `sqlite3` and Python open as it is.
//!
//! Table `tallies` has one row per segment, epoch and video, in that order, because an epoch is what is
//! written and what is served: its rows stand side by side, and a new epoch comes behind the others. `meta`
//! holds small values. The columns `played` and `shown` are the sets of request ids, NULL until the epoch is sealed: a
//! tag byte, then for tag 0 the 64-bit ids, ascending, 8 bytes little-endian each; for tag 1 a
//! compact theta sketch in the bytes of Apache DataSketches. `PRAGMA user_version` is the version
//! of this layout. One process may write while others read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::types::{Null, ValueRef};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Statement, Transaction, TransactionBehavior, params,
};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, RequestId, TallyRow};

use super::{Found, Result, Table, check_range};
use crate::error::TableError;
use crate::faults::point;
use crate::files;

/// The table's file in its directory.
pub const FILE_NAME: &str = "table.sqlite";

/// The layout that this program writes, as `PRAGMA user_version`.
const VERSION: i64 = 2;

/// The oldest that it reads, and turns into its own when it writes: rows by video, segment and epoch.
const OLDEST: i64 = 1;

/// "UPTK" as `PRAGMA application_id`, by which `file` and others tell what the file is.
const APPLICATION_ID: i64 = 0x5550_544b;

/// The table's file in its directory, which has to be there.
fn existing(directory: &Path) -> Result<PathBuf> {
    let path = directory.join(FILE_NAME);
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(TableError::Missing { path }),
        Err(error) => Err(TableError::io("look at", &path, error)),
    }
}

/// Whether the file lies on a disk that is mounted to read only.
fn on_read_only_disk(path: &Path) -> bool {
    let written = File::options().append(true).open(path);
    written.is_err_and(|e| e.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

/// A path as part of a `file:` URI.
fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn is_locked(error: &TableError) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    let TableError::Sqlite { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// How long a process waits for the one that is writing. A transaction of a whole tick takes far
/// less; who waits longer has met a writer that hangs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const TALLIES: &str = "
CREATE TABLE tallies (
    segment     TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    video_id    TEXT    NOT NULL,
    plays       INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    exact       INTEGER NOT NULL,
    sealed      INTEGER NOT NULL,
    played      BLOB,
    shown       BLOB,
    PRIMARY KEY (segment, epoch, video_id)
) WITHOUT ROWID, STRICT;
";

const META: &str = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT";

/// The rows of the layout before, in the order of this one. By an index, which some of its tables have: to sort
/// all sets would cost as much room as they take.
const TO_BEFORE: &str = "
CREATE INDEX IF NOT EXISTS tallies_by_epoch ON tallies (segment, epoch);
ALTER TABLE tallies RENAME TO tallies_before;
";
const FROM_BEFORE: &str = "
INSERT INTO tallies (video_id, segment, epoch, plays, impressions, exact, sealed, played, shown)
SELECT video_id, segment, epoch, plays, impressions, exact, sealed, played, shown
FROM tallies_before INDEXED BY tallies_by_epoch ORDER BY segment, epoch, video_id;
DROP TABLE tallies_before;
";

/// Each name once, by a step from one to the next: the table has few names and many rows.
const SEGMENTS: &str = "
WITH RECURSIVE names(name) AS (
    SELECT min(segment) FROM tallies
    UNION ALL
    SELECT (SELECT min(segment) FROM tallies WHERE segment > name) FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
";

/// A video's rows by a look into each epoch of the segment.
const OF_VIDEO: &str = "
WITH RECURSIVE epochs(at) AS (
    SELECT min(epoch) FROM tallies WHERE segment = ?2
    UNION ALL
    SELECT (SELECT min(epoch) FROM tallies WHERE segment = ?2 AND epoch > at) FROM epochs WHERE at IS NOT NULL
)
SELECT video_id, segment, epoch, plays, impressions, exact, sealed
FROM epochs CROSS JOIN tallies ON segment = ?2 AND epoch = at AND video_id = ?1
ORDER BY epoch
";

/// The values of one row, and of as many as are written by one statement: half of what a row costs by itself is
/// beginning and ending a statement.
const VALUES: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?)";
const ROWS_AT_ONCE: usize = 32;

/// What follows the values. The larger row wins; equal ones add the sealed flag and the sets. The same rule as `merge`
/// of the table in memory, which the tests hold it to.
const OR_MERGE: &str = "
ON CONFLICT DO UPDATE SET
    plays = excluded.plays, impressions = excluded.impressions, exact = excluded.exact,
    sealed = CASE WHEN <larger> THEN excluded.sealed ELSE max(old.sealed, excluded.sealed) END,
    played = CASE WHEN <larger> OR <adds sets> THEN excluded.played ELSE old.played END,
    shown  = CASE WHEN <larger> OR <adds sets> THEN excluded.shown ELSE old.shown END
WHERE <larger> OR <equal> AND (excluded.sealed > old.sealed OR <adds sets>)
";

/// Writes so many rows, nine parameters each.
fn upsert(rows: usize) -> String {
    let sized = |of: &str| format!("({of}.plays + {of}.impressions, {of}.plays, {of}.exact)");
    let (new, old) = (sized("excluded"), sized("old"));
    let adds = "(excluded.played IS NOT NULL AND (old.played IS NULL
        OR (excluded.played, excluded.shown) > (old.played, old.shown)))";
    let or_merge = OR_MERGE
        .replace("<larger>", &format!("{new} > {old}"))
        .replace("<equal>", &format!("{new} = {old}"))
        .replace("<adds sets>", adds);
    let values = vec![VALUES; rows].join(", ");
    format!("INSERT INTO tallies AS old ({BARE}, played, shown) VALUES {values} {or_merge}")
}

/// The columns of a row without its sets.
const BARE: &str = "video_id, segment, epoch, plays, impressions, exact, sealed";

/// Lets go of sealed rows of a segment before an epoch, so many at most.
const DROP: &str = "
DELETE FROM tallies WHERE (segment, epoch, video_id) IN (
    SELECT segment, epoch, video_id FROM tallies WHERE segment = ?1 AND epoch < ?2 AND sealed = 1 LIMIT ?3
)
";

/// A table in a file.
#[derive(Debug)]
pub struct SqliteTable {
    connection: Connection,
    path: PathBuf,
    keep: Keep,
}

/// Which rows are kept.
#[derive(Debug, Default)]
struct Keep {
    /// Those of so many epochs before the newest that was written; `None`: all.
    epochs: Option<i64>,
    newest: Option<Epoch>,
    /// No sealed row is left before this epoch.
    dropped_before: Option<Epoch>,
}

impl Keep {
    /// Before which epoch rows are to go, once these are written.
    fn before(&mut self, rows: &[TallyRow]) -> Option<Epoch> {
        self.newest = self.newest.max(rows.iter().map(|row| row.epoch).max());
        let before = Epoch(self.newest?.0.saturating_sub(self.epochs?));
        (self.dropped_before < Some(before)).then_some(before)
    }
}

/// Keeps every writer away from a table for as long as it lives: for drills. Readers go on.
#[derive(Debug)]
pub struct Held {
    _connection: Connection,
}

impl SqliteTable {
    /// Keeps every writer away from the table in `directory`, as a server that is away would.
    ///
    /// ```
    /// use uptake_connectors::table::{SqliteTable, Table};
    /// let folder = tempfile::tempdir()?;
    /// let mut table = SqliteTable::open(folder.path())?;
    /// table.meta_put("a", "1")?;
    /// let held = SqliteTable::hold(folder.path())?;
    /// assert_eq!(table.meta_get("a")?.as_deref(), Some("1"));
    /// drop(held);
    /// table.meta_put("a", "2")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no table, or another writer does not make room.
    pub fn hold(directory: &Path) -> Result<Held> {
        let path = existing(directory)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let table = Self::connect(path, flags)?;
        table.on("hold", |db| db.execute_batch("BEGIN IMMEDIATE"))?;
        Ok(Held { _connection: table.connection })
    }

    /// Opens the table in `directory` to write and to read; makes the directory and the file
    /// where there are none.
    ///
    /// # Errors
    /// The file is of a newer layout, or is something else, or the system refuses.
    pub fn open(directory: &Path) -> Result<Self> {
        files::make_directories(directory)?;
        let path = directory.join(FILE_NAME);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut table = Self::connect(path, flags)?;
        table.prepare_to_write()?;
        Ok(table)
    }

    /// Opens the table in `directory` to read what a writer, in this process or another, has
    /// committed.
    ///
    /// # Errors
    /// There is no such file, it is of a newer layout, or is something else.
    pub fn open_read_only(directory: &Path) -> Result<Self> {
        let path = existing(directory)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let table = if on_read_only_disk(&path) {
            // Even a reader keeps a file beside the table, except of one that nobody can change.
            let uri = format!("file:{}?immutable=1", escaped(&path));
            let connection = Connection::open_with_flags(&uri, flags | OpenFlags::SQLITE_OPEN_URI)
                .map_err(|e| TableError::sqlite("open", &path, e))?;
            Self { connection, path, keep: Keep::default() }
        } else {
            Self::connect(path, flags)?
        };
        match table.layout()? {
            Layout::Ours => Ok(table),
            Layout::Empty => Err(TableError::Missing { path: table.path }),
        }
    }

    fn connect(path: PathBuf, flags: OpenFlags) -> Result<Self> {
        // The driver takes a file that is shorter than its header for an empty one.
        let foreign = |path: &Path| {
            let mut head = Vec::new();
            let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
            read.is_ok() && !head.is_empty() && head != b"SQLite format 3\0"
        };
        if foreign(&path) {
            return Err(TableError::Foreign { path });
        }
        let connection =
            Connection::open_with_flags(&path, flags).map_err(|e| TableError::sqlite("open", &path, e))?;
        let table = Self { connection, path, keep: Keep::default() };
        table.on("open", |db| {
            db.busy_timeout(BUSY_TIMEOUT)?;
            // 16 MiB: the inner pages of a few million rows stay in memory between ticks.
            db.pragma_update(None, "cache_size", -16_384)
        })?;
        Ok(table)
    }

    /// Several processes may do so at once, or one where another was killed: the driver then tells
    /// some of them at once that the table is locked, without waiting, for a moment only.
    fn prepare_to_write(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.try_prepare_to_write() {
                Err(error) if is_locked(&error) && begun.elapsed() < BUSY_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                prepared => return prepared,
            }
        }
    }

    fn try_prepare_to_write(&mut self) -> Result<()> {
        self.layout()?;
        self.on("open", |db| {
            // Larger pages than the default of 4 KiB: rows with their sets are some hundred bytes,
            // and a write of many rows touches a quarter of the pages. Takes effect on a new file.
            db.pragma_update(None, "page_size", 16_384)?;
            // A statement of several rows keeps the pages that it changes as they were until it ends: some 60 KB, which
            // would else be written to a file, ten times as much in all as the rows themselves.
            db.pragma_update(None, "temp_store", "MEMORY")?;
            // The log beside the file lets readers go on while one process writes.
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            // A power cut may lose the last transactions, never the file; the rows come again
            // from the checkpoint, and the larger row wins.
            db.pragma_update(None, "synchronous", "NORMAL")
        })?;
        self.transaction("create", |db| {
            // Asked again inside the transaction: two processes may get here at once.
            let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match version {
                VERSION => return Ok(()),
                0 => {
                    db.execute_batch(TALLIES)?;
                    db.execute_batch(META)?;
                    db.pragma_update(None, "application_id", APPLICATION_ID)?;
                }
                _ => {
                    db.execute_batch(TO_BEFORE)?;
                    db.execute_batch(TALLIES)?;
                    db.execute_batch(FROM_BEFORE)?;
                }
            }
            db.pragma_update(None, "user_version", VERSION)
        })
    }

    fn layout(&self) -> Result<Layout> {
        let (version, tables, id): (i64, i64, i64) = self.on("open", |db| {
            // All at one moment: another process may be making the table between two looks.
            let moment = db.unchecked_transaction()?;
            let version = moment.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let tables = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            let id = moment.pragma_query_value(None, "application_id", |row| row.get(0))?;
            Ok((version, tables, id))
        })?;
        match version {
            0 if tables == 0 => Ok(Layout::Empty),
            OLDEST..=VERSION if id == APPLICATION_ID => Ok(Layout::Ours),
            found if found > VERSION => {
                Err(TableError::Newer { path: self.path.clone(), found, known: VERSION })
            }
            _ => Err(self.foreign()),
        }
    }

    /// The table's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn foreign(&self) -> TableError {
        TableError::Foreign { path: self.path.clone() }
    }

    fn on<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        f(&self.connection).map_err(|e| TableError::sqlite(operation, &self.path, e))
    }

    fn transaction(
        &mut self,
        operation: &'static str,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        // Immediate: the wait for another writer happens here, where it can be waited for.
        let run = |db: &mut Connection| {
            point("about to begin a transaction");
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            f(&transaction)?;
            point("about to commit a transaction");
            transaction.commit()?;
            point("transaction committed");
            Ok(())
        };
        run(&mut self.connection).map_err(|e| TableError::sqlite(operation, &self.path, e))
    }

    fn bare_rows(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<TallyRow>> {
        self.on("read", |db| {
            let mut statement = db.prepare(&format!("SELECT {BARE} FROM tallies WHERE {condition}"))?;
            statement.query_map(values, bare_row)?.collect()
        })
    }

    fn damaged(&self, row: &TallyRow) -> TableError {
        TableError::Corrupt {
            path: self.path.clone(),
            what: format!(
                "the sets of video {} in epoch {}, segment \"{}\"",
                row.video_id, row.epoch, row.segment
            ),
        }
    }
}

enum Layout {
    Empty,
    Ours,
}

fn bare_row(row: &Row<'_>) -> rusqlite::Result<TallyRow> {
    Ok(TallyRow {
        video_id: row.get(0)?,
        segment: row.get(1)?,
        epoch: Epoch(row.get(2)?),
        counts: Counts { plays: count(row, 3)?, impressions: count(row, 4)?, exact: row.get(5)? },
        sealed: row.get(6)?,
        sets: None,
    })
}

fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

/// The stored bytes of a set: a tag, then ids or a sketch.
pub(super) fn encode_set(set: &RequestSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_set_into(&mut bytes, set);
    bytes
}

/// The same, in place of what is in `bytes`: one allocation for all rows of a write.
fn encode_set_into(bytes: &mut Vec<u8>, set: &RequestSet) {
    bytes.clear();
    match set {
        RequestSet::Exact(ids) => {
            // Room first, then words into their places: that is a copy, not a push for each id.
            bytes.resize(1 + ids.len() * 8, 0);
            let (places, _) = bytes[1..].as_chunks_mut::<8>();
            places.iter_mut().zip(ids).for_each(|(place, id)| *place = id.to_le_bytes());
        }
        RequestSet::Sketch(sketch) => {
            bytes.push(1);
            bytes.extend_from_slice(sketch);
        }
    }
}

/// The set that `encode_set` wrote, if it did.
pub(super) fn decode_set(bytes: &[u8]) -> Option<RequestSet> {
    match bytes.split_first()? {
        (0, ids) => {
            let (ids, rest) = ids.as_chunks::<8>();
            let ids: Vec<u64> = ids.iter().map(|id| u64::from_le_bytes(*id)).collect();
            (rest.is_empty() && ids.is_sorted_by(|a, b| a < b)).then_some(RequestSet::Exact(ids))
        }
        (1, sketch) => Some(RequestSet::Sketch(sketch.to_vec())),
        _ => None,
    }
}

/// Whether the stored bytes hold `request`, without copying them; `Some(None)` for a sketch.
pub(super) fn stored_contains(bytes: &[u8], request: RequestId) -> Option<Option<bool>> {
    match bytes.split_first()? {
        (0, ids) => {
            let (ids, rest) = ids.as_chunks::<8>();
            let found = ids.binary_search_by_key(&request.0, |id| u64::from_le_bytes(*id)).is_ok();
            rest.is_empty().then_some(Some(found))
        }
        (1, _) => Some(None),
        _ => None,
    }
}

fn blob<'a>(row: &'a Row<'_>, index: usize) -> rusqlite::Result<Option<&'a [u8]>> {
    match row.get_ref(index)? {
        ValueRef::Null => Ok(None),
        value => Ok(Some(value.as_blob()?)),
    }
}

/// The place of each row's segment among the names of all segments, ascending.
fn segment_places(rows: &[TallyRow]) -> Vec<u32> {
    let mut names: Vec<&str> = rows.iter().map(|row| &*row.segment).collect();
    // Rows of one writer mostly come by segment: few are left to sort.
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let mut last: Option<(&Arc<str>, u32)> = None;
    let place = |row: &TallyRow| names.partition_point(|name| *name < &*row.segment) as u32;
    let places = rows.iter().map(|row| {
        let place = match last {
            Some((name, place)) if Arc::ptr_eq(name, &row.segment) => place,
            _ => place(row),
        };
        last = Some((&row.segment, place));
        place
    });
    places.collect()
}

/// The rows' indices in the order of the primary key, in which inserting costs least: each row
/// then lands on the page of the one before.
fn in_key_order(rows: &[TallyRow]) -> Vec<u32> {
    // The first 8 bytes decide most comparisons without following a pointer.
    let prefix = |row: &TallyRow| {
        let mut head = [0u8; 8];
        let n = row.video_id.len().min(8);
        head[..n].copy_from_slice(&row.video_id.as_bytes()[..n]);
        u64::from_be_bytes(head)
    };
    let places = segment_places(rows).into_iter().zip(0..);
    let keys = rows.iter().zip(places).map(|(row, (place, index))| ((place, row.epoch), prefix(row), index));
    let mut order: Vec<((u32, Epoch), u64, u32)> = keys.collect();
    order.sort_unstable_by(|(group_a, head_a, a), (group_b, head_b, b)| {
        (group_a, head_a).cmp(&(group_b, head_b)).then_with(|| {
            let id = |index: &u32| &rows[*index as usize].video_id;
            id(a).cmp(id(b)).then(a.cmp(b))
        })
    });
    order.into_iter().map(|(.., index)| index).collect()
}

/// With as many rows as are written and so many more, others may go: writing costs twice as much at most, and what is
/// to go is gone in the end.
const ROWS_DROPPED_LEAST: usize = 1_000;

/// Lets go of sealed rows before an epoch, of `most` at most; says whether none is left.
fn drop_before(db: &Connection, before: Epoch, most: usize) -> rusqlite::Result<bool> {
    let segments =
        db.prepare(SEGMENTS)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let (mut statement, mut left) = (db.prepare(DROP)?, most);
    for segment in segments {
        let at_most = i64::try_from(left).unwrap_or(i64::MAX);
        left -= statement.execute(params![segment, before.0, at_most])?;
        if left == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a row's values to the parameters after the first `before`; `bytes` is room to put sets together in.
fn bind(
    statement: &mut Statement<'_>,
    before: usize,
    row: &TallyRow,
    bytes: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(before + 1, &*row.video_id)?;
    statement.raw_bind_parameter(before + 2, &*row.segment)?;
    statement.raw_bind_parameter(before + 3, row.epoch.0)?;
    statement.raw_bind_parameter(before + 4, row.counts.plays as i64)?;
    statement.raw_bind_parameter(before + 5, row.counts.impressions as i64)?;
    statement.raw_bind_parameter(before + 6, row.counts.exact)?;
    statement.raw_bind_parameter(before + 7, row.sealed)?;
    let mut bind_set = |place, set: Option<&RequestSet>| match set {
        Some(set) => {
            encode_set_into(bytes, set);
            statement.raw_bind_parameter(place, &**bytes)
        }
        None => statement.raw_bind_parameter(place, Null),
    };
    bind_set(before + 8, row.sets.as_ref().map(|sets| &sets.played))?;
    bind_set(before + 9, row.sets.as_ref().map(|sets| &sets.shown))
}

impl Table for SqliteTable {
    fn write(&mut self, rows: &[TallyRow]) -> Result<()> {
        check_range(rows)?;
        if rows.is_empty() {
            return Ok(());
        }
        let order = in_key_order(rows);
        let (before, mut all_gone) = (self.keep.before(rows), false);
        self.transaction("write to", |db| {
            let mut sets = Vec::new();
            let (chunks, rest) = order.as_chunks::<ROWS_AT_ONCE>();
            for (rows_each, indices) in [(ROWS_AT_ONCE, chunks.as_flattened()), (1, rest)] {
                if indices.is_empty() {
                    continue;
                }
                let mut statement = db.prepare(&upsert(rows_each))?;
                for indices in indices.chunks(rows_each) {
                    for (n, index) in indices.iter().enumerate() {
                        bind(&mut statement, 9 * n, &rows[*index as usize], &mut sets)?;
                    }
                    statement.raw_execute()?;
                }
            }
            if let Some(before) = before {
                all_gone = drop_before(db, before, ROWS_DROPPED_LEAST + rows.len())?;
            }
            Ok(())
        })?;
        if all_gone {
            self.keep.dropped_before = before;
        }
        Ok(())
    }

    fn keep_epochs(&mut self, epochs: i64) {
        self.keep = Keep { epochs: Some(epochs), ..Keep::default() };
    }

    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Result<Option<TallyRow>> {
        let found = self.on("read", |db| {
            db.prepare(&format!(
                "SELECT {BARE}, played, shown FROM tallies
                 WHERE video_id = ?1 AND segment = ?2 AND epoch = ?3"
            ))?
            .query_row(params![video, segment, epoch.0], |row| {
                let set = |index| Ok::<_, rusqlite::Error>(blob(row, index)?.map(decode_set));
                Ok((bare_row(row)?, set(7)?, set(8)?))
            })
            .optional()
        })?;
        match found {
            None => Ok(None),
            Some((row, None, None)) => Ok(Some(row)),
            Some((row, Some(Some(played)), Some(Some(shown)))) => {
                Ok(Some(TallyRow { sets: Some(TallySets { played, shown }.into()), ..row }))
            }
            Some((row, ..)) => Err(self.damaged(&row)),
        }
    }

    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Result<()>) -> Result<()> {
        let wrap = |e| TableError::sqlite("read", &self.path, e);
        let sql = format!("SELECT {BARE} FROM tallies WHERE segment = ?1 ORDER BY video_id, epoch");
        let mut statement = self.connection.prepare(&sql).map_err(wrap)?;
        let mut rows = statement.query([segment]).map_err(wrap)?;
        while let Some(row) = rows.next().map_err(wrap)? {
            each(bare_row(row).map_err(wrap)?)?;
        }
        Ok(())
    }

    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Result<Vec<TallyRow>> {
        let latest = || {
            self.on("read", |db| {
                db.query_row("SELECT max(epoch) FROM tallies WHERE segment = ?1", [segment], |row| row.get(0))
            })
        };
        let epoch: Option<i64> = match epoch {
            Some(epoch) => Some(epoch.0),
            None => latest()?,
        };
        let Some(epoch) = epoch else { return Ok(Vec::new()) };
        self.bare_rows(
            "segment = ?1 AND epoch = ?2 ORDER BY plays DESC, impressions DESC, video_id LIMIT ?3",
            params![segment, epoch, i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    fn video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>> {
        self.on("read", |db| db.prepare(OF_VIDEO)?.query_map([video, segment], bare_row)?.collect())
    }

    fn find_request(&self, request: RequestId) -> Result<Vec<Found>> {
        let wrap = |e| TableError::sqlite("read", &self.path, e);
        // In the order in which they stand: to sort all sets would cost as much room as they take.
        let sql = format!("SELECT {BARE}, played, shown FROM tallies WHERE played IS NOT NULL");
        let mut statement = self.connection.prepare(&sql).map_err(wrap)?;
        let mut rows = statement.query([]).map_err(wrap)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(wrap)? {
            let contains = |index| {
                let bytes = blob(row, index).map_err(wrap)?.unwrap_or_default();
                match stored_contains(bytes, request) {
                    Some(answer) => Ok(answer),
                    None => Err(self.damaged(&bare_row(row).map_err(wrap)?)),
                }
            };
            let (played, shown) = (contains(7)?, contains(8)?);
            if played != Some(false) || shown != Some(false) {
                let row = bare_row(row).map_err(wrap)?;
                let TallyRow { video_id, segment, epoch, .. } = row;
                all.push(Found { video_id, segment, epoch, played, shown });
            }
        }
        all.sort_unstable_by(|a, b| {
            (&a.video_id, &a.segment, a.epoch).cmp(&(&b.video_id, &b.segment, b.epoch))
        });
        Ok(all)
    }

    fn segments(&self) -> Result<Vec<Arc<str>>> {
        self.on("read", |db| db.prepare(SEGMENTS)?.query_map([], |row| row.get(0))?.collect())
    }

    fn meta_get(&self, key: &str) -> Result<Option<String>> {
        self.on("read", |db| {
            db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
        })
    }

    fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        self.transaction("write to", |db| {
            db.execute(
                "INSERT INTO meta (key, value) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
                [key, value],
            )?;
            Ok(())
        })
    }

    fn is_empty(&self) -> Result<bool> {
        self.on("read", |db| db.query_row("SELECT NOT EXISTS (SELECT 1 FROM tallies)", [], |row| row.get(0)))
    }
}
