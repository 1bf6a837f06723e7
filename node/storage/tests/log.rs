//! The log on real files: append, read, truncate, purge, votes, reopening.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{append, done, entries, entry, id, identify, read_all, small_segments, vote, wait};
use huntlog_storage::limits::RUNS_MAX;
use huntlog_storage::{
    Crash, IndexReport, OpenError, Options, ReadError, SimFiles, SimIndex, Storage, WriteError,
};

fn open(dir: &std::path::Path) -> Storage {
    Storage::open(dir, small_segments()).unwrap().0
}

#[test]
fn what_was_written_is_found_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, report) = Storage::open(dir.path(), small_segments()).unwrap();
    assert!(report.fresh);
    let log = storage.partition(0);
    let other = storage.partition(7);
    wait(&storage, |done| log.save_vote(vote(3), done)).unwrap();
    for index in 0..200 {
        append(&storage, &log, vec![entry(3, index, 100)]);
        append(&storage, &other, vec![entry(4, index, 10)]);
    }
    storage.close().unwrap();

    let (storage, report) = Storage::open(dir.path(), small_segments()).unwrap();
    assert!(
        !report.fresh && report.cut.is_none() && report.segments > 5,
        "{report:?}"
    );
    assert_eq!(
        report.index,
        IndexReport::Replayed { frames: 0 },
        "a clean close leaves nothing to replay"
    );
    let log = storage.partition(0);
    assert_eq!(log.vote(), Some(vote(3)));
    assert_eq!(
        (log.last(), log.durable_index()),
        (Some(id(3, 199)), Some(199))
    );
    assert_eq!(
        read_all(&log),
        (0..200)
            .map(|index| entry(3, index, 100))
            .collect::<Vec<_>>()
    );
    assert_eq!(read_all(&storage.partition(7)).len(), 200);
    assert_eq!(storage.partitions(), [0, 7]);
    assert_eq!(log.read_cached(0..5), None, "nothing is in memory yet");
}

#[test]
fn entries_are_readable_before_they_are_durable_and_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    let mut outcomes = Vec::new();
    for index in 0..500 {
        let (done, outcome) = done();
        log.append(vec![entry(1, index, 50)], done);
        assert_eq!(log.last(), Some(id(1, index)));
        assert_eq!(
            log.read_cached(index..index + 1).unwrap(),
            [entry(1, index, 50)]
        );
        outcomes.push(outcome);
    }
    for (index, outcome) in outcomes.into_iter().enumerate() {
        outcome.recv().unwrap().unwrap();
        assert!(log.durable_index() >= Some(index as u64));
    }
    assert_eq!(log.read(0..500, usize::MAX).unwrap().len(), 500);
}

#[test]
fn reads_stop_at_their_byte_limit_after_at_least_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(
        &storage,
        &log,
        (0..20).map(|index| entry(1, index, 100)).collect(),
    );
    assert_eq!(log.read(3..20, 1).unwrap(), [entry(1, 3, 100)]);
    assert_eq!(log.read(3..20, 350).unwrap().len(), 3);
    assert_eq!(
        log.read(18..90, usize::MAX).unwrap().len(),
        2,
        "it ends with the log"
    );
    assert_eq!(log.read(20..90, usize::MAX).unwrap(), []);
    storage.close().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    assert_eq!(log.read(3..20, 1).unwrap(), [entry(1, 3, 100)]);
    assert_eq!(log.read(3..20, 350).unwrap().len(), 3);
    // Half from disk, half from memory.
    append(
        &storage,
        &log,
        (20..30).map(|index| entry(1, index, 100)).collect(),
    );
    let read = log.read(15..30, usize::MAX).unwrap();
    assert_eq!(
        read,
        (15..30)
            .map(|index| entry(1, index, 100))
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_truncated_end_is_replaced_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..50));
    // Queued together, so that the truncation overtakes nothing and nothing overtakes it.
    let (first, first_outcome) = done();
    log.append(entries(1, 50..60), first);
    let (second, second_outcome) = done();
    log.truncate_after(Some(id(1, 39)), second);
    let (third, third_outcome) = done();
    log.append(entries(2, 40..45), third);
    for outcome in [first_outcome, second_outcome, third_outcome] {
        outcome.recv().unwrap().unwrap();
    }
    let expected: Vec<_> = entries(1, 0..40)
        .into_iter()
        .chain(entries(2, 40..45))
        .collect();
    assert_eq!(read_all(&log), expected);
    assert_eq!(
        (log.last(), log.durable_index()),
        (Some(id(2, 44)), Some(44))
    );
    assert_eq!(
        (log.id_at(39), log.id_at(40), log.id_at(45)),
        (Some(id(1, 39)), Some(id(2, 40)), None)
    );
    storage.close().unwrap();
    let storage = open(dir.path());
    assert_eq!(read_all(&storage.partition(0)), expected);
    wait(&storage, |done| {
        storage.partition(0).truncate_after(None, done)
    })
    .unwrap();
    assert_eq!(storage.partition(0).last(), None);
    append(&storage, &storage.partition(0), entries(3, 0..1));
    assert_eq!(read_all(&storage.partition(0)), entries(3, 0..1));
}

