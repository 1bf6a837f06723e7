//! A storage over a simulated disk, the operations given to it, and what it may look like after a crash.

use crate::common::{entry, identify};
use crate::model::{Model, Op};
use bytes::Bytes;
use huntlog_storage::{
    Crash, IndexReport, LogEntry, LogId, OpenReport, Options, PartitionLog, SimFiles, SimIndex,
    Storage, Vote,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PARTITIONS: u32 = 3;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A disk on which no sync does anything.
    pub ignore_syncs: bool,
    /// Only this kind of crash, and no failing syncs.
    pub only: Option<Crash>,
}

/// One partition as the world knows it.
#[derive(Default)]
struct Side {
    /// With everything handed in.
    model: Model,
    term: u64,
    /// Ids of everything a quorum ever committed, which no leader truncates.
    committed: BTreeMap<u64, LogId>,
    /// Last entry of the newest snapshot that was finished.
    snapshot: Option<LogId>,
    /// Entries that had records when it was.
    recorded: BTreeSet<u64>,
}

pub struct World {
    seed: u64,
    random: Random,
    faults: Faults,
    files: SimFiles,
    index: SimIndex,
    sides: Vec<Side>,
    /// The models as of everything acknowledged for certain, and what was handed in since.
    base: Vec<Model>,
    journal: Vec<(u32, Op)>,
    acknowledged: Arc<AtomicUsize>,
    index_lost: bool,
    pub crash_points: u64,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let files = SimFiles::new(seed);
        files.ignore_syncs(faults.ignore_syncs);
        Self {
            seed,
            random: Random(seed),
            faults,
            files,
            index: SimIndex::new(),
            sides: (0..PARTITIONS).map(|_| Side::default()).collect(),
            base: vec![Model::default(); PARTITIONS as usize],
            journal: Vec::new(),
            acknowledged: Arc::default(),
            index_lost: false,
            crash_points: 0,
            trace: 0,
        }
    }

    /// Condenses everything that happened.
    pub fn trace(&self) -> (u64, u64, u64) {
        (self.trace, self.files.operations(), self.crash_points)
    }

    fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn options(&mut self) -> Options {
        let segment_bytes = [1500, 4096, 20_000][self.random.below(3) as usize];
        Options {
            segment_bytes,
            tail_bytes: 4000,
            reserve_bytes: if self.random.one_in(2) { 0 } else { 3000 },
            ..Options::default()
        }
    }

    /// Opens, works, crashes; then checks what the next opening finds.
    pub fn round(&mut self) -> Result<(), String> {
        let storage = self.open_with_crashes()?;
        self.check(&storage)?;
        let crash = match self.faults.only {
            Some(crash) => crash,
            None if self.random.one_in(3) => Crash::Process,
            None => Crash::Power,
        };
        if !self.files.crashed() {
            let after = 1 + self.random.below(60);
            self.files.crash_after(after);
            if self.faults.only.is_none() && self.random.one_in(6) {
                let after = self.random.below(10);
                self.files.fail_sync_after(after);
            }
        }
        for _ in 0..self.random.below(60) {
            self.act(&storage);
            if storage.fatal().is_some() {
                break;
            }
        }
        self.crash(storage, crash);
        Ok(())
    }

    fn crash(&mut self, storage: Storage, crash: Crash) {
        // The machine goes down first, so that closing does nothing any more.
        self.files.crash_after(0);
        let kept = self.random.below(self.index.unsynced_batches() as u64 + 1) as usize;
        drop(storage);
        self.down(crash, kept);
    }

    fn down(&mut self, crash: Crash, kept: usize) {
        self.files.restart(crash);
        self.index.crash(kept);
        self.crash_points += 1;
        self.note(kept as u64);
        if self.random.one_in(40) {
            self.index.clear();
            self.index_lost = true;
        }
    }

    /// Opens; now and then the machine goes down before that is done, several times in a row.
    fn open_with_crashes(&mut self) -> Result<Storage, String> {
        for _ in 0..3 {
            if !self.random.one_in(4) {
                break;
            }
            let after = 1 + self.random.below(25);
            self.files.crash_after(after);
            let options = self.options();
            match Storage::open_simulated(&self.files, &self.index, options) {
                Ok((storage, report)) => return self.opened(storage, &report),
                Err(error) if !self.files.crashed() => {
                    return Err(format!("opening failed: {error}"));
                }
                Err(_) => {
                    let crash = self
                        .faults
                        .only
                        .unwrap_or([Crash::Power, Crash::Process][self.random.below(2) as usize]);
                    let kept = self.random.below(self.index.unsynced_batches() as u64 + 1) as usize;
                    self.down(crash, kept);
                }
            }
        }
        let options = self.options();
        match Storage::open_simulated(&self.files, &self.index, options) {
            Ok((storage, report)) => self.opened(storage, &report),
            Err(error) => Err(format!("opening failed: {error}")),
        }
    }

    fn opened(&self, storage: Storage, report: &OpenReport) -> Result<Storage, String> {
        match &report.index {
            IndexReport::Rebuilt { reason, .. } if reason != "it was empty" => {
                Err(format!("a sound index was built anew: {reason}"))
            }
            _ => {
                identify(&storage);
                Ok(storage)
            }
        }
    }

    /// What was found must be what some prefix of the operations leads to, with all that was acknowledged in it.
    fn check(&mut self, storage: &Storage) -> Result<(), String> {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let mut models = self.base.clone();
        let mut differences = String::new();
        let mut found = None;
        for prefix in 0..=self.journal.len() {
            if prefix > 0 {
                let (partition, op) = &self.journal[prefix - 1];
                models[*partition as usize].apply(op);
            }
            if prefix < acknowledged {
                continue;
            }
            let difference = (0..PARTITIONS).find_map(|id| {
                models[id as usize]
                    .compare(&storage.partition(id))
                    .err()
                    .map(|what| (id, what))
            });
            match difference {
                None => {
                    found = Some(prefix);
                    break;
                }
                Some((id, what)) if prefix == acknowledged || prefix == self.journal.len() => {
                    differences += &format!("\nafter {prefix} operations: partition {id}: {what}");
                }
                Some(_) => {}
            }
        }
        if self.files.crashed() {
            // The machine went down while it was checked: no verdict.
            return Ok(());
        }
        let Some(prefix) = found else {
            return Err(format!(
                "seed {}: no prefix of at least {acknowledged} of {} operations fits{differences}",
                self.seed,
                self.journal.len()
            ));
        };
        self.note(prefix as u64);
        self.journal.clear();
        self.acknowledged = Arc::default();
        for (side, model) in self.sides.iter_mut().zip(&models) {
            side.model = model.clone();
        }
        self.base = models;
        for id in 0..PARTITIONS {
            self.check_derived(storage, id)?;
        }
        self.index_lost = false;
        Ok(())
    }

    /// Committed ids, records and snapshots of one partition.
    fn check_derived(&mut self, storage: &Storage, id: u32) -> Result<(), String> {
        let log = storage.partition(id);
        let side = &mut self.sides[id as usize];
        if let Some(committed) = log.committed()
            && side.committed.get(&committed.index) != Some(&committed)
        {
            return Err(format!(
                "partition {id}: {committed} is called committed and never was"
            ));
        }
        // What a quorum committed is history even if this node lost it, so nothing is forgotten of `committed` here.
        let missing = log.missing_records(0..side.model.next_index());
        if self.index_lost {
            side.recorded.clear();
        }
        for index in log.history().into_iter().flatten() {
            if side.recorded.contains(&index) && missing.iter().any(|range| range.contains(&index))
            {
                return Err(format!(
                    "partition {id}: the record of {index} is gone, though a snapshot beyond it was finished"
                ));
            }
            let expected =
                (!missing.iter().any(|range| range.contains(&index))).then(|| record(id, index));
            let found = log
                .record(index)
                .map_err(|error| format!("partition {id}: record {index}: {error}"))?;
            if found != expected {
                return Err(format!(
                    "partition {id}: record {index}: expected {expected:?}, found {found:?}"
                ));
            }
        }
        let snapshots = storage.snapshots();
        let newest = snapshots.newest(id);
        let newest_id = newest.as_ref().map(|info| info.log_id);
        if newest_id.map(|id| id.index) < side.snapshot.map(|id| id.index) {
            return Err(format!(
                "partition {id}: snapshot {:?} is gone, newest is {newest_id:?}",
                side.snapshot
            ));
        }
        if let Some(info) = newest {
            let mut reader = snapshots.open(&info).map_err(|error| error.to_string())?;
            let mut state = Vec::new();
            reader
                .read_to_end(&mut state)
                .map_err(|error| error.to_string())?;
            if state != snapshot_state(info.log_id) {
                return Err(format!(
                    "partition {id}: the snapshot at {} holds something else",
                    info.log_id
                ));
            }
            if log.last().map(|last| last.index) < Some(info.log_id.index) {
                return Err(format!(
                    "partition {id}: the snapshot at {} is ahead of the log",
                    info.log_id
                ));
            }
            side.snapshot = Some(info.log_id);
        }
        Ok(())
    }

    fn act(&mut self, storage: &Storage) {
        let id = self.random.below(u64::from(PARTITIONS)) as u32;
        let log = storage.partition(id);
        match self.random.below(24) {
            0..=8 => self.append(id, &log),
            9..=10 => self.vote(id, &log),
            11 => self.truncate(id, &log),
            12 => self.purge(id, &log),
            13 if self.random.one_in(2) => self.release(id, &log),
            14..=15 => self.commit(id, &log),
            16 => self.put_records(id, &log),
            17 if self.random.one_in(3) => self.snapshot(id, storage),
            _ => {
                storage.step();
            }
        }
    }

    fn submit(&mut self, id: u32, op: Op) -> huntlog_storage::Done {
        self.sides[id as usize].model.apply(&op);
        let before = self.journal.len();
        match op {
            // An append that was not acknowledged may be found in part, from its first entry on.
            Op::Append(entries) => self.journal.extend(
                entries
                    .into_iter()
                    .map(|entry| (id, Op::Append(vec![entry]))),
            ),
            op => self.journal.push((id, op)),
        }
        let number = self.journal.len();
        let acknowledged = self.acknowledged.clone();
        Box::new(move |result| {
            if result.is_ok() {
                let acknowledged_before = acknowledged.swap(number, Ordering::SeqCst);
                assert_eq!(acknowledged_before, before, "acknowledged out of order");
            }
        })
    }

    fn append(&mut self, id: u32, log: &PartitionLog) {
        let first = self.sides[id as usize].model.next_index();
        if self.random.one_in(12) {
            self.sides[id as usize].term += 1;
        }
        let count = 1 + self.random.below(5);
        let side = &self.sides[id as usize];
        // What was committed and lost here comes back from the leader as it was.
        let term_at = |index: u64| side.committed.get(&index).map_or(side.term, |id| id.term);
        let sized = |index: u64| {
            entry(
                term_at(index),
                index,
                (term_at(index) * 7 + index * 131) as usize % 700,
            )
        };
        let entries: Vec<LogEntry> = (first..first + count).map(sized).collect();
        let done = self.submit(id, Op::Append(entries.clone()));
        log.append(entries, done);
    }

    fn vote(&mut self, id: u32, log: &PartitionLog) {
        let side = &mut self.sides[id as usize];
        side.term += 1;
        let vote = Vote {
            term: side.term,
            node_id: 1 + self.random.below(3),
            committed: self.random.one_in(2),
        };
        let done = self.submit(id, Op::Vote(vote));
        log.save_vote(vote, done);
    }

    /// Cuts somewhere between what is committed and the end.
    fn truncate(&mut self, id: u32, log: &PartitionLog) {
        let side = &mut self.sides[id as usize];
        let lowest = side
            .committed
            .last_key_value()
            .map_or(0, |(index, _)| index + 1)
            .max(side.model.live_start());
        if lowest >= side.model.next_index() {
            return;
        }
        let end = lowest + self.random.below(side.model.next_index() - lowest);
        let after = match end.checked_sub(1) {
            Some(index) => match side
                .model
                .entries
                .get(&index)
                .map(|entry| entry.id)
                .or(side.model.purged)
            {
                Some(after) => Some(after),
                None => return,
            },
            None => None,
        };
        side.term += 1;
        let done = self.submit(id, Op::Truncate(after));
        log.truncate_after(after, done);
    }

    fn purge(&mut self, id: u32, log: &PartitionLog) {
        let side = &mut self.sides[id as usize];
        let committed = side
            .committed
            .last_key_value()
            .map(|(index, id)| (*index, *id));
        let local = committed.filter(|(index, _)| *index < side.model.next_index());
        let committed_end = local.map_or(0, |(index, _)| index + 1);
        let upto = if self.random.one_in(8) {
            // A snapshot from elsewhere took the log's place.
            side.term += 1;
            let index = side
                .model
                .next_index()
                .max(committed.map_or(0, |(index, _)| index + 1))
                + self.random.below(20);
            let upto = crate::common::id(side.term, index);
            side.committed.insert(index, upto);
            upto
        } else {
            let Some((committed, _)) = local else { return };
            let start = side.model.live_start();
            if committed < start {
                return;
            }
            let index = start + self.random.below(committed - start + 1);
            match side.model.entries.get(&index) {
                Some(entry) => entry.id,
                None => return,
            }
        };
        let known_end = log_committed_end(side, committed_end);
        let done = self.submit(
            id,
            Op::Purge {
                upto,
                committed_end: known_end,
            },
        );
        // The storage goes by the committed id it was told.
        log.save_committed(
            known_end
                .checked_sub(1)
                .and_then(|index| self.sides[id as usize].committed.get(&index).copied()),
        );
        log.purge(upto, done);
    }

    fn release(&mut self, id: u32, log: &PartitionLog) {
        let start = self.sides[id as usize].model.live_start();
        let first_kept = self.random.below(start + 5);
        let done = self.submit(id, Op::Release(first_kept));
        log.release_history(first_kept, done);
    }

    /// A quorum committed up to some entry of the live log, which this node may not have synced yet.
    fn commit(&mut self, id: u32, log: &PartitionLog) {
        let side = &mut self.sides[id as usize];
        let from = side
            .committed
            .last_key_value()
            .map_or(0, |(index, _)| index + 1)
            .max(side.model.live_start());
        let end = side.model.next_index();
        if from >= end {
            return;
        }
        let upto = from + self.random.below(end - from);
        for index in side.model.live_start()..=upto {
            if let Some(entry) = side.model.entries.get(&index) {
                side.committed.insert(index, entry.id);
            }
        }
        log.save_committed(side.committed.get(&upto).copied());
    }

    fn put_records(&mut self, id: u32, log: &PartitionLog) {
        let side = &self.sides[id as usize];
        let missing = log.missing_records(side.model.live_start()..side.model.next_index());
        let Some(range) = missing.first() else { return };
        // Only what was committed is applied and has records.
        let end = range.end.min(
            side.committed
                .last_key_value()
                .map_or(0, |(index, _)| index + 1),
        );
        if end <= range.start {
            return;
        }
        let count = (end - range.start).min(6);
        let records = (range.start..range.start + count)
            .map(|index| (index, record(id, index)))
            .collect();
        drop(log.put_records(records));
    }

    fn snapshot(&mut self, id: u32, storage: &Storage) {
        let side = &self.sides[id as usize];
        let Some((_, entry)) = side.model.entries.last_key_value() else {
            return;
        };
        let log_id = entry.id;
        if Some(log_id) != side.model.last
            || side
                .snapshot
                .is_some_and(|newest| newest.index >= log_id.index)
        {
            return;
        }
        // Whatever a snapshot contains was committed.
        let entries = side.model.entries.range(side.model.live_start()..);
        let ids: Vec<LogId> = entries.map(|(_, entry)| entry.id).collect();
        let side = &mut self.sides[id as usize];
        side.committed
            .extend(ids.into_iter().map(|id| (id.index, id)));
        let snapshots = storage.snapshots();
        let written = snapshots
            .create(id, log_id, Bytes::from_static(b"meta"))
            .and_then(|mut writer| {
                drop(writer.write_all(&snapshot_state(log_id)));
                writer.finish()
            });
        if let Ok(info) = written {
            assert_eq!(info.log_id, log_id);
            side.snapshot = Some(log_id);
            let log = storage.partition(id);
            let missing: BTreeSet<u64> = log
                .missing_records(0..log_id.index + 1)
                .into_iter()
                .flatten()
                .collect();
            let kept = log.history().into_iter().flatten();
            side.recorded = kept
                .filter(|index| *index <= log_id.index && !missing.contains(index))
                .collect();
        }
    }
}

/// What the storage is told to be committed when a snapshot takes the log's place.
fn log_committed_end(side: &Side, local_end: u64) -> u64 {
    match local_end
        .checked_sub(1)
        .and_then(|index| side.model.entries.get(&index))
    {
        Some(entry) if side.committed.get(&entry.id.index) == Some(&entry.id) => local_end,
        _ => 0,
    }
}

fn record(partition: u32, index: u64) -> Bytes {
    Bytes::from(vec![
        (index % 250) as u8 + partition as u8;
        (index % 40) as usize
    ])
}

fn snapshot_state(id: LogId) -> Vec<u8> {
    format!("state at {id} ").repeat(40).into_bytes()
}
