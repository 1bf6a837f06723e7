//! The log of one partition in memory: with everything queued, and how far that is durable.

use crate::entry::{LogId, Vote};
use crate::ranges::RangeSet;
use crate::segment::FrameKind;
use crate::state::PartitionState;
use crate::tail::{TailEntry, bytes_of};
use parking_lot::RwLock;
use std::collections::BTreeMap;

/// The log of one partition in memory.
pub(crate) struct Partition {
    pub id: u32,
    pub live: RwLock<Live>,
}

#[derive(Default)]
pub(crate) struct Live {
    /// With everything queued.
    pub state: PartitionState,
    pub tail: BTreeMap<u64, TailEntry>,
    pub durable_vote: Option<Vote>,
    /// Index through which the log is durable.
    pub durable: Option<u64>,
    pub committed: Option<LogId>,
    /// Records kept, with those not yet in the index.
    pub claims: RangeSet,
    /// Counts what makes places of entries invalid: truncations, purges beyond the log, released history.
    pub generation: u64,
}

impl Partition {
    pub(crate) fn empty(id: u32) -> Self {
        Self {
            id,
            live: RwLock::default(),
        }
    }

    pub(crate) fn recovered(
        id: u32,
        state: PartitionState,
        committed: Option<LogId>,
        claims: RangeSet,
    ) -> Self {
        let durable = state.last.map(|last| last.index);
        let live = Live {
            durable_vote: state.vote,
            durable,
            committed,
            claims,
            state,
            tail: BTreeMap::new(),
            generation: 0,
        };
        Self {
            id,
            live: RwLock::new(live),
        }
    }
}

impl Live {
    /// The operation `stamp` is durable, which ended with the entry at `index`.
    pub(crate) fn became_durable(&mut self, index: u64, stamp: u64) {
        // Entries truncated since are gone from the tail; those that replaced them have a later stamp.
        let durable = self
            .tail
            .range(..=index)
            .rev()
            .find(|(_, tail)| tail.stamp <= stamp);
        if let Some((index, _)) = durable {
            self.durable = self.durable.max(Some(*index));
        }
    }

    /// Takes in anything but an entry; returns the bytes that left the tail.
    pub(super) fn change(&mut self, kind: &FrameKind) -> usize {
        let removed = self.state.apply(kind);
        let mut bytes = 0;
        if !removed.is_empty() {
            self.generation += 1;
            self.claims.remove(removed.clone());
            bytes = self
                .tail
                .split_off(&removed.start)
                .values()
                .map(|tail| bytes_of(&tail.entry))
                .sum();
            if self.durable >= Some(removed.start) {
                self.durable = removed.start.checked_sub(1);
            }
        }
        match kind {
            // What a snapshot took the place of is durable in it.
            FrameKind::Purge { .. } => {
                self.durable = self
                    .durable
                    .max(self.state.purged.map(|purged| purged.index))
            }
            FrameKind::Release { .. } => {
                self.generation += 1;
                let start = self
                    .state
                    .history
                    .first()
                    .map_or(self.state.live().start, |range| range.start);
                self.claims.cut_below(start);
            }
            _ => {}
        }
        bytes
    }

    /// The last entry known to be committed that is durable here.
    pub(crate) fn durable_committed(&self) -> Option<LogId> {
        let committed = self.committed?;
        let durable = self.durable?;
        if committed.index <= durable {
            return Some(committed);
        }
        // The live log contains the committed entry, so everything before it is committed too.
        self.state.id_at(durable)
    }
}
