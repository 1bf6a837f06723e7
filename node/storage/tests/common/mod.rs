//! What the tests share: entries, and waiting for a write.
#![allow(dead_code, reason = "each test uses its part")]

use bytes::Bytes;
use huntlog_storage::{
    Identity, LogEntry, LogId, Options, PartitionLog, Storage, Vote, WriteError,
};
use std::sync::mpsc;

pub fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node_id: 1,
        index,
    }
}

/// An entry whose payload tells its id, `length` bytes at least.
pub fn entry(term: u64, index: u64, length: usize) -> LogEntry {
    let mut payload = format!("{term}/{index}/").into_bytes();
    let filler = (term ^ index).to_le_bytes()[0];
    payload.resize(payload.len().max(length), filler);
    LogEntry {
        id: id(term, index),
        payload: Bytes::from(payload),
    }
}

pub fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<LogEntry> {
    range.map(|index| entry(term, index, 0)).collect()
}

pub fn vote(term: u64) -> Vote {
    Vote {
        term,
        node_id: 1,
        committed: term.is_multiple_of(2),
    }
}

/// Small segments, so that tests meet many of them.
pub fn small_segments() -> Options {
    Options {
        segment_bytes: 4096,
        reserve_bytes: 0,
        ..Options::default()
    }
}

pub type Outcome = mpsc::Receiver<Result<(), WriteError>>;

/// A `done` and what it was told.
pub fn done() -> (huntlog_storage::Done, Outcome) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

/// Writes down who the node is, as nodes do before they write anything else. Where the disk fails, so does what follows.
pub fn identify(storage: &Storage) {
    if storage.identity().is_none() {
        let identity = Identity {
            cluster_id: "c-1".to_owned(),
            cluster_name: "spring".to_owned(),
            node_id: 1,
            node_uuid: "0190-1".to_owned(),
            members: Bytes::new(),
        };
        drop(storage.save_identity(&identity));
    }
}

/// Carries out a write and waits for it.
pub fn wait(
    storage: &Storage,
    write: impl FnOnce(huntlog_storage::Done),
) -> Result<(), WriteError> {
    identify(storage);
    let (done, outcome) = done();
    write(done);
    while storage.step() {}
    outcome.recv().expect("every write is answered")
}

pub fn append(storage: &Storage, log: &PartitionLog, entries: Vec<LogEntry>) {
    wait(storage, |done| log.append(entries, done)).unwrap();
}

/// Everything that can be read, checked against the state.
pub fn read_all(log: &PartitionLog) -> Vec<LogEntry> {
    let mut all = Vec::new();
    for range in log.history() {
        let mut at = range.start;
        while at < range.end {
            let read = log.read_history(at..range.end, 20_000).unwrap();
            assert!(!read.is_empty(), "entry {at} of {range:?} is missing");
            for entry in &read {
                assert_eq!(entry.id.index, at, "a hole");
                at += 1;
            }
            all.extend(read);
        }
    }
    all
}