#[test]
fn the_ends_of_all_leaderships_of_the_live_log_are_remembered() {
    const LEADERSHIPS: u64 = RUNS_MAX as u64 + 100;
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    let led = |term: u64| entries(term, 2 * term..2 * term + 2);
    append(&storage, &log, (0..LEADERSHIPS).flat_map(led).collect());
    let ends = |terms: std::ops::Range<u64>| -> Vec<_> {
        terms.map(|term| id(term, 2 * term + 1)).collect()
    };
    let last = log.last().unwrap();
    assert_eq!(log.leadership_ends(0, last.index), ends(0..LEADERSHIPS));
    assert_eq!(
        log.leadership_ends(3, 8),
        [id(1, 3), id(2, 5), id(3, 7), id(4, 8)]
    );
    assert_eq!(log.leadership_ends(4, 5), [id(2, 5)]);
    assert_eq!(log.leadership_ends(5, 5), [id(2, 5)]);
    storage.close().unwrap();

    let storage = open(dir.path());
    let log = storage.partition(0);
    assert_eq!(log.leadership_ends(0, last.index), ends(0..LEADERSHIPS));
    // What is purged is forgotten by and by.
    wait(&storage, |done| log.purge(id(150, 301), done)).unwrap();
    append(
        &storage,
        &log,
        (LEADERSHIPS..LEADERSHIPS + 3).flat_map(led).collect(),
    );
    let last = log.last().unwrap();
    assert_eq!(
        log.leadership_ends(302, last.index),
        ends(151..LEADERSHIPS + 3)
    );
    assert_eq!(log.id_at(0), None);
}

#[test]
fn a_purge_moves_the_boundary_and_leaves_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..100));
    wait(&storage, |done| log.purge(id(1, 59), done)).unwrap();
    let check = |log: &huntlog_storage::PartitionLog| {
        assert_eq!(
            (log.last_purged(), log.last()),
            (Some(id(1, 59)), Some(id(1, 99)))
        );
        assert!(matches!(
            log.read(59..70, 1000),
            Err(ReadError::NotKept { index: 59, .. })
        ));
        assert_eq!(log.read(60..70, usize::MAX).unwrap(), entries(1, 60..70));
        assert_eq!(log.read_cached(59..70), None);
        assert_eq!(
            log.read_history(0..100, usize::MAX).unwrap(),
            entries(1, 0..100)
        );
        assert_eq!((log.history_start(), log.history()), (0, vec![0..100]));
    };
    check(&log);
    storage.close().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    check(&log);
    let refused = wait(&storage, |done| log.truncate_after(Some(id(1, 20)), done));
    assert!(
        matches!(refused, Err(WriteError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(read_all(&log).len(), 100);
}

#[test]
fn a_purge_beyond_the_log_keeps_only_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..30));
    log.save_committed(Some(id(1, 19)));
    wait(&storage, |done| log.purge(id(4, 1000), done)).unwrap();
    append(&storage, &log, entries(5, 1001..1010));
    let check = |log: &huntlog_storage::PartitionLog| {
        assert_eq!(log.history(), [0..20, 1001..1010]);
        assert_eq!(
            (log.last_purged(), log.last()),
            (Some(id(4, 1000)), Some(id(5, 1009)))
        );
        assert_eq!(log.history_start(), 1001);
        let expected: Vec<_> = entries(1, 0..20)
            .into_iter()
            .chain(entries(5, 1001..1010))
            .collect();
        assert_eq!(read_all(log), expected);
        assert!(matches!(
            log.read_history(25..30, 1000),
            Err(ReadError::NotKept { index: 25, .. })
        ));
        assert_eq!(log.durable_index(), Some(1009));
    };
    check(&log);
    storage.close().unwrap();
    check(&open(dir.path()).partition(0));
}

