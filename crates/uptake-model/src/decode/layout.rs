//! Learned layouts: how the records of one client look, to the byte.
//!
//! A client writes the same keys in the same order every time. A layout is what stays the same
//! (keys, punctuation, `null`, the kind) with the places of the strings and numbers in between.
//! A record that fits is valid JSON with these values at these paths: the constant bytes were
//! valid around values of the same types, and every string and number is checked as it is passed.

use std::ops::Range;

use super::DecodeConfig;
use super::habits::{Habits, Run};
use super::leaf::{Leaf, Node, Plan, Shape, kind_of};
use super::scan::{self, Window};
use crate::event::Kind;

/// Most values of a record to learn from: longer lists seldom have the same length twice.
const VALUES_MAX: usize = 64;
const DEPTH_MAX: usize = 32;

/// The place of a value that nobody wants: past the end of the leaves.
const NOBODY: u16 = u16::MAX;

/// How one shape of record looks.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// The kind, where its text is among the constant bytes.
    pub(super) kind: Option<Kind>,
    /// The leaves of such a record before its values are read: what is not there, and constants.
    template: Vec<Leaf>,
    steps: Vec<Step>,
    /// The constant bytes before each value, and those after the last one.
    constants: Vec<Constant>,
    /// The constant bytes beyond the first 16 of each run.
    words: Vec<Word>,
}

/// A value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// A string, up to its closing quote, or else a number.
    string: bool,
    /// Where the value goes, or [`NOBODY`] wants it.
    leaf: u16,
}

/// Bytes that are always the same. Between two values there are seldom more than 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Constant {
    word: Word,
    bytes: u32,
    /// The rest is a run of `Layout::words`.
    more_from: u32,
    more: u32,
}

/// Up to 16 constant bytes and which of the 16 count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Word {
    bytes: [u64; 2],
    mask: [u64; 2],
}

impl Word {
    fn new(bytes: &[u8]) -> Self {
        let (mut word, mut mask) = ([0; 16], [0; 16]);
        for ((place, byte), mask) in word.iter_mut().zip(bytes).zip(&mut mask) {
            (*place, *mask) = (*byte, 0xff);
        }
        Self { bytes: halves(&word), mask: halves(&mask) }
    }

    /// 0 if this is what stands at `at`.
    #[inline(always)]
    fn differences(&self, window: &Window, at: usize) -> u64 {
        (scan::load(window, at) ^ self.bytes[0]) & self.mask[0]
            | (scan::load(window, at + 8) ^ self.bytes[1]) & self.mask[1]
    }
}

impl Step {
    /// Whether the value goes nowhere but to one of these leaves.
    pub(super) fn goes_at_most_to(&self, leaves: [u16; 2]) -> bool {
        self.leaf == NOBODY || leaves.contains(&self.leaf)
    }

    /// The value at `start`; one that nobody wants may have escapes.
    #[inline(always)]
    fn value(&self, window: &Window, start: usize) -> Option<Leaf> {
        let mut leaf = Leaf { int: 0, start: start as u32, end: 0, shape: Shape::Text };
        let mut end;
        if self.string {
            end = scan::plain_text_end(window, start);
            if scan::byte(window, end) != b'"' {
                end = scan::string_end(window, start, self.leaf == NOBODY)?;
            }
        } else {
            let (count, value) = scan::digits(window, start);
            end = start + count;
            // 16 digits may be more of them; a zero is only a zero by itself.
            let plain = matches!(count, 1..=15) && (count == 1 || scan::byte(window, start) != b'0');
            if plain && !matches!(scan::byte(window, end), b'.' | b'e' | b'E') {
                (leaf.int, leaf.shape) = (value as i64, Shape::Int);
            } else {
                end = scan::number_end(window, start)?;
                leaf = Leaf::number(window.get(start..end)?, start);
            }
        }
        leaf.end = end as u32;
        Some(leaf)
    }

    /// Reads the value at `start` into its place; returns where it ends.
    #[inline(always)]
    fn read(&self, window: &Window, start: usize, leaves: &mut [Leaf]) -> Option<usize> {
        let leaf = self.value(window, start)?;
        if let Some(place) = leaves.get_mut(usize::from(self.leaf)) {
            *place = leaf;
        }
        Some(leaf.end as usize)
    }
}

#[inline(always)]
fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

