//! Damage is named and refused, never papered over.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{append, done, entries, entry, id, read_all, small_segments, vote, wait};
use huntlog_storage::{
    Crash, FatalError, Identity, IdentityError, IndexReport, OpenError, OpenStep, Options,
    ReadError, SimFiles, SimIndex, Storage, WriteError,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// So many that the newest segment holds some.
const ENTRIES: u64 = 47;

/// A closed log of several segments.
fn sample() -> (SimFiles, SimIndex) {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let storage = open_sim(&files, &index).unwrap();
    let log = storage.partition(0);
    wait(&storage, |done| log.save_vote(vote(6), done)).unwrap();
    for index in 0..ENTRIES {
        append(&storage, &log, vec![entry(6, index, 180)]);
    }
    log.put_records(
        (0..ENTRIES)
            .map(|index| (index, Bytes::from(vec![1; 5])))
            .collect(),
    )
    .unwrap();
    storage.close().unwrap();
    (files, index)
}

fn open_sim(files: &SimFiles, index: &SimIndex) -> Result<Storage, OpenError> {
    Storage::open_simulated(files, index, small_segments()).map(|(storage, _)| storage)
}

fn segments(files: &SimFiles) -> Vec<String> {
    files
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".segment"))
        .collect()
}

/// Reads every entry on its own; those that cannot be read, with what was said.
fn unreadable(storage: &Storage) -> Vec<(u64, ReadError)> {
    let log = storage.partition(0);
    let mut errors = Vec::new();
    for index in 0..ENTRIES {
        match log.read(index..index + 1, 1000) {
            Ok(read) => assert_eq!(read, [entry(6, index, 180)], "wrong bytes were handed out"),
            Err(error) => errors.push((index, error)),
        }
    }
    errors
}

#[test]
fn no_flipped_byte_anywhere_in_the_segments_goes_unnoticed() {
    let (files, index) = sample();
    let names = segments(&files);
    assert!(names.len() >= 3, "{names:?}");
    let newest = names.last().unwrap();
    let (mut refused, mut at_use, mut harmless) = (0, 0, 0);
    for name in &names {
        for position in (0..used_bytes(&files, name)).step_by(3) {
            let (files, index) = (files.fork(1), index.fork());
            files.tamper(name, |bytes| bytes[position] ^= 0x10);
            match open_sim(&files, &index) {
                Err(OpenError::Damaged { file, .. }) => {
                    assert!(file.ends_with(name), "{file} is named instead of {name}");
                    refused += 1;
                }
                Err(other) => panic!("{name} byte {position}: {other}"),
                Ok(storage) => {
                    assert_eq!(storage.partition(0).vote(), Some(vote(6)));
                    assert_eq!(
                        storage.partition(0).last(),
                        Some(id(6, ENTRIES - 1)),
                        "{name} byte {position}"
                    );
                    let errors = unreadable(&storage);
                    if errors.is_empty() {
                        harmless += 1;
                        continue;
                    }
                    at_use += 1;
                    assert!(
                        name != newest,
                        "the newest segment is verified when opening"
                    );
                    assert_eq!(errors.len(), 1, "one byte damages one entry");
                    let ReadError::Damaged { file, what, .. } = &errors[0].1 else {
                        panic!("{}", errors[0].1)
                    };
                    assert!(
                        file.ends_with(name) && what.contains(&format!("{}", id(6, errors[0].0))),
                        "{what}"
                    );
                }
            }
        }
    }
    assert!(
        refused > 100 && at_use > 100,
        "refused {refused}, at use {at_use}, harmless {harmless}"
    );
    // Batch headers and vote frames behind a checkpoint, footers and padding are not needed any more.
    assert!(
        harmless < (refused + at_use) / 2,
        "refused {refused}, at use {at_use}, harmless {harmless}"
    );
}

