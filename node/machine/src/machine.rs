//! The machine: a fold over the log.

use crate::apply::Application;
use crate::codec::entry::Needs;
use crate::codec::record::{RecordHeader, RecordWriter};
use crate::codec::runs::RunWriter;
use crate::level::LEVELS;
use crate::names::Names;
use crate::sessions::SessionIndex;
use crate::{Applied, DecodeError, Digest, EntryRef, LevelRange, Limits, LogId, View};
use bytes::Bytes;
use huntlog_planted::{Bug, is_planted};
use std::ops::Deref;
use thiserror::Error;

/// The state machine of one partition.
///
/// Everything that can be asked of a [`View`] can be asked of it.
#[derive(Debug)]
pub struct Machine {
    pub(crate) view: View,
    pub(crate) hunt_names: Names,
    pub(crate) session_index: SessionIndex,
    /// The feature levels that this node's release reads. Not part of the state:
    /// they end the node where it cannot go on, and decide nothing else.
    levels: LevelRange,
    digests_uncomparable: u64,
    /// Of entries through this log index, 0 for none, the leader's digest is
    /// not compared.
    ignore_digests_through: u64,
    pub(crate) scratch: Scratch,
}

/// Buffers that every entry uses again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) record: RecordWriter,
    pub(crate) runs: RunWriter,
    pub(crate) effects: Vec<u8>,
    /// The hunts of a command, as indexes into the entry's.
    pub(crate) hunts: Vec<usize>,
}

/// Why an entry was not applied. The machine has not changed, and must not be
/// fed any further: the node stops.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The entry is damaged, or was written by a later release.
    #[error("log entry {log_id} cannot be read, nothing of it was applied: {source}")]
    Decode {
        /// The entry.
        log_id: LogId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The log has a gap, or an entry came twice.
    #[error("log entry {log_id} was not applied: the next one must have index {expected_index}")]
    NotNext {
        /// The entry that came.
        log_id: LogId,
        /// The index that must come.
        expected_index: u64,
    },
    /// The log goes on at a level that this release does not read.
    #[error(
        "the log is at feature level {level} from entry {log_id} on, and this release reads level {supported}; nothing of that was applied, and nothing is lost; run release {release} or a newer one on this node"
    )]
    LevelUnknown {
        /// The entry.
        log_id: LogId,
        /// The level from there on.
        level: u32,
        /// The first release that reads that level.
        release: String,
        /// The levels that this release reads.
        supported: LevelRange,
    },
    /// The entry holds what the level in force does not know: replicas of the
    /// releases of that level cannot read it.
    #[error(
        "log entry {log_id} needs feature level {need}, and level {have} is in force; it was not applied; a leader has proposed what it should have refused: report this"
    )]
    AboveLevel {
        /// The entry.
        log_id: LogId,
        /// The level it needs.
        need: u32,
        /// The level in force.
        have: u32,
    },
    /// This replica has decided something else than the leader (I7).
    #[error(
        "this node's state differs from the leader's at or before log index {index} (digest {ours} here, {theirs} there); entry {log_id} was not applied; see what the other nodes have at this index: if most have {theirs}, this node is wrong: add it again under a new node id; if most have {ours}, that leader was wrong, the log is not: start every node with raft.ignore_digests_through = {}", .log_id.index
    )]
    DigestMismatch {
        /// The entry that told.
        log_id: LogId,
        /// The log index the digests belong to.
        index: u64,
        /// This machine's.
        ours: Digest,
        /// The leader's.
        theirs: Digest,
    },
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Sessions known.
    pub sessions: u64,
    /// Hunts there are.
    pub hunts: u64,
    /// The leader's digests that could not be compared, since this process
    /// started: they belong to entries before those remembered.
    pub digests_uncomparable: u64,
}

impl Machine {
    /// An empty machine, before the first log entry.
    #[must_use]
    pub fn new(partition: u32, limits: Limits) -> Self {
        Self::from_parts(View::new(partition, limits), SessionIndex::default())
    }

    pub(crate) fn from_parts(view: View, session_index: SessionIndex) -> Self {
        Self {
            hunt_names: view.hunts.names(),
            view,
            session_index,
            levels: LevelRange::SUPPORTED,
            digests_uncomparable: 0,
            ignore_digests_through: 0,
            scratch: Scratch::default(),
        }
    }

