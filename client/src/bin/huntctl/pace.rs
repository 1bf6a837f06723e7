//! How fast a run submits: not above `--rate`, and slowly for as long as a
//! script has been told to break something and has not done it yet. A short
//! recording would otherwise be over before its middle is broken.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::args::RunArguments;

/// Between two batches while the script is awaited.
const SLOW: Duration = Duration::from_millis(20);

/// A script that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run's pace, shared by its sessions.
#[derive(Debug)]
pub struct Pace {
    per_event: Duration,
    mark_file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the next batch may go.
    next: Instant,
    /// Until when a mark is awaited.
    awaiting_until: Option<Instant>,
}

impl Pace {
    pub fn new(arguments: &RunArguments) -> Self {
        let per_event = arguments.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX)
        });
        Self {
            per_event,
            mark_file: arguments.mark_file.clone(),
            state: Mutex::new(State {
                next: Instant::now(),
                awaiting_until: None,
            }),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The script has been given its signal.
    pub fn signalled(&self) {
        if self.mark_file.is_some() {
            self.with(|state| state.awaiting_until = Some(Instant::now() + PATIENCE));
        }
    }

    fn awaits_mark(&self) -> bool {
        let Some(until) = self.with(|state| state.awaiting_until) else {
            return false;
        };
        let made = self.mark_file.as_ref().is_some_and(|file| file.exists());
        let awaits = !made && Instant::now() < until;
        if !awaits {
            self.with(|state| state.awaiting_until = None);
        }
        awaits
    }

    /// Waits until a batch of so many events may be submitted. A session's
    /// last one waits for the mark. Dropped before it is ready, it has counted
    /// nothing.
    pub async fn turn(&self, events: usize, last: bool) {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        loop {
            let at = self.with(|state| state.next);
            tokio::time::sleep_until(at).await;
            let slow = self.awaits_mark();
            let step = if slow { SLOW } else { self.per_event * events };
            self.with(|state| state.next = state.next.max(at) + step);
            if !(slow && last) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn pace(arguments: &[&str]) -> Pace {
        let arguments = [&["huntctl", "play"], arguments].concat();
        match Arguments::parse_from(arguments).command {
            Command::Play(play) => Pace::new(&play.run),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_all_sessions() {
        let pace = pace(&["--rate", "1000"]);
        let start = Instant::now();
        for _ in 0..10 {
            pace.turn(100, false).await;
        }
        assert_eq!(start.elapsed().as_millis(), 900);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_signal_the_last_batch_waits_for_the_mark() {
        let space = tempfile::tempdir().expect("a temporary directory");
        let mark = space.path().join("mark");
        let pace = pace(&["--mark-file", mark.to_str().expect("UTF-8")]);
        let start = Instant::now();
        pace.turn(1, true).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there was no signal yet");
        pace.signalled();
        pace.turn(1, false).await;
        let last = async {
            pace.turn(1, true).await;
            start.elapsed()
        };
        let script = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            std::fs::write(&mark, "1").expect("writable");
        };
        let (waited, ()) = tokio::join!(last, script);
        assert!(waited >= Duration::from_millis(500), "{waited:?}");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_script_that_never_comes_is_not_waited_for_long() {
        let pace = pace(&["--mark-file", "/nowhere/mark"]);
        pace.signalled();
        let start = Instant::now();
        pace.turn(1, true).await;
        assert!(start.elapsed() >= PATIENCE && start.elapsed() < 2 * PATIENCE);
    }
}
