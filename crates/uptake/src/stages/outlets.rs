//! What the stages of all workers of a process share: where results go, the books, and the
//! checkpoint that is gone on from.

use std::sync::{Arc, Mutex, PoisonError};

use uptake_connectors::log::Log;
use uptake_model::ledger::Ledger;

use crate::checkpoint::{Coordinator, Fragment, Part, Restored, Sections, Stage};
use crate::clock::Clock;
use crate::memory::Memory;
use crate::outputs::Outputs;
use crate::stages::keep::Keeping;
use crate::stages::spill::Spill;

/// Shared by all workers of a process.
#[derive(Clone)]
pub struct Outlets {
    /// Dead letters and late events; for a live run also the input.
    pub log: Arc<dyn Log>,
    /// Tallies: the table, and the archive of sealed ones.
    pub outputs: Outputs,
    /// The books of all stages.
    pub accounts: Accounts,
    /// Takes the stages' parts of checkpoints, where any are taken.
    pub checkpoints: Option<Arc<Coordinator>>,
    /// What the run goes on from.
    pub restored: Restoring,
    /// Workers of this process.
    pub workers: usize,
    /// What the process may hold.
    pub memory: Arc<Memory>,
    /// Where requests go that memory has no room for.
    pub spill: Option<Spill>,
    /// Takes what counts, where nothing is to be tallied.
    pub keeping: Option<Keeping>,
    /// What time it is.
    pub clock: Clock,
}

impl Outlets {
    /// The books of one stage of one worker.
    pub fn books(&self) -> Books {
        let shared = Arc::default();
        let mut all = self.accounts.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&shared));
        Books { ledger: Ledger::default(), shared }
    }

    /// Hands in a stage's part of a checkpoint; `worker` is the number over all processes.
    pub fn submit(
        &self,
        number: u64,
        worker: usize,
        stage: Stage,
        sections: Sections,
        ledger: Ledger,
        input: Fragment,
    ) {
        if let Some(checkpoints) = &self.checkpoints {
            let tickets = self.outputs.tickets();
            checkpoints.submit(
                number,
                worker % self.workers,
                Part { stage, sections, ledger, input, tickets },
            );
        }
    }
}

/// The books of all stages of all workers of a process, as each published them last.
#[derive(Clone, Default)]
pub struct Accounts(Arc<Mutex<Vec<Arc<Mutex<Ledger>>>>>);

impl Accounts {
    /// Begins with the books of the checkpoint that is gone on from.
    pub fn starting_with(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(vec![Arc::new(Mutex::new(ledger))])))
    }

    /// All of them, added up. While the run goes on, the stages stand at different batches: what
    /// was read and not yet accounted for is on its way. At the end every record is accounted for.
    pub fn ledger(&self) -> Ledger {
        let mut total = Ledger::default();
        for ledger in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            total.merge(&ledger.lock().unwrap_or_else(PoisonError::into_inner));
        }
        total
    }
}

/// The books of one stage of one worker: what it did with the records that came to it.
///
/// A stage that takes over what another wrote down, as the join does with what waits, subtracts:
/// single stages may show less than nothing, all together never do.
pub struct Books {
    /// The running books.
    pub ledger: Ledger,
    shared: Arc<Mutex<Ledger>>,
}

impl Books {
    /// Shows the books to everyone.
    pub fn publish(&self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.ledger);
    }
}

/// A checkpoint that each worker of a process takes its part of, and that is gone when all have:
/// it is as large as the state.
#[derive(Clone, Default)]
pub struct Restoring(Arc<Mutex<(Option<Arc<Restored>>, usize)>>);

impl Restoring {
    /// A checkpoint for so many workers.
    pub fn new(restored: Option<Arc<Restored>>, workers: usize) -> Self {
        Self(Arc::new(Mutex::new((restored, workers))))
    }

    /// The checkpoint, for one of the workers.
    pub fn for_a_worker(&self) -> Option<Arc<Restored>> {
        let (restored, left) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(1);
        if *left == 0 { restored.take() } else { restored.clone() }
    }
}
