//! `uptake demo`: the closed loop in one command.
//!
//! A crowd visits a real deployment on this machine: the collector and the API in this process, the pipeline in
//! one of its own, which may be killed. Time runs faster, by a clock that the server and the crowd share. A page
//! shows the rows, and what happens and why.

mod clock;
mod control;
mod deployment;
mod others;
mod pipeline;
mod story;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use uptake_sim::Moment;

use super::place::Place;
use super::simulate::{moment, positive};
use super::{CommandError, Configured, cannot};
use crate::outputs::notice;
use clock::WorldClock;
use control::{Shared, Told};
use deployment::Deployment;

/// See it all at once: a crowd, the rows it is shown, and the rows following what it plays
///
/// Prints an address for the browser. The titles and the interest in them are real, of February and March 2012:
/// an awards night, a premiere, a robot. Time runs faster, and can be paused, and jumped through; the page can
/// kill the pipeline, lock the table and make the devices lie. At the end every tally is compared with what the
/// crowd knows of itself.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Where to keep everything [default: nowhere, it is removed]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the page is, on this machine; port 0 for any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", value_parser = loopback)]
    listen: SocketAddr,
    /// How many times faster than ours the crowd's time runs
    #[arg(long, value_name = "N", default_value_t = 300.0, value_parser = positive)]
    speed: f64,
    /// Visits a second of ours; evenings are livelier
    #[arg(long, value_name = "N", default_value_t = 250.0, value_parser = positive)]
    visits_per_second: f64,
    /// Where to begin: quiet, awards, premiere, robot, release, or a time as 2012-02-27T03:00
    #[arg(long, value_name = "NAME|TIME", default_value = "awards", value_parser = moment)]
    moment: Moment,
    /// Another number is another crowd
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// When to end, as 30s or 5min [default: when told to]
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    length: Option<Duration>,
    /// Print the report at the end as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// An address of this machine: who reaches the page may kill the pipeline.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err("the demo can be reached from this machine alone, as 127.0.0.1:8080".to_owned()),
        Err(_) => Err("not of the form 127.0.0.1:8080".to_owned()),
    }
}

impl Demo {
    pub(super) fn run(mut self) -> Result<(), CommandError> {
        // What is wrong with the settings, or with the address, is told before anything is made.
        self.configured.load()?;
        let taken = |error| {
            CommandError::Usage(format!("--listen {}: {error}; name another port, or 0", self.listen))
        };
        let listener = TcpListener::bind(self.listen).map_err(taken)?;
        self.listen = listener.local_addr()?;
        let place = Place::new(self.data.as_deref(), "uptake-demo-")?;
        std::fs::create_dir_all(place.path()).map_err(cannot("make", place.path().display()))?;

        let (sender, told) = channel();
        let stopping = sender.clone();
        let (mut signals, own) = (0, place.own().map(Path::to_owned));
        ctrlc::set_handler(move || {
            signals += 1;
            if signals > 1 {
                own.iter().for_each(|path| drop(std::fs::remove_dir_all(path)));
                std::process::exit(130);
            }
            // Nobody listens any more where it ends anyway.
            let _ = stopping.send(Told::Stop);
        })
        .map_err(|error| CommandError::Other(error.into()))?;

        let clock = Arc::new(WorldClock::new(self.moment.at_ms, self.speed));
        let shared = Shared::new(clock, sender);
        let mut current = Some(self.begin(&shared, &listener, place.path(), 0, self.moment.clone(), None)?);
        println!("\nOpen http://{}/demo in a browser. Ctrl-C ends, and compares.\n", self.listen);
        let begun = Instant::now();
        let mut jumps = 0;
        loop {
            let left = self.length.map(|length| length.saturating_sub(begun.elapsed()));
            match told.recv_timeout(left.unwrap_or(Duration::from_secs(3_600))) {
                Ok(Told::Jump(to)) => {
                    jumps += 1;
                    current =
                        Some(self.begin(&shared, &listener, place.path(), jumps, to, current.take())?);
                }
                Err(RecvTimeoutError::Timeout) if self.length.is_none() => {}
                Ok(Told::Stop) | Err(_) => break,
            }
        }
        let Some(current) = current else { return Ok(()) };
        let (report, ledger) = current.end(&shared)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let json = serde_json::json!({ "report": report, "ledger": ledger.1, "rises": shared.rises() });
            writeln!(out, "{json}")?;
        } else {
            writeln!(out, "\n{}\n{report}\n\n{}", shared.rises_text(), ledger.0)?;
        }
        out.flush()?;
        match report.is_right() {
            true => Ok(()),
            false => Err(super::show::defect(
                "tallies differ from what the crowd knows of itself and the log has of others, or events were lost",
            )),
        }
    }

    /// Prepares a deployment that has counted what came before a moment, and begins there; ends the one before.
    fn begin(
        &self,
        shared: &Arc<Shared>,
        listener: &TcpListener,
        folder: &Path,
        number: u32,
        moment: Moment,
        before: Option<Deployment>,
    ) -> Result<Deployment, CommandError> {
        shared.preparing(Some(moment.clone()));
        notice(&format!("preparing {}: what was watched before is counted", moment.what));
        let folder = folder.join(format!("{number}-{}", moment.name));
        let prepared = Deployment::prepare(self, &folder, moment, shared)?;
        if let Some(before) = before {
            before.abandon(shared)?;
        }
        let deployment = prepared.start(listener, shared)?;
        shared.preparing(None);
        Ok(deployment)
    }
}
