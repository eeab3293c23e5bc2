//! The join stage: the model's three methods on the engine's keyed streams.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use uptake_flow::{
    Context, Emit, EventTime, Flow, KeyedState, KeyedStream, Process, SHARDS, StateSpec, Stream, shard,
};
use uptake_model::join::{
    Arrival, BatchToWindow, HoldingJoin, JoinDictionary, JoinNames, JoinRules, JoinSaver, RequestState,
    WindowJoin,
};
use uptake_model::ledger::Account;
use uptake_model::{Event, RequestId};

use crate::checkpoint::{
    CheckpointError, Fields, Fragment, Restored, SectionKind, Sections, Segment, Stage, count_due, each_due,
    for_own_shards, put_part, shard_buffers,
};
use crate::config::{Config, JoinMethod};
use crate::memory::Room;
use crate::outputs::notice;
use crate::stages::outlets::{Books, Outlets};
use crate::stages::spill::{Spill, Spilled};
use crate::stages::{Arrived, Joined};

/// What counts, and what came too late, of the events by request.
pub fn by_request<'s>(
    flow: &Flow<'s>,
    events: KeyedStream<'s, RequestId, Arrived>,
    config: &Arc<Config>,
    outlets: &Outlets,
    restored: Option<&Restored>,
) -> Stream<'s, Joined> {
    let rules = config.join;
    match config.join_method {
        JoinMethod::State => {
            events.map_with_state(request_states(flow, config, outlets, restored)).into_mapped()
        }
        JoinMethod::Window => {
            events.process(Holding::new(flow, WindowJoin::new(rules), config, outlets, restored))
        }
        JoinMethod::BatchToWindow => {
            events.process(Holding::new(flow, BatchToWindow::new(rules), config, outlets, restored))
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
    account.end_waiting();
}

/// Whether an event was cut by the cap and somebody wants to know.
fn is_cut(event: &Event, arrival: Arrival, config: &Config) -> bool {
    arrival == Arrival::Capped && config.tells_cut(event.kind)
}

/// A late event is written down and sent on, to be kept in the late log; says whether it was.
#[inline(always)]
fn is_late(
    event: &Event,
    rules: &JoinRules,
    watermark: EventTime,
    books: &mut Books,
    emit: &mut Emit<'_, Joined>,
) -> bool {
    if !rules.is_late(event.time, watermark) {
        return false;
    }
    books.ledger.account(event.partition).add_late(watermark.0.saturating_sub(event.time.0));
    emit.emit_at(event.time, Joined::Late(*event));
    true
}

/// One compact state per request: the talk's `mapWithState`.
fn request_states(
    flow: &Flow<'_>,
    config: &Arc<Config>,
    outlets: &Outlets,
    restored: Option<&Restored>,
) -> StateSpec<RequestId, Arrived, RequestState, Joined> {
    let (rules, config) = (config.join, Arc::clone(config));
    let mut dictionary = JoinDictionary::default();
    let (mut requests, spilled) = spilling(flow, &rules, outlets);
    let mut excess = excess(outlets);
    if let Some(restored) = restored
        && let Err(error) =
            restore_requests(restored, flow, &rules, &mut dictionary, &mut requests, &mut excess)
    {
        flow.stop().fail(error);
    }
    // Step, timeout and checkpoint share what this worker has, one at a time.
    let books = Rc::new(RefCell::new(outlets.books()));
    let dictionary = Rc::new(RefCell::new(dictionary));
    let (books_then, dictionary_then) = (Rc::clone(&books), Rc::clone(&dictionary));
    let (books_saved, dictionary_saved) = (Rc::clone(&books), Rc::clone(&dictionary));
    let (books_shown, dictionary_ended) = (Rc::clone(&books), Rc::clone(&dictionary));
    let spec = StateSpec::<_, Arrived, RequestState, Joined>::by_runs(move |&request, run, state, emit| {
        let (books, dictionary) = (&mut *books.borrow_mut(), &mut *dictionary.borrow_mut());
        let watermark = state.watermark();
        let from = rules.late_before(watermark);
        while let Some((time, arrived)) = run.next() {
            let event = arrived.event(request, time);
            if is_late(&event, &rules, watermark, books, emit) {
                if let Some(waiting) = state.get_mut() {
                    waiting.prolong(time, &rules, dictionary);
                }
                continue;
            }
            let ledger = &mut books.ledger;
            ledger.account(event.partition).begin_waiting(1);
            let waiting: &mut RequestState = state.get_or_default();
            let arrival = waiting.step(&event, &rules, dictionary, &mut |counted| {
                ledger.account(counted.partition).end_waiting();
                emit.emit_at(counted.time, Joined::Counted(counted));
            });
            settle(ledger.account(event.partition), arrival);
            if is_cut(&event, arrival, &config) {
                emit.emit_at(event.time, Joined::Cut(event));
            }
            if run.others().is_empty() {
                break;
            }
            // Most that follow only wait, too, and are of the same partition or not taken here.
            let others = run.others().iter().map(|record| record.value.1.event(request, record.time));
            let taken = waiting.wait(others, from, &rules, dictionary);
            if let Some(record) = run.others().first().filter(|_| taken > 0) {
                ledger.account(record.value.1.partition).begin_waiting(taken as u64);
                run.skip_others(taken);
            }
        }
    })
    .timeout(rules.retention_ms())
    .on_timeout(move |_, state, _| {
        let ledger = &mut books_then.borrow_mut().ledger;
        state.expire_counted(&mut dictionary_then.borrow_mut(), &mut |partition, kind, events| {
            ledger.account(partition).expire(kind, events);
        });
    })
    .on_end_batch(move |watermark| {
        dictionary_ended.borrow_mut().forget_before(watermark);
        books_shown.borrow().publish();
    })
    .spilling(excess)
    .restored(requests);
    if outlets.checkpoints.is_none() {
        return spec;
    }
    let (outlets, worker) = (outlets.clone(), flow.worker());
    let (mut saver, mut sizes) = (JoinSaver::default(), vec![0; SHARDS as usize]);
    spec.on_checkpoint(move |number, states| {
        let dictionary = dictionary_saved.borrow();
        let on_disk = Fragment::Spilled((states.len() - states.held()) as u64);
        let saved = save_requests(number, states, spilled.as_ref(), &dictionary, &mut saver, &mut sizes);
        let Some(sections) = saved else { return };
        let ledger = books_saved.borrow().ledger.clone();
        outlets.submit(number, worker, Stage::Join, sections, ledger, on_disk);
    })
}

/// Writes an entry: request u64, deadline i64, length u32, state.
fn put_entry(shards: &mut [Vec<u8>], request: RequestId, deadline: EventTime, state: &[u8]) {
    let out = &mut shards[shard(&request) as usize];
    out.extend_from_slice(&request.0.to_le_bytes());
    out.extend_from_slice(&deadline.0.to_le_bytes());
    put_part(out, state);
}

/// No states yet; and where they go that memory has no room for, if they may go anywhere.
fn spilling(
    flow: &Flow<'_>,
    rules: &JoinRules,
    outlets: &Outlets,
) -> (KeyedState<RequestId, RequestState>, Option<Spilled>) {
    let requests = KeyedState::default();
    let Some(spill) = &outlets.spill else { return (requests, None) };
    let spilled = Spilled::new(spill, flow.worker(), rules.retention_ms(), flow.stop());
    (requests.spilling_to(Box::new(spilled.clone())), Some(spilled))
}

/// Of so many requests in memory, how many are to go.
fn excess(outlets: &Outlets) -> Box<dyn FnMut(usize) -> usize> {
    match &outlets.spill {
        Some(Spill { held_max: Some(most), .. }) => {
            let most = *most;
            Box::new(move |held| held.saturating_sub(most))
        }
        Some(Spill { folder, held_max: None }) => {
            let (mut room, mut said) = (Room::new(Arc::clone(&outlets.memory)), false);
            let folder = folder.display().to_string();
            Box::new(move |held| {
                let excess = room.excess(held);
                if excess > 0 && !std::mem::replace(&mut said, true) {
                    notice(&format!(
                        "memory is short: requests that wait longest go to {folder} from now on"
                    ));
                }
                excess
            })
        }
        None => Box::new(|_| 0),
    }
}

/// Writes the states that changed since the checkpoint before, and this one's part of all; `None`
/// if some cannot be had. `sizes` are those of the shards in the checkpoint before.
fn save_requests(
    number: u64,
    states: &mut KeyedState<RequestId, RequestState>,
    spilled: Option<&Spilled>,
    dictionary: &JoinDictionary,
    saver: &mut JoinSaver,
    sizes: &mut [usize],
) -> Option<Sections> {
    // A checkpoint is about as large as the one before; growing would leave as much memory behind.
    let mut shards: Vec<Vec<u8>> = sizes.iter().map(|size| Vec::with_capacity(size + size / 8)).collect();
    let mut bytes = Vec::new();
    saver.begin(dictionary, count_due(number, states));
    let mut save = |request: RequestId, state: &RequestState, deadline: EventTime| {
        bytes.clear();
        state.save(dictionary, saver, &mut bytes);
        put_entry(&mut shards, request, deadline, &bytes);
    };
    each_due(number, states, &mut |request, state, deadline| {
        save(*request, state, deadline.unwrap_or(EventTime::MAX));
    });
    // Who restores takes the first state of a request that a section has, so the older ones that
    // may be among those on disk come last.
    if !spilled.is_none_or(|spilled| spilled.each_due(number, &mut save)) {
        return None;
    }
    sizes.iter_mut().zip(&shards).for_each(|(size, shard)| *size = shard.len());
    let mut sections = Sections::default();
    sections.put_shards(SectionKind::Requests, shards);
    *sections.section(SectionKind::JoinNames, 0) = saver.names(dictionary);
    Some(sections)
}

/// Reads an entry: a request, its deadline, and its state's bytes.
fn entry<'a>(fields: &mut Fields<'a>) -> Result<(RequestId, EventTime, &'a [u8]), CheckpointError> {
    Ok((RequestId(fields.u64()?), EventTime(fields.i64()?), fields.part()?))
}

