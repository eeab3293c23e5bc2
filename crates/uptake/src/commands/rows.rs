//! `uptake rows`: what is popular, loved or trending, from the table of tallies.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use uptake_connectors::table::Table;
use uptake_model::{EpochLength, EventTime, TallyRow};
use uptake_serve::rows::read_lineage;
use uptake_serve::rules_of;
use uptake_trends::options::a_day;
use uptake_trends::rows::{Choice, Placed, candidates};
use uptake_trends::why::{self, Why};
use uptake_trends::{Catalogue, Numbers, Options, RowName, RowOptions, Rules, Shelf, Trends};

use super::tallies::{open, stored_segment, when};
use super::text::{grouped, table};
use super::{CommandError, Configured, existing_log, may_have_log};
use crate::config::Config;
use crate::data_dir::epoch_length;

/// Print a row: what is popular, loved or trending.
#[derive(Args, Debug)]
pub(super) struct Rows {
    #[command(flatten)]
    of: Of,
    /// Which row
    #[arg(long, value_enum, default_value_t = Row::Trending)]
    row: Row,
    /// How many titles of the row, and of those that would come next
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// For people, or one JSON object a title
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// What a row is made from.
#[derive(Args, Debug)]
pub(super) struct Of {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// The segment, as country=BR,device=tv [default: everyone]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) segment: String,
    /// What is known of the titles: CSV, a JSON array or Parquet, with id, title, year, genres, franchise,
    /// available_from_ms, available_to_ms [default: rows.catalogue]
    #[arg(long, value_name = "FILE")]
    pub(super) catalogue: Option<PathBuf>,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Row {
    /// What is played most
    Popular,
    /// What is played most when it is seen
    Loved,
    /// What is played more than was to be expected
    Trending,
}

impl Row {
    pub(super) fn name(self) -> RowName {
        match self {
            Self::Popular => RowName::Popular,
            Self::Loved => RowName::Loved,
            Self::Trending => RowName::Trending,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// The trends of a data directory, as of the end of its last epoch.
pub(super) struct Loaded {
    trends: Trends,
    shelf: Shelf,
    segment: String,
    row: RowName,
    form: RowOptions,
    rules: Rules,
    catalogue: Catalogue,
    length: EpochLength,
    last: Option<uptake_model::Epoch>,
}

impl Loaded {
    /// Who stands in the row, and behind them who would come next.
    pub(super) fn line(&self, limit: usize) -> impl Iterator<Item = &Placed> {
        self.shelf.placed().iter().chain(self.shelf.behind()).take(limit)
    }

    /// Why a title stands where it does, or what it lacks.
    pub(super) fn why(&self, video: &str) -> Why {
        let now = self.last.map_or(EventTime(0), |last| self.length.end(last));
        let choice = Choice { options: &self.form, rules: &self.rules, catalogue: &self.catalogue, now };
        why::why(&self.trends, &self.shelf, self.row, &self.segment, video, &choice)
    }
}

impl Of {
    /// The segment of a data directory.
    pub(super) fn new(data: &Path, segment: &str, configured: &Configured) -> Self {
        let (data, segment, configured) = (data.to_owned(), segment.to_owned(), configured.clone());
        Self { data, segment, catalogue: None, configured }
    }

    /// Reads the tallies of the segment, and of those it leans on, epoch by epoch.
    pub(super) fn load(&self, row: RowName) -> Result<Loaded, CommandError> {
        let config = self.configured.load()?;
        let source = open(&self.data, &self.configured)?;
        let source = &*source;
        let segment = stored_segment(source, &self.segment)?;
        let length = epoch_length(source)?;
        let catalogue = self.catalogue(&config)?;
        let rows = tallies(source, &segment)?;
        let last = rows.iter().map(|row| row.epoch).max();
        let mut trends = Trends::new(Options::for_rows(&rows, length, config.open_epochs(length)));
        let mut shelf = Shelf::default();
        let form = config.serve.rows.clone();
        let rules = self.rules(&config)?;
        let end = |epoch| length.end(epoch);
        trends.replay(&rows, end, |trends, epoch| {
            // A day is more than a row remembers.
            if last.is_some_and(|last| last.0 - epoch.0 < a_day(length)) {
                let choice = Choice { options: &form, rules: &rules, catalogue: &catalogue, now: end(epoch) };
                shelf.update(row, &segment, candidates(trends, row, &segment), &choice);
            }
        });
        Ok(Loaded { trends, shelf, segment, row, form, rules, catalogue, length, last })
    }

    /// People's rules, where there is a log that may hold some.
    fn rules(&self, config: &Config) -> Result<Rules, CommandError> {
        if !may_have_log(&self.data, config)? {
            return Ok(Rules::default());
        }
        Ok(rules_of(&*existing_log(&self.data, config)?)?)
    }

    fn catalogue(&self, config: &Config) -> Result<Catalogue, CommandError> {
        let Some(path) = self.catalogue.as_ref().or(config.catalogue.as_ref()) else {
            return Ok(Catalogue::default());
        };
        let mut catalogue = crate::catalogue::read(path).map_err(CommandError::Usage)?;
        catalogue.strict = config.hides_unknown_titles;
        Ok(catalogue)
    }
}

/// All rows of `segment` and of the segments it leans on.
pub(super) fn tallies(source: &dyn Table, segment: &str) -> Result<Vec<TallyRow>, CommandError> {
    Ok(read_lineage(source, segment)?.map(|read| read.rows).unwrap_or_default())
}

impl Rows {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let loaded = self.of.load(self.row.name())?;
        let mut out = std::io::stdout().lock();
        // Of a title that a person pinned there may be no tally.
        let titles = loaded
            .line(self.limit as usize)
            .zip(1..)
            .map(|(placed, place)| (place, placed, loaded.trends.numbers(&placed.video, &loaded.segment)));
        if self.format == Format::Json {
            for (place, placed, n) in titles {
                let of = |number: fn(&Numbers) -> f64| n.as_ref().map(number);
                let line = json!({
                    "place": place, "video_id": placed.video, "row": self.row.name(), "score": placed.score,
                    "pinned": placed.pinned, "segment": loaded.segment, "plays": of(|n| n.plays),
                    "rate": of(|n| n.estimate.rate), "rate_sd": of(|n| n.estimate.sd), "lift": of(|n| n.lift),
                    "lift_lower": of(|n| n.lift_lower), "rising": n.as_ref().map(|n| n.rising),
                    "ln_evidence": of(|n| n.ln_evidence),
                    "title": loaded.catalogue.get(&placed.video).map(|title| &title.title),
                });
                writeln!(out, "{line}")?;
            }
            return Ok(());
        }
        let cells: Vec<Vec<String>> = titles
            .map(|(place, placed, n)| {
                let title = loaded.catalogue.get(&placed.video).map(|title| &*title.title);
                let of = |text: &dyn Fn(&Numbers) -> String| n.as_ref().map_or_else(|| "–".to_owned(), text);
                vec![
                    format!("{place:>3}  {}", title.unwrap_or(&placed.video)),
                    of(&|n| grouped(n.plays.round() as u64)),
                    of(&|n| format!("{:.1} % ± {:.1}", 100.0 * n.estimate.rate, 100.0 * n.estimate.sd)),
                    of(&|n| format!("{:.2}", n.lift)),
                    of(&|n| format!("{:.2}", n.lift_lower)),
                ]
            })
            .collect();
        let who = if loaded.segment.is_empty() { "everyone" } else { &loaded.segment };
        match loaded.last {
            Some(epoch) => writeln!(
                out,
                "{} for {who}, as of {} UTC",
                self.row.name().as_str(),
                when(loaded.length.end(epoch))
            )?,
            None => writeln!(out, "no tallies in that segment")?,
        }
        if cells.is_empty() && loaded.last.is_some() {
            writeln!(out, "no title qualifies; `uptake why-not VIDEO` says what one lacks")?;
            return Ok(());
        }
        write!(out, "{}", table(&["     title", "plays", "rate", "lift", "at least"], &cells))?;
        Ok(())
    }
}
