//! What waits for the index, and the indexer's step. Acknowledgements never wait for any of this.

use crate::error::FatalError;
use crate::index::keys::{claims, committed, record};
use crate::index::{IndexFault, IndexOperation, IndexUpdates, IndexWriter};
use crate::limits::{INDEX_STEP_MAX, UNINDEXED_BYTES_MAX, UNINDEXED_ENTRIES_MAX};
use crate::options::IndexStats;
use crate::ranges::RangeSet;
use crate::shared::Shared;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long work may gather before the indexer takes it: larger steps cost less, and everything is readable meanwhile.
const GATHER: Duration = Duration::from_millis(20);
/// Records handed out at once from among those that wait.
const PENDING_RECORDS_READ: usize = 1024;

pub(crate) struct IndexQueue {
    state: Mutex<QueueState>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct QueueState {
    updates: VecDeque<PendingUpdates>,
    records: VecDeque<PendingRecord>,
    /// The records in `records` by place, and which of them is the latest there.
    pending: BTreeMap<(u32, u64), (u64, Bytes)>,
    committed: BTreeSet<u32>,
    /// What the index claims, without what is pending.
    claims: BTreeMap<u32, RangeSet>,
    /// Changes of entries, and bytes, that wait or are being moved.
    entries: usize,
    bytes: usize,
    numbers: u64,
    /// Somebody waits for all of it.
    urgent: bool,
    busy: bool,
    refusing: bool,
}

struct PendingUpdates {
    updates: IndexUpdates,
    /// The last operation in them.
    stamp: u64,
    bytes: usize,
}

struct PendingRecord {
    number: u64,
    partition: u32,
    index: u64,
    bytes: usize,
}

struct Work {
    updates: Vec<IndexUpdates>,
    records: Vec<(PendingRecord, Bytes)>,
    committed: BTreeSet<u32>,
    /// The last operation in `updates`, if there is any.
    stamp: Option<u64>,
    entries: usize,
    bytes: usize,
}

impl IndexQueue {
    pub(crate) fn new(claims: BTreeMap<u32, RangeSet>) -> Self {
        Self {
            state: Mutex::new(QueueState {
                claims,
                ..QueueState::default()
            }),
            work: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Takes over what a batch changed; waits while too much is waiting, if a thread makes room.
    pub(crate) fn push_updates(
        &self,
        shared: &Shared,
        updates: IndexUpdates,
        stamp: u64,
        bytes: usize,
    ) {
        let mut state = self.state.lock();
        while shared.threaded
            && !state.refusing
            && (state.entries > UNINDEXED_ENTRIES_MAX || state.bytes > UNINDEXED_BYTES_MAX)
        {
            state.urgent = true;
            self.work.notify_one();
            self.room.wait(&mut state);
        }
        state.entries += updates.operations.len();
        state.bytes += bytes;
        state.updates.push_back(PendingUpdates {
            updates,
            stamp,
            bytes,
        });
        self.work.notify_one();
    }

    pub(crate) fn push_records(&self, shared: &Shared, partition: u32, records: &[(u64, Bytes)]) {
        let mut state = self.state.lock();
        while shared.threaded && !state.refusing && state.bytes > UNINDEXED_BYTES_MAX {
            state.urgent = true;
            self.work.notify_one();
            self.room.wait(&mut state);
        }
        for (index, record) in records {
            state.numbers += 1;
            let number = state.numbers;
            state.bytes += record.len();
            state.records.push_back(PendingRecord {
                number,
                partition,
                index: *index,
                bytes: record.len(),
            });
            state
                .pending
                .insert((partition, *index), (number, record.clone()));
        }
        self.work.notify_one();
    }

    /// The partition's committed id changed.
    pub(crate) fn committed(&self, partition: u32) {
        let mut state = self.state.lock();
        if state.committed.insert(partition) {
            self.work.notify_one();
        }
    }

    /// Records not yet in the index, from the start of the range; not necessarily all.
    pub(crate) fn pending_records(&self, partition: u32, range: Range<u64>) -> Vec<(u64, Bytes)> {
        let state = self.state.lock();
        let found = state
            .pending
            .range((partition, range.start)..(partition, range.end));
        found
            .take(PENDING_RECORDS_READ)
            .map(|((_, index), (_, record))| (*index, record.clone()))
            .collect()
    }

    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.refusing = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Asks for a step now and says whether nothing is left.
    fn hurry(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_idle() && !state.busy {
            return true;
        }
        state.urgent = true;
        self.work.notify_all();
        false
    }

    /// Waits for work, and a moment for more of it; `false` when closed and empty.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.is_idle() {
            if state.refusing {
                return false;
            }
            self.work.wait(&mut state);
        }
        let until = Instant::now() + GATHER;
        while !state.urgent && !state.refusing {
            if self.work.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        true
    }

    /// A limited part of what waits, oldest first, so that room appears as it is worked off.
    fn take(&self) -> Option<Work> {
        let mut state = self.state.lock();
        if state.is_idle() {
            state.urgent = false;
            return None;
        }
        state.busy = true;
        let mut work = Work {
            updates: Vec::new(),
            records: Vec::new(),
            committed: std::mem::take(&mut state.committed),
            stamp: None,
            entries: 0,
            bytes: 0,
        };
        while work.entries < INDEX_STEP_MAX
            && let Some(next) = state.updates.pop_front()
        {
            work.entries += next.updates.operations.len();
            work.bytes += next.bytes;
            work.stamp = Some(next.stamp);
            work.updates.push(next.updates);
        }
        let count = state.records.len().min(INDEX_STEP_MAX);
        let taken: Vec<PendingRecord> = state.records.drain(..count).collect();
        for pending in taken {
            work.bytes += pending.bytes;
            // A record overwritten meanwhile is written once, where its latest version stands.
            if let Some((number, record)) = state.pending.get(&(pending.partition, pending.index))
                && *number == pending.number
            {
                let record = record.clone();
                work.records.push((pending, record));
            }
        }
        state.urgent &= !state.is_idle();
        Some(work)
    }
}

impl QueueState {
    fn is_idle(&self) -> bool {
        self.updates.is_empty() && self.records.is_empty() && self.committed.is_empty()
    }
}

impl Shared {
    /// Moves what waits into the index, or a part of it if there is much; `false` if nothing waited.
    pub(crate) fn index_step(&self) -> bool {
        if self.fatal().is_some() {
            return false;
        }
        let Some(index) = self.index.read().clone() else {
            return false;
        };
        let Some(work) = self.index_queue.take() else {
            return false;
        };
        let started = Instant::now();
        let mut writer = IndexWriter::new(&index);
        if let Err(fault) = self.index_work(&mut writer, &work) {
            self.fail_index(fault);
            return true;
        }
        let keys = writer.written;

        let behind = {
            let mut state = self.index_queue.state.lock();
            for (record, _) in &work.records {
                let place = (record.partition, record.index);
                if state
                    .pending
                    .get(&place)
                    .is_some_and(|(number, _)| *number == record.number)
                {
                    state.pending.remove(&place);
                }
            }
            state.busy = false;
            state.entries -= work.entries;
            state.bytes -= work.bytes;
            self.index_queue.room.notify_all();
            state.entries
        };
        if let Some(stamp) = work.stamp {
            self.evict(stamp);
        }
        self.progress.notify();
        let stats = IndexStats {
            keys,
            took: started.elapsed(),
            entries_behind: behind,
        };
        self.options.metrics.index_stepped(&stats);
        true
    }

