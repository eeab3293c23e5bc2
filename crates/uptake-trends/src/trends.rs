//! The trends: tallies in, estimates per title and segment out.
//!
//! Rows may come in any order and as often as they like; they are taken in at [`Trends::refresh`],
//! sorted, so the result does not depend on it. A refresh costs what has changed since the last
//! one, and once an epoch a pass over all titles for the priors.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use uptake_model::segment::is_reserved;
use uptake_model::{Epoch, EventTime, TallyRow};

use crate::cell::{Cell, Context};
use crate::hours::Hours;
use crate::lift::{Level, lift, lift_lower};
use crate::memory::{Habit, MEMORIES, Scores, weights};
use crate::options::Options;
use crate::position::{Places, is_place};
use crate::prior::{Moments, UNKNOWN, mean_rate};
use crate::rate::{Estimate, Evidence, Prior};
use crate::robots::{Behind, Suspicion};
use crate::tree;

type Hasher = foldhash::fast::FixedState;

/// What is known of a segment as a whole.
struct Segment {
    name: Arc<str>,
    parent: Option<u16>,
    /// Its first epoch.
    first: i64,
    /// Cells by video, in the order in which they were first seen.
    cells: Vec<u32>,
    prior: Prior,
    habit: Habit,
    /// Log scores of the titles, and how many they are, of epochs that are closed and not in the habit yet.
    foretold: BTreeMap<i64, ([f64; MEMORIES], u64)>,
    /// Up to here they are in it.
    foretold_until: i64,
    hours: Hours,
    /// Plays and exposure of the epochs that may still grow.
    totals: BTreeMap<i64, (f64, f64)>,
    /// Up to here they went to the hours.
    totals_until: i64,
    /// Titles whose rise is believed.
    rising: HashSet<u32, Hasher>,
}

impl Segment {
    /// Up to this epoch there is none that could say what is usual.
    fn cold_until(&self, options: &Options) -> i64 {
        self.first.saturating_add(options.window_epochs())
    }
}

/// What a title's numbers are in one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// The title.
    pub video: Arc<str>,
    /// Discounted plays, by which **Popular** ranks.
    pub plays: f64,
    /// Discounted exposure of the longest memory.
    pub evidence: f64,
    /// The plays of that exposure, discounted alike.
    pub evidence_plays: f64,
    /// The rate over all memories.
    pub estimate: Estimate,
    /// The prior that it leans on.
    pub prior: Prior,
    /// Which part of the rate is the prior's.
    pub prior_part: f64,
    /// The weight of each half-life.
    pub memories: [f64; MEMORIES],
    /// Plays of the last epochs, and what was to be expected.
    pub recent_plays: f64,
    /// See `recent_plays`.
    pub recent_expected: f64,
    /// (P + a)/(e + a) over the last epochs.
    pub lift: f64,
    /// Its lower bound.
    pub lift_lower: f64,
    /// ln of the evidence for a rise; it is believed at ln(1/level).
    pub ln_evidence: f64,
    /// Whether a rise is believed.
    pub rising: bool,
    /// Why it is thought to be pushed, if it is.
    pub suspicion: Option<Suspicion>,
}

/// What a refresh took in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refreshed {
    /// Rows that changed something.
    pub changed: usize,
    /// Rows of an epoch that is closed for good; a rebuild from the table brings them in.
    pub too_old: usize,
}

/// With what a title's epochs are read in a segment, and how its half-lives weigh.
pub(crate) struct View<'a, Weights: Fn(Scores) -> [f64; MEMORIES]> {
    pub(crate) context: Context<'a>,
    pub(crate) weights: Weights,
}

/// A row to be taken in: segment, epoch, video, then its numbers.
type Pending = BTreeMap<(i64, Arc<str>, Arc<str>), (u64, u64)>;

