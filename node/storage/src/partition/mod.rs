//! A partition's log: the handle everything above storage holds.

mod live;
mod read;
mod records;

pub(crate) use live::{Live, Partition};

use crate::entry::{LogEntry, LogId, Vote};
use crate::error::{FatalError, WriteError};
use crate::limits::{BATCH_BYTES_MAX, ENTRY_BYTES_MAX};
use crate::segment::{FRAME_HEADER_BYTES, Frame, FrameKind};
use crate::shared::Shared;
use crate::state::PartitionState;
use crate::storage::Owner;
use crate::tail::{Arrival, TailEntry, bytes_of};
use bytes::Bytes;
use huntlog_planted::{Bug, is_planted};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Called once: after the write is durable, or when it is known to have failed.
/// Runs on the writer thread (on the caller's if the write is refused), so it hands over quickly and does not block.
pub type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A segment that is no longer written, as one partition sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its number: segments are numbered as they are written.
    pub number: u64,
    /// Bytes written to it.
    pub bytes: u64,
    /// The highest index among its entries of the partition; `None` if there are none.
    pub last_index: Option<u64>,
}

/// A cheap handle to one partition's log.
#[derive(Clone)]
pub struct PartitionLog {
    owner: Arc<Owner>,
    partition: Arc<Partition>,
}

impl fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionLog")
            .field("id", &self.partition.id)
            .finish_non_exhaustive()
    }
}

impl PartitionLog {
    pub(crate) fn new(owner: Arc<Owner>, partition: Arc<Partition>) -> Self {
        Self { owner, partition }
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    /// The partition's id.
    pub fn id(&self) -> u32 {
        self.partition.id
    }

    /// Appends consecutive entries: readable at once, `done` after the fdatasync.
    ///
    /// Entries that do not follow the last one, or are too large, are refused whole. Blocks only while more than
    /// [`crate::limits::QUEUE_BYTES_MAX`] bytes wait to be written.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) {
        let shared = self.shared();
        if shared.threaded {
            shared.queue.wait_for_room();
        }
        let mut live = self.partition.live.write();
        if let Err(reason) = check_entries(&live.state, &entries) {
            drop(live);
            return done(Err(WriteError::Refused { reason }));
        }
        let done = if is_planted(Bug::AcknowledgeBeforeSync) {
            done(Ok(()));
            Box::new(drop)
        } else {
            done
        };
        let groups = split(entries);
        let frames = groups
            .iter()
            .map(|group| group.iter().map(|entry| self.frame_of(entry)).collect())
            .collect();
        match shared.queue.push(frames, done) {
            Ok(first_stamp) => {
                for (group, stamp) in groups.into_iter().zip(first_stamp..) {
                    self.keep_in_tail(&mut live, group, stamp);
                }
                drop(live);
                self.woken();
            }
            Err(done) => {
                drop(live);
                done(Err(self.refusal()));
            }
        }
    }

    fn frame_of(&self, entry: &LogEntry) -> Frame {
        let kind = FrameKind::Entry {
            id: entry.id,
            payload: entry.payload.clone(),
        };
        Frame {
            partition: self.partition.id,
            kind,
        }
    }

    fn keep_in_tail(&self, live: &mut Live, entries: Vec<LogEntry>, stamp: u64) {
        let mut budget = self.shared().tail.lock();
        for entry in entries {
            let index = entry.id.index;
            live.state.apply(&FrameKind::Entry {
                id: entry.id,
                payload: Bytes::new(),
            });
            budget.arrived(
                Arrival {
                    partition: self.partition.id,
                    index,
                    stamp,
                },
                bytes_of(&entry),
            );
            live.tail.insert(index, TailEntry { entry, stamp });
        }
    }

