//! Streams of records, plain and keyed.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::{Concat, Operator, Probe};
use uptake_model::EventTime;

use crate::flow::Flow;
use crate::operator;
use crate::process::{Process, ProcessLogic};
use crate::spec::{StateSpec, StatefulStream};
use crate::{Data, Key, hash_of, shard_of};

/// A value and when it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record<D> {
    /// Event time.
    pub time: EventTime,
    /// What happened.
    pub value: D,
}

pub(crate) type TimelyStream<'s, D> = StreamVec<'s, u64, Record<D>>;

/// Lets values out, at the event time of what they come from.
pub struct Emit<'a, M> {
    pub(crate) time: EventTime,
    pub(crate) out: &'a mut Vec<Record<M>>,
}

impl<M> Emit<'_, M> {
    /// Makes room for `n` more values, where many are known to come.
    pub fn reserve(&mut self, n: usize) {
        self.out.reserve(n);
    }

    /// Lets one value out.
    #[inline]
    pub fn emit(&mut self, value: M) {
        self.out.push(Record { time: self.time, value });
    }

    /// Lets one value out that happened at another time.
    #[inline]
    pub fn emit_at(&mut self, time: EventTime, value: M) {
        self.out.push(Record { time, value });
    }
}

/// Records in batches.
pub struct Stream<'s, D> {
    flow: Flow<'s>,
    inner: TimelyStream<'s, D>,
}

impl<D: Clone + 'static> Clone for Stream<'_, D> {
    fn clone(&self) -> Self {
        Self { flow: self.flow.clone(), inner: self.inner.clone() }
    }
}

/// What was collected: `(batch, value)` in the order of arrival.
#[derive(Clone, Debug)]
pub struct Collected<D>(Arc<Mutex<Vec<(u64, D)>>>);

impl<D> Collected<D> {
    /// Takes what this worker collected. Complete once the run has ended.
    pub fn take(&self) -> Vec<(u64, D)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<'s, D: 'static> Stream<'s, D> {
    pub(crate) fn new(flow: Flow<'s>, inner: TimelyStream<'s, D>) -> Self {
        Self { flow, inner }
    }

    /// Each value by `f`.
    pub fn map<E: 'static>(self, mut f: impl FnMut(D) -> E + 'static) -> Stream<'s, E> {
        self.flat_map(move |value| Some(f(value)))
    }

    /// Only the values that `keep` is true for.
    pub fn filter(self, mut keep: impl FnMut(&D) -> bool + 'static) -> Stream<'s, D> {
        self.flat_map(move |value| keep(&value).then_some(value))
    }

    /// Each value becomes any number of others, at the same event time.
    pub fn flat_map<E: 'static, I: IntoIterator<Item = E>>(
        self,
        mut f: impl FnMut(D) -> I + 'static,
    ) -> Stream<'s, E> {
        let inner = self.inner.unary(Pipeline, "map", move |_, _| {
            let mut out: Vec<Record<E>> = Vec::new();
            move |input, output| {
                input.for_each(|cap, data| {
                    out.reserve(data.len());
                    for Record { time, value } in data.drain(..) {
                        out.extend(f(value).into_iter().map(|value| Record { time, value }));
                    }
                    output.session(&cap).give_container(&mut out);
                    out.clear();
                });
            }
        });
        Stream::new(self.flow, inner.container::<Vec<_>>())
    }

    /// Both streams as one.
    pub fn concat(self, other: Self) -> Self {
        Self { inner: self.inner.concat(other.inner), flow: self.flow }
    }

    /// The values by the key that `key` gives them.
    pub fn key_by<K: Key>(self, key: impl Fn(&D) -> K + 'static) -> KeyedStream<'s, K, D>
    where
        D: Data,
    {
        self.map(move |value| (key(&value), value)).keyed()
    }

    /// Calls `each` with every value on the worker that holds it, and its batch.
    pub fn for_each(self, mut each: impl FnMut(u64, EventTime, D) + 'static) {
        self.inner
            .unary(Pipeline, "for each", move |_, _| {
                move |input, output| {
                    input.for_each(|cap, data| {
                        let batch = cap.least().copied().unwrap_or_default();
                        data.drain(..).for_each(|Record { time, value }| each(batch, time, value));
                        output.session(&cap).give_iterator(std::iter::empty::<()>());
                    });
                }
            })
            .container::<Vec<()>>()
            .probe_with(self.flow.probe());
    }

    /// Collects all values of this worker, to look at when the run has ended.
    pub fn collect(self) -> Collected<D> {
        let collected = Collected(Arc::default());
        let shared = Arc::clone(&collected.0);
        self.for_each(move |batch, _, value| {
            shared.lock().unwrap_or_else(PoisonError::into_inner).push((batch, value));
        });
        collected
    }
}