#[test]
fn a_hole_and_an_oversized_entry_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..3));
    for wrong in [
        entries(1, 4..5),
        entries(1, 2..3),
        vec![entry(1, 3, huntlog_storage::limits::ENTRY_BYTES_MAX + 1)],
    ] {
        let refused = wait(&storage, |done| log.append(wrong, done));
        assert!(
            matches!(refused, Err(WriteError::Refused { .. })),
            "{refused:?}"
        );
    }
    append(&storage, &log, entries(1, 3..4));
    wait(&storage, |done| log.append(Vec::new(), done)).unwrap();
    assert_eq!(read_all(&log), entries(1, 0..4));
}

#[test]
fn released_history_gives_its_segments_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    for index in 0..300 {
        append(&storage, &log, vec![entry(1, index, 100)]);
    }
    let segments = || {
        std::fs::read_dir(dir.path().join("segments"))
            .unwrap()
            .count()
    };
    let before = segments();
    wait(&storage, |done| log.purge(id(1, 249), done)).unwrap();
    assert_eq!(segments(), before, "a purge deletes nothing");
    wait(&storage, |done| log.release_history(200, done)).unwrap();
    while storage.fatal().is_none() && segments() * 2 > before {
        // The writer deletes after it has answered; the next write waits for that.
        wait(&storage, |done| log.save_vote(vote(1), done)).unwrap();
    }
    let check = |log: &huntlog_storage::PartitionLog| {
        assert_eq!((log.history(), log.history_start()), (vec![200..300], 200));
        assert_eq!(read_all(log).len(), 100);
        assert!(matches!(
            log.read_history(199..205, 1000),
            Err(ReadError::NotKept { index: 199, .. })
        ));
    };
    check(&log);
    storage.close().unwrap();
    let storage = open(dir.path());
    check(&storage.partition(0));
    // Releasing more than was purged gives up only what was.
    let log = storage.partition(0);
    wait(&storage, |done| log.release_history(10_000, done)).unwrap();
    assert_eq!(log.history(), [250..300]);
}

#[test]
fn committed_is_the_lower_of_what_was_saved_and_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    assert_eq!(log.committed(), None);
    append(&storage, &log, entries(1, 0..10));
    log.save_committed(Some(id(1, 4)));
    assert_eq!(log.committed(), Some(id(1, 4)));
    storage.close().unwrap();
    let storage = open(dir.path());
    assert_eq!(storage.partition(0).committed(), Some(id(1, 4)));
}

#[test]
fn committed_never_runs_ahead_of_what_is_durable() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let open = || {
        Storage::open_simulated(&files, &index, small_segments())
            .unwrap()
            .0
    };
    let storage = open();
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..10));
    // A new leader replaces the end; a quorum has it, this node's disk does not yet.
    log.truncate_after(Some(id(1, 4)), done().0);
    log.append(entries(2, 5..12), done().0);
    log.save_committed(Some(id(2, 11)));
    assert_eq!(log.durable_index(), Some(4));
    assert_eq!(log.committed(), Some(id(1, 4)));
    while storage.step() {}
    assert_eq!(log.committed(), Some(id(2, 11)));
    files.crash_after(0);
    drop((storage, log));
    files.restart(Crash::Power);
    let found = open().partition(0).committed();
    assert!(
        found.is_none_or(|found| found.term == 2 || found.index <= 4),
        "{found:?}"
    );
}

#[test]
fn an_append_larger_than_a_batch_is_durable_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(dir.path(), Options::default()).unwrap();
    let log = storage.partition(0);
    let big: Vec<_> = (0..40).map(|index| entry(1, index, 1 << 20)).collect();
    append(&storage, &log, big.clone());
    assert_eq!(log.durable_index(), Some(39));
    storage.close().unwrap();
    let (storage, _) = Storage::open(dir.path(), Options::default()).unwrap();
    let read = storage.partition(0).read(0..40, usize::MAX).unwrap();
    assert!(read == big);
}