/// All titles in all segments.
///
/// ```
/// use uptake_model::{Epoch, EpochLength, TallyRow, tally::Counts};
/// use uptake_trends::{Options, Trends};
/// let mut trends = Trends::new(Options::default());
/// let row = |video: &str, plays, impressions| TallyRow {
///     video_id: video.into(),
///     segment: "".into(),
///     epoch: Epoch(1000),
///     counts: Counts { plays, impressions, exact: true },
///     sealed: false,
///     sets: None,
/// };
/// trends.ingest(&row("v1", 30, 400));
/// trends.ingest(&row("v2", 10, 400));
/// trends.ingest(&row("v2", 10, 400)); // twice changes nothing
/// trends.refresh(EpochLength::default().end(Epoch(1000)));
/// let rate = |video| trends.numbers(video, "").unwrap().estimate.rate;
/// assert!(rate("v1") > rate("v2"));
/// ```
pub struct Trends {
    options: Options,
    level: Level,
    videos: HashMap<Arc<str>, u32, Hasher>,
    names: Vec<Arc<str>>,
    segments: Vec<Segment>,
    by_name: BTreeMap<Arc<str>, u16>,
    index: HashMap<(u16, u32), u32, Hasher>,
    cells: Vec<Cell>,
    /// The video of each cell.
    video_of: Vec<u32>,
    /// Numbers of cells and of videos that were forgotten, for the next ones.
    free: (Vec<u32>, Vec<u32>),
    pending: Pending,
    epoch: i64,
    part: f64,
    behind: HashMap<u32, Behind, Hasher>,
    places: Places,
}

impl Trends {
    /// Nothing is known yet.
    pub fn new(options: Options) -> Self {
        let level = Level {
            ln_threshold: -options.level.ln(),
            lift_min: options.lift_min,
            lift_end: options.lift_end,
        };
        Self {
            options,
            level,
            videos: HashMap::default(),
            names: Vec::new(),
            segments: Vec::new(),
            by_name: BTreeMap::new(),
            index: HashMap::default(),
            cells: Vec::new(),
            video_of: Vec::new(),
            free: (Vec::new(), Vec::new()),
            pending: BTreeMap::new(),
            epoch: i64::MIN,
            part: 0.0,
            behind: HashMap::default(),
            places: Places::default(),
        }
    }

    /// How the trends are computed.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Keeps a row for the next refresh. Of two of one key the larger counts. Rows of the reserved segments
    /// say who is behind the plays of a title, see [`Support`](crate::robots::Support); those of segments with
    /// the dimension `position` say how much an impression is worth, see [`position`](crate::position).
    pub fn ingest(&mut self, row: &TallyRow) {
        if is_reserved(&row.segment) {
            if row.epoch.0 >= self.lately() {
                let id = self.video(&row.video_id);
                self.behind.entry(id).or_default().put(&row.segment, row.epoch.0, row.counts);
            }
            return;
        }
        if is_place(&row.segment) {
            let id = self.video(&row.video_id);
            return self.places.put(id, &row.segment, row.epoch.0, row.counts);
        }
        let key = (row.epoch.0, row.segment.clone(), row.video_id.clone());
        let new = (row.counts.plays, row.counts.impressions);
        let kept = self.pending.entry(key).or_insert(new);
        if (new.0.saturating_add(new.1), new.0) > (kept.0.saturating_add(kept.1), kept.0) {
            *kept = new;
        }
    }

    /// The first of the epochs over which a title is looked at for its lift and for robots.
    fn lately(&self) -> i64 {
        self.epoch.saturating_sub(self.options.lift_epochs - 1)
    }

    fn video(&mut self, name: &Arc<str>) -> u32 {
        if let Some(id) = self.videos.get(name) {
            return *id;
        }
        let id = self.free.1.pop().unwrap_or(self.names.len() as u32);
        match self.names.get_mut(id as usize) {
            Some(free) => *free = name.clone(),
            None => self.names.push(name.clone()),
        }
        self.videos.insert(name.clone(), id);
        id
    }

