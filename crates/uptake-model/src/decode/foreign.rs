//! Records of another form than ours: those of web analytics, of which one tells of a whole list of titles.
//!
//! Such a record is turned into records of the canonical form, one for each item of its list, and those are decoded
//! like any others. It is the slow way, for what only a general parser can read.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Fields, KindRule, Sink, TimestampUnit};
use crate::event::{Event, Kind, Reason};
use crate::filter::{Filters, Subject, name_of};
use crate::ids::{DimsHash, VideoHash};
use crate::segment::Segments;
use crate::time::Epoch;

/// The most items of a record: each brings a record of its own into being.
pub const ITEMS_MAX: usize = 1_000;

/// What the paths of an item begin with.
const ITEM: &str = "item";

/// Where a value is in a record of another form.
///
/// * `a.b`: the value of key `b` in the object at key `a`.
/// * `a[0]`: the first element of the array at `a`.
/// * `a[key=page].value`: of the objects in the array at `a`, the first one whose `key` is the text `page`.
/// * `item.id`: in the item that an event is of.
/// * `x + y`: both values as one text with `/` between them; nothing if one of them is missing.
/// * `x | y`: `x`, or `y` where there is no `x`.
///
/// A value is missing if it is not there, `null`, the empty text, or one of the texts that stand for a missing value.
///
/// ```
/// use uptake_model::decode::Route;
///
/// let record = serde_json::json!({"params": [{"key": "page", "value": 7}], "user": "u1"});
/// let route = Route::parse("page_id | user + params[key=page].value")?;
/// assert_eq!(route.find(&record, None, &[]).unwrap(), "u1/7");
/// assert_eq!(route.find(&record, None, &["u1".to_owned()]), None);
/// assert!(Route::parse("params[page").is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Alternatives of parts of steps.
    alternatives: Vec<Vec<Vec<Step>>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Key(String),
    Index(usize),
    Where(String, String),
}

impl Route {
    /// A route as it is written.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let alternative = |text: &str| text.split('+').map(|part| steps(part.trim())).collect();
        let alternatives = text.split('|').map(alternative).collect::<Result<_, String>>()?;
        Ok(Self { alternatives })
    }

    /// Whether a path says more than names and dots can.
    pub fn is_needed_for(path: &str) -> bool {
        path.contains(['[', '|', '+'])
    }

    /// The value in a record, or in the item of it that is looked at. A text of `missing` stands for no value.
    pub fn find(&self, record: &Value, item: Option<&Value>, missing: &[String]) -> Option<Value> {
        let at = |steps: &[Step]| at(record, item, steps).filter(|value| !stands_for_nothing(value, missing));
        self.alternatives.iter().find_map(|parts| match parts.as_slice() {
            [steps] => at(steps).cloned(),
            parts => {
                let texts = parts.iter().map(|steps| at(steps).and_then(text_of));
                texts.collect::<Option<Vec<_>>>().map(|texts| Value::String(texts.join("/")))
            }
        })
    }

    /// The first array of the alternatives, and the way to it.
    fn array<'a>(&self, record: &'a Value) -> Option<(&[Step], &'a [Value])> {
        let ways = self.alternatives.iter().filter_map(|parts| parts.first());
        ways.into_iter()
            .find_map(|steps| Some((steps.as_slice(), at(record, None, steps)?.as_array()?.as_slice())))
    }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for name in text.split('.') {
        let (key, mut selectors) = name.split_at(name.find('[').unwrap_or(name.len()));
        if key.is_empty() {
            return Err(format!("{text:?} is not a path: a name is missing in it"));
        }
        steps.push(Step::Key(key.to_owned()));
        while !selectors.is_empty() {
            let selector = selectors.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((inside, rest)) = selector else {
                return Err(format!("{text:?} is not a path: write [0] or [name=text] after a name"));
            };
            steps.push(match (inside.split_once('='), inside.parse()) {
                (Some((name, wanted)), _) => Step::Where(name.to_owned(), wanted.to_owned()),
                (None, Ok(index)) => Step::Index(index),
                (None, Err(_)) => {
                    return Err(format!(
                        "{text:?} is not a path: {inside:?} is neither a number nor name=text"
                    ));
                }
            });
            selectors = rest;
        }
    }
    Ok(steps)
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Key(key) => value.get(key),
            Self::Index(index) => value.get(index),
            Self::Where(name, wanted) => value.get(position(value, name, wanted)?),
        }
    }

    fn of_mut<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Key(key) => value.get_mut(key),
            Self::Index(index) => value.get_mut(index),
            Self::Where(name, wanted) => value.get_mut(position(value, name, wanted)?),
        }
    }
}

