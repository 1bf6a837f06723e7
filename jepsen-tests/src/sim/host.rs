//! A simulated machine with one process on it: a runtime of its own, a clock of
//! its own, and nothing else of this machine's.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::interpose;

/// What the world does with a host at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Running,
    /// Stopped as by SIGSTOP: its clocks go on without it.
    Paused {
        since: Duration,
    },
}

/// A running process.
pub(super) struct Process {
    runtime: Runtime,
    activity: Activity,
    /// How much its monotonic clock gains, in millionths.
    drift_ppm: i64,
    /// Simulated time it has not been given yet, in nanoseconds.
    owed_nanos: i64,
    wall_ahead_ms: i64,
}

impl Process {
    /// Starts `main` on a machine of its own.
    pub(super) fn start(main: impl Future<Output = ()> + Send + 'static) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without threads and sockets");
        runtime.spawn(main);
        Self {
            runtime,
            activity: Activity::Running,
            drift_ppm: 0,
            owed_nanos: 0,
            wall_ahead_ms: 0,
        }
    }

    /// Sets how far its wall clock is ahead, in milliseconds.
    pub(super) fn set_wall_ahead_ms(&mut self, ahead_ms: i64) {
        self.wall_ahead_ms = ahead_ms;
    }

    /// Sets how much its monotonic clock gains, in millionths.
    pub(super) fn set_drift_ppm(&mut self, drift_ppm: i64) {
        self.drift_ppm = drift_ppm;
    }

    pub(super) fn pause(&mut self, now: Duration) {
        if self.activity == Activity::Running {
            self.activity = Activity::Paused { since: now };
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.activity != Activity::Running
    }

    pub(super) fn resume(&mut self, now: Duration) {
        if let Activity::Paused { since } = self.activity {
            self.activity = Activity::Running;
            interpose::set_wall_ahead_ms(self.wall_ahead_ms);
            self.runtime
                .block_on(async { tokio::time::advance(now - since).await });
        }
    }

    /// Runs the process for `tick` of the world's time.
    pub(super) fn run(&mut self, tick: Duration) {
        if self.is_paused() {
            return;
        }
        let tick = i64::try_from(tick.as_nanos()).expect("a tick is short");
        self.owed_nanos += tick + tick * self.drift_ppm / 1_000_000;
        // The timers of a runtime have whole milliseconds.
        let millis = self.owed_nanos / 1_000_000;
        self.owed_nanos -= millis * 1_000_000;
        interpose::set_wall_ahead_ms(self.wall_ahead_ms);
        let mine = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        self.runtime
            .block_on(async { tokio::time::sleep(mine).await });
        interpose::set_wall_ahead_ms(0);
    }
}
