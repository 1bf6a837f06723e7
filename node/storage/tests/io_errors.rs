//! Every operation on files fails once, in turn: each write, sync, creation, renaming, resizing, removal and sync of a
//! directory, with EIO and with ENOSPC. Whatever the storage makes of it, it acknowledges nothing that is not durable,
//! does nothing more after it has failed, and loses nothing that was acknowledged.

#![allow(
    clippy::unwrap_used,
    reason = "a test panics where it fails; the helpers it shares do too"
)]

mod common;
#[allow(dead_code, reason = "the crash suite uses the rest")]
#[path = "crash/model.rs"]
mod model;

use bytes::Bytes;
use common::{entry, id, small_segments, vote};
use huntlog_storage::{Crash, Identity, OpenError, Options, SimFiles, SimIndex, Storage};
use model::{Model, Op};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn options() -> Options {
    Options {
        reserve_bytes: 3000,
        ..small_segments()
    }
}

/// A storage's life, what it was asked for, and how much of that it acknowledged.
struct Life {
    files: SimFiles,
    index: SimIndex,
    journal: Vec<Op>,
    acknowledged: Arc<AtomicUsize>,
    /// What failed, by operation.
    failures: BTreeMap<&'static str, usize>,
}

impl Life {
    fn begin() -> Self {
        Self {
            files: SimFiles::new(3),
            index: SimIndex::new(),
            journal: Vec::new(),
            acknowledged: Arc::default(),
            failures: BTreeMap::new(),
        }
    }

    fn open(&self) -> Result<Storage, OpenError> {
        Storage::open_simulated(&self.files, &self.index, options()).map(|(storage, _)| storage)
    }

    /// Hands one operation in and carries it out.
    fn submit(&mut self, storage: &Storage, op: Op) {
        let log = storage.partition(0);
        let number = self.journal.len() + 1;
        let acknowledged = self.acknowledged.clone();
        let done: huntlog_storage::Done = Box::new(move |result| {
            if result.is_ok() {
                let before = acknowledged.swap(number, Ordering::SeqCst);
                assert_eq!(before + 1, number, "acknowledged after a failure");
            }
        });
        self.journal.push(op.clone());
        match op {
            Op::Append(entries) => log.append(entries, done),
            Op::Vote(vote) => log.save_vote(vote, done),
            Op::Truncate(after) => log.truncate_after(after, done),
            Op::Purge { upto, .. } => log.purge(upto, done),
            Op::Release(first_kept) => log.release_history(first_kept, done),
        }
        while storage.step() {}
    }

    /// Everything a storage can be asked for, over several segments, from entry `first` on.
    fn work(&mut self, storage: &Storage, first: u64, term: u64) {
        let identity = Identity {
            cluster_id: String::new(),
            cluster_name: "spring".to_owned(),
            node_id: 1,
            node_uuid: "0190".to_owned(),
            members: Bytes::from(vec![0; usize::try_from(first).unwrap()]),
        };
        let saved = storage.save_identity(&identity);
        assert!(saved.is_ok() || storage.fatal().is_some(), "{saved:?}");
        self.submit(storage, Op::Vote(vote(term)));
        for index in first..first + 40 {
            self.submit(storage, Op::Append(vec![entry(term, index, 180)]));
        }
        self.submit(storage, Op::Truncate(Some(id(term, first + 29))));
        self.submit(storage, Op::Vote(vote(term + 1)));
        let log = storage.partition(0);
        log.save_committed(Some(id(term, first + 29)));
        let records = (first..first + 20).map(|index| (index, Bytes::from(vec![1; 9])));
        drop(log.put_records(records.collect()));
        let snapshot = storage
            .snapshots()
            .create(0, id(term, first + 25), Bytes::from_static(b"meta"))
            .and_then(|mut writer| {
                drop(writer.write_all(&[7; 3000]));
                writer.finish()
            });
        if snapshot.is_ok() {
            self.submit(
                storage,
                Op::Purge {
                    upto: id(term, first + 25),
                    committed_end: 0,
                },
            );
            self.submit(storage, Op::Release(first + 22));
        }
        self.submit(storage, Op::Append(vec![entry(term + 1, first + 30, 180)]));
    }

