//! The live screen: what has become of the events, and the most played titles, a few times a second.
//!
//! On a terminal one picture is drawn over the other; elsewhere a few lines are printed now and
//! then. Colours are the terminal's own and never carry a meaning alone.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::{Style, Term, measure_text_width, style, truncate_str};
use uptake_connectors::TableError;
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::ledger::Account;
use uptake_model::{EpochLength, EventTime, TallyRow};
use uptake_sim::{Audience, titles};

use super::feed::Feed;
use crate::commands::text::{grouped, percent};
use crate::config::Config;
use crate::stages::outlets::{Accounts, Outlets};

/// How often the picture is drawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How often lines are printed where there is no terminal.
const PRINT: Duration = Duration::from_secs(3);
/// Wider than this nothing is easier to read.
const WIDTH_MAX: usize = 100;
const WIDTH_MIN: usize = 40;
const TOP: usize = 10;
/// Lines of the picture beside the top titles and the news.
const OTHER_LINES: usize = 11;
/// The numbers stand in this many columns.
const COLUMNS: usize = 3;
/// Looking into a large table takes its time; the screen takes at most this part of a processor.
const LOOK_SHARE: u32 = 8;

/// What the screen is drawn from.
pub(super) struct Screen {
    table: SqliteTable,
    length: EpochLength,
    feed: Arc<Feed>,
    audience: Option<Arc<Mutex<Audience>>>,
    speed: u32,
    /// By video id: the name, and the name with the year.
    names: HashMap<&'static str, (&'static str, String)>,
    ledgers: Arc<Mutex<Option<Accounts>>>,
    term: Term,
    live: bool,
    /// Records read at some times in the last seconds.
    paces: Vec<(Instant, u64)>,
    view: View,
    /// When the table is to be looked into again.
    look_at: Instant,
    /// How many lines the picture has, and how wide the terminal was.
    drawn: (usize, usize),
}

/// What the table said last.
#[derive(Default)]
struct View {
    rows: Vec<TallyRow>,
    before: Vec<TallyRow>,
    clock: EventTime,
}

/// A screen at work.
pub(super) struct Running {
    thread: JoinHandle<Result<(), std::io::Error>>,
    done: Arc<AtomicBool>,
}

impl Running {
    /// Draws the last picture and stops.
    ///
    /// # Errors
    /// It cannot be printed.
    pub(super) fn finish(self) -> Result<(), std::io::Error> {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the screen's thread panicked")))
    }
}

/// Gives the terminal its cursor back.
pub(super) fn show_cursor() {
    let term = Term::stdout();
    if term.is_term() {
        drop(term.show_cursor());
    }
}

impl Screen {
    pub(super) fn new(
        table: SqliteTable,
        config: &Config,
        feed: &Arc<Feed>,
        audience: Option<Arc<Mutex<Audience>>>,
        speed: u32,
    ) -> Self {
        let term = Term::stdout();
        let live = term.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let names = match &audience {
            Some(_) => {
                titles().iter().map(|t| (t.id, (t.name, format!("{} ({})", t.name, t.year)))).collect()
            }
            None => HashMap::new(),
        };
        Self {
            table,
            length: config.epoch,
            feed: Arc::clone(feed),
            audience,
            speed,
            names,
            ledgers: Arc::default(),
            term,
            live,
            paces: Vec::new(),
            view: View::default(),
            look_at: Instant::now(),
            drawn: (0, 0),
        }
    }

