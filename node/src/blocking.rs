//! Work that waits for the disk.
//!
//! A runtime of one thread has its tasks to itself: a simulation, or a test.
//! There the work is done in place, since a thread beside it would do it at a
//! moment that nobody decides.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What is added to the niceness of a thread in the background: a ninth of the weight of
/// others. More would let whoever waits for a lock that it holds wait for long.
const BACKGROUND_NICE: i32 = 10;

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

/// Does long `work` on a thread of its own, named `name`, that the system lets wait for
/// all others: none of them is delayed by it for long, and it takes what they leave.
///
/// # Errors
/// When there can be no such thread, or `work` panics.
pub(crate) async fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if alone() {
        return spawn_blocking(work).await.map_err(io::Error::other);
    }
    let (done, result) = oneshot::channel();
    let run = move || {
        // To Linux this is the thread's alone. Who may not, is only less considerate.
        rustix::process::nice(BACKGROUND_NICE).ok();
        done.send(work()).ok();
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)?;
    result
        .await
        .map_err(|_| io::Error::other(format!("the thread '{name}' panicked")))
}

/// Does `work` here, and lets other threads take over this one's other tasks.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if alone() {
        work()
    } else {
        tokio::task::block_in_place(work)
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn only_the_thread_in_the_background_is_nice() {
        let before = getpriority_process(None).expect("its own");
        let there = in_background("test", || getpriority_process(None))
            .await
            .expect("it ends")
            .expect("its own");
        assert_eq!(there, (before + BACKGROUND_NICE).min(19));
        assert_eq!(getpriority_process(None).expect("its own"), before);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_panic_in_the_background_is_an_error() {
        let ended = in_background("test", || -> () { panic!("as asked") }).await;
        let error = ended.expect_err("it panicked").to_string();
        assert_eq!(error, "the thread 'test' panicked");
    }
}
