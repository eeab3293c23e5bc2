//! The audience: requests are made second by second, and their lines leave in order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::rng::{Rng, STEP, mix};
use crate::truth::{Counting, Seen, Truth};
use crate::world::{COUNTRIES, DEVICES, Happening, MINUTE, World, taste};

/// About how many events one request sends, on average over its impressions and plays.
pub const EVENTS_PER_REQUEST: f64 = 10.3;

/// What audience it is.
///
/// ```
/// use uptake_sim::{Audience, Options};
/// let mut audience = Audience::new(Options { seed: 7, ..Options::default() });
/// let mut lines = Vec::new();
/// let (from, to) = (Options::default().start_ms, Options::default().start_ms + 60_000);
/// let n = audience.fill(to, 100, &mut lines); // at most 100 of the lines of the first minute
/// assert_eq!(n, 100);
/// assert!(lines.starts_with(br#"{"kind":""#) && audience.now_ms() >= from);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// When it begins, in milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// How many titles there are, from 40 to as many as [`crate::titles`] has.
    pub titles: usize,
    /// How many members there are.
    pub members: u32,
    /// Page loads per second of event time, on average over a day.
    pub requests_per_second: f64,
    /// What is wrong with the lines.
    pub dirt: Dirt,
    /// What [`Truth`] counts.
    pub counting: Counting,
}

impl Default for Options {
    /// A Sunday afternoon (2025-03-02, 15:00 UTC), all titles, 100,000 members, 3 page loads a
    /// second, the usual dirt.
    fn default() -> Self {
        Self {
            seed: 1,
            start_ms: 1_740_927_600_000,
            titles: 200,
            members: 100_000,
            requests_per_second: 3.0,
            dirt: Dirt::default(),
            counting: Counting::default(),
        }
    }
}

/// How often something is wrong: probabilities from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dirt {
    /// Of an event: it is delivered again, up to ten minutes later.
    pub duplicates: f64,
    /// Of an event: a delivery of it broke off before the whole one.
    pub truncated: f64,
    /// Of an event: the device also sends one of a kind that nobody knows.
    pub unknown_kinds: f64,
    /// Of an event: the device also sends it with a time far in the future.
    pub future: f64,
    /// Of a request: it comes from a test device.
    pub test_requests: f64,
    /// Of a request: the phone has no network and delivers up to an hour later.
    pub offline_requests: f64,
    /// Of a request, after the first hour: the phone was off for days and delivers now what it
    /// saw then. Nobody who counts live waits that long, so the truth leaves it out.
    pub stale_requests: f64,
    /// Of a member: the clock is off, by minutes up to 45 ahead or 100 behind.
    pub clocks_off: f64,
}

impl Dirt {
    /// Everything is well.
    pub const NONE: Self = Self {
        duplicates: 0.0,
        truncated: 0.0,
        unknown_kinds: 0.0,
        future: 0.0,
        test_requests: 0.0,
        offline_requests: 0.0,
        stale_requests: 0.0,
        clocks_off: 0.0,
    };
}

impl Default for Dirt {
    /// 1 % duplicates, 2 % of the requests delivered late, 1 % of the clocks off, a little of
    /// everything else.
    fn default() -> Self {
        Self {
            duplicates: 0.01,
            truncated: 0.0005,
            unknown_kinds: 0.0005,
            future: 0.0001,
            test_requests: 0.003,
            offline_requests: 0.02,
            stale_requests: 0.001,
            clocks_off: 0.01,
        }
    }
}

/// How many lines have been sent, of each sort; a line is of one sort.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Impressions, each delivered for the first time.
    pub impressions: u64,
    /// Plays, each delivered for the first time.
    pub plays: u64,
    /// Deliveries of an event that had been delivered.
    pub duplicates: u64,
    /// Deliveries that broke off.
    pub truncated: u64,
    /// Events of an unknown kind.
    pub unknown_kinds: u64,
    /// Events with a time far in the future.
    pub future: u64,
    /// Events of test devices.
    pub test: u64,
    /// Events that come days late.
    pub stale: u64,
}

impl Sent {
    /// All lines.
    pub fn lines(&self) -> u64 {
        let Self { impressions, plays, duplicates, truncated, unknown_kinds, future, test, stale } = *self;
        impressions + plays + duplicates + truncated + unknown_kinds + future + test + stale
    }
}

