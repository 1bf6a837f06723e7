//! Work that waits for the disk.
//!
//! A runtime of one thread has its tasks to itself: a simulation, or a test.
//! There the work is done in place, since a thread beside it would do it at a
//! moment that nobody decides.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Whether the runtime has one thread only.
pub(crate) fn alone() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Does `work` where it holds up no task.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    if alone() {
        tokio::spawn(async move { work() })
    } else {
        tokio::task::spawn_blocking(work)
    }
}

/// Does `work` here, and lets other threads take over this one's other tasks.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if alone() {
        work()
    } else {
        tokio::task::block_in_place(work)
    }
}
