//! How evenly a cluster's work would be spread, by the very hashes that spread it. Prints a table for docs/scale.md.
//!
//!     cargo run --release -p uptake --example skew
//!
//! Requests go to workers by their id, tallies by their video. Videos are shown as Zipf has it: the one at rank k 1/k as
//! often as the first.

use std::collections::BTreeMap;

use uptake_flow::shard;
use uptake_model::{RequestId, VideoHash};
use uptake_sim::Rng;

const REQUESTS: usize = 4_000_000;
const VIDEOS: usize = 100_000;
const WORKERS: [usize; 8] = [2, 4, 8, 16, 32, 64, 128, 256];

/// The work of the busiest worker over the mean.
fn busiest(loads: &[f64]) -> f64 {
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    loads.iter().copied().fold(0.0, f64::max) / mean
}

fn main() {
    let mut random = Rng::new(7);
    let requests: Vec<u32> = (0..REQUESTS).map(|_| shard(&RequestId(random.next_u64()))).collect();
    let videos: Vec<u32> =
        (1..=VIDEOS).map(|rank| shard(&VideoHash::from_text(format!("v{rank}").as_bytes()))).collect();
    let all: f64 = (1..=VIDEOS).map(|rank| 1.0 / rank as f64).sum();
    println!("the first of {VIDEOS} videos has {:.1} % of the impressions", 100.0 / all);
    println!(
        "| workers | requests, busiest ÷ mean | tallies | tallies, one video with 30 % | both, tallies being a quarter |"
    );
    println!("|---|---|---|---|---|");
    for workers in WORKERS {
        let spread = |weights: &mut dyn Iterator<Item = (u32, f64)>| {
            let mut loads = vec![0.0; workers];
            weights.for_each(|(shard, weight)| loads[shard as usize % workers] += weight);
            loads
        };
        let of_requests = spread(&mut requests.iter().map(|shard| (*shard, 1.0)));
        let zipf = |rank: usize| 1.0 / (rank + 1) as f64 / all;
        let of_videos = spread(&mut videos.iter().enumerate().map(|(rank, shard)| (*shard, zipf(rank))));
        let hot = |rank: usize| 0.7 * zipf(rank) + if rank == 0 { 0.3 } else { 0.0 };
        let of_hot = spread(&mut videos.iter().enumerate().map(|(rank, shard)| (*shard, hot(rank))));
        let both: Vec<f64> = of_requests
            .iter()
            .zip(&of_videos)
            .map(|(requests, videos)| 0.75 * requests / REQUESTS as f64 + 0.25 * videos)
            .collect();
        println!(
            "| {workers} | {:.2} | {:.2} | {:.2} | {:.2} |",
            busiest(&of_requests),
            busiest(&of_videos),
            busiest(&of_hot),
            busiest(&both)
        );
    }
    let mut by_shard: BTreeMap<u32, usize> = BTreeMap::new();
    requests.iter().for_each(|shard| *by_shard.entry(*shard).or_default() += 1);
    println!("{} of 256 shards have requests", by_shard.len());
}
