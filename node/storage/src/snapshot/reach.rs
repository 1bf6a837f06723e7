//! Whether a state can be made from the snapshots and the log that are left.

use super::catalogue::place_of;
use super::{DIR, SnapshotStore};
use crate::error::OpenError;
use crate::files::Files;
use crate::partition::PartitionLog;
use crate::state::PartitionState;
use std::ops::Range;

/// What lies between the newest readable snapshot and the live log: the entries to apply to it before the live log goes
/// on, none as a rule. The error has the entries that are neither in a readable snapshot nor kept.
///
/// `newest` is the index of the snapshot; without one, the state is empty.
pub(crate) fn to_replay(
    state: &PartitionState,
    newest: Option<u64>,
) -> Result<Range<u64>, Range<u64>> {
    let from = newest.map_or(0, |index| index + 1);
    let purged_end = state.purged.map_or(0, |purged| purged.index + 1);
    if from >= purged_end {
        return Ok(purged_end..purged_end);
    }
    let kept_from = state.history_start();
    if kept_from <= from {
        Ok(from..purged_end)
    } else {
        Err(from..kept_from)
    }
}

/// What is missing, in words.
pub(crate) fn describe(missing: &Range<u64>, partition: u32) -> String {
    format!(
        "entries {} to {} of partition {partition} are missing: the log has given them up, and no readable snapshot covers them",
        missing.start,
        missing.end - 1
    )
}

/// The newest file that was a snapshot of the partition and covered what follows `from`: it is damaged, or in use no
/// more because it was. Without one, the directory where it would be.
pub(crate) fn lost_file(names: &[String], partition: u32, from: u64) -> String {
    let lost = names
        .iter()
        .filter(|name| place_of(name).is_some_and(|(of, id)| of == partition && id.index >= from));
    lost.max()
        .map_or_else(|| DIR.to_owned(), |name| format!("{DIR}/{name}"))
}

impl SnapshotStore {
    /// The entries to apply to the newest snapshot (to nothing, if there is none) before the live log goes on: there are
    /// some only if a newer snapshot was lost.
    ///
    /// # Errors
    /// If some of them are not kept: the state cannot be made from what is here.
    pub fn to_replay(&self, log: &PartitionLog) -> Result<Range<u64>, OpenError> {
        let newest = self.newest(log.id()).map(|info| info.log_id.index);
        let missing = match log.with_state(|state| to_replay(state, newest)) {
            Ok(range) => return Ok(range),
            Err(missing) => missing,
        };
        let files: &dyn Files = &*self.owner.shared.files;
        let names = files
            .list(DIR)
            .map_err(|error| OpenError::io("list", files.path(DIR).display(), error))?;
        let lost = lost_file(&names, log.id(), missing.start);
        Err(OpenError::Damaged {
            file: files.path(&lost).display().to_string(),
            position: 0,
            what: describe(&missing, log.id()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::LogId;
    use crate::segment::FrameKind;

    fn id(index: u64) -> LogId {
        LogId {
            term: 1,
            node_id: 1,
            index,
        }
    }

    #[test]
    fn what_is_kept_is_replayed_and_what_is_not_is_named() {
        let mut state = PartitionState::default();
        for index in 0..100 {
            let payload = bytes::Bytes::new();
            state.apply(&FrameKind::Entry {
                id: id(index),
                payload,
            });
        }
        // Nothing is purged: the live log is all there is to apply.
        assert_eq!(to_replay(&state, None), Ok(0..0));
        state.apply(&FrameKind::Purge {
            upto: id(59),
            committed_end: 100,
        });
        assert_eq!(to_replay(&state, None), Ok(0..60));
        assert_eq!(to_replay(&state, Some(39)), Ok(40..60));
        assert_eq!(to_replay(&state, Some(59)), Ok(60..60));
        assert_eq!(to_replay(&state, Some(80)), Ok(60..60));
        state.apply(&FrameKind::Release { first_kept: 40 });
        assert_eq!(to_replay(&state, Some(39)), Ok(40..60));
        assert_eq!(to_replay(&state, Some(38)), Err(39..40));
        assert_eq!(to_replay(&state, None), Err(0..40));
        // A snapshot took the log's place: what is kept before it ends too early.
        state.apply(&FrameKind::Purge {
            upto: id(200),
            committed_end: 100,
        });
        assert_eq!(to_replay(&state, Some(80)), Err(81..201));
        assert_eq!(to_replay(&state, Some(200)), Ok(201..201));
    }

    #[test]
    fn the_lost_file_is_the_newest_that_covered_what_is_missing() {
        let name = |index, ending| {
            let name = super::super::file_name(0, id(index));
            format!("{}{ending}", name.strip_prefix("snapshots/").unwrap())
        };
        let names = [name(30, ""), name(60, ".damaged"), "notes".to_owned()];
        assert_eq!(lost_file(&names, 0, 61), "snapshots");
        assert_eq!(
            lost_file(&names, 0, 31),
            format!("snapshots/{}", name(60, ".damaged"))
        );
        assert_eq!(lost_file(&names, 1, 31), "snapshots");
    }
}
