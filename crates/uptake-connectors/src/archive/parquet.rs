//! The tallies of one part as a Parquet file.
//!
//! The same rows give the same bytes: no time, no host and no release is in the file. A row has
//! `played` and `shown` as lists of request ids, or `played_sketch` and `shown_sketch` as compact
//! theta sketches of Apache DataSketches; the other of the two is null. Ids are stored plain:
//! they are random bits, which no dictionary or compression makes smaller. The metadata has a
//! checksum of all pages, because a damaged id would otherwise be read as another one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::column::reader::get_typed_column_reader;
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::ColumnPath;
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, TallyRow};

use super::{PartInfo, Result, TallyPart};
use crate::error::{ArchiveError, FailureKind};
use crate::faults::point;
use crate::guard::guard;
use crate::sheet::{self, GROUP_ROWS, byte_arrays, next};

const SCHEMA: &str = "message tallies {
    required binary video_id (STRING);
    required binary segment (STRING);
    required int64 epoch_number;
    required int64 epoch_start (TIMESTAMP(MILLIS, true));
    required int64 plays;
    required int64 impressions;
    required boolean exact;
    optional group played (LIST) { repeated group list { required int64 element (INTEGER(64, false)); } }
    optional group shown (LIST) { repeated group list { required int64 element (INTEGER(64, false)); } }
    optional binary played_sketch;
    optional binary shown_sketch;
}";

/// The version of this layout, in the file's metadata.
const FORMAT: &str = "1";

/// Which of a row's sets a column holds.
type Pick = fn(&TallySets) -> &RequestSet;
const PLAYED: Pick = |sets| &sets.played;
const SHOWN: Pick = |sets| &sets.shown;

/// Writes sorted rows to a new file and flushes it to the device.
pub(super) fn write(path: &Path, part: &TallyPart, size: u64, rows: &[TallyRow]) -> Result<()> {
    point("about to create a temporary file");
    let mut file = File::create_new(path).map_err(|e| ArchiveError::io("create", path, e))?;
    point("temporary file created");
    encode(&mut file, part, size, rows).map_err(|e| ArchiveError::parquet("write", path, e))?;
    point("temporary file written");
    file.sync_all().map_err(|e| ArchiveError::io("flush", path, e))?;
    point("temporary file flushed");
    Ok(())
}

fn encode<W: Write + Send>(out: W, part: &TallyPart, size: u64, rows: &[TallyRow]) -> ParquetResult<()> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let out = Summed { inner: out, bytes: 0, crc: 0 };
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties(part, size, rows.len())?))?;
    for rows in rows.chunks(GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        texts(&mut group, rows, |row| &row.video_id)?;
        texts(&mut group, rows, |row| &row.segment)?;
        column::<Int64Type, _>(&mut group, rows, |row| row.epoch.0)?;
        column::<Int64Type, _>(&mut group, rows, |row| part.length.start(row.epoch).0)?;
        column::<Int64Type, _>(&mut group, rows, |row| row.counts.plays as i64)?;
        column::<Int64Type, _>(&mut group, rows, |row| row.counts.impressions as i64)?;
        column::<BoolType, _>(&mut group, rows, |row| row.counts.exact)?;
        id_column(&mut group, rows, PLAYED)?;
        id_column(&mut group, rows, SHOWN)?;
        sketch_column(&mut group, rows, PLAYED)?;
        sketch_column(&mut group, rows, SHOWN)?;
        group.close()?;
    }
    writer.flush()?;
    let (bytes, crc) = (writer.inner().bytes, writer.inner().crc);
    writer.append_key_value_metadata(entry("data_bytes", bytes));
    writer.append_key_value_metadata(entry("data_crc32c", crc));
    // Asked for what it wraps, the library would tell a full device as a text.
    writer.close()?;
    Ok(())
}

