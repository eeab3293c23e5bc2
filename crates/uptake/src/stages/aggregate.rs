//! The aggregate: tallies by video, epoch and segment, each touched one written once in a while.
//!
//! Tallies are absolute and the larger row wins, so a row may be written at any time, again, or
//! not at all if a larger one follows: changed tallies are written when the table has taken the
//! ones before, and a slow table makes them fewer, never a queue longer.

mod counted;
mod saved;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::Serialize;
use uptake_connectors::log::Record;
use uptake_flow::{Context, Emit, Flow, KeyedState, Process, Stop, Stream, To, Tracking, shard};
use uptake_model::segment::{CAPPED, MEMBERS, is_reserved};
use uptake_model::tally::{Tally, TallyRow};
use uptake_model::{DimsHash, Epoch, Event, EventTime, Kind, MemberHash, RequestId, VideoHash};

use crate::checkpoint::{Fragment, Restored, Stage, shard_buffers};
use crate::clock::Moment;
use crate::config::Config;
use crate::data_dir::LATE;
use crate::stages::Joined;
use crate::stages::collect::Name;
use crate::stages::outlets::{Books, Outlets};

use counted::{Counted, CountedNotes, Slot};

pub use counted::each_counted;

/// Counts what counts, writes changed tallies to the table, and lets sealed ones out.
pub fn by_video_and_epoch<'s>(
    flow: &Flow<'s>,
    (joined, names): (Stream<'s, Joined>, Stream<'s, Name>),
    config: &Arc<Config>,
    outlets: &Outlets,
    restored: Option<&Restored>,
) -> Stream<'s, TallyRow> {
    let mut tallies = Tallies {
        config: Arc::clone(config),
        states: KeyedState::default(),
        videos: HashMap::default(),
        groups: Groups::new(config),
        epoch: (EventTime::MAX, EventTime::MIN, Epoch::default()),
        late: Vec::new(),
        unplaced: Vec::new(),
        written: (outlets.clock.moment(), 0),
        sealed: VecDeque::new(),
        sealed_before: Epoch(i64::MIN),
        worker: flow.worker(),
        outlets: outlets.clone(),
        books: outlets.books(),
        stop: flow.stop(),
        since_checkpoint: outlets.checkpoints.as_ref().map(|_| Changes::default()),
        changes_max: config.checkpoint_events_max.saturating_mul(CHECKPOINTS_NOTED),
    };
    // What is restored counts as changed and is written again: the table may be an older one, put
    // back from a copy.
    tallies.states.track(Tracking::Batch);
    if let Some(restored) = restored
        && let Err(error) = tallies.restore(restored, flow)
    {
        tallies.stop.fail(error);
    }
    let to = |name: &Name| match name {
        Name::Video { video, .. } => To::Key(*video),
        Name::Dims { worker, .. } => To::Worker(*worker),
    };
    joined.key_by(|joined| joined.event().video).process_with(names, to, tallies)
}

/// What changed since the checkpoint before.
struct Changes {
    counted: CountedNotes,
    videos: Vec<VideoHash>,
    dims: Vec<DimsHash>,
    /// Who is behind plays, by shard.
    behind: Vec<Vec<u8>>,
    /// How many events are noted, and who is behind how many plays.
    events: usize,
    /// There were so many that they were let go of: the next checkpoint writes all tallies instead.
    whole: bool,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            behind: shard_buffers(),
            counted: CountedNotes::default(),
            videos: Vec::new(),
            dims: Vec::new(),
            events: 0,
            whole: false,
        }
    }
}

impl Changes {
    /// Where the next event is noted; `None` once there are more than `most`. While an
    /// output is away no checkpoint is made, and what is noted must not grow with the events until it is back: the
    /// tallies are bounded by what is open.
    #[inline]
    fn room(&mut self, most: usize) -> Option<&mut Self> {
        self.events += 1;
        if self.events > most && !self.whole {
            (self.whole, self.behind) = (true, shard_buffers());
            self.counted.clear();
        }
        (!self.whole).then_some(self)
    }

    /// What has changed; from now on it is what changes until the next checkpoint.
    fn take(&mut self) -> Self {
        let next = Self { counted: self.counted.next(), ..Self::default() };
        std::mem::replace(self, next)
    }
}