#[test]
fn a_damaged_first_middle_or_last_frame_below_the_floor_is_refused_and_nothing_is_changed() {
    let (files, index) = sample();
    let newest = segments(&files).pop().unwrap();
    let size = used_bytes(&files, &newest);
    for position in [100, size / 2, size - 20] {
        let (files, index) = (files.fork(1), index.fork());
        files.tamper(&newest, |bytes| bytes[position] ^= 1);
        let before = files.names();
        let error = open_sim(&files, &index).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("rejoin the cluster under a new node id"),
            "{message}"
        );
        assert!(
            message.contains(&newest) && message.contains("synced through segment"),
            "{message}"
        );
        assert_eq!(files.names(), before);
        // Put right again, it opens.
        files.tamper(&newest, |bytes| bytes[position] ^= 1);
        assert!(unreadable(&open_sim(&files, &index).unwrap()).is_empty());
    }
}

/// Bytes before the zeros that were set aside.
fn used_bytes(files: &SimFiles, name: &str) -> usize {
    let bytes = files.bytes(name).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn damage_above_the_floor_is_a_torn_tail() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let options = || Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let open = |files: &SimFiles, index: &SimIndex| {
        Storage::open_simulated(files, index, options()).unwrap()
    };
    let (storage, _) = open(&files, &index);
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..20));
    let newest = segments(&files).pop().unwrap();
    let synced = used_bytes(&files, &newest);
    // A batch that reaches the page cache, and whose sync fails: nobody was told that it is durable.
    files.fail_sync_after(0);
    let failed = wait(&storage, |done| log.append(entries(1, 20..30), done));
    assert!(
        matches!(
            failed,
            Err(WriteError::Fatal(FatalError::Io {
                operation: "fdatasync",
                ..
            }))
        ),
        "{failed:?}"
    );
    drop((storage, log));
    let end = used_bytes(&files, &newest);
    for position in [synced + 40, synced + 70, (synced + end) / 2, end - 2] {
        let (files, index) = (files.fork(2), index.fork());
        files.tamper(&newest, |bytes| bytes[position] ^= 1);
        let (storage, report) = open(&files, &index);
        let cut = report.cut.expect("a torn tail is reported");
        assert!(
            cut.file.ends_with(&newest)
                && cut.position >= synced as u64
                && cut.position <= position as u64
        );
        let found = read_all(&storage.partition(0));
        assert!((20..30).contains(&found.len()));
        assert_eq!(found, entries(1, 0..found.len() as u64));
        // What was kept of it was made durable before anybody saw it.
        drop(storage);
        files.restart(Crash::Power);
        assert_eq!(read_all(&open(&files, &index).0.partition(0)), found);
    }
}

