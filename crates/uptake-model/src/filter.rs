//! Filters: rules in words that say which events to drop.
//!
//! A rule is one or more conditions joined by `and`; a condition is `path op value`. A rule never
//! sees a record that could not be decoded, the first rule that fits is the one that is counted,
//! and what a rule drops is counted under its text. The whole language is on [`Filters`].

use std::cmp::Ordering;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use serde_json::Value as Json;

use crate::decode::leaf::{Found, Leaf, Leaves, Shape};
use crate::event::Kind;

/// The filters of a configuration that names none: the events of test devices are dropped.
pub const DEFAULT: [&str; 1] = ["device = \"test\""];

/// Rules that say what to drop, in the order in which they are tried.
///
/// ```text
/// device = "test"
/// member_id in ["m1", "m2"]
/// kind = "play" and watch_ms < 30000
/// player.version missing
/// ```
///
/// * The operators are `=`, `!=`, `<`, `<=`, `>`, `>=`, `in [..]`, `not in [..]`, `exists` and
///   `missing`; the values are JSON strings, JSON numbers, `true` and `false`.
/// * `kind` is the decoded kind, "impression" or "play". `request_id`, `video_id`, `timestamp`,
///   `member_id`, `row` and `position` follow the field mapping. Any other name is looked up as a
///   dimension is: at its mapped path, or else at the top level, then in `dimensions`. A dotted
///   path is taken as it stands.
/// * A value is missing if it is not there, `null` or the empty text. Every condition but
///   `missing` is false then, also `!=` and `not in`.
/// * Numbers compare by value, texts byte by byte. A number or truth value in the event also
///   equals the text it is written as, so `member_id = "17"` finds the number 17. Other values of
///   different types are unequal and have no order.
///
/// ```
/// use uptake_model::filter::Filters;
/// let filters = Filters::parse(&["kind = \"play\" and watch_ms < 30000".to_owned()]).unwrap();
/// assert_eq!(filters.text(0), "kind = \"play\" and watch_ms < 30000");
/// let mistakes = Filters::parse(&["device == test".to_owned()]).unwrap_err();
/// assert!(mistakes[0].contains("position 9"), "{mistakes:?}");
/// ```
#[derive(Clone, Debug)]
pub struct Filters {
    rules: Arc<[Rule]>,
    drops_other_kinds: bool,
}

/// The text of the rule of [`Filters::and_other_kinds`].
const OTHER_KINDS: &str = "another kind of event";

impl Default for Filters {
    /// The rules of [`DEFAULT`].
    fn default() -> Self {
        Self::parse(&DEFAULT.map(str::to_owned)).unwrap_or_else(|_| Self::none())
    }
}

impl Filters {
    /// Drops nothing.
    pub fn none() -> Self {
        Self { rules: Arc::default(), drops_other_kinds: false }
    }

    /// Rules from their texts.
    ///
    /// # Errors
    /// A message for each rule that is not understood: its text, the position in it (characters,
    /// from 1) and what was expected there.
    pub fn parse(list: &[String]) -> Result<Self, Vec<String>> {
        let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
        for text in list {
            match Parser::new(text).rule() {
                Ok(conditions) => rules.push(Rule { text: text.trim().to_owned(), conditions }),
                Err((at, message)) => {
                    let position = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
                    mistakes.push(format!("filter `{text}`, position {position}: {message}"));
                }
            }
        }
        let rules = rules.into();
        if mistakes.is_empty() { Ok(Self { rules, drops_other_kinds: false }) } else { Err(mistakes) }
    }

    /// With one more rule, the last: whatever is no impression and no play, for streams that hold much else.
    ///
    /// ```
    /// use uptake_model::filter::Filters;
    /// assert_eq!(Filters::none().and_other_kinds().text(0), "another kind of event");
    /// ```
    #[must_use]
    pub fn and_other_kinds(self) -> Self {
        Self { drops_other_kinds: true, ..self }
    }

    /// The number of the rule that drops other kinds.
    pub(crate) fn other_kinds(&self) -> Option<usize> {
        self.drops_other_kinds.then_some(self.rules.len())
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.rules.len() + usize::from(self.drops_other_kinds)
    }