    /// Starts to draw. The function is to be given the outlets of the run before it begins.
    pub(super) fn start(mut self) -> (Running, impl Fn(&Outlets)) {
        let ledgers = Arc::clone(&self.ledgers);
        let watch = move |outlets: &Outlets| {
            *ledgers.lock().unwrap_or_else(PoisonError::into_inner) = Some(outlets.accounts.clone());
        };
        let done = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let drawn = self.draw_until(&its);
            if drawn.is_err() {
                self.feed.nobody_watches();
            }
            if self.live {
                show_cursor();
            }
            drawn
        });
        (Running { thread, done }, watch)
    }

    fn draw_until(&mut self, done: &AtomicBool) -> std::io::Result<()> {
        if self.live {
            self.term.hide_cursor()?;
        } else {
            writeln!(&self.term, "{}", self.sentence())?;
        }
        let every = if self.live { REDRAW } else { PRINT };
        let mut next = Instant::now() + every.min(REDRAW * u32::from(self.live));
        loop {
            let over = done.load(Ordering::Acquire);
            let now = Instant::now();
            if !over && now < next {
                std::thread::park_timeout(next - now);
                continue;
            }
            next = now + every;
            // Between the rows of a busy table the screen shows what it knew.
            if over || now >= self.look_at {
                let view = self.look();
                self.view = view.unwrap_or_else(|_| std::mem::take(&mut self.view));
                self.look_at = Instant::now() + now.elapsed() * LOOK_SHARE;
            }
            let total = self.ledger();
            if self.live {
                self.draw(&total, over)?;
            } else if !over {
                self.print(&total)?;
            }
            if over {
                return Ok(());
            }
        }
    }

    /// The books of all workers, as of their last batches.
    fn ledger(&self) -> Account {
        let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        ledgers.as_ref().map_or_else(Account::default, |accounts| accounts.ledger().total())
    }

    /// The most played of this epoch and of the one before.
    fn look(&self) -> Result<View, TableError> {
        let Some(clock) = self.feed.clock() else { return Ok(View::default()) };
        let epoch = self.length.epoch(clock);
        let before = uptake_model::Epoch(epoch.0 - 1);
        let rows = self.table.top("", Some(epoch), TOP)?;
        Ok(View { rows, before: self.table.top("", Some(before), 50)?, clock })
    }

    fn name<'a>(&'a self, row: &'a TallyRow) -> &'a str {
        self.names.get(&*row.video_id).map_or(&row.video_id, |(name, _)| name)
    }

    fn name_and_year<'a>(&'a self, row: &'a TallyRow) -> &'a str {
        self.names.get(&*row.video_id).map_or(&row.video_id, |(_, name)| name)
    }

    fn sentence(&self) -> &'static str {
        match self.audience {
            Some(_) => "A simulated audience looks for films; Uptake counts what it is shown and plays.",
            None => "Events of your files, counted as if they came in now.",
        }
    }

    /// Records a second over the last seconds.
    fn pace(&mut self, read: u64) -> u64 {
        let now = Instant::now();
        self.paces.retain(|(at, _)| now - *at < Duration::from_secs(3));
        self.paces.push((now, read));
        let (at, before) = self.paces[0];
        match (now - at).as_secs_f64() {
            0.0 => (read as f64 / self.feed.elapsed().as_secs_f64().max(0.1)) as u64,
            seconds => ((read - before.min(read)) as f64 / seconds) as u64,
        }
    }

    /// A few lines for a log.
    fn print(&mut self, total: &Account) -> std::io::Result<()> {
        let Some(clock) = self.feed.clock() else { return Ok(()) };
        let (_, done) = self.feed.done();
        let mut text = format!("\n[{done}] {} UTC", moment(clock));
        let pace = self.pace(total.read);
        _ = write!(text, "\n  read {} ({} a second)", grouped(total.read), grouped(pace));
        for (name, n) in books(total) {
            _ = write!(text, ", {name} {}", grouped(n));
        }
        for (when, rows) in [(0, &self.view.rows), (-1, &self.view.before)] {
            if !rows.is_empty() {
                let best: Vec<String> = (1..=3)
                    .zip(rows)
                    .map(|(rank, row)| format!("{rank}. {} {}", self.name(row), grouped(row.counts.plays)))
                    .collect();
                _ = write!(text, "\n  {}  {}", self.half_hour(when), best.join("   "));
            }
        }
        writeln!(&self.term, "{text}")
    }

    /// The epoch that many after the current one, as `19:00–19:30`.
    fn half_hour(&self, after: i64) -> String {
        let epoch = uptake_model::Epoch(self.length.epoch(self.view.clock).0 + after);
        format!("{}–{}", hour(self.length.start(epoch)), hour(self.length.end(epoch)))
    }

    /// Draws the picture over the one before.
    fn draw(&mut self, total: &Account, over: bool) -> std::io::Result<()> {
        let (height, width) = self.term.size();
        let (height, width) = (usize::from(height), usize::from(width));
        let lines = self.picture(total, width.clamp(WIDTH_MIN, WIDTH_MAX) - 1, height, over);
        let mut text = String::new();
        let (before, width_before) = self.drawn;
        if before > 0 && width == width_before {
            _ = write!(text, "\x1b[{before}A\r");
        } else if before > 0 {
            // The old picture was wrapped by the terminal: nobody knows where it begins.
            text.push_str("\x1b[2J\x1b[H");
        }
        for line in &lines {
            // Each line is written over the old one and only then is its rest erased, so that
            // nothing flickers.
            _ = writeln!(text, "{line}\x1b[K");
        }
        text.push_str("\x1b[J");
        self.drawn = (lines.len(), width);
        (&self.term).write_all(text.as_bytes())?;
        self.term.flush()
    }

    fn picture(&mut self, total: &Account, width: usize, height: usize, over: bool) -> Vec<String> {
        let dim = Style::new().dim();
        let pace = self.pace(total.read);
        let (part, done) = self.feed.done();
        let mut lines = vec![style(truncate_str(self.sentence(), width, "…")).bold().to_string()];
        let clock = self.view.clock;
        let speed = match self.audience {
            Some(_) => format!("  ×{}, {}", self.speed, half_hour_takes(self.length, self.speed)),
            None => String::new(),
        };
        let left = format!("{} UTC{}", style(moment(clock)).cyan().bold(), dim.apply_to(speed));
        lines.push(String::new());
        lines.push(apart(&left, &done, width));
        let full = (part * width as f64) as usize;
        let rest = dim.apply_to("─".repeat(width - full));
        lines.push(format!("{}{rest}", style("━".repeat(full)).cyan()));
        lines.extend(self.numbers(total, pace, over, width));
        lines.push(String::new());

        let rows_max = TOP.min(height.saturating_sub(OTHER_LINES + 1)).max(1);
        lines.extend(self.ranks(width, rows_max, over));
        lines.push(String::new());
        lines.push(self.best_before(width));
        lines.extend(self.news(height.saturating_sub(lines.len() + 1).min(3)));
        lines.into_iter().map(|line| truncate_str(&line, width, "…").into_owned()).collect()
    }

    /// What became of the events, in columns.
    fn numbers(&self, total: &Account, pace: u64, over: bool, width: usize) -> Vec<String> {
        let mut cells = vec![("read", grouped(total.read))];
        cells.push(if over { ("", String::new()) } else { ("a second", grouped(pace)) });
        cells.extend(books(total).map(|(name, n)| (name, grouped(n))));
        let number_width = (width / COLUMNS).saturating_sub(13 + 2);
        let cell = |i: usize| {
            let (name, number) = cells.get(i).cloned().unwrap_or_default();
            format!("{}{number:>number_width$}  ", Style::new().dim().apply_to(format!("{name:13}")))
        };
        let rows = cells.len().div_ceil(COLUMNS);
        (0..rows).map(|row| (0..COLUMNS).map(|column| cell(column * rows + row)).collect()).collect()
    }

    /// The most played titles of the current epoch.
    fn ranks(&self, width: usize, rows_max: usize, over: bool) -> Vec<String> {
        let bar_width = (width * 2 / 5).saturating_sub(22).max(1);
        // Rank, arrow, plays, shown and rate with the space between them.
        let name_width = width.saturating_sub(3 + 5 + 8 + 9 + 10 + 2 + bar_width).max(8);
        let state = if over { "as the input ended" } else { "under way" };
        let heading = format!("{}, {state}", self.half_hour(0));
        let heading_width = name_width + 8;
        let heading = style(format!("{heading:<heading_width$}")).bold();
        let columns = Style::new().dim().apply_to(format!("{:>8}{:>9}{:>10}", "plays", "shown", "take rate"));
        let mut lines = vec![format!("{heading}{columns}")];
        let most = self.view.rows.iter().chain(&self.view.before).map(|r| r.counts.plays).max().unwrap_or(1);
        let ranks_before: HashMap<&str, usize> =
            self.view.before.iter().zip(1..).map(|(row, rank)| (&*row.video_id, rank)).collect();
        for rank in 1..=rows_max {
            let Some(row) = self.view.rows.get(rank - 1) else {
                lines.push(String::new());
                continue;
            };
            let arrow = match ranks_before.get(&*row.video_id) {
                _ if self.view.before.is_empty() => style(String::new()),
                None => style("▲".to_owned()).green(),
                Some(&before) if before > rank => style(format!("▲{}", before - rank)).green(),
                Some(&before) if before < rank => style(format!("▼{}", rank - before)).red(),
                Some(_) => style(String::new()),
            };
            let name = truncate_str(self.name_and_year(row), name_width, "…");
            let name_pad = name_width - measure_text_width(&name);
            let counts = row.counts;
            lines.push(format!(
                "{rank:>2} {arrow:<5}{name}{:name_pad$}{:>8}{:>9}{:>10}  {}",
                "",
                grouped(counts.plays),
                grouped(counts.impressions),
                percent(counts.plays, counts.impressions),
                style(bar(counts.plays, most, bar_width)).cyan(),
            ));
        }
        lines
    }

    /// The first three of the epoch before, with their whole names where they fit in.
    fn best_before(&self, width: usize) -> String {
        let line = |name_max: usize| {
            let best = (1..=3).zip(&self.view.before).map(|(rank, row)| {
                let plays = Style::new().dim().apply_to(grouped(row.counts.plays)).to_string();
                format!("  {rank} {} {plays}", truncate_str(self.name(row), name_max, "…"))
            });
            format!("{}{}", style(self.half_hour(-1)).bold(), best.collect::<String>())
        };
        let whole = line(width);
        if measure_text_width(&whole) <= width { whole } else { line(width / 4 - 6) }
    }

    /// What moves the audience, which Uptake does not know.
    fn news(&self, lines_max: usize) -> Vec<String> {
        let Some(audience) = &self.audience else { return Vec::new() };
        let audience = audience.lock().unwrap_or_else(PoisonError::into_inner);
        let mut happening: Vec<_> = audience.happening().collect();
        happening.reverse();
        let line = |h: &&uptake_sim::Happening| {
            let name = titles().get(h.title).map_or("", |t| t.name);
            let from = hour(EventTime(h.from_ms));
            let news = Style::new().dim().apply_to(format!("invented news, {from}"));
            format!("{news}  {name}: {}", h.what)
        };
        let mut lines: Vec<String> = happening.iter().take(lines_max).map(line).collect();
        lines.resize(lines_max, String::new());
        lines
    }
}