#[test]
fn without_the_mark_only_the_very_last_batch_can_be_taken_for_torn() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let options = || Options {
        segment_bytes: 1 << 20,
        ..small_segments()
    };
    let (storage, _) = Storage::open_simulated(&files, &index, options()).unwrap();
    for index in 0..20 {
        append(&storage, &storage.partition(0), vec![entry(6, index, 180)]);
    }
    drop(storage);
    let newest = segments(&files).pop().unwrap();
    let (mut found, mut refused) = (BTreeSet::new(), 0);
    for position in (0..used_bytes(&files, &newest)).step_by(5) {
        let (files, index) = (files.fork(1), index.fork());
        files.tamper_remove("mark");
        files.tamper(&newest, |bytes| bytes[position] ^= 1);
        match Storage::open_simulated(&files, &index, options()) {
            Ok((storage, _)) => drop(found.insert(storage.partition(0).last())),
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // The documented residue: after a power cut that also took the mark, one batch at most, and that is said. The bytes
    // that only fill up a batch are nobody's loss.
    let but_one = BTreeSet::from([Some(id(6, 18)), Some(id(6, 19))]);
    assert_eq!(found, but_one, "{refused} refused");
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_missing_segment_is_refused_whichever_it_is() {
    let (files, index) = sample();
    for name in segments(&files) {
        let (files, index) = (files.fork(1), index.fork());
        files.tamper_remove(&name);
        let error = open_sim(&files, &index).unwrap_err();
        let OpenError::Damaged { file, what, .. } = &error else {
            panic!("{name}: {error}")
        };
        assert!(
            file.ends_with(&name) && what.contains("missing"),
            "{name}: {error}"
        );
    }
    let (files, index) = (files.fork(1), index.fork());
    for name in segments(&files) {
        files.tamper_remove(&name);
    }
    assert!(
        matches!(open_sim(&files, &index), Err(OpenError::Damaged { .. })),
        "all segments are gone"
    );
    files.tamper_remove("mark");
    assert!(
        matches!(open_sim(&files, &index), Err(OpenError::Damaged { .. })),
        "the mark as well"
    );
}

#[test]
fn a_segment_of_another_directory_does_not_verify() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    real_sample(here.path());
    real_sample(there.path());
    let names = std::fs::read_dir(here.path().join("segments")).unwrap();
    let newest = names.map(|name| name.unwrap().file_name()).max().unwrap();
    // The same entries, at the same places, of the same size: only the salt tells them apart.
    let place = |dir: &Path| dir.join("segments").join(&newest);
    std::fs::copy(place(there.path()), place(here.path())).unwrap();
    let error = Storage::open(here.path(), small_segments()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_payload_that_looks_like_a_batch_is_never_taken_for_one() {
    // A whole segment, as a payload at the very place where the scan for batches behind damage looks.
    let (donor, _) = sample();
    let inside = Bytes::from(donor.bytes(&segments(&donor)[0]).unwrap());
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let storage = open_sim(&files, &index).unwrap();
    let log = storage.partition(0);
    for shift in 0..8 {
        let padded = Bytes::from([vec![0; shift], inside.to_vec()].concat());
        let next = log.last().map_or(0, |last| last.index + 1);
        append(
            &storage,
            &log,
            vec![huntlog_storage::LogEntry {
                id: id(1, next),
                payload: padded,
            }],
        );
    }
    drop((storage, log));
    files.restart(Crash::Power);
    let storage = open_sim(&files, &index).unwrap();
    assert_eq!(storage.partition(0).last(), Some(id(1, 7)));
    assert_eq!(read_all(&storage.partition(0)).len(), 8);
}

#[test]
fn a_lost_or_stale_lookup_is_damage_and_the_next_opening_rebuilds() {
    let (files, index) = sample();
    let entry_key = |index: u64| {
        let mut key = vec![1, 0, 0, 0, 0];
        key.extend(index.to_be_bytes());
        key
    };
    let swapped = |index: &SimIndex| {
        index.tamper(|map| {
            let other = map[&entry_key(11)].clone();
            map.insert(entry_key(10), other);
        });
    };
    let removed = |index: &SimIndex| index.tamper(|map| drop(map.remove(&entry_key(10))));
    let garbled =
        |index: &SimIndex| index.tamper(|map| drop(map.insert(entry_key(10), vec![9; 36])));
    let damages: [&dyn Fn(&SimIndex); 3] = [&swapped, &removed, &garbled];
    for (number, damage) in damages.iter().enumerate() {
        let (files, index) = (files.fork(1), index.fork());
        damage(&index);
        let storage = open_sim(&files, &index).unwrap();
        let error = storage.partition(0).read(10..11, 1000).unwrap_err();
        assert!(
            matches!(error, ReadError::Fatal(FatalError::IndexDamaged { .. })),
            "{number}: {error}"
        );
        let refused = wait(&storage, |done| {
            storage
                .partition(0)
                .append(entries(6, ENTRIES..ENTRIES + 1), done)
        });
        assert!(matches!(refused, Err(WriteError::Fatal(_))), "{refused:?}");
        drop(storage);
        files.restart(Crash::Process);
        let (storage, report) = Storage::open_simulated(&files, &index, small_segments()).unwrap();
        assert!(
            matches!(report.index, IndexReport::Rebuilt { .. }),
            "{:?}",
            report.index
        );
        assert!(unreadable(&storage).is_empty());
        assert_eq!(
            storage.partition(0).missing_records(0..ENTRIES),
            vec![0..ENTRIES],
            "to be derived again"
        );
        drop(storage);
        let (_, report) = Storage::open_simulated(&files, &index, small_segments()).unwrap();
        assert!(
            matches!(report.index, IndexReport::Replayed { .. }),
            "it is rebuilt once"
        );
    }
}

#[test]
fn an_entry_that_was_truncated_never_comes_back_through_a_stale_index() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let storage = open_sim(&files, &index).unwrap();
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..10));
    let mut old = None;
    let key: Vec<u8> = [vec![1, 0, 0, 0, 0], 7u64.to_be_bytes().to_vec()].concat();
    index.tamper(|map| old = map.get(&key).cloned());
    wait(&storage, |done| log.truncate_after(Some(id(1, 4)), done)).unwrap();
    append(&storage, &log, entries(2, 5..10));
    storage.close().unwrap();
    index.tamper(|map| drop(map.insert(key, old.unwrap())));
    let storage = open_sim(&files, &index).unwrap();
    let error = storage.partition(0).read(7..8, 1000).unwrap_err();
    assert!(
        matches!(error, ReadError::Fatal(FatalError::IndexDamaged { .. })),
        "{error}"
    );
}

