//! Learned layouts: how the records of one client look, to the byte.
//!
//! A client writes the same keys in the same order every time. A layout is what stays the same
//! (keys, punctuation, `null`, the kind) with the places of the strings and numbers in between.
//! A record that fits is valid JSON with these values at these paths: the constant bytes were
//! valid around values of the same types, and every string and number is checked as it is passed.

use super::leaf::{Leaf, Node, Plan, Shape, kind_of};
use super::{DecodeConfig, scan};
use crate::event::Kind;

/// Longest record to learn from, in bytes: longer ones are rare and their layouts, too.
pub(super) const RECORD_BYTES_MAX: usize = 4096;
/// How far a record may reach to be tried at all: some values may be longer than when learned.
pub(super) const REACH_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;
const VALUES_MAX: usize = 64;
const DEPTH_MAX: usize = 32;

/// How one shape of record looks.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// The kind, where its text is among the constant bytes.
    pub(super) kind: Option<Kind>,
    /// The leaves of such a record before its values are read: what is not there, and constants.
    template: Vec<Leaf>,
    steps: Vec<Step>,
    last: Constant,
    /// The constant bytes in words, each with a mask of the bytes that count.
    words: Vec<(u64, u64)>,
}

/// Constant bytes, then a value.
#[derive(PartialEq, Eq, Debug)]
struct Step {
    constant: Constant,
    /// A string, up to its closing quote, or else a number.
    string: bool,
    /// Where the value goes; past the end of the leaves if nobody wants it.
    leaf: u16,
}

/// Bytes that are always the same: a run of `Layout::words`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Constant {
    first: u32,
    words: u32,
    bytes: u32,
}

impl Layout {
    /// Reads the record at the start of `bytes` into `leaves`; returns its length, or `None` if
    /// this layout does not fit. What follows the record is for the caller to judge.
    #[inline]
    pub(super) fn read(&self, bytes: &[u8], leaves: &mut [Leaf]) -> Option<usize> {
        let mut at = 0;
        let mut steps = self.steps.iter();
        // Most layouts that do not fit differ in the first constant: nothing is written before.
        let mut next = steps.next();
        if let Some(step) = next {
            at = self.pass(step.constant, bytes, at)?;
            leaves.copy_from_slice(self.template.get(..leaves.len())?);
        }
        while let Some(step) = next {
            let start = at;
            let mut leaf = Leaf { int: 0, start: start as u32, end: 0, shape: Shape::Text };
            if step.string {
                at = scan::plain_text_end(bytes, at);
                if bytes.get(at) != Some(&b'"') {
                    at = scan::string_end(bytes, start, usize::from(step.leaf) >= leaves.len())?;
                }
                leaf.end = at as u32;
            } else {
                let (count, value) = scan::digits(bytes, at);
                at += count;
                let plain = matches!(count, 1..=15) && (count == 1 || bytes.get(start) != Some(&b'0'));
                if plain && !matches!(bytes.get(at), Some(b'.' | b'e' | b'E')) {
                    leaf = Leaf { int: value as i64, start: start as u32, end: at as u32, shape: Shape::Int };
                } else {
                    at = scan::number_end(bytes, start)?;
                    leaf = Leaf::number(bytes.get(start..at)?, start);
                }
            }
            if let Some(place) = leaves.get_mut(usize::from(step.leaf)) {
                *place = leaf;
            }
            next = steps.next();
            at = self.pass(next.map_or(self.last, |step| step.constant), bytes, at)?;
        }
        Some(at)
    }

    /// The position after `constant`, if that is what stands at `at`.
    #[inline(always)]
    fn pass(&self, constant: Constant, bytes: &[u8], at: usize) -> Option<usize> {
        let words = self.words.get(constant.first as usize..)?.get(..constant.words as usize)?;
        let mut differences = 0;
        match bytes.get(at..).and_then(|rest| rest.get(..words.len() * 8)) {
            Some(window) => {
                for (chunk, (word, mask)) in window.as_chunks::<8>().0.iter().zip(words) {
                    differences |= (u64::from_le_bytes(*chunk) ^ word) & mask;
                }
            }
            None => differences = self.differences_near_end(words, constant, bytes, at),
        }
        (differences == 0).then_some(at + constant.bytes as usize)
    }

    /// The last bytes of a block: whole words would reach past its end.
    #[cold]
    fn differences_near_end(
        &self,
        words: &[(u64, u64)],
        constant: Constant,
        bytes: &[u8],
        at: usize,
    ) -> u64 {
        let expected = words.iter().flat_map(|(word, _)| word.to_le_bytes()).take(constant.bytes as usize);
        u64::from(!expected.eq(bytes.iter().skip(at).take(constant.bytes as usize).copied()))
    }
}

