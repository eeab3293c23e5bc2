//! Keyed streams with state, in micro-batches, on timely dataflow.
//!
//! A [`Source`] fills numbered batches; a batch is the unit of progress. [`Stream`]s are mapped,
//! keyed and grouped; [`KeyedStream::map_with_state`] keeps a state per key, with timeouts in
//! event time judged by a watermark over all sources. The same program runs on one thread or
//! many; only this crate names timely.
//!
//! ```
//! use std::collections::BTreeSet;
//! use uptake_flow::{Batches, Options, StateSpec, hours, run};
//! use uptake_model::EventTime;
//!
//! // (video, request), with the minute of the play.
//! let plays = [("v1", 7, 1), ("v2", 8, 2), ("v1", 9, 3)];
//! let results = run(&Options::default(), move |flow| {
//!     let plays = plays.map(|(video, request, minute)| (EventTime(minute * 60_000), (video.to_owned(), request)));
//!     let plays = flow.source(Batches::new(flow.worker(), vec![plays.to_vec()]));
//!     let requests = StateSpec::new(|_video: &String, request: u32, requests| {
//!         let requests: &mut BTreeSet<u32> = requests.get_or_default();
//!         requests.insert(request).then_some(requests.len())
//!     })
//!     .timeout(hours(2));
//!     plays.keyed().map_with_state(requests).state_changes().collect()
//! })
//! .unwrap();
//! let mut sizes: Vec<(String, usize)> =
//!     results[0].take().into_iter().map(|(_, (video, requests))| (video, requests.len())).collect();
//! sizes.sort();
//! assert_eq!(sizes, [("v1".to_owned(), 2), ("v2".to_owned(), 1)]);
//! ```

mod blocks;
mod cluster;
mod cold;
mod ends;
mod flow;
mod operator;
mod process;
mod run;
mod source;
mod spec;
mod state;
mod stream;
mod worker;

use std::hash::Hash;

use timely::ExchangeData;

pub use cluster::Cluster;
pub use cold::Cold;
pub use flow::Flow;
pub use process::{Context, Process};
pub use run::{Checkpoints, Error, Halt, Options, Stop, run};
pub use source::{Batch, Batches, Poll, Source};
pub use spec::{KeyRun, State, StateSpec, StatefulStream};
pub use state::{KeyedState, Tracking};
pub use stream::{Collected, Emit, KeyedStream, Record, Stream, To};
pub use uptake_model::EventTime;
pub use worker::Schedule;

/// The virtual shard of a key, 0 to [`SHARDS`] − 1: the same in every process and release.
pub fn shard(key: &impl Key) -> u32 {
    shard_of(hash_of(key))
}

/// What may travel between workers: owned, sendable, serialisable.
pub trait Data: ExchangeData + Clone {}
impl<T: ExchangeData + Clone> Data for T {}

/// What may key a stream.
pub trait Key: Data + Eq + Hash {}
impl<T: Data + Eq + Hash> Key for T {}

/// The number of virtual shards that keys are split into, whatever the number of workers.
pub const SHARDS: u32 = 256;

/// `n` minutes in milliseconds of event time.
pub const fn minutes(n: i64) -> i64 {
    n * 60_000
}

/// `n` hours in milliseconds of event time.
pub const fn hours(n: i64) -> i64 {
    n * 3_600_000
}

/// The hash of a key: the same in every process, so that all agree where a key lives.
#[inline]
pub(crate) fn hash_of(key: &impl Hash) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(1).hash_one(key)
}

/// The virtual shard of a key with this hash, 0 to [`SHARDS`] − 1.
///
/// Taken from the middle of the hash: hash tables use its lowest and highest bits, and a worker's
/// keys must still spread over its tables.
#[inline]
pub(crate) fn shard_of(hash: u64) -> u32 {
    (hash >> 40) as u32 & (SHARDS - 1)
}

/// The page on this library is code that runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/library.md")]
struct Page;
