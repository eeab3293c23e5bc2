//! Decoding: the bytes of a block (whole lines of JSON) to events or dead letters.
//!
//! Each line, or each element of an array on a line, has exactly one outcome: an event, a dead
//! letter with its reason, a drop by a filter, or nothing where it is blank; so the books balance. A record of
//! another form may hold several events, each with its own. Nothing here reads a clock
//! or a file. Records that look like earlier ones are read by a learned layout, all others by
//! `serde_json`; which of the two it was cannot be told from the result.

mod announced;
mod foreign;
mod habits;
mod layout;
pub(crate) mod leaf;
mod scan;
mod slow;
mod timestamp;

use std::collections::BTreeMap;
use std::sync::Arc;

use memchr::memchr;
use serde_json::value::RawValue;

use crate::event::{Event, Kind, Reason};
use crate::filter::Filters;
use crate::ids::{DimsHash, MemberHash, RequestId, VideoHash};
use crate::segment::Segments;
use crate::time::{Epoch, EpochLength, EventTime};

use announced::Announced;
use foreign::{Dead, OfItem, Translator};
pub use foreign::{Foreign, ITEMS_MAX, Route};
use habits::Habits;
use layout::Layout;
use leaf::{Leaf, Leaves, Plan, kind_of};
use scan::Tail;

/// Longest request or video id, in bytes.
pub const ID_BYTES_MAX: usize = 1024;

/// Of which events the member is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Members {
    /// Of none: [`MemberHash::NONE`] stands in all events.
    None,
    /// Of plays, which are few: a request of impressions then costs no more.
    OfPlays,
    /// Of all.
    All,
}

/// How records look and what is refused. The default is the canonical form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodeConfig {
    /// Where the fields are.
    pub fields: Fields,
    /// How an impression is told from a play.
    pub kind: KindRule,
    /// The unit of the timestamp.
    pub timestamp_unit: TimestampUnit,
    /// Longest line in bytes, without its end; a longer one is a dead letter. Default 1 MiB.
    pub bytes_max: usize,
    /// How far ahead of `now` a timestamp may be, in milliseconds. Default 5 minutes.
    pub future_max_ms: i64,
    /// How records of another form are turned into canonical ones, which `fields`, `kind` and `timestamp_unit` then
    /// describe; canonical ones are read beside. Default: there are none.
    pub foreign: Option<Foreign>,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            kind: KindRule::default(),
            timestamp_unit: TimestampUnit::default(),
            bytes_max: 1 << 20,
            future_max_ms: 5 * 60 * 1000,
            foreign: None,
        }
    }
}

/// The path of each field: a key of the record, or keys joined by dots, as `ctx.page_view_id`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Impression or play, as [`KindRule::ByField`] says.
    pub kind: String,
    /// The id of the request: a text.
    pub request_id: String,
    /// The id of the video: a text.
    pub video_id: String,
    /// The event time, in the configured unit.
    pub timestamp: String,
    /// The id of the member: a text or a number; an event without one is fine.
    pub member_id: String,
    /// The row it was shown in; only filters look at it.
    pub row: String,
    /// The position in the row; only filters look at it.
    pub position: String,
    /// Paths of dimensions that are neither at the top level nor in `dimensions`.
    pub dimensions: BTreeMap<String, String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            kind: "kind".to_owned(),
            request_id: "request_id".to_owned(),
            video_id: "video_id".to_owned(),
            timestamp: "timestamp".to_owned(),
            member_id: "member_id".to_owned(),
            row: "row".to_owned(),
            position: "position".to_owned(),
            dimensions: BTreeMap::new(),
        }
    }
}

impl Fields {
    /// The name and the path of each field but the dimensions.
    pub fn paths(&self) -> [(&'static str, &str); 7] {
        [
            ("kind", &self.kind),
            ("request_id", &self.request_id),
            ("video_id", &self.video_id),
            ("timestamp", &self.timestamp),
            ("member_id", &self.member_id),
            ("row", &self.row),
            ("position", &self.position),
        ]
    }
}

/// How an impression is told from a play.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KindRule {
    /// By the text of the field `kind`; a text in both lists is an impression.
    ByField {
        /// What an impression may be called.
        impression: Vec<String>,
        /// What a play may be called.
        play: Vec<String>,
    },
    /// Every record is of this kind: the topic says it.
    Always(Kind),
}

