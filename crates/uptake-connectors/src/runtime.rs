//! One runtime for the asynchronous drivers, shared by all connectors of a process.

use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Two threads: they only move bytes between sockets and memory.
const THREADS: usize = 2;

/// Runs a driver's future to its end on the calling thread.
///
/// Must not be called from inside an asynchronous task; servers call the connectors from threads
/// that may block, such as those of `spawn_blocking`.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(runtime()?.block_on(future))
}

fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let build =
        || Builder::new_multi_thread().worker_threads(THREADS).thread_name("uptake-io").enable_all().build();
    RUNTIME.get_or_init(build).as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))
}
