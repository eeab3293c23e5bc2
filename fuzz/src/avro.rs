//! What must hold of any bytes that are taken for a value of an Avro schema, and of any text that is taken for
//! a schema: they are refused, or become JSON, and no longer or shorter bytes do; nothing panics,
//! runs out of stack or asks for room that the bytes do not pay for.
//!
//! The first byte of an input chooses the schema; the last choice is a schema in the input itself, up to a zero
//! byte. This file is shared by the fuzz target and the test that replays the corpus; both have a module `avro`.

use serde_json::Value;

use super::avro::AvroSchema;

/// One of each kind of value, values in themselves, and values that take no bytes.
pub(crate) const SCHEMAS: [&str; 4] = [
    r#"{"type":"record","name":"Event","namespace":"a","fields":[
        {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["impression","play"]}},
        {"name":"request_id","type":"string"},
        {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"member_id","type":["null","string"]},
        {"name":"again","type":["null","Kind"]}]}"#,
    r#"{"type":"record","name":"Node","namespace":"b.c","fields":[
        {"name":"value","type":"int"},
        {"name":"next","type":["null","Node"]},
        {"name":"all","type":{"type":"array","items":"b.c.Node"}}]}"#,
    r#"{"type":"record","name":"Many","fields":[
        {"name":"nulls","type":{"type":"array","items":"null"}},
        {"name":"map","type":{"type":"map","values":["boolean","float","double","bytes"]}},
        {"name":"id","type":{"type":"fixed","name":"Id","size":3}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
        {"name":"micros","type":{"type":"long","logicalType":"local-timestamp-micros"}}]}"#,
    r#"{"type":"record","name":"Odd","fields":[
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"cost","type":{"type":{"type":"fixed","name":"F","size":4},"logicalType":"decimal","precision":9}},
        {"name":"span","type":{"type":{"type":"fixed","name":"D","size":12},"logicalType":"duration"}},
        {"name":"time","type":{"type":"int","logicalType":"time-millis"}},
        {"name":"big","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#,
];

/// Panics if anything that must hold of `input` does not.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, value)) = input.split_first() else { return };
    let (text, value) = match SCHEMAS.get(usize::from(*choice) % (SCHEMAS.len() + 1)) {
        Some(text) => (*text, value),
        None => {
            let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
            let Ok(text) = std::str::from_utf8(&value[..end]) else { return };
            (text, value.get(end + 1..).unwrap_or_default())
        }
    };
    let Ok(schema) = AvroSchema::parse(text) else { return };
    let Some(json) = schema.json(value) else { return };
    serde_json::from_slice::<Value>(&json).expect("JSON");
    assert_eq!(schema.json(value).as_deref(), Some(&*json), "the same again");
    if !value.is_empty() {
        assert_eq!(schema.json(&value[..value.len() - 1]), None, "cut off");
    }
    assert_eq!(schema.json(&[value, b"\0"].concat()), None, "longer than it is");
}
