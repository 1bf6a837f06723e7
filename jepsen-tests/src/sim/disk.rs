//! A node's disk: what it holds outlives the process, and it takes its time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use huntlog_storage::{Crash, OpenReport, Options, SimFiles, SimIndex, Storage};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::invariants::Held;
use super::random::Random;

/// Segments are sealed at this size, so that a short run has several.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Work that nobody announces (records, a released segment) is looked for this
/// often.
const IDLE: Duration = Duration::from_millis(20);
const USUAL_SYNC: Range<Duration> = Duration::from_micros(200)..Duration::from_millis(2);

/// A disk; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Disk {
    files: SimFiles,
    index: SimIndex,
    state: Arc<Mutex<State>>,
}

struct State {
    random: Random,
    /// How long a write and its sync take.
    sync: Range<Duration>,
    /// Tails that were cut off when opening, and indexes built anew.
    counts: Counts,
}

/// What opening has met on this disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) torn_tails: u64,
    pub(super) frames_rewritten: u64,
}

impl Disk {
    pub(super) fn new(seed: u64, random: Random) -> Self {
        Self {
            files: SimFiles::new(seed),
            index: SimIndex::new(),
            state: Arc::new(Mutex::new(State {
                random,
                sync: USUAL_SYNC,
                counts: Counts::default(),
            })),
        }
    }

    /// A write and its sync take so long from now on.
    pub(super) fn set_sync(&self, sync: Range<Duration>) {
        self.state.lock().sync = sync;
    }

    /// As usual again.
    pub(super) fn heal(&self) {
        self.state.lock().sync = USUAL_SYNC;
    }

    /// One of the next syncs fails.
    pub(super) fn fail_a_sync(&self, after: u64) {
        self.files.fail_sync_after(after);
    }

    /// The power goes in the middle of what is done to the disk, after so many
    /// more operations.
    pub(super) fn stop_after(&self, operations: u64) {
        self.files.crash_after(operations);
    }

    /// Whether the power has gone like that.
    pub(super) fn is_down(&self) -> bool {
        self.files.crashed()
    }

    pub(super) fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// What would be left of the log entry at `index` if the power went now.
    ///
    /// # Errors
    /// When what would be left can not be opened.
    pub(super) fn would_hold(&self, index: u64) -> Result<Held, huntlog_storage::OpenError> {
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 0,
            ..Options::default()
        };
        let files = self.files.fork_durable(0);
        let (storage, _) = Storage::open_simulated(&files, &SimIndex::new(), options)?;
        let log = storage.partition(0);
        Ok(match log.id_at(index) {
            _ if log
                .last_purged()
                .is_some_and(|purged| purged.index >= index) =>
            {
                Held::Covered
            }
            Some(id) => Held::Entry(id.term, id.node_id),
            None => Held::Nothing,
        })
    }

    /// Whether its syncs take longer than usual.
    pub(super) fn is_slow(&self) -> bool {
        self.state.lock().sync != USUAL_SYNC
    }

    /// What is on the disk after the process, or the machine, has gone down.
    pub(super) fn crash(&self, crash: Crash) {
        self.files.restart(crash);
        let unsynced = self.index.unsynced_batches() as u64;
        let kept = match crash {
            Crash::Process => unsynced,
            Crash::Power => self.state.lock().random.below(unsynced + 1),
        };
        self.index
            .crash(usize::try_from(kept).expect("not more than there are"));
    }

    /// Opens the storage on it, and drives it from a task of this runtime.
    pub(super) fn open(
        &self,
        options: Options,
    ) -> Result<(Storage, OpenReport), huntlog_storage::OpenError> {
        let work = Arc::new(Notify::new());
        let wake = work.clone();
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 0,
            on_queued: Some(Arc::new(move || wake.notify_one())),
            ..options
        };
        let (storage, report) = Storage::open_simulated(&self.files, &self.index, options)?;
        {
            let counts = &mut self.state.lock().counts;
            counts.opened += 1;
            counts.torn_tails += u64::from(report.cut.is_some());
            counts.frames_rewritten += report.frames_rewritten as u64;
        }
        tokio::spawn(drive(storage.clone(), self.state.clone(), work));
        Ok((storage, report))
    }
}

/// Does the storage's work, each step in the time that the disk takes for it.
async fn drive(storage: Storage, state: Arc<Mutex<State>>, work: Arc<Notify>) {
    loop {
        // Nobody minds whether it was the work or the time.
        let _ = tokio::time::timeout(IDLE, work.notified()).await;
        loop {
            if storage.queued() > 0 {
                let takes = {
                    let mut state = state.lock();
                    let range = state.sync.clone();
                    state.random.within(&range)
                };
                tokio::time::sleep(takes).await;
            }
            if !storage.step() {
                break;
            }
        }
    }
}
