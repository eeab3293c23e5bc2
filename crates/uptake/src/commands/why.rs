//! `uptake why` and `why-not`: a title's numbers, and what it lacks.

use std::io::Write;

use clap::Args;
use uptake_trends::rows::Lacks;

use super::CommandError;
use super::rows::{Of, Row};

/// Say why a title stands in a row, or what it lacks to.
#[derive(Args, Debug)]
pub(super) struct Why {
    /// The title's video id
    #[arg(value_name = "VIDEO")]
    video: String,
    #[command(flatten)]
    of: Of,
    /// Which row
    #[arg(long, value_enum, default_value_t = Row::Trending)]
    row: Row,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let loaded = self.of.load(self.row.name())?;
        let answer = loaded.why(&self.video);
        if answer.lacks == Some(Lacks::Unseen) {
            let what = format!("{}: there is no tally of it in that segment", self.video);
            return Err(CommandError::Usage(what));
        }
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(
                out,
                "{}",
                serde_json::to_string(&answer).map_err(|e| CommandError::Other(e.into()))?
            )?,
            false => writeln!(out, "{answer}")?,
        }
        Ok(())
    }
}
