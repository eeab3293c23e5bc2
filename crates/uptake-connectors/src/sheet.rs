//! Columns of plain values as one Parquet file, for what others read.
//!
//! The same columns give the same bytes: no time, no host and no release is in the file.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::types::{Type, TypePtr};
use bytes::Bytes;

/// A column: its name, and a value for each row.
#[derive(Clone, PartialEq, Debug)]
pub struct Column<'a> {
    /// Its name; no two columns of a sheet have the same.
    pub name: &'a str,
    /// Its values.
    pub values: Values<'a>,
}

/// The values of a column, from the first row to the last.
#[derive(Clone, PartialEq, Debug)]
pub enum Values<'a> {
    /// Texts, or none.
    Texts(Vec<Option<&'a str>>),
    /// Bytes.
    Bytes(Vec<&'a [u8]>),
    /// Unsigned numbers, as the hashes of request ids are.
    Ids(Vec<u64>),
    /// Whole numbers, or none.
    Numbers(Vec<Option<i64>>),
    /// Milliseconds since 1970 UTC.
    Times(Vec<i64>),
    /// Real numbers, or none.
    Reals(Vec<Option<f64>>),
    /// Yes or no.
    Flags(Vec<bool>),
}

/// Rows of a row group: its texts and numbers are in memory at a time, some MiB.
pub(crate) const GROUP_ROWS: usize = 64 << 10;

/// How every file of ours is written, whatever is in it.
pub(crate) fn properties() -> Result<WriterPropertiesBuilder> {
    Ok(WriterProperties::builder()
        .set_created_by("uptake version 1.0.0 (build 1)".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)))
}

impl Values<'_> {
    /// How many there are.
    fn len(&self) -> usize {
        match self {
            Self::Texts(values) => values.len(),
            Self::Bytes(values) => values.len(),
            Self::Ids(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Times(values) => values.len(),
            Self::Reals(values) => values.len(),
            Self::Flags(values) => values.len(),
        }
    }

    /// The column's type.
    fn column_type(&self, name: &str) -> Result<Type> {
        let (physical, logical, repetition) = match self {
            Self::Texts(_) => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String), Repetition::OPTIONAL),
            Self::Bytes(_) => (PhysicalType::BYTE_ARRAY, None, Repetition::REQUIRED),
            Self::Ids(_) => {
                (PhysicalType::INT64, Some(LogicalType::integer(64, false)), Repetition::REQUIRED)
            }
            Self::Numbers(_) => (PhysicalType::INT64, None, Repetition::OPTIONAL),
            Self::Times(_) => {
                let utc_ms = LogicalType::timestamp(true, TimeUnit::MILLIS);
                (PhysicalType::INT64, Some(utc_ms), Repetition::REQUIRED)
            }
            Self::Reals(_) => (PhysicalType::DOUBLE, None, Repetition::OPTIONAL),
            Self::Flags(_) => (PhysicalType::BOOLEAN, None, Repetition::REQUIRED),
        };
        let column = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        column.with_logical_type(logical).build()
    }

    /// Writes the values of some rows as the next column of a group.
    fn write(
        &self,
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        rows: std::ops::Range<usize>,
    ) -> Result<()> {
        match self {
            Self::Texts(values) => {
                let values = &values[rows];
                let (pieces, is_there) =
                    (values.iter().flatten().map(|text| text.as_bytes()), levels(values));
                column::<ByteArrayType>(group, &byte_arrays(pieces), Some(&is_there))
            }
            Self::Bytes(values) => {
                column::<ByteArrayType>(group, &byte_arrays(values[rows].iter().copied()), None)
            }
            Self::Ids(values) => {
                let values: Vec<i64> = values[rows].iter().map(|&id| id as i64).collect();
                column::<Int64Type>(group, &values, None)
            }
            Self::Numbers(values) => {
                let values = &values[rows];
                let there: Vec<i64> = values.iter().flatten().copied().collect();
                column::<Int64Type>(group, &there, Some(&levels(values)))
            }
            Self::Times(values) => column::<Int64Type>(group, &values[rows], None),
            Self::Reals(values) => {
                let values = &values[rows];
                let there: Vec<f64> = values.iter().flatten().copied().collect();
                column::<DoubleType>(group, &there, Some(&levels(values)))
            }
            Self::Flags(values) => column::<BoolType>(group, &values[rows], None),
        }
    }
}

/// The definition levels of an optional column.
fn levels<T>(values: &[Option<T>]) -> Vec<i16> {
    values.iter().map(|value| i16::from(value.is_some())).collect()
}

/// Values as parts of one piece of memory.
pub(crate) fn byte_arrays<'a>(values: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<ByteArray> {
    let mut all = Vec::with_capacity(values.clone().map(<[u8]>::len).sum());
    values.clone().for_each(|value| all.extend_from_slice(value));
    let (all, mut at) = (Bytes::from(all), 0);
    let part = |value: &[u8]| {
        let from = at;
        at += value.len();
        ByteArray::from(all.slice(from..at))
    };
    values.map(part).collect()
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    is_there: Option<&[i16]>,
) -> Result<()> {
    let mut column = next(group)?;
    column.typed::<T>().write_batch(values, is_there, None)?;
    column.close()
}

/// The next column of a group.
pub(crate) fn next<'a, W: Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> Result<SerializedColumnWriter<'a>> {
    group.next_column()?.ok_or_else(|| ParquetError::General("the schema has too few columns".into()))
}

/// The columns as a Parquet file.
///
/// ```
/// use uptake_connectors::sheet::{Column, Values, to_parquet};
/// let columns = [
///     Column { name: "request_id", values: Values::Ids(vec![7, u64::MAX]) },
///     Column { name: "country", values: Values::Texts(vec![Some("BR"), None]) },
/// ];
/// let bytes = to_parquet(&columns)?;
/// assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
/// assert_eq!(bytes, to_parquet(&columns)?);
/// # Ok::<(), parquet::errors::ParquetError>(())
/// ```
///
/// # Errors
/// The columns are not equally long, or two have the same name.
pub fn to_parquet(columns: &[Column<'_>]) -> Result<Vec<u8>> {
    let rows = columns.first().map_or(0, |column| column.values.len());
    let wrong = |column: &&Column<'_>| {
        column.values.len() != rows || columns.iter().filter(|other| other.name == column.name).count() > 1
    };
    if let Some(column) = columns.iter().find(wrong) {
        let what = format!("column {:?} is there twice, or has not the rows of the first", column.name);
        return Err(ParquetError::General(what));
    }
    let types = columns.iter().map(|column| Ok(Arc::new(column.values.column_type(column.name)?)));
    let types = types.collect::<Result<Vec<TypePtr>>>()?;
    let schema = Arc::new(Type::group_type_builder("rows").with_fields(types).build()?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties()?.build()))?;
    for from in (0..rows).step_by(GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        let some = from..rows.min(from + GROUP_ROWS);
        columns.iter().try_for_each(|column| column.values.write(&mut group, some.clone()))?;
        group.close()?;
    }
    writer.into_inner()
}
