//! The general way to read a record: `serde_json`, for everything that no layout fits.
//!
//! It keeps the text of the wanted values and skips the rest, so what it says about a number or
//! an escape in a field that nobody asked for is only whether the grammar allows it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::leaf::{Leaf, Node, Shape};

/// Fills `leaves` from one JSON object.
///
/// # Errors
/// If `record` is not a JSON object, or a wanted text is not valid Unicode (a lone surrogate).
pub(super) fn read(
    record: &str,
    root: &Node,
    leaves: &mut [Leaf],
    scratch: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    leaves.fill(Leaf::default());
    scratch.clear();
    Object { node: root, base: record, leaves, scratch }.read(record)
}

/// One object of the record, of which the children of `node` are wanted.
struct Object<'a> {
    node: &'a Node,
    /// The whole record: leaves say where in it they are.
    base: &'a str,
    leaves: &'a mut [Leaf],
    scratch: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn read(self, text: &str) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.deserialize_map(self)?;
        deserializer.end()
    }

    /// Takes the value at `node`, whose JSON text is `raw`.
    fn take(&mut self, node: &Node, raw: &str) -> Result<(), serde_json::Error> {
        node.clear(self.leaves);
        let start = raw.as_ptr() as usize - self.base.as_ptr() as usize;
        let leaf = match raw.as_bytes() {
            [b'"', text @ .., b'"'] if !text.contains(&b'\\') => Leaf {
                int: 0,
                start: start as u32 + 1,
                end: (start + 1 + text.len()) as u32,
                shape: Shape::Text,
            },
            [b'"', ..] => {
                let text: String = serde_json::from_str(raw)?;
                let start = self.scratch.len();
                self.scratch.extend_from_slice(text.as_bytes());
                let end = self.scratch.len();
                Leaf { int: 0, start: start as u32, end: end as u32, shape: Shape::Unescaped }
            }
            [b'{', ..] => {
                if !node.children.is_empty() {
                    let (base, scratch) = (self.base, &mut *self.scratch);
                    Object { node, base, leaves: self.leaves, scratch }.read(raw)?;
                }
                Leaf::of(Shape::Composite)
            }
            [b'[', ..] => Leaf::of(Shape::Composite),
            b"true" => Leaf::of(Shape::True),
            b"false" => Leaf::of(Shape::False),
            b"null" => Leaf::of(Shape::Null),
            number => Leaf::number(number, start),
        };
        node.set(self.leaves, leaf);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let node = self.node;
        while let Some(wanted) = map.next_key_seed(Key { node })? {
            match wanted {
                Some(child) => {
                    let raw: &'de RawValue = map.next_value()?;
                    self.take(child, raw.get()).map_err(A::Error::custom)?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A key of an object: the child of `node` that it names.
struct Key<'a> {
    node: &'a Node,
}

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.node.child(key.as_bytes()))
    }
}
