//! Directories that older releases wrote stay readable: `data/v1` was written when the format was laid down.
//!
//! A release that changes the format adds a directory here and keeps the old ones. The index is not part of them: it is
//! rebuilt. `cargo test -p huntlog-storage --test data_versions -- --ignored` writes the present version's anew.
#![allow(
    clippy::unwrap_used,
    reason = "a test panics where it fails; the helpers it shares do too"
)]

mod common;

use bytes::Bytes;
use common::{append, entries, entry, id, read_all, small_segments, vote, wait};
use huntlog_storage::{FIRST_DATA_VERSION, Identity, IndexReport, Options, Storage};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1")
}

fn identity() -> Identity {
    Identity {
        cluster_id: "cluster-1".to_owned(),
        cluster_name: "fixture".to_owned(),
        node_id: 1,
        node_uuid: "7f6e0c1e-0000-4000-8000-000000000001".to_owned(),
        members: Bytes::from_static(b"one, two, three"),
    }
}

fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let name = item.file_name();
        match item.file_type().unwrap().is_dir() {
            true if name == "index" => {}
            true => copy_into(&item.path(), &to.join(name)),
            false if name == "lock" => {}
            false => drop(std::fs::copy(item.path(), to.join(name)).unwrap()),
        }
    }
}

#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    storage.save_identity(&identity()).unwrap();
    let log = storage.partition(0);
    wait(&storage, |done| log.save_vote(vote(2), done)).unwrap();
    append(
        &storage,
        &log,
        (0..30).map(|index| entry(2, index, 100)).collect(),
    );
    wait(&storage, |done| log.truncate_after(Some(id(2, 19)), done)).unwrap();
    append(
        &storage,
        &log,
        (20..40).map(|index| entry(3, index, 100)).collect(),
    );
    wait(&storage, |done| log.purge(id(2, 9), done)).unwrap();
    wait(&storage, |done| log.release_history(5, done)).unwrap();
    append(&storage, &storage.partition(9), entries(1, 0..3));
    let mut writer = storage
        .snapshots()
        .create(0, id(3, 35), Bytes::from_static(b"meta"))
        .unwrap();
    writer.write_all(b"the state at 35").unwrap();
    writer.finish().unwrap();
    storage.close().unwrap();
    if fixture().exists() {
        std::fs::remove_dir_all(fixture()).unwrap();
    }
    copy_into(dir.path(), &fixture());
}

/// A directory goes to the next version when its user says so, and not back; a release that knows only the version before
/// is refused, and told which one is not.
#[test]
fn a_version_is_raised_durably_and_never_lowered() {
    let dir = tempfile::tempdir().unwrap();
    let newest = |data_version_max| Options {
        data_version_max,
        ..small_segments()
    };
    let (storage, _) = Storage::open(dir.path(), newest(3)).unwrap();
    assert_eq!(storage.data_version(), FIRST_DATA_VERSION);
    let log = storage.partition(0);
    append(&storage, &log, entries(1, 0..10));
    for (asked, found) in [(2, 2), (3, 3), (2, 3)] {
        storage
            .raise_data_version(asked, &format!("0.{asked}.0"))
            .unwrap();
        assert_eq!(storage.data_version(), found);
    }
    drop(log);
    storage.close().unwrap();

    let error = Storage::open(dir.path(), newest(2)).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains(
            "data version 3, this release reads versions up to 2; run release 0.3.0 or a newer one"
        ),
        "{told}"
    );
    let (storage, _) = Storage::open(dir.path(), newest(3)).unwrap();
    assert_eq!(storage.data_version(), 3);
    assert_eq!(read_all(&storage.partition(0)), entries(1, 0..10));
}

#[test]
fn version_1_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    copy_into(&fixture(), dir.path());
    let (storage, report) = Storage::open(dir.path(), small_segments()).unwrap();
    assert!(
        matches!(report.index, IndexReport::Rebuilt { .. }),
        "{:?}",
        report.index
    );
    assert_eq!(storage.identity(), Some(identity()));
    let log = storage.partition(0);
    assert_eq!(
        (log.vote(), log.last_purged(), log.last()),
        (Some(vote(2)), Some(id(2, 9)), Some(id(3, 39)))
    );
    let expected: Vec<_> = (5..40)
        .map(|index| entry(if index < 20 { 2 } else { 3 }, index, 100))
        .collect();
    assert_eq!(read_all(&log), expected);
    assert_eq!(read_all(&storage.partition(9)), entries(1, 0..3));
    let snapshot = storage.snapshots().newest(0).unwrap();
    assert_eq!(snapshot.log_id, id(3, 35));
    let mut state = String::new();
    storage
        .snapshots()
        .open(&snapshot)
        .unwrap()
        .read_to_string(&mut state)
        .unwrap();
    assert_eq!(state, "the state at 35");
}
