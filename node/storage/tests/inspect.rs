//! Inspecting says what a node would make of a directory, and changes nothing in it.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{append, done, entries, entry, id, identify, small_segments, vote, wait};
use huntlog_storage::{
    Finding, Identity, InspectError, InspectOptions, Inspection, LogId, OpenError, Severity,
    Storage, inspect,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// So many that the newest segment holds some.
const ENTRIES: u64 = 47;

/// A closed directory with several segments, two partitions, records and a snapshot.
fn sample(dir: &Path) {
    let (storage, _) = Storage::open(dir, small_segments()).unwrap();
    storage
        .save_identity(&Identity {
            cluster_id: "c-9".to_owned(),
            cluster_name: "spring".to_owned(),
            node_id: 2,
            node_uuid: "0190".to_owned(),
            members: Bytes::from_static(b"1,2,3"),
        })
        .unwrap();
    let log = storage.partition(0);
    wait(&storage, |done| log.save_vote(vote(6), done)).unwrap();
    for index in 0..ENTRIES {
        append(&storage, &log, vec![entry(6, index, 180)]);
    }
    let records = (0..ENTRIES).map(|index| (index, Bytes::from(vec![1; 20])));
    log.put_records(records.collect()).unwrap();
    append(&storage, &storage.partition(9), entries(1, 0..3));
    for index in [20, 40] {
        take_snapshot(&storage, id(6, index));
    }
    storage.close().unwrap();
}

fn take_snapshot(storage: &Storage, last: LogId) {
    let mut writer = storage.snapshots().create(0, last, Bytes::new()).unwrap();
    writer.write_all(&[7; 900]).unwrap();
    writer.finish().unwrap();
}

fn look(dir: &Path, verify: bool) -> Inspection {
    let options = InspectOptions {
        verify,
        ..InspectOptions::default()
    };
    inspect(dir, &options).unwrap()
}

/// Every file below a directory: its bytes, and when it was last changed.
fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let changed = fs::metadata(&dir).unwrap().modified().unwrap();
        files.insert(dir.clone(), (Vec::new(), changed));
        for item in fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let changed = fs::metadata(&path).unwrap().modified().unwrap();
                files.insert(path.clone(), (fs::read(&path).unwrap(), changed));
            }
        }
    }
    files
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_into(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .collect();
    found.sort();
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Bytes before the zeros that were set aside.
fn used_bytes(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn without_an_index_every_segment_is_read_as_by_a_start() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let first = segments(dir.path()).remove(0);
    let middle = used_bytes(&first) / 2;
    change(&first, |bytes| bytes[middle] ^= 1);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let found = look(dir.path(), false);
    let refused = |finding: &&Finding| finding.severity == Severity::Refused;
    let refusal = found.findings.iter().find(refused).unwrap();
    assert_eq!(refusal.file, first.display().to_string());
    let error = Storage::open(dir.path(), small_segments()).unwrap_err();
    let OpenError::Damaged { file, position, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((file, Some(*position)), (&refusal.file, refusal.position));
}

#[test]
fn a_sound_directory_is_described() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let steps = seen.clone();
    let options = InspectOptions {
        verify: true,
        on_progress: Some(Arc::new(move |done, all| {
            steps.lock().unwrap().push((done, all));
        })),
        ..InspectOptions::default()
    };
    let found = inspect(dir.path(), &options).unwrap();
    assert!(
        found.is_sound() && found.findings.is_empty(),
        "{:?}",
        found.findings
    );
    assert_eq!((found.data_version, found.in_use), (Some(1), Some(true)));
    let identity = found.identity.as_ref().unwrap();
    assert_eq!(
        (
            identity.node_id,
            identity.cluster_id.as_str(),
            identity.members_bytes
        ),
        (2, "c-9", 5)
    );
    let mark = found.mark.unwrap();
    assert_eq!((mark.synced_to, mark.valid_slots), (found.synced_to, 2));
    assert_eq!(found.segments.len(), segments(dir.path()).len());
    assert!(found.segments.len() >= 3);
    let (newest, sealed) = found.segments.split_last().unwrap();
    assert!(!newest.sealed && sealed.iter().all(|segment| segment.sealed));
    assert_eq!(newest.used_bytes, found.synced_to.unwrap().offset);
    let entries: u64 = found
        .segments
        .iter()
        .map(|segment| segment.frames.unwrap().entries)
        .sum();
    assert_eq!(entries, ENTRIES + 3);
    let [log, other] = &found.partitions[..] else {
        panic!("{:?}", found.partitions)
    };
    assert_eq!(
        (log.partition, log.vote, log.last, log.purged),
        (0, Some(vote(6)), Some(id(6, ENTRIES - 1)), None)
    );
    assert_eq!(
        (log.live.clone(), &log.history[..]),
        (0..ENTRIES, &[0..ENTRIES][..])
    );
    assert_eq!((log.terms.len(), log.terms[0].term), (1, 6));
    assert_eq!((other.partition, other.last), (9, Some(id(1, 2))));
    assert_eq!(
        found.snapshots.iter().map(|s| s.last).collect::<Vec<_>>(),
        [Some(id(6, 20)), Some(id(6, 40))]
    );
    assert!(found.snapshots.iter().all(|snapshot| snapshot.checksum_ok));
    assert_eq!(found.index.entries, Some(ENTRIES + 3));
    assert_eq!(found.index.records[0].records, [0..ENTRIES]);
    assert_eq!(found.index.cursor, found.synced_to);
    let steps = seen.lock().unwrap();
    assert!(steps.len() > 10 && steps.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(
        steps
            .last()
            .is_some_and(|(done, all)| done == all && *all > 0)
    );

    // Without verifying, the same but for what only reading everything can tell.
    let brief = look(dir.path(), false);
    assert!(brief.findings.is_empty(), "{:?}", brief.findings);
    assert_eq!(brief.partitions, found.partitions);
    for (brief, found) in brief.segments.iter().zip(&found.segments) {
        assert_eq!(
            (&brief.entries, brief.used_bytes),
            (&found.entries, found.used_bytes)
        );
        assert_eq!(brief.frames.is_none(), brief.sealed);
    }
}

#[test]
fn a_directory_in_use_is_refused_and_one_that_is_looked_at_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let refused = inspect(dir.path(), &InspectOptions::default());
    let pid = std::process::id();
    assert!(
        matches!(&refused, Err(InspectError::InUse { holder: Some(holder), .. }) if *holder == pid),
        "{refused:?}"
    );
    storage.close().unwrap();
    let shared = fs::File::open(dir.path().join("lock")).unwrap();
    shared.try_lock_shared().unwrap();
    assert!(look(dir.path(), true).is_sound());
    let refused = Storage::open(dir.path(), small_segments());
    assert!(
        matches!(refused, Err(OpenError::Locked { .. })),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_data_directory_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let other = inspect(dir.path(), &InspectOptions::default());
    assert!(
        matches!(other, Err(InspectError::NotADataDirectory { .. })),
        "{other:?}"
    );
    let missing = inspect(&dir.path().join("missing"), &InspectOptions::default());
    assert!(
        matches!(missing, Err(InspectError::Io { .. })),
        "{missing:?}"
    );
}

/// How a directory is damaged: its name, the damage, and what is said of which file.
type Damage = (
    &'static str,
    fn(&Path),
    Severity,
    &'static str,
    &'static str,
);

fn oldest(dir: &Path) -> PathBuf {
    segments(dir).swap_remove(0)
}

fn newest(dir: &Path) -> PathBuf {
    segments(dir).pop().unwrap()
}

fn snapshot(dir: &Path) -> PathBuf {
    let found = fs::read_dir(dir.join("snapshots")).unwrap();
    found.map(|item| item.unwrap().path()).max().unwrap()
}

const DAMAGES: &[Damage] = &[
    (
        "the first frame of the oldest segment",
        |dir| change(&oldest(dir), |bytes| bytes[70] ^= 1),
        Severity::Refused,
        "segment",
        "cannot be read",
    ),
    (
        "a middle frame of the oldest segment",
        |dir| change(&oldest(dir), |bytes| bytes[2000] ^= 1),
        Severity::Refused,
        "segment",
        "checksum",
    ),
    (
        "the last frame of the oldest segment",
        |dir| {
            let path = oldest(dir);
            let at = used_bytes(&path) - 200;
            change(&path, |bytes| bytes[at] ^= 1);
        },
        Severity::Refused,
        "segment",
        "checksum",
    ),
    (
        "the footer of the oldest segment",
        |dir| {
            let path = oldest(dir);
            let at = used_bytes(&path) - 10;
            change(&path, |bytes| bytes[at] ^= 1);
        },
        Severity::Note,
        "segment",
        "footer",
    ),
    (
        "the first frame of the newest segment",
        |dir| change(&newest(dir), |bytes| bytes[70] ^= 1),
        Severity::Refused,
        "segment",
        "synced through",
    ),
    (
        "the last frame of the newest segment",
        |dir| {
            let path = newest(dir);
            let at = used_bytes(&path) - 2;
            change(&path, |bytes| bytes[at] ^= 1);
        },
        Severity::Refused,
        "segment",
        "checksum",
    ),
    (
        "a zeroed page of the oldest segment",
        |dir| change(&oldest(dir), |bytes| bytes[1024..2048].fill(0)),
        Severity::Refused,
        "segment",
        "",
    ),
    (
        "a zeroed page of the newest segment",
        |dir| change(&newest(dir), |bytes| bytes[512..1024].fill(0)),
        Severity::Refused,
        "segment",
        "synced through",
    ),
    (
        "the cut tail of the oldest segment",
        |dir| change(&oldest(dir), |bytes| bytes.truncate(2500)),
        Severity::Refused,
        "segment",
        "",
    ),
    (
        "the cut tail of the newest segment",
        |dir| {
            let path = newest(dir);
            let end = used_bytes(&path) - 100;
            change(&path, |bytes| bytes.truncate(end));
        },
        Severity::Refused,
        "segment",
        "synced through",
    ),
    (
        "an unsynced tail",
        |dir| {
            let path = newest(dir);
            let end = used_bytes(&path).next_multiple_of(8);
            change(&path, |bytes| bytes[end..end + 3].fill(9));
        },
        Severity::Note,
        "segment",
        "torn tail",
    ),
    (
        "the oldest segment missing",
        |dir| fs::remove_file(oldest(dir)).unwrap(),
        Severity::Refused,
        "segment",
        "missing",
    ),
    (
        "a middle segment missing",
        |dir| fs::remove_file(&segments(dir)[1]).unwrap(),
        Severity::Refused,
        "segment",
        "missing",
    ),
    (
        "the newest segment missing",
        |dir| fs::remove_file(newest(dir)).unwrap(),
        Severity::Refused,
        "segment",
        "missing",
    ),
    (
        "all segments missing",
        |dir| {
            segments(dir)
                .iter()
                .for_each(|path| fs::remove_file(path).unwrap())
        },
        Severity::Refused,
        "segment",
        "missing",
    ),
    (
        "the index missing",
        |dir| fs::remove_dir_all(dir.join("index")).unwrap(),
        Severity::Repaired,
        "index",
        "missing",
    ),
    (
        "the index garbled",
        |dir| {
            change(&dir.join("index/db"), |bytes| {
                (0..bytes.len())
                    .step_by(97)
                    .for_each(|at| bytes[at] ^= 0xff);
            })
        },
        Severity::Repaired,
        "index",
        "",
    ),
    (
        "the index of another directory",
        |dir| {
            let other = tempfile::tempdir().unwrap();
            let (storage, _) = Storage::open(other.path(), small_segments()).unwrap();
            append(&storage, &storage.partition(0), entries(1, 0..500));
            storage.close().unwrap();
            fs::remove_dir_all(dir.join("index")).unwrap();
            copy_into(&other.path().join("index"), &dir.join("index"));
        },
        Severity::Repaired,
        "index",
        "",
    ),
    (
        "blobs in the index",
        |dir| {
            fs::create_dir_all(dir.join("index/blobs")).unwrap();
            fs::write(dir.join("index/blobs/0"), b"never synced").unwrap();
        },
        Severity::Repaired,
        "index",
        "blobs",
    ),
    (
        "one slot of the mark",
        |dir| change(&dir.join("mark"), |bytes| bytes[20] ^= 1),
        Severity::Repaired,
        "mark",
        "one of the two slots",
    ),
    (
        "both slots of the mark",
        |dir| change(&dir.join("mark"), |bytes| bytes.fill(0)),
        Severity::Note,
        "mark",
        "last batch",
    ),
    (
        "the mark missing",
        |dir| fs::remove_file(dir.join("mark")).unwrap(),
        Severity::Note,
        "mark",
        "last batch",
    ),
    (
        "a directory instead of the mark",
        |dir| {
            fs::remove_file(dir.join("mark")).unwrap();
            fs::create_dir(dir.join("mark")).unwrap();
        },
        Severity::Refused,
        "mark",
        "a directory is where",
    ),
    (
        "files among the segments that are none",
        |dir| {
            let first = segments(dir).remove(0);
            for stray in ["1.segment", "99.segment", "notes.txt"] {
                fs::copy(&first, dir.join("segments").join(stray)).unwrap();
            }
        },
        Severity::Note,
        "segments",
        "ignored",
    ),
    (
        "a snapshot's header",
        |dir| change(&snapshot(dir), |bytes| bytes[20] ^= 1),
        Severity::Repaired,
        "snapshot",
        "checksum",
    ),
    (
        "a snapshot's state",
        |dir| change(&snapshot(dir), |bytes| bytes[300] ^= 1),
        Severity::Repaired,
        "snapshot",
        "checksum",
    ),
    (
        "a snapshot cut short",
        |dir| change(&snapshot(dir), |bytes| bytes.truncate(400)),
        Severity::Repaired,
        "snapshot",
        "too early",
    ),
    (
        "the identity",
        |dir| change(&dir.join("identity"), |bytes| bytes[20] ^= 1),
        Severity::Refused,
        "identity",
        "checksum",
    ),
    (
        "the identity missing",
        |dir| fs::remove_file(dir.join("identity")).unwrap(),
        Severity::Refused,
        "identity",
        "is missing, though the log is in use",
    ),
    (
        "the data version missing",
        |dir| fs::remove_file(dir.join("data-version")).unwrap(),
        Severity::Refused,
        "data-version",
        "missing",
    ),
    (
        "a newer data version",
        |dir| {
            change(&dir.join("data-version"), |bytes| {
                *bytes = String::from_utf8(bytes.clone())
                    .unwrap()
                    .replace("version: 1", "version: 2")
                    .into_bytes();
            })
        },
        Severity::Refused,
        "data-version",
        "the data version is 2, this release reads versions up to 1",
    ),
];

/// Whether a node starts with the directory and hands everything out; on a copy.
fn is_served(dir: &Path) -> bool {
    let copy = tempfile::tempdir().unwrap();
    copy_into(dir, copy.path());
    for _ in 0..2 {
        let Ok((storage, _)) = Storage::open(copy.path(), small_segments()) else {
            return false;
        };
        let log = storage.partition(0);
        let all = (0..ENTRIES).all(|index| match log.read(index..index + 1, 1000) {
            Ok(read) => {
                assert_eq!(read, [entry(6, index, 180)], "a wrong read");
                true
            }
            Err(_) => false,
        });
        // A lookup that finds the index damaged ends this life, and the next one rebuilds it.
        if all {
            return true;
        }
    }
    false
}

#[test]
fn every_damage_is_found_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    for (damage, inflict, severity, file, what) in DAMAGES {
        let copy = tempfile::tempdir().unwrap();
        copy_into(dir.path(), copy.path());
        inflict(copy.path());
        let before = fingerprint(copy.path());
        let brief = look(copy.path(), false);
        let found = look(copy.path(), true);
        assert!(fingerprint(copy.path()) == before, "{damage}: changed");
        let worst = found.findings.first();
        assert_eq!(
            worst.map_or(Severity::Note, |worst| worst.severity),
            *severity,
            "{damage}: {:?}",
            found.findings
        );
        if let Some(worst) = worst {
            assert!(
                worst.file.contains(file) && worst.what.contains(what),
                "{damage}: {worst:?}"
            );
            assert!(!worst.what_to_do.is_empty());
        }
        assert_eq!(found.is_sound(), *severity == Severity::Note, "{damage}");
        for finding in &brief.findings {
            assert!(
                finding.severity <= *severity,
                "{damage}: verifying finds no less than {finding:?}"
            );
        }
        assert_eq!(
            is_served(copy.path()),
            *severity < Severity::Refused,
            "{damage}: a node makes of it what was said"
        );
    }
}

/// Wherever a byte is flipped: inspecting and opening agree, neither panics, and nothing is changed.
#[test]
fn inspecting_agrees_with_opening_wherever_a_byte_is_flipped() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let (mut refused, mut served) = (0, 0);
    for path in segments(dir.path()) {
        let used = used_bytes(&path);
        for position in (0..used).step_by(397) {
            change(&path, |bytes| bytes[position] ^= 0x20);
            let before = fingerprint(dir.path());
            let found = look(dir.path(), true);
            assert!(fingerprint(dir.path()) == before, "changed");
            let all = is_served(dir.path());
            if all {
                served += 1;
            } else {
                refused += 1;
                let said = found.findings.iter().any(|finding| {
                    finding.severity == Severity::Refused
                        && Path::new(&finding.file) == path
                        && finding.position.is_some_and(|at| at <= position as u64)
                });
                assert!(said, "{} {position}: {:?}", path.display(), found.findings);
            }
            change(&path, |bytes| bytes[position] ^= 0x20);
        }
    }
    assert!(
        refused > 20 && served > 1,
        "refused {refused}, served {served}"
    );
    assert!(
        look(dir.path(), true).findings.is_empty(),
        "put right again"
    );
}