impl Default for KindRule {
    fn default() -> Self {
        Self::ByField { impression: vec!["impression".to_owned()], play: vec!["play".to_owned()] }
    }
}

/// The unit of a timestamp. Finer ones are rounded down to milliseconds. In records of another form
/// ([`TimestampUnit::milliseconds`]) milliseconds may have a fraction, as browsers' clocks tell them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampUnit {
    /// Whole milliseconds since 1970 UTC.
    #[default]
    Ms,
    /// Seconds since 1970 UTC, whole or decimal.
    S,
    /// Whole microseconds since 1970 UTC.
    Us,
    /// Whole nanoseconds since 1970 UTC.
    Ns,
    /// A text of RFC 3339 with its offset, as `2026-01-15T09:30:00.123Z`.
    Rfc3339,
}

/// Takes what a block decodes to, in the order of the block.
pub trait Sink {
    /// An event that can be used.
    fn event(&mut self, event: Event);
    /// A record that cannot: `line` counts the lines of the block from 0, `bytes` is the record
    /// as it came, without the line's end.
    fn dead(&mut self, line: usize, reason: Reason, bytes: &[u8]);
    /// An event that filter number `rule` drops.
    fn filtered(&mut self, rule: usize);
    /// A line with nothing on it: only white space, or an empty array.
    fn blank(&mut self);
    /// The id of a video of which the next event is the first one in `epoch` or later. Also told again with an event
    /// of an epoch from which names may have been forgotten.
    fn video(&mut self, video: VideoHash, id: &str, epoch: Epoch);
    /// The values, in the order of [`Segments::dimensions`], of a combination of which the next
    /// event is the first one in `epoch` or later; again as [`Sink::video`].
    fn dims(&mut self, dims: DimsHash, values: &[&str], epoch: Epoch);
}

/// A [`Sink`] that keeps everything, for tests and small inputs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decoded {
    /// The events.
    pub events: Vec<Event>,
    /// The dead letters: line in its block, reason, bytes.
    pub dead: Vec<(usize, Reason, Vec<u8>)>,
    /// The number of the filter, for each event that was dropped.
    pub filtered: Vec<usize>,
    /// How many lines had nothing on them.
    pub blank: usize,
    /// The announced videos.
    pub videos: Vec<(VideoHash, String, Epoch)>,
    /// The announced combinations of dimension values.
    pub dims: Vec<(DimsHash, Vec<String>, Epoch)>,
}

impl Sink for Decoded {
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
    fn dead(&mut self, line: usize, reason: Reason, bytes: &[u8]) {
        self.dead.push((line, reason, bytes.to_vec()));
    }
    fn filtered(&mut self, rule: usize) {
        self.filtered.push(rule);
    }
    fn blank(&mut self) {
        self.blank += 1;
    }
    fn video(&mut self, video: VideoHash, id: &str, epoch: Epoch) {
        self.videos.push((video, id.to_owned(), epoch));
    }
    fn dims(&mut self, dims: DimsHash, values: &[&str], epoch: Epoch) {
        self.dims.push((dims, values.iter().map(|&value| value.to_owned()).collect(), epoch));
    }
}

/// Decodes blocks of lines. It remembers what records look like and which names it has told, and
/// nothing that changes what a record means.
///
/// ```
/// use uptake_model::decode::{DecodeConfig, Decoded, Decoder, Members};
/// use uptake_model::{EpochLength, EventTime, RequestId, filter::Filters, segment::Segments};
///
/// let mut decoder = Decoder::new(
///     DecodeConfig::default().into(),
///     &Segments::default(),
///     &Filters::default(),
///     EpochLength::default(),
///     Members::None,
/// );
/// let block = br#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435260456}
/// {"kind":"play","request_id":"r2"}
/// "#;
/// let mut decoded = Decoded::default();
/// decoder.decode_block(block, EventTime(1_768_435_260_500), 0, &mut decoded);
/// assert_eq!(decoded.events[0].request, RequestId::from_text(b"r1"));
/// assert_eq!(decoded.dead[0].1.name(), "no-video-id");
/// assert_eq!(decoded.videos[0].1, "v1");
/// ```
#[derive(Debug)]
pub struct Decoder {
    config: Arc<DecodeConfig>,
    filters: Filters,
    plan: Plan,
    translator: Option<Translator>,
    epochs: EpochLength,
    bytes_max: usize,
    layouts: Layouts,
    tail: Tail,
    leaves: Vec<Leaf>,
    /// Texts of the current record whose escapes were resolved.
    scratch: Vec<u8>,
    videos: Announced,
    dims: Announced,
    /// The request of the last event, if its id has 16 bytes as most have: most events are of it.
    request: ([u8; 16], RequestId),
    /// The epoch of the last event with its first and last instant: most events are in it.
    current: (EventTime, EventTime, Epoch),
}