/// The checksum of what was written so far.
struct Summed<W> {
    inner: W,
    bytes: u64,
    crc: u32,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.bytes += n as u64;
        self.crc = crc32c::crc32c_append(self.crc, &buffer[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn entry(key: &str, value: impl ToString) -> KeyValue {
    KeyValue::new(format!("uptake.{key}"), value.to_string())
}

fn properties(part: &TallyPart, size: u64, rows: usize) -> ParquetResult<WriterProperties> {
    let mut properties = sheet::properties()?.set_key_value_metadata(Some(vec![
        entry("format", FORMAT),
        entry("epoch", part.epoch),
        entry("epoch_ms", part.length.ms()),
        entry("shard", part.shard),
        entry("shards", part.shards),
        entry("rows", rows),
        entry("size", size),
    ]));
    // Hardly two rows have the same, and looking for them costs more than all the rest of the column.
    properties = properties.set_column_dictionary_enabled(ColumnPath::from("video_id"), false);
    for name in ["played", "shown"] {
        let ids = ColumnPath::new(vec![name.to_owned(), "list".to_owned(), "element".to_owned()]);
        let sketch = ColumnPath::new(vec![format!("{name}_sketch")]);
        for column in [ids, sketch] {
            // The least and the largest of random bits tell a reader nothing.
            properties = properties
                .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_compression(column, Compression::UNCOMPRESSED);
        }
    }
    Ok(properties.build())
}

fn texts<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[TallyRow],
    text: impl Fn(&TallyRow) -> &str,
) -> ParquetResult<()> {
    let values = byte_arrays(rows.iter().map(|row| text(row).as_bytes()));
    let mut column = next(group)?;
    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    column.close()
}

fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[TallyRow],
    value: impl FnMut(&TallyRow) -> T::T,
) -> ParquetResult<()> {
    let values: Vec<T::T> = rows.iter().map(value).collect();
    let mut column = next(group)?;
    column.typed::<T>().write_batch(&values, None, None)?;
    column.close()
}

fn id_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[TallyRow],
    pick: Pick,
) -> ParquetResult<()> {
    // Levels of a list: definition 0 null, 1 empty, 2 an id; repetition 0 begins a row. Rows are
    // gathered to some thousand ids, since a call a row costs more than the ids of most rows.
    const BATCH: usize = 16 << 10;
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::<i16>::new(), Vec::<i16>::new());
    let mut column = next(group)?;
    let writer = column.typed::<Int64Type>();
    for row in rows {
        match row.sets.as_deref().map(pick) {
            Some(RequestSet::Exact(ids)) if !ids.is_empty() => {
                values.extend(ids.iter().map(|id| *id as i64));
                defined.resize(defined.len() + ids.len(), 2);
                repeated.push(0);
                repeated.resize(defined.len(), 1);
            }
            set => {
                defined.push(i16::from(matches!(set, Some(RequestSet::Exact(_)))));
                repeated.push(0);
            }
        }
        if defined.len() >= BATCH {
            writer.write_batch(&values, Some(&defined), Some(&repeated))?;
            values.clear();
            defined.clear();
            repeated.clear();
        }
    }
    writer.write_batch(&values, Some(&defined), Some(&repeated))?;
    column.close()
}

fn sketch_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[TallyRow],
    pick: Pick,
) -> ParquetResult<()> {
    let sketch = |row: &TallyRow| match row.sets.as_deref().map(pick) {
        Some(RequestSet::Sketch(bytes)) => Some(ByteArray::from(bytes.clone())),
        _ => None,
    };
    let mut column = next(group)?;
    // A sketch is up to some hundred KiB: a few rows at a time.
    for rows in rows.chunks(64) {
        let sketches: Vec<_> = rows.iter().map(sketch).collect();
        let defined: Vec<i16> = sketches.iter().map(|sketch| i16::from(sketch.is_some())).collect();
        let values: Vec<_> = sketches.into_iter().flatten().collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&defined), None)?;
    }
    column.close()
}

/// The same as bytes, for an archive that is no directory.
pub(super) fn to_bytes(name: &Path, part: &TallyPart, size: u64, rows: &[TallyRow]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(&mut bytes, part, size, rows).map_err(|e| ArchiveError::parquet("encode", name, e))?;
    Ok(bytes)
}

/// Opens a file to read.
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| ArchiveError::io("open", path, e))
}

/// What a file says of itself, from its last bytes.
pub(super) fn read_info<R: ChunkReader + 'static>(path: &Path, source: R) -> Result<PartInfo> {
    info(path, &metadata(&reader(path, source)?))
}

