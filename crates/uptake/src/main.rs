//! The `uptake` command.

use std::process::ExitCode;

use clap::Parser;
use uptake::commands::Cli;

// Request state is many small blocks that grow: this allocator wastes least on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uptake: {error}");
            error.exit_code()
        }
    }
}
