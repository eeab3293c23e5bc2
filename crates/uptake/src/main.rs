//! The `uptake` command.

use std::process::ExitCode;

use clap::Parser;
use uptake::commands::Cli;

// Request state is many small blocks that grow: this allocator wastes least on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What went wrong and why, as far as one does not say the other already.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.contains(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}

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
            uptake::outputs::notice(&with_causes(&error));
            error.exit_code()
        }
    }
}
