//! A Parquet file as lines of JSON, one a row, for the decoder and the field mapping that serve
//! the other files.
//!
//! Timestamps (seconds are not a unit of Parquet; milli-, micro- or nanoseconds, also the old
//! 96-bit ones) become whole milliseconds since 1970. Nulls are left out, as if the field were
//! not there. Binary columns without a text annotation are text where they are UTF-8, else
//! base64.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{ColumnDescriptor, Type};
use serde_json::{Map, Value};

use super::{Block, Filled, InputOptions, OVERSIZED_HEAD_BYTES, Oversized};
use crate::error::InputError;
use crate::guard::guard;

/// The rows of one file.
pub(super) struct Rows {
    rows: RowIter<'static>,
    schema: Arc<Type>,
    options: InputOptions,
    /// A line that did not fit into the block before, with its end; empty for none.
    pending: Vec<u8>,
    /// The number of the next row.
    row: u64,
    bytes: u64,
    total_rows: u64,
    file_bytes: u64,
    bytes_read: Arc<AtomicU64>,
}

impl Rows {
    pub(super) fn open(
        file: File,
        path: &str,
        file_bytes: u64,
        options: InputOptions,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Self, InputError> {
        let failed = |e: ParquetError| {
            let source = io::Error::new(io::ErrorKind::InvalidData, e);
            InputError::Read { path: path.to_owned(), lines: 0, bytes: 0, source }
        };
        let reader = guard(|| SerializedFileReader::new(file)).map_err(failed)?;
        let metadata = reader.metadata().file_metadata();
        for column in metadata.schema_descr().columns() {
            check_column(path, column)?;
        }
        let schema = metadata.schema_descr().root_schema_ptr();
        let total_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        Ok(Self {
            rows: guard(|| Ok(RowIter::from_file_into(Box::new(reader)))).map_err(failed)?,
            schema,
            options,
            pending: Vec::new(),
            row: 0,
            bytes: 0,
            total_rows,
            file_bytes,
            bytes_read: bytes_read.clone(),
        })
    }

    /// Rows and bytes of text that were delivered.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.row, self.bytes)
    }

    /// Fills an empty block. On an error the block has the rows before it.
    pub(super) fn fill(&mut self, max_lines: usize, block: &mut Block) -> io::Result<Filled> {
        block.first_line = self.row;
        let mut outcome = Ok(());
        while block.lines < max_lines && block.bytes.len() < self.options.block_bytes {
            if self.pending.is_empty() {
                match guard(|| self.rows.next().transpose()).transpose() {
                    None => break,
                    Some(Ok(row)) => self.write_line(&row)?,
                    Some(Err(e)) => {
                        outcome = Err(io::Error::new(io::ErrorKind::InvalidData, e));
                        break;
                    }
                }
            }
            let length = self.pending.len() - 1;
            if length > self.options.line_bytes_max {
                if block.lines > 0 {
                    break;
                }
                self.pending.truncate(length.min(OVERSIZED_HEAD_BYTES));
                let head = std::mem::take(&mut self.pending);
                block.oversized.push(Oversized { line: self.row, bytes: length as u64, head });
                block.lines = 1;
                self.bytes += length as u64 + 1;
                break;
            }
            block.bytes.extend_from_slice(&self.pending);
            self.pending.clear();
            block.lines += 1;
        }
        self.row += block.lines as u64;
        self.bytes += block.bytes.len() as u64;
        // Row groups are read whole, so the share of the rows is the share of the file.
        let share = self.row as f64 / self.total_rows.max(1) as f64;
        self.bytes_read.store((self.file_bytes as f64 * share.min(1.0)) as u64, Ordering::Relaxed);
        outcome?;
        Ok(if block.lines > 0 { Filled::Some } else { Filled::End })
    }

    fn write_line(&mut self, row: &Row) -> io::Result<()> {
        let value = Value::Object(object(row, self.schema.get_fields()));
        serde_json::to_writer(&mut self.pending, &value)?;
        self.pending.push(b'\n');
        Ok(())
    }
}

fn object(row: &Row, fields: &[Arc<Type>]) -> Map<String, Value> {
    let columns = row.get_column_iter().zip(fields);
    columns
        .filter(|((_, field), _)| !matches!(field, Field::Null))
        .map(|((name, field), of)| (name.clone(), json(field, Some(of))))
        .collect()
}

/// A field as JSON; `of` is its type where that is known (not inside lists and maps).
fn json(field: &Field, of: Option<&Type>) -> Value {
    match field {
        Field::TimestampMillis(ms) => (*ms).into(),
        Field::TimestampMicros(us) => us.div_euclid(1_000).into(),
        Field::Long(ns) if of.is_some_and(is_nanoseconds) => ns.div_euclid(1_000_000).into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => field.to_json_value(),
        },
        Field::Group(row) => match of {
            Some(of) if of.is_group() => Value::Object(object(row, of.get_fields())),
            _ => Value::Object(row.get_column_iter().map(|(n, f)| (n.clone(), json(f, None))).collect()),
        },
        Field::ListInternal(list) => list.elements().iter().map(|f| json(f, None)).collect(),
        Field::MapInternal(map) => {
            let entry = |(key, value): &(Field, Field)| {
                let key = match json(key, None) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, json(value, None))
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
        other => other.to_json_value(),
    }
}

fn is_nanoseconds(of: &Type) -> bool {
    matches!(
        of.get_basic_info().logical_type_ref(),
        Some(LogicalType::Timestamp(t)) if t.unit == TimeUnit::NANOS
    )
}

/// The library's row reader panics on the types it does not know; they are refused before.
fn check_column(path: &str, column: &ColumnDescriptor) -> Result<(), InputError> {
    use ConvertedType as C;
    let converted = column.converted_type();
    let known = match column.physical_type() {
        PhysicalType::INT32 => matches!(
            converted,
            C::NONE
                | C::INT_8
                | C::INT_16
                | C::INT_32
                | C::UINT_8
                | C::UINT_16
                | C::UINT_32
                | C::DATE
                | C::TIME_MILLIS
                | C::DECIMAL
        ),
        PhysicalType::INT64 => matches!(
            converted,
            C::NONE
                | C::INT_64
                | C::UINT_64
                | C::TIME_MICROS
                | C::TIMESTAMP_MILLIS
                | C::TIMESTAMP_MICROS
                | C::DECIMAL
        ),
        PhysicalType::BYTE_ARRAY => {
            matches!(converted, C::NONE | C::UTF8 | C::ENUM | C::JSON | C::BSON | C::DECIMAL)
        }
        PhysicalType::FIXED_LEN_BYTE_ARRAY => matches!(converted, C::NONE | C::DECIMAL),
        PhysicalType::BOOLEAN | PhysicalType::INT96 | PhysicalType::FLOAT | PhysicalType::DOUBLE => true,
    };
    if known {
        return Ok(());
    }
    Err(InputError::Column {
        path: path.to_owned(),
        column: column.path().string(),
        kind: format!("{} ({converted})", column.physical_type()),
    })
}