#[test]
fn an_index_that_lost_keys_of_a_closed_segment_is_rebuilt_when_opening() {
    let (files, index) = sample();
    index.tamper(|map| map.retain(|key, _| key[0] != 6));
    let (storage, report) = Storage::open_simulated(&files, &index, small_segments()).unwrap();
    assert!(
        matches!(&report.index, IndexReport::Rebuilt { reason, .. } if reason.contains("entries in segment"))
    );
    assert!(unreadable(&storage).is_empty());
}

#[test]
fn a_failed_sync_ends_everything_and_is_not_retried() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let told = Arc::new(AtomicUsize::new(0));
    let hook = told.clone();
    let options = Options {
        on_fatal: Some(Arc::new(move |error| {
            assert!(
                matches!(
                    error,
                    FatalError::Io {
                        operation: "fdatasync",
                        ..
                    }
                ),
                "{error}"
            );
            hook.fetch_add(1, Ordering::SeqCst);
        })),
        ..small_segments()
    };
    let (storage, _) = Storage::open_simulated(&files, &index, options).unwrap();
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..5));
    files.fail_sync_after(0);
    let (first, first_outcome) = done();
    let (second, second_outcome) = done();
    log.append(entries(1, 5..6), first);
    log.save_vote(vote(9), second);
    while storage.step() {}
    for outcome in [first_outcome, second_outcome] {
        let answer = outcome.recv().unwrap();
        assert!(matches!(answer, Err(WriteError::Fatal(_))), "{answer:?}");
    }
    assert_eq!((log.durable_index(), log.vote()), (Some(4), None));
    assert!(storage.fatal().is_some());
    assert!(matches!(log.read(0..5, 1000), Err(ReadError::Fatal(_))));
    assert!(matches!(
        wait(&storage, |done| log.save_vote(vote(9), done)),
        Err(WriteError::Fatal(_))
    ));
    assert!(log.put_records(vec![(0, Bytes::new())]).is_err());
    assert!(
        storage
            .snapshots()
            .create(0, id(1, 4), Bytes::new())
            .is_err()
    );
    assert!(storage.clone().close().is_err());
    assert_eq!(told.load(Ordering::SeqCst), 1);
    drop((storage, log));
    // The next life finds what was acknowledged, whatever became of the rest.
    files.restart(Crash::Power);
    let storage = open_sim(&files, &index).unwrap();
    assert!(read_all(&storage.partition(0)).len() >= 5);
}

#[test]
fn a_full_disk_is_fatal_and_the_reserve_lets_the_node_start_again() {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let options = || Options {
        reserve_bytes: 40_000,
        ..small_segments()
    };
    let (storage, _) = Storage::open_simulated(&files, &index, options()).unwrap();
    let log = storage.partition(0);
    let used = storage.disk_space().unwrap();
    files.set_capacity(Some(used.total_bytes - used.free_bytes + 20_000));
    let mut last = None;
    let error = (0..).find_map(|index| {
        let answer = wait(&storage, |done| {
            log.append(vec![entry(1, index, 300)], done)
        });
        last = last.max(index.checked_sub(1));
        answer.err()
    });
    let Some(WriteError::Fatal(error)) = error else {
        panic!("{error:?}")
    };
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(storage.disk_space().unwrap().free_bytes / 400, 0);
    drop((storage, log));
    for _ in 0..3 {
        // The first start uses the reserve up; the others find room in what it left.
        let (storage, _) = Storage::open_simulated(&files, &index, options()).unwrap();
        assert!(storage.partition(0).last().map(|last| last.index) >= last);
        assert_eq!(
            read_all(&storage.partition(0)).len() as u64,
            storage.partition(0).last().unwrap().index + 1
        );
    }
    files.set_capacity(None);
    drop(Storage::open_simulated(&files, &index, options()).unwrap());
    assert!(
        files.bytes("reserve").is_some(),
        "set aside again once there is room"
    );
}

