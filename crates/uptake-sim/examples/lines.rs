//! Prints the lines of the simulated audience, to be read by any program:
//! `cargo run --release -p uptake-sim --example lines -- 1000000 7 > events.jsonl`
//! (how many, and the seed).

use std::io::Write;

use uptake_sim::{Audience, Options};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (mut left, seed) = (next(100_000) as usize, next(1));
    let mut audience = Audience::new(Options { seed, requests_per_second: 20.0, ..Options::default() });
    let mut out = std::io::stdout().lock();
    let mut lines = Vec::new();
    while left > 0 {
        left -= audience.fill(i64::MAX, left.min(1_000), &mut lines);
        out.write_all(&lines)?;
        lines.clear();
    }
    Ok(())
}
