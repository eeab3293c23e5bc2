//! `uptake eval`: would another scorer have done better?

mod html;
mod log;
mod served;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use uptake_trends::Options;
use uptake_trends::eval::offpolicy::{Report, Value, evaluate};
use uptake_trends::eval::progressive::{Ranking, Score, progressive};

use super::rows::tallies;
use super::tallies::{open, stored_segment};
use super::text::table;
use super::{CommandError, Configured};
use crate::data_dir::epoch_length;

/// Judge a scorer by a log of what was served, or by what came next.
///
/// FILE is a log of slots, one JSON object a line: reward (1 for a play), behaviour (the probability
/// with which what was shown was shown), target (that of the judged policy for the same), and if there
/// is a model, predicted and predicted_target. Estimates by replay, IPS, SNIPS, the direct method and
/// doubly robust, with intervals and the effective sample size. A CSV with the same columns does too.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Eval {
    #[command(subcommand)]
    how: Option<How>,
    /// The log of slots
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// No weight counts more than this [default: no bound]
    #[arg(long, value_parser = positive)]
    clip: Option<f64>,
    /// The confidence of the intervals
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
    #[command(flatten)]
    to: To,
}

/// A number above nothing.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "it must be a number above 0".to_owned())
}

#[derive(Subcommand, Debug)]
enum How {
    /// Rank at the end of each epoch with the past only, and score on the next one. Tallies are as they are today:
    /// what came late to an epoch, up to the horizon after it, is in it already when it is ranked
    Progressive(Progressive),
    // Its help stands with its arguments.
    Served(served::Served),
}

#[derive(Args, Debug)]
struct Progressive {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The segment, as country=BR,device=tv [default: everyone]
    #[arg(long, default_value = "", hide_default_value = true)]
    segment: String,
    /// How many places a row has
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    places: u32,
    /// How many epochs are not scored at the beginning
    #[arg(long, default_value_t = 8)]
    warm_up: usize,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    configured: Configured,
}

/// Where the report goes.
#[derive(Args, Debug)]
struct To {
    /// As one JSON object
    #[arg(long)]
    json: bool,
    /// Also as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Eval {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.how {
            Some(How::Progressive(progressive)) => return progressive.run(),
            Some(How::Served(served)) => return served.run(),
            None => {}
        }
        let path = self.file.unwrap_or_default();
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(CommandError::Usage("--confidence must be between 0 and 1".into()));
        }
        let samples = log::read(&path)?;
        let report = evaluate(&samples, self.clip.unwrap_or(f64::INFINITY), self.confidence)
            .ok_or_else(|| CommandError::Usage(format!("{}: no slots", path.display())))?;
        let bars: Vec<html::Bar> = named(&report)
            .into_iter()
            .map(|(name, v)| html::Bar { name: name.into(), value: v.value, low: v.low, high: v.high })
            .collect();
        let note = format!(
            "{} slots, effective sample size {:.1}, largest weight {:.1}; {:.0} % intervals.",
            report.samples,
            report.effective,
            report.weight_max,
            100.0 * self.confidence
        );
        self.to.html("Reward per slot", &note, &bars)?;
        let mut out = std::io::stdout().lock();
        if self.to.json {
            writeln!(out, "{}", json!(report))?;
            return Ok(());
        }
        writeln!(out, "{note}")?;
        let cells: Vec<Vec<String>> = named(&report)
            .into_iter()
            .map(|(name, v)| vec![name.to_owned(), rate(v.value), rate(v.error), rate(v.low), rate(v.high)])
            .collect();
        write!(out, "{}", table(&["estimate", "reward", "error", "from", "to"], &cells))?;
        Ok(())
    }
}

fn named(report: &Report) -> Vec<(&'static str, Value)> {
    let mut named = vec![("logged", report.logged)];
    named.extend(report.replay.map(|value| ("replay", value)));
    named.extend(report.ips.map(|value| ("IPS", value)));
    named.extend(report.snips.map(|value| ("SNIPS", value)));
    named.push(("DM", report.dm));
    named.extend(report.dr.map(|value| ("DR", value)));
    named
}

/// The name of a ranking, as in JSON.
fn name(ranking: Ranking) -> String {
    json!(ranking).as_str().unwrap_or_default().to_owned()
}

fn rate(x: f64) -> String {
    format!("{x:.6}")
}

impl To {
    fn html(&self, title: &str, note: &str, bars: &[html::Bar]) -> Result<(), CommandError> {
        let Some(path) = &self.html else { return Ok(()) };
        std::fs::write(path, html::page(title, note, bars))
            .map_err(|error| CommandError::Other(format!("cannot write {}: {error}", path.display()).into()))
    }
}

impl Progressive {
    fn run(self) -> Result<(), CommandError> {
        let source = open(&self.data, &self.configured)?;
        let segment = stored_segment(&*source, &self.segment)?;
        let rows = tallies(&*source, &segment)?;
        let (config, length) = (self.configured.load()?, epoch_length(&*source)?);
        let options = Options::for_rows(&rows, length, config.open_epochs(length));
        let scores: Vec<Score> = progressive(&rows, &segment, self.places as usize, self.warm_up, options);
        let bars: Vec<html::Bar> = scores
            .iter()
            .map(|score| html::Bar {
                name: name(score.ranking),
                value: score.next,
                low: score.next - 1.96 * score.error,
                high: score.next + 1.96 * score.error,
            })
            .collect();
        let note = "Ranked with the past only, scored on the next epoch: take rate, or plays where nothing is shown.";
        self.to.html("The next epoch", note, &bars)?;
        let mut out = std::io::stdout().lock();
        if self.to.json {
            writeln!(out, "{}", json!(scores))?;
            return Ok(());
        }
        if scores.is_empty() {
            writeln!(out, "too few epochs to score: more than {} are needed", self.warm_up + 1)?;
            return Ok(());
        }
        writeln!(out, "{note}")?;
        let cells: Vec<Vec<String>> = scores
            .iter()
            .map(|s| {
                vec![
                    name(s.ranking),
                    format!("{:.4}", s.next),
                    format!("{:.4}", s.error),
                    format!("{:.2}", s.seen),
                    format!("{:.2}", s.churn),
                    s.epochs.to_string(),
                ]
            })
            .collect();
        write!(out, "{}", table(&["ranking", "next", "error", "seen", "churn", "epochs"], &cells))?;
        Ok(())
    }
}