/// The layout of `record`, which the general parser accepted; `None` if it is not worth one: long,
/// deep, with an escape in a key, or with a key that stands twice.
pub(super) fn learn(record: &[u8], plan: &Plan, config: &DecodeConfig) -> Option<Layout> {
    if record.len() > RECORD_BYTES_MAX {
        return None;
    }
    let layout = Layout {
        kind: None,
        template: vec![Leaf::default(); plan.count],
        steps: Vec::new(),
        last: Constant { first: 0, words: 0, bytes: 0 },
        words: Vec::new(),
    };
    let mut learner = Learner { record, at: 0, constant_from: 0, plan, config, layout };
    learner.value(Some(&plan.root), 0)?;
    learner.skip_whitespace();
    if learner.at != record.len() {
        return None;
    }
    learner.layout.last = learner.constant(record.len())?;
    let layout = learner.layout;
    let mut leaves = vec![Leaf::default(); plan.count];
    let fits = layout.read(record, &mut leaves) == Some(record.len());
    // It may not fit its own record: an escape in a wanted value is for the general parser.
    (fits || record.contains(&b'\\')).then_some(layout)
}

struct Learner<'a> {
    record: &'a [u8],
    at: usize,
    /// Where the constant bytes before `at` begin.
    constant_from: usize,
    plan: &'a Plan,
    config: &'a DecodeConfig,
    layout: Layout,
}

impl<'a> Learner<'a> {
    fn peek(&self) -> Option<u8> {
        self.record.get(self.at).copied()
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Passes `byte`, or says that something else is there.
    fn passed(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// The content of the string that opens at `at`, with its escapes; `at` moves behind it.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let end = scan::string_end(self.record, start, true)?;
        self.at = end + 1;
        self.record.get(start..end)
    }

    /// The value at `at`; `node` says what is wanted of it.
    fn value(&mut self, node: Option<&'a Node>, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_whitespace();
        let start = self.at;
        let leaf = node.and_then(|node| node.leaf);
        let fixed = match self.peek()? {
            b'{' => {
                self.object(node, depth)?;
                Shape::Composite
            }
            b'[' => {
                self.array(depth)?;
                Shape::Composite
            }
            b'"' => {
                let text = self.string()?;
                if leaf.is_some() && leaf == self.plan.kind && self.plan.kind_alone {
                    if text.contains(&b'\\') {
                        return None;
                    }
                    self.layout.kind = Some(kind_of(&self.config.kind, text).ok()?);
                    return Some(());
                }
                return self.step(start + 1, self.at - 1, true, leaf.map(|leaf| leaf.0));
            }
            b'-' | b'0'..=b'9' => {
                self.at = scan::number_end(self.record, start)?;
                return self.step(start, self.at, false, leaf.map(|leaf| leaf.0));
            }
            _ => {
                let rest = self.record.get(start..)?;
                let (word, shape) = [("true", Shape::True), ("false", Shape::False), ("null", Shape::Null)]
                    .into_iter()
                    .find(|(word, _)| rest.starts_with(word.as_bytes()))?;
                self.at += word.len();
                shape
            }
        };
        if let Some(node) = node {
            node.set(&mut self.layout.template, Leaf::of(fixed));
        }
        Some(())
    }

    fn object(&mut self, node: Option<&'a Node>, depth: usize) -> Option<()> {
        let mut keys: Vec<&[u8]> = Vec::new();
        self.at += 1;
        self.skip_whitespace();
        if self.passed(b'}') {
            return Some(());
        }
        loop {
            self.skip_whitespace();
            if self.peek() != Some(b'"') {
                return None;
            }
            let key = self.string()?;
            if key.contains(&b'\\') || keys.contains(&key) || keys.len() >= VALUES_MAX {
                return None;
            }
            keys.push(key);
            self.skip_whitespace();
            if !self.passed(b':') {
                return None;
            }
            self.value(node.and_then(|node| node.child(key)), depth + 1)?;
            self.skip_whitespace();
            if self.passed(b'}') {
                return Some(());
            }
            if !self.passed(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.skip_whitespace();
        if self.passed(b']') {
            return Some(());
        }
        loop {
            self.value(None, depth + 1)?;
            self.skip_whitespace();
            if self.passed(b']') {
                return Some(());
            }
            if !self.passed(b',') {
                return None;
            }
        }
    }

    /// A value from `start` to `end`, after the constant bytes that precede it.
    fn step(&mut self, start: usize, end: usize, string: bool, leaf: Option<u16>) -> Option<()> {
        if self.layout.steps.len() >= VALUES_MAX {
            return None;
        }
        let constant = self.constant(start)?;
        self.layout.steps.push(Step { constant, string, leaf: leaf.unwrap_or(u16::MAX) });
        self.constant_from = end;
        Some(())
    }

    /// The constant bytes up to `end`, in words.
    fn constant(&mut self, end: usize) -> Option<Constant> {
        let bytes = self.record.get(self.constant_from..end)?;
        let first = self.layout.words.len();
        for chunk in bytes.chunks(8) {
            let (mut word, mut mask) = ([0; 8], [0; 8]);
            word[..chunk.len()].copy_from_slice(chunk);
            mask[..chunk.len()].fill(0xff);
            self.layout.words.push((u64::from_le_bytes(word), u64::from_le_bytes(mask)));
        }
        let words = self.layout.words.len() - first;
        Some(Constant { first: first as u32, words: words as u32, bytes: bytes.len() as u32 })
    }
}