    /// Saves the vote; `done` after the fdatasync.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        self.change(FrameKind::Vote(vote), done);
    }

    /// Removes every entry after `last` (`None`: every live entry). Refused if that would reach into what was purged.
    pub fn truncate_after(&self, last: Option<LogId>, done: Done) {
        self.change(FrameKind::Truncate { after: last }, done);
    }

    /// Moves the live log's start behind `upto`; the entries stay readable as history.
    ///
    /// If the log does not contain `upto`, because a snapshot took its place, the live log becomes empty, and only what
    /// was committed stays as history.
    pub fn purge(&self, upto: LogId, done: Done) {
        let committed_end = self
            .partition
            .live
            .read()
            .committed
            .map_or(0, |committed| committed.index + 1);
        self.change(
            FrameKind::Purge {
                upto,
                committed_end,
            },
            done,
        );
    }

    /// Gives up history below `first_kept`, as far as it was purged; segments that hold nothing else are deleted.
    pub fn release_history(&self, first_kept: u64, done: Done) {
        self.change(FrameKind::Release { first_kept }, done);
    }

    fn change(&self, kind: FrameKind, done: Done) {
        let mut live = self.partition.live.write();
        if let Err(reason) = live.state.check(&kind) {
            drop(live);
            return done(Err(WriteError::Refused { reason }));
        }
        let frame = Frame {
            partition: self.partition.id,
            kind: kind.clone(),
        };
        let mut frames = vec![frame];
        if is_planted(Bug::VoteNotPersisted) {
            frames.retain(|frame| !matches!(frame.kind, FrameKind::Vote(_)));
        }
        if is_planted(Bug::TruncationNotPersisted) {
            frames.retain(|frame| !matches!(frame.kind, FrameKind::Truncate { .. }));
        }
        if let Err(done) = self.shared().queue.push(vec![frames], done) {
            drop(live);
            return done(Err(self.refusal()));
        }
        let tail_bytes_left = live.change(&kind);
        self.shared().tail.lock().left(tail_bytes_left);
        drop(live);
        self.woken();
    }

    fn refusal(&self) -> WriteError {
        self.shared()
            .fatal()
            .map_or(WriteError::Closed, |error| WriteError::Fatal(error.clone()))
    }

    fn woken(&self) {
        if let Some(hook) = self
            .shared()
            .options
            .on_queued
            .as_ref()
            .filter(|_| !self.shared().threaded)
        {
            hook();
        }
    }

    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&PartitionState) -> T) -> T {
        look(&self.partition.live.read().state)
    }

    /// The last durable vote.
    pub fn vote(&self) -> Option<Vote> {
        self.partition.live.read().durable_vote
    }

    /// The last purged entry.
    pub fn last_purged(&self) -> Option<LogId> {
        self.partition.live.read().state.purged
    }

    /// The last entry of the log, durable or not; the last purged one if the log is empty.
    pub fn last(&self) -> Option<LogId> {
        self.partition.live.read().state.last
    }

    /// The id of the entry at `index`, from memory; `None` if it is not kept, or more than
    /// [`crate::limits::RUNS_MAX`] leaderships ago.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.partition.live.read().state.id_at(index)
    }

    /// The last entry of each leadership from entry `first` to entry `last` of the live log, ascending; from memory.
    pub fn leadership_ends(&self, first: u64, last: u64) -> Vec<LogId> {
        self.partition
            .live
            .read()
            .state
            .leadership_ends(first, last)
    }

    /// Index through which the log is durable.
    pub fn durable_index(&self) -> Option<u64> {
        self.partition.live.read().durable
    }

    /// Remembers the committed id, lazily and unsynced. The live log contains it.
    pub fn save_committed(&self, committed: Option<LogId>) {
        self.partition.live.write().committed = committed;
        self.shared().index_queue.committed(self.partition.id);
    }

    /// The lower of what was saved and the last durable entry.
    pub fn committed(&self) -> Option<LogId> {
        self.partition.live.read().durable_committed()
    }

    /// First index of the range of history that the live log continues.
    pub fn history_start(&self) -> u64 {
        self.partition.live.read().state.history_start()
    }

    /// All ranges that can be read, ascending; the last one ends with the live log, if that is not empty.
    pub fn history(&self) -> Vec<Range<u64>> {
        self.partition.live.read().state.history.clone()
    }

    /// The segments that are no longer written, oldest first, with what they hold of this partition; and the bytes of
    /// the one being written. Waits for the write under way.
    pub fn segments(&self) -> (Vec<ClosedSegment>, u64) {
        let engine = self.shared().engine.lock();
        let closed = engine
            .closed()
            .iter()
            .map(|segment| ClosedSegment {
                number: segment.number,
                bytes: segment.end,
                last_index: segment
                    .footer
                    .0
                    .get(&self.partition.id)
                    .map(|counts| counts.last),
            })
            .collect();
        (closed, engine.position().offset)
    }

    /// Waits until the log is durable through `index`, or nothing that is queued can make it so. Blocks.
    pub fn wait_durable(&self, index: u64) -> Result<(), FatalError> {
        self.shared().wait_until(|| {
            let live = self.partition.live.read();
            live.durable >= Some(index) || live.state.last.is_none_or(|last| last.index < index)
        })
    }
}

/// Groups of entries that fit one batch each; one empty group if there are none.
fn split(entries: Vec<LogEntry>) -> Vec<Vec<LogEntry>> {
    let mut groups = vec![Vec::new()];
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.payload.len() + FRAME_HEADER_BYTES;
        match groups.last_mut() {
            Some(group) if bytes <= BATCH_BYTES_MAX || group.is_empty() => group.push(entry),
            _ => {
                bytes = entry.payload.len() + FRAME_HEADER_BYTES;
                groups.push(vec![entry]);
            }
        }
    }
    groups
}

fn check_entries(state: &PartitionState, entries: &[LogEntry]) -> Result<(), String> {
    let mut last = state.last;
    for entry in entries {
        if let Some(last) = last
            && entry.id.index != last.index + 1
        {
            return Err(format!(
                "entry {} does not follow the last one, {last}",
                entry.id
            ));
        }
        if entry.payload.len() > ENTRY_BYTES_MAX {
            let size = entry.payload.len();
            return Err(format!(
                "entry {} has {size} bytes, more than {ENTRY_BYTES_MAX}",
                entry.id
            ));
        }
        last = Some(entry.id);
    }
    Ok(())
}
