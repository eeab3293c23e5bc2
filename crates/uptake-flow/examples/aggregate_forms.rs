//! Five ways to keep, per video, the set of requests that played it, and one table in the end.
//!
//! `cargo run -p uptake-flow --example aggregate_forms`
//!
//! They differ in how much they emit. What costs least is each touched key once per batch, as
//! `state_changes` does; the pipeline's tallies do the same by a `Process` of their own.

#![allow(unreachable_pub, reason = "the tests use this file as a module")]

use std::collections::{BTreeMap, BTreeSet};

use uptake_flow::{Batches, Collected, Error, EventTime, Flow, Options, StateSpec, Stream, hours, run};

/// The requests that played a video.
pub type Requests = BTreeSet<u32>;
/// One emitted set.
pub type Update = (String, Requests);
/// `(video, request)` plays with their times, in batches.
pub type Plays = Vec<Vec<(EventTime, (String, u32))>>;

/// Which of the forms.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Each update emits its set.
    EveryUpdate,
    /// Each update emits its set; only the largest of a key and batch goes on.
    LargestPerBatch,
    /// First all requests of a key and batch are grouped, then the state is updated once.
    GroupFirst,
    /// All sets, every second batch.
    Snapshots,
    /// Each set that changed, once per batch.
    Changes,
}

/// All of them.
pub const FORMS: [Form; 5] =
    [Form::EveryUpdate, Form::LargestPerBatch, Form::GroupFirst, Form::Snapshots, Form::Changes];

/// Adds one request to a video's set and emits the set.
fn add_request() -> StateSpec<String, u32, Requests, Update> {
    StateSpec::new(|video: &String, request, state| {
        let requests: &mut Requests = state.get_or_default();
        requests.insert(request);
        Some((video.clone(), requests.clone()))
    })
    .timeout(hours(2))
}

/// Adds many at once.
fn add_requests() -> StateSpec<String, Vec<u32>, Requests, Update> {
    StateSpec::new(|video: &String, new: Vec<u32>, state| {
        let requests: &mut Requests = state.get_or_default();
        requests.extend(new);
        Some((video.clone(), requests.clone()))
    })
    .timeout(hours(2))
}

fn updates<'s>(flow: &Flow<'s>, plays: &Plays, form: Form) -> Stream<'s, Update> {
    let plays = flow.source(Batches::new(flow.worker(), plays.clone()));
    match form {
        Form::EveryUpdate => plays.keyed().map_with_state(add_request()).mapped(),
        Form::LargestPerBatch => plays
            .keyed()
            .map_with_state(add_request())
            .mapped()
            .group_by_key()
            .map_values(|sets| sets.into_iter().max_by_key(Requests::len).unwrap_or_default())
            .into_stream(),
        Form::GroupFirst => plays.group_by_key().map_with_state(add_requests()).mapped(),
        Form::Snapshots => plays.keyed().map_with_state(add_request()).state_snapshots(2),
        Form::Changes => plays.keyed().map_with_state(add_request()).state_changes(),
    }
}

/// Runs one form; returns how many sets were emitted, and the table: of each video the largest.
///
/// # Errors
/// None of its own.
pub fn table(
    plays: &Plays,
    form: Form,
    workers: usize,
) -> Result<(usize, BTreeMap<String, Requests>), Error> {
    let plays = plays.clone();
    let options = Options { workers, ..Options::default() };
    let collected: Vec<Collected<Update>> = run(&options, move |flow| updates(flow, &plays, form).collect())?;
    let (mut emitted, mut table) = (0, BTreeMap::<String, Requests>::new());
    for (_, (video, requests)) in collected.iter().flat_map(Collected::take) {
        emitted += 1;
        let row = table.entry(video).or_default();
        if requests.len() > row.len() {
            *row = requests;
        }
    }
    Ok((emitted, table))
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<(), Error> {
    let plays: Plays = (0..6u32)
        .map(|batch| {
            let play = |i: u32| (format!("v{}", i * i % 3), batch * 5 + i);
            (0..10).map(|i| (EventTime(i64::from(batch) * 60_000), play(i))).collect()
        })
        .chain([Vec::new(), Vec::new()])
        .collect();
    for form in FORMS {
        let (emitted, table) = table(&plays, form, 2)?;
        let sizes: Vec<String> = table.iter().map(|(v, r)| format!("{v}: {} plays", r.len())).collect();
        println!("{:16} emitted {emitted:3} sets -> {}", format!("{form:?}"), sizes.join(", "));
    }
    Ok(())
}