/// Takes this worker's requests as the checkpoint has them; `excess` says how many of those in
/// memory are to go.
fn restore_requests(
    restored: &Restored,
    flow: &Flow<'_>,
    rules: &JoinRules,
    dictionary: &mut JoinDictionary,
    states: &mut KeyedState<RequestId, RequestState>,
    excess: &mut dyn FnMut(usize) -> usize,
) -> Result<(), CheckpointError> {
    let names = |segment: &Segment| {
        JoinNames::read(&segment.section(SectionKind::JoinNames, 0)?)
            .map_err(|error| segment.damaged(error.to_string()))
    };
    let names: std::collections::BTreeMap<&str, JoinNames> = restored
        .segments
        .iter()
        .map(|s| Ok((s.name(), names(s)?)))
        .collect::<Result<_, CheckpointError>>()?;
    let mut seen = HashSet::new();
    let mut last = EventTime::MIN;
    for_own_shards(flow, |shard| {
        seen.clear();
        for section in restored.sections(SectionKind::Requests, shard) {
            let (segment, bytes) = section?;
            let mut fields = Fields::new(segment, &bytes);
            while !fields.is_empty() {
                let (request, deadline, mut state) = entry(&mut fields)?;
                // The newest comes first. What had ended by then is in older segments still; it was
                // accounted for.
                if seen.insert(request) && deadline >= restored.manifest.watermark {
                    let state =
                        RequestState::load(request, &mut state, &names[segment.name()], rules, dictionary)
                            .map_err(|error| segment.damaged(error.to_string()))?;
                    states.restore(&request, Some(deadline), state);
                    last = deadline.max(last);
                }
            }
        }
        states.spill(excess(states.held()));
        Ok(())
    })?;
    // The retention may have been another one when these deadlines were set.
    dictionary.keep_until(last);
    Ok(())
}

