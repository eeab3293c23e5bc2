//! The `uptake` command.

use std::process::ExitCode;

use clap::Parser;
use uptake::commands::Cli;
use uptake::outputs::{notice, with_causes};

// Request state is many small blocks that grow: this allocator wastes least on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For tests: the process ends at the n-th step that changes something durable.
const CRASH_AT: &str = "UPTAKE_CRASH_AT";

fn main() -> ExitCode {
    if let Some(n) = std::env::var(CRASH_AT).ok().and_then(|n| n.parse().ok()) {
        uptake_connectors::faults::arm(n);
    }
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            notice(&with_causes(&error));
            error.exit_code()
        }
    }
}