/// The rows of the file `source`, once it is opened and once more, whose metadata is `expected`.
pub(super) fn read<R: ChunkReader + 'static>(
    path: &Path,
    [source, again]: [R; 2],
    expected: &PartInfo,
) -> Result<Vec<TallyRow>> {
    let reader = reader(path, source)?;
    let metadata = metadata(&reader);
    check_sum(path, &again, number(path, &metadata, "data_bytes")?, number(path, &metadata, "data_crc32c")?)?;
    let mut rows = Vec::new();
    for index in 0..reader.num_row_groups() {
        let decoded = guard(|| decode(&*reader.get_row_group(index)?));
        rows.extend(decoded.map_err(|e| unreadable(path, e))?);
    }
    if rows.len() as u64 != expected.rows || rows.iter().any(|row| row.epoch != expected.part.epoch) {
        return Err(corrupt(path, "its rows are not those that its metadata tells of"));
    }
    Ok(rows)
}

fn reader<R: ChunkReader + 'static>(path: &Path, source: R) -> Result<SerializedFileReader<R>> {
    guard(|| SerializedFileReader::new(source)).map_err(|e| unreadable(path, e))
}

/// An object that the library cannot read: it is damaged, unless the system refused.
fn unreadable(path: &Path, error: ParquetError) -> ArchiveError {
    let said = error.to_string();
    match ArchiveError::parquet("read", path, error) {
        refused if refused.kind() != FailureKind::Permanent => refused,
        _ => corrupt(path, said),
    }
}

fn corrupt(path: &Path, what: impl Into<String>) -> ArchiveError {
    ArchiveError::Corrupt { path: path.to_path_buf(), what: what.into() }
}

/// The entries of the file's metadata that are ours, without their prefix.
type Metadata = BTreeMap<String, String>;

fn metadata<R: ChunkReader + 'static>(reader: &SerializedFileReader<R>) -> Metadata {
    let entries = reader.metadata().file_metadata().key_value_metadata();
    let ours = |e: &KeyValue| Some((e.key.strip_prefix("uptake.")?.to_owned(), e.value.clone()?));
    entries.into_iter().flatten().filter_map(ours).collect()
}

fn number<T: FromStr>(path: &Path, metadata: &Metadata, key: &str) -> Result<T> {
    let value = metadata.get(key).and_then(|value| value.parse().ok());
    value.ok_or_else(|| corrupt(path, format!("its metadata has no uptake.{key}")))
}

fn info(path: &Path, metadata: &Metadata) -> Result<PartInfo> {
    if metadata.get("format").is_none_or(|format| format != FORMAT) {
        return Err(corrupt(path, format!("it is not of format {FORMAT} of uptake's tallies")));
    }
    let length = EpochLength::from_ms(number(path, metadata, "epoch_ms")?);
    Ok(PartInfo {
        part: TallyPart {
            epoch: Epoch(number(path, metadata, "epoch")?),
            length: length.ok_or_else(|| corrupt(path, "its epoch length is impossible"))?,
            shard: number(path, metadata, "shard")?,
            shards: number(path, metadata, "shards")?,
        },
        rows: number(path, metadata, "rows")?,
        size: number(path, metadata, "size")?,
    })
}

/// Whether the first `bytes` of the file are those that were written.
fn check_sum<R: ChunkReader>(path: &Path, source: &R, bytes: u64, expected: u32) -> Result<()> {
    let io = |e| ArchiveError::io("read", path, e);
    let mut file = source.get_read(0).map_err(|e| ArchiveError::parquet("read", path, e))?.take(bytes);
    let (mut buffer, mut crc) = (vec![0; 64 << 10], 0);
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &buffer[..n]);
    }
    if crc == expected { Ok(()) } else { Err(corrupt(path, "its checksum does not fit its bytes")) }
}

