//! What an Avro schema wrote, as JSON, within bounds.
//!
//! The library reads a value by recursion, as deep as the bytes say, and makes room for as many elements
//! as they say. So the bytes are walked first, without any room: a value that is cut off, goes on after its
//! end, is nested deeper than [`DEPTH_MAX`] or made of more than [`VALUES_MAX`] is not read at all.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, ResolvedSchema, UuidSchema};
use serde_json::Value;

/// As deep as `serde_json` reads.
const DEPTH_MAX: usize = 128;
/// Of a record: a value with nothing in it takes no bytes, so their number says nothing.
const VALUES_MAX: usize = 100_000;
/// A number of 64 bits, seven in a byte.
const NUMBER_BYTES_MAX: usize = 10;

/// A schema all of whose names are its own.
pub(super) struct AvroSchema(Schema);

impl AvroSchema {
    /// The schema that `text` says.
    ///
    /// # Errors
    /// It is none, or names a type that it does not have.
    pub(super) fn parse(text: &str) -> Result<Self, apache_avro::Error> {
        let schema = Schema::parse_str(text)?;
        ResolvedSchema::new(&schema)?;
        Ok(Self(schema))
    }

    /// The value in JSON; `None` if another schema wrote it, or it goes beyond the bounds.
    pub(super) fn json(&self, mut value: &[u8]) -> Option<Vec<u8>> {
        let resolved = ResolvedSchema::new(&self.0).ok()?;
        let mut walk = Walk { names: resolved.get_names(), rest: value, values: 0 };
        walk.value(&self.0, None, 0)?;
        if !walk.rest.is_empty() {
            return None;
        }
        let reader = GenericDatumReader::builder(&self.0).resolved_writer_schemata(resolved).build().ok()?;
        let read = reader.read_value(&mut value).ok()?;
        Value::try_from(read).ok().map(|json| json.to_string().into_bytes())
    }
}

/// Over the bytes of a value, one value in it after the other.
struct Walk<'a> {
    names: &'a NamesRef<'a>,
    rest: &'a [u8],
    values: usize,
}

impl<'a> Walk<'a> {
    /// Past a value; `None` if it is not one of the schema, or beyond the bounds.
    fn value(&mut self, schema: &'a Schema, namespace: Option<&str>, depth: usize) -> Option<()> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        match schema {
            Schema::Null => Some(()),
            Schema::Boolean => self.skip(1),
            Schema::Float => self.skip(size_of::<f32>()),
            Schema::Double => self.skip(size_of::<f64>()),
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.skip(fixed.size)
            }
            Schema::Bytes | Schema::String | Schema::BigDecimal => self.text(),
            Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => self.text(),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.text(),
                InnerDecimalSchema::Fixed(fixed) => self.skip(fixed.size),
            },
            Schema::Int | Schema::Date | Schema::TimeMillis | Schema::Enum(_) => self.number().map(drop),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.number().map(drop),
            Schema::Array(array) => self.elements(|walk| walk.value(&array.items, namespace, depth + 1)),
            Schema::Map(map) => self.elements(|walk| {
                walk.text()?;
                walk.value(&map.types, namespace, depth + 1)
            }),
            Schema::Union(union) => {
                let variant = usize::try_from(self.number()?).ok()?;
                self.value(union.variants().get(variant)?, namespace, depth + 1)
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                record
                    .fields
                    .iter()
                    .try_for_each(|field| self.value(&field.schema, name.namespace(), depth + 1))
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let schema = *self.names.get(name.as_ref())?;
                self.value(schema, name.namespace(), depth + 1)
            }
        }
    }

    /// Past the blocks of an array or map, of which the last has no elements.
    fn elements(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        loop {
            let count = self.number()?;
            if count == 0 {
                return Some(());
            }
            if count < 0 {
                // How many bytes the block has; nobody checks whether that is true.
                self.number()?;
            }
            // A count beyond the bounds ends at them.
            (0..count.unsigned_abs()).try_for_each(|_| element(self))?;
        }
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.number()?).ok()?;
        self.skip(length)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    /// A number in zigzag form, the least bits first.
    fn number(&mut self) -> Option<i64> {
        let end = self.rest.iter().take(NUMBER_BYTES_MAX).position(|&byte| byte < 0x80)?;
        let (bytes, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        let bits = bytes.iter().rev().fold(0, |bits: u64, &byte| bits << 7 | u64::from(byte & 0x7f));
        Some((bits >> 1) as i64 ^ -((bits & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::avro_bytes::{SCHEMAS, check};
    use super::super::damaged::with_damage;
    use super::*;

    fn json(schema: &str, value: &[u8]) -> Option<Value> {
        let read = AvroSchema::parse(schema).unwrap().json(value)?;
        Some(serde_json::from_slice(&read).unwrap())
    }

    /// A list of so many nodes, each a number, the next node or none, and an array of nodes.
    fn list(nodes: usize) -> Vec<u8> {
        [[2, 2].repeat(nodes - 1), vec![2, 0], vec![0; nodes]].concat()
    }

    #[test]
    fn a_value_in_itself_is_read_as_deep_as_json_is() {
        let last = json!({ "value": 1, "next": null, "all": [] });
        assert_eq!(json(SCHEMAS[1], &list(1)), Some(last.clone()));
        assert_eq!(json(SCHEMAS[1], &list(2)), Some(json!({ "value": 1, "next": last, "all": [] })));
        // A node is three deep: the union, the reference, the record.
        let most = DEPTH_MAX / 3;
        assert!(json(SCHEMAS[1], &list(most)).is_some());
        for nodes in [most + 2, 1_000, 500_000] {
            assert_eq!(json(SCHEMAS[1], &list(nodes)), None, "{nodes}");
        }
        let endless = r#"{"type":"record","name":"A","fields":[{"name":"a","type":"A"}]}"#;
        assert_eq!(json(endless, b""), None);
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_much_room() {
        let nulls = r#"{"type":"array","items":"null"}"#;
        assert_eq!(json(nulls, &[6, 0]), Some(json!([null, null, null])));
        // 99,999 in two blocks, one of which says how many bytes it has: with the array itself the most there may be.
        let (first, second) = ([0xa0, 0x8d, 0x06], [0x9d, 0x8d, 0x06, 0]);
        let most = [&first[..], &second, &[0]].concat();
        assert_eq!(json(nulls, &most).unwrap().as_array().unwrap().len(), VALUES_MAX - 1);
        let more = [&first[..], &first, &[0]].concat();
        assert_eq!(json(nulls, &more), None);
        let billions = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        assert_eq!(json(nulls, &billions), None);
        assert_eq!(
            json(&format!(r#"{{"type":"array","items":{nulls}}}"#), &[2, 0x80, 0x89, 0x7a, 0, 0]),
            None
        );
        assert_eq!(json(r#"{"type":"fixed","name":"F","size":1099511627776}"#, b"abc"), None);
        assert_eq!(json(r#""string""#, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40, b'a']), None);
    }

    #[test]
    fn any_bytes_are_refused_or_become_json() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/avro");
        let (mut count, mut known) = (0, 0);
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let input = std::fs::read(&path).unwrap();
            let (choice, value) = input.split_first().unwrap();
            let schema = SCHEMAS.get(usize::from(*choice)).map(|text| AvroSchema::parse(text).unwrap());
            known += usize::from(schema.is_some_and(|schema| schema.json(value).is_some()));
            with_damage(&input, check);
            count += 1;
        }
        assert!(
            count >= 18 && known >= 7,
            "{known} of {count} inputs in {} can be read",
            directory.display()
        );
    }
}