    /// The text of rule `index`, for reports; empty if there is no such rule.
    pub fn text(&self, index: usize) -> &str {
        let own = self.rules.get(index).map(|rule| rule.text.as_str());
        own.unwrap_or(if self.other_kinds() == Some(index) { OTHER_KINDS } else { "" })
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that the event fits. `subjects` are those of all conditions of all rules, in
    /// order, found.
    #[inline(always)]
    pub(crate) fn first_match(&self, subjects: &[Found], leaves: Leaves<'_>, kind: Kind) -> Option<usize> {
        let mut subjects = subjects.iter();
        for (index, rule) in self.rules.iter().enumerate() {
            let mut fits = true;
            for (condition, found) in rule.conditions.iter().zip(&mut subjects) {
                fits = fits
                    && match found {
                        Found::At(lookup) => {
                            let (leaf, text) = leaves.find(*lookup);
                            condition.test.holds(text, Some(leaf))
                        }
                        Found::Kind => condition.test.holds(name_of(kind).as_bytes(), None),
                    };
            }
            if fits {
                return Some(index);
            }
        }
        None
    }
}

pub(crate) fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Impression => "impression",
        Kind::Play => "play",
    }
}

#[derive(Debug)]
pub(crate) struct Rule {
    text: String,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) subject: Subject,
    test: Test,
}

/// What a condition is about, as it is written.
#[derive(Debug)]
pub(crate) enum Subject {
    Kind,
    Name(String),
    Path(String),
}

#[derive(Debug)]
enum Test {
    Exists,
    Missing,
    /// Equal to a text: the form that nearly every rule has.
    IsText(Vec<u8>),
    Is(Value),
    IsNot(Value),
    Order(Value, fn(Ordering) -> bool),
    In(List),
    NotIn(List),
}

#[derive(Debug)]
enum Value {
    Text(Vec<u8>),
    Number(Number),
    Bool(bool),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Int(i128),
    Float(f64),
}

/// Values to be among: a deny-list of members may be long.
#[derive(Debug, Default)]
struct List {
    texts: HashSet<Vec<u8>, FixedState>,
    others: Vec<Value>,
}

impl Test {
    /// Whether a value passes: `text` is what it is written as, `leaf` is `None` for the kind.
    #[inline(always)]
    fn holds(&self, text: &[u8], leaf: Option<&Leaf>) -> bool {
        match self {
            // Texts that are looked for are never empty, and a text that is missing is.
            Self::IsText(wanted) => text == wanted.as_slice(),
            _ => self.holds_in_general(text, leaf),
        }
    }

    #[inline(never)]
    fn holds_in_general(&self, text: &[u8], leaf: Option<&Leaf>) -> bool {
        let shape = leaf.map_or(Shape::Text, |leaf| leaf.shape);
        let there = !text.is_empty() || shape == Shape::Composite;
        let equals = |value: &Value| equals(value, text, shape, leaf);
        match self {
            Self::Missing => !there,
            _ if !there => false,
            Self::Exists => true,
            Self::IsText(wanted) => text == wanted.as_slice(),
            Self::Is(value) => equals(value),
            Self::IsNot(value) => !equals(value),
            Self::Order(value, holds) => order(value, text, shape, leaf).is_some_and(holds),
            Self::In(list) => list.texts.contains(text) || list.others.iter().any(equals),
            Self::NotIn(list) => !(list.texts.contains(text) || list.others.iter().any(equals)),
        }
    }
}

fn equals(value: &Value, text: &[u8], shape: Shape, leaf: Option<&Leaf>) -> bool {
    match value {
        Value::Text(wanted) => text == wanted.as_slice(),
        Value::Bool(wanted) => shape == if *wanted { Shape::True } else { Shape::False },
        Value::Number(_) => order(value, text, shape, leaf) == Some(Ordering::Equal),
    }
}

