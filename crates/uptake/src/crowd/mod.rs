//! A crowd that visits a site: fetches rows, looks, plays, and reports late, twice, with wrong clocks.
//!
//! It knows every event that it made and that the site took, so in the end it can say what the site's tallies
//! should be. Times are those of the site's clock unless they are called the season's.

mod report;
mod rises;
mod robot;
mod site;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uptake_model::RequestId;
use uptake_sim::{Act, Charts, Counting, Season, Seen, Trouble, Truth, Visit, Visitor, Visitors};

pub(crate) use report::{Latency, Report, Tallies};
pub(crate) use rises::{Rise, Rises};
use robot::Robot;
pub(crate) use site::{Served, Site, SiteError};

/// How many titles a visitor's row has.
const ROW: usize = 12;
/// How often the crowd looks what is to be done.
const TICK: Duration = Duration::from_millis(20);
/// The most visits and deliveries under way at once; further ones are turned away, or wait.
const UNDER_WAY_MAX: usize = 256;
/// The most deliveries that wait for their time; while there are more nobody visits.
const WAITING_MAX: usize = 200_000;
/// After a refusal that may pass, a delivery waits as long.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// The most delays that are kept, for the figures.
const DELAYS_MAX: usize = 100_000;
/// How often it is measured how long a play takes to the row.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// A probe is given up after as long.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// The field that the crowd's events have and nobody else's.
pub(crate) const MARK: &str = "of_the_crowd";

/// What a crowd is like.
pub(crate) struct Options {
    /// Other numbers are other people.
    pub(crate) seed: u64,
    /// Visits in a second of ours, at the day's mean.
    pub(crate) visits_per_second: f64,
    /// How many hours of the season pass in one of ours.
    pub(crate) speed: f64,
    /// What the site counts.
    pub(crate) counting: Counting,
    /// When it begins, by the season's clock.
    pub(crate) season_from: i64,
    /// Whether a robot is about.
    pub(crate) robot: bool,
}

/// A crowd.
pub(crate) struct Crowd {
    site: Site,
    /// The site's clock.
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    /// What time of the season it is then.
    season: Box<dyn Fn(i64) -> i64 + Send + Sync>,
    options: Options,
    state: Mutex<State>,
    pub(crate) counts: Counts,
    latency: Mutex<Latency>,
    under_way: Arc<Semaphore>,
    closing: AtomicBool,
    trouble_said: Mutex<Option<Instant>>,
}

/// How much of what there was.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) visits: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) failed_rows: AtomicU64,
    /// Events that were made.
    pub(crate) made: AtomicU64,
    /// Events that the site took for the first time.
    pub(crate) taken: AtomicU64,
    /// Events that it took again.
    pub(crate) taken_again: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Deliveries that had to be tried again.
    pub(crate) retried: AtomicU64,
    /// Deliveries that the site will not take.
    pub(crate) lost: AtomicU64,
    /// Plays that a robot claimed.
    pub(crate) robots: AtomicU64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

struct State {
    visitors: Visitors,
    truth: Truth,
    charts: Charts,
    rises: Rises,
    trouble: Trouble,
    waiting: BinaryHeap<Reverse<Delivery>>,
    next_number: u64,
    /// Plays that were taken, by title and epoch, as long as the epoch is young.
    plays: HashMap<(u16, i64), u32>,
    probed: Option<Instant>,
    looked_at: i64,
    robot: Option<Robot>,
    /// Whether nobody keeps anything to himself any more.
    is_closing: bool,
}

/// What a device sends in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Delivery {
    due: i64,
    number: u64,
    /// When it has all happened: no sooner can it be sent.
    happened_at: i64,
    body: Vec<u8>,
    /// What the truth learns when it was taken.
    events: Arc<[(u64, Seen)]>,
    is_again: bool,
}