fn decode(group: &dyn RowGroupReader) -> ParquetResult<Vec<TallyRow>> {
    let bad = |what: &str| ParquetError::General(what.to_owned());
    let schema = parse_message_type(SCHEMA)?;
    if group.metadata().schema_descr().root_schema().get_fields() != schema.get_fields() {
        return Err(bad("its columns are not those of tallies"));
    }
    let n = usize::try_from(group.metadata().num_rows()).map_err(|_| bad("a negative number of rows"))?;
    let videos = values::<ByteArrayType>(group, 0, n)?;
    let segments = values::<ByteArrayType>(group, 1, n)?;
    let epochs = values::<Int64Type>(group, 2, n)?;
    let plays = values::<Int64Type>(group, 4, n)?;
    let impressions = values::<Int64Type>(group, 5, n)?;
    let exact = values::<BoolType>(group, 6, n)?;
    let (mut played, mut shown) = (ids(group, 7, n)?, ids(group, 8, n)?);
    let (mut played_sketch, mut shown_sketch) = (sketches(group, 9, n)?, sketches(group, 10, n)?);
    let mut rows = Vec::with_capacity(n.min(GROUP_ROWS));
    // Most rows are of a few segments: one allocation a run.
    let mut segment: Arc<str> = "".into();
    for i in 0..n {
        let text = segments[i].as_utf8()?;
        if *segment != *text {
            segment = text.into();
        }
        let number = |value: i64| u64::try_from(value).map_err(|_| bad("a negative count"));
        let one = |ids: Option<Vec<u64>>, sketch: Option<ByteArray>| match (ids, sketch) {
            (Some(ids), None) => Ok(Some(RequestSet::Exact(ids))),
            (None, Some(bytes)) => Ok(Some(RequestSet::Sketch(bytes.data().to_vec()))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(bad("a set that is both exact and a sketch")),
        };
        let sets = match (
            one(played[i].take(), played_sketch[i].take())?,
            one(shown[i].take(), shown_sketch[i].take())?,
        ) {
            (Some(played), Some(shown)) => Some(TallySets { played, shown }.into()),
            (None, None) => None,
            _ => return Err(bad("a row with one set of two")),
        };
        rows.push(TallyRow {
            video_id: videos[i].as_utf8()?.into(),
            segment: segment.clone(),
            epoch: Epoch(epochs[i]),
            counts: Counts {
                plays: number(plays[i])?,
                impressions: number(impressions[i])?,
                exact: exact[i],
            },
            sealed: true,
            sets,
        });
    }
    Ok(rows)
}

/// Definition levels, repetition levels and values of a column.
type Levels<T> = (Vec<i16>, Vec<i16>, Vec<T>);

fn levels<T: DataType>(group: &dyn RowGroupReader, index: usize, n: usize) -> ParquetResult<Levels<T::T>> {
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(index)?);
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = 0;
    while records < n {
        let (more, ..) =
            reader.read_records(n - records, Some(&mut defined), Some(&mut repeated), &mut values)?;
        if more == 0 {
            return Err(ParquetError::General(format!("column {index} ends early")));
        }
        records += more;
    }
    Ok((defined, repeated, values))
}

fn values<T: DataType>(group: &dyn RowGroupReader, index: usize, n: usize) -> ParquetResult<Vec<T::T>> {
    let (_, _, values) = levels::<T>(group, index, n)?;
    if values.len() != n {
        return Err(ParquetError::General(format!("column {index} has {} values of {n}", values.len())));
    }
    Ok(values)
}

fn ids(group: &dyn RowGroupReader, index: usize, n: usize) -> ParquetResult<Vec<Option<Vec<u64>>>> {
    let (defined, repeated, values) = levels::<Int64Type>(group, index, n)?;
    let bad = || ParquetError::General(format!("the lists of column {index} do not fit their levels"));
    let (mut sets, mut values) = (Vec::<Option<Vec<u64>>>::new(), values.into_iter());
    for (defined, repeated) in defined.iter().zip(&repeated) {
        if *repeated == 0 {
            sets.push((*defined > 0).then(Vec::new));
        }
        if *defined == 2 {
            let id = values.next().ok_or_else(bad)? as u64;
            sets.last_mut().and_then(Option::as_mut).ok_or_else(bad)?.push(id);
        }
    }
    let ascending = |set: &Option<Vec<u64>>| set.as_ref().is_none_or(|ids| ids.is_sorted_by(|a, b| a < b));
    if sets.len() != n || !sets.iter().all(ascending) { Err(bad()) } else { Ok(sets) }
}

fn sketches(group: &dyn RowGroupReader, index: usize, n: usize) -> ParquetResult<Vec<Option<ByteArray>>> {
    let (defined, _, values) = levels::<ByteArrayType>(group, index, n)?;
    let bad = || ParquetError::General(format!("the values of column {index} do not fit their levels"));
    let mut values = values.into_iter();
    let sets: Vec<_> =
        defined.iter().map(|defined| (*defined == 1).then(|| values.next()).flatten()).collect();
    if sets.len() != n || values.next().is_some() { Err(bad()) } else { Ok(sets) }
}
