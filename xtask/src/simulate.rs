//! `cargo xtask simulate`: as many simulated worlds as one likes, each from a seed.

use clap::Args;

use crate::error::Result;
use crate::process;

/// Run the pipeline through simulated worlds of crashes and failures, each decided by a seed
#[derive(Args, Debug)]
pub(crate) struct Simulate {
    /// How many seeds to try
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// The first seed; one that failed is run again with its number and --seeds 1
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Build with all optimisations first: worth it from some ten thousand seeds on
    #[arg(long)]
    release: bool,
    /// Print every turn and every call, to find out what went wrong
    #[arg(long)]
    trace: bool,
}

impl Simulate {
    pub(crate) fn run(self) -> Result<()> {
        let mut command = process::cargo();
        command.args(["test", "--locked", "--package", "uptake", "--test", "simulation"]);
        if self.release {
            command.arg("--release");
        }
        command.args(["--", "--exact", "seeds_come_to_the_contract"]);
        if self.trace {
            command.env("UPTAKE_SIMULATE_TRACE", "1").arg("--nocapture");
        }
        command.env("UPTAKE_SIMULATE_SEEDS", self.seeds.to_string());
        command.env("UPTAKE_SIMULATE_FROM", self.from.to_string());
        println!("{}", process::typed(&command));
        process::run(&mut command, "")
    }
}