/// What a crash leaves is no fault: frames that were not acknowledged, a segment without footer, an index behind.
#[test]
fn what_a_crash_leaves_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
        identify(&storage);
        let log = storage.partition(0);
        let first = log.last().map_or(0, |last| last.index + 1);
        if let Some(last) = log.last() {
            let after = id(last.term, last.index - 3);
            wait(&storage, |done| log.truncate_after(Some(after), done)).unwrap();
        }
        let first = first.saturating_sub(3);
        let mut outcomes = Vec::new();
        for index in first..first + 30 {
            let (done, outcome) = done();
            log.append(vec![entry(6 + round, index, 180)], done);
            outcomes.push(outcome);
        }
        // An index that never reached the disk is one that was deleted: what is tested here is one that lags.
        outcomes[5].recv().unwrap().unwrap();
        log.sync_records().unwrap();
        outcomes[20].recv().unwrap().unwrap();
        // As the power would leave it, in the middle of everything.
        fs::remove_dir_all(copy.path()).unwrap();
        copy_into(dir.path(), copy.path());
        fs::remove_file(copy.path().join("lock")).unwrap();
        let found = look(copy.path(), true);
        assert!(found.is_sound(), "{:?}", found.findings);
        storage.close().unwrap();
        let found = look(dir.path(), true);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    }
}

