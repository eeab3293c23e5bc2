//! Keyed streams with a logic of one's own, for what a state per key does not fit.

use std::marker::PhantomData;

use uptake_model::EventTime;

use crate::operator::{Logic, Outputs};
use crate::stream::{Emit, Record};
use crate::{Data, Key};

/// What a [`Process`] knows of the moment.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The event time of the record, or the watermark at the end of a batch.
    pub time: EventTime,
    /// The watermark: before the batch while records come, after it at its end.
    /// [`EventTime::MAX`] at the end of all input, unless [`Options::seals_at_end`](crate::Options::seals_at_end)
    /// is off or the run was stopped.
    pub watermark: EventTime,
    /// At the end of a batch: nothing follows it, because the input ended or the run is stopped.
    pub is_last: bool,
}

/// A logic that sees all records of its worker's keys, and the end of each batch.
///
/// One worker's records of one key come to one instance, in the order of their batches; the end
/// of a batch comes when all its records have.
pub trait Process<K, V>: 'static {
    /// What comes in from the stream it is connected with, if any: use `()` for none.
    type Side: Data;
    /// What goes out.
    type Out: 'static;

    /// Takes one record.
    fn record(&mut self, key: &K, value: V, context: Context, out: &mut Emit<'_, Self::Out>);

    /// Takes one record of the connected stream.
    fn side(&mut self, _value: Self::Side) {}

    /// Ends a batch. A batch without records ends too.
    fn end_batch(&mut self, context: Context, out: &mut Emit<'_, Self::Out>);

    /// A checkpoint is being taken: what is held now, the batch having ended, is its part.
    fn checkpoint(&mut self, _number: u64) {}
}

pub(crate) struct ProcessLogic<K, V, P> {
    pub(crate) process: P,
    pub(crate) types: PhantomData<fn(K, V)>,
}

impl<K: Key, V: Data, P: Process<K, V>> Logic for ProcessLogic<K, V, P> {
    type In = (K, V);
    type Side = P::Side;
    type Main = P::Out;
    type Change = ();
    type Snapshot = ();

    fn records(
        &mut self,
        records: &mut Vec<Record<(K, V)>>,
        watermark: EventTime,
        main: &mut Vec<Record<P::Out>>,
    ) {
        for Record { time, value: (key, value) } in records.drain(..) {
            self.process.record(
                &key,
                value,
                Context { time, watermark, is_last: false },
                &mut Emit { time, out: main },
            );
        }
    }

    fn side(&mut self, record: Record<P::Side>) {
        self.process.side(record.value);
    }

    fn end_batch(&mut self, watermark: EventTime, is_last: bool, out: &mut Outputs<P::Out, (), ()>) {
        let context = Context { time: watermark, watermark, is_last };
        self.process.end_batch(context, &mut Emit { time: watermark, out: &mut out.main });
    }

    fn checkpoint(&mut self, number: u64) {
        self.process.checkpoint(number);
    }
}
