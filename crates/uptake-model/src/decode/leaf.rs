//! What is wanted of a record: the values at a few paths, each in a numbered place (a *leaf*).
//!
//! Both ways of reading a record fill the same leaves, the general parser and the learned
//! layouts, and everything after that looks at leaves only. So they cannot differ in meaning,
//! only in finding the values.

use crate::event::{Kind, Reason};
use crate::filter::{Filters, Subject};
use crate::segment::Segments;

use super::{DecodeConfig, KindRule, Members};

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Shape {
    /// The path is not there.
    #[default]
    Missing,
    /// `null`.
    Null,
    /// `true`.
    True,
    /// `false`.
    False,
    /// A text, without its quotes.
    Text,
    /// A text whose escapes were resolved: it is in the scratch space, not in the record.
    Unescaped,
    /// A whole number of at most 18 digits, in `int`.
    Int,
    /// Any other number, as its text.
    Number,
    /// An object or an array.
    Composite,
}

/// The value at one wanted path: its shape, and where its text is in the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Leaf {
    pub(crate) int: i64,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) shape: Shape,
}

impl Leaf {
    /// A leaf without a text.
    pub(crate) fn of(shape: Shape) -> Self {
        Self { shape, ..Self::default() }
    }

    /// The same value, its text `by` bytes further on.
    #[inline(always)]
    pub(crate) fn moved(self, by: u32) -> Self {
        Self { start: self.start.wrapping_add(by), end: self.end.wrapping_add(by), ..self }
    }

    /// A number by its JSON text, which stands at `start` of the record.
    pub(crate) fn number(text: &[u8], start: usize) -> Self {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let (start, end) = (start as u32, (start + text.len()) as u32);
        if digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
            return Self { int: 0, start, end, shape: Shape::Number };
        }
        let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        let int = if digits.len() < text.len() { -value } else { value };
        Self { int, start, end, shape: Shape::Int }
    }
}

/// The leaves of one record and the bytes they point into.
#[derive(Clone, Copy)]
pub(crate) struct Leaves<'a> {
    pub(crate) record: &'a [u8],
    pub(crate) scratch: &'a [u8],
    pub(crate) leaves: &'a [Leaf],
}

impl<'a> Leaves<'a> {
    #[inline(always)]
    pub(crate) fn get(&self, index: LeafIndex) -> &'a Leaf {
        const MISSING: &Leaf = &Leaf { int: 0, start: 0, end: 0, shape: Shape::Missing };
        self.leaves.get(usize::from(index.0)).unwrap_or(MISSING)
    }

    /// The text of a scalar as it is written in JSON, without quotes; empty for anything else.
    #[inline(always)]
    pub(crate) fn text(&self, leaf: &Leaf) -> &'a [u8] {
        match leaf.shape {
            Shape::Text => self.record.get(leaf.start as usize..leaf.end as usize).unwrap_or_default(),
            Shape::Missing => b"",
            _ => self.unusual_text(leaf),
        }
    }

    #[inline(never)]
    fn unusual_text(&self, leaf: &Leaf) -> &'a [u8] {
        let range = leaf.start as usize..leaf.end as usize;
        match leaf.shape {
            Shape::Text | Shape::Int | Shape::Number => self.record.get(range).unwrap_or_default(),
            Shape::Unescaped => self.scratch.get(range).unwrap_or_default(),
            Shape::True => b"true",
            Shape::False => b"false",
            Shape::Missing | Shape::Null | Shape::Composite => b"",
        }
    }

    /// The text of a leaf that is a JSON string; `None` for anything else.
    #[inline(always)]
    pub(crate) fn string(&self, index: LeafIndex) -> Option<&'a [u8]> {
        let leaf = self.get(index);
        matches!(leaf.shape, Shape::Text | Shape::Unescaped).then(|| self.text(leaf))
    }

    /// The value of a dimension and its text: the first of its places that holds a text that is
    /// not empty, a number or a truth value; otherwise the first that is there at all.
    #[inline(always)]
    pub(crate) fn find(&self, lookup: Lookup) -> (&'a Leaf, &'a [u8]) {
        let first = self.get(lookup.first);
        let text = self.text(first);
        if !text.is_empty() || lookup.second == LeafIndex::NONE {
            return (first, text);
        }
        let second = self.get(lookup.second);
        let text = self.text(second);
        if !text.is_empty() || second.shape == Shape::Composite { (second, text) } else { (first, text) }
    }
}

/// The number of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeafIndex(pub(crate) u16);

impl LeafIndex {
    /// No leaf: reading it finds nothing, and nothing is written to it.
    pub(crate) const NONE: Self = Self(u16::MAX);
}

/// How a value is looked up: at one path or, failing that, at a second one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lookup {
    first: LeafIndex,
    /// [`LeafIndex::NONE`] if there is only one path.
    second: LeafIndex,
}

/// The wanted paths as a tree of object keys.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) leaf: Option<LeafIndex>,
    pub(crate) children: Vec<(String, Node)>,
}

impl Node {
    /// What is wanted below `key`.
    pub(crate) fn child(&self, key: &[u8]) -> Option<&Node> {
        self.children.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, node)| node)
    }

    /// Marks the leaf here and all below as not there.
    pub(crate) fn clear(&self, leaves: &mut [Leaf]) {
        self.set(leaves, Leaf::default());
        for (_, child) in &self.children {
            child.clear(leaves);
        }
    }

    pub(crate) fn set(&self, leaves: &mut [Leaf], value: Leaf) {
        if let Some(leaf) = self.leaf.and_then(|index| leaves.get_mut(usize::from(index.0))) {
            *leaf = value;
        }
    }
}