#[test]
fn records_are_readable_at_once_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..100));
    let record = |index: u64| {
        Bytes::from(vec![
            index as u8;
            if index == 50 { 100_000 } else { index as usize }
        ])
    };
    log.put_records((10..60).map(|index| (index, record(index))).collect())
        .unwrap();
    let check = |log: &huntlog_storage::PartitionLog| {
        for index in 10..60 {
            assert_eq!(log.record(index).unwrap(), Some(record(index)), "{index}");
        }
        assert_eq!(
            (log.record(9).unwrap(), log.record(60).unwrap()),
            (None, None)
        );
        assert_eq!(log.missing_records(5..65), [5..10, 60..65]);
        let all = log.records(10..100, usize::MAX).unwrap();
        assert_eq!(
            all,
            (10..60)
                .map(|index| (index, record(index)))
                .collect::<Vec<_>>()
        );
        assert_eq!(log.records(20..60, 41).unwrap().len(), 2);
        assert_eq!(log.records(50..60, 1).unwrap().len(), 1);
    };
    check(&log);
    log.sync_records().unwrap();
    check(&log);
    storage.close().unwrap();
    let (storage, report) = Storage::open(dir.path(), small_segments()).unwrap();
    assert_eq!(report.partitions[0].records, [10..60]);
    let log = storage.partition(0);
    check(&log);
    // Shorter than what stood there before.
    log.put_records(vec![(50, Bytes::from_static(b"short"))])
        .unwrap();
    log.sync_records().unwrap();
    assert_eq!(log.record(50).unwrap().unwrap(), "short");
    assert_eq!(log.records(49..52, usize::MAX).unwrap()[1].1, "short");
}

#[test]
fn the_tail_keeps_to_its_budget_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        tail_bytes: 20_000,
        ..small_segments()
    };
    let (storage, _) = Storage::open(dir.path(), options).unwrap();
    let log = storage.partition(0);
    for index in 0..400 {
        append(&storage, &log, vec![entry(1, index, 200)]);
    }
    log.sync_records().unwrap();
    assert!(storage.tail_bytes() <= 20_000, "{}", storage.tail_bytes());
    assert!(log.read_cached(0..10).is_none());
    assert_eq!(log.read_cached(390..400).unwrap().len(), 10);
    assert_eq!(
        log.read(0..400, usize::MAX).unwrap(),
        (0..400).map(|i| entry(1, i, 200)).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_not_yet_written_and_indexed_stays_in_the_tail_whatever_the_budget() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let options = Options {
        tail_bytes: 1000,
        ..small_segments()
    };
    let (storage, _) = Storage::open_simulated(&files, &index, options).unwrap();
    let log = storage.partition(0);
    // More than one batch takes, so that the first step leaves the rest queued.
    for index in 0..4 {
        log.append(vec![entry(1, index, 3 << 20)], done().0);
    }
    for durable in 0..4 {
        assert!(storage.step());
        assert_eq!(log.durable_index(), Some(durable));
        for index in 0..4 {
            assert!(
                log.read(index..index + 1, 1).unwrap() == [entry(1, index, 3 << 20)],
                "{index}"
            );
        }
        let cached = log.read_cached(durable + 1..4).unwrap();
        assert_eq!(cached.len() as u64, 3 - durable);
    }
    assert!(storage.tail_bytes() <= 1000);
}

#[test]
fn a_second_opening_is_refused_and_a_closed_storage_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    let second = Storage::open(dir.path(), small_segments()).unwrap_err();
    assert!(
        matches!(second, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{second}"
    );
    append(&storage, &log, entries(1, 0..3));
    storage.clone().close().unwrap();
    let refused = wait(&storage, |done| log.append(entries(1, 3..4), done));
    assert!(matches!(refused, Err(WriteError::Closed)), "{refused:?}");
    assert!(matches!(log.read(0..3, 100), Err(ReadError::Closed)));
    // Handles are left, and the directory can be opened all the same.
    assert_eq!(read_all(&open(dir.path()).partition(0)).len(), 3);
}

#[test]
fn dropping_every_handle_closes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    identify(&storage);
    let log = storage.partition(0);
    drop(storage);
    let (done, outcome) = done();
    log.append(entries(1, 0..3), done);
    drop(log);
    outcome.recv().unwrap().unwrap();
    assert_eq!(read_all(&open(dir.path()).partition(0)).len(), 3);
}
