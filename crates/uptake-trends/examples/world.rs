//! Prints how near each way to choose a row comes to the oracle, in the simulated world.
//!
//!     cargo run --release -p uptake-trends --example world -- [SEEDS] [DAYS]

#[path = "../tests/world/mod.rs"]
mod world;

use uptake_trends::{Options, RowOptions};
use world::{Chooser, World, live};

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let (seeds, days) = (args.next().unwrap_or(3u64), args.next().unwrap_or(6u64));
    for burst_days in [60.0, 10.0] {
        println!("\na title bursts every {burst_days} days, {seeds} seeds, {days} days");
        table(burst_days, seeds, days);
    }
}

fn table(burst_days: f64, seeds: u64, days: u64) {
    println!("{:>10}  {:<9} {:>6} {:>6}  rises that were none", "per epoch", "row", "share", "churn");
    for crowd in [200_000.0, 20_000.0] {
        for chooser in [
            Chooser::Loved,
            Chooser::Trending,
            Chooser::Plays,
            Chooser::Growth,
            Chooser::RawRate,
            Chooser::Wilson,
        ] {
            let (mut share, mut churn, mut none, mut rises) = (0.0, 0.0, 0, 0);
            for seed in 1..=seeds {
                let world = World::new(seed, days as i64 * 48, burst_days);
                let row = RowOptions::default();
                let outcome = live(&world, chooser, crowd, 48, seed + 1000, Options::default(), &row);
                share += outcome.share / seeds as f64;
                churn += outcome.churn / seeds as f64;
                none += outcome.false_rises;
                rises += outcome.rises;
            }
            let of = if rises > 0 { format!("{none} of {rises}") } else { String::new() };
            println!("{crowd:>10}  {:<9} {share:>6.3} {churn:>6.3}  {of}", format!("{chooser:?}"));
        }
    }
}
