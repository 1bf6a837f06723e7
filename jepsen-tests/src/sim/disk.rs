//! A node's disk: what it holds outlives the process, and it takes its time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::LATEST_LEVEL;
use huntlog_storage::{Crash, OpenReport, Options, SimFiles, SimIndex, Storage};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::invariants::{Held, Kept};
use super::random::Random;

/// Segments are sealed at this size, so that a short run has several.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;
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
    /// How long a write and its sync take, by fault that makes it so.
    slow: BTreeMap<u64, Range<Duration>>,
    /// Tails that were cut off when opening, and indexes built anew.
    counts: Counts,
}

impl State {
    /// How long a write and its sync take: of several faults the worst holds.
    fn sync(&self) -> Range<Duration> {
        let slowest = self.slow.values().max_by_key(|sync| sync.end);
        slowest.cloned().unwrap_or(USUAL_SYNC)
    }
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
                slow: BTreeMap::new(),
                counts: Counts::default(),
            })),
        }
    }

    /// A write and its sync take so long from now on, because of `fault`.
    pub(super) fn slow_down(&self, fault: u64, sync: Range<Duration>) {
        self.state.lock().slow.insert(fault, sync);
    }

    /// The fault is over.
    pub(super) fn speed_up(&self, fault: u64) {
        self.state.lock().slow.remove(&fault);
    }

    /// One of the next syncs fails.
    pub(super) fn fail_a_sync(&self, after: u64) {
        self.files.fail_sync_after(after);
    }

    /// How many syncs have failed because they were to.
    pub(super) fn syncs_failed(&self) -> u64 {
        self.files.syncs_failed()
    }

    /// The power goes in the middle of what is done to the disk, after so many
    /// more operations.
    pub(super) fn stop_after(&self, operations: u64) {
        self.files.crash_after(operations);
    }

    /// Neither happens any more, unless it has happened.
    pub(super) fn disarm(&self) {
        self.files.disarm();
    }

    /// Whether the power has gone like that.
    pub(super) fn is_down(&self) -> bool {
        self.files.crashed()
    }

    pub(super) fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// What would be left of the log entry at `index` if the power went now, and of
    /// the log.
    ///
    /// # Errors
    /// When what would be left can not be opened.
    pub(super) fn would_hold(
        &self,
        index: u64,
    ) -> Result<(Held, Kept), huntlog_storage::OpenError> {
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 0,
            data_version_max: LATEST_LEVEL,
            ..Options::default()
        };
        let files = self.files.fork_durable(0);
        let (storage, _) = Storage::open_simulated(&files, &SimIndex::new(), options)?;
        let log = storage.partition(0);
        let from = log.history_start();
        let (closed, open_bytes) = log.segments();
        let of_history = |last: Option<u64>| last.is_none_or(|last| last >= from);
        let kept = Kept {
            from,
            bytes: closed
                .iter()
                .filter(|segment| of_history(segment.last_index))
                .map(|segment| segment.bytes)
                .sum::<u64>()
                + open_bytes,
        };
        let held = match log.id_at(index) {
            _ if log
                .last_purged()
                .is_some_and(|purged| purged.index >= index) =>
            {
                Held::Covered
            }
            Some(id) => Held::Entry(id.term, id.node_id),
            None => Held::Nothing,
        };
        Ok((held, kept))
    }

    /// Whether its syncs take longer than usual.
    pub(super) fn is_slow(&self) -> bool {
        !self.state.lock().slow.is_empty()
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
                    let range = state.sync();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_until_every_fault_that_makes_it_so_is_over() {
        let disk = Disk::new(1, Random::new(1, 1));
        let (slow, slower) = (
            Duration::from_millis(10)..Duration::from_millis(20),
            Duration::from_secs(1)..Duration::from_secs(2),
        );
        disk.slow_down(1, slower.clone());
        disk.slow_down(2, slow.clone());
        assert_eq!(disk.state.lock().sync(), slower);
        disk.speed_up(1);
        assert_eq!(disk.state.lock().sync(), slow);
        assert!(disk.is_slow());
        disk.speed_up(2);
        assert_eq!(disk.state.lock().sync(), USUAL_SYNC);
        assert!(!disk.is_slow());
    }
}