/// The layouts, most recently used first, and how many may be learned now.
#[derive(Debug)]
struct Layouts {
    list: Vec<Known>,
    learning: bool,
    credit: u32,
    learned: u64,
    /// The number of the layout that wrote the leaves last; 0 if it was the general parser.
    written_by: u64,
}

/// A layout in use.
#[derive(Debug)]
struct Known {
    layout: Layout,
    habits: Habits,
    /// From 1.
    number: u64,
}

impl Layouts {
    /// Impressions and plays, each with and without a few optional fields. A record that none
    /// fits has tried them all, so their number is what an unusual record pays.
    const COUNT_MAX: usize = 16;
    /// What learning a layout costs in credit; a record read the general way earns 1. Learning
    /// takes about as long as reading a few records, so records of which no two look alike are
    /// slowed down by a fraction only, and cannot push out layouts that are in use.
    const PRICE: u32 = 16;
    const CREDIT_MAX: u32 = 2 * Self::COUNT_MAX as u32 * Self::PRICE;

    /// Whether a record that was read the general way may be learned from.
    fn may_learn(&mut self) -> bool {
        self.credit = (self.credit + 1).min(Self::CREDIT_MAX);
        self.learning && self.credit >= Self::PRICE
    }

    fn add(&mut self, layout: Option<Layout>, plan: &Plan) {
        self.credit = self.credit.saturating_sub(Self::PRICE);
        let known = |layout: &Layout| self.list.iter().any(|known| known.layout == *layout);
        let Some(layout) = layout.filter(|layout| !known(layout)) else { return };
        self.learned += 1;
        self.list.truncate(Self::COUNT_MAX - 1);
        let (habits, number) = (Habits::new(&layout, plan.changing), self.learned);
        self.list.insert(0, Known { layout, habits, number });
    }
}

/// What is the same for all records of a block.
#[derive(Clone, Copy)]
struct Block {
    latest: EventTime,
    partition: u32,
}

impl Decoder {
    /// A decoder for records that look as `config` says. Values of the dimensions of `segments`
    /// are kept, and the member id of those events that `members` says; `filters` drop events; names are
    /// announced once per epoch of length `epochs`, see [`Sink::video`].
    pub fn new(
        config: Arc<DecodeConfig>,
        segments: &Segments,
        filters: &Filters,
        epochs: EpochLength,
        members: Members,
    ) -> Self {
        let plan = Plan::new(&config, segments, filters, members);
        Self {
            // Positions in a record are kept in 32 bits.
            bytes_max: config.bytes_max.min(u32::MAX as usize / 2),
            filters: filters.clone(),
            epochs,
            layouts: Layouts {
                list: Vec::new(),
                learning: true,
                credit: Layouts::CREDIT_MAX,
                learned: 0,
                written_by: 0,
            },
            tail: Tail::default(),
            leaves: vec![Leaf::default(); plan.count],
            scratch: Vec::new(),
            videos: Announced::default(),
            dims: Announced::default(),
            request: ([0; 16], RequestId::from_text(&[0; 16])),
            current: (EventTime::MAX, EventTime::MIN, Epoch::default()),
            translator: config.foreign.clone().map(|form| Translator::new(form, segments, filters)),
            config,
            plan,
        }
    }

    /// The same decoder, but every record is read by the general parser: the reference that the
    /// learned layouts are compared with.
    #[must_use]
    pub fn without_learning(mut self) -> Self {
        self.layouts.learning = false;
        self
    }

    /// Decodes the lines of `bytes` into `out`. The last line may lack its end. `now` is when the
    /// block arrived; `partition` is written into every event.
    pub fn decode_block(&mut self, bytes: &[u8], now: EventTime, partition: u32, out: &mut impl Sink) {
        let block = Block { latest: now.plus(self.config.future_max_ms), partition };
        let (mut rest, mut line) = (bytes, 0);
        while !rest.is_empty() {
            if let Some((record, kind, after)) = self.read_by_layout(rest) {
                self.judge_known(record, kind, line, block, out);
                rest = after;
            } else {
                let end = memchr(b'\n', rest).unwrap_or(rest.len());
                let text = rest.get(..end).unwrap_or_default();
                rest = rest.get(end + 1..).unwrap_or_default();
                self.line(text.strip_suffix(b"\r").unwrap_or(text), line, block, out);
            }
            line += 1;
        }
    }

