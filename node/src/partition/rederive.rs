//! Deriving again what apply had derived, after the index was lost.
//!
//! Records of entries that a snapshot covers are not written by the usual
//! replay at start, which begins at the newest snapshot. They are derived here
//! from the snapshot before the gap, or from the log's beginning.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use huntlog_machine::{ApplyError, Machine, RestoreError};
use huntlog_storage::{
    FatalError, LogEntry, OpenError, PartitionLog, ReadError, SnapshotError, SnapshotInfo,
    SnapshotStore,
};

use crate::limits;
use crate::raft::{EntryFormatError, MachineRules, entry_data};

/// Why the log could not be replayed, for records that are missing or to bring a
/// state forward.
#[derive(Debug, thiserror::Error)]
pub enum RederiveError {
    /// The log could not be read.
    #[error("replaying the log: {0}")]
    Read(#[from] ReadError),
    /// A snapshot could not be read.
    #[error("replaying the log: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A snapshot could not be restored.
    #[error("replaying the log from a snapshot: {0}")]
    Restore(#[from] RestoreError),
    /// The log holds what this release can not read.
    #[error("replaying the log: {0}")]
    Format(#[from] EntryFormatError),
    /// The log contradicts itself.
    #[error("replaying the log at index {index}: {source}")]
    Apply {
        /// Where.
        index: u64,
        /// Why.
        source: ApplyError,
    },
    /// No state can be made from what is here.
    #[error(transparent)]
    OutOfReach(#[from] OpenError),
    /// What a snapshot says of itself does not decode.
    #[error("bringing the state forward: {0}")]
    Meta(#[source] io::Error),
    /// The state could not be written.
    #[error(
        "writing the state that was brought forward: {0}; check the disk, then restart the node"
    )]
    Write(#[source] io::Error),
    /// The records could not be written.
    #[error(transparent)]
    Fatal(#[from] FatalError),
    /// The task was cancelled or panicked.
    #[error("replaying the log was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl RederiveError {
    /// Whether starting again would meet the same: what is stored is damaged, or
    /// of a later release.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::OutOfReach(error) => matches!(error, OpenError::Damaged { .. }),
            Self::Read(error) => matches!(error, ReadError::Damaged { .. }),
            Self::Restore(error) => matches!(
                error,
                RestoreError::LevelUnknown { .. } | RestoreError::VersionUnknown(_)
            ),
            Self::Apply { source, .. } => matches!(source, ApplyError::LevelUnknown { .. }),
            _ => false,
        }
    }
}

/// Derives every record that is missing below the newest snapshot, as far as
/// the log and the snapshots reach; what they do not reach stays missing, and
/// reads of it are answered by other nodes.
pub(super) async fn missing_records(
    log: PartitionLog,
    snapshots: SnapshotStore,
    rules: &MachineRules,
) -> Result<(), RederiveError> {
    let Some(newest) = snapshots.newest(log.id()) else {
        // Everything is applied again, from the first entry.
        return Ok(());
    };
    let end = log.last().map_or(0, |last| last.index + 1);
    let covered = log.history_start()..end.min(newest.log_id.index + 1);
    for gap in log.missing_records(covered) {
        let log = log.clone();
        let snapshots = snapshots.clone();
        let rules = rules.clone();
        crate::blocking::spawn_blocking(move || fill(&log, &snapshots, gap, &rules)).await??;
    }
    Ok(())
}

/// Replays the log up to the end of `gap`, keeping the records within it.
fn fill(
    log: &PartitionLog,
    snapshots: &SnapshotStore,
    gap: Range<u64>,
    rules: &MachineRules,
) -> Result<(), RederiveError> {
    let mut machine = match base(log, snapshots, &gap, rules)? {
        Some(machine) => machine,
        None => {
            tracing::warn!(
                partition = log.id(),
                ?gap,
                "outcomes can not be derived again: no snapshot and no log reach that far back; other nodes answer for them"
            );
            return Ok(());
        }
    };
    let next = machine.last_applied().map_or(0, |id| id.index + 1);
    tracing::info!(
        partition = log.id(),
        ?gap,
        from = next,
        "deriving outcomes again"
    );
    replay(log, &mut machine, next..gap.end, |applied| {
        let records: Vec<_> = applied
            .into_iter()
            .map(|(entry, record)| (entry.id.index, record))
            .filter(|(index, _)| gap.contains(index))
            .collect();
        if !records.is_empty() {
            log.put_records(records)?;
        }
        Ok(())
    })?;
    log.sync_records()?;
    Ok(())
}

/// Applies the entries of `range`, from the history too, to the machine that is
/// just before them, and hands over each with its record, as many at once as are
/// read at once. Blocks.
pub(super) fn replay(
    log: &PartitionLog,
    machine: &mut Machine,
    range: Range<u64>,
    mut applied: impl FnMut(Vec<(LogEntry, Bytes)>) -> Result<(), RederiveError>,
) -> Result<(), RederiveError> {
    let mut next = range.start;
    while next < range.end {
        let entries = log.read_history(next..range.end, limits::LOG_READ_BYTES_MAX)?;
        if entries.is_empty() {
            return Err(ReadError::NotKept {
                partition: log.id(),
                index: next,
                kept: log.history(),
            }
            .into());
        }
        next += entries.len() as u64;
        let records: Result<Vec<_>, _> = entries
            .into_iter()
            .map(|entry| apply(machine, &entry).map(|record| (entry, record)))
            .collect();
        applied(records?)?;
    }
    Ok(())
}

/// The machine at some index before `gap` from which the log goes on.
fn base(
    log: &PartitionLog,
    snapshots: &SnapshotStore,
    gap: &Range<u64>,
    rules: &MachineRules,
) -> Result<Option<Machine>, RederiveError> {
    let history_start = log.history_start();
    let before = snapshots
        .list(log.id())
        .into_iter()
        .rev()
        .filter(|info| info.log_id.index < gap.start)
        .take_while(|info| info.log_id.index + 1 >= history_start);
    for info in before {
        if verify(snapshots, &info)? {
            let mut reader = snapshots.open(&info)?;
            return Ok(Some(rules.restore(&mut reader)?));
        }
    }
    if history_start == 0 {
        return Ok(Some(rules.empty(log.id())));
    }
    Ok(None)
}

/// Reads the newest snapshot through, and sets it aside when it is damaged, until
/// one is whole: whether that one does is another question.
pub(super) async fn set_damaged_snapshots_aside(
    partition: u32,
    snapshots: SnapshotStore,
) -> Result<(), RederiveError> {
    crate::blocking::spawn_blocking(move || {
        while let Some(info) = snapshots.newest(partition) {
            if verify(&snapshots, &info)? {
                break;
            }
        }
        Ok(())
    })
    .await?
}

/// Whether every byte of the snapshot is as it was written; if not, it is set
/// aside, and said so. Blocks.
pub(super) fn verify(
    snapshots: &SnapshotStore,
    info: &SnapshotInfo,
) -> Result<bool, RederiveError> {
    let read = snapshots
        .open(info)
        .map_err(io::Error::other)
        .and_then(|mut reader| io::copy(&mut reader, &mut io::sink()));
    match read {
        Ok(_) => Ok(true),
        Err(error) => {
            tracing::error!(
                %error,
                file = %info.path.display(),
                "a snapshot can not be read and is set aside; the one before it, or the log, is used"
            );
            snapshots.set_aside(info)?;
            Ok(false)
        }
    }
}

fn apply(machine: &mut Machine, entry: &LogEntry) -> Result<Bytes, RederiveError> {
    let id = huntlog_machine::LogId {
        term: entry.id.term,
        node_id: entry.id.node_id,
        index: entry.id.index,
    };
    let applied = match entry_data(&entry.payload)? {
        Some(data) => machine.apply(id, data),
        None => machine.apply_blank(id),
    };
    applied
        .map(|applied| applied.record)
        .map_err(|source| RederiveError::Apply {
            index: id.index,
            source,
        })
}
