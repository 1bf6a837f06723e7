//! openraft's log storage over `huntlog-storage`.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds, RangeInclusive};

use futures::Stream;
use futures::stream;
use huntlog_storage::{LogEntry, PartitionLog};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use super::entry::{decode_payload, encode_payload};
use super::{Entry, LogId, TypeConfig, Vote, log_id_from_storage, log_id_to_storage};
use crate::limits;

/// One partition's log, as openraft sees it.
#[derive(Clone)]
pub struct LogStore {
    log: PartitionLog,
}

impl LogStore {
    /// The log of `log`'s partition.
    pub fn new(log: PartitionLog) -> Self {
        Self { log }
    }

    /// The entries of `range`, as many as fit in `max_bytes`, at least one if
    /// there is any.
    ///
    /// What the log does not contain at either end of the range is left out, as
    /// openraft's contract has it.
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let range = self.contained(range);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let stored = match self.log.read_cached(range.clone()) {
            Some(mut entries) => {
                entries.truncate(fitting(&entries, max_bytes));
                entries
            }
            None => {
                let log = self.log.clone();
                crate::blocking::spawn_blocking(move || log.read(range, max_bytes))
                    .await
                    .map_err(io::Error::other)?
                    .map_err(io::Error::other)?
            }
        };
        stored.into_iter().map(entry_from_storage).collect()
    }

    /// The part of `range` that the log contains.
    fn contained(&self, range: Range<u64>) -> Range<u64> {
        let first = match self.log.last_purged() {
            Some(purged) => purged.index + 1,
            None => self.log.history_start(),
        };
        let end = self.log.last().map_or(0, |last| last.index + 1);
        range.start.max(first)..range.end.min(end)
    }
}

/// How many entries, from the first, have at most `max_bytes` of payload; at
/// least one.
fn fitting(entries: &[LogEntry], max_bytes: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = entries.iter().take_while(|entry| {
        bytes = bytes.saturating_add(entry.payload.len());
        bytes <= max_bytes
    });
    fits.count().max(1)
}

fn entry_from_storage(entry: LogEntry) -> io::Result<Entry> {
    let payload = decode_payload(entry.payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Entry {
        log_id: log_id_from_storage(entry.id),
        payload,
    })
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(bounds(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote().map(vote_from_storage))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, limits::REPLICATION_BYTES_MAX).await
    }

    /// From memory, where the default reads entries here and there in search of
    /// the ends: one that is damaged would keep the node from starting.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let ends = self
            .log
            .leadership_ends(range.start().index, range.end().index);
        Ok(ends.into_iter().map(log_id_from_storage).collect())
    }

    /// Lazy, where the default loads the whole range: what is to be applied
    /// after a restart or a long pause can be gigabytes.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let reader = self.clone();
        let wanted = bounds(&range);
        let chunks = stream::try_unfold((reader, wanted), |(reader, wanted)| async move {
            if wanted.is_empty() {
                return Ok(None);
            }
            let entries = reader
                .read(wanted.clone(), limits::LOG_READ_BYTES_MAX)
                .await?;
            let Some(last) = entries.last() else {
                return Ok(None);
            };
            let rest = last.log_id.index + 1..wanted.end;
            let chunk = stream::iter(entries.into_iter().map(Ok));
            Ok::<_, io::Error>(Some((chunk, (reader, rest))))
        });
        Box::pin(futures::TryStreamExt::try_flatten(chunks))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = self.log.last_purged().map(log_id_from_storage);
        let last_log_id = self.log.last().map(log_id_from_storage);
        Ok(LogState {
            last_log_id: last_log_id.or(last_purged_log_id),
            last_purged_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = oneshot::channel();
        self.log.save_vote(
            huntlog_storage::Vote {
                term: vote.leader_id.term,
                node_id: vote.leader_id.node_id,
                committed: vote.committed,
            },
            Box::new(move |result| {
                // The receiver is gone only when Raft is being shut down.
                let _ = done.send(result);
            }),
        );
        saved
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log
            .save_committed(committed.as_ref().map(log_id_to_storage));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(log_id_from_storage))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries
            .into_iter()
            .map(|entry| LogEntry {
                id: log_id_to_storage(&entry.log_id),
                payload: encode_payload(&entry.payload),
            })
            .collect();
        self.log.append(
            entries,
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::other))),
        );
        Ok(())
    }

    /// Waits for the disk, rare as it is: a snapshot that is installed next
    /// must not become visible while the log may still come back with entries
    /// that contradict it.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        tracing::info!(
            partition = self.log.id(),
            after = ?last_log_id.as_ref().map(|id| id.index),
            "cutting off entries of a leader that was deposed before they were committed"
        );
        let (done, truncated) = oneshot::channel();
        self.log.truncate_after(
            last_log_id.as_ref().map(log_id_to_storage),
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        truncated
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.purge(log_id_to_storage(&log_id), Box::new(|_| {}));
        Ok(())
    }
}

fn vote_from_storage(vote: huntlog_storage::Vote) -> Vote {
    Vote {
        leader_id: openraft::impls::leader_id_adv::LeaderId {
            term: vote.term,
            node_id: vote.node_id,
        },
        committed: vote.committed,
    }
}
