//! The state of a keyed stream behaves as Spark's where it has the same name.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::sync::{Arc, Mutex};

use uptake_flow::{
    Batches, Context, Emit, EventTime, Options, Process, Source, StateSpec, To, hours, minutes, run,
};

type Input = Vec<Vec<(EventTime, (String, i64))>>;

/// One row a batch: `"10 a 1 | 11 b 2"` = at minute 10 key a, value 1; and so on.
fn input(batches: &[&str]) -> Input {
    let record = |text: &str| {
        let f: Vec<&str> = text.split_whitespace().collect();
        (EventTime(minutes(f[0].parse().unwrap())), (f[1].to_owned(), f[2].parse().unwrap()))
    };
    let batch = |text: &&str| text.split('|').filter(|t| !t.trim().is_empty()).map(record).collect();
    batches.iter().map(batch).collect()
}

type Spec = fn() -> StateSpec<String, i64, i64, String>;

#[derive(Debug, Default, PartialEq)]
struct Output {
    mapped: Vec<String>,
    changes: Vec<String>,
    snapshots: Vec<String>,
}

/// What comes out, as `batch: text`, sorted within a batch where several workers took part.
fn outputs(input: Input, spec: Spec, snapshots_every: u64, workers: usize) -> Output {
    let results = run(&Options { workers, ..Options::default() }, move |flow| {
        let stateful = flow.source(Batches::new(flow.worker(), input.clone())).keyed().map_with_state(spec());
        let snapshots = stateful.state_snapshots(snapshots_every);
        (stateful.mapped().collect(), stateful.state_changes().collect(), snapshots.collect())
    })
    .unwrap();
    let mut out = Output::default();
    for (mapped, changes, snapshots) in results {
        out.mapped.extend(mapped.take().into_iter().map(|(b, m)| format!("{b}: {m}")));
        out.changes.extend(changes.take().into_iter().map(|(b, (k, s))| format!("{b}: {k}={s}")));
        out.snapshots.extend(snapshots.take().into_iter().map(|(b, (k, s))| format!("{b}: {k}={s}")));
    }
    if workers > 1 {
        out.mapped.sort();
    }
    out.changes.sort();
    out.snapshots.sort();
    out
}

fn summing() -> StateSpec<String, i64, i64, String> {
    StateSpec::new(|key: &String, value, sum| {
        let new = sum.get().copied().unwrap_or(0) + value;
        sum.update(new);
        Some(format!("{key}+{value}={new}"))
    })
}

#[test]
fn each_record_calls_the_step_in_order() {
    let out = outputs(input(&["1 a 1 | 1 a 2 | 1 b 5 | 1 a 3", "", "2 a 10"]), summing, 100, 1);
    assert_eq!(out.mapped, ["0: a+1=1", "0: a+2=3", "0: b+5=5", "0: a+3=6", "2: a+10=16"]);
}

#[test]
fn changes_hold_each_touched_key_once_per_batch() {
    let out = outputs(input(&["1 a 1 | 1 a 2 | 1 b 5", "", "2 a 10"]), summing, 100, 1);
    assert_eq!(out.changes, ["0: a=3", "0: b=5", "2: a=13"]);
}

#[test]
fn snapshots_hold_untouched_keys_too() {
    let out = outputs(input(&["1 a 1 | 1 b 5", "2 a 10", "3 c 1", ""]), summing, 2, 1);
    // The last one comes with the end of the input, which is a batch too.
    assert_eq!(
        out.snapshots,
        ["1: a=11", "1: b=5", "3: a=11", "3: b=5", "3: c=1", "5: a=11", "5: b=5", "5: c=1"]
    );
}

#[test]
fn the_answer_does_not_depend_on_the_workers() {
    let batches: Vec<String> = (0..20i64)
        .map(|b| (0..30).map(|i| format!("{b} k{} {}", (b * i) % 11, i)).collect::<Vec<_>>().join("|"))
        .collect();
    let input = input(&batches.iter().map(String::as_str).collect::<Vec<_>>());
    let mut one = outputs(input.clone(), summing, 5, 1);
    one.mapped.sort();
    for workers in [2, 3, 4] {
        assert_eq!(outputs(input.clone(), summing, 5, workers), one, "{workers} workers");
    }
}