/// The ledger's entries that the screen shows.
fn books(total: &Account) -> [(&'static str, u64); 7] {
    [
        ("counted", total.counted),
        ("waiting", total.waiting),
        ("expired", total.expired),
        ("late", total.late),
        ("duplicates", total.duplicate),
        ("dead letters", total.dead_sum()),
        ("filtered", total.filtered_sum() + total.capped),
    ]
}

/// A bar of at most `width` characters, in eighths.
fn bar(n: u64, most: u64, width: usize) -> String {
    let eighths = (n as f64 / most.max(1) as f64 * width as f64 * 8.0) as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend([' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths % 8).filter(|c| **c != ' '));
    bar
}

/// Two texts at the two ends of a line.
fn apart(left: &str, right: &str, width: usize) -> String {
    let between = width.saturating_sub(measure_text_width(left) + measure_text_width(right)).max(1);
    format!("{left}{:between$}{right}", "")
}

/// `Sun 2 Mar 2025 19:42`, in UTC.
fn moment(time: EventTime) -> String {
    strftime(time, "%a %-d %b %Y %H:%M")
}

/// `19:42`, in UTC.
fn hour(time: EventTime) -> String {
    strftime(time, "%H:%M")
}

fn strftime(time: EventTime, format: &str) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| String::new(), |t| t.strftime(format).to_string())
}

/// `half an hour in 3 s`.
fn half_hour_takes(length: EpochLength, speed: u32) -> String {
    let seconds = length.ms() as f64 / 1000.0;
    let what = match length.ms() {
        1_800_000 => "half an hour".to_owned(),
        ms => format!("{} min", ms / 60_000),
    };
    let seconds = seconds / f64::from(speed);
    format!("{what} in {} s", if seconds < 2.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_bars_have_their_width() {
        assert_eq!(bar(0, 10, 8), "");
        assert_eq!(bar(10, 10, 8), "████████");
        assert_eq!(bar(5, 80, 8), "▌");
        assert_eq!(apart("a", "b", 5), "a   b");
        assert_eq!(half_hour_takes(EpochLength::default(), 600), "half an hour in 3 s");
        assert_eq!(moment(EventTime(1_740_927_600_000)), "Sun 2 Mar 2025 15:00");
    }
}