    fn segment(&mut self, name: &Arc<str>) -> u16 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.segments.len() as u16;
        self.by_name.insert(name.clone(), id);
        self.segments.push(Segment {
            name: name.clone(),
            parent: None,
            first: i64::MAX,
            cells: Vec::new(),
            prior: UNKNOWN,
            habit: Habit::default(),
            foretold: BTreeMap::new(),
            foretold_until: i64::MIN,
            hours: Hours::new(self.options.epoch_length),
            totals: BTreeMap::new(),
            totals_until: i64::MIN,
            rising: HashSet::default(),
        });
        for i in 0..self.segments.len() {
            let parent = tree::parent(&self.segments[i].name, self.by_name.keys().map(|k| &**k));
            self.segments[i].parent = parent.and_then(|parent| self.by_name.get(parent).copied());
        }
        id
    }

    fn cell(&mut self, segment: u16, video: u32, epoch: i64) -> u32 {
        if let Some(id) = self.index.get(&(segment, video)) {
            return *id;
        }
        let id = self.free.0.pop().unwrap_or(self.cells.len() as u32);
        match self.cells.get_mut(id as usize) {
            Some(free) => (*free, self.video_of[id as usize]) = (Cell::new(epoch), video),
            None => {
                self.cells.push(Cell::new(epoch));
                self.video_of.push(video);
            }
        }
        self.index.insert((segment, video), id);
        self.segments[usize::from(segment)].cells.push(id);
        id
    }

    /// Takes in the rows of many epochs, oldest first, with a refresh at the end of each: `now` says
    /// how far the stream was then, and `seen` is shown what is known by then.
    pub fn replay(
        &mut self,
        rows: &[TallyRow],
        now: impl Fn(Epoch) -> EventTime,
        mut seen: impl FnMut(&Self, Epoch),
    ) {
        let mut epochs: BTreeMap<Epoch, Vec<&TallyRow>> = BTreeMap::new();
        rows.iter().for_each(|row| epochs.entry(row.epoch).or_default().push(row));
        for (epoch, rows) in epochs {
            rows.into_iter().for_each(|row| self.ingest(row));
            self.refresh(now(epoch));
            seen(self, epoch);
        }
    }

    /// Takes in what came since the last refresh. `now` is event time: how far the stream is.
    pub fn refresh(&mut self, now: EventTime) -> Refreshed {
        let length = self.options.epoch_length;
        let newest = self.pending.last_key_value().map_or(i64::MIN, |(key, _)| key.0);
        let epoch = length.epoch(now.minus(1)).0.max(self.epoch).max(newest);
        self.part = match length.epoch(now.minus(1)).0 == epoch {
            true => (now.minus(length.start(uptake_model::Epoch(epoch)).0).0 as f64) / length.ms() as f64,
            false => 1.0,
        };
        let rolled = epoch > self.epoch;
        self.epoch = epoch;
        if rolled {
            self.roll();
        }
        let mut refreshed = Refreshed::default();
        // Parents first: a child leans on what its parent says now.
        let pending = std::mem::take(&mut self.pending);
        let mut touched: BTreeMap<(usize, u16, u32), u32> = BTreeMap::new();
        let closed = epoch - self.options.open_epochs - 1;
        if rolled && self.places.are_known() {
            self.weigh(&mut touched);
        }
        let mut names: Vec<&Arc<str>> = pending.keys().map(|(_, segment, _)| segment).collect();
        names.sort_by_key(|name| (depth(name), (*name).clone()));
        names.dedup();
        for name in names {
            self.segment(name);
        }
        let mut rows: Vec<_> = pending.iter().collect();
        rows.sort_by_key(|((epoch, segment, _), _)| (depth(segment), *epoch));
        for ((at, segment, video), (plays, impressions)) in rows {
            let segment_id = self.segment(segment);
            let video = self.video(video);
            let cell = self.cell(segment_id, video, *at);
            let state = &mut self.cells[cell as usize];
            if *at <= state.settled.until {
                if state.settled.until <= closed {
                    refreshed.too_old += 1;
                    continue;
                }
                // It was first seen in a later epoch, and nothing is folded yet.
                state.settled.until = *at - 1;
            }
            let weight = self.places.weight(video, *at);
            let Some((played, exposed)) = state.put(*at, *plays, *impressions, weight) else { continue };
            refreshed.changed += 1;
            let of = &mut self.segments[usize::from(segment_id)];
            of.first = of.first.min(*at);
            if *at > of.totals_until {
                let total = of.totals.entry(*at).or_default();
                total.0 += played;
                total.1 += exposed;
            }
            touched.insert((depth(segment), segment_id, video), cell);
        }
        for ((_, segment, _), cell) in touched {
            self.look(segment, cell);
        }
        if rolled {
            self.close(closed);
            self.forget(closed);
        }
        refreshed
    }

    /// Lets go of titles of which there was no row for so long that they are as new ones.
    fn forget(&mut self, closed: i64) {
        let before = self.free.0.len();
        for (id, segment) in (0..).zip(&mut self.segments) {
            segment.cells.retain(|&cell| {
                let is_kept = !self.cells[cell as usize].is_forgotten(closed, &self.options);
                if !is_kept {
                    segment.rising.remove(&cell);
                    self.index.remove(&(id, self.video_of[cell as usize]));
                    self.free.0.push(cell);
                }
                is_kept
            });
        }
        if self.free.0.len() == before {
            return;
        }
        let cells = self.index.keys().map(|(_, video)| *video);
        let used: HashSet<u32, Hasher> =
            cells.chain(self.behind.keys().copied()).chain(self.places.videos()).collect();
        self.videos.retain(|_, video| {
            let is_used = used.contains(video);
            if !is_used {
                self.names[*video as usize] = Arc::default();
                self.free.1.push(*video);
            }
            is_used
        });
    }

    /// Looks at the titles of which nothing came: a rise ends all the same, and what cannot grow any more is folded,
    /// so that an epoch's titles are all known when the segment learns from it.
    fn close(&mut self, closed: i64) {
        let mut order: Vec<u16> = (0..self.segments.len() as u16).collect();
        order.sort_by_key(|id| (depth(&self.segments[usize::from(*id)].name), *id));
        let window_from = self.epoch - self.options.window_epochs();
        for id in order {
            let segment = &self.segments[usize::from(id)];
            let is_due = |cell: &u32| {
                self.cells[*cell as usize].is_due(closed, window_from) || segment.rising.contains(cell)
            };
            let due: Vec<u32> = segment.cells.iter().copied().filter(is_due).collect();
            due.into_iter().for_each(|cell| self.look(id, cell));
            let segment = &mut self.segments[usize::from(id)];
            for (_, (scores, titles)) in std::mem::take(&mut segment.foretold) {
                segment.habit.tick(scores, titles);
            }
            segment.foretold_until = closed;
        }
    }

    /// Weighs the impressions of all epochs that may still grow by what is known of their places now.
    fn weigh(&mut self, touched: &mut BTreeMap<(usize, u16, u32), u32>) {
        for (id, segment) in (0..).zip(&mut self.segments) {
            for &cell in &segment.cells {
                let video = self.video_of[cell as usize];
                let mut any = false;
                for open in &mut self.cells[cell as usize].open {
                    let exposed = open.weigh(self.places.weight(video, open.epoch), open.impressions);
                    if exposed != 0.0 {
                        any = true;
                        if let Some(total) = segment.totals.get_mut(&open.epoch) {
                            total.1 += exposed;
                        }
                    }
                }
                if any {
                    touched.insert((depth(&segment.name), id, video), cell);
                }
            }
        }
    }

    /// What an impression of the title weighed in an epoch, as far as is known.
    pub(crate) fn impression_weight(&self, video: &str, epoch: Epoch) -> Option<f64> {
        let id = *self.videos.get(video)?;
        self.places.weight(id, epoch.0).or_else(|| self.places.usual_weight(id))
    }

    /// With what a title's epochs are read.
    pub(crate) fn view(
        &self,
        video: &str,
        segment: &str,
    ) -> Option<View<'_, impl Fn(Scores) -> [f64; MEMORIES]>> {
        let id = *self.by_name.get(segment)?;
        let cell = *self.index.get(&(id, *self.videos.get(video)?))?;
        let of = &self.segments[usize::from(id)];
        let context = Context {
            options: &self.options,
            level: self.level,
            hours: &of.hours,
            prior: self.prior(id, cell),
            usual: self.usual_prior(id, cell),
            cold_until: of.cold_until(&self.options),
            epoch: self.epoch,
            part: self.part,
        };
        Some(View { context, weights: move |scores| self.weights_of(id, scores) })
    }

    fn look(&mut self, segment: u16, id: u32) {
        let (prior, usual) = (self.prior(segment, id), self.usual_prior(segment, id));
        let segment = &mut self.segments[usize::from(segment)];
        let context = Context {
            options: &self.options,
            level: self.level,
            hours: &segment.hours,
            prior,
            usual,
            cold_until: segment.cold_until(&self.options),
            epoch: self.epoch,
            part: self.part,
        };
        let cell = &mut self.cells[id as usize];
        let (foretold, until) = (&mut segment.foretold, segment.foretold_until);
        cell.look(&context, &mut |epoch, scores| {
            // A title of which a row came late is not told: the segment has learnt from that epoch.
            if epoch > until {
                let (sums, titles) = foretold.entry(epoch).or_default();
                sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score.max(-50.0));
                *titles += 1;
            }
        });
        match cell.view.now.rising.flagged {
            true => segment.rising.insert(id),
            false => segment.rising.remove(&id),
        };
    }

    /// A new epoch: what of the totals is closed goes to the hours, and the priors are fitted anew.
    fn roll(&mut self) {
        let closed = self.epoch - self.options.open_epochs - 1;
        let lately = self.lately();
        self.places.roll(closed);
        self.behind.retain(|_, behind| behind.forget(lately));
        let length = self.options.epoch_length;
        let by_time = self.options.exposure == crate::options::Exposure::Epochs;
        let mut order: Vec<u16> = (0..self.segments.len() as u16).collect();
        order.sort_by_key(|id| (depth(&self.segments[usize::from(*id)].name), *id));
        for id in order {
            let segment = &mut self.segments[usize::from(id)];
            while let Some(entry) = segment.totals.first_entry().filter(|entry| *entry.key() <= closed) {
                let (epoch, (plays, shown)) = entry.remove_entry();
                segment.totals_until = epoch;
                let shown = if by_time { 1.0 } else { shown };
                segment.hours.add(length.start(uptake_model::Epoch(epoch)).0, plays, shown);
            }
            self.fit(id);
        }
    }

    fn fit(&mut self, id: u16) {
        let segment = &self.segments[usize::from(id)];
        let last = MEMORIES - 1;
        let evidence = |cell: u32| self.cells[cell as usize].sums_at(self.epoch, &self.options)[last];
        let mut prior = segment.prior;
        if segment.parent.is_none()
            && let Some(mean) = mean_rate(segment.cells.iter().map(|cell| evidence(*cell)), prior.weight)
        {
            prior.mean = mean;
        }
        let mut moments = Moments::default();
        for &cell in &segment.cells {
            let evidence = evidence(cell);
            if evidence.shown <= 0.0 {
                continue;
            }
            let mean = match self.in_parent(id, cell) {
                Some((parent, cell)) => self.estimate_of(parent, cell).rate,
                None => prior.mean,
            };
            let now = self.cells[cell as usize].view.now.until;
            let hours = self.options.epoch_length.ms() as f64 / 3_600_000.0;
            let decay = crate::rate::discount(
                self.options.half_lives_hours[last] / 2.0,
                hours,
                (self.epoch - now).max(0),
            );
            moments.add(evidence, self.cells[cell as usize].view.now.squared * decay, mean);
        }
        if let Some(weight) = moments.weight() {
            prior.weight = weight;
        }
        self.segments[usize::from(id)].prior = prior;
    }

    /// The same title in the segment that this one leans on now: another one may come between them later.
    fn in_parent(&self, segment: u16, cell: u32) -> Option<(u16, u32)> {
        let parent = self.segments[usize::from(segment)].parent?;
        Some((parent, *self.index.get(&(parent, self.video_of[cell as usize]))?))
    }

    /// The prior of a cell: the parent's estimate of the same title, or the segment's mean.
    fn prior(&self, segment: u16, cell: u32) -> Prior {
        let of = &self.segments[usize::from(segment)];
        match self.in_parent(segment, cell) {
            Some((parent, cell)) => {
                Prior { mean: self.estimate_of(parent, cell).rate, weight: of.prior.weight }
            }
            None => of.prior,
        }
    }

    /// The prior of a cell's usual rate: what is usual for the title in the parent segment.
    fn usual_prior(&self, segment: u16, cell: u32) -> Prior {
        let of = &self.segments[usize::from(segment)];
        match self.in_parent(segment, cell) {
            Some((parent, cell)) => {
                let usual = self.cells[cell as usize].view.now.usual;
                let mean = self.usual_prior(parent, cell).with(usual).rate;
                Prior { mean, weight: of.prior.weight }
            }
            None => of.prior,
        }
    }

    fn weights(&self, segment: u16, cell: u32) -> [f64; MEMORIES] {
        self.weights_of(segment, self.cells[cell as usize].view.now.scores)
    }

    fn weights_of(&self, segment: u16, scores: Scores) -> [f64; MEMORIES] {
        weights(self.segments[usize::from(segment)].habit.scores(), scores)
    }

    fn estimate_of(&self, segment: u16, cell: u32) -> Estimate {
        let prior = self.prior(segment, cell);
        let sums = self.cells[cell as usize].sums_at(self.epoch, &self.options);
        mix(prior, sums, self.weights(segment, cell))
    }

    fn numbers_of(&self, segment: u16, id: u32) -> Numbers {
        let cell = &self.cells[id as usize];
        let sums = cell.sums_at(self.epoch, &self.options);
        let memories = self.weights(segment, id);
        let prior = self.prior(segment, id);
        let view = &cell.view;
        let o = &self.options;
        let video = self.video_of[id as usize];
        let behind = self.behind.get(&video);
        let played = |epoch| self.played(video, epoch);
        let suspicion = match behind.and_then(|behind| behind.suspicion(self.lately(), played)) {
            Some(why) => Some(why),
            None => (view.flat_epochs >= 3).then_some(Suspicion::Flat { epochs: view.flat_epochs }),
        };
        Numbers {
            video: self.names[video as usize].clone(),
            plays: sums[o.popular_memory].plays,
            evidence: sums[MEMORIES - 1].shown,
            evidence_plays: sums[MEMORIES - 1].plays,
            estimate: mix(prior, sums, memories),
            prior,
            prior_part: sums.iter().zip(memories).map(|(sum, w)| w * prior.part(*sum)).sum(),
            memories,
            recent_plays: view.recent_plays,
            recent_expected: view.recent_expected,
            lift: lift(view.recent_plays, view.recent_expected, o.lift_pseudo),
            lift_lower: lift_lower(view.recent_plays, view.recent_expected, o.lift_pseudo, o.lift_chance),
            ln_evidence: view.now.rising.ln_evidence(),
            rising: view.now.rising.flagged,
            suspicion,
        }
    }

    /// How many requests played a title in an epoch that may still grow, in the largest segments.
    fn played(&self, video: u32, epoch: i64) -> u64 {
        let roots = (0..).zip(&self.segments).filter(|(_, segment)| segment.parent.is_none());
        let cells = roots.filter_map(|(id, _)| self.index.get(&(id, video)));
        cells.map(|cell| self.cells[*cell as usize].plays_in(epoch)).max().unwrap_or_default()
    }

    /// A title's numbers in a segment; `None` if it has no tally there.
    pub fn numbers(&self, video: &str, segment: &str) -> Option<Numbers> {
        let segment = *self.by_name.get(segment)?;
        let cell = *self.index.get(&(segment, *self.videos.get(video)?))?;
        Some(self.numbers_of(segment, cell))
    }

    /// All titles of a segment with a score, best first, of equal ones by name.
    pub fn ranked(&self, segment: &str, score: impl Fn(&Numbers) -> f64) -> Vec<(f64, Numbers)> {
        let Some(&id) = self.by_name.get(segment) else { return Vec::new() };
        let cells = &self.segments[usize::from(id)].cells;
        let mut all: Vec<(f64, Numbers)> = cells
            .iter()
            .map(|cell| self.numbers_of(id, *cell))
            .map(|numbers| (score(&numbers), numbers))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.video.cmp(&b.1.video)));
        all
    }

    /// The titles of a segment whose rise is believed, in no order.
    pub fn rising(&self, segment: &str) -> Vec<Numbers> {
        let Some(&id) = self.by_name.get(segment) else { return Vec::new() };
        let rising = &self.segments[usize::from(id)].rising;
        rising.iter().map(|cell| self.numbers_of(id, *cell)).collect()
    }

    /// The segments that have tallies.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// What a segment's titles have in common.
    pub fn segment_prior(&self, segment: &str) -> Option<Prior> {
        self.by_name.get(segment).map(|id| self.segments[usize::from(*id)].prior)
    }

    /// The segment that a segment leans on.
    pub fn parent_of(&self, segment: &str) -> Option<&str> {
        let id = self.segments[usize::from(*self.by_name.get(segment)?)].parent?;
        Some(&self.segments[usize::from(id)].name)
    }
}

