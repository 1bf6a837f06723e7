//! What a partition's log is, apart from its payloads: a fold over frames.
//!
//! The same fold serves three readers: the handles (with everything queued), the writer (with everything written, for
//! checkpoints), and opening (with everything found).

use crate::entry::{LogId, Vote};
use crate::limits::{HISTORY_RANGES_MAX, RUNS_MAX};
use crate::segment::{Frame, FrameKind};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use std::ops::Range;

/// Entries of one leader: all from `first` to the next run's first. Two entries of one leader at one index are the same,
/// so a run tells whether a lookup found the entry that belongs there or one that was truncated since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub first: u64,
    pub term: u64,
    pub node_id: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one if there is none after it.
    pub last: Option<LogId>,
    /// What can be read, ascending, without empty ranges; the live log is the end of the last range.
    pub history: Vec<Range<u64>>,
    runs: Vec<Run>,
}

impl PartitionState {
    /// Indexes of the live log.
    pub(crate) fn live(&self) -> Range<u64> {
        let end = self.last.map_or(0, |last| last.index + 1);
        let start = match self.purged {
            Some(purged) => purged.index + 1,
            None => self.history.last().map_or(end, |range| range.start),
        };
        start.min(end)..end
    }

    /// First index of the history that the live log continues.
    pub(crate) fn history_start(&self) -> u64 {
        let live = self.live();
        match self.history.last() {
            Some(range) if range.end == live.end => range.start,
            _ => live.start,
        }
    }