/// People in front of screens. Its lines never end.
pub struct Audience {
    options: Options,
    rng: Rng,
    world: World,
    truth: Truth,
    sent: Sent,
    /// Lines that have been made and not sent.
    pending: BinaryHeap<Reverse<Pending>>,
    sequence: u64,
    requests: u64,
    /// The first second of which no request was made.
    next_second_ms: i64,
    now_ms: i64,
    /// Up to when the next three hold.
    weather_until_ms: i64,
    interest: Vec<f64>,
    /// Running sums of the titles' shares of a page, and of the countries' of the requests.
    shares: Vec<f64>,
    countries: Vec<f64>,
}

/// A line to be sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Pending {
    arrival_ms: i64,
    /// Makes the order of arrival total.
    sequence: u64,
    line: Line,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Line {
    sort: Sort,
    request: u64,
    stamp_ms: i64,
    member: u32,
    title: u16,
    is_play: bool,
    row: u8,
    position: u8,
    country: u8,
    device: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Sort {
    Event,
    Duplicate,
    /// With how many of 256 parts of it.
    Truncated(u8),
    UnknownKind,
    Future,
    Test,
    Stale,
}

const ROWS: [&str; 4] = ["popular", "because-you-watched", "new", "genres"];

/// The screen shows this many titles in a row.
const ROW_LENGTH: usize = 10;

/// 2099-01-01, where a clock without a battery may stand.
const FUTURE_MS: i64 = 4_070_908_800_000;

impl Audience {
    /// An audience before its first request.
    pub fn new(options: Options) -> Self {
        let titles = options.titles.clamp(40, crate::titles().len());
        let options = Options { titles, members: options.members.max(100), ..options };
        Self {
            rng: Rng::of(options.seed, 0x6175_6469),
            world: World::new(options.seed, titles, options.start_ms),
            truth: Truth::new(options.counting),
            sent: Sent::default(),
            pending: BinaryHeap::new(),
            sequence: 0,
            requests: 0,
            next_second_ms: options.start_ms,
            now_ms: options.start_ms,
            weather_until_ms: options.start_ms,
            interest: Vec::new(),
            shares: Vec::new(),
            countries: Vec::new(),
            options,
        }
    }

    /// Appends to `out` the next lines, each with its line end, of those that arrive before
    /// `until_ms`, and at most `lines_max`. Returns how many.
    pub fn fill(&mut self, until_ms: i64, lines_max: usize, out: &mut Vec<u8>) -> usize {
        for n in 0..lines_max {
            if !self.send(until_ms, out) {
                return n;
            }
        }
        lines_max
    }

    /// When the last line arrived, in milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// What the lines so far amount to.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// How many lines were sent, by sort.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// What the world speaks of now, oldest first.
    pub fn happening(&self) -> impl Iterator<Item = &Happening> {
        self.world.happening(self.now_ms)
    }

    /// Sends one line, unless the next one arrives at `until_ms` or later.
    fn send(&mut self, until_ms: i64, out: &mut Vec<u8>) -> bool {
        loop {
            // A request of a later second can only send later than that second begins.
            let next = self.pending.peek().map(|Reverse(next)| next.arrival_ms);
            match next {
                Some(arrival_ms) if arrival_ms < self.next_second_ms => break,
                _ if self.next_second_ms >= until_ms => break,
                _ => self.make_second(),
            }
        }
        let is_due = |next: &Reverse<Pending>| next.0.arrival_ms < until_ms.min(self.next_second_ms);
        let Some(Reverse(Pending { arrival_ms, line, .. })) = self.pending.peek().copied().filter(is_due)
        else {
            return false;
        };
        self.pending.pop();
        self.now_ms = arrival_ms;
        let sent = &mut self.sent;
        *match line.sort {
            Sort::Event if line.is_play => &mut sent.plays,
            Sort::Event => &mut sent.impressions,
            Sort::Duplicate => &mut sent.duplicates,
            Sort::Truncated(_) => &mut sent.truncated,
            Sort::UnknownKind => &mut sent.unknown_kinds,
            Sort::Future => &mut sent.future,
            Sort::Test => &mut sent.test,
            Sort::Stale => &mut sent.stale,
        } += 1;
        if line.sort == Sort::Event {
            let Line { title, is_play, stamp_ms, .. } = line;
            self.truth.sent(line.request, Seen { title, is_play, stamp_ms });
        }
        self.write(&line, out);
        true
    }

    /// Makes the requests of one second.
    fn make_second(&mut self) {
        let second_ms = self.next_second_ms;
        self.next_second_ms += 1000;
        if second_ms >= self.weather_until_ms {
            self.look_around(second_ms);
        }
        let rhythm = self.countries.last().copied().unwrap_or(0.0) / 100.0;
        let requests = (self.options.requests_per_second * rhythm + self.rng.unit()) as u64;
        for _ in 0..requests {
            let at_ms = second_ms + i64::from(self.rng.below(1000));
            self.make_request(at_ms);
        }
    }

    /// What holds for the next minute.
    fn look_around(&mut self, at_ms: i64) {
        self.weather_until_ms = at_ms + MINUTE;
        self.world.advance(at_ms);
        self.interest = self.world.interest(at_ms);
        self.shares = running_sums(self.world.shares(at_ms, &self.interest));
        self.countries = running_sums(COUNTRIES.iter().map(|c| f64::from(c.share) * c.rhythm(at_ms)));
    }

    /// A member loads a page, looks at a part of it, and may play something.
    fn make_request(&mut self, at_ms: i64) {
        let dirt = self.options.dirt;
        self.requests += 1;
        let request = mix(self.options.seed.wrapping_add(self.requests.wrapping_mul(STEP)));
        let country = draw(&self.countries, &mut self.rng);
        let (member, device, clock_ms) = self.member(country);
        let is_test = self.rng.chance(dirt.test_requests);
        let stale_days = match self.rng.chance(dirt.stale_requests) {
            true if at_ms >= self.options.start_ms + 60 * MINUTE => self.rng.between(3, 15),
            _ => 0,
        };
        let sort = match (is_test, stale_days) {
            (true, _) => Sort::Test,
            (_, 0) => Sort::Event,
            _ => Sort::Stale,
        };
        // Delivered when the network is back.
        let offline_ms = match sort == Sort::Event && self.rng.chance(dirt.offline_requests) {
            true => self.rng.between(3 * MINUTE, 60 * MINUTE),
            false => 0,
        };
        let happened_ms = at_ms - if sort == Sort::Stale { stale_days * 24 * 60 * MINUTE } else { 0 };
        let hour = COUNTRIES[country].hour(at_ms);
        let page = self.page();
        let row = self.rng.below(ROWS.len() as u32) as usize;
        let mut events = 0;
        let mut look_ms = 400;
        for (position, &title) in page.iter().enumerate() {
            look_ms += self.rng.between(300, 1_600);
            let line = Line {
                sort,
                request,
                stamp_ms: happened_ms + look_ms + clock_ms,
                member,
                title: title as u16,
                is_play: false,
                row: ((row + position / ROW_LENGTH) % ROWS.len()) as u8,
                position: (position % ROW_LENGTH + 1) as u8,
                country: country as u8,
                device: device as u8,
            };
            let mut arrival_ms = at_ms + look_ms + self.rng.between(150, 4_000);
            if offline_ms > 0 {
                arrival_ms = arrival_ms.max(at_ms + offline_ms);
            }
            self.deliver(arrival_ms, line);
            events += 1;
            // Who sees a title further down looks less closely.
            let attention = 1.0 / (1.0 + position as f64 * 0.07);
            let rate = self.world.take_rate[title]
                * self.interest[title]
                * taste(self.world.titles[title].genres, hour)
                * attention;
            if self.rng.chance(rate.min(0.5)) {
                // Half of the plays come within half a minute; one in a thousand after 90 minutes.
                let delay_ms = self.rng.log_normal(30_000.0, 1.7) as i64;
                let play = Line { stamp_ms: line.stamp_ms + delay_ms, is_play: true, ..line };
                let played_ms = at_ms + look_ms + delay_ms + self.rng.between(100, 2_000);
                self.deliver(played_ms.max(at_ms + offline_ms), play);
                events += 1;
            }
            // And most people stop before the end.
            if !self.rng.chance(0.925) {
                break;
            }
        }
        if sort == Sort::Event {
            self.truth.open(request, events);
        }
    }

    /// A member who lives there: the number, the device, and by how much its clock is off.
    fn member(&mut self, country: usize) -> (u32, usize, i64) {
        let per_percent = self.options.members / 100;
        let before: u32 = COUNTRIES[..country].iter().map(|c| c.share).sum();
        let share = COUNTRIES[country].share * per_percent;
        let member = before * per_percent + self.rng.below(share);
        let mut rng = Rng::of(self.options.seed ^ 0x6d65_6d62, u64::from(member));
        let mut device = 0;
        let mut percent = rng.below(100);
        while percent >= DEVICES[device].1 {
            percent -= DEVICES[device].1;
            device += 1;
        }
        let clock_ms = match (rng.chance(self.options.dirt.clocks_off), rng.chance(0.5)) {
            (false, _) => 0,
            (true, true) => rng.between(2 * MINUTE, 45 * MINUTE),
            (true, false) => -rng.between(2 * MINUTE, 100 * MINUTE),
        };
        (member, device, clock_ms)
    }

    /// 5 to 40 titles, none twice.
    fn page(&mut self) -> Vec<usize> {
        let length = 5 + self.rng.below(36) as usize;
        let mut page = Vec::with_capacity(length);
        // The popular ones are drawn again and again: who looks for too long gets a shorter page.
        for _ in 0..8 * length {
            let title = draw(&self.shares, &mut self.rng);
            if !page.contains(&title) {
                page.push(title);
                if page.len() == length {
                    break;
                }
            }
        }
        page
    }

    /// Puts a line into the queue, with what goes wrong on the way.
    fn deliver(&mut self, arrival_ms: i64, line: Line) {
        let dirt = self.options.dirt;
        if line.sort == Sort::Event {
            if self.rng.chance(dirt.duplicates) {
                let again_ms = arrival_ms + self.rng.between(1_000, 10 * MINUTE);
                self.push(again_ms, Line { sort: Sort::Duplicate, ..line });
            }
            if self.rng.chance(dirt.truncated) {
                let part = 20 + self.rng.below(220) as u8;
                self.push(arrival_ms, Line { sort: Sort::Truncated(part), ..line });
            }
            if self.rng.chance(dirt.unknown_kinds) {
                self.push(arrival_ms, Line { sort: Sort::UnknownKind, ..line });
            }
            if self.rng.chance(dirt.future) {
                let stamp_ms = FUTURE_MS + line.stamp_ms % (24 * 60 * MINUTE);
                self.push(arrival_ms, Line { sort: Sort::Future, stamp_ms, ..line });
            }
        }
        self.push(arrival_ms, line);
    }

    fn push(&mut self, arrival_ms: i64, line: Line) {
        self.sequence += 1;
        self.pending.push(Reverse(Pending { arrival_ms, sequence: self.sequence, line }));
    }

    /// The canonical form.
    fn write(&self, line: &Line, out: &mut Vec<u8>) {
        let begin = out.len();
        let kind: &[u8] = match (line.sort, line.is_play) {
            (Sort::UnknownKind, _) => b"hover",
            (_, true) => b"play",
            (_, false) => b"impression",
        };
        out.extend_from_slice(b"{\"kind\":\"");
        out.extend_from_slice(kind);
        out.extend_from_slice(b"\",\"request_id\":\"");
        for shift in (0..16).rev() {
            out.push(b"0123456789abcdef"[(line.request >> (4 * shift)) as usize & 15]);
        }
        out.extend_from_slice(b"\",\"video_id\":\"");
        out.extend_from_slice(self.world.titles[line.title as usize].id.as_bytes());
        out.extend_from_slice(b"\",\"timestamp\":");
        decimal(line.stamp_ms.unsigned_abs(), out);
        out.extend_from_slice(b",\"member_id\":\"m");
        decimal(u64::from(line.member), out);
        if !line.is_play {
            out.extend_from_slice(b"\",\"row\":\"");
            out.extend_from_slice(ROWS[line.row as usize].as_bytes());
            out.extend_from_slice(b"\",\"position\":");
            decimal(u64::from(line.position), out);
        } else {
            out.push(b'"');
        }
        out.extend_from_slice(b",\"dimensions\":{\"country\":\"");
        out.extend_from_slice(COUNTRIES[line.country as usize].code.as_bytes());
        out.extend_from_slice(b"\",\"device\":\"");
        let device = if line.sort == Sort::Test { "test" } else { DEVICES[line.device as usize].0 };
        out.extend_from_slice(device.as_bytes());
        out.extend_from_slice(b"\"}}");
        if let Sort::Truncated(part) = line.sort {
            let length = (out.len() - begin) * usize::from(part) / 256;
            out.truncate(begin + length.max(1));
        }
        out.push(b'\n');
    }
}

fn decimal(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn running_sums(parts: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sum = 0.0;
    parts
        .into_iter()
        .map(|part| {
            sum += part;
            sum
        })
        .collect()
}

/// A place, drawn with the probability of its part.
fn draw(sums: &[f64], rng: &mut Rng) -> usize {
    let at = rng.unit() * sums.last().copied().unwrap_or(0.0);
    sums.partition_point(|sum| *sum <= at).min(sums.len().saturating_sub(1))
}