    fn index_work(&self, writer: &mut IndexWriter, work: &Work) -> Result<(), IndexFault> {
        for updates in &work.updates {
            writer.updates(updates)?;
            for operation in &updates.operations {
                let (partition, range) = match operation {
                    IndexOperation::Put { .. } => continue,
                    IndexOperation::Remove { partition, range } => (partition, range.clone()),
                    IndexOperation::Release { partition, before } => (partition, 0..*before),
                };
                if let Some(kept) = self.index_queue.state.lock().claims.get_mut(partition) {
                    kept.remove(range);
                }
            }
        }
        writer.at_boundary();
        for (pending, bytes) in &work.records {
            for (chunk, value) in record::values(bytes).into_iter().enumerate() {
                let chunk = u16::try_from(chunk).expect("records are limited to RECORD_BYTES_MAX");
                writer.changes.put(
                    &record::key(pending.partition, pending.index, chunk),
                    &value,
                );
            }
            let value = {
                let mut state = self.index_queue.state.lock();
                let claimed = state.claims.entry(pending.partition).or_default();
                claimed.insert(pending.index..pending.index + 1);
                claims::value(claimed)
            };
            writer.claim(pending.partition, value);
            writer.flush_if_full()?;
        }
        for partition in &work.committed {
            let live = self.partition(*partition);
            let durable = live.live.read().durable_committed();
            match durable {
                Some(id) => writer
                    .changes
                    .put(&committed::key(*partition), &committed::value(id)),
                None => writer.changes.remove(&committed::key(*partition)),
            }
        }
        writer.flush()
    }

    /// Lets the oldest indexed entries leave the tail until it is within its budget.
    fn evict(&self, indexed: u64) {
        loop {
            let Some(arrival) = self.tail.lock().next_to_leave(indexed) else {
                return;
            };
            let partition = self.partition(arrival.partition);
            let mut live = partition.live.write();
            // Truncated since: its bytes were given back then.
            if live
                .tail
                .get(&arrival.index)
                .is_some_and(|tail| tail.stamp == arrival.stamp)
                && let Some(tail) = live.tail.remove(&arrival.index)
            {
                self.tail.lock().left(crate::tail::bytes_of(&tail.entry));
            }
        }
    }

    /// Brings everything that waits into the index and makes the index durable.
    pub(crate) fn sync_index(&self) -> Result<(), FatalError> {
        self.wait_until(|| self.index_queue.hurry())?;
        let Some(index) = self.index.read().clone() else {
            return Ok(());
        };
        index.sync().map_err(|fault| self.fail_index(fault))
    }
}
