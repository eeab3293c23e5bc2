//! What happens, in words.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use uptake_model::EventTime;

use crate::crowd::Rise;

/// The most lines that are kept.
const LINES_MAX: usize = 200;

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Line {
    /// When it was, by the world's clock.
    pub(super) at: i64,
    pub(super) text: String,
}

/// The lines so far, the newest last.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) lines: VecDeque<Line>,
    /// By title and time of a rise: how much of it was told.
    told: HashMap<(&'static str, i64), Told>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Told {
    rise: bool,
    trending: bool,
}

/// Minutes from one time to another, in words.
pub(super) fn later(since: i64, at: i64) -> String {
    match (at - since) / 60_000 {
        0 => "within a minute".to_owned(),
        1 => "after a minute".to_owned(),
        minutes if minutes < 120 => format!("after {minutes} minutes"),
        minutes => format!("after {} h {} min", minutes / 60, minutes % 60),
    }
}

/// The time of day, UTC.
pub(super) fn hour(at: i64) -> String {
    EventTime(at).to_string().get(11..16).unwrap_or_default().to_owned()
}

impl Story {
    pub(super) fn say(&mut self, at: i64, text: String) {
        self.lines.push_back(Line { at, text });
        while self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    /// Tells what is new of the rises; returns the lines.
    pub(super) fn tell<'a>(&mut self, now: i64, rises: impl Iterator<Item = &'a Rise>) -> Vec<String> {
        let mut new = Vec::new();
        for rise in rises {
            let told = self.told.entry((rise.video_id, rise.since)).or_default();
            if !told.rise {
                told.rise = true;
                new.push((
                    rise.since,
                    format!("Interest in {} is three times that of the day before.", rise.title),
                ));
            }
            if let Some(at) = rise.trending.filter(|_| !told.trending) {
                told.trending = true;
                let others = ["daily", "half-hourly", "live"].iter().zip(rise.charts);
                let missing: Vec<&str> =
                    others.filter(|(_, at)| at.is_none()).map(|(name, _)| *name).collect();
                let charts = match missing.as_slice() {
                    [] => String::new(),
                    names => format!(" No chart of plays has it yet that is ranked {}.", names.join(", ")),
                };
                new.push((at, format!("{} is Trending, {}.{charts}", rise.title, later(rise.since, at))));
            }
        }
        new.iter().for_each(|(at, text)| self.say((*at).min(now), text.clone()));
        new.into_iter().map(|(_, text)| text).collect()
    }

    /// Another world begins.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
