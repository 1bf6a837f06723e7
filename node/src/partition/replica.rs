//! One partition's state on this node, as readers see it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use huntlog_machine::{ApplyError, DigestCheck, Machine};
use huntlog_storage::PartitionLog;
use parking_lot::{RwLock, RwLockReadGuard};

use super::clock::LogClock;
use super::tail::{AppliedMark, Tail};
use crate::raft::{AppliedEntry, ApplyObserver, LogId};
use crate::telemetry::{PartitionMetrics, SnapshotKind};

/// The applied state, the tail of the log, and the log itself.
pub struct Replica {
    machine: Arc<RwLock<Machine>>,
    tail: Tail,
    log: PartitionLog,
    clock: Arc<LogClock>,
    metrics: PartitionMetrics,
    /// Payload bytes applied since the newest snapshot.
    bytes_since_snapshot: AtomicU64,
    /// Those of them that the snapshot being built covers.
    bytes_in_snapshot: AtomicU64,
    /// The feature level of the machine.
    level: AtomicU32,
    /// Why applying has ended.
    failure: OnceLock<ApplyError>,
}

impl Replica {
    /// A replica of `log`, with nothing applied.
    pub fn new(
        machine: Arc<RwLock<Machine>>,
        log: PartitionLog,
        clock: Arc<LogClock>,
        metrics: PartitionMetrics,
    ) -> Self {
        let (mark, level) = {
            let machine = machine.read();
            (mark_of(&machine), machine.level())
        };
        let tail = Tail::new(mark);
        Self {
            machine,
            tail,
            log,
            clock,
            metrics,
            bytes_since_snapshot: AtomicU64::new(0),
            bytes_in_snapshot: AtomicU64::new(0),
            level: AtomicU32::new(level),
            failure: OnceLock::new(),
        }
    }

    /// The machine's state, locked against apply: for short questions only;
    /// take a [`huntlog_machine::View`] for long ones.
    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read()
    }

    /// Makes the state another, as damaged memory would.
    #[cfg(test)]
    pub(crate) fn replace_machine(&self, other: impl FnOnce(&Machine) -> Machine) {
        let mut machine = self.machine.write();
        let replacement = other(&machine);
        *machine = replacement;
    }

    /// The newest applied entries.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The log.
    pub fn log(&self) -> &PartitionLog {
        &self.log
    }

    /// The digest of what is applied, for the next entry to carry (I7).
    pub fn digest_check(&self) -> Option<DigestCheck> {
        self.machine.read().digest()
    }

    /// The feature level in force.
    pub fn level(&self) -> u32 {
        self.level.load(Ordering::Relaxed)
    }

    /// Why nothing is applied any more, if that is so.
    pub fn failure(&self) -> Option<&ApplyError> {
        self.failure.get()
    }

    /// Payload bytes applied since the newest snapshot.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot.load(Ordering::Relaxed)
    }

    /// Waits until the log is applied through `index`; the index applied
    /// instead when that takes longer than until `deadline`.
    ///
    /// # Errors
    /// The next index to be applied, at the deadline.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<AppliedMark, u64> {
        self.wait_mark(deadline, |mark| mark.next_index > index)
            .await
            .map_err(|mark| mark.next_index)
    }

    /// Waits until the feature level is `level` at least; `false` when it is not at
    /// `deadline`.
    pub async fn wait_level(&self, level: u32, deadline: Instant) -> bool {
        self.wait_mark(deadline, |_| self.level() >= level)
            .await
            .is_ok()
    }

    /// Waits until every event below `end_offset` is applied, and what is
    /// applied then is on this node's own disk: a power cut does not take back
    /// what a stale read has shown.
    ///
    /// # Errors
    /// The end offset reached at the deadline.
    pub async fn wait_offset(
        &self,
        end_offset: u64,
        deadline: Instant,
    ) -> Result<AppliedMark, u64> {
        let mark = self
            .wait_mark(deadline, |mark| mark.end_offset >= end_offset)
            .await
            .map_err(|mark| mark.end_offset)?;
        let applied = mark.next_index.checked_sub(1);
        // After a snapshot the log can end before what is applied.
        let needed = applied.min(self.log.last().map(|last| last.index));
        if self.log.durable_index() < needed
            && let Some(needed) = needed
        {
            let log = self.log.clone();
            let synced = crate::blocking::spawn_blocking(move || log.wait_durable(needed));
            match tokio::time::timeout_at(deadline.into(), synced).await {
                Ok(Ok(Ok(()))) => {}
                _ => return Err(end_offset.saturating_sub(1)),
            }
        }
        Ok(mark)
    }

    async fn wait_mark(
        &self,
        deadline: Instant,
        reached: impl FnMut(&AppliedMark) -> bool,
    ) -> Result<AppliedMark, AppliedMark> {
        let mut marks = self.tail.watch();
        match tokio::time::timeout_at(deadline.into(), marks.wait_for(reached)).await {
            Ok(Ok(mark)) => Ok(*mark),
            _ => Err(self.tail.mark()),
        }
    }
}

fn mark_of(machine: &Machine) -> AppliedMark {
    AppliedMark {
        next_index: machine.last_applied().map_or(0, |id| id.index + 1),
        end_offset: machine.end_offset(),
        time_ms: machine.time_ms(),
    }
}

impl ApplyObserver for Replica {
    fn applied(&self, entry: AppliedEntry, machine: &Machine, took: Duration) {
        self.clock.note_applied(entry.time_ms);
        self.level.store(machine.level(), Ordering::Relaxed);
        self.bytes_since_snapshot
            .fetch_add(entry.data.len() as u64, Ordering::Relaxed);
        let metrics = &self.metrics.replica;
        metrics.apply_seconds.observe(took);
        metrics.events_accepted.inc_by(entry.accepted);
        self.tail.push(entry, mark_of(machine));
    }

    fn failed(&self, error: &ApplyError) {
        // Only the first: nothing is applied after it.
        let _ = self.failure.set(error.clone());
    }

    fn installed(&self, machine: &Machine) {
        self.clock.note_applied(machine.time_ms());
        self.level.store(machine.level(), Ordering::Relaxed);
        self.bytes_since_snapshot.store(0, Ordering::Relaxed);
        self.bytes_in_snapshot.store(0, Ordering::Relaxed);
        self.metrics.snapshot(SnapshotKind::Installed).inc();
        self.tail.reset(mark_of(machine));
    }

    fn snapshot_begun(&self) {
        self.bytes_in_snapshot
            .store(self.bytes_since_snapshot(), Ordering::Relaxed);
    }

    fn snapshot_built(&self, log_id: &LogId, size_bytes: u64, took: Duration) {
        // What was applied while it was written is counted with the next one.
        let covered = self.bytes_in_snapshot.swap(0, Ordering::Relaxed);
        self.bytes_since_snapshot
            .fetch_sub(covered, Ordering::Relaxed);
        self.metrics.snapshot(SnapshotKind::Built).inc();
        self.metrics.replica.snapshot_bytes.set(size_bytes);
        self.metrics.replica.snapshot_build_seconds.observe(took);
        tracing::info!(%log_id, size_bytes, seconds = took.as_secs_f64(), "snapshot written");
    }
}
