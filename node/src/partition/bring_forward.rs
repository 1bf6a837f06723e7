//! A start from an older snapshot, after the newest was lost.
//!
//! openraft applies again what lies between the newest snapshot and what was
//! committed, and its own log may begin behind an older snapshot: it was purged
//! when there was a newer one. What was purged is history that this node may
//! still keep. Then the state is brought forward from there, and written down as
//! a snapshot where openraft's log begins, so that it starts as it always does.
//! Where history does not reach, the directory is refused.

use std::ops::Range;

use huntlog_machine::Machine;
use huntlog_storage::{PartitionLog, SnapshotStore};

use super::rederive::{RederiveError, replay};
use crate::raft::{
    MachineRules, SnapshotMeta, StoredMembership, decode_meta, encode_meta, log_id_from_storage,
    membership_in,
};

/// Sees to it that the newest snapshot reaches the log that openraft has.
pub(super) async fn to_the_log(
    log: PartitionLog,
    snapshots: SnapshotStore,
    rules: &MachineRules,
) -> Result<(), RederiveError> {
    let range = snapshots.to_replay(&log)?;
    if range.is_empty() {
        return Ok(());
    }
    let rules = rules.clone();
    crate::blocking::spawn_blocking(move || bring(&log, &snapshots, range, &rules)).await?
}

fn bring(
    log: &PartitionLog,
    snapshots: &SnapshotStore,
    range: Range<u64>,
    rules: &MachineRules,
) -> Result<(), RederiveError> {
    tracing::warn!(
        partition = log.id(),
        ?range,
        "the newest snapshot that can be read ends before the log that was purged; the state is brought forward from what is kept of that"
    );
    let (mut machine, mut meta) = base(log, snapshots, rules)?;
    replay(log, &mut machine, range, |applied| {
        for (entry, _) in applied {
            let log_id = log_id_from_storage(entry.id);
            if let Some(membership) = membership_in(&entry.payload)? {
                meta.last_membership = StoredMembership::new(Some(log_id), membership);
            }
            meta.last_log_id = Some(log_id);
        }
        Ok(())
    })?;
    let last = log
        .last_purged()
        .expect("only what was purged is brought forward");
    let mut writer = snapshots.create(log.id(), last, encode_meta(&meta, machine.level()))?;
    machine
        .view()
        .write_to(&mut writer)
        .map_err(RederiveError::Write)?;
    writer.finish()?;
    Ok(())
}

/// The state of the newest snapshot, or of nothing.
fn base(
    log: &PartitionLog,
    snapshots: &SnapshotStore,
    rules: &MachineRules,
) -> Result<(Machine, SnapshotMeta), RederiveError> {
    let Some(info) = snapshots.newest(log.id()) else {
        return Ok((rules.empty(log.id()), SnapshotMeta::default()));
    };
    let mut reader = snapshots.open(&info)?;
    let meta = decode_meta(reader.meta()).map_err(RederiveError::Meta)?;
    Ok((rules.restore(&mut reader)?, meta))
}