/// Segments that retention deleted, and a log that a snapshot from elsewhere took the place of, are no faults either.
#[test]
fn what_was_given_up_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let log = storage.partition(0);
    for index in 0..60 {
        append(&storage, &log, vec![entry(6, index, 180)]);
    }
    take_snapshot(&storage, id(6, 44));
    wait(&storage, |done| log.purge(id(6, 49), done)).unwrap();
    wait(&storage, |done| log.release_history(45, done)).unwrap();
    append(
        &storage,
        &log,
        (60..70).map(|index| entry(6, index, 180)).collect(),
    );
    storage.close().unwrap();
    let found = look(dir.path(), true);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert!(found.segments[0].number > 1, "{:?}", found.segments);
    let log = &found.partitions[0];
    assert_eq!((log.purged, log.live.clone()), (Some(id(6, 49)), 50..70));
    assert_eq!(
        (log.history.as_slice(), found.index.entries),
        (&[45..70][..], Some(25))
    );

    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let log = storage.partition(0);
    log.save_committed(Some(id(6, 64)));
    wait(&storage, |done| log.purge(id(8, 99), done)).unwrap();
    append(
        &storage,
        &log,
        (100..105).map(|index| entry(8, index, 180)).collect(),
    );
    take_snapshot(&storage, id(8, 102));
    storage.close().unwrap();
    let found = look(dir.path(), true);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert_eq!(found.partitions[0].live, 100..105);
    assert_eq!(found.partitions[0].history, [45..65, 100..105]);
}