/// How many dimensions a segment's name has.
fn depth(segment: &str) -> usize {
    segment.split(',').filter(|part| !part.is_empty()).count()
}

/// The mixture over half-lives: its mean, and its deviation with what the half-lives disagree in.
pub(crate) fn mix(prior: Prior, sums: [Evidence; MEMORIES], weights: [f64; MEMORIES]) -> Estimate {
    let each = sums.map(|sum| prior.with(sum));
    let (mut rate, mut square) = (0.0, 0.0);
    for (estimate, weight) in each.iter().zip(weights) {
        rate += weight * estimate.rate;
        square += weight * (estimate.sd * estimate.sd + estimate.rate * estimate.rate);
    }
    let variance = (square - rate * rate).max(1e-300);
    // The Gamma law of this mean and variance.
    Estimate { rate, sd: variance.sqrt(), shape: rate * rate / variance, whole: rate / variance }
}

#[cfg(test)]
mod tests {
    use uptake_model::EpochLength;
    use uptake_model::tally::Counts;

    use super::*;

    /// Memories of an hour, so that a title is forgotten after twenty.
    fn short() -> Options {
        Options {
            half_lives_hours: [0.5, 1.0, 1.0, 1.0],
            baseline_half_life_hours: 1.0,
            ..Options::default()
        }
    }

