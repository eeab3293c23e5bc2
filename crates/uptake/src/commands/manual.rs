//! `uptake completions` and `uptake man`: what a shell and `man` know of the command line.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, CommandError, cannot};

/// Print what a shell needs to complete commands and options
///
/// For bash: uptake completions bash > ~/.local/share/bash-completion/completions/uptake
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), CommandError> {
        let mut text = Vec::new();
        generate(self.shell, &mut Cli::command(), "uptake", &mut text);
        Ok(std::io::stdout().lock().write_all(&text)?)
    }
}

/// Print the manual page, or write one for each command
#[derive(Args, Debug)]
pub(super) struct Man {
    /// Write uptake.1 and a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), CommandError> {
        match &self.to {
            None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout().lock())?,
            Some(folder) => {
                let written = std::fs::create_dir_all(folder)
                    .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
                written.map_err(cannot("write to", folder.display()))?;
            }
        }
        Ok(())
    }
}