/// A tally that still grows.
#[derive(Default)]
struct Open {
    tally: Tally,
    slot: Slot,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct TallyKey {
    video: VideoHash,
    epoch: Epoch,
    segment: u32,
}

/// What is remembered of a play because it says who plays the video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Behind {
    video: VideoHash,
    epoch: Epoch,
    pub(super) request: RequestId,
    /// The member as it stands in this tally alone; `None` for a play that a cap cut.
    member: Option<u64>,
}

/// Which segments the events of a combination of dimension values belong to.
struct Groups {
    /// By number: the canonical name.
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// Numbers that nothing has any more.
    free: Vec<u32>,
    /// Of the two reserved segments.
    members: u32,
    capped: u32,
    by_dims: HashMap<DimsHash, Group, FixedState>,
}

struct Group {
    /// Numbers of the segments, one per configured segment.
    segments: Box<[u32]>,
    /// The values, in the order of the configured dimensions.
    values: Vec<String>,
    /// The last epoch in which they were told.
    last: Epoch,
}

impl Groups {
    fn new(config: &Config) -> Self {
        let mut groups = Self {
            names: Vec::new(),
            numbers: HashMap::new(),
            free: Vec::new(),
            members: 0,
            capped: 0,
            by_dims: HashMap::default(),
        };
        (groups.members, groups.capped) = (groups.number(MEMBERS), groups.number(CAPPED));
        // Without dimensions there is one combination, which nobody announces.
        groups.tell(config, DimsHash::NONE, Vec::new(), Epoch(i64::MAX));
        groups
    }

    /// The number of a segment, by its canonical name.
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let number = self.free.pop().unwrap_or(self.names.len() as u32);
        match self.names.get_mut(number as usize) {
            Some(free) => *free = Arc::clone(&name),
            None => self.names.push(Arc::clone(&name)),
        }
        self.numbers.insert(name, number);
        number
    }

    /// Forgets combinations of values that were last told before an epoch, and the names of segments that then neither
    /// a combination nor, as `each_open` says, a tally has.
    fn forget_before(&mut self, epoch: Epoch, each_open: impl FnOnce(&mut dyn FnMut(u32))) {
        self.by_dims.retain(|_, group| group.last >= epoch);
        let mut used = vec![false; self.names.len()];
        let mut note = |number: u32| used[number as usize] = true;
        [self.members, self.capped].into_iter().for_each(&mut note);
        self.by_dims.values().flat_map(|group| &group.segments).copied().for_each(&mut note);
        each_open(&mut note);
        self.numbers.retain(|_, number| {
            let is_used = used[*number as usize];
            if !is_used {
                self.names[*number as usize] = Arc::default();
                self.free.push(*number);
            }
            is_used
        });
    }

    fn tell(&mut self, config: &Config, dims: DimsHash, values: Vec<String>, epoch: Epoch) {
        if let Some(group) = self.by_dims.get_mut(&dims) {
            group.last = epoch.max(group.last);
            return;
        }
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let names: Vec<Arc<str>> = config.segments.names(&texts).collect();
        let segments = names.into_iter().map(|name| self.number(&name)).collect();
        self.by_dims.insert(dims, Group { segments, values, last: epoch });
    }
}

/// Adds an event to the tallies of its segments; returns the slot of one of them, `None` if its dimensions are not
/// known yet.
#[inline]
fn add<'a>(
    states: &'a mut KeyedState<TallyKey, Open>,
    groups: &Groups,
    config: &Config,
    counted: &Counted,
) -> Option<&'a mut Slot> {
    let &Counted { video, epoch, dims, request, kind } = counted;
    let sealed_at = config.sealed_at(epoch);
    let (last, others) = groups.by_dims.get(&dims)?.segments.split_last()?;
    for &segment in others {
        let open = states.entry(&TallyKey { video, epoch, segment }, Some(sealed_at)).get_or_insert_default();
        open.tally.insert(kind, request, config.tally);
    }
    let key = TallyKey { video, epoch, segment: *last };
    let open = states.entry(&key, Some(sealed_at)).get_or_insert_default();
    open.tally.insert(kind, request, config.tally);
    Some(&mut open.slot)
}