#[test]
fn get_exists_update_remove() {
    fn spec() -> StateSpec<String, i64, i64, String> {
        StateSpec::new(|_: &String, value, state| {
            let before = (state.exists(), state.get().copied());
            match value {
                0 => {
                    let removed = state.remove();
                    assert!(!state.exists() && state.get().is_none());
                    Some(format!("{before:?} removed {removed:?}"))
                }
                value => {
                    state.update(value);
                    assert_eq!(state.get_mut().copied(), Some(value));
                    Some(format!("{before:?}"))
                }
            }
        })
    }
    let out = outputs(input(&["1 a 7 | 1 a 8 | 1 a 0 | 1 a 0 | 1 a 9", "2 a 0"]), spec, 1, 1);
    assert_eq!(
        out.mapped,
        [
            "0: (false, None)",
            "0: (true, Some(7))",
            "0: (true, Some(8)) removed Some(8)",
            "0: (false, None) removed None", // removed keys are absent
            "0: (false, None)",              // and may come again
            "1: (true, Some(9)) removed Some(9)",
        ]
    );
    assert_eq!(out.changes, ["0: a=9"]); // removed in batch 1: nothing to show
    assert_eq!(out.snapshots, ["0: a=9"]);
}

fn timing_out() -> StateSpec<String, i64, i64, String> {
    summing().timeout(minutes(10)).on_timeout(|key, sum, emit| emit.emit(format!("{key} over with {sum}")))
}

#[test]
fn an_idle_key_is_handed_over_once() {
    let out =
        outputs(input(&["0 a 1", "5 b 1", "10 b 1", "11 b 1", "12 b 1 | 12 a 1", ""]), timing_out, 100, 1);
    let a_is_over: Vec<_> = out.mapped.iter().filter(|m| m.contains("over")).collect();
    // a is over when the watermark has passed minute 10, in batch 3; it comes again, fresh; at
    // the end of the input everything is over.
    assert_eq!(a_is_over[0], "3: a over with 1");
    assert!(out.mapped.contains(&"4: a+1=1".to_owned()), "a new state: {:?}", out.mapped);
    let mut rest: Vec<_> = a_is_over[1..].iter().map(|m| m.split_once(": ").unwrap().1).collect();
    rest.sort_unstable();
    assert_eq!(rest, ["a over with 1", "b over with 4"]);
}

#[test]
fn a_record_at_the_deadline_keeps_its_key() {
    let out = outputs(input(&["0 a 1", "10 b 1", "10 a 1"]), timing_out, 100, 1);
    assert!(out.mapped.contains(&"2: a+1=2".to_owned()), "{:?}", out.mapped);
}

#[test]
fn records_of_the_batch_that_moves_the_watermark_come_before_its_timeouts() {
    // The batch brings both the event that passes a's deadline and one of a itself.
    let out = outputs(input(&["0 a 1", "60 b 1 | 1 a 1"]), timing_out, 100, 1);
    assert_eq!(out.mapped[..3], ["0: a+1=1", "1: b+1=1", "1: a+1=2"]);
    assert_eq!(out.mapped[3], "1: a over with 2");
}

#[test]
fn timeouts_fire_in_batches_without_data() {
    /// Two partitions; the second holds the watermark until it is idle, in a batch of its own.
    struct Held(u32);
    impl Source<(String, i64)> for Held {
        type Position = ();

        fn position(&self) {}

        fn poll(
            &mut self,
            batch: &mut uptake_flow::Batch<'_, (String, i64)>,
        ) -> Result<uptake_flow::Poll, Box<dyn std::error::Error + Send + Sync>> {
            self.0 += 1;
            match self.0 {
                1 => {
                    batch.push(EventTime(0), ("a".to_owned(), 1));
                    batch.push(EventTime(hours(1)), ("b".to_owned(), 1));
                    batch.progress(0, Some(EventTime(hours(1))), true);
                    batch.progress(1, Some(EventTime(0)), false);
                }
                2 => {}
                3 => batch.progress(1, None, true), // read to its end: nothing holds any more
                4 | 5 => {}
                _ => return Ok(uptake_flow::Poll::End),
            }
            Ok(uptake_flow::Poll::Full)
        }
    }
    let results = run(&Options::default(), |flow| {
        flow.source(Held(0)).keyed().map_with_state(timing_out()).mapped().collect()
    })
    .unwrap();
    let out: Vec<_> = results[0].take().into_iter().map(|(b, m)| format!("{b}: {m}")).collect();
    assert_eq!(out[2], "2: a over with 1", "{out:?}");
}

