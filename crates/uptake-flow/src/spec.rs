//! What to do with each record of a key, and what comes out: the state of a keyed stream.
//!
//! The names are those of Spark's `mapWithState`, and so is what they are for. The timeouts are in event
//! time; a state that is not there is an `Option`, where Spark throws, and a step may set one anew that it removed.

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Drain;

use uptake_model::EventTime;

use crate::operator::{Logic, Outputs};
use crate::state::{KeyedState, Tracking};
use crate::stream::{Emit, Record, Stream};
use crate::{Data, Key};

/// The state of one key, as a function of a [`StateSpec`] sees it.
#[derive(Debug)]
pub struct State<'a, S> {
    state: &'a mut Option<S>,
    time: EventTime,
    watermark: EventTime,
}

impl<'a, S> State<'a, S> {
    /// Whether the key has a state.
    pub fn exists(&self) -> bool {
        self.state.is_some()
    }

    /// The state, if there is one.
    pub fn get(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// The state to change in place, if there is one.
    pub fn get_mut(&mut self) -> Option<&mut S> {
        self.state.as_mut()
    }

    /// The state to change in place; a key without one gets the default first.
    #[inline]
    pub fn get_or_default(&mut self) -> &mut S
    where
        S: Default,
    {
        self.state.get_or_insert_default()
    }

    /// Sets the state.
    pub fn update(&mut self, state: S) {
        *self.state = Some(state);
    }

    /// Removes the state; a later record of the key finds none.
    pub fn remove(&mut self) -> Option<S> {
        self.state.take()
    }

    /// The event time of the record.
    #[inline]
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// The watermark as it stood before the record's batch.
    #[inline]
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }
}

/// Records of one key that follow one another in a batch: events of a key often do.
///
/// As an iterator it takes them one by one, each with its event time.
pub struct KeyRun<'a, 'b, K, V> {
    first: Option<(EventTime, V)>,
    others: &'a mut Drain<'b, Record<(K, V)>>,
    /// How many of the others are of this key.
    left: usize,
}

impl<K, V> KeyRun<'_, '_, K, V> {
    /// The records after the first one that have not been taken yet.
    pub fn others(&self) -> &[Record<(K, V)>] {
        self.others.as_slice().get(..self.left).unwrap_or_default()
    }

    /// Takes the next `n` of [`KeyRun::others`], which have been seen to there.
    pub fn skip_others(&mut self, n: usize) {
        let n = n.min(self.left);
        self.left -= n;
        self.others.by_ref().take(n).for_each(drop);
    }
}

impl<K, V> Iterator for KeyRun<'_, '_, K, V> {
    type Item = (EventTime, V);

    #[inline]
    fn next(&mut self) -> Option<(EventTime, V)> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.left = self.left.checked_sub(1)?;
        let Record { time, value: (_, value) } = self.others.next()?;
        Some((time, value))
    }
}

