//! Checkpoints where things go wrong at an unlucky moment; each was found by a simulation.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uptake::checkpoint::{
    Coordinator, Fragment, InputPosition, Number, Part, Plan, Pump, Restored, Sections, Stage, Store,
};
use uptake::clock::Clock;
use uptake::outputs::Outputs;
use uptake_connectors::ObjectsError;
use uptake_connectors::archive::MemoryArchive;
use uptake_connectors::objects::{self, MemoryObjects, ObjectInfo, Objects, PutObject};
use uptake_connectors::table::MemoryTable;
use uptake_flow::{Checkpoints, EventTime};
use uptake_model::join::JoinRules;
use uptake_model::ledger::Ledger;
use uptake_model::tally::Counts;
use uptake_model::{Epoch, TallyRow};

/// Objects of which segments cannot be deleted at times.
#[derive(Default)]
struct Stuck(MemoryObjects, AtomicBool);

impl Objects for Stuck {
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> objects::Result<PutObject> {
        self.0.put_if_absent(name, bytes)
    }

    fn get(&self, name: &str) -> objects::Result<Option<Vec<u8>>> {
        self.0.get(name)
    }

    fn get_range(&self, name: &str, start: u64, len: u64) -> objects::Result<Option<Vec<u8>>> {
        self.0.get_range(name, start, len)
    }

    fn list(&self, prefix: &str) -> objects::Result<Vec<ObjectInfo>> {
        self.0.list(prefix)
    }

    fn delete(&self, name: &str) -> objects::Result<()> {
        if self.1.load(Ordering::Relaxed) && name.contains("/segment-") {
            let source = io::ErrorKind::TimedOut.into();
            return Err(ObjectsError::Io { operation: "delete", path: name.into(), source });
        }
        self.0.delete(name)
    }
}

/// A coordinator of one worker with one stage, in the run that begins now.
fn coordinator(store: &Store, outputs: &Outputs) -> Coordinator {
    let plan = Plan {
        process: (0, 1),
        workers: 1,
        stages: vec![Stage::Aggregate],
        interval: Duration::ZERO,
        keep: 3,
        first: Number::first(store.begin_run().unwrap()),
        meaning: "m".to_owned(),
        rules: JoinRules::default(),
        parts_deadline: Duration::from_secs(60),
        start: (InputPosition::Beginning, Ledger::default()),
    };
    Coordinator::new(plan, store.clone(), outputs.clone())
}

/// Begins the last checkpoint of a run, whose only section holds `bytes`.
fn begin(coordinator: &Coordinator, outputs: &Outputs, bytes: &[u8]) {
    let number = coordinator.due(EventTime(0), true).unwrap();
    let mut sections = Sections::default();
    sections.section(uptake::checkpoint::SectionKind::Counted, 0).extend_from_slice(bytes);
    let part = Part {
        stage: Stage::Aggregate,
        sections,
        ledger: Ledger::default(),
        input: Fragment::Nothing,
        tickets: outputs.tickets(),
    };
    coordinator.submit(number, 0, part);
}

fn outputs() -> Outputs {
    let (table, archive) = (Box::new(MemoryTable::new()), Box::new(MemoryArchive::new()));
    Outputs::new(table, archive, Duration::from_secs(1), &Clock::system())
}

/// A segment that was left behind took the place of one of a new run with the same number, and the
/// new run's checkpoints could not be read.
#[test]
fn what_an_interrupted_clear_left_is_never_taken_for_ones_own() {
    let objects = Arc::new(Stuck::default());
    let store = Store::new(Arc::clone(&objects) as Arc<dyn Objects>, "main");
    let outputs = outputs();
    for (run, bytes) in [b"one".as_slice(), b"other"].into_iter().enumerate() {
        let coordinator = coordinator(&store, &outputs);
        begin(&coordinator, &outputs, bytes);
        assert_eq!(coordinator.pump(), Pump::Worked);
        let (restored, refused) = Restored::newest(&store, "m").unwrap();
        assert_eq!((restored.unwrap().segments.len(), refused), (1, vec![]), "run {run}");
        objects.1.store(true, Ordering::Relaxed);
        store.clear().unwrap_err();
        objects.1.store(false, Ordering::Relaxed);
        assert!(Restored::newest(&store, "m").unwrap().0.is_none());
    }
}

/// A checkpoint that was committed after the store had been cleared had a larger number than all of
/// the runs after it, and stayed the newest for ever.
#[test]
fn a_run_takes_a_larger_number_than_any_checkpoint() {
    let store = Store::new(Arc::new(MemoryObjects::new()), "main");
    let outputs = outputs();
    store.begin_run().unwrap();
    let overlooked = coordinator(&store, &outputs);
    store.clear().unwrap();
    begin(&overlooked, &outputs, b"");
    assert_eq!(overlooked.pump(), Pump::Worked);
    assert_eq!((store.newest_run().unwrap(), store.begin_run().unwrap()), (2, 3));
}

/// A run that was stopped waited for ever for a table that had given up after its last batch.
#[test]
fn the_last_checkpoint_does_not_wait_for_a_table_that_gave_up() {
    let store = Store::new(Arc::new(MemoryObjects::new()), "main");
    let outputs = outputs();
    let coordinator = coordinator(&store, &outputs);
    // The table refuses a count that is too large.
    outputs.write(vec![TallyRow {
        video_id: "v".into(),
        segment: "".into(),
        epoch: Epoch(0),
        counts: Counts { plays: u64::MAX, impressions: 0, exact: true },
        sealed: false,
        sets: None,
    }]);
    begin(&coordinator, &outputs, b"");
    coordinator.close(false);
    outputs.pump_table();
    coordinator.pump();
    assert!(coordinator.is_done(), "there is nothing to wait for");
    assert!(outputs.take_error().is_some(), "which says why");
    assert!(store.manifests().unwrap().is_empty());
}