impl Delivery {
    /// At the end nobody waits, but nothing is sent before it happened.
    fn hurried(self) -> Self {
        Self { due: self.due.min(self.happened_at), ..self }
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Crowd {
    /// A crowd before `site`, whose clock is `now`; `season` says what time of the season that is.
    pub(crate) fn new(
        site: Site,
        options: Options,
        now: impl Fn() -> i64 + Send + Sync + 'static,
        season: impl Fn(i64) -> i64 + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = State {
            visitors: Visitors::new(options.seed),
            truth: Truth::new(options.counting),
            charts: Charts::new(options.season_from),
            rises: Rises::new(),
            trouble: Trouble::default(),
            waiting: BinaryHeap::new(),
            next_number: 0,
            plays: HashMap::new(),
            probed: None,
            looked_at: options.season_from,
            robot: None,
            is_closing: false,
        };
        Arc::new(Self {
            site,
            now: Box::new(now),
            season: Box::new(season),
            options,
            state: Mutex::new(state),
            counts: Counts::default(),
            latency: Mutex::default(),
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            closing: AtomicBool::new(false),
            trouble_said: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the visitors' world from now on.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    /// Asks something of what rose.
    pub(crate) fn rises<T>(&self, ask: impl FnOnce(&Rises) -> T) -> T {
        ask(&self.state().rises)
    }

    /// Deliveries that wait for their time.
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// From now on nobody visits; [`Crowd::run`] ends when everything was sent.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// What happened before the site had Uptake: people saw a chart of the day's plays. Calls `line` with each
    /// event; all of them arrived.
    pub(crate) fn history<E>(
        &self,
        from: i64,
        until: i64,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.state();
        let per_minute = self.options.visits_per_second * 60.0 / self.options.speed;
        let (mut owed, mut at) = (0.0, from);
        while at < until {
            owed += per_minute * Visitors::rhythm((self.season)(at));
            while owed >= 1.0 {
                owed -= 1.0;
                let season = (self.season)(at);
                let (visitor, visit) = state.visitors.next(season, Trouble::default());
                let (shows, acts) = match visit {
                    Visit::Row(_) => {
                        let shows = state.charts.first(uptake_sim::Reranked::HalfHourly, ROW);
                        let row: Vec<Option<u16>> = shows.iter().copied().map(Some).collect();
                        let acts = state.visitors.browse(season, &row);
                        (shows, acts)
                    }
                    Visit::Search(shows) => {
                        let acts = state.visitors.found(season, &shows);
                        (shows, acts)
                    }
                };
                let request = state.visitors.request();
                let acts: Vec<Act> = acts.into_iter().filter(|act| at + act.after_ms < until).collect();
                if acts.is_empty() {
                    continue;
                }
                state.truth.open(request, acts.len());
                for act in &acts {
                    let event = seen(shows[act.place], act, at);
                    line(event_of_the_site(request, &event, &visitor).to_string().as_bytes())?;
                    state.taken(request, event, self.options.counting, season);
                }
            }
            at += 60_000;
        }
        let season = (self.season)(until);
        state.charts.advance(season);
        Ok(())
    }

    /// Visits until [`Crowd::close`], and then until everything was sent, or nothing was taken for `patience`.
    pub(crate) async fn run(self: Arc<Self>, patience: Duration) {
        self.site.begin_counting_cost().await;
        let (mut owed, mut last, mut last_now) = (0.0, Instant::now(), (self.now)());
        let mut last_taken = (0, Instant::now());
        loop {
            tokio::time::sleep(TICK).await;
            let (now, since) = ((self.now)(), last.elapsed().min(Duration::from_secs(1)));
            let passed = now - last_now;
            (last, last_now) = (Instant::now(), now);
            let is_closing = self.closing.load(Ordering::Acquire);
            // The site's clock stands still: so does everybody.
            if passed <= 0 && !is_closing {
                continue;
            }
            if !is_closing {
                let season = (self.season)(now);
                owed += self.options.visits_per_second * since.as_secs_f64() * Visitors::rhythm(season);
                let has_room = self.waiting() < WAITING_MAX;
                while owed >= 1.0 {
                    owed -= 1.0;
                    match Arc::clone(&self.under_way).try_acquire_owned() {
                        Ok(permit) if has_room => {
                            let crowd = Arc::clone(&self);
                            tokio::spawn(async move {
                                crowd.visit().await;
                                drop(permit);
                            });
                        }
                        _ => add(&self.counts.turned_away, 1),
                    }
                }
                self.look(season);
                if self.options.robot {
                    self.robot(now, season - (self.season)(now - passed)).await;
                }
            }
            self.deliver(now, is_closing);
            if is_closing {
                let taken = self.counts.taken.load(Ordering::Relaxed);
                if taken != last_taken.0 {
                    last_taken = (taken, Instant::now());
                }
                let is_idle = self.under_way.available_permits() == UNDER_WAY_MAX;
                if is_idle && self.waiting() == 0 || last_taken.1.elapsed() > patience {
                    return;
                }
            }
        }
    }

    /// Once a minute of the season.
    fn look(&self, season: i64) {
        let mut state = self.state();
        if season - state.looked_at >= 60_000 {
            state.looked_at = season;
            state.charts.advance(season);
            let State { rises, charts, .. } = &mut *state;
            rises.look(season, charts);
        }
    }

    fn deliver(self: &Arc<Self>, now: i64, is_closing: bool) {
        loop {
            let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else { return };
            let delivery = {
                let mut state = self.state();
                if is_closing && !state.is_closing {
                    state.is_closing = true;
                    let all = std::mem::take(&mut state.waiting).into_iter();
                    state.waiting = all.map(|Reverse(one)| Reverse(one.hurried())).collect();
                }
                match state.waiting.peek() {
                    Some(Reverse(first)) if first.due <= now => state.waiting.pop(),
                    _ => None,
                }
            };
            let Some(Reverse(delivery)) = delivery else { return };
            let crowd = Arc::clone(self);
            tokio::spawn(async move {
                crowd.send(delivery).await;
                drop(permit);
            });
        }
    }

    async fn visit(&self) {
        add(&self.counts.visits, 1);
        let (visitor, visit) = {
            let mut state = self.state();
            let trouble = state.trouble;
            state.visitors.next((self.season)((self.now)()), trouble)
        };
        match visit {
            Visit::Row(name) => match self.site.row(name, ROW).await {
                Ok(served) => self.browse(name, &served, &visitor),
                Err(error) => {
                    add(&self.counts.failed_rows, 1);
                    self.say(&error);
                }
            },
            Visit::Search(shows) => self.search(&shows, &visitor),
        }
    }

    /// A visitor looks at a row.
    fn browse(&self, name: &str, served: &Served, visitor: &Visitor) {
        let all = Season::real();
        let shows: Vec<Option<u16>> = served.items.iter().map(|item| all.by_id(&item.video_id)).collect();
        let season = (self.season)(served.served_at);
        let mut state = self.state();
        let State { rises, charts, .. } = &mut *state;
        match name {
            "trending" => rises.trending(season, &shows),
            "loved" => rises.served(season, &shows, charts),
            _ => {}
        }
        let acts = state.visitors.browse(season, &shows);
        let (mut events, mut written) = (Vec::new(), Vec::new());
        let request = request_of(&served.request_id);
        let ahead = visitor.clock_ahead_ms;
        for act in &acts {
            if let Some(show) = shows[act.place] {
                events.push((request, seen(show, act, served.served_at)));
            }
            written.push(json!({
                "kind": if act.is_play { "play" } else { "impression" }, "request_id": served.request_id,
                "video_id": served.items[act.place].video_id, "since_row_ms": act.after_ms,
                "timestamp": served.served_at + act.after_ms + ahead, "row": name, "position": act.place + 1,
                "device": visitor.device, "member_id": format!("m{}", visitor.member), MARK: true,
            }));
        }
        let Some(last) = acts.last() else { return };
        // The truth has no place for a title of another catalogue: of such a row nothing is told.
        if written.len() != events.len() {
            return;
        }
        state.truth.open(request, events.len());
        let happened_at = served.served_at + last.after_ms;
        let due = happened_at + visitor.held_ms;
        let body = |due: i64| json!({ "sent": due + ahead, "events": written }).to_string().into_bytes();
        add(&self.counts.made, events.len());
        let events: Arc<[(u64, Seen)]> = events.into();
        state.wait(due, happened_at, body(due), &events, false);
        if let Some(after) = visitor.again_after_ms {
            state.wait(due + after, happened_at, body(due + after), &events, true);
        }
    }

    /// A visitor searches: the site's own servers report it, with their clocks.
    fn search(&self, shows: &[u16], visitor: &Visitor) {
        let now = (self.now)();
        let mut state = self.state();
        let acts = state.visitors.found((self.season)(now), shows);
        let request = state.visitors.request();
        let events: Vec<(u64, Seen)> =
            acts.iter().map(|act| (request, seen(shows[act.place], act, now))).collect();
        let Some(last) = acts.last() else { return };
        let written: Vec<Value> =
            events.iter().map(|(request, event)| event_of_the_site(*request, event, visitor)).collect();
        state.truth.open(request, events.len());
        let happened_at = now + last.after_ms;
        let due = happened_at + visitor.held_ms;
        let body = Value::Array(written).to_string().into_bytes();
        add(&self.counts.made, events.len());
        let events: Arc<[(u64, Seen)]> = events.into();
        if let Some(after) = visitor.again_after_ms {
            state.wait(due + after, happened_at, body.clone(), &events, true);
        }
        state.wait(due, happened_at, body, &events, false);
    }

    async fn send(self: &Arc<Self>, delivery: Delivery) {
        let begun = Instant::now();
        match self.site.send(delivery.body.clone()).await {
            Ok(verdicts) => {
                let (mut taken, mut probe) = (0, None);
                {
                    let mut state = self.state();
                    let all = delivery.events.iter().zip(&verdicts);
                    for ((request, event), _) in all.filter(|(_, is_taken)| **is_taken) {
                        taken += 1;
                        if !delivery.is_again {
                            let season = (self.season)(event.stamp_ms);
                            let is_first = state.taken(*request, *event, self.options.counting, season);
                            if is_first && state.probed.is_none_or(|at| at.elapsed() >= PROBE_EVERY) {
                                state.probed = Some(Instant::now());
                                probe = Some(*event);
                            }
                        }
                    }
                }
                let counts = if delivery.is_again { &self.counts.taken_again } else { &self.counts.taken };
                add(counts, taken);
                if !delivery.is_again {
                    add(&self.counts.refused, delivery.events.len() - taken);
                }
                if let Some(event) = probe {
                    let crowd = Arc::clone(self);
                    tokio::spawn(async move { crowd.probe(event, begun).await });
                }
            }
            Err(SiteError::Later(what)) => {
                add(&self.counts.retried, 1);
                self.say(&what);
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                self.state().waiting.push(Reverse(delivery));
            }
            Err(SiteError::Never(what)) => {
                add(&self.counts.lost, delivery.events.len());
                self.say(&what);
            }
        }
    }

    /// Looks how long the first play of a title in an epoch takes to its tally, and to the row.
    async fn probe(&self, event: Seen, begun: Instant) {
        let id = Season::real().shows()[usize::from(event.title)].id;
        let epoch = event.stamp_ms.div_euclid(self.options.counting.epoch_ms);
        loop {
            let found = self.site.series(id).await;
            if found.is_ok_and(|all| all.iter().any(|one| one.epoch == epoch && one.plays > 0)) {
                break;
            }
            if begun.elapsed() > PROBE_MAX {
                self.latency().missed += 1;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        note(&mut self.latency().tally, begun.elapsed());
        while begun.elapsed() < PROBE_MAX {
            let Ok(row) = self.site.row("popular", 100).await else { return };
            // A row of the next epoch does not show this one's plays.
            if row.epoch.is_none_or(|of| of > epoch) {
                return;
            }
            if let Some(item) = row.items.iter().find(|item| item.video_id == id)
                && row.epoch == Some(epoch)
                && item.plays > 0
            {
                note(&mut self.latency().row, begun.elapsed());
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How long plays took so far.
    pub(crate) fn latency(&self) -> MutexGuard<'_, Latency> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The robot claims plays. `passed`: milliseconds of the season since the last call.
    async fn robot(&self, now: i64, passed: i64) {
        let (season, visits) =
            ((self.season)(now), self.options.visits_per_second * 3_600.0 / self.options.speed);
        let Some(show) = robot::title() else { return };
        let bodies = robot::bodies(show, season, passed, visits);
        // Whole bodies, at random so that few are right on average.
        if bodies == 0.0 || self.state().visitors.request() as f64 / u64::MAX as f64 >= bodies {
            return;
        }
        let page = Robot::page_at(season);
        if !self.state().robot.as_ref().is_some_and(|robot| robot.is_of(page)) {
            let Ok(served) = self.site.row("popular", ROW).await else { return };
            let robot = Robot::new(page, served);
            let mut state = self.state();
            state.truth.open(robot.request(), usize::MAX);
            state.robot = Some(robot);
        }
        let mut state = self.state();
        let State { robot, visitors, .. } = &mut *state;
        let Some(robot) = robot else { return };
        let (body, events) = robot.claim(show, now, self.options.counting.epoch_ms, || visitors.request());
        add(&self.counts.robots, robot::CLAIMS);
        add(&self.counts.made, events.len());
        state.wait(now, now, body, &events.into(), false);
    }

    /// Says what is wrong, once in ten seconds.
    fn say(&self, what: &impl std::fmt::Display) {
        let mut said = self.trouble_said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            *said = Some(Instant::now());
            crate::outputs::notice(&format!("the site answers {what}; its visitors try again"));
        }
    }
}

impl State {
    fn wait(
        &mut self,
        due: i64,
        happened_at: i64,
        body: Vec<u8>,
        events: &Arc<[(u64, Seen)]>,
        is_again: bool,
    ) {
        self.next_number += 1;
        let (number, events) = (self.next_number, Arc::clone(events));
        let one = Delivery { due, number, happened_at, body, events, is_again };
        self.waiting.push(Reverse(if self.is_closing { one.hurried() } else { one }));
    }

    /// An event was taken for the first time; says whether it is the first play of its title in its epoch.
    fn taken(&mut self, request: u64, event: Seen, counting: Counting, season: i64) -> bool {
        self.truth.sent(request, event);
        if !event.is_play {
            return false;
        }
        self.charts.played(event.title, season);
        let epoch = event.stamp_ms.div_euclid(counting.epoch_ms);
        let plays = self.plays.entry((event.title, epoch)).or_default();
        *plays += 1;
        let is_first = *plays == 1;
        if self.plays.len() > 20_000 {
            self.plays.retain(|(_, of), _| *of >= epoch - 4);
        }
        is_first
    }
}

fn seen(show: u16, act: &Act, from: i64) -> Seen {
    Seen { title: show, is_play: act.is_play, stamp_ms: from + act.after_ms }
}

fn note(delays: &mut Vec<Duration>, delay: Duration) {
    if delays.len() < DELAYS_MAX {
        delays.push(delay);
    }
}

/// The number of a request, signed or not.
fn request_of(token: &str) -> u64 {
    RequestId::from_text(token.split('.').next().unwrap_or(token).as_bytes()).0
}

/// An event as a site's own servers report it: with their clock, which is taken as it is.
fn event_of_the_site(request: u64, event: &Seen, visitor: &Visitor) -> Value {
    json!({
        "kind": if event.is_play { "play" } else { "impression" }, "request_id": RequestId(request).to_string(),
        "video_id": Season::real().shows()[usize::from(event.title)].id, "timestamp": event.stamp_ms,
        "row": "search", "device": visitor.device, "member_id": format!("m{}", visitor.member), MARK: true,
    })
}