// The same on real files, where sled keeps the index.

fn real_sample(dir: &Path) {
    let (storage, _) = Storage::open(dir, small_segments()).unwrap();
    let log = storage.partition(0);
    for index in 0..ENTRIES {
        append(&storage, &log, vec![entry(6, index, 180)]);
    }
    log.put_records(
        (0..ENTRIES)
            .map(|index| (index, Bytes::from(vec![1; 200])))
            .collect(),
    )
    .unwrap();
    storage.close().unwrap();
}

#[test]
fn a_deleted_index_is_rebuilt_with_progress() {
    let dir = tempfile::tempdir().unwrap();
    real_sample(dir.path());
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let options = Options {
        on_progress: Some(Arc::new(move |step, done, all| {
            seen.lock().unwrap().push((step, done, all))
        })),
        ..small_segments()
    };
    let (storage, report) = Storage::open(dir.path(), options).unwrap();
    assert!(
        matches!(report.index, IndexReport::Rebuilt { .. }),
        "{:?}",
        report.index
    );
    assert!(unreadable(&storage).is_empty());
    assert_eq!(
        storage.partition(0).missing_records(0..ENTRIES),
        vec![0..ENTRIES]
    );
    let steps = steps.lock().unwrap();
    let replays: Vec<_> = steps
        .iter()
        .filter(|(step, _, _)| *step != OpenStep::Verify)
        .collect();
    assert!(
        replays.len() > 3 && replays.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "{replays:?}"
    );
    assert!(replays.last().is_some_and(|(_, done, all)| done == all));
}

type Change = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn a_garbled_index_is_rebuilt_or_harmless_and_never_wrong() {
    let dir = tempfile::tempdir().unwrap();
    real_sample(dir.path());
    let pristine = copy_of(dir.path());
    let size = std::fs::metadata(dir.path().join("index/db"))
        .unwrap()
        .len();
    let mut rebuilt = 0;
    let changes: [Change; 7] = [
        Box::new(|bytes| bytes.clear()),
        Box::new(|bytes| bytes.fill(0xa5)),
        Box::new(|bytes| bytes.truncate(bytes.len() / 2)),
        Box::new(|bytes| {
            (0..bytes.len())
                .step_by(97)
                .for_each(|at| bytes[at] ^= 0xff)
        }),
        Box::new(|bytes| bytes[3] ^= 0xff),
        Box::new(|bytes| bytes[600] ^= 0xff),
        Box::new(|bytes| bytes[2000] ^= 0xff),
    ];
    for (number, change) in changes.iter().enumerate() {
        let copy = copy_of(&pristine.1);
        let db = copy.1.join("index/db");
        let mut bytes = std::fs::read(&db).unwrap();
        assert_eq!(bytes.len() as u64, size);
        change(&mut bytes);
        std::fs::write(&db, bytes).unwrap();
        // Either opening notices, or a lookup does, and then the next opening rebuilds.
        let (storage, report) = Storage::open(&copy.1, small_segments()).unwrap();
        rebuilt += usize::from(matches!(report.index, IndexReport::Rebuilt { .. }));
        if !unreadable(&storage).is_empty() {
            assert!(
                matches!(storage.fatal(), Some(FatalError::IndexDamaged { .. })),
                "{number}"
            );
            drop(storage);
            let (storage, report) = Storage::open(&copy.1, small_segments()).unwrap();
            rebuilt += usize::from(matches!(report.index, IndexReport::Rebuilt { .. }));
            assert!(unreadable(&storage).is_empty(), "{number}");
        }
    }
    assert!(rebuilt >= 4, "{rebuilt}");
}