    /// Who led when, as far as it is remembered, ascending.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn is_kept(&self, index: u64) -> bool {
        self.history.iter().any(|range| range.contains(&index))
    }

    /// The id of the entry at `index`; `None` if it is not kept, or too many leaders ago.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        if self.purged.is_some_and(|purged| purged.index == index) {
            return self.purged;
        }
        if !self.is_kept(index) {
            return None;
        }
        let run = self.runs[..self.runs.partition_point(|run| run.first <= index)].last()?;
        Some(LogId {
            term: run.term,
            node_id: run.node_id,
            index,
        })
    }

    /// The last entry of each leadership from `first` to `last`, both of the live log.
    pub(crate) fn leadership_ends(&self, first: u64, last: u64) -> Vec<LogId> {
        let started = self.runs.partition_point(|run| run.first <= first);
        let later = self.runs[started..].iter().map(|run| run.first);
        let ends = later
            .take_while(|start| *start <= last)
            .map(|start| start - 1);
        ends.chain([last])
            .filter_map(|index| self.id_at(index))
            .collect()
    }

    /// Whether `frame` fits this state; the reason if not.
    pub(crate) fn check(&self, frame: &FrameKind) -> Result<(), String> {
        match frame {
            FrameKind::Entry { id, .. } => match self.last {
                Some(last) if id.index != last.index + 1 => {
                    Err(format!("entry {id} does not follow the last one, {last}"))
                }
                _ => Ok(()),
            },
            FrameKind::Truncate { after } => {
                let purged = self.purged.map_or(0, |purged| purged.index + 1);
                match after {
                    Some(after) if after.index + 1 < purged => Err(format!(
                        "truncating after {after} would remove purged entries, up to {}",
                        purged - 1
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Takes in a frame that [`Self::check`] lets pass; returns the entries that are no longer part of the log.
    pub(crate) fn apply(&mut self, frame: &FrameKind) -> Range<u64> {
        let end_before = self.live().end;
        match frame {
            FrameKind::Entry { id, .. } => self.append(*id),
            FrameKind::Vote(vote) => self.vote = Some(*vote),
            FrameKind::Truncate { after } => return self.truncate(*after)..end_before,
            FrameKind::Purge {
                upto,
                committed_end,
            } => return self.purge(*upto, *committed_end)..end_before,
            FrameKind::Release { first_kept } => self.release(*first_kept),
            FrameKind::Checkpoint { .. }
            | FrameKind::SegmentStart { .. }
            | FrameKind::Footer { .. } => {}
        }
        end_before..end_before
    }

    fn append(&mut self, id: LogId) {
        match self.history.last_mut() {
            Some(range) if range.end == id.index => range.end += 1,
            _ => self.history.push(id.index..id.index + 1),
        }
        if self.history.len() > HISTORY_RANGES_MAX {
            self.history.remove(0);
        }
        let same_leader = self
            .runs
            .last()
            .is_some_and(|run| (run.term, run.node_id) == (id.term, id.node_id));
        if !same_leader {
            self.runs.push(Run {
                first: id.index,
                term: id.term,
                node_id: id.node_id,
            });
            // Those of the live log are all needed.
            if self.runs.len() > RUNS_MAX && self.runs[1].first <= self.live().start {
                self.runs.remove(0);
            }
        }
        self.last = Some(id);
    }

    /// Returns the first index removed.
    fn truncate(&mut self, after: Option<LogId>) -> u64 {
        let end = match (after, self.purged) {
            (Some(after), _) => after.index + 1,
            (None, Some(purged)) => purged.index + 1,
            (None, None) => 0,
        };
        if self.last.is_none_or(|last| end > last.index) {
            return u64::MAX;
        }
        self.forget_from(end);
        self.last = match end.checked_sub(1) {
            Some(index) => self.id_at(index).or(after).or(self.purged),
            None => None,
        };
        end
    }

    /// Returns the first index removed, apart from what moves to history.
    fn purge(&mut self, upto: LogId, committed_end: u64) -> u64 {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return u64::MAX;
        }
        let in_log = self.last.is_some_and(|last| upto.index <= last.index)
            && self.id_at(upto.index).is_none_or(|id| id == upto);
        if !in_log {
            // The log ends before the snapshot, or went another way: only what was committed is history.
            let kept = self
                .purged
                .map_or(0, |purged| purged.index + 1)
                .max(committed_end)
                .min(upto.index);
            self.forget_from(kept);
            self.last = Some(upto);
            self.purged = Some(upto);
            return kept;
        }
        self.purged = Some(upto);
        u64::MAX
    }

    fn forget_from(&mut self, end: u64) {
        for range in &mut self.history {
            range.end = range.end.min(end);
        }
        self.history.retain(|range| !range.is_empty());
        self.runs.retain(|run| run.first < end);
    }

    fn release(&mut self, first_kept: u64) {
        let first_kept = first_kept.min(self.live().start);
        for range in &mut self.history {
            range.start = range.start.max(first_kept);
        }
        self.history.retain(|range| !range.is_empty());
        let outlived = self
            .runs
            .partition_point(|run| run.first <= first_kept)
            .saturating_sub(1);
        self.runs.drain(..outlived);
    }

    /// The checkpoint of this state.
    pub(crate) fn checkpoint(&self, partition: u32) -> Frame {
        let mut out = BytesMut::new();
        let put_id = |out: &mut BytesMut, id: Option<LogId>| {
            out.put_u8(u8::from(id.is_some()));
            let id = id.unwrap_or(LogId {
                term: 0,
                node_id: 0,
                index: 0,
            });
            out.put_u64_le(id.term);
            out.put_u64_le(id.node_id);
            out.put_u64_le(id.index);
        };
        let vote = self.vote.map(|vote| LogId {
            term: vote.term,
            node_id: vote.node_id,
            index: u64::from(vote.committed),
        });
        put_id(&mut out, vote);
        put_id(&mut out, self.purged);
        put_id(&mut out, self.last);
        out.put_u32_le(u32::try_from(self.history.len()).expect("at most HISTORY_RANGES_MAX"));
        for range in &self.history {
            out.put_u64_le(range.start);
            out.put_u64_le(range.end);
        }
        out.put_u32_le(u32::try_from(self.runs.len()).expect("at most RUNS_MAX"));
        for run in &self.runs {
            out.put_u64_le(run.first);
            out.put_u64_le(run.term);
            out.put_u64_le(run.node_id);
        }
        Frame {
            partition,
            kind: FrameKind::Checkpoint {
                state: out.freeze(),
            },
        }
    }

    pub(crate) fn from_checkpoint(mut bytes: Bytes) -> Result<Self, TryGetError> {
        fn get_id(bytes: &mut Bytes) -> Result<Option<LogId>, TryGetError> {
            let some = bytes.try_get_u8()? != 0;
            let id = LogId {
                term: bytes.try_get_u64_le()?,
                node_id: bytes.try_get_u64_le()?,
                index: bytes.try_get_u64_le()?,
            };
            Ok(some.then_some(id))
        }
        let vote = get_id(&mut bytes)?;
        let vote = vote.map(|id| Vote {
            term: id.term,
            node_id: id.node_id,
            committed: id.index != 0,
        });
        let purged = get_id(&mut bytes)?;
        let last = get_id(&mut bytes)?;
        let mut history = Vec::new();
        for _ in 0..bytes.try_get_u32_le()? {
            history.push(bytes.try_get_u64_le()?..bytes.try_get_u64_le()?);
        }
        let mut runs = Vec::new();
        for _ in 0..bytes.try_get_u32_le()? {
            let first = bytes.try_get_u64_le()?;
            runs.push(Run {
                first,
                term: bytes.try_get_u64_le()?,
                node_id: bytes.try_get_u64_le()?,
            });
        }
        Ok(Self {
            vote,
            purged,
            last,
            history,
            runs,
        })
    }
}
