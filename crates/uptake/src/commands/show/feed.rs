//! Lines at a pace: of the simulated audience, or of files.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use uptake_connectors::InputError;
use uptake_connectors::input::{Block, EventFiles};
use uptake_model::EventTime;
use uptake_model::decode::{Decoded, Decoder, Members};
use uptake_sim::Audience;

use crate::commands::text::grouped;
use crate::config::Config;
use crate::data_dir::now;
use crate::stages::collect::{LiveLines, Next};

/// Lines are handed over in pieces of at most this many, so that no worker holds the others up.
const PIECE_LINES: usize = 2_000;

/// When it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// After this time of ours.
    pub(super) wall: Option<Duration>,
    /// After this many lines.
    pub(super) lines: Option<u64>,
}

/// How far the lines have come; what the source says and the screen shows.
pub(super) struct Feed {
    limits: Limits,
    begun: OnceLock<Instant>,
    lines: AtomicU64,
    /// The event time of the last lines.
    clock_ms: AtomicI64,
    interrupted: AtomicBool,
    unwatched: AtomicBool,
    /// Bytes read, and bytes there are; of files.
    bytes: (AtomicU64, AtomicU64),
}

impl Feed {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            begun: OnceLock::new(),
            lines: AtomicU64::new(0),
            clock_ms: AtomicI64::new(i64::MIN),
            interrupted: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            bytes: Default::default(),
        }
    }

    /// Ends the lines; says whether somebody had asked for it before.
    pub(super) fn interrupt(&self) -> bool {
        self.interrupted.swap(true, Ordering::AcqRel)
    }

    /// Ends the lines because nobody reads what is printed.
    pub(super) fn nobody_watches(&self) {
        self.unwatched.store(true, Ordering::Release);
    }

    /// Since the first line was asked for.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The event time of the last lines, if there were any.
    pub(super) fn clock(&self) -> Option<EventTime> {
        Some(self.clock_ms.load(Ordering::Acquire)).filter(|ms| *ms > i64::MIN).map(EventTime)
    }

    /// How much is done, from 0 to 1, and in words.
    pub(super) fn done(&self) -> (f64, String) {
        let elapsed = self.elapsed();
        let (read, all) = (self.bytes.0.load(Ordering::Acquire), self.bytes.1.load(Ordering::Acquire));
        let (part, words) = match self.limits {
            Limits { lines: Some(limit), .. } => {
                let lines = self.lines.load(Ordering::Acquire);
                (lines as f64 / limit as f64, format!("{} of {} events", grouped(lines), grouped(limit)))
            }
            Limits { wall: Some(limit), .. } => {
                let limit = limit.as_secs_f64();
                let elapsed = elapsed.as_secs_f64().min(limit);
                (elapsed / limit, format!("{elapsed:.0} s of {limit:.0} s"))
            }
            _ if all > 0 => {
                let part = read as f64 / all as f64;
                (part, format!("{:.0} % of the files", 100.0 * part))
            }
            _ => (0.0, format!("{:.0} s", elapsed.as_secs_f64())),
        };
        (part.clamp(0.0, 1.0), words)
    }

    /// Why there were no more lines, as a sentence.
    pub(super) fn ended_because(&self) -> String {
        let seconds = self.elapsed().as_secs_f64();
        match self.limits {
            _ if self.interrupted.load(Ordering::Acquire) => {
                format!("Stopped after {seconds:.0} s, as asked; all that had been read is counted.")
            }
            Limits { lines: Some(limit), .. } if self.lines.load(Ordering::Acquire) >= limit => {
                format!("Ended after {} events.", grouped(limit))
            }
            Limits { wall: Some(limit), .. } if self.elapsed() >= limit => {
                format!("Ended after {:.0} s.", limit.as_secs_f64())
            }
            _ => format!("Ended with the last file, after {seconds:.0} s."),
        }
    }

    /// How many more lines there may be; `None` when it is over.
    fn left(&self) -> Option<usize> {
        let over = self.interrupted.load(Ordering::Acquire) || self.unwatched.load(Ordering::Acquire);
        let begun = *self.begun.get_or_init(Instant::now);
        if over || self.limits.wall.is_some_and(|limit| begun.elapsed() >= limit) {
            return None;
        }
        let left = match self.limits.lines {
            Some(limit) => limit.saturating_sub(self.lines.load(Ordering::Acquire)),
            None => u64::MAX,
        };
        (left > 0).then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn came(&self, lines: usize, clock: Option<EventTime>) {
        self.lines.fetch_add(lines as u64, Ordering::AcqRel);
        if let Some(clock) = clock {
            self.clock_ms.store(clock.0, Ordering::Release);
        }
    }
}

