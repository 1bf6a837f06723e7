//! openraft's state machine over `huntlog-machine`.
//!
//! Apply is the machine's: deterministic, replayable, without a clock. This
//! adapter feeds it the log in order, keeps what it derived beside the log, and
//! tells an observer. Any failure here ends the process: a replica that can
//! not apply what is committed must not serve.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use huntlog_machine::{
    Applied, ApplyError, LevelRange, Limits, Machine, RestoreError, View, release_of,
};
use huntlog_storage::{PartitionLog, SnapshotStore, Storage};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::{Mutex, RwLock};

use super::entry::{EntryData, Response};
use super::snapshot::{SnapshotFile, SnapshotLevel, decode_meta, encode_meta};
use super::{
    Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id_to_machine,
    log_id_to_storage,
};

/// An entry that has just been applied.
#[derive(Debug)]
pub struct AppliedEntry {
    /// Its log id.
    pub log_id: LogId,
    /// The machine's encoding; empty for Raft's own entries.
    pub data: Bytes,
    /// What the machine derived from it.
    pub record: Bytes,
    /// The offset of its first accepted event, or the next one's if it has none.
    pub first_offset: u64,
    /// How many events it added.
    pub accepted: u64,
    /// The log's time, in milliseconds since 1970.
    pub time_ms: u64,
}

impl AppliedEntry {
    /// Its log index.
    pub fn index(&self) -> u64 {
        self.log_id.index
    }

    /// What it occupies in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.data.len() + self.record.len() + size_of::<Self>()
    }
}

/// Is told what the state machine does, on its task: quick, and not blocking.
pub trait ApplyObserver: Send + Sync + 'static {
    /// An entry has been applied to `machine`.
    fn applied(&self, entry: AppliedEntry, machine: &Machine, took: std::time::Duration);
    /// An entry could not be applied: the state machine ends.
    fn failed(&self, error: &ApplyError);
    /// A snapshot has replaced the state by `machine`.
    fn installed(&self, machine: &Machine);
    /// A snapshot is being built from the state of now.
    fn snapshot_begun(&self);
    /// A snapshot was built from the state at `log_id`.
    fn snapshot_built(&self, log_id: &LogId, size_bytes: u64, took: std::time::Duration);
}

/// What machines of a partition are made with. Both decide outcomes, so that
/// every node of a cluster must have the same, whenever it applies an entry.
#[derive(Debug, Clone)]
pub struct MachineRules {
    /// Belong to the log's version.
    pub limits: Limits,
    /// Of entries through this log index, 0 for none, digests are not compared.
    pub ignore_digests_through: u64,
    /// The feature levels that this node reads. They decide no outcome: a node
    /// that does not read a level ends where it begins.
    pub levels: LevelRange,
}

impl MachineRules {
    /// A machine that has applied nothing.
    pub fn empty(&self, partition: u32) -> Machine {
        self.prepare(Machine::new(partition, self.limits.clone()))
    }

    fn prepare(&self, mut machine: Machine) -> Machine {
        machine.ignore_digests_through(self.ignore_digests_through);
        machine.accept_levels(self.levels);
        machine
    }

    /// The machine of a snapshot.
    ///
    /// # Errors
    /// When it can not be read, is none, or of a level that this node does not
    /// read.
    pub fn restore(&self, snapshot: &mut impl io::Read) -> Result<Machine, RestoreError> {
        let machine = Machine::restore(snapshot, self.limits.clone())?;
        let level = machine.level();
        if !self.levels.contains(level) {
            return Err(RestoreError::LevelUnknown {
                level,
                release: release_of(level).unwrap_or_default().to_owned(),
                supported: self.levels,
            });
        }
        Ok(self.prepare(machine))
    }
}

/// One partition's replicated state.
pub struct StateMachine {
    machine: Arc<RwLock<Machine>>,
    membership: Arc<Mutex<StoredMembership>>,
    storage: Storage,
    log: PartitionLog,
    snapshots: SnapshotStore,
    observer: Arc<dyn ApplyObserver>,
    rules: MachineRules,
}

