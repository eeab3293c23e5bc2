//! The join stage: the model's three methods on the engine's keyed streams.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use uptake_flow::{Context, Emit, EventTime, KeyedStream, Process, StateSpec, Stream};
use uptake_model::join::{
    Arrival, BatchToWindow, HoldingJoin, JoinDictionary, JoinKind, JoinRules, RequestState, WindowJoin,
};
use uptake_model::ledger::Account;
use uptake_model::{Event, Kind, RequestId};

use crate::config::{Config, JoinMethod};
use crate::pipeline::Books;
use crate::stages::Joined;

/// What counts, and what came too late, of the events by request.
pub fn by_request<'s>(
    events: KeyedStream<'s, RequestId, Event>,
    config: &Arc<Config>,
    books: &Books,
) -> Stream<'s, Joined> {
    let rules = config.join;
    let books = Rc::clone(books);
    match config.join_method {
        JoinMethod::State => events.map_with_state(request_states(rules, books)).into_mapped(),
        JoinMethod::Window => events.process(Holding { join: WindowJoin::new(rules), rules, books }),
        JoinMethod::BatchToWindow => {
            events.process(Holding { join: BatchToWindow::new(rules), rules, books })
        }
    }
}

/// Every event taken waits; then it counts, or turns out to be refused.
fn settle(account: &mut Account, arrival: Arrival) {
    let refused = match arrival {
        Arrival::Counted | Arrival::Waiting => return,
        Arrival::Duplicate => &mut account.duplicate,
        Arrival::Capped => &mut account.capped,
    };
    *refused += 1;
    account.waiting -= 1;
}

fn expire(account: &mut Account, rules: &JoinRules, event: &Event) {
    account.waiting -= 1;
    account.expired += 1;
    account.organic += u64::from(rules.kind == JoinKind::Left && event.kind == Kind::Play);
}

/// A late event is written down and sent on, to be kept in the late log; says whether it was.
#[inline(always)]
fn is_late(
    event: &Event,
    rules: &JoinRules,
    watermark: EventTime,
    books: &Books,
    emit: &mut Emit<'_, Joined>,
) -> bool {
    if !rules.is_late(event.time, watermark) {
        return false;
    }
    books.borrow_mut().account(event.partition).add_late(watermark.0.saturating_sub(event.time.0));
    emit.emit(Joined::Late(*event));
    true
}

/// One compact state per request: the talk's `mapWithState`.
fn request_states(rules: JoinRules, books: Books) -> StateSpec<RequestId, Event, RequestState, Joined> {
    let dictionary = Rc::new(RefCell::new(JoinDictionary::default()));
    let (books_then, dictionary_then) = (Rc::clone(&books), Rc::clone(&dictionary));
    StateSpec::emitting(move |_: &RequestId, event: Event, state, emit: &mut Emit<'_, Joined>| {
        if is_late(&event, &rules, state.watermark(), &books, emit) {
            return;
        }
        let mut books = books.borrow_mut();
        books.account(event.partition).waiting += 1;
        let request: &mut RequestState = state.get_or_default();
        let arrival = request.step(&event, &rules, &mut dictionary.borrow_mut(), &mut |counted| {
            books.account(counted.partition).waiting -= 1;
            emit.emit_at(counted.time, Joined::Counted(counted));
        });
        settle(books.account(event.partition), arrival);
    })
    .timeout(rules.retention_ms())
    .on_timeout(move |&request, state, _| {
        let mut books = books_then.borrow_mut();
        state.expire(request, &mut dictionary_then.borrow_mut(), &mut |event| {
            expire(books.account(event.partition), &rules, &event);
        });
    })
}

/// A join that holds its requests itself.
struct Holding<J> {
    join: J,
    rules: JoinRules,
    books: Books,
}

impl<J: HoldingJoin + 'static> Process<RequestId, Event> for Holding<J> {
    type Side = ();
    type Out = Joined;

    fn record(&mut self, _: &RequestId, event: Event, context: Context, out: &mut Emit<'_, Joined>) {
        if is_late(&event, &self.rules, context.watermark, &self.books, out) {
            return;
        }
        let mut books = self.books.borrow_mut();
        books.account(event.partition).waiting += 1;
        let arrival = self.join.accept(&event, &mut |counted| {
            books.account(counted.partition).waiting -= 1;
            out.emit_at(counted.time, Joined::Counted(counted));
        });
        settle(books.account(event.partition), arrival);
    }

    fn end_batch(&mut self, context: Context, out: &mut Emit<'_, Joined>) {
        let (books, rules) = (&self.books, &self.rules);
        self.join.end_batch(
            context.watermark,
            &mut |counted| {
                books.borrow_mut().account(counted.partition).waiting -= 1;
                out.emit_at(counted.time, Joined::Counted(counted));
            },
            &mut |event, arrival| settle(books.borrow_mut().account(event.partition), arrival),
            &mut |event| expire(books.borrow_mut().account(event.partition), rules, &event),
        );
    }
}