/// The lines of the simulated audience, whose time runs faster than ours.
pub(super) struct Generated {
    audience: Arc<Mutex<Audience>>,
    start: EventTime,
    speed: u32,
    feed: Arc<Feed>,
    name: Arc<str>,
    text: Vec<u8>,
}

impl Generated {
    pub(super) fn new(audience: Arc<Mutex<Audience>>, speed: u32, feed: &Arc<Feed>) -> Self {
        let start = EventTime(audience.lock().unwrap_or_else(PoisonError::into_inner).now_ms());
        Self {
            audience,
            start,
            speed,
            feed: Arc::clone(feed),
            name: "simulated audience".into(),
            text: Vec::new(),
        }
    }
}

impl LiveLines for Generated {
    fn next_block(&mut self, lines_max: usize, block: &mut Block) -> Result<Next, InputError> {
        let Some(left) = self.feed.left() else { return Ok(Next::End) };
        let passed_ms = self.feed.elapsed().as_millis() as i64 * i64::from(self.speed);
        block.first_line = self.feed.lines.load(Ordering::Acquire);
        block.bytes.clear();
        block.oversized.clear();
        block.file = Arc::clone(&self.name);
        let mut audience = self.audience.lock().unwrap_or_else(PoisonError::into_inner);
        let lines_max = lines_max.min(left).min(PIECE_LINES);
        self.text.clear();
        block.lines = audience.fill(self.start.plus(passed_ms).0, lines_max, &mut self.text);
        block.bytes.extend_from_slice(&self.text);
        self.feed.came(block.lines, Some(EventTime(audience.now_ms())));
        Ok(if block.lines > 0 { Next::Lines } else { Next::NotYet })
    }
}

/// The lines of files, so many a second.
pub(super) struct FilesAtPace {
    files: EventFiles,
    lines_per_second: u32,
    /// Reads what was handed over once more, to learn what time it is there.
    decoder: Decoder,
    feed: Arc<Feed>,
}

impl FilesAtPace {
    pub(super) fn new(files: EventFiles, lines_per_second: u32, config: &Config, feed: &Arc<Feed>) -> Self {
        feed.bytes.1.store(files.total_bytes(), Ordering::Release);
        let decode = Arc::clone(&config.decode);
        let decoder = Decoder::new(decode, &config.segments, &config.filters, config.epoch, Members::None);
        Self { files, lines_per_second, decoder, feed: Arc::clone(feed) }
    }

    /// The time in the middle of the block's events, which a few wrong clocks do not move.
    fn clock(&mut self, block: &Block) -> Option<EventTime> {
        let mut decoded = Decoded::default();
        self.decoder.decode_block(&block.bytes, now(), 0, &mut decoded);
        let mut times: Vec<EventTime> = decoded.events.iter().map(|event| event.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

impl LiveLines for FilesAtPace {
    fn next_block(&mut self, lines_max: usize, block: &mut Block) -> Result<Next, InputError> {
        let Some(left) = self.feed.left() else { return Ok(Next::End) };
        let due = (self.feed.elapsed().as_secs_f64() * f64::from(self.lines_per_second)) as u64;
        let due = due.saturating_sub(self.feed.lines.load(Ordering::Acquire));
        if due == 0 {
            return Ok(Next::NotYet);
        }
        let lines_max = lines_max.min(left).min(PIECE_LINES).min(usize::try_from(due).unwrap_or(PIECE_LINES));
        if !self.files.next_block(lines_max, block)? {
            return Ok(Next::End);
        }
        self.feed.bytes.0.store(self.files.bytes_done(), Ordering::Release);
        let clock = self.clock(block);
        self.feed.came(block.lines, clock);
        Ok(Next::Lines)
    }
}