    /// Opens, works, and after a failure makes sure that nothing more is done.
    fn live(&mut self, first: u64, term: u64) {
        let storage = match self.open() {
            Ok(storage) => storage,
            Err(error) => {
                assert!(!self.files.failure_is_pending(), "{error}");
                *self.failures.entry("open").or_default() += 1;
                return;
            }
        };
        self.work(&storage, first, term);
        let Some(error) = storage.fatal() else {
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            assert_eq!(acknowledged, self.journal.len(), "no failure, no answer");
            return;
        };
        assert!(!self.files.failure_is_pending(), "{error}");
        *self.failures.entry("fatal").or_default() += 1;
        let operations = self.files.operations();
        self.work(&storage, first + 40, term + 2);
        assert!(
            storage
                .snapshots()
                .create(0, id(9, 9), Bytes::new())
                .is_err()
        );
        assert!(storage.close().is_err());
        assert_eq!(
            self.files.operations(),
            operations,
            "nothing is tried again"
        );
    }

    /// Restarts and finds what some prefix of the operations leads to, with all that was acknowledged in it.
    fn check(&self, crash: Crash) {
        self.files.restart(crash);
        self.index.crash(0);
        let storage = self.open().unwrap();
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let mut model = Model::default();
        let mut difference = String::new();
        for prefix in 0..=self.journal.len() {
            if prefix > 0 {
                model.apply(&self.journal[prefix - 1]);
            }
            if prefix >= acknowledged {
                match model.compare(&storage.partition(0)) {
                    Ok(()) => return,
                    Err(what) => difference = what,
                }
            }
        }
        panic!("nothing from {acknowledged} operations on fits: {difference}");
    }
}

/// Fails every operation in turn; how many were there, and what came of it.
fn every_operation_fails_with(errno: i32) -> (u64, BTreeMap<&'static str, usize>) {
    let mut failures = BTreeMap::new();
    for operation in 0.. {
        for crash in [Crash::Power, Crash::Process] {
            let mut life = Life::begin();
            life.files.fail_operation_after(operation, errno);
            life.live(0, 2);
            if life.files.failure_is_pending() {
                return (operation, failures);
            }
            life.check(crash);
            for (kind, count) in life.failures {
                *failures.entry(kind).or_default() += count;
            }
        }
    }
    unreachable!("some run is over before the operation comes")
}

#[test]
fn whatever_fails_with_an_io_error_nothing_acknowledged_is_lost() {
    let (operations, failures) = every_operation_fails_with(EIO);
    assert!(operations > 150, "{operations}");
    assert!(
        failures["open"] > 20 && failures["fatal"] > 200,
        "{failures:?}"
    );
}

#[test]
fn whatever_finds_the_disk_full_nothing_acknowledged_is_lost() {
    let (operations, failures) = every_operation_fails_with(ENOSPC);
    assert!(operations > 150, "{operations}");
    assert!(
        failures["open"] > 10 && failures["fatal"] > 200,
        "{failures:?}"
    );
}

/// A second life over what the first one left, so that recovery's own operations fail: rewriting, sealing, removing.
#[test]
fn whatever_fails_while_opening_what_was_there_stays() {
    for (errno, refused_min, opened_min) in [(EIO, 15, 1), (ENOSPC, 4, 10)] {
        let (mut refused, mut opened) = (0, 0);
        for operation in 0.. {
            let mut life = Life::begin();
            life.live(0, 2);
            // Frames above the floor, a segment without a footer, no mark.
            life.files.restart(Crash::Process);
            life.files.tamper_remove("mark");
            life.files.fail_operation_after(operation, errno);
            let storage = life.open();
            if life.files.failure_is_pending() {
                break;
            }
            match storage {
                // No room for a whole segment, or the space set aside was used.
                Ok(_) => opened += 1,
                Err(OpenError::Io { .. }) => refused += 1,
                Err(other) => panic!("operation {operation}: {other}"),
            }
            drop(storage);
            life.check(if operation % 2 == 0 {
                Crash::Power
            } else {
                Crash::Process
            });
        }
        assert!(
            refused >= refused_min && opened >= opened_min,
            "errno {errno}: refused {refused}, opened {opened}"
        );
    }
}