/// Where in an array the first object is whose `name` is the text `wanted`.
fn position(array: &Value, name: &str, wanted: &str) -> Option<usize> {
    array.as_array()?.iter().position(|element| element.get(name).and_then(Value::as_str) == Some(wanted))
}

/// Whether a value is one of the texts that stand for a missing one.
fn stands_for_nothing(value: &Value, missing: &[String]) -> bool {
    value.as_str().is_some_and(|text| missing.iter().any(|of| of == text))
}

/// The value that steps lead to, if it is not missing.
fn at<'a>(record: &'a Value, item: Option<&'a Value>, steps: &[Step]) -> Option<&'a Value> {
    let found = match (steps, item) {
        ([Step::Key(first), rest @ ..], Some(item)) if first == ITEM => {
            rest.iter().try_fold(item, |value, step| step.of(value))
        }
        _ => steps.iter().try_fold(record, |value, step| step.of(value)),
    };
    found.filter(|value| !value.is_null() && value.as_str() != Some(""))
}

/// A scalar as a text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// How records of another form are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// The list of which each element is an event of its own; a record without one is one event.
    pub items: Option<Route>,
    /// Where the kind is.
    pub kind: Route,
    /// Where the id of the request is. A number is taken as its text, here and for the video.
    pub request_id: Route,
    /// Where the id of the video is.
    pub video_id: Route,
    /// Where the time is: a number, or a text of digits, in the unit; or a text of RFC 3339.
    pub timestamp: Route,
    /// Where the id of the member is.
    pub member_id: Route,
    /// Where the row is; only filters look at it.
    pub row: Route,
    /// Where the position is; only filters look at it.
    pub position: Route,
    /// Where the dimensions are that are neither at the top level nor in `dimensions`.
    pub dimensions: BTreeMap<String, Route>,
    /// Texts that stand for a value that is missing.
    pub missing: Vec<String>,
    /// What an impression and a play are called.
    pub kinds: KindRule,
    /// The unit of the time.
    pub timestamp_unit: TimestampUnit,
}

impl Foreign {
    /// The form of which `fields` and `items` say where everything is, each as a [`Route`] is written; `items` may be
    /// empty. No text stands for a missing value.
    ///
    /// ```
    /// use uptake_model::decode::{Fields, Foreign, KindRule, TimestampUnit};
    /// let fields = Fields { video_id: "item.id".into(), row: "a[".into(), ..Fields::default() };
    /// let form = Foreign::parse(&fields, "items", KindRule::default(), TimestampUnit::Ms);
    /// assert_eq!(form.unwrap_err()[0].0, "row");
    /// ```
    ///
    /// # Errors
    /// What is no route: the field (`dimensions` for each of those, `items`), and what is wrong with it.
    pub fn parse(
        fields: &Fields,
        items: &str,
        kinds: KindRule,
        timestamp_unit: TimestampUnit,
    ) -> Result<Self, Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        let mut route = |name: &'static str, path: &str| {
            Route::parse(path).unwrap_or_else(|what| {
                wrong.push((name, what));
                Route::default()
            })
        };
        let [kind, request_id, video_id, timestamp, member_id, row, position] =
            fields.paths().map(|(name, path)| route(name, path));
        let dimensions = fields.dimensions.iter();
        let dimensions = dimensions.map(|(name, path)| (name.clone(), route("dimensions", path))).collect();
        let items = (!items.is_empty()).then(|| route("items", items));
        let form = Self {
            items,
            kind,
            request_id,
            video_id,
            timestamp,
            member_id,
            row,
            position,
            dimensions,
            missing: Vec::new(),
            kinds,
            timestamp_unit,
        };
        if wrong.is_empty() { Ok(form) } else { Err(wrong) }
    }
}