struct Tallies {
    config: Arc<Config>,
    states: KeyedState<TallyKey, Open>,
    /// The id of each video and the last epoch in which it was told.
    videos: HashMap<VideoHash, (Arc<str>, Epoch), FixedState>,
    groups: Groups,
    /// The epoch of the event before, from its start to its end: most events lie in the same.
    epoch: (EventTime, EventTime, Epoch),
    /// With the watermark by which each was too late.
    late: Vec<(Event, EventTime)>,
    /// Events whose dimension values have not been told yet: within a batch, names may come
    /// after the events that use them.
    unplaced: Vec<Event>,
    /// When this worker wrote what changed, and what had then been handed to the table.
    written: (Moment, u64),
    /// Which epochs were sealed after each of the last batches.
    sealed: VecDeque<Epoch>,
    sealed_before: Epoch,
    worker: usize,
    outlets: Outlets,
    books: Books,
    stop: Stop,
    /// `None` where no checkpoints are taken.
    since_checkpoint: Option<Changes>,
    /// So many events are noted between two checkpoints at most.
    changes_max: usize,
}

impl Tallies {
    #[inline]
    fn epoch_of(&mut self, time: EventTime) -> Epoch {
        let (start, end, epoch) = self.epoch;
        if start <= time && time < end {
            return epoch;
        }
        let epoch = self.config.epoch.epoch(time);
        self.epoch = (self.config.epoch.start(epoch), self.config.epoch.end(epoch), epoch);
        epoch
    }

    /// Adds an event to the tallies of its segments; false if its dimensions are not known yet.
    #[inline]
    fn count(&mut self, event: &Event) -> bool {
        let epoch = self.epoch_of(event.time);
        let counted =
            Counted { video: event.video, epoch, dims: event.dims, request: event.request, kind: event.kind };
        let Some(slot) = add(&mut self.states, &self.groups, &self.config, &counted) else { return false };
        if let Some(changes) = self.since_checkpoint.as_mut().and_then(|c| c.room(self.changes_max)) {
            changes.counted.note(&counted, slot);
        }
        if self.config.counts_members && event.kind == Kind::Play && event.member != MemberHash::NONE {
            self.look_behind(event, Some(event.member.within(event.video, epoch)));
        }
        true
    }

    /// Notes who is behind a play.
    fn look_behind(&mut self, event: &Event, member: Option<u64>) {
        let epoch = self.epoch_of(event.time);
        let behind = Behind { video: event.video, epoch, request: event.request, member };
        self.add_behind(&behind);
        if let Some(changes) = self.since_checkpoint.as_mut().and_then(|c| c.room(self.changes_max)) {
            behind.save(&mut changes.behind[shard(&event.video) as usize]);
        }
    }

    fn add_behind(&mut self, behind: &Behind) {
        let &Behind { video, epoch, request, member } = behind;
        let segment = if member.is_some() { self.groups.members } else { self.groups.capped };
        let sealed_at = self.config.sealed_at(epoch);
        let key = TallyKey { video, epoch, segment };
        let Open { tally, .. } = self.states.entry(&key, Some(sealed_at)).get_or_insert_default();
        match member {
            Some(member) => {
                tally.insert(Kind::Impression, request, self.config.tally);
                tally.insert(Kind::Play, RequestId(member), self.config.tally);
            }
            None => tally.insert(Kind::Play, request, self.config.tally),
        }
    }

    /// Counts what came before its names, which have all come when a batch ends.
    fn place(&mut self) {
        for event in std::mem::take(&mut self.unplaced) {
            if !self.count(&event) {
                let dims = event.dims.0;
                self.stop.fail(format!("dimensions {dims:016x} were not told in the batch of their event"));
            }
        }
    }

    /// The row of an open tally: its counts as they are now.
    fn row(&self, key: &TallyKey, tally: &mut Tally) -> Option<TallyRow> {
        let Some((video_id, _)) = self.videos.get(&key.video) else {
            self.stop.fail(format!("the name of video {:016x} was not told before its tally", key.video.0));
            return None;
        };
        Some(TallyRow {
            video_id: Arc::clone(video_id),
            segment: Arc::clone(&self.groups.names[key.segment as usize]),
            epoch: key.epoch,
            counts: tally.counts(self.config.tally),
            sealed: false,
            sets: None,
        })
    }

