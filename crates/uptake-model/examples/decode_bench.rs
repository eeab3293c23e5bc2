//! How long decoding takes per event: reads a file of NDJSON into memory, decodes it ten times and
//! prints the fastest and the median pass in nanoseconds per event.
//!
//! usage: `cargo run --release -p uptake-model --example decode_bench FILE [DIMENSION...]`
//!
//! With dimensions, a segment of all of them is kept, too. `UPTAKE_DECODE=slow` turns the learned
//! layouts off.

use std::time::Instant;

use uptake_model::decode::{DecodeConfig, Decoder, Members, Sink};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{DimsHash, Epoch, EpochLength, Event, EventTime, Reason, VideoHash};

/// Bytes per call, as a source reads them.
const BLOCK_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Count {
    events: u64,
    dead: u64,
    filtered: u64,
    announced: u64,
    sum: u64,
}

impl Sink for Count {
    fn event(&mut self, event: Event) {
        self.events += 1;
        // Every part of the event is used, so that none of the work can be left out.
        let ids = event.request.0 ^ event.video.0 ^ event.member.0 ^ event.dims.0;
        self.sum = self.sum.wrapping_add(ids ^ event.time.0 as u64 ^ event.kind as u64);
    }
    fn dead(&mut self, _: usize, _: Reason, _: &[u8]) {
        self.dead += 1;
    }
    fn filtered(&mut self, _: usize) {
        self.filtered += 1;
    }
    fn blank(&mut self) {}
    fn video(&mut self, _: VideoHash, _: &str, _: Epoch) {
        self.announced += 1;
    }
    fn dims(&mut self, _: DimsHash, _: &[&str], _: Epoch) {
        self.announced += 1;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: decode_bench FILE [DIMENSION...]")?;
    let bytes = std::fs::read(path)?;
    let dimensions: Vec<String> = args.collect();
    let segments = Segments::new(if dimensions.is_empty() { vec![vec![]] } else { vec![vec![], dimensions] })
        .map_err(|mistakes| mistakes.join("; "))?;
    let mut blocks = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let cut = memchr::memchr(b'\n', rest.get(BLOCK_BYTES..).unwrap_or_default());
        let (block, after) = rest.split_at(cut.map_or(rest.len(), |cut| BLOCK_BYTES + cut + 1));
        blocks.push(block);
        rest = after;
    }
    let mut times = Vec::new();
    let mut count = Count::default();
    for _ in 0..10 {
        let mut decoder = Decoder::new(
            DecodeConfig::default().into(),
            &segments,
            &Filters::default(),
            EpochLength::default(),
            Members::None,
        );
        if std::env::var("UPTAKE_DECODE").is_ok_and(|how| how == "slow") {
            decoder = decoder.without_learning();
        }
        count = Count::default();
        let start = Instant::now();
        for block in &blocks {
            decoder.decode_block(block, EventTime::LATEST, 0, &mut count);
        }
        let outcomes = count.events + count.dead + count.filtered;
        times.push(start.elapsed().as_nanos() as f64 / outcomes as f64);
    }
    times.sort_by(f64::total_cmp);
    let outcomes = count.events + count.dead + count.filtered;
    println!(
        "{} events, {} dead, {} filtered, {} names announced, sum {:016x}; {:.0} bytes per event",
        count.events,
        count.dead,
        count.filtered,
        count.announced,
        count.sum,
        bytes.len() as f64 / outcomes as f64
    );
    println!("ns per event: min {:.1}, median {:.1}", times[0], f64::midpoint(times[4], times[5]));
    Ok(())
}