impl TimestampUnit {
    /// A time in milliseconds since 1970, rounded down; `None` if it is none in this unit.
    ///
    /// ```
    /// use uptake_model::decode::TimestampUnit;
    /// assert_eq!(TimestampUnit::Us.milliseconds(&serde_json::json!(1_768_435_200_123_456_u64)), Some(1_768_435_200_123));
    /// assert_eq!(TimestampUnit::Rfc3339.milliseconds(&"2026-01-15T00:00:00.5Z".into()), Some(1_768_435_200_500));
    /// assert_eq!(TimestampUnit::Ms.milliseconds(&"yesterday".into()), None);
    /// ```
    pub fn milliseconds(self, value: &Value) -> Option<i64> {
        let whole = |value: &Value| value.as_i64();
        match self {
            // Clocks of browsers tell fractions.
            Self::Ms => whole(value)
                .or_else(|| value.as_f64().filter(|ms| ms.abs() < 9e15).map(|ms| ms.floor() as i64)),
            Self::S => value.as_f64().filter(|s| s.abs() < 9e12).map(|s| (s * 1e3).floor() as i64),
            Self::Us => whole(value).map(|us| us.div_euclid(1_000)),
            Self::Ns => whole(value).map(|ns| ns.div_euclid(1_000_000)),
            Self::Rfc3339 => Some(value.as_str()?.parse::<jiff::Timestamp>().ok()?.as_millisecond()),
        }
    }
}

/// Turns records of another form into canonical ones.
#[derive(Debug)]
pub(super) struct Translator {
    form: Foreign,
    /// Names of dimensions and of filters' subjects that are no fields of an event.
    names: Vec<String>,
    /// Subjects of filters with dots.
    paths: Vec<String>,
}

/// The canonical records of one record of another form.
pub(super) struct Records {
    record: Value,
    /// One for each item; one in all where the record has none.
    pub(super) texts: Vec<String>,
    /// The record has a list, and nothing is in it.
    is_empty_list: bool,
}

