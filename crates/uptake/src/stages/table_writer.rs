//! The table has a thread of its own, so that counting goes on while rows are written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::tally::TallyRow;

/// Pieces of rows that may wait: with it a worker that seals an epoch fills one piece while
/// another is written.
const PIECES_MAX: usize = 2;

/// A handle to the thread that writes; one per worker.
#[derive(Clone)]
pub struct TableWriter {
    pieces: SyncSender<Vec<TallyRow>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    under_way: AtomicUsize,
    rows: AtomicUsize,
    error: Mutex<Option<TableError>>,
}

/// The thread, to wait for.
pub struct TableThread {
    thread: JoinHandle<Box<dyn Table>>,
    shared: Arc<Shared>,
}

impl TableWriter {
    /// Starts the thread; it ends when every handle is gone.
    pub fn start(table: Box<dyn Table>) -> (Self, TableThread) {
        let (pieces, receiver) = sync_channel(PIECES_MAX);
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || write_all(table, &receiver, &its));
        (Self { pieces, shared: Arc::clone(&shared) }, TableThread { thread, shared })
    }

    /// Whether everything handed over has been written.
    pub fn is_idle(&self) -> bool {
        self.shared.under_way.load(Ordering::Acquire) == 0
    }

    /// Hands rows over; waits while too many are under way.
    pub fn write(&self, rows: Vec<TallyRow>) {
        if !rows.is_empty() {
            self.shared.under_way.fetch_add(1, Ordering::AcqRel);
            // The thread reads until the last handle is gone, also after an error.
            if self.pieces.send(rows).is_err() {
                self.shared.under_way.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// What went wrong, once.
    pub fn take_error(&self) -> Option<TableError> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl TableThread {
    /// Waits until everything is written. All handles must be gone.
    ///
    /// # Errors
    /// What went wrong, if nobody took it before.
    pub fn join(self) -> Result<(Box<dyn Table>, usize), Box<dyn std::error::Error + Send + Sync>> {
        let table = self.thread.join().map_err(|_| "the thread that writes the table panicked")?;
        match self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok((table, self.shared.rows.load(Ordering::Acquire))),
        }
    }
}

fn write_all(mut table: Box<dyn Table>, pieces: &Receiver<Vec<TallyRow>>, shared: &Shared) -> Box<dyn Table> {
    let mut failed = false;
    for rows in pieces {
        // After an error nothing more is written: the run is stopping, and what was written
        // stays a table of rows that are right and may grow.
        if !failed {
            match table.write(&rows) {
                Ok(()) => drop(shared.rows.fetch_add(rows.len(), Ordering::AcqRel)),
                Err(error) => {
                    failed = true;
                    *shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        }
        shared.under_way.fetch_sub(1, Ordering::AcqRel);
    }
    table
}
