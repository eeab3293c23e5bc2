//! Prints how near each way to choose a row comes to the oracle, in the simulated world.
//!
//!     cargo run --release -p uptake-trends --example world -- [SEEDS] [DAYS] [FIRST SEED]

#[path = "../tests/world/mod.rs"]
mod world;

use uptake_trends::{Options, RowOptions};
use world::{Chooser, World, live};

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let (seeds, days) = (args.next().unwrap_or(3u64), args.next().unwrap_or(6u64));
    let first = args.next().unwrap_or(1);
    for burst_days in [60.0, 10.0] {
        println!("\na title bursts every {burst_days} days, {seeds} seeds, {days} days");
        table(burst_days, (first, seeds), days);
    }
}

fn table(burst_days: f64, (first, seeds): (u64, u64), days: u64) {
    println!(
        "{:>10}  {:<9} {:>5} {:>6} {:>6}  rises that were none",
        "per epoch", "row", "drawn", "share", "churn"
    );
    for crowd in [200_000.0, 20_000.0] {
        for (chooser, drawn) in [
            (Chooser::Loved, 0),
            (Chooser::Loved, 1),
            (Chooser::Loved, 2),
            (Chooser::Trending, 0),
            (Chooser::Plays, 0),
            (Chooser::Growth, 0),
            (Chooser::RawRate, 0),
            (Chooser::Wilson, 0),
        ] {
            let (mut share, mut churn, mut none, mut rises) = (0.0, 0.0, 0, 0);
            for seed in first..first + seeds {
                let world = World::new(seed, days as i64 * 48, burst_days);
                let row = RowOptions::default();
                let outcome =
                    live(&world, chooser, crowd, 48, seed + 1000, Options::default(), (&row, drawn));
                share += outcome.share / seeds as f64;
                churn += outcome.churn / seeds as f64;
                none += outcome.false_rises;
                rises += outcome.rises;
            }
            let of = if rises > 0 { format!("{none} of {rises}") } else { String::new() };
            println!("{crowd:>10}  {:<9} {drawn:>5} {share:>6.3} {churn:>6.3}  {of}", format!("{chooser:?}"));
        }
    }
}