impl Translator {
    pub(super) fn new(form: Foreign, segments: &Segments, filters: &Filters) -> Self {
        let (mut names, mut paths) = (segments.dimensions().to_vec(), Vec::new());
        for condition in filters.rules().iter().flat_map(|rule| &rule.conditions) {
            match &condition.subject {
                Subject::Kind => {}
                Subject::Name(name) => names.push(name.clone()),
                Subject::Path(path) => paths.push(path.clone()),
            }
        }
        let fields = Fields::default();
        names.retain(|name| fields.paths().iter().all(|(_, path)| path != name));
        names.sort_unstable();
        names.dedup();
        Self { form, names, paths }
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// [`Reason::NotJson`]; [`Reason::TooLong`] for more than [`ITEMS_MAX`] items.
    pub(super) fn read(&self, text: &str) -> Result<Records, Reason> {
        let record: Value = serde_json::from_str(text).map_err(|_| Reason::NotJson)?;
        let items = self.form.items.as_ref().and_then(|items| items.array(&record)).map(|(_, items)| items);
        let is_empty_list = items.is_some_and(<[Value]>::is_empty);
        let texts = match items {
            Some(items) if items.len() > ITEMS_MAX => return Err(Reason::TooLong),
            Some(items) if !is_empty_list => {
                items.iter().map(|item| self.canonical(&record, Some(item))).collect()
            }
            _ => vec![self.canonical(&record, None)],
        };
        Ok(Records { record, texts, is_empty_list })
    }

    /// The canonical record of an item.
    fn canonical(&self, record: &Value, item: Option<&Value>) -> String {
        let (form, fields, mut canonical) = (&self.form, Fields::default(), Map::new());
        let mut put = |name: String, value: Option<Value>| {
            if let Some(value) = value {
                canonical.insert(name, value);
            }
        };
        let as_text = |value: Value| text_of(&value).map_or(value, Value::String);
        let find = |route: &Route| route.find(record, item, &form.missing);
        let kind = find(&form.kind).map(|kind| self.kind(kind));
        put(
            fields.kind,
            match &form.kinds {
                KindRule::Always(kind) => Some(name_of(*kind).into()),
                KindRule::ByField { .. } => kind,
            },
        );
        put(fields.request_id, find(&form.request_id).map(as_text));
        put(fields.video_id, find(&form.video_id).map(as_text));
        put(fields.timestamp, find(&form.timestamp).map(|time| self.time(time)));
        put(fields.member_id, find(&form.member_id));
        put(fields.row, find(&form.row));
        put(fields.position, find(&form.position));
        let mut dimensions = Map::new();
        for name in &self.names {
            match form.dimensions.get(name) {
                Some(route) => drop(find(route).map(|value| dimensions.insert(name.clone(), value))),
                None => {
                    let told = |value: &&Value| !stands_for_nothing(value, &form.missing);
                    put(name.clone(), record.get(name).filter(told).cloned());
                    let below = record.get("dimensions").and_then(|all| all.get(name)).filter(told);
                    below.map(|value| dimensions.insert(name.clone(), value.clone()));
                }
            }
        }
        let mut canonical = Value::Object(canonical);
        for path in &self.paths {
            let (root, path_in) = match (path.strip_prefix("item."), item) {
                (Some(rest), Some(item)) => (item, rest),
                _ => (record, path.as_str()),
            };
            let found = path_in.split('.').try_fold(root, |value, name| value.get(name));
            if let Some(found) = found {
                put_at(&mut canonical, path, found.clone());
            }
        }
        if !dimensions.is_empty() && canonical.get("dimensions").is_none() {
            canonical["dimensions"] = Value::Object(dimensions);
        }
        canonical.to_string()
    }

    fn kind(&self, found: Value) -> Value {
        let KindRule::ByField { impression, play } = &self.form.kinds else { return found };
        let is = |names: &[String]| found.as_str().is_some_and(|text| names.iter().any(|name| name == text));
        match (is(impression), is(play)) {
            (true, _) => name_of(Kind::Impression).into(),
            (false, true) => name_of(Kind::Play).into(),
            // What may be called so here is another kind there.
            (false, false) if found.is_string() => "".into(),
            (false, false) => found,
        }
    }

    fn time(&self, found: Value) -> Value {
        let unit = self.form.timestamp_unit;
        let number = found.as_str().filter(|_| unit != TimestampUnit::Rfc3339);
        let number = number.and_then(|digits| serde_json::from_str::<serde_json::Number>(digits).ok());
        let time = number.map_or(found, Value::Number);
        unit.milliseconds(&time).map_or_else(|| Value::String(time.to_string()), Value::from)
    }

    /// Tells what cannot be used of a record, which is `text`: for each reason the record with the items of that
    /// reason alone, so that no more is read again than must be.
    pub(super) fn tell_dead(
        &self,
        found: &Records,
        dead: &Dead,
        text: &str,
        line: usize,
        out: &mut impl Sink,
    ) {
        for (&reason, items) in &dead.0 {
            match (found.is_empty_list && reason == Reason::NoVideoId, items.len() == found.texts.len()) {
                (true, _) => out.blank(),
                (false, true) => out.dead(line, reason, text.as_bytes()),
                (false, false) => out.dead(line, reason, &self.with_items(&found.record, items)),
            }
        }
    }

    /// The record with some of its items alone.
    fn with_items(&self, record: &Value, wanted: &[usize]) -> Vec<u8> {
        let way =
            self.form.items.as_ref().and_then(|items| items.array(record)).map_or(&[][..], |(way, _)| way);
        let mut record = record.clone();
        let items = way.iter().try_fold(&mut record, |value, step| step.of_mut(value));
        if let Some(items) = items.and_then(Value::as_array_mut) {
            let mut index = 0;
            items.retain(|_| {
                index += 1;
                wanted.contains(&(index - 1))
            });
        }
        record.to_string().into_bytes()
    }
}

/// Which items of a record cannot be used, by reason.
#[derive(Default)]
pub(super) struct Dead(BTreeMap<Reason, Vec<usize>>);

/// Passes on what becomes of one item, and keeps why it cannot be used.
pub(super) struct OfItem<'a, S> {
    pub(super) out: &'a mut S,
    pub(super) item: usize,
    pub(super) dead: &'a mut Dead,
}

impl<S: Sink> Sink for OfItem<'_, S> {
    fn event(&mut self, event: Event) {
        self.out.event(event);
    }
    fn dead(&mut self, _: usize, reason: Reason, _: &[u8]) {
        self.dead.0.entry(reason).or_default().push(self.item);
    }
    fn filtered(&mut self, rule: usize) {
        self.out.filtered(rule);
    }
    fn blank(&mut self) {
        self.out.blank();
    }
    fn video(&mut self, video: VideoHash, id: &str, epoch: Epoch) {
        self.out.video(video, id, epoch);
    }
    fn dims(&mut self, dims: DimsHash, values: &[&str], epoch: Epoch) {
        self.out.dims(dims, values, epoch);
    }
}

fn put_at(record: &mut Value, path: &str, value: Value) {
    let mut place = record;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}