    fn row(video: &str, epoch: i64, plays: u64, impressions: u64) -> TallyRow {
        let counts = Counts { plays, impressions, exact: true };
        let (video_id, segment, epoch) = (video.into(), "".into(), Epoch(epoch));
        TallyRow { video_id, segment, epoch, counts, sealed: false, sets: None }
    }

    fn refresh(trends: &mut Trends, epoch: i64) {
        trends.refresh(EpochLength::default().end(Epoch(epoch)));
    }

    #[test]
    fn titles_that_are_shown_no_more_are_forgotten() {
        let mut trends = Trends::new(short());
        for epoch in 1_000..1_500 {
            for n in 0..10 {
                trends.ingest(&row(&format!("v{epoch}-{n}"), epoch, n, 100));
            }
            trends.ingest(&row("always", epoch, 10, 100));
            refresh(&mut trends, epoch);
        }
        let epochs = trends.options.forget_epochs() + trends.options.open_epochs + 3;
        let kept = 10 * epochs as usize + 1;
        assert!(trends.cells.len() <= kept && trends.names.len() <= kept, "{} of {kept}", trends.cells.len());
        assert_eq!(trends.ranked("", |numbers| numbers.plays).len(), trends.index.len());
        assert_eq!((trends.numbers("v1000-3", ""), trends.videos.len()), (None, trends.index.len()));
        let always = trends.numbers("always", "").unwrap();
        assert!((always.estimate.rate - 0.1).abs() < 0.02, "{always:?}");
        for (name, id) in &trends.videos {
            assert_eq!(trends.names[*id as usize], *name);
        }
    }