/// A copy of a directory, kept until it is dropped.
fn copy_of(dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    fn copy_into(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for item in std::fs::read_dir(from).unwrap() {
            let item = item.unwrap();
            let target = to.join(item.file_name());
            if item.file_type().unwrap().is_dir() {
                copy_into(&item.path(), &target);
            } else {
                std::fs::copy(item.path(), target).unwrap();
            }
        }
    }
    copy_into(dir, copy.path());
    let path = copy.path().to_owned();
    (copy, path)
}

#[test]
fn blobs_in_the_index_lead_to_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    real_sample(dir.path());
    let blobs = dir.path().join("index/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("0"), b"never synced").unwrap();
    let (storage, report) = Storage::open(dir.path(), small_segments()).unwrap();
    assert!(
        matches!(&report.index, IndexReport::Rebuilt { reason, .. } if reason.contains("blobs"))
    );
    assert!(unreadable(&storage).is_empty());
}

#[test]
fn an_identity_is_kept_and_defended() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    assert_eq!(storage.identity(), None);
    let identity = Identity {
        cluster_id: String::new(),
        cluster_name: "spring".to_owned(),
        node_id: 2,
        node_uuid: "0190".to_owned(),
        members: Bytes::new(),
    };
    storage.save_identity(&identity).unwrap();
    let formed = Identity {
        cluster_id: "c-9".to_owned(),
        members: Bytes::from_static(b"1,2,3"),
        ..identity.clone()
    };
    storage.save_identity(&formed).unwrap();
    for (field, foreign) in [
        (
            "node",
            Identity {
                node_id: 3,
                ..formed.clone()
            },
        ),
        (
            "node uuid",
            Identity {
                node_uuid: "0191".to_owned(),
                ..formed.clone()
            },
        ),
        (
            "cluster",
            Identity {
                cluster_id: "c-8".to_owned(),
                ..formed.clone()
            },
        ),
    ] {
        let refused = storage.save_identity(&foreign);
        assert!(
            matches!(refused, Err(IdentityError::Foreign { field: found, .. }) if found == field),
            "{refused:?}"
        );
    }
    storage.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    assert_eq!(
        storage.identity(),
        Some(formed),
        "it does not live in the index"
    );
    storage.close().unwrap();
    let path = dir.path().join("identity");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = Storage::open(dir.path(), small_segments()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged { file, .. } if file.ends_with("identity")),
        "{error}"
    );
}

/// Whoever lost it could vote twice under a new one, or serve what is another cluster's. Before the first vote there is
/// nothing to lose: a node that was killed before it wrote its identity down mints one when it is started again.
#[test]
fn a_lost_identity_is_damage_once_there_is_a_vote_or_an_entry() {
    type Write = fn(&Storage);
    let writes: [(Write, bool); 3] = [
        (|_| {}, false),
        (
            |storage| {
                let log = storage.partition(0);
                wait(storage, |done| log.save_vote(vote(1), done)).unwrap();
            },
            true,
        ),
        (
            |storage| append(storage, &storage.partition(7), entries(1, 0..3)),
            true,
        ),
    ];
    for (write, is_used) in writes {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
        common::identify(&storage);
        write(&storage);
        storage.close().unwrap();
        let identity = dir.path().join("identity");
        let saved = std::fs::read(&identity).unwrap();
        std::fs::remove_file(&identity).unwrap();
        for _ in 0..2 {
            match Storage::open(dir.path(), small_segments()) {
                Ok((storage, _)) => {
                    assert!(!is_used);
                    assert_eq!(storage.identity(), None);
                    storage.close().unwrap();
                }
                Err(OpenError::Damaged { file, what, .. }) => {
                    assert!(is_used);
                    assert!(file.ends_with("identity"), "{file}");
                    assert!(what.contains("missing, though the log is in use"), "{what}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        std::fs::write(&identity, saved).unwrap();
        Storage::open(dir.path(), small_segments()).unwrap();
    }
}

#[test]
fn a_newer_data_version_is_refused_and_a_missing_one_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    real_sample(dir.path());
    let path = dir.path().join("data-version");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("version: 1", "version: 2")).unwrap();
    let error = Storage::open(dir.path(), small_segments()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Version {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    let error = Storage::open(dir.path(), small_segments()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    std::fs::write(&path, text).unwrap();
    assert!(unreadable(&Storage::open(dir.path(), small_segments()).unwrap().0).is_empty());
}