impl StateMachine {
    /// A state machine that applies to `machine`, empty at start and made by
    /// `rules`, and keeps what it derives beside the log of `partition`.
    pub fn new(
        machine: Arc<RwLock<Machine>>,
        partition: u32,
        storage: Storage,
        observer: Arc<dyn ApplyObserver>,
        rules: MachineRules,
    ) -> Self {
        Self {
            rules,
            machine,
            membership: Arc::default(),
            log: storage.partition(partition),
            snapshots: storage.snapshots(),
            storage,
            observer,
        }
    }

    fn apply_entry(&self, entry: Entry) -> io::Result<Option<Applied>> {
        let started = Instant::now();
        let log_id = entry.log_id;
        let machine_id = log_id_to_machine(&log_id);
        let mut machine = self.machine.write();
        let level_before = machine.level();
        let (data, applied) = match entry.payload {
            Payload::Normal(EntryData(data)) => {
                let applied = machine.apply(machine_id, &data);
                (data, applied)
            }
            Payload::Blank => (Bytes::new(), machine.apply_blank(machine_id)),
            Payload::Membership(membership) => {
                *self.membership.lock() = StoredMembership::new(Some(log_id), membership);
                (Bytes::new(), machine.apply_blank(machine_id))
            }
        };
        let applied = applied.map_err(|error| {
            self.observer.failed(&error);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("applying the log entry {log_id} failed: {error}"),
            )
        })?;
        let level = machine.level();
        // Keeping the record may have to wait for the index: readers of the
        // state need not wait with it.
        drop(machine);
        if level > level_before {
            tracing::info!(%log_id, level, "the feature level was raised");
            // The record itself is of the new level.
            self.keep_level(level)?;
        }
        self.log
            .put_records(vec![(log_id.index, applied.record.clone())])
            .map_err(io::Error::other)?;
        let normal = !data.is_empty();
        let derived = AppliedEntry {
            log_id,
            data,
            record: applied.record.clone(),
            first_offset: applied.first_offset,
            accepted: applied.accepted,
            time_ms: applied.time_ms,
        };
        self.observer
            .applied(derived, &self.machine.read(), started.elapsed());
        Ok(normal.then_some(applied))
    }

    /// Marks the data directory as one of `level`, before anything is kept in it
    /// that releases of lower levels can not read.
    fn keep_level(&self, level: u32) -> io::Result<()> {
        raise_data_version(&self.storage, level).map_err(io::Error::other)
    }

    fn snapshot_meta(&self) -> SnapshotMeta {
        let last_log_id = self.machine.read().last_applied().map(log_id_from_machine);
        SnapshotMeta {
            last_log_id,
            last_membership: self.membership.lock().clone(),
        }
    }
}

/// The data version of a directory is the highest feature level of what is in it.
pub(super) fn raise_data_version(
    storage: &Storage,
    level: u32,
) -> Result<(), huntlog_storage::FatalError> {
    storage.raise_data_version(level, release_of(level).unwrap_or_default())
}

fn log_id_from_machine(id: huntlog_machine::LogId) -> LogId {
    super::log_id_from_storage(huntlog_storage::LogId {
        term: id.term,
        node_id: id.node_id,
        index: id.index,
    })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    /// Nothing at start: openraft then installs the newest snapshot.
    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let meta = self.snapshot_meta();
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(Response(applied));
            }
        }
        Ok(())
    }

    /// A snapshot of nothing is put off: to fail would stop the node. One that is
    /// forced is not: openraft takes for granted then that there is a builder.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if !force && self.machine.read().last_applied().is_none() {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.observer.snapshot_begun();
        Builder {
            meta: self.snapshot_meta(),
            view: Some(self.machine.read().view()),
            partition: self.log.id(),
            snapshots: self.snapshots.clone(),
            observer: self.observer.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let rules = self.rules.clone();
        let storage = self.storage.clone();
        let SnapshotLevel { level, release } = snapshot.level()?;
        if let (false, Some(last)) = (rules.levels.contains(level), meta.last_log_id) {
            let error = ApplyError::LevelUnknown {
                log_id: log_id_to_machine(&last),
                level,
                release,
                supported: rules.levels,
            };
            self.observer.failed(&error);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let machine = crate::blocking::spawn_blocking(move || {
            let mut reader = snapshot.open(&storage)?;
            rules.restore(&mut reader).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the snapshot does not restore: {error}"),
                )
            })
        })
        .await
        .map_err(io::Error::other)??;
        if machine.last_applied().map(log_id_from_machine) != meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the snapshot holds the state at {:?}, its description says {:?}",
                    machine.last_applied(),
                    meta.last_log_id
                ),
            ));
        }
        *self.membership.lock() = meta.last_membership.clone();
        let mut current = self.machine.write();
        *current = machine;
        let current = parking_lot::RwLockWriteGuard::downgrade(current);
        self.observer.installed(&current);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshots = self.snapshots.clone();
        let partition = self.log.id();
        crate::blocking::spawn_blocking(move || newest(&snapshots, partition))
            .await
            .map_err(io::Error::other)?
    }
}