    /// Writes what changed, if the table has taken what this worker wrote before. What others wrote does not count: they
    /// all end their batches at one moment, and whoever is last would always find the table busy.
    fn write_changed(&mut self) {
        let is_time = self.outlets.clock.since(self.written.0) >= self.config.table_write_interval;
        if is_time && self.outlets.outputs.table_has(self.written.1) {
            self.write_all_changed();
        }
    }

    fn write_all_changed(&mut self) {
        let mut states = std::mem::take(&mut self.states);
        let mut rows = Vec::new();
        states
            .drain_touched(Tracking::Batch, &mut |key, open, _| rows.extend(self.row(key, &mut open.tally)));
        self.states = states;
        self.outlets.outputs.write(rows);
        self.written = (self.outlets.clock.moment(), self.outlets.outputs.handed_to_table());
    }

    /// Lets go of the epochs that nothing can change any more.
    fn seal(&mut self, watermark: EventTime, out: &mut Emit<'_, TallyRow>) {
        let mut states = std::mem::take(&mut self.states);
        let mut rows = Vec::new();
        if watermark == EventTime::MAX {
            // Everything goes at once: growing by doubling would copy most of it twice.
            out.reserve(states.len());
            rows.reserve(states.len().min(SEALED_ROWS_PER_WRITE));
        }
        states.expire(watermark, &mut |key, Open { mut tally, .. }| {
            if let Some(row) = self.row(key, &mut tally) {
                // Who is behind plays is told by its numbers alone: no member stands in table or archive.
                let sets = (!is_reserved(&row.segment)).then(|| Arc::new(tally.into_sets()));
                let row = TallyRow { sealed: true, sets, ..row };
                out.emit(row.clone());
                rows.push(row);
                if rows.len() == SEALED_ROWS_PER_WRITE {
                    self.outlets.outputs.write(std::mem::take(&mut rows));
                }
            }
        });
        self.states = states;
        self.outlets.outputs.write(rows);
    }

    /// Forgets the names of sealed epochs, some batches after they were sealed.
    ///
    /// A decoder tells a name again after it has forgotten it, which it does by the watermark it
    /// has heard of, up to the batches in flight old. Here a name is forgotten when every decoder
    /// surely has, so that an event never comes without its name.
    fn forget_names(&mut self, watermark: EventTime) {
        self.sealed.push_back(self.config.sealed_before(watermark));
        if (self.sealed.len() as u64) <= self.config.batches_in_flight + 2 {
            return;
        }
        let before = self.sealed.pop_front().unwrap_or(Epoch(i64::MIN));
        if before > self.sealed_before {
            self.sealed_before = before;
            self.videos.retain(|_, (_, last)| *last >= before);
            let states = &mut self.states;
            self.groups.forget_before(before, |note| states.each(&mut |key, _| note(key.segment)));
        }
    }

    /// Keeps late events as records that can be replayed, with their age.
    fn write_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let records: Vec<Record> = std::mem::take(&mut self.late)
            .iter()
            .map(|(event, watermark)| {
                let video_id = self.videos.get(&event.video).map(|(id, _)| Arc::clone(id));
                let names = self.config.segments.dimensions().iter();
                let values = self.groups.by_dims.get(&event.dims).into_iter().flat_map(|g| &g.values);
                let late = LateEvent {
                    kind: if event.kind == Kind::Play { "play" } else { "impression" },
                    request_id: event.request.to_string(),
                    video_id,
                    timestamp: event.time.0,
                    dimensions: names.map(String::as_str).zip(values.map(String::as_str)).collect(),
                    age_ms: watermark.0.saturating_sub(event.time.0),
                };
                Record::new(late.request_id.clone(), serde_json::to_vec(&late).unwrap_or_default())
            })
            .collect();
        if let Err(error) = self.outlets.log.append(LATE, 0, &records, self.outlets.clock.now().0) {
            self.stop.fail(error);
        }
    }
}

/// A late event as its log keeps it: the canonical form, with the age. The request id is the one
/// it had if that was 16 hex digits, else the hash that stands for it, which joins the same.
#[derive(Serialize)]
struct LateEvent<'a> {
    kind: &'static str,
    request_id: String,
    video_id: Option<Arc<str>>,
    timestamp: i64,
    dimensions: BTreeMap<&'a str, &'a str>,
    age_ms: i64,
}

