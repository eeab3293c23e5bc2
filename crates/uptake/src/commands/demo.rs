//! `uptake demo`.

use clap::Args;

use super::CommandError;

/// Count a generated (or given) stream of events before your eyes.
#[derive(Args, Debug)]
pub(super) struct Demo {}

impl Demo {
    pub(super) fn run(self) -> Result<(), CommandError> {
        Ok(())
    }
}
