//! `uptake export`: what the tallies are made of, and what is in none, as Parquet for others.

mod joined;
mod topics;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use uptake_connectors::objects::{self, Objects, PutObject};
use uptake_connectors::sheet::{Column, Values, to_parquet};
use uptake_connectors::url::{Backend, Content};

use super::text::{grouped, table};
use super::{CommandError, Configured};
use crate::config::Config;
use crate::data_dir::DataDirError;

#[derive(Subcommand, Debug)]
pub(super) enum Export {
    // Its long help stands with its arguments.
    Joined(joined::Joined),
    /// Write what came too late since the export before, as Parquet
    Late(topics::Topic),
    /// Write what could not be used since the export before, as Parquet
    DeadLetters(topics::Topic),
    /// Write which rows were served since the export before, as Parquet: a row for each place
    ServedRows(topics::Topic),
}

impl Export {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self {
            Self::Joined(joined) => joined.run(),
            Self::Late(topic) => topic.run(&topics::LATE_EVENTS),
            Self::DeadLetters(topic) => topic.run(&topics::LETTERS),
            Self::ServedRows(topic) => topic.run(&topics::SERVED),
        }
    }
}

/// Where an export goes, and how it is told.
#[derive(Args, Debug)]
struct To {
    /// Where the files go: a directory, or a URL as s3://bucket/prefix
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// Print the result as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

fn column<'a>(name: &'a str, values: Values<'a>) -> Column<'a> {
    Column { name, values }
}

/// An export under way.
struct Files {
    objects: Box<dyn Objects>,
    /// Files that were written.
    written: u64,
    /// Files that were there already, with the same bytes.
    same: u64,
    /// Files that are there with other bytes, which stay.
    other: Vec<String>,
    rows: u64,
    replaces: bool,
}

impl Files {
    /// Those in `folder` where the export goes.
    fn open(to: &str, folder: &str, config: &Config, replaces: bool) -> Result<Self, CommandError> {
        // A directory is no URL; what looks like one is.
        let backend = match to.split_once(':') {
            Some((scheme, _)) if scheme.len() > 1 && !scheme.contains(['/', '\\', '.']) => {
                Backend::parse_for(to, Content::Archive)
            }
            _ => Ok(Backend::File(PathBuf::from(to))),
        };
        let backend = backend.map_err(|error| CommandError::Usage(format!("--to: {error}")))?;
        if backend == Backend::Memory {
            return Err(CommandError::Usage("--to memory: would be gone at once; name a directory".into()));
        }
        let objects = objects::open(&backend, folder, &config.places.s3).map_err(DataDirError::from)?;
        Ok(Self { objects, written: 0, same: 0, other: Vec::new(), rows: 0, replaces })
    }

    /// Writes the columns as a file, unless there is one of that name.
    fn put(&mut self, name: &str, columns: &[Column<'_>], rows: usize) -> Result<(), CommandError> {
        let bytes = to_parquet(columns).map_err(|error| CommandError::Other(error.into()))?;
        let put = |objects: &dyn Objects| objects.put_if_absent(name, &bytes).map_err(DataDirError::from);
        self.rows += rows as u64;
        if put(&*self.objects)? == PutObject::Created {
            self.written += 1;
            return Ok(());
        }
        if self.objects.get(name).map_err(DataDirError::from)?.is_some_and(|there| there == bytes) {
            self.same += 1;
        } else if self.replaces {
            self.objects.delete(name).map_err(DataDirError::from)?;
            put(&*self.objects)?;
            self.written += 1;
        } else {
            self.other.push(name.to_owned());
        }
        Ok(())
    }

    /// Tells what was done; what the files `otherwise` are that are there with other rows; `more` beside that.
    fn tell(&self, to: &To, otherwise: &str, more: &[(&str, serde_json::Value)]) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        if to.json {
            let mut told = serde_json::json!({
                "rows": self.rows, "written": self.written, "same": self.same, "other": self.other,
            });
            more.iter().for_each(|(key, value)| told[*key] = value.clone());
            writeln!(out, "{told}")?;
            return Ok(out.flush()?);
        }
        let number = |n: u64| grouped(n);
        let row = vec![
            to.to.clone(),
            number(self.rows),
            number(self.written),
            number(self.same),
            number(self.other.len() as u64),
        ];
        write!(out, "{}", table(&["to", "rows", "written", "there already", "there otherwise"], &[row]))?;
        if let Some(first) = self.other.first() {
            writeln!(
                out,
                "\n{} files are there with other rows and stay as they are, the first of them {first}; they {otherwise}",
                grouped(self.other.len() as u64)
            )?;
        }
        Ok(out.flush()?)
    }
}