impl Layout {
    /// The values of a record.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The constant bytes before each value, and those after the last one.
    pub(super) fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// Reads the record at the start of `window` into `leaves`; returns its length, or `None` if
    /// this layout does not fit. What follows the record is for the caller to judge.
    /// `written_by` is the number of the layout that wrote these leaves last, `number` this one's.
    #[inline]
    pub(super) fn read(
        &self,
        habits: &mut Habits,
        window: &Window,
        leaves: &mut [Leaf],
        written_by: &mut u64,
        number: u64,
    ) -> Option<usize> {
        // Most layouts that do not fit differ in the first bytes: nothing is written before.
        if self.constants.first()?.word.differences(window, 0) != 0 {
            return None;
        }
        if *written_by != number {
            leaves.copy_from_slice(self.template.get(..leaves.len())?);
            *written_by = number;
        }
        let mut at = 0;
        let (runs, last) = habits.runs();
        for run in runs {
            at = if run.values.is_empty() {
                self.pass(&run.constant, window, at)?
            } else {
                match run.recall(window, at, leaves) {
                    Some(after) => after,
                    None => {
                        *last = None;
                        self.read_run(run, window, at, leaves)?
                    }
                }
            };
            if let Some(step) = &run.then {
                at = step.read(window, at, leaves)?;
            }
        }
        Some(at)
    }

    /// Reads what is not the same as before.
    #[inline(never)]
    fn read_run(&self, run: &mut Run, window: &Window, start: usize, leaves: &mut [Leaf]) -> Option<usize> {
        let (steps, constants) =
            (self.steps.get(run.values.clone())?, self.constants.get(run.values.start..)?);
        let mut at = start;
        for (step, constant) in steps.iter().zip(constants) {
            at = self.pass(constant, window, at)?;
            at = step.read(window, at, leaves)?;
        }
        at = self.pass(self.constants.get(run.values.end)?, window, at)?;
        run.remember(window, start..at, steps.iter().map(|step| step.leaf), leaves);
        Some(at)
    }

    /// Where the values of a record are that this layout fits.
    pub(super) fn values(&self, window: &Window) -> Option<Vec<Range<usize>>> {
        let mut at = 0;
        let of = |(step, constant): (&Step, &Constant)| {
            let start = self.pass(constant, window, at)?;
            at = step.value(window, start)?.end as usize;
            Some(start..at)
        };
        self.steps.iter().zip(&self.constants).map(of).collect()
    }

    /// The position after `constant`, if that is what stands at `at` and all of it is in reach.
    #[inline(always)]
    fn pass(&self, constant: &Constant, window: &Window, at: usize) -> Option<usize> {
        if constant.word.differences(window, at) != 0 {
            return None;
        }
        if constant.more != 0 {
            let more = self.words.get(constant.more_from as usize..)?.get(..constant.more as usize)?;
            let mut differences = 0;
            for (index, word) in more.iter().enumerate() {
                differences |= word.differences(window, at + 16 + 16 * index);
            }
            if differences != 0 {
                return None;
            }
        }
        let end = at + constant.bytes as usize;
        if end <= scan::REACH { Some(end) } else { None }
    }
}

/// The layout of `record`, which the general parser accepted; `None` if it is not worth one: long,
/// deep, with an escape in a key, or with a key that stands twice.
pub(super) fn learn(record: &[u8], plan: &Plan, config: &DecodeConfig) -> Option<Layout> {
    if record.len() > scan::REACH {
        return None;
    }
    let layout = Layout {
        kind: None,
        template: vec![Leaf::default(); plan.count],
        steps: Vec::new(),
        constants: Vec::new(),
        words: Vec::new(),
    };
    let mut learner = Learner { record, at: 0, constant_from: 0, plan, config, layout };
    learner.value(Some(&plan.root), 0)?;
    learner.skip_whitespace();
    if learner.at != record.len() {
        return None;
    }
    learner.constant(record.len())?;
    let layout = learner.layout;
    let mut leaves = vec![Leaf::default(); plan.count];
    let (mut tail, mut habits) = (scan::Tail::default(), Habits::new(&layout, None));
    let end = layout.read(&mut habits, tail.window(record)?, &mut leaves, &mut 0, 1);
    let fits = end == Some(record.len());
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
        self.constant(start)?;
        self.layout.steps.push(Step { string, leaf: leaf.unwrap_or(NOBODY) });
        self.constant_from = end;
        Some(())
    }

    /// Notes the constant bytes since the last value.
    fn constant(&mut self, end: usize) -> Option<()> {
        let bytes = self.record.get(self.constant_from..end)?;
        let mut words = bytes.chunks(16).map(Word::new);
        let word = words.next().unwrap_or_default();
        let more_from = self.layout.words.len() as u32;
        self.layout.words.extend(words);
        let more = self.layout.words.len() as u32 - more_from;
        let constant = Constant { word, bytes: bytes.len() as u32, more_from, more };
        self.layout.constants.push(constant);
        Some(())
    }
}
