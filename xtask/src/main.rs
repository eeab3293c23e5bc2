//! The project's own chores: `cargo xtask test` says whether a change may land,
//! `cargo xtask bench` what it costs, and `cargo xtask simulate` whether it survives everything.
//!
//! They run the same programs a person would run by hand, print what they run, and need nothing
//! but the Rust toolchain, Python 3 and the package registries; tests with real servers also Java
//! 17, Maven and Go.

mod bench;
mod book;
mod deploy;
mod error;
mod install;
mod instructions;
mod interop;
mod moving;
mod packages;
mod process;
mod rules;
mod services;
mod simulate;
mod test;
mod totals;
mod web;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand, Debug)]
enum Chore {
    /// Check everything that must hold before a change lands, quick checks first
    Test(test::Test),
    /// Measure uptake against the hand-written loop, side by side
    Bench(bench::Bench),
    /// Run the pipeline through simulated worlds of crashes and failures, each decided by a seed
    Simulate(simulate::Simulate),
    // Its long help stands with its arguments.
    Book(book::Book),
    /// Start, stop and show a real Kafka, Cassandra and S3 server for tests
    Services(services::Services),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Test(test) => test.run(),
        Chore::Bench(bench) => bench.run(),
        Chore::Simulate(simulate) => simulate.run(),
        Chore::Book(book) => book.run(),
        Chore::Services(services) => services.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // It was said where it happened, so that the totals come last.
        Err(error::Error::Said) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {}", error.with_causes());
            ExitCode::FAILURE
        }
    }
}