    /// Applies the next log entry, one with commands or a tick.
    ///
    /// Deterministic: what it decides follows from the entries before it and
    /// from this one, and from nothing else. Replaying a log gives the same
    /// state, results, records and digests on every node (I7).
    ///
    /// # Errors
    /// When the entry is damaged, is not the next one, or tells that this
    /// replica has diverged. The machine is then unchanged.
    pub fn apply(&mut self, log_id: LogId, entry: &Bytes) -> Result<Applied, ApplyError> {
        self.check_next(log_id)?;
        let unreadable = |source| ApplyError::Decode { log_id, source };
        let decoded = EntryRef::decode(entry).map_err(unreadable)?;
        let needs = decoded.validate().map_err(unreadable)?;
        self.check_level(log_id, &needs)?;
        self.check_digest(log_id, &decoded)?;
        // Nothing below can fail, so an entry is applied whole or not at all.
        Ok(Application::new(self, log_id, entry, &decoded).run())
    }

    /// Applies the next log entry when it is one of Raft's own: a leader's
    /// blank, or a membership. It moves the position and the digest and nothing
    /// else, not even time.
    ///
    /// # Errors
    /// When the entry is not the next one. The machine is then unchanged.
    pub fn apply_blank(&mut self, log_id: LogId) -> Result<Applied, ApplyError> {
        self.check_next(log_id)?;
        self.scratch.record.clear();
        Ok(self.finish(log_id, self.view.end_offset, Vec::new()))
    }

    /// Applies entries through `log_index` whatever digest they carry: a
    /// leader's was wrong, and is in the log for ever. Not part of the state.
    pub fn ignore_digests_through(&mut self, log_index: u64) {
        self.ignore_digests_through = log_index;
    }

    /// From now on entries are applied as far as a release that reads `levels`
    /// can. Not part of the state.
    pub fn accept_levels(&mut self, levels: LevelRange) {
        self.levels = levels;
        if is_planted(Bug::LevelOfTheRelease) {
            self.view.level = levels.max;
        }
    }

    /// The state as of now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            sessions: self.view.session_count(),
            hunts: self.view.hunt_count(),
            digests_uncomparable: self.digests_uncomparable,
        }
    }

    /// Closes the record and moves the position.
    pub(crate) fn finish(
        &mut self,
        log_id: LogId,
        first_offset: u64,
        results: Vec<crate::CommandResult>,
    ) -> Applied {
        let view = &mut self.view;
        let header = RecordHeader {
            first_offset,
            accepted: view.end_offset - first_offset,
            time_ms: view.time_ms,
        };
        let covers_level = view.level >= LEVELS
            || is_planted(Bug::DigestCoversTooEarly) && self.levels.max >= LEVELS;
        let (record, digest) = self.scratch.record.finish(
            header,
            log_id,
            view.digests.last(),
            covers_level.then_some(view.level),
        );
        view.digests
            .push(log_id.index, digest, view.limits.digests_kept);
        view.last_applied = Some(log_id);
        Applied {
            log_id,
            first_offset,
            accepted: header.accepted,
            time_ms: header.time_ms,
            results,
            record,
        }
    }

    fn check_next(&self, log_id: LogId) -> Result<(), ApplyError> {
        let (expected_index, matches) = match self.view.last_applied {
            Some(last) => (last.index + 1, log_id.index == last.index + 1),
            // Logs begin with index 0 or 1.
            None => (0, log_id.index <= 1),
        };
        if matches {
            Ok(())
        } else {
            Err(ApplyError::NotNext {
                log_id,
                expected_index,
            })
        }
    }

    fn check_level(&self, log_id: LogId, needs: &Needs<'_>) -> Result<(), ApplyError> {
        let have = self.view.level;
        let supported = self.levels;
        let need = needs.level;
        if need > supported.max || need > have && !is_planted(Bug::AppliedBelowLevel) {
            return Err(ApplyError::AboveLevel { log_id, need, have });
        }
        match needs.raises {
            Some((level, release)) if level > supported.max => Err(ApplyError::LevelUnknown {
                log_id,
                level,
                release: release.to_owned(),
                supported,
            }),
            _ => Ok(()),
        }
    }

    fn check_digest(&mut self, log_id: LogId, entry: &EntryRef<'_>) -> Result<(), ApplyError> {
        let Some(check) = entry.check() else {
            return Ok(());
        };
        match self.view.digest_at(check.index) {
            None => self.digests_uncomparable += 1,
            Some(ours) if ours == check.digest => {}
            Some(_) if log_id.index <= self.ignore_digests_through => {}
            Some(ours) => {
                return Err(ApplyError::DigestMismatch {
                    log_id,
                    index: check.index,
                    ours,
                    theirs: check.digest,
                });
            }
        }
        Ok(())
    }
}

impl Deref for Machine {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view is read, and written to a snapshot, on another thread.
    #[test]
    fn threads_may_share_it() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Machine>();
        check::<View>();
    }
}