/// The newest snapshot that can be opened; one that can not is set aside, said
/// so, and the one before it taken.
fn newest(snapshots: &SnapshotStore, partition: u32) -> io::Result<Option<Snapshot>> {
    while let Some(info) = snapshots.newest(partition) {
        match snapshots.open(&info) {
            Ok(reader) => {
                let meta = decode_meta(reader.meta())?;
                let snapshot = SnapshotFile::kept(snapshots.clone(), info);
                return Ok(Some(Snapshot { meta, snapshot }));
            }
            Err(error @ huntlog_storage::SnapshotError::Damaged { .. }) => {
                tracing::error!(%error, "a snapshot is damaged and set aside; the one before it is used");
                snapshots.set_aside(&info).map_err(io::Error::other)?;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(None)
}

/// Writes the state it was created from, while apply goes on.
pub struct Builder {
    meta: SnapshotMeta,
    view: Option<View>,
    partition: u32,
    snapshots: SnapshotStore,
    observer: Arc<dyn ApplyObserver>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let started = Instant::now();
        let (Some(view), Some(log_id)) = (self.view.take(), self.meta.last_log_id) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is nothing applied yet to take a snapshot of",
            ));
        };
        let snapshots = self.snapshots.clone();
        let meta = encode_meta(&self.meta, view.level());
        let partition = self.partition;
        let info = crate::blocking::in_background("snapshot", move || {
            let mut writer = snapshots
                .create(partition, log_id_to_storage(&log_id), meta)
                .map_err(io::Error::other)?;
            view.write_to(&mut writer)?;
            writer.finish().map_err(io::Error::other)
        })
        .await??;
        self.observer
            .snapshot_built(&log_id, info.size_bytes, started.elapsed());
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotFile::kept(self.snapshots.clone(), info),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use huntlog_storage::{Options, Storage};

    use super::*;

    struct Nobody;

    impl ApplyObserver for Nobody {
        fn applied(&self, _: AppliedEntry, _: &Machine, _: Duration) {}
        fn failed(&self, _: &ApplyError) {}
        fn installed(&self, _: &Machine) {}
        fn snapshot_begun(&self) {}
        fn snapshot_built(&self, _: &LogId, _: u64, _: Duration) {}
    }

    #[tokio::test]
    async fn of_nothing_a_snapshot_is_built_only_when_it_is_forced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (storage, _) =
            Storage::open(dir.path(), Options::default()).expect("a fresh directory");
        let rules = MachineRules {
            limits: Limits::default(),
            ignore_digests_through: 0,
            levels: LevelRange::SUPPORTED,
        };
        let mut state_machine = StateMachine::new(
            Arc::new(RwLock::new(rules.empty(0))),
            0,
            storage.clone(),
            Arc::new(Nobody),
            rules,
        );
        let put_off = state_machine.try_create_snapshot_builder(false).await;
        assert!(put_off.is_none());
        let forced = state_machine.try_create_snapshot_builder(true).await;
        assert!(forced.is_some());
        drop((state_machine, forced));
        storage.close().expect("it has not failed");
    }
}
