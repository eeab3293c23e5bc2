//! `uptake simulate`: a crowd before any deployment, as load and as acceptance test.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use uptake_model::EventTime;
use uptake_model::join::JoinKind;
use uptake_sim::{Counting, Moment, Season, Trouble};

use super::text::grouped;
use super::{CommandError, Configured};
use crate::config::Config;
use crate::crowd::{Crowd, Options, Site, SiteError};
use crate::data_dir::now;
use crate::outputs::notice;

/// Where the key for sending events is read from.
const KEY: &str = "UPTAKE_WRITE_KEY";
/// At the end nothing was taken for as long: the rest is given up.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the tallies may take to be complete.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Visit a deployment as its audience would, and say whether it counted right and how fast
///
/// People fetch rows, look at them from the first place on, play, search; their devices report late, twice and with
/// wrong clocks. What they are interested in is that of four weeks of 2012. In the end every tally is compared
/// with what the crowd knows of itself, so nobody else should visit meanwhile. A write key is read from
/// UPTAKE_WRITE_KEY. Exit code 1 if a tally differs or an event was lost.
#[derive(Args, Debug)]
pub(super) struct Simulate {
    /// Where the deployment serves, as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", value_parser = site_url)]
    url: String,
    /// Visits a second
    #[arg(long, value_name = "N", default_value_t = 50.0, value_parser = positive)]
    visits_per_second: f64,
    /// How long they come
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = super::duration)]
    length: Duration,
    /// Another number is another crowd
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many hours of the season pass in one of ours
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = positive)]
    speed: f64,
    /// Where in the season to begin: quiet, awards, premiere, robot, release, or a time as 2012-02-27T03:00
    #[arg(long, value_name = "NAME|TIME", default_value = "awards", value_parser = moment)]
    moment: Moment,
    /// What else may be wrong; may be repeated
    #[arg(long, value_name = "WHAT")]
    trouble: Vec<Wrong>,
    /// Print the report as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// What else may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Wrong {
    /// Every device sends everything twice
    Twice,
    /// A quarter of the devices keep their reports for an hour, or to the end
    Held,
    /// Every clock is wrong by up to three days
    Clocks,
}

impl Wrong {
    pub(super) fn all(of: &[Self]) -> Trouble {
        Trouble {
            all_twice: of.contains(&Self::Twice),
            quarter_held: of.contains(&Self::Held),
            clocks_wrong: of.contains(&Self::Clocks),
        }
    }
}

/// The URL of a deployment, as it was given.
fn site_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err("not of the form http://HOST:PORT or https://HOST".to_owned()),
    }
}

/// A number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100_000.0 => Ok(n),
        _ => Err("not a number above 0, at most 100000".to_owned()),
    }
}

/// A moment of the season, by its name or as a time, as 2012-02-27T03:00 (UTC).
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Some(found) = Season::MOMENTS.into_iter().find(|moment| moment.name == text) {
        return Ok(found);
    }
    let at = text.parse::<jiff::Timestamp>().ok();
    let at = at.or_else(|| jiff::tz::TimeZone::UTC.to_timestamp(text.parse().ok()?).ok());
    let within = at.filter(|at| (Season::FROM_MS..Season::UNTIL_MS).contains(&at.as_millisecond()));
    let Some(at) = within else {
        let names: Vec<_> = Season::MOMENTS.into_iter().map(|moment| moment.name).collect();
        let (from, until) = (EventTime(Season::FROM_MS), EventTime(Season::UNTIL_MS));
        return Err(format!("there are {}, and every time from {from} to {until}", names.join(", ")));
    };
    let name = at.strftime("%Y-%m-%dT%H-%M").to_string().into();
    Ok(Moment { name, what: at.strftime("%-d %B, %H:%M").to_string().into(), at_ms: at.as_millisecond() })
}

/// What a deployment with this configuration counts.
pub(super) fn counting(config: &Config) -> Counting {
    Counting {
        horizon_ms: config.join.horizon_ms,
        epoch_ms: config.epoch.ms(),
        impressions_alone: config.join.kind == JoinKind::Left,
    }
}

pub(super) fn failed(error: &SiteError) -> CommandError {
    CommandError::Other(error.to_string().into())
}

impl Simulate {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        // The first signal ends the visits, the second one everything.
        ctrlc::set_handler(move || {
            if told.swap(true, Ordering::AcqRel) {
                std::process::exit(130);
            }
        })
        .map_err(|error| CommandError::Other(error.into()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.visit(&config, &stop))
    }

    async fn visit(&self, config: &Config, stop: &AtomicBool) -> Result<(), CommandError> {
        let site = Site::new(&self.url, std::env::var(KEY).ok()).map_err(|error| failed(&error))?;
        let row = site.row("popular", 1).await;
        let row = row.map_err(|error| CommandError::Usage(format!("--url {}: {error}", self.url)))?;
        // Events happen by the deployment's clock.
        let ahead = row.served_at - now().0;
        let (begun, from, speed) = (row.served_at, self.moment.at_ms, self.speed);
        let options = Options {
            seed: self.seed,
            visits_per_second: self.visits_per_second,
            speed,
            counting: counting(config),
            season_from: from,
            robot: self.moment.name == "robot",
        };
        let season = move |at: i64| from + ((at - begun) as f64 * speed) as i64;
        let crowd = Crowd::new(site, options, move || now().0 + ahead, season);
        crowd.set_trouble(Wrong::all(&self.trouble));
        let before = crowd.tallies().await.map_err(|error| failed(&error))?;
        let (started, mut said) = (Instant::now(), Instant::now());
        let running = tokio::spawn(Arc::clone(&crowd).run(PATIENCE));
        while started.elapsed() < self.length && !stop.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                let taken = crowd.counts.taken.load(Ordering::Relaxed);
                let left = self.length.saturating_sub(started.elapsed()).as_secs();
                notice(&format!("{} events taken, {left} s to go", grouped(taken)));
            }
        }
        crowd.close();
        notice("nobody comes any more; what is kept back is sent now, and the tallies are compared");
        running.await.map_err(|error| CommandError::Other(error.into()))?;
        let report =
            crowd.report(SETTLED_WITHIN, || Ok(before.clone())).await.map_err(|error| failed(&error))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let text = serde_json::to_string(&report).map_err(|error| CommandError::Other(error.into()))?;
            writeln!(out, "{text}")?;
        } else {
            writeln!(out, "{report}")?;
        }
        out.flush()?;
        match report.is_right() {
            true => Ok(()),
            false => {
                Err(CommandError::Other("the deployment lost events or counted otherwise; see above".into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_name_or_a_time_of_the_season() {
        assert_eq!(moment("awards"), Ok(Season::MOMENTS[1].clone()));
        for text in ["2012-02-27T03:00", "2012-02-27T03:00Z", "2012-02-27 04:00:00+01:00"] {
            let found = moment(text).unwrap_or_else(|what| panic!("{text}: {what}"));
            assert_eq!((found.at_ms, &*found.what), (1_330_311_600_000, "27 February, 03:00"), "{text}");
        }
        for text in ["", "tea", "2012-02-14T15:59", "2012-03-13T23:00", "2012-02-31T00:00", "03:00"] {
            assert!(moment(text).is_err_and(|what| what.contains("awards")), "{text}");
        }
    }
}
