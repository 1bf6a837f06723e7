//! Snapshots: written, sent, received, damaged, pruned.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{append, done, entries, id, small_segments};
use huntlog_storage::{RawSnapshot, SimFiles, SimIndex, SnapshotError, SnapshotInfo, Storage};
use std::io::{Read, Write};

fn open(dir: &std::path::Path) -> Storage {
    Storage::open(dir, small_segments()).unwrap().0
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 253) as u8).collect()
}

fn build(storage: &Storage, index: u64, bytes: usize) -> SnapshotInfo {
    let mut writer = storage
        .snapshots()
        .create(0, id(1, index), Bytes::from_static(b"meta"))
        .unwrap();
    writer.write_all(&state(bytes)).unwrap();
    writer.finish().unwrap()
}

fn read(storage: &Storage, info: &SnapshotInfo) -> Result<Vec<u8>, SnapshotError> {
    let mut reader = storage.snapshots().open(info)?;
    assert_eq!(reader.meta(), "meta");
    let mut found = Vec::new();
    match reader.read_to_end(&mut found) {
        Ok(_) => Ok(found),
        Err(error) => Err(*error.into_inner().unwrap().downcast().unwrap()),
    }
}

fn raw_bytes(raw: &RawSnapshot) -> Vec<u8> {
    let mut bytes = vec![0; raw.size_bytes() as usize];
    assert_eq!(raw.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn a_snapshot_is_found_after_reopening_and_travels_to_a_peer() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open(here.path());
    append(&storage, &storage.partition(0), entries(1, 0..10));
    assert_eq!(storage.snapshots().newest(0), None);
    for bytes in [0, 1, 256 << 10, 1_000_000] {
        let info = build(&storage, 9, bytes);
        assert_eq!(read(&storage, &info).unwrap(), state(bytes));
    }
    storage.close().unwrap();
    let storage = open(here.path());
    let info = storage.snapshots().newest(0).unwrap();
    assert_eq!((info.log_id, info.partition), (id(1, 9), 0));
    assert_eq!(read(&storage, &info).unwrap(), state(1_000_000));

    let bytes = raw_bytes(&storage.snapshots().open_raw(&info).unwrap());
    let peer = open(there.path());
    let mut receiver = peer.snapshots().receive(0).unwrap();
    for piece in bytes.chunks(70_001) {
        receiver.write(piece).unwrap();
    }
    assert_eq!(
        (receiver.received_bytes(), receiver.meta().unwrap().clone()),
        (info.size_bytes, Bytes::from_static(b"meta"))
    );
    assert_eq!(
        peer.snapshots().newest(0),
        None,
        "not visible before it is whole"
    );
    let received = receiver.finish().unwrap();
    assert_eq!(
        (received.log_id, received.size_bytes),
        (info.log_id, info.size_bytes)
    );
    assert_eq!(read(&peer, &received).unwrap(), state(1_000_000));
    peer.close().unwrap();
    assert_eq!(open(there.path()).snapshots().newest(0), Some(received));
}

#[test]
fn a_damaged_cut_short_or_foreign_transfer_never_becomes_visible() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open(here.path());
    append(&storage, &storage.partition(0), entries(1, 0..10));
    let info = build(&storage, 9, 3000);
    let bytes = raw_bytes(&storage.snapshots().open_raw(&info).unwrap());
    let peer = open(there.path());
    let send = |partition: u32, bytes: &[u8]| {
        let mut receiver = peer.snapshots().receive(partition)?;
        bytes
            .chunks(100)
            .try_for_each(|piece| receiver.write(piece))?;
        receiver.finish()
    };
    for position in (0..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[position] ^= 4;
        let refused = send(0, &changed);
        assert!(
            matches!(
                refused,
                Err(SnapshotError::Damaged { .. } | SnapshotError::WrongPartition { .. })
            ),
            "byte {position}: {refused:?}"
        );
    }
    assert!(matches!(
        send(0, &bytes[..bytes.len() - 1]),
        Err(SnapshotError::Damaged { .. })
    ));
    assert!(matches!(send(0, &[]), Err(SnapshotError::Damaged { .. })));
    assert!(matches!(
        send(0, &[&bytes[..], b"x"].concat()),
        Err(SnapshotError::Damaged { .. })
    ));
    assert!(matches!(
        send(3, &bytes),
        Err(SnapshotError::WrongPartition {
            found: 0,
            asked: 3,
            ..
        })
    ));
    assert_eq!(peer.snapshots().newest(0), None);
    let left = std::fs::read_dir(there.path().join("snapshots"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "nothing is left behind");
    assert!(send(0, &bytes).is_ok());
}

#[test]
fn a_damaged_snapshot_is_named_when_read_and_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    append(&storage, &storage.partition(0), entries(1, 0..10));
    let (older, newer) = (build(&storage, 4, 2000), build(&storage, 9, 2000));
    let pristine = std::fs::read(&newer.path).unwrap();
    for position in (0..pristine.len()).step_by(13) {
        let mut changed = pristine.clone();
        changed[position] ^= 1;
        std::fs::write(&newer.path, changed).unwrap();
        let error = read(&storage, &newer).unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Damaged { .. }),
            "byte {position}: {error}"
        );
        assert!(
            error.to_string().contains(newer.path.to_str().unwrap()),
            "{error}"
        );
    }
    storage.snapshots().set_aside(&newer).unwrap();
    assert_eq!(storage.snapshots().newest(0), Some(older.clone()));
    assert!(matches!(
        storage.snapshots().open(&newer),
        Err(SnapshotError::Gone { .. })
    ));
    storage.close().unwrap();

    // A header that is damaged is set aside when opening.
    let mut bytes = std::fs::read(&older.path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&older.path, bytes).unwrap();
    let storage = open(dir.path());
    assert_eq!(storage.snapshots().list(0), []);
    let names = std::fs::read_dir(dir.path().join("snapshots")).unwrap();
    assert_eq!(
        names
            .filter(|name| name.as_ref().unwrap().path().extension().unwrap() == "damaged")
            .count(),
        2
    );
}

