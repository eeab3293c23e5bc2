//! The one stateful operator: records in the order of their batches, then the end of the batch.
//!
//! It takes records of batch b only after batch b − 1 has ended here, so that every record is
//! judged by the watermark that stood before its batch, however many workers there are and
//! whatever overtakes what. What comes too early waits; the batches in flight bound how much.

use std::collections::BTreeMap;
use std::time::Instant;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{ExchangeCore, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use uptake_model::EventTime;

use crate::Data;
use crate::blocks::Blocks;
use crate::ends::End;
use crate::flow::Flow;
use crate::stream::{Record, Stream, TimelyStream};

/// What an operator does; see [`crate::Process`] for the public form.
pub(crate) trait Logic: 'static {
    type In: Data;
    type Side: Data;
    type Main: 'static;
    type Change: 'static;
    type Snapshot: 'static;

    /// Called once, when the whole dataflow has been built.
    fn start(&mut self) {}
    /// Takes all of some records of one batch, in order.
    fn records(
        &mut self,
        records: &mut Vec<Record<Self::In>>,
        watermark: EventTime,
        main: &mut Vec<Record<Self::Main>>,
    );
    fn side(&mut self, record: Record<Self::Side>);
    fn end_batch(
        &mut self,
        watermark: EventTime,
        is_last: bool,
        out: &mut Outputs<Self::Main, Self::Change, Self::Snapshot>,
    );
    fn checkpoint(&mut self, number: u64);
}

/// What goes out at the end of a batch.
pub(crate) struct Outputs<M, C, S> {
    pub(crate) main: Vec<Record<M>>,
    pub(crate) changes: Vec<Record<C>>,
    pub(crate) snapshots: Vec<Record<S>>,
}

/// The end of a batch, and the right to send with it on each output.
type HeldEnd = (End, [Option<Capability<u64>>; 3]);

/// Records of a batch that has not begun here.
struct Early<I, D> {
    records: Vec<Vec<Record<I>>>,
    side: Vec<Vec<Record<D>>>,
}

impl<I, D> Default for Early<I, D> {
    fn default() -> Self {
        Self { records: Vec::new(), side: Vec::new() }
    }
}

/// The streams that an operator's three outputs make.
pub(crate) type Built<'s, L> =
    (Stream<'s, <L as Logic>::Main>, Stream<'s, <L as Logic>::Change>, Stream<'s, <L as Logic>::Snapshot>);

/// Builds an operator with `logic`; records and side records go to the worker their routes name.
pub(crate) fn build<'s, L: Logic>(
    flow: &Flow<'s>,
    name: &str,
    input: TimelyStream<'s, L::In>,
    route: impl Fn(&L::In) -> u64 + 'static,
    side: TimelyStream<'s, L::Side>,
    side_route: impl Fn(&L::Side) -> u64 + 'static,
    mut logic: L,
) -> Built<'s, L> {
    let mut builder = OperatorBuilder::new(name.to_owned(), flow.scope());
    let by_route = ExchangeCore::<Blocks<_>, _>::new_core(move |r: &Record<L::In>| route(&r.value));
    let mut records = builder.new_input(input, by_route);
    let by_route = ExchangeCore::<Blocks<_>, _>::new_core(move |r: &Record<L::Side>| side_route(&r.value));
    let mut side = builder.new_input(side, by_route);
    let mut endings = builder.new_input(flow.ends(), Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<Record<L::Main>>>();
    let (changes, change_stream) = builder.new_output::<Vec<Record<L::Change>>>();
    let (snapshots, snapshot_stream) = builder.new_output::<Vec<Record<L::Snapshot>>>();
    let (at_start, checkpoints, worker) = (flow.watermark_at_start(), flow.checkpoints(), flow.worker());
    let stop = flow.stop();
    let mut main = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(main);
    let mut changes = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(changes);
    let mut snapshots = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(snapshots);

    builder.build(move |initial| {
        drop(initial);
        let mut started = false;
        // The batch that may be worked on, and the watermark that stood before it.
        let (mut current, mut watermark) = (0u64, at_start);
        let mut early: BTreeMap<u64, Early<L::In, L::Side>> = BTreeMap::new();
        // Ends of batches: the watermark after each, and the right to send with it.
        let mut ends: BTreeMap<u64, HeldEnd> = BTreeMap::new();
        let mut out = Outputs { main: Vec::new(), changes: Vec::new(), snapshots: Vec::new() };
        move |frontiers| {
            // What a worker that failed has not sent is missing here: nothing may be made of the rest.
            // It failed before anybody could hear that its batch is over.
            if stop.is_failing() {
                return;
            }
            if !started {
                started = true;
                logic.start();
            }
            let (mut main, mut changes, mut snapshots) =
                (main.activate(), changes.activate(), snapshots.activate());
            endings.for_each(|cap, data| {
                let Some(batch) = cap.least().copied() else { return };
                let caps = [0, 1, 2].map(|output| cap.retain_least(output));
                for end in data.drain(..) {
                    ends.insert(batch, (end, caps.clone()));
                }
            });
            side.for_each(|cap, data| match cap.least() {
                Some(&batch) if batch == current => data.drain(..).for_each(|r| logic.side(r)),
                Some(&batch) => early.entry(batch).or_default().side.push(std::mem::take(data)),
                None => {}
            });
            records.for_each(|cap, data| match cap.least() {
                Some(&batch) if batch == current => {
                    // What came before the batch had begun comes first: records keep their order.
                    catch_up(&mut logic, early.remove(&batch), watermark, &mut out.main);
                    logic.records(data, watermark, &mut out.main);
                    if !out.main.is_empty() {
                        main.session(&cap).give_container(&mut out.main);
                        out.main.clear();
                    }
                }
                Some(&batch) => early.entry(batch).or_default().records.push(std::mem::take(data)),
                None => {}
            });
            while let Some(end) = ends.first_entry() {
                let batch = *end.key();
                debug_assert!(batch >= current, "batches end in order");
                let complete = |input: usize| !frontiers[input].less_equal(&batch);
                if !complete(0) || !complete(1) {
                    break;
                }
                let (after, caps) = end.remove();
                catch_up(&mut logic, early.remove(&batch), watermark, &mut out.main);
                watermark = after.watermark;
                logic.end_batch(watermark, after.last, &mut out);
                if stop.is_failing() {
                    return;
                }
                if let Some(number) = after.checkpoint {
                    let begun = Instant::now();
                    logic.checkpoint(number);
                    if let Some(checkpoints) = &checkpoints {
                        checkpoints.stalled(number, worker, begun.elapsed());
                    }
                }
                let [Some(main_cap), Some(changes_cap), Some(snapshots_cap)] = caps else { continue };
                if !out.main.is_empty() {
                    main.session(&main_cap).give_container(&mut out.main);
                    out.main.clear();
                }
                if !out.changes.is_empty() {
                    changes.session(&changes_cap).give_container(&mut out.changes);
                    out.changes.clear();
                }
                if !out.snapshots.is_empty() {
                    snapshots.session(&snapshots_cap).give_container(&mut out.snapshots);
                    out.snapshots.clear();
                }
                current = batch + 1;
            }
        }
    });
    (flow.stream(main_stream), flow.stream(change_stream), flow.stream(snapshot_stream))
}

fn catch_up<L: Logic>(
    logic: &mut L,
    early: Option<Early<L::In, L::Side>>,
    watermark: EventTime,
    main: &mut Vec<Record<L::Main>>,
) {
    let Some(early) = early else { return };
    early.side.into_iter().flatten().for_each(|record| logic.side(record));
    for mut records in early.records {
        logic.records(&mut records, watermark, main);
    }
}