impl<'s, K: Key, V: Data> Stream<'s, (K, V)> {
    /// Pairs of key and value as a keyed stream.
    pub fn keyed(self) -> KeyedStream<'s, K, V> {
        KeyedStream { flow: self.flow, inner: self.inner, types: PhantomData }
    }

    /// Gathers each batch's values by key: one `(key, values)` per key and batch, the values in
    /// the order in which they came to the key's worker.
    pub fn group_by_key(self) -> KeyedStream<'s, K, Vec<V>> {
        self.keyed().group_by_key()
    }
}

/// Values by key: all of one key come together on one worker.
pub struct KeyedStream<'s, K, V> {
    flow: Flow<'s>,
    inner: TimelyStream<'s, (K, V)>,
    types: PhantomData<fn(K, V)>,
}

impl<'s, K: Key, V: Data> KeyedStream<'s, K, V> {
    /// The pairs of key and value as a plain stream.
    pub fn into_stream(self) -> Stream<'s, (K, V)> {
        Stream::new(self.flow, self.inner)
    }

    /// Each value by `f`; the keys stay.
    pub fn map_values<W: Data>(self, mut f: impl FnMut(V) -> W + 'static) -> KeyedStream<'s, K, W> {
        self.into_stream().map(move |(key, value)| (key, f(value))).keyed()
    }

    /// Keeps a state per key by `spec`.
    pub fn map_with_state<S: 'static, M: 'static>(
        self,
        spec: StateSpec<K, V, S, M>,
    ) -> StatefulStream<'s, K, S, M> {
        let wishes = std::rc::Rc::default();
        let flow = self.flow.clone();
        let mine = move |key: &K| flow.is_mine(key);
        let logic = spec.into_logic(mine, std::rc::Rc::clone(&wishes));
        let side = empty(self.flow.scope());
        let route = |(key, _): &(K, V)| shard_of(hash_of(key)).into();
        let (mapped, changes, snapshots) =
            operator::build(&self.flow, "map with state", self.inner, route, side, |()| 0, logic);
        StatefulStream { mapped, changes, snapshots, wishes }
    }

    /// Gathers each batch's values by key; see [`Stream::group_by_key`].
    pub fn group_by_key(self) -> KeyedStream<'s, K, Vec<V>> {
        self.process(Group { keys: hashbrown::HashMap::default() }).keyed()
    }

    /// Runs `process` on the values of this worker's keys.
    pub fn process<P: Process<K, V, Side = ()>>(self, process: P) -> Stream<'s, P::Out> {
        let nothing = Stream::new(self.flow.clone(), empty(self.flow.scope()));
        self.process_with(nothing, |()| To::Worker(0), process)
    }

    /// Runs `process` on the values of this worker's keys and, beside them, on those of `side`,
    /// each on the worker that `to` names. Both have come completely when a batch ends.
    pub fn process_with<P: Process<K, V>>(
        self,
        side: Stream<'s, P::Side>,
        to: impl Fn(&P::Side) -> To<K> + 'static,
        process: P,
    ) -> Stream<'s, P::Out> {
        let route = |(key, _): &(K, V)| shard_of(hash_of(key)).into();
        let side_route = move |value: &P::Side| match to(value) {
            To::Key(key) => shard_of(hash_of(&key)).into(),
            To::Worker(worker) => worker as u64,
        };
        let logic = ProcessLogic { process, types: PhantomData };
        operator::build(&self.flow, "process", self.inner, route, side.inner, side_route, logic).0
    }
}

/// Where a record of a connected stream goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To<K> {
    /// To the worker that has this key.
    Key(K),
    /// To the worker of this number.
    Worker(usize),
}

/// The values of the running batch by key.
struct Group<K, V> {
    keys: hashbrown::HashMap<K, Vec<V>, foldhash::fast::FixedState>,
}

impl<K: Key, V: Data> Process<K, V> for Group<K, V> {
    type Side = ();
    type Out = (K, Vec<V>);

    fn record(&mut self, key: &K, value: V, _: crate::Context, _: &mut Emit<'_, Self::Out>) {
        self.keys.entry_ref(key).or_default().push(value);
    }

    fn end_batch(&mut self, _: crate::Context, out: &mut Emit<'_, Self::Out>) {
        self.keys.drain().for_each(|group| out.emit(group));
    }
}