#[test]
fn an_unfinished_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    append(&storage, &storage.partition(0), entries(1, 0..10));
    let mut writer = storage
        .snapshots()
        .create(0, id(1, 9), Bytes::new())
        .unwrap();
    writer.write_all(&state(1_000_000)).unwrap();
    drop(writer);
    let mut writer = storage
        .snapshots()
        .create(0, id(1, 9), Bytes::new())
        .unwrap();
    writer.write_all(&state(1_000_000)).unwrap();
    std::mem::forget(writer);
    assert_eq!(
        std::fs::read_dir(dir.path().join("snapshots"))
            .unwrap()
            .count(),
        1,
        "the one of a process that died"
    );
    let copy = tempfile::tempdir().unwrap();
    for item in ["snapshots", "segments"] {
        std::fs::create_dir(copy.path().join(item)).unwrap();
        for file in std::fs::read_dir(dir.path().join(item)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(item).join(file.file_name())).unwrap();
        }
    }
    for item in ["data-version", "identity", "mark"] {
        std::fs::copy(dir.path().join(item), copy.path().join(item)).unwrap();
    }
    let storage = open(copy.path());
    assert_eq!(storage.snapshots().list(0), []);
    assert_eq!(
        std::fs::read_dir(copy.path().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}

/// The log's fdatasyncs wait for what a snapshot's has to write.
#[test]
fn a_snapshot_is_never_far_ahead_of_what_is_synced_of_it() {
    let open = |seed| {
        let files = SimFiles::new(seed);
        let opened = Storage::open_simulated(&files, &SimIndex::new(), small_segments());
        let storage = opened.unwrap().0;
        append(&storage, &storage.partition(0), entries(1, 0..10));
        (storage, files)
    };
    let unsynced = |files: &SimFiles| {
        let names = files.names();
        let name = names.iter().find(|name| name.ends_with(".tmp")).unwrap();
        files.unsynced_bytes(name)
    };
    let in_chunks = |bytes: &[u8], files: &SimFiles, take: &mut dyn FnMut(&[u8])| {
        let unsynced = bytes.chunks(100_000).map(|chunk| {
            take(chunk);
            unsynced(files)
        });
        let unsynced_max = unsynced.max().unwrap();
        assert!((1..=1 << 20).contains(&unsynced_max), "{unsynced_max}");
    };
    let (here, files) = open(1);
    let mut writer = here.snapshots().create(0, id(1, 9), Bytes::new()).unwrap();
    in_chunks(&state(5 << 20), &files, &mut |chunk| {
        writer.write_all(chunk).unwrap();
    });
    let info = writer.finish().unwrap();

    let (there, files) = open(2);
    let sent = raw_bytes(&here.snapshots().open_raw(&info).unwrap());
    let mut receiver = there.snapshots().receive(0).unwrap();
    in_chunks(&sent, &files, &mut |chunk| receiver.write(chunk).unwrap());
    let received = receiver.finish().unwrap();
    let mut found = Vec::new();
    let mut reader = there.snapshots().open(&received).unwrap();
    reader.read_to_end(&mut found).unwrap();
    assert_eq!(found, state(5 << 20));
}

#[test]
fn a_snapshot_waits_for_the_log_and_is_dropped_if_the_log_never_reaches_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.partition(0);
    let (done, outcome) = done();
    log.append(entries(1, 0..1000), done);
    // Finished in the middle of the append: visible only once that is durable.
    let info = build(&storage, 999, 10);
    assert_eq!(log.durable_index(), Some(999));
    assert_eq!(storage.snapshots().newest(0), Some(info));
    outcome.recv().unwrap().unwrap();
    let mut writer = storage
        .snapshots()
        .create(0, id(1, 5000), Bytes::new())
        .unwrap();
    writer.write_all(b"x").unwrap();
    assert!(matches!(
        writer.finish(),
        Err(SnapshotError::AheadOfLog { .. })
    ));
    assert_eq!(storage.snapshots().list(0).len(), 1);
}

#[test]
fn old_snapshots_thin_out_and_one_being_read_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    append(&storage, &storage.partition(0), entries(1, 0..200));
    let mut readers = Vec::new();
    for index in 0..100 {
        let info = build(&storage, index, 500);
        readers.push((storage.snapshots().open_raw(&info).unwrap(), info));
    }
    let kept = storage.snapshots().list(0);
    assert!((10..=19).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().log_id.index, 99);
    assert_eq!(kept[kept.len() - 2].log_id.index, 98);
    assert!(kept[0].log_id.index < 20);
    assert_eq!(
        std::fs::read_dir(dir.path().join("snapshots"))
            .unwrap()
            .count(),
        kept.len()
    );
    for (raw, info) in &readers {
        assert_eq!(raw_bytes(raw).len() as u64, info.size_bytes);
    }
    storage.close().unwrap();
    assert_eq!(open(dir.path()).snapshots().list(0), kept);
}
