//! Passes of a part and of its floor in turns, and what they took.

use std::hint::black_box;
use std::time::Instant;

/// Work that says something of what came out, so that none of it can be left out.
pub(crate) type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// What the arguments ask for.
pub(crate) struct Asked {
    /// The parts, in the order of the arguments; all without any.
    pub(crate) parts: Vec<String>,
    /// How many events, or rows, each works on.
    pub(crate) count: usize,
    /// How often each is measured. Without passes the work is done once, for whoever counts instructions.
    pub(crate) passes: usize,
    json: bool,
}

impl Asked {
    /// Reads `[PART...] [--events N] [--passes N] [--json]`.
    ///
    /// # Errors
    /// Something else is there; the text says what there is.
    pub(crate) fn read(known: &[&str], count: usize, passes: usize) -> Result<Self, String> {
        let mut asked = Self { parts: Vec::new(), count, passes, json: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number =
                || args.next().and_then(|n| n.parse().ok()).ok_or(format!("{arg} needs a number"));
            match arg.as_str() {
                "--events" => asked.count = number()?,
                "--passes" => asked.passes = number()?,
                "--json" => asked.json = true,
                part if known.contains(&part) => asked.parts.push(arg),
                _ => {
                    let known = known.join(", ");
                    return Err(format!("{arg}: there are {known}, --events, --passes and --json"));
                }
            }
        }
        if asked.parts.is_empty() {
            asked.parts = known.iter().map(|part| (*part).to_owned()).collect();
        }
        Ok(asked)
    }

    /// Measures a part beside its floor and prints nanoseconds for each of `unit`, the median of the
    /// passes, and the ratio to the floor, pass by pass.
    pub(crate) fn measure(&self, name: &str, unit: &str, (mut part, mut floor): (Work<'_>, Work<'_>)) {
        let nanoseconds = |work: &mut Work<'_>| {
            let started = Instant::now();
            measured(work);
            started.elapsed().as_nanos() as f64 / self.count as f64
        };
        if self.passes == 0 {
            nanoseconds(&mut part);
            return;
        }
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..self.passes {
            floors.push(nanoseconds(&mut floor));
            ours.push(nanoseconds(&mut part));
        }
        let ratios: Vec<f64> = ours.iter().zip(&floors).map(|(ours, floor)| ours / floor).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let (ns, floor_ns, ratio) = (median(&ours), median(&floors), median(&ratios));
        if self.json {
            println!(
                "{{\"part\":\"{name}\",\"unit\":\"{unit}\",\"count\":{},\"ns_each\":{ns:.2},\"floor_ns_each\":{floor_ns:.2},\
                 \"ratio\":{{\"median\":{ratio:.3},\"min\":{least:.3},\"max\":{most:.3}}}}}",
                self.count
            );
        } else {
            println!(
                "{name:<22}{ns:>8.1} ns {unit}, floor {floor_ns:>7.1}: {ratio:.2} ({least:.2}–{most:.2}) × the floor"
            );
        }
    }
}

/// SplitMix64.
pub(crate) fn random(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A function by name, for whoever counts the instructions of the work alone.
#[inline(never)]
fn measured(work: &mut Work<'_>) {
    black_box(work());
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