/// A join that holds its requests itself.
struct Holding<J> {
    join: J,
    config: Arc<Config>,
    books: Books,
    outlets: Outlets,
    worker: usize,
}

impl<J: HoldingJoin> Holding<J> {
    fn new(
        flow: &Flow<'_>,
        mut join: J,
        config: &Arc<Config>,
        outlets: &Outlets,
        restored: Option<&Restored>,
    ) -> Self {
        if let Some(restored) = restored
            && let Err(error) = Self::restore(&mut join, restored, flow)
        {
            flow.stop().fail(error);
        }
        Self {
            join,
            config: Arc::clone(config),
            books: outlets.books(),
            outlets: outlets.clone(),
            worker: flow.worker(),
        }
    }

    fn restore(join: &mut J, restored: &Restored, flow: &Flow<'_>) -> Result<(), CheckpointError> {
        for_own_shards(flow, |shard| {
            for section in restored.latest_sections(SectionKind::Requests, shard) {
                let (segment, bytes) = section?;
                let mut fields = Fields::new(segment, &bytes);
                while !fields.is_empty() {
                    let (request, _, state) = entry(&mut fields)?;
                    join.load(request, state).map_err(|error| segment.damaged(error.to_string()))?;
                }
            }
            Ok(())
        })
    }
}

