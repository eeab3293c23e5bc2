//! `uptake migrate`: what must be there before a run, made by somebody who may.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Configured};
use crate::data_dir::DataDir;

/// Make the topics and tables that are missing where the URLs point, and say what is there
///
/// A run makes them too. This does it with the rights of another user, before the first run and
/// after an update, and finds out whether log, table, archive and checkpoints can be reached.
#[derive(Args, Debug)]
pub(super) struct Migrate {
    /// Where everything is that has no URL of its own
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    configured: Configured,
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let table = config.places.table.backend(&self.data);
        uptake_connectors::table::migrate(&table, &config.places.cassandra)?;
        let data = DataDir::open(&self.data, &config)?;
        data.notices.iter().for_each(|line| crate::outputs::notice(line));
        let places = &config.places;
        let mut out = std::io::stdout().lock();
        let topics = config
            .input_topics
            .iter()
            .map(|topic| Ok(format!("{topic} of {} partitions", data.log.partitions(topic)?)));
        let topics = topics.collect::<Result<Vec<_>, uptake_connectors::LogError>>()?.join(", ");
        writeln!(out, "log          {}: {topics}", places.log.backend(&self.data))?;
        let rows = if data.table.is_empty()? { "no rows yet" } else { "has rows" };
        writeln!(out, "table        {}: {rows}", places.table.backend(&self.data))?;
        let parts = data.archive.parts()?.len();
        writeln!(out, "archive      {}: {parts} objects", places.archive.backend(&self.data))?;
        let names = data.objects.list("").map_err(crate::data_dir::DataDirError::from)?.len();
        writeln!(out, "checkpoints  {}: {names} objects", places.checkpoints.backend(&self.data))?;
        Ok(out.flush()?)
    }
}