/// A log that was released rests on a snapshot: with one left from which the rest is kept, a damaged one is repaired;
/// without, the directory is refused. Setting it aside does not make the directory sound.
#[test]
fn a_released_log_without_its_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let log = storage.partition(0);
    wait(&storage, |done| log.purge(id(6, 40), done)).unwrap();
    wait(&storage, |done| log.release_history(21, done)).unwrap();
    assert_eq!(storage.snapshots().to_replay(&log).unwrap(), 41..41);
    storage.close().unwrap();
    assert!(look(dir.path(), true).findings.is_empty());

    let newest = snapshot(dir.path());
    change(&newest, |bytes| bytes[300] ^= 1);
    let found = look(dir.path(), true);
    assert_eq!(found.findings[0].severity, Severity::Repaired, "{found:?}");
    let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
    let log = storage.partition(0);
    let damaged = storage.snapshots().newest(0).unwrap();
    storage.snapshots().set_aside(&damaged).unwrap();
    assert_eq!(storage.snapshots().to_replay(&log).unwrap(), 21..41);

    wait(&storage, |done| log.release_history(41, done)).unwrap();
    storage.close().unwrap();
    let aside = format!("{}.damaged", newest.display());
    fs::copy(&aside, &newest).unwrap();
    for file in [newest.display().to_string(), aside] {
        let found = look(dir.path(), true);
        let [worst, rest @ ..] = &found.findings[..] else {
            panic!("nothing is found");
        };
        assert_eq!(worst.severity, Severity::Refused);
        assert!(worst.what.contains("entries 21 to 40"), "{worst:?}");
        assert!(
            rest.iter().all(|other| other.severity == Severity::Note),
            "{rest:?}"
        );
        let (storage, _) = Storage::open(dir.path(), small_segments()).unwrap();
        let snapshots = storage.snapshots();
        if let Some(damaged) = snapshots.newest(0).filter(|info| info.log_id.index == 40) {
            snapshots.set_aside(&damaged).unwrap();
        }
        let refused = snapshots.to_replay(&storage.partition(0)).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        assert!(
            refused
                .to_string()
                .contains("no readable snapshot covers them"),
            "{refused}"
        );
        assert!(
            worst.file.starts_with(file.trim_end_matches(".damaged")),
            "{worst:?}"
        );
        storage.close().unwrap();
    }
}

#[test]
fn the_report_reads_as_json() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let text = serde_json::to_string(&look(dir.path(), true)).unwrap();
    for part in [
        r#""severity":"repaired""#,
        r#""vote":{"term":6,"node_id":1,"committed":true}"#,
        r#""live":{"start":0,"end":47}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