/// A condition's subject, found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The decoded kind.
    Kind,
    /// A value of the record.
    At(Lookup),
}

/// The configuration, with every path turned into the number of a leaf.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    pub(crate) count: usize,
    /// `None` where the kind is always the same.
    pub(crate) kind: Option<LeafIndex>,
    /// Whether nothing else reads the kind's leaf, so that it need not be filled.
    pub(crate) kind_alone: bool,
    pub(crate) request: LeafIndex,
    pub(crate) video: LeafIndex,
    pub(crate) timestamp: LeafIndex,
    /// [`LeafIndex::NONE`] where members are not kept.
    pub(crate) member: LeafIndex,
    pub(crate) members: Members,
    pub(crate) dimensions: Vec<Lookup>,
    /// The subjects of all conditions of all filters, in order.
    pub(crate) subjects: Vec<Found>,
    /// The leaves of video and timestamp, if they say nothing else: in a record whose other leaves are those of one
    /// before, all else is as it was.
    pub(crate) changing: Option<[u16; 2]>,
}

impl Plan {
    pub(crate) fn new(
        config: &DecodeConfig,
        segments: &Segments,
        filters: &Filters,
        members: Members,
    ) -> Self {
        let fields = &config.fields;
        let mut paths = Paths::default();
        let kind = match &config.kind {
            KindRule::ByField { .. } => Some(paths.dotted(&fields.kind)),
            KindRule::Always(_) => None,
        };
        let request = paths.dotted(&fields.request_id);
        let video = paths.dotted(&fields.video_id);
        let timestamp = paths.dotted(&fields.timestamp);
        let member = match members {
            Members::None => LeafIndex::NONE,
            Members::OfPlays | Members::All => paths.dotted(&fields.member_id),
        };
        let dimensions: Vec<Lookup> =
            segments.dimensions().iter().map(|name| paths.dimension(config, name)).collect();
        let conditions = filters.rules().iter().flat_map(|rule| &rule.conditions);
        let subjects: Vec<Found> = conditions
            .map(|condition| match &condition.subject {
                Subject::Kind => Found::Kind,
                Subject::Name(name) => Found::At(match name.as_str() {
                    "request_id" => paths.one(&fields.request_id),
                    "video_id" => paths.one(&fields.video_id),
                    "timestamp" => paths.one(&fields.timestamp),
                    "member_id" => paths.one(&fields.member_id),
                    "row" => paths.one(&fields.row),
                    "position" => paths.one(&fields.position),
                    name => paths.dimension(config, name),
                }),
                Subject::Path(path) => Found::At(paths.one(path)),
            })
            .collect();
        let looked_up = |leaf: LeafIndex| {
            let places = subjects.iter().filter_map(|found| match found {
                Found::At(place) => Some(place),
                Found::Kind => None,
            });
            dimensions.iter().chain(places).any(|lookup| leaf == lookup.first || leaf == lookup.second)
        };
        let kind_alone =
            kind.is_none_or(|kind| ![request, video, timestamp, member].contains(&kind) && !looked_up(kind));
        let is_changing = |leaf, other| {
            ![Some(request), Some(member), Some(other), kind].contains(&Some(leaf)) && !looked_up(leaf)
        };
        let changing = is_changing(video, timestamp) && is_changing(timestamp, video);
        let changing = changing.then_some([video.0, timestamp.0]);
        let Paths { root, count } = paths;
        Self {
            root,
            count,
            kind,
            kind_alone,
            request,
            video,
            timestamp,
            member,
            members,
            dimensions,
            subjects,
            changing,
        }
    }
}

/// Gives each different path its number.
#[derive(Default)]
struct Paths {
    root: Node,
    count: usize,
}

impl Paths {
    fn leaf<'a>(&mut self, keys: impl Iterator<Item = &'a str>) -> LeafIndex {
        let mut node = &mut self.root;
        for key in keys {
            let index = node.children.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
                node.children.push((key.to_owned(), Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        let next = LeafIndex(u16::try_from(self.count).unwrap_or(u16::MAX));
        *node.leaf.get_or_insert_with(|| {
            self.count += 1;
            next
        })
    }

    fn dotted(&mut self, path: &str) -> LeafIndex {
        self.leaf(path.split('.'))
    }

    fn one(&mut self, path: &str) -> Lookup {
        Lookup { first: self.dotted(path), second: LeafIndex::NONE }
    }

    fn dimension(&mut self, config: &DecodeConfig, name: &str) -> Lookup {
        match config.fields.dimensions.get(name) {
            Some(path) => self.one(path),
            None => Lookup {
                first: self.leaf([name].into_iter()),
                second: self.leaf(["dimensions", name].into_iter()),
            },
        }
    }
}

/// The kind that the text of the kind's field stands for.
///
/// # Errors
/// [`Reason::UnknownKind`].
pub(crate) fn kind_of(rule: &KindRule, text: &[u8]) -> Result<Kind, Reason> {
    match rule {
        KindRule::Always(kind) => Ok(*kind),
        KindRule::ByField { impression, play } => {
            let is = |names: &[String]| names.iter().any(|name| name.as_bytes() == text);
            match (is(impression), is(play)) {
                (true, _) => Ok(Kind::Impression),
                (false, true) => Ok(Kind::Play),
                (false, false) => Err(Reason::UnknownKind),
            }
        }
    }
}