/// How the event's value stands to the rule's; `None` where they have no order.
fn order(value: &Value, text: &[u8], shape: Shape, leaf: Option<&Leaf>) -> Option<Ordering> {
    match (value, shape) {
        (Value::Text(wanted), Shape::Text | Shape::Unescaped) => Some(text.cmp(wanted)),
        (Value::Number(wanted), Shape::Int | Shape::Number) => {
            let number = match leaf {
                Some(Leaf { int, shape: Shape::Int, .. }) => Number::Int(i128::from(*int)),
                _ => number_of(std::str::from_utf8(text).ok()?)?,
            };
            match (number, *wanted) {
                (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
                (a, b) => a.float().partial_cmp(&b.float()),
            }
        }
        _ => None,
    }
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

fn number_of(text: &str) -> Option<Number> {
    text.parse().map(Number::Int).or_else(|_| text.parse().map(Number::Float)).ok()
}

/// A byte position in the rule and what is wrong there.
type Mistake = (usize, String);

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or("");
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn rule(mut self) -> Result<Vec<Condition>, Mistake> {
        let mut conditions = vec![self.condition()?];
        while !self.rest().is_empty() {
            if !self.passed_word("and") {
                let hint =
                    if self.rest().starts_with("or") { "; write a rule for each side of `or`" } else { "" };
                return Err((self.at, format!("expected `and` or the end of the rule{hint}")));
            }
            conditions.push(self.condition()?);
        }
        Ok(conditions)
    }

    /// The letters, digits and signs of a path that come next.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.$@:/".contains(c))).unwrap_or(rest.len());
        rest.get(..end).unwrap_or("")
    }

    fn passed_word(&mut self, wanted: &str) -> bool {
        let word = self.word();
        let is = word.eq_ignore_ascii_case(wanted);
        self.at += if is { word.len() } else { 0 };
        is
    }

    fn condition(&mut self) -> Result<Condition, Mistake> {
        let word = self.word();
        if word.is_empty() {
            return Err((self.at, "expected a field's name, as in `device = \"test\"`".to_owned()));
        }
        if word.split('.').any(str::is_empty) {
            return Err((self.at, format!("`{word}` is not a path: there is an empty name in it")));
        }
        self.at += word.len();
        let subject = match word {
            "kind" => Subject::Kind,
            _ if word.contains('.') => Subject::Path(word.to_owned()),
            _ => Subject::Name(word.to_owned()),
        };
        let test = self.test(&subject)?;
        Ok(Condition { subject, test })
    }

    fn test(&mut self, subject: &Subject) -> Result<Test, Mistake> {
        if self.passed_word("exists") {
            return Ok(Test::Exists);
        }
        if self.passed_word("missing") {
            return Ok(Test::Missing);
        }
        if self.passed_word("in") {
            return Ok(Test::In(self.list(subject)?));
        }
        let before_not = self.at;
        if self.passed_word("not") {
            if !self.passed_word("in") {
                return Err((self.at, "expected `in` after `not`".to_owned()));
            }
            return Ok(Test::NotIn(self.list(subject)?));
        }
        self.at = before_not;
        let rest = self.rest();
        let operators = ["!=", "<=", ">=", "=", "<", ">"];
        let Some(operator) = operators.into_iter().find(|operator| rest.starts_with(operator)) else {
            let all = "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `exists` or `missing`";
            return Err((self.at, format!("expected {all}")));
        };
        self.at += operator.len();
        if self.rest().starts_with('=') {
            return Err((self.at, "expected a value; equality is written with a single `=`".to_owned()));
        }
        let start = self.at;
        let value = self.json().and_then(|json| self.value(json, start, subject))?;
        let holds: fn(Ordering) -> bool = match operator {
            "=" => {
                return Ok(match value {
                    Value::Text(text) => Test::IsText(text),
                    value => Test::Is(value),
                });
            }
            "!=" => return Ok(Test::IsNot(value)),
            "<" => Ordering::is_lt,
            "<=" => Ordering::is_le,
            ">" => Ordering::is_gt,
            _ => Ordering::is_ge,
        };
        match value {
            Value::Bool(_) => Err((start, "true and false have no order; use `=` or `!=`".to_owned())),
            value => Ok(Test::Order(value, holds)),
        }
    }

    /// The JSON value that comes next.
    fn json(&mut self) -> Result<Json, Mistake> {
        let rest = self.rest();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
        match values.next() {
            Some(Ok(json)) => {
                self.at += values.byte_offset();
                Ok(json)
            }
            _ => Err((self.at, "expected a value: \"text\" in quotes, a number, true or false".to_owned())),
        }
    }

    fn value(&self, json: Json, start: usize, subject: &Subject) -> Result<Value, Mistake> {
        let value = match json {
            Json::String(text) => Value::Text(text.into_bytes()),
            Json::Bool(truth) => Value::Bool(truth),
            Json::Number(number) => match number_of(&number.to_string()) {
                Some(number) => Value::Number(number),
                None => return Err((start, format!("{number} is not a number that can be compared"))),
            },
            Json::Null => return Err((start, "null is not a value; use `missing` or `exists`".to_owned())),
            Json::Array(_) => return Err((start, "a list goes with `in` or `not in`".to_owned())),
            Json::Object(_) => return Err((start, "an object is not a value".to_owned())),
        };
        match (&value, subject) {
            (Value::Text(text), _) if text.is_empty() => {
                Err((start, "an empty text counts as missing; use `missing` or `exists`".to_owned()))
            }
            (Value::Text(text), Subject::Kind) if text == b"impression" || text == b"play" => Ok(value),
            (_, Subject::Kind) => Err((start, "a kind is \"impression\" or \"play\"".to_owned())),
            _ => Ok(value),
        }
    }

    fn list(&mut self, subject: &Subject) -> Result<List, Mistake> {
        self.rest();
        let start = self.at;
        let Json::Array(items) = self.json()? else {
            return Err((start, "expected a list, as in `in [\"a\", \"b\"]`".to_owned()));
        };
        let mut list = List::default();
        for item in items {
            match self.value(item, start, subject)? {
                Value::Text(text) => {
                    list.texts.insert(text);
                }
                other => list.others.push(other),
            }
        }
        Ok(list)
    }
}