    /// What was let go of and what is merely silent come to the same.
    #[test]
    fn a_title_that_comes_back_is_a_new_one() {
        let numbers = |refreshes: &[i64]| {
            let mut trends = Trends::new(short());
            for epoch in (1_000..1_006).chain([1_100, 1_101]) {
                trends.ingest(&row("back", epoch, 50, 100));
                trends.ingest(&row("other", epoch, 5, 100));
            }
            refreshes.iter().for_each(|epoch| refresh(&mut trends, *epoch));
            (trends.numbers("back", "").unwrap().evidence, trends.cells.len())
        };
        let mut step_by_step = Trends::new(short());
        for epoch in 1_000..1_102 {
            for (video, plays) in [("back", 50), ("other", 5)] {
                if !(1_006..1_100).contains(&epoch) {
                    step_by_step.ingest(&row(video, epoch, plays, 100));
                }
            }
            refresh(&mut step_by_step, epoch);
            let is_known = (1_000..1_006 + 40 + 15).contains(&epoch) || epoch >= 1_100;
            assert_eq!(step_by_step.numbers("back", "").is_some(), is_known, "{epoch}");
        }
        let at_once = numbers(&[1_101]).0;
        let step_by_step = step_by_step.numbers("back", "").unwrap().evidence;
        assert_eq!(at_once.to_bits(), step_by_step.to_bits());
        assert!(at_once > 100.0 && at_once < 200.0, "of two epochs: {at_once}");
    }

    /// A row at the very bound means the same whether it comes before its title is let go of or after.
    #[test]
    fn what_is_forgotten_does_not_depend_on_when_a_row_comes() {
        let forget = short().forget_epochs();
        for silent in [forget - 1, forget, forget + 1, forget + 2] {
            let back = 1_000 + silent;
            let known = |comes_at: i64| {
                let mut trends = Trends::new(short());
                for epoch in 1_000..back + 30 {
                    trends.ingest(&row("other", epoch, 5, 100));
                    if epoch == 1_000 {
                        trends.ingest(&row("back", epoch, 50, 100));
                    }
                    if epoch == comes_at {
                        trends.ingest(&row("back", back, 50, 100));
                    }
                    refresh(&mut trends, epoch);
                }
                // A millionth of what was there before is in it, or not.
                trends.numbers("back", "").unwrap().evidence.to_bits()
            };
            for late in [1, 5, short().open_epochs - 1] {
                assert_eq!(known(back + late), known(back), "silent for {silent}, {late} late");
            }
        }
    }
}