/// Events are noted for as many checkpoints that are due and not made.
const CHECKPOINTS_NOTED: usize = 2;

/// Rows of sealed epochs carry their sets, so they go to the table in pieces.
const SEALED_ROWS_PER_WRITE: usize = 65_536;

impl Process<VideoHash, Joined> for Tallies {
    type Side = Name;
    type Out = TallyRow;

    #[inline]
    fn record(&mut self, _: &VideoHash, joined: Joined, context: Context, _: &mut Emit<'_, TallyRow>) {
        let event = match joined {
            Joined::Counted(event) => event,
            Joined::Late(event) => return self.late.push((event, context.watermark)),
            Joined::Cut(event) => return self.look_behind(&event, None),
        };
        self.books.ledger.account(event.partition).counted += 1;
        if !self.count(&event) {
            self.unplaced.push(event);
        }
    }

    fn side(&mut self, name: Name) {
        match name {
            Name::Video { video, id, epoch } => {
                if let Some(changes) = &mut self.since_checkpoint {
                    changes.videos.push(video);
                }
                let (_, last) = self.videos.entry(video).or_insert((id, epoch));
                *last = epoch.max(*last);
            }
            Name::Dims { dims, values, epoch, .. } => {
                if let Some(changes) = &mut self.since_checkpoint {
                    changes.dims.push(dims);
                }
                self.groups.tell(&self.config, dims, values, epoch);
            }
        }
    }

    fn end_batch(&mut self, context: Context, out: &mut Emit<'_, TallyRow>) {
        if let Some(error) = self.outlets.outputs.take_error() {
            return self.stop.fail(error);
        }
        if let Some(error) = self.outlets.checkpoints.as_ref().and_then(|c| c.take_error()) {
            return self.stop.fail(error);
        }
        self.place();
        self.write_late();
        self.write_changed();
        self.seal(context.watermark, out);
        if context.is_last {
            self.write_all_changed();
        }
        self.forget_names(context.watermark);
        self.books.publish();
    }

    fn checkpoint(&mut self, number: u64) {
        // The table need not have the open tallies as they are now: whoever goes on from here writes them again.
        let (sections, ledger) = (self.save(number), self.books.ledger.clone());
        self.outlets.submit(number, self.worker, Stage::Aggregate, sections, ledger, Fragment::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_nobody_has_any_more_take_no_room() {
        let config = Config::load(None, &[r#"segments=[[],["country"]]"#.to_owned()]).unwrap();
        let mut groups = Groups::new(&config);
        let mut open = Vec::new();
        for epoch in 0..1_000 {
            let country = format!("c{epoch}");
            groups.tell(&config, DimsHash(epoch as u64 + 1), vec![country], Epoch(epoch));
            // A tally of every hundredth stays open.
            if epoch % 100 == 0 {
                open.push((groups.number(&format!("country=c{epoch}")), format!("country=c{epoch}")));
            }
            groups.forget_before(Epoch(epoch - 3), |note| open.iter().for_each(|(number, _)| note(*number)));
        }
        assert!(groups.names.len() < 30, "{:?}", groups.names);
        for (number, name) in open {
            assert_eq!(*groups.names[number as usize], *name);
            assert_eq!(groups.number(&name), number);
        }
        let everyone = groups.number("");
        assert_eq!(groups.by_dims[&DimsHash(1_000)].segments[0], everyone);
    }

    #[test]
    fn what_is_noted_for_a_checkpoint_has_a_bound() {
        let mut changes = Changes::default();
        let counted = |request| Counted {
            video: VideoHash(1),
            epoch: Epoch(2),
            dims: DimsHash::NONE,
            request: RequestId(request),
            kind: Kind::Play,
        };
        for checkpoint in 0..2 {
            for event in 0..10 {
                match changes.room(7) {
                    Some(changes) => changes.counted.note(&counted(event), &mut Slot::default()),
                    None => assert!(event >= 7, "{event}"),
                }
                assert_eq!(changes.counted.bytes() > 0, event < 7, "{event}");
            }
            let taken = changes.take();
            assert!(taken.whole && taken.counted.bytes() == 0, "{checkpoint}");
        }
    }
}
