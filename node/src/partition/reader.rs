//! Reading the events of a partition in order: from the tail while it reaches,
//! from the disk below it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use huntlog_machine::history::{self, CommittedEvent, Filter};
use huntlog_machine::{DecodeError, RecordHeader};
use huntlog_storage::ReadError;

use super::replica::Replica;
use super::tail::{AppliedMark, TailLookup};
use crate::limits;
use crate::raft::{EntryFormatError, entry_data};

/// Why events can not be read here.
#[derive(Debug, thiserror::Error)]
pub enum ReadEventsError {
    /// They are older than what this node keeps.
    #[error("offset {asked} is older than the retained history, which begins at offset {earliest}")]
    BeforeHistory {
        /// The offset asked for.
        asked: u64,
        /// The first one kept.
        earliest: u64,
    },
    /// The log could not be read.
    #[error(transparent)]
    Storage(#[from] ReadError),
    /// The record of an entry is not there.
    #[error(
        "what was decided about log index {index} is not kept here; ask another node, or restart this one, which derives it again"
    )]
    NoRecord {
        /// The entry.
        index: u64,
    },
    /// An entry or its record does not decode.
    #[error("log index {index} does not decode: {source}")]
    Decode {
        /// The entry.
        index: u64,
        /// Why.
        source: DecodeError,
    },
    /// An entry is of a kind this release does not know.
    #[error(transparent)]
    Format(#[from] EntryFormatError),
    /// The read was interrupted.
    #[error("the read was interrupted: {0}; retry")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What a reader's sink says after each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It takes more.
    More,
    /// It is full with this event.
    Full,
}

/// A place in the partition's events, and what is wanted from there on.
pub struct EventReader {
    replica: Arc<Replica>,
    filter: Filter,
    /// The entry to go on with.
    next_index: u64,
    /// Every matching event below it has been delivered.
    next_offset: u64,
}

/// An entry and what apply derived from it.
struct ReadEntry {
    index: u64,
    data: Bytes,
    record: Bytes,
}

impl EventReader {
    /// A reader of what matches `filter`, from `offset` on.
    ///
    /// # Errors
    /// When `offset` is older than what is kept.
    pub async fn new(
        replica: Arc<Replica>,
        offset: u64,
        filter: Filter,
    ) -> Result<Self, ReadEventsError> {
        let mark = replica.tail().mark();
        // What retention has given up may still be in memory; it is gone all
        // the same.
        let kept = |index: &u64| *index >= replica.log().history_start();
        let next_index = if offset >= mark.end_offset {
            mark.next_index
        } else if let Some(index) = replica.tail().index_of_offset(offset).filter(kept) {
            index
        } else {
            let replica = replica.clone();
            crate::blocking::spawn_blocking(move || index_on_disk(&replica, offset, mark)).await??
        };
        Ok(Self {
            replica,
            filter,
            next_index,
            next_offset: offset,
        })
    }

    /// Where to resume: every matching event below it has been delivered.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Delivers the matching events of what is applied up to `end`, in order and
    /// each with its log index, until the sink is full. Returns whether `end`
    /// was reached.
    ///
    /// Reads at most [`limits::LOG_READ_BYTES_MAX`] of log, so that a reader
    /// whose filter matches little still hears of its progress.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn next_chunk(
        &mut self,
        end: AppliedMark,
        mut sink: impl FnMut(u64, &CommittedEvent<'_>) -> Flow,
    ) -> Result<bool, ReadEventsError> {
        let mut budget = limits::LOG_READ_BYTES_MAX;
        while self.skip_to_concerned(end.next_index) {
            let (entries, last) = match self.replica.tail().get(self.next_index) {
                TailLookup::NotYet => break,
                TailLookup::Entry(entry) => {
                    budget = budget.saturating_sub(entry.data.len().max(1));
                    let entry = ReadEntry {
                        index: entry.index(),
                        data: entry.data.clone(),
                        record: entry.record.clone(),
                    };
                    (vec![entry], budget == 0)
                }
                TailLookup::Older => (self.read_disk(end.next_index).await?, true),
            };
            for entry in entries {
                if self.deliver(&entry, &mut sink)? == Flow::Full {
                    return Ok(false);
                }
                self.next_index = entry.index + 1;
            }
            if last {
                return Ok(self.next_index >= end.next_index);
            }
        }
        self.next_offset = self.next_offset.max(end.end_offset);
        Ok(true)
    }