#[test]
fn initial_state_counts_as_present() {
    fn spec() -> StateSpec<String, i64, i64, String> {
        let initial = (0..50).map(|i| (format!("k{i}"), EventTime(0), 100 + i));
        timing_out().initial_state(initial)
    }
    for workers in [1, 3] {
        let out = outputs(input(&["1 k3 1", "", "30 z 1", ""]), spec, 2, workers);
        assert!(out.mapped.contains(&"0: k3+1=104".to_owned()));
        assert_eq!(out.snapshots.iter().filter(|s| s.starts_with("1: k")).count(), 50, "{workers} workers");
        assert!(out.mapped.contains(&"2: k4 over with 104".to_owned()), "it times out as any other");
        assert_eq!(out.mapped.iter().filter(|m| m.contains("over")).count(), 51, "each once");
    }
}

#[test]
fn a_failing_sink_stops_the_run_and_ends_no_wait() {
    let over = Arc::new(Mutex::new(0));
    for workers in [1, 2] {
        let counter = Arc::clone(&over);
        let error = run(&Options { workers, ..Options::default() }, move |flow| {
            let (stop, counter) = (flow.stop(), Arc::clone(&counter));
            let endless = (0..1_000).map(|i| vec![(EventTime(0), (format!("k{i}"), 1))]).collect();
            flow.source(Batches::new(flow.worker(), endless))
                .keyed()
                .map_with_state(timing_out())
                .into_mapped()
                .for_each(move |batch, _, text| {
                    *counter.lock().unwrap() += usize::from(text.contains("over"));
                    if batch == 3 {
                        stop.fail("the disk is full");
                    }
                });
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "the disk is full");
    }
    assert_eq!(*over.lock().unwrap(), 0, "what was waiting when it failed is not over");
}

#[test]
fn a_panic_in_one_worker_stops_all_with_one_error() {
    let error = run(&Options { workers: 3, ..Options::default() }, |flow| {
        let endless = (0..10_000).map(|i| vec![(EventTime(0), i)]).collect();
        let flows = flow.source(Batches::new(flow.worker(), endless)).map(|i: i64| {
            assert!(i < 5, "number {i}");
            i
        });
        flows.for_each(|_, _, _| {});
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "worker 0 panicked: number 5");
}

#[test]
fn connected_streams_have_both_come_when_a_batch_ends() {
    #[derive(Default)]
    struct Named {
        names: Vec<(String, String)>,
        waiting: Vec<String>,
    }
    impl Process<String, i64> for Named {
        type Side = (String, String);
        type Out = String;
        fn record(&mut self, key: &String, value: i64, _: Context, _: &mut Emit<'_, String>) {
            self.waiting.push(format!("{key} {value}"));
        }
        fn side(&mut self, name: (String, String)) {
            self.names.push(name);
        }
        fn end_batch(&mut self, _: Context, out: &mut Emit<'_, String>) {
            for waiting in self.waiting.drain(..) {
                let key = waiting.split(' ').next().unwrap();
                let name = self.names.iter().find(|(k, _)| k == key).map_or("?", |(_, name)| name);
                out.emit(format!("{name}: {waiting}"));
            }
        }
    }
    for workers in [1, 2, 4] {
        let results = run(&Options { workers, ..Options::default() }, |flow| {
            let values = flow.source(Batches::new(flow.worker(), input(&["1 a 1 | 1 b 2", "2 c 3 | 2 a 4"])));
            let name = |k: &str, n: &str| (EventTime(0), (k.to_owned(), n.to_owned()));
            let names = vec![vec![name("b", "Bee"), name("a", "Ay")], vec![name("c", "Sea")]];
            let names = flow.source(Batches::new(flow.worker(), names));
            values.keyed().process_with(names, |(k, _)| To::Key(k.clone()), Named::default()).collect()
        })
        .unwrap();
        let mut out: Vec<_> =
            results.iter().flat_map(|r| r.take()).map(|(b, t)| format!("{b} {t}")).collect();
        out.sort();
        assert_eq!(out, ["0 Ay: a 1", "0 Bee: b 2", "1 Ay: a 4", "1 Sea: c 3"], "{workers} workers");
    }
}