type Step<K, V, S, M> = Box<dyn FnMut(&K, &mut KeyRun<'_, '_, K, V>, &mut State<'_, S>, &mut Emit<'_, M>)>;
type Timeout<K, S, M> = Box<dyn FnMut(&K, S, &mut Emit<'_, M>)>;
type Checkpoint<K, S> = Box<dyn FnMut(u64, &mut KeyedState<K, S>)>;
type Excess = Box<dyn FnMut(usize) -> usize>;

/// How the records of a key change its state, and what comes out of that.
///
/// Each worker builds its own, so the functions may share worker-local things.
pub struct StateSpec<K, V, S, M> {
    step: Step<K, V, S, M>,
    timeout_ms: Option<i64>,
    on_timeout: Option<Timeout<K, S, M>>,
    initial: Vec<(K, EventTime, S)>,
    on_end_batch: Option<Box<dyn FnMut(EventTime)>>,
    on_checkpoint: Option<Checkpoint<K, S>>,
    excess: Option<Excess>,
    restored: KeyedState<K, S>,
}

impl<K: Key, V: Data, S: 'static, M: 'static> StateSpec<K, V, S, M> {
    /// Calls `step` for each record, in order, with its key's state; what it returns goes out.
    ///
    /// ```
    /// use uptake_flow::StateSpec;
    /// // A running sum that forgets a key at zero.
    /// let _spec = StateSpec::new(|_key: &String, change: i64, sum| {
    ///     let new = sum.get().copied().unwrap_or(0i64) + change;
    ///     if new == 0 { sum.remove(); } else { sum.update(new); }
    ///     Some(new)
    /// });
    /// ```
    pub fn new(mut step: impl FnMut(&K, V, &mut State<'_, S>) -> Option<M> + 'static) -> Self {
        Self::emitting(move |key, value, state, emit| {
            if let Some(out) = step(key, value, state) {
                emit.emit(out);
            }
        })
    }

    /// As [`StateSpec::new`], for a step that may let out any number of values.
    pub fn emitting(mut step: impl FnMut(&K, V, &mut State<'_, S>, &mut Emit<'_, M>) + 'static) -> Self {
        // The step stands in the loop itself: a call through a pointer for each record would cost as much as
        // a part of it.
        Self::by_runs(move |key, run, state, emit| {
            for (time, value) in run {
                (state.time, emit.time) = (time, time);
                step(key, value, state, emit);
            }
        })
    }

    /// As [`StateSpec::emitting`], for a step that takes records of a key together where they follow one another.
    /// It must take all of them; what it makes of them must not depend on how they are cut into runs. The times
    /// of the state and of what goes out are those of the first, unless it says another.
    ///
    /// ```
    /// use uptake_flow::StateSpec;
    /// // The first value of each run, and the sum of all.
    /// let _spec: StateSpec<String, i64, i64, i64> = StateSpec::by_runs(|_key, run, sum, emit| {
    ///     let ahead: i64 = run.others().iter().map(|record| record.value.1).sum();
    ///     run.skip_others(usize::MAX);
    ///     let first: i64 = run.map(|(_, value)| value).sum();
    ///     *sum.get_or_default() += first + ahead;
    ///     emit.emit(first);
    /// });
    /// ```
    pub fn by_runs(
        step: impl FnMut(&K, &mut KeyRun<'_, '_, K, V>, &mut State<'_, S>, &mut Emit<'_, M>) + 'static,
    ) -> Self {
        Self {
            step: Box::new(step),
            timeout_ms: None,
            on_timeout: None,
            initial: Vec::new(),
            on_end_batch: None,
            on_checkpoint: None,
            excess: None,
            restored: KeyedState::default(),
        }
    }

    /// A key that had no record for `ms` milliseconds of event time, once the watermark has
    /// passed that, loses its state; at the end of all input every key does, unless
    /// [`Options::seals_at_end`](crate::Options::seals_at_end) is off or the run was stopped. Times are rounded up to
    /// seconds, see [`KeyedState::expire`].
    pub fn timeout(mut self, ms: i64) -> Self {
        self.timeout_ms = Some(ms.max(0));
        self
    }

    /// Takes the state of each key that times out, once; what it lets out goes with the batch
    /// that moved the watermark, at the time of the watermark.
    pub fn on_timeout(mut self, take: impl FnMut(&K, S, &mut Emit<'_, M>) + 'static) -> Self {
        self.on_timeout = Some(Box::new(take));
        self
    }

    /// States that are present before the first record, with the time of their last one. Each
    /// worker takes those of its own keys, so all may be given to every worker.
    pub fn initial_state(mut self, states: impl IntoIterator<Item = (K, EventTime, S)>) -> Self {
        self.initial.extend(states);
        self
    }

    /// Calls `then` with the watermark at the end of each batch, when its records and timeouts have been taken.
    pub fn on_end_batch(mut self, then: impl FnMut(EventTime) + 'static) -> Self {
        self.on_end_batch = Some(Box::new(then));
        self
    }

    /// Takes this worker's part of each checkpoint: its number, and all states as they are after
    /// the checkpoint's batch. [`KeyedState::drain_touched`] with [`Tracking::Checkpoint`] gives
    /// those in memory that changed since the checkpoint before; those that were put away since are
    /// for the [`Cold`](crate::Cold) to tell.
    pub fn on_checkpoint(mut self, take: impl FnMut(u64, &mut KeyedState<K, S>) + 'static) -> Self {
        self.on_checkpoint = Some(Box::new(take));
        self
    }

    /// At the end of each batch tells `excess` how many states are in memory, and puts as many away
    /// as it says ([`KeyedState::spill`]): states that were given to [`StateSpec::restored`] with a
    /// place to be put away to.
    pub fn spilling(mut self, excess: impl FnMut(usize) -> usize + 'static) -> Self {
        self.excess = Some(Box::new(excess));
        self
    }

    /// This worker's states as a checkpoint holds them, with the deadlines they had.
    pub fn restored(mut self, states: KeyedState<K, S>) -> Self {
        self.restored = states;
        self
    }

    /// The logic of the operator; `mine` tells this worker's keys.
    pub(crate) fn into_logic(
        self,
        mine: impl Fn(&K) -> bool,
        wishes: Rc<RefCell<Wishes<K, S>>>,
    ) -> MapWithState<K, V, S, M> {
        let mut states = self.restored;
        if self.on_checkpoint.is_some() {
            states.track(Tracking::Checkpoint);
        }
        for (key, time, state) in self.initial {
            if mine(&key) {
                *states.entry(&key, self.timeout_ms.map(|ms| time.plus(ms))) = Some(state);
            }
        }
        MapWithState {
            step: self.step,
            timeout_ms: self.timeout_ms,
            on_timeout: self.on_timeout,
            on_end_batch: self.on_end_batch,
            on_checkpoint: self.on_checkpoint,
            excess: self.excess,
            states,
            wishes,
            batch: 0,
        }
    }
}

type CloneState<K, S> = fn(&K, &S) -> (K, S);

/// Which of the outputs beside the mapped values somebody asked for. Cloning states for nobody
/// would cost more than keeping them.
pub(crate) struct Wishes<K, S> {
    clone: Option<CloneState<K, S>>,
    changes: bool,
    snapshots_every: u64,
}

impl<K, S> Default for Wishes<K, S> {
    fn default() -> Self {
        Self { clone: None, changes: false, snapshots_every: 0 }
    }
}

/// [`KeyedStream::map_with_state`](crate::KeyedStream::map_with_state) as an operator.
pub(crate) struct MapWithState<K, V, S, M> {
    step: Step<K, V, S, M>,
    timeout_ms: Option<i64>,
    on_timeout: Option<Timeout<K, S, M>>,
    on_end_batch: Option<Box<dyn FnMut(EventTime)>>,
    on_checkpoint: Option<Checkpoint<K, S>>,
    excess: Option<Excess>,
    states: KeyedState<K, S>,
    wishes: Rc<RefCell<Wishes<K, S>>>,
    batch: u64,
}

impl<K: Key, V: Data, S: 'static, M: 'static> Logic for MapWithState<K, V, S, M> {
    type In = (K, V);
    type Side = ();
    type Main = M;
    type Change = (K, S);
    type Snapshot = (K, S);

    fn start(&mut self) {
        if self.wishes.borrow().changes {
            self.states.track(Tracking::Batch);
        }
    }

    fn records(
        &mut self,
        records: &mut Vec<Record<(K, V)>>,
        watermark: EventTime,
        main: &mut Vec<Record<M>>,
    ) {
        let mut records = records.drain(..);
        while let Some(Record { time, value: (key, value) }) = records.next() {
            // The state is looked up once for all of a run.
            let (mut left, mut last) = (0, time);
            for record in records.as_slice().iter().take_while(|record| record.value.0 == key) {
                (left, last) = (left + 1, last.max(record.time));
            }
            let state = self.states.entry(&key, self.timeout_ms.map(|ms| last.plus(ms)));
            let mut run = KeyRun { first: Some((time, value)), others: &mut records, left };
            let (mut state, mut emit) = (State { state, time, watermark }, Emit { time, out: main });
            (self.step)(&key, &mut run, &mut state, &mut emit);
            debug_assert!(run.next().is_none(), "a step takes all of its run");
            self.states.settle(&key);
        }
    }

    fn side(&mut self, _record: Record<()>) {}

    fn end_batch(&mut self, watermark: EventTime, _: bool, out: &mut Outputs<M, (K, S), (K, S)>) {
        let wishes = self.wishes.borrow();
        let time = watermark;
        if let (true, Some(clone)) = (wishes.changes, wishes.clone) {
            self.states.drain_touched(Tracking::Batch, &mut |key, state, _| {
                out.changes.push(Record { time, value: clone(key, state) });
            });
        }
        if self.timeout_ms.is_some() {
            let on_timeout = &mut self.on_timeout;
            self.states.expire(watermark, &mut |key, state| {
                if let Some(take) = on_timeout {
                    take(key, state, &mut Emit { time, out: &mut out.main });
                }
            });
        }
        self.batch += 1;
        if let (n @ 1.., Some(clone)) = (wishes.snapshots_every, wishes.clone)
            && self.batch.is_multiple_of(n)
        {
            self.states.each(&mut |key, state| out.snapshots.push(Record { time, value: clone(key, state) }));
        }
        if let Some(then) = &mut self.on_end_batch {
            then(watermark);
        }
        if let Some(excess) = &mut self.excess {
            self.states.spill(excess(self.states.held()));
        }
    }

    fn checkpoint(&mut self, number: u64) {
        if let Some(take) = &mut self.on_checkpoint {
            take(number, &mut self.states);
        }
    }
}

/// A keyed stream with state: what comes out of it depends on which output is taken.
pub struct StatefulStream<'s, K: Key, S: 'static, M: 'static> {
    pub(crate) mapped: Stream<'s, M>,
    pub(crate) changes: Stream<'s, (K, S)>,
    pub(crate) snapshots: Stream<'s, (K, S)>,
    pub(crate) wishes: Rc<RefCell<Wishes<K, S>>>,
}

impl<'s, K: Key, S: Clone + 'static, M: 'static> StatefulStream<'s, K, S, M> {
    /// What the step and the timeouts let out, record by record.
    pub fn mapped(&self) -> Stream<'s, M>
    where
        M: Clone,
    {
        self.mapped.clone()
    }

    /// Per batch, each key that had a record in it and still has a state then, once, with that
    /// state. Their event time is the watermark after the batch. Of states that are put away, one that was
    /// brought back because its time might be over counts as changed, too.
    pub fn state_changes(&self) -> Stream<'s, (K, S)> {
        let mut wishes = self.wishes.borrow_mut();
        wishes.changes = true;
        wishes.clone = Some(|key, state| (key.clone(), state.clone()));
        self.changes.clone()
    }

    /// After each `every` batches, all keys with their states, the untouched ones too.
    ///
    /// # Panics
    /// If `every` is 0, or two different numbers were asked for on one stream.
    pub fn state_snapshots(&self, every: u64) -> Stream<'s, (K, S)> {
        assert!(every > 0, "a snapshot every 0 batches cannot be taken");
        let mut wishes = self.wishes.borrow_mut();
        let before = std::mem::replace(&mut wishes.snapshots_every, every);
        assert!(before == 0 || before == every, "snapshots every {before} and every {every} batches");
        wishes.clone = Some(|key, state| (key.clone(), state.clone()));
        self.snapshots.clone()
    }
}

impl<'s, K: Key, S: 'static, M: 'static> StatefulStream<'s, K, S, M> {
    /// As [`StatefulStream::mapped`], for states and values that cannot be cloned.
    pub fn into_mapped(self) -> Stream<'s, M> {
        self.mapped
    }
}