    /// Moves on to the next entry that concerns a wanted hunt; false when there
    /// is none before `end_index`.
    fn skip_to_concerned(&mut self, end_index: u64) -> bool {
        if !self.filter.hunts.is_empty() && self.next_index < end_index {
            let machine = self.replica.machine();
            let next = self
                .filter
                .hunts
                .iter()
                .filter_map(|hunt| {
                    machine
                        .hunt_entries(hunt)?
                        .iter_from(self.next_index)
                        .next()
                })
                .min();
            self.next_index = next.unwrap_or(end_index).min(end_index);
        }
        self.next_index < end_index
    }

    fn deliver(
        &mut self,
        entry: &ReadEntry,
        sink: &mut impl FnMut(u64, &CommittedEvent<'_>) -> Flow,
    ) -> Result<Flow, ReadEventsError> {
        let index = entry.index;
        let decode = |source| ReadEventsError::Decode { index, source };
        if entry.data.is_empty() {
            return Ok(Flow::More);
        }
        let header = RecordHeader::decode(&entry.record).map_err(decode)?;
        let events =
            history::events_from(&entry.data, &entry.record, self.next_offset, &self.filter)
                .map_err(decode)?;
        for event in events {
            let event = event.map_err(decode)?;
            let flow = sink(index, &event);
            self.next_offset = event.offset + 1;
            if flow == Flow::Full {
                return Ok(Flow::Full);
            }
        }
        self.next_offset = self.next_offset.max(header.first_offset + header.accepted);
        Ok(Flow::More)
    }

    async fn read_disk(&self, end_index: u64) -> Result<Vec<ReadEntry>, ReadEventsError> {
        let replica = self.replica.clone();
        let start = self.next_index;
        crate::blocking::spawn_blocking(move || {
            let log = replica.log();
            // No more than one message takes: what is left would be read again.
            let entries = log.read_history(start..end_index, limits::READ_MESSAGE_BYTES_TARGET)?;
            let end = entries.last().map_or(start, |entry| entry.id.index + 1);
            let records = log.records(start..end, usize::MAX)?;
            if entries.len() != records.len() {
                let known: BTreeSet<u64> = records.iter().map(|(index, _)| *index).collect();
                let index = (start..end).find(|index| !known.contains(index));
                return Err(ReadEventsError::NoRecord {
                    index: index.unwrap_or(start),
                });
            }
            entries
                .into_iter()
                .zip(records)
                .map(|(entry, (index, record))| {
                    let data = entry_data(&entry.payload)?.cloned().unwrap_or_default();
                    Ok(ReadEntry {
                        index,
                        data,
                        record,
                    })
                })
                .collect()
        })
        .await?
    }
}

/// The first offset whose event this node can read.
pub(super) async fn earliest_offset(replica: &Arc<Replica>) -> Result<u64, ReadEventsError> {
    let mark = replica.tail().mark();
    let replica = replica.clone();
    crate::blocking::spawn_blocking(move || Ok(earliest_on_disk(&replica, mark)?.1)).await?
}

/// The first entry from which on everything applied can be read, and the offset
/// of its first event. After a snapshot from another node that is where the log
/// goes on, which may be the end.
fn earliest_on_disk(replica: &Replica, mark: AppliedMark) -> Result<(u64, u64), ReadEventsError> {
    let log = replica.log();
    let start = log.history_start();
    let gaps = log.missing_records(start..mark.next_index);
    let first = gaps.last().map_or(start, |gap| gap.end);
    if first >= mark.next_index {
        return Ok((mark.next_index, mark.end_offset));
    }
    Ok((first, record_header(replica, first)?.first_offset))
}

fn record_header(replica: &Replica, index: u64) -> Result<RecordHeader, ReadEventsError> {
    let record = replica
        .log()
        .record(index)?
        .ok_or(ReadEventsError::NoRecord { index })?;
    RecordHeader::decode(&record).map_err(|source| ReadEventsError::Decode { index, source })
}

/// The entry that holds `offset`, by binary search over the records.
fn index_on_disk(
    replica: &Replica,
    offset: u64,
    mark: AppliedMark,
) -> Result<u64, ReadEventsError> {
    let (start, earliest) = earliest_on_disk(replica, mark)?;
    if offset < earliest {
        return Err(ReadEventsError::BeforeHistory {
            asked: offset,
            earliest,
        });
    }
    let (mut low, mut high) = (start, mark.next_index);
    while low < high {
        let middle = low + (high - low) / 2;
        let header = record_header(replica, middle)?;
        if header.first_offset + header.accepted <= offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