impl<J: HoldingJoin + 'static> Process<RequestId, Arrived> for Holding<J> {
    type Side = ();
    type Out = Joined;

    fn record(
        &mut self,
        &request: &RequestId,
        arrived: Arrived,
        context: Context,
        out: &mut Emit<'_, Joined>,
    ) {
        let event = arrived.event(request, context.time);
        if is_late(&event, &self.config.join, context.watermark, &mut self.books, out) {
            return;
        }
        let ledger = &mut self.books.ledger;
        ledger.account(event.partition).begin_waiting(1);
        let arrival = self.join.step(&event, &mut |counted| {
            ledger.account(counted.partition).end_waiting();
            out.emit_at(counted.time, Joined::Counted(counted));
        });
        settle(ledger.account(event.partition), arrival);
        if is_cut(&event, arrival, &self.config) {
            out.emit(Joined::Cut(event));
        }
    }

    fn end_batch(&mut self, context: Context, out: &mut Emit<'_, Joined>) {
        let ledger = RefCell::new(&mut self.books.ledger);
        let mut cut = Vec::new();
        self.join.end_batch(
            context.watermark,
            &mut |counted| {
                ledger.borrow_mut().account(counted.partition).end_waiting();
                out.emit_at(counted.time, Joined::Counted(counted));
            },
            &mut |event, arrival| {
                settle(ledger.borrow_mut().account(event.partition), arrival);
                if is_cut(&event, arrival, &self.config) {
                    cut.push(Joined::Cut(event));
                }
            },
            &mut |event| ledger.borrow_mut().account(event.partition).expire(event.kind, 1),
        );
        cut.into_iter().for_each(|cut| out.emit(cut));
        self.books.publish();
    }

    /// Windows are written whole each time.
    fn checkpoint(&mut self, number: u64) {
        let mut shards = shard_buffers();
        self.join.save(&mut |request, state| put_entry(&mut shards, request, EventTime::MAX, state));
        let mut sections = Sections::default();
        sections.put_shards(SectionKind::Requests, shards);
        let ledger = self.books.ledger.clone();
        self.outlets.submit(number, self.worker, Stage::Join, sections, ledger, Fragment::Nothing);
    }
}
