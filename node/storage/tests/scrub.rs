//! A scrub reads every sealed segment again and tells what is damaged, once; nothing else changes.

#![allow(
    clippy::unwrap_used,
    reason = "a test panics where it fails; the helpers it shares do too"
)]

mod common;

use common::{append, entry, id, small_segments, wait};
use huntlog_storage::limits::SCRUB_STEP_BYTES;
use huntlog_storage::{PartitionLog, ReadError, Storage};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

fn sample(dir: &Path) -> (Storage, PartitionLog) {
    let (storage, _) = Storage::open(dir, small_segments()).unwrap();
    let log = storage.partition(0);
    for index in 0..100 {
        append(&storage, &log, vec![entry(1, index, 180)]);
    }
    (storage, log)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(dir.join("segments")).unwrap();
    let mut paths: Vec<_> = listed.map(|item| item.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Flips a bit as a disk would: the file stays the same one.
fn flip(path: &Path, position: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 1], position).unwrap();
}

/// One pass; returns the bytes read.
fn pass(storage: &Storage) -> u64 {
    let mut scrub = storage.scrub();
    let mut bytes = 0;
    loop {
        let step = scrub.step().unwrap();
        // The segments here are smaller than a step.
        assert!(step.bytes < SCRUB_STEP_BYTES);
        bytes += step.bytes;
        if step.ended {
            return bytes;
        }
    }
}

#[test]
fn a_pass_reads_all_sealed_segments_and_finds_nothing_in_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, log) = sample(dir.path());
    let (closed, _) = log.segments();
    assert!(closed.len() >= 4);
    let written: u64 = closed.iter().map(|segment| segment.bytes).sum();
    assert_eq!(pass(&storage), written);
    assert!(storage.damaged_segments().is_empty());
}

#[test]
fn damage_is_told_with_file_position_and_remedy_and_the_rest_is_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, log) = sample(dir.path());
    let paths = segments(dir.path());
    let (closed, _) = log.segments();
    // In a frame, and in a batch's header, wherever it stands.
    flip(&paths[0], closed[0].bytes / 2);
    flip(&paths[2], 3);
    pass(&storage);
    let damaged = storage.damaged_segments();
    assert_eq!(damaged.keys().copied().collect::<Vec<_>>(), [1, 3]);
    for (number, path) in [(1, &paths[0]), (3, &paths[2])] {
        let said = &damaged[&number];
        for part in [
            &*path.display().to_string(),
            "is damaged at byte",
            "rejoin under a new node id",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }
    // The storage goes on, and a second pass finds nothing new.
    append(&storage, &log, vec![entry(1, 100, 180)]);
    pass(&storage);
    assert_eq!(storage.damaged_segments(), damaged);

    // What is given up is no damage any more.
    wait(&storage, |done| log.purge(id(1, 60), done)).unwrap();
    wait(&storage, |done| log.release_history(61, done)).unwrap();
    // Segments are deleted once a later one begins without their entries, after the write that says so.
    for index in 101..140 {
        append(&storage, &log, vec![entry(1, index, 180)]);
    }
    assert!(log.segments().0[0].number > 3);
    assert!(storage.damaged_segments().is_empty());
    pass(&storage);
    assert!(storage.damaged_segments().is_empty());
}

#[test]
fn a_damaged_footer_costs_no_entry_and_a_start_writes_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, log) = sample(dir.path());
    let (closed, _) = log.segments();
    flip(&segments(dir.path())[0], closed[0].bytes + 80);
    pass(&storage);
    let damaged = storage.damaged_segments();
    assert!(damaged[&1].contains("no entry is lost"), "{damaged:?}");
    drop(log);
    storage.close().unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    pass(&storage);
    assert!(storage.damaged_segments().is_empty());
}

#[test]
fn a_reader_that_meets_damage_tells_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, log) = sample(dir.path());
    drop(log);
    storage.close().unwrap();
    // Read from the disk, not from the tail in memory.
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let log = storage.partition(0);
    let (closed, _) = log.segments();
    flip(&segments(dir.path())[0], closed[0].bytes / 2);
    let failed = (0..40).find_map(|index| log.read(index..index + 1, 1000).err());
    let error = failed.unwrap();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    assert_eq!(storage.damaged_segments()[&1], error.to_string());
}

#[test]
fn a_closed_storage_is_not_scrubbed() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = sample(dir.path());
    let mut scrub = storage.scrub();
    storage.close().unwrap();
    assert!(matches!(scrub.step(), Err(ReadError::Closed)));
}