    /// Drops what is remembered about names whose last announcement was for an epoch before
    /// `epoch`. A later event of theirs is announced again.
    pub fn forget_before(&mut self, epoch: Epoch) {
        self.videos.forget_before(epoch);
        self.dims.forget_before(epoch);
    }

    /// Reads the line at the start of `bytes` by one of the layouts: its record, the kind if the
    /// layout knows it, and the bytes after the line.
    #[inline(always)]
    fn read_by_layout<'a>(&mut self, bytes: &'a [u8]) -> Option<(&'a [u8], Option<Kind>, &'a [u8])> {
        let window = match bytes.first_chunk() {
            Some(window) => window,
            None => self.tail.window(bytes)?,
        };
        for index in 0..self.layouts.list.len() {
            let Known { layout, habits, number } = &mut self.layouts.list[index];
            let read = layout.read(habits, window, &mut self.leaves, &mut self.layouts.written_by, *number);
            let Some(end) = read else { continue };
            let (record, after) = bytes.split_at_checked(end)?;
            let after = match after {
                [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] => after,
                [] | [b'\r'] => &[],
                _ => continue,
            };
            if record.len() > self.bytes_max {
                return None;
            }
            let kind = layout.kind;
            habits.note(layout, record, window);
            if index > 0 {
                self.layouts.list[..=index].rotate_right(1);
            }
            return Some((record, kind, after));
        }
        None
    }

    /// A line that no layout fits.
    fn line(&mut self, text: &[u8], line: usize, block: Block, out: &mut impl Sink) {
        if text.len() > self.bytes_max {
            return out.dead(line, Reason::TooLong, text);
        }
        let Ok(utf8) = std::str::from_utf8(text) else { return out.dead(line, Reason::NotUtf8, text) };
        // Some editors begin a file with a byte order mark, which is no part of its first record.
        let utf8 = utf8.strip_prefix('\u{feff}').unwrap_or(utf8);
        match utf8.bytes().find(|b| !matches!(b, b' ' | b'\t' | b'\r')) {
            None => out.blank(),
            Some(b'{') => self.record(utf8, line, block, out),
            // All of it is read before anything is said about a part: it may end too early.
            Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(utf8) {
                Ok(elements) if elements.is_empty() => out.blank(),
                Ok(elements) => {
                    for element in elements {
                        self.element(element.get(), line, block, out);
                    }
                }
                Err(_) => out.dead(line, Reason::NotJson, text),
            },
            Some(_) => match serde_json::from_str::<&RawValue>(utf8) {
                Ok(_) => out.dead(line, Reason::NotAnObject, text),
                Err(_) => out.dead(line, Reason::NotJson, text),
            },
        }
    }

    fn element(&mut self, text: &str, line: usize, block: Block, out: &mut impl Sink) {
        match self.is_known(text, line, block, out) {
            true => {}
            false if text.starts_with('{') => self.record(text, line, block, out),
            false => out.dead(line, Reason::NotAnObject, text.as_bytes()),
        }
    }

    /// Whether one of the layouts reads all of a text; then it is judged.
    fn is_known(&mut self, text: &str, line: usize, block: Block, out: &mut impl Sink) -> bool {
        match self.read_by_layout(text.as_bytes()) {
            Some((record, kind, _)) if record.len() == text.len() => {
                self.judge_unusual(record, kind, line, block, out);
                true
            }
            _ => false,
        }
    }

    /// A record that no layout fits, of whatever form.
    fn record(&mut self, text: &str, line: usize, block: Block, out: &mut impl Sink) {
        if self.translator.is_none() {
            return self.canonical(text, line, block, out);
        }
        if self.read(text) && self.has_event(text) {
            return self.judge_read(text, line, block, out);
        }
        let Some(translator) = self.translator.take() else { return };
        match translator.read(text) {
            Err(reason) => out.dead(line, reason, text.as_bytes()),
            Ok(found) => {
                let mut dead = Dead::default();
                for (item, text) in found.texts.iter().enumerate() {
                    let mut of_item = OfItem { out, item, dead: &mut dead };
                    if !self.is_known(text, line, block, &mut of_item) {
                        self.canonical(text, line, block, &mut of_item);
                    }
                }
                translator.tell_dead(&found, &dead, text, line, out);
            }
        }
        self.translator = Some(translator);
    }

    /// A record in the form that the fields describe, by the general parser.
    fn canonical(&mut self, text: &str, line: usize, block: Block, out: &mut impl Sink) {
        match self.read(text) {
            true => self.judge_read(text, line, block, out),
            false => out.dead(line, Reason::NotJson, text.as_bytes()),
        }
    }

    /// Whether the general parser can read a record; then the leaves are those of it.
    fn read(&mut self, text: &str) -> bool {
        self.layouts.written_by = 0;
        slow::read(text, &self.plan.root, &mut self.leaves, &mut self.scratch).is_ok()
    }

    /// Whether the record that was read has what an event in the canonical form has: what the collector takes is
    /// written so.
    fn has_event(&self, text: &str) -> bool {
        let leaves = Leaves { record: text.as_bytes(), scratch: &self.scratch, leaves: &self.leaves };
        let all = [self.plan.kind, Some(self.plan.request), Some(self.plan.video)];
        all.into_iter().flatten().all(|leaf| leaves.string(leaf).is_some())
    }

    /// Judges the record that was read, and learns from it.
    fn judge_read(&mut self, text: &str, line: usize, block: Block, out: &mut impl Sink) {
        let record = text.as_bytes();
        let is_usable = self.judge_unusual(record, None, line, block, out);
        if self.layouts.may_learn() && is_usable {
            self.layouts.add(layout::learn(record, &self.plan, &self.config), &self.plan);
        }
    }

    /// The same as [`Self::judge`], for records that are not the usual ones.
    #[inline(never)]
    fn judge_unusual(
        &mut self,
        record: &[u8],
        kind: Option<Kind>,
        line: usize,
        block: Block,
        out: &mut impl Sink,
    ) -> bool {
        self.judge(record, kind, line, block, out)
    }

    /// Tells `out` what became of a record that the first layout read.
    #[inline(always)]
    fn judge_known(
        &mut self,
        record: &[u8],
        kind: Option<Kind>,
        line: usize,
        block: Block,
        out: &mut impl Sink,
    ) {
        let last = self.layouts.list.first().and_then(|known| known.habits.last().copied());
        // Most records are of the page of the one before: all that was found out about that one holds.
        let judged = match last {
            Some(last) => self.try_judge_again(last, record, block, out),
            None => self.try_judge(record, kind, block, out).map(|event| {
                if let Some(known) = self.layouts.list.first_mut() {
                    known.habits.remember(event);
                }
            }),
        };
        if let Err(reason) = judged {
            out.dead(line, reason, record);
        }
    }

    /// Tells `out` what became of a record; says whether it is no dead letter.
    #[inline(always)]
    fn judge(
        &mut self,
        record: &[u8],
        kind: Option<Kind>,
        line: usize,
        block: Block,
        out: &mut impl Sink,
    ) -> bool {
        let dead = self.try_judge(record, kind, block, out).err();
        if let Some(reason) = dead {
            out.dead(line, reason, record);
        }
        dead.is_none()
    }

    /// The checks, in the order of [`Reason::ALL`] from the kind on, and the filters; the event, unless it is
    /// filtered.
    #[inline(always)]
    fn try_judge(
        &mut self,
        record: &[u8],
        kind: Option<Kind>,
        block: Block,
        out: &mut impl Sink,
    ) -> Result<Option<Event>, Reason> {
        let leaves = Leaves { record, scratch: &self.scratch, leaves: &self.leaves };
        let plan = &self.plan;
        let kind = match (kind, plan.kind) {
            (Some(kind), _) => Ok(kind),
            (None, Some(leaf)) => {
                leaves.string(leaf).ok_or(Reason::NoKind).and_then(|text| kind_of(&self.config.kind, text))
            }
            (None, None) => kind_of(&self.config.kind, b""),
        };
        let kind = match (kind, self.filters.other_kinds()) {
            (Ok(kind), _) => kind,
            (Err(_), Some(rule)) => {
                out.filtered(rule);
                return Ok(None);
            }
            (Err(reason), None) => return Err(reason),
        };
        let request = leaves.string(plan.request).filter(|id| !id.is_empty()).ok_or(Reason::NoRequestId)?;
        let (video, time) = self.video_and_time(leaves, request, block)?;
        if let Some(rule) = self.filters.first_match(&plan.subjects, leaves, kind) {
            out.filtered(rule);
            return Ok(None);
        }
        let request = match <[u8; 16]>::try_from(request) {
            Ok(text) if text == self.request.0 => self.request.1,
            Ok(text) => {
                self.request = (text, RequestId::from_text(&text));
                self.request.1
            }
            Err(_) => RequestId::from_text(request),
        };
        let dims = match plan.dimensions.as_slice() {
            [] => DimsHash::NONE,
            dimensions => {
                let mut longest = 0;
                let values = dimensions.iter().map(|&d| leaves.find(d).1);
                let dims = DimsHash::from_values(values.inspect(|value| longest = value.len().max(longest)));
                if longest > ID_BYTES_MAX {
                    return Err(Reason::IdTooLong);
                }
                dims
            }
        };
        let member = match (plan.members, kind) {
            (Members::All, _) | (Members::OfPlays, Kind::Play) => {
                MemberHash::from_text(leaves.text(leaves.get(plan.member)))
            }
            _ => MemberHash::NONE,
        };
        let video = VideoHash::from_text(video);
        let event = Event { request, video, time, member, dims, partition: block.partition, kind };
        self.tell(event, record, out);
        Ok(Some(event))
    }

    /// The same for a record that differs from the one of `last` in video and time alone, and was read by the same
    /// layout.
    #[inline(always)]
    fn try_judge_again(
        &mut self,
        last: Event,
        record: &[u8],
        block: Block,
        out: &mut impl Sink,
    ) -> Result<(), Reason> {
        let leaves = Leaves { record, scratch: &self.scratch, leaves: &self.leaves };
        let (video, time) = self.video_and_time(leaves, b"", block)?;
        let event = Event { video: VideoHash::from_text(video), time, partition: block.partition, ..last };
        self.tell(event, record, out);
        Ok(())
    }

    /// What a record says of these two, beside its request id.
    #[inline(always)]
    fn video_and_time<'a>(
        &self,
        leaves: Leaves<'a>,
        request: &[u8],
        block: Block,
    ) -> Result<(&'a [u8], EventTime), Reason> {
        let video = leaves.string(self.plan.video).filter(|id| !id.is_empty()).ok_or(Reason::NoVideoId)?;
        if request.len() > ID_BYTES_MAX || video.len() > ID_BYTES_MAX {
            return Err(Reason::IdTooLong);
        }
        let time = timestamp::time_of(self.config.timestamp_unit, leaves.get(self.plan.timestamp), leaves)?;
        if time > block.latest { Err(Reason::TimestampInFuture) } else { Ok((video, time)) }
    }

    /// Hands an event over, and before it the names that are to be told.
    #[inline(always)]
    fn tell(&mut self, event: Event, record: &[u8], out: &mut impl Sink) {
        if event.time < self.current.0 || event.time > self.current.1 {
            let epoch = self.epochs.epoch(event.time);
            self.current = (self.epochs.start(epoch), self.epochs.end(epoch).minus(1), epoch);
        }
        let epoch = self.current.2;
        let new_video = self.videos.is_new(event.video.0, epoch);
        let new_dims = !self.plan.dimensions.is_empty() && self.dims.is_new(event.dims.0, epoch);
        if new_video || new_dims {
            self.announce(event, epoch, new_video, new_dims, record, out);
        }
        out.event(event);
    }

    #[cold]
    fn announce(
        &self,
        event: Event,
        epoch: Epoch,
        video: bool,
        dims: bool,
        record: &[u8],
        out: &mut impl Sink,
    ) {
        let leaves = Leaves { record, scratch: &self.scratch, leaves: &self.leaves };
        // All of the record was checked to be UTF-8.
        let utf8 = |text| std::str::from_utf8(text).unwrap_or_default();
        if video {
            out.video(event.video, utf8(leaves.string(self.plan.video).unwrap_or_default()), epoch);
        }
        if dims {
            let values: Vec<&str> = self.plan.dimensions.iter().map(|&d| utf8(leaves.find(d).1)).collect();
            out.dims(event.dims, &values, epoch);
        }
    }
}
