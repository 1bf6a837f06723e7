//! Whole data directories in which bytes and files were changed at random: each is opened with all that was
//! acknowledged, or refused with the file named; nothing wrong is ever handed out, and inspecting it agrees.
//! `PROPTEST_CASES` makes the run longer.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{append, entries, entry, id, small_segments, vote, wait};
use huntlog_storage::{
    FatalError, InspectOptions, Inspection, LogEntry, OpenError, ReadError, Severity, SimFiles,
    SimIndex, SnapshotError, Storage, inspect,
};
use proptest::prelude::*;
use proptest::sample::Index;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const ENTRIES: u64 = 60;
/// Entries from here to `TRUNCATED_END` were written once more, in a later term.
const TRUNCATED_FROM: u64 = 8;
const TRUNCATED_END: u64 = 12;
const ENTRY_BYTES: usize = 180;
const SNAPSHOT_INDEXES: [u64; 2] = [20, 40];
/// In the sample whose log was released, what is kept begins here.
const FIRST_KEPT: u64 = SNAPSHOT_INDEXES[0] + 1;
const SNAPSHOT_BYTES: [u8; 900] = [7; 900];
const MARK: &str = "mark";
/// Far more than a directory of some 20 KB takes, on a busy machine too.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Of the whole process.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

struct Sample {
    files: SimFiles,
    index: SimIndex,
    /// As it was half way.
    old_index: SimIndex,
    first_kept: u64,
}

/// A closed log of several segments, with a truncation and two snapshots.
static WHOLE: LazyLock<Sample> = LazyLock::new(|| sample(false));

/// The same, purged through the newer snapshot and released through the older one.
static RELEASED: LazyLock<Sample> = LazyLock::new(|| sample(true));

fn sample(released: bool) -> Sample {
    let (files, index) = (SimFiles::new(1), SimIndex::new());
    let storage = open(&files, &index).unwrap();
    let log = storage.partition(0);
    wait(&storage, |done| log.save_vote(vote(6), done)).unwrap();
    append(&storage, &log, entries(6, 0..TRUNCATED_END));
    let last = Some(id(6, TRUNCATED_FROM - 1));
    wait(&storage, |done| log.truncate_after(last, done)).unwrap();
    wait(&storage, |done| log.save_vote(vote(8), done)).unwrap();
    let mut old_index = SimIndex::new();
    for number in TRUNCATED_FROM..ENTRIES {
        append(&storage, &log, vec![entry(8, number, ENTRY_BYTES)]);
        if number == ENTRIES / 2 {
            old_index = index.fork();
        }
    }
    for last in SNAPSHOT_INDEXES {
        let mut writer = storage
            .snapshots()
            .create(0, id(8, last), Bytes::new())
            .unwrap();
        writer.write_all(&SNAPSHOT_BYTES).unwrap();
        writer.finish().unwrap();
    }
    if released {
        let [_, newest] = SNAPSHOT_INDEXES;
        wait(&storage, |done| log.purge(id(8, newest), done)).unwrap();
        wait(&storage, |done| log.release_history(FIRST_KEPT, done)).unwrap();
    }
    storage.close().unwrap();
    let segments = names(&files, ".segment").len();
    assert!(segments >= 3, "{segments} segments");
    Sample {
        files,
        index,
        old_index,
        first_kept: if released { FIRST_KEPT } else { 0 },
    }
}

fn names(files: &SimFiles, ending: &str) -> Vec<String> {
    let mut names = files.names();
    names.retain(|name| name.ends_with(ending));
    names
}

fn open(files: &SimFiles, index: &SimIndex) -> Result<Storage, OpenError> {
    Storage::open_simulated(files, index, small_segments()).map(|(storage, _)| storage)
}

#[derive(Debug, Clone)]
enum Deed {
    Flip { at: Index, bits: u8 },
    Overwrite { at: Index, bytes: Vec<u8> },
    Zero { at: Index, length: usize },
    Insert { at: Index, bytes: Vec<u8> },
    Cut { at: Index },
    CutOut { at: Index, length: usize },
    Duplicate { at: Index, length: usize, to: Index },
    Remove,
    CopyOver { other: Index },
    SwapWith { other: Index },
    CopyBehind { skipped: u64 },
}

fn deed() -> impl Strategy<Value = Deed> {
    let at = any::<Index>;
    let bytes = || prop::collection::vec(any::<u8>(), 1..200);
    let length = 1_usize..3000;
    prop_oneof![
        4 => (at(), 1_u8..).prop_map(|(at, bits)| Deed::Flip { at, bits }),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Deed::Overwrite { at, bytes }),
        2 => (at(), length.clone()).prop_map(|(at, length)| Deed::Zero { at, length }),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Deed::Insert { at, bytes }),
        2 => at().prop_map(|at| Deed::Cut { at }),
        2 => (at(), length.clone()).prop_map(|(at, length)| Deed::CutOut { at, length }),
        2 => (at(), length, at()).prop_map(|(at, length, to)| Deed::Duplicate { at, length, to }),
        1 => Just(Deed::Remove),
        1 => at().prop_map(|other| Deed::CopyOver { other }),
        1 => at().prop_map(|other| Deed::SwapWith { other }),
        1 => (0_u64..3).prop_map(|skipped| Deed::CopyBehind { skipped }),
    ]
}

impl Deed {
    fn perform(self, files: &SimFiles, name: &str) {
        let all = files.names();
        let content = |name: &str| files.bytes(name).unwrap();
        let own = content(name);
        // An empty file has one place to write at.
        let place = |at: Index| at.index(own.len() + 1);
        let replace = |range: std::ops::Range<usize>, by: &[u8]| {
            files.tamper(name, |bytes| drop(bytes.splice(range, by.iter().copied())));
        };
        let up_to = |from: usize, length: usize| from..own.len().min(from + length);
        match self {
            Deed::Flip { at, bits } => files.tamper(name, |bytes| {
                if !bytes.is_empty() {
                    bytes[at.index(own.len())] ^= bits;
                }
            }),
            Deed::Overwrite { at, bytes } => replace(up_to(place(at), bytes.len()), &bytes),
            Deed::Zero { at, length } => {
                let range = up_to(place(at), length);
                replace(range.clone(), &vec![0; range.len()]);
            }
            Deed::Insert { at, bytes } => replace(place(at)..place(at), &bytes),
            Deed::Cut { at } => replace(place(at)..own.len(), &[]),
            Deed::CutOut { at, length } => replace(up_to(place(at), length), &[]),
            Deed::Duplicate { at, length, to } => {
                replace(place(to)..place(to), &own[up_to(place(at), length)]);
            }
            Deed::Remove => files.tamper_remove(name),
            Deed::CopyOver { other } => {
                let other = content(&all[other.index(all.len())]);
                files.tamper(name, |bytes| *bytes = other);
            }
            Deed::SwapWith { other } => {
                let other = &all[other.index(all.len())];
                let theirs = content(other);
                files.tamper(other, |bytes| *bytes = own.clone());
                files.tamper(name, |bytes| *bytes = theirs);
            }
            Deed::CopyBehind { skipped } => {
                let newest = names(files, ".segment").pop();
                if let Some(behind) = newest.and_then(|newest| following(&newest, 1 + skipped)) {
                    files.tamper(&behind, |bytes| *bytes = own.clone());
                }
            }
        }
    }
}

/// The name of a segment `by` after the one called `name`.
fn following(name: &str, by: u64) -> Option<String> {
    let digits = name.strip_prefix("segments/")?.strip_suffix(".segment")?;
    let number = u64::from_str_radix(digits, 16).ok()? + by;
    Some(format!(
        "segments/{number:0width$x}.segment",
        width = digits.len()
    ))
}

/// What was written at `number`, the last one first.
fn written(number: u64) -> Vec<LogEntry> {
    let first = entries(6, number..number + 1).remove(0);
    let last = entry(8, number, ENTRY_BYTES);
    match number {
        0..TRUNCATED_FROM => vec![first],
        TRUNCATED_FROM..TRUNCATED_END => vec![last, first],
        _ => vec![last],
    }
}

/// A directory that is refused.
struct Refusal {
    says: String,
    /// It is opened, and no state can be made of what is there: the node finds out when it has read the snapshots through.
    of_reach: bool,
}

/// Opening refuses, naming one of the files: what it says. Or everything is as it was acknowledged, or named when it is
/// read. `older`: the directory may be taken for an older one, whose end was not acknowledged yet.
fn check_opened(
    sample: &Sample,
    files: &SimFiles,
    index: &SimIndex,
    older: bool,
) -> Result<Option<Refusal>, TestCaseError> {
    let mut known = files.names();
    known.extend(sample.files.names());
    // An older log may miss what was deleted since.
    known.extend(WHOLE.files.names());
    known.push("snapshots".to_owned());
    let names_a_file = |message: &str| known.iter().any(|name| message.contains(name.as_str()));
    let storage = match open(files, index) {
        Ok(storage) => storage,
        Err(error) => {
            let message = error.to_string();
            prop_assert!(names_a_file(&message), "{message}");
            return Ok(Some(Refusal {
                says: message,
                of_reach: false,
            }));
        }
    };
    let log = storage.partition(0);
    let last = log.last();
    if !older {
        prop_assert_eq!(last, Some(id(8, ENTRIES - 1)));
        prop_assert_eq!(log.vote(), Some(vote(8)));
    }
    for number in 0..last.map_or(0, |last| last.index + 1) {
        match log.read_history(number..number + 1, 1000) {
            Ok(read) => {
                let allowed = written(number);
                let allowed = &allowed[..if older { allowed.len() } else { 1 }];
                prop_assert!(
                    read.len() == 1 && allowed.contains(&read[0]),
                    "{number}: {read:?}"
                );
            }
            Err(ReadError::Damaged { file, .. }) => prop_assert!(names_a_file(&file), "{file}"),
            Err(ReadError::NotKept { .. }) if number < sample.first_kept => {}
            // The node stops, and rebuilds the index when it is started again.
            Err(ReadError::Fatal(FatalError::IndexDamaged { .. })) => break,
            Err(other) => prop_assert!(false, "{number}: {other}"),
        }
    }
    let snapshots = storage.snapshots();
    for info in snapshots.list(0) {
        let mut found = Vec::new();
        let read =
            snapshots
                .open(&info)
                .and_then(|mut reader| match reader.read_to_end(&mut found) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(*error.into_inner().unwrap().downcast().unwrap()),
                });
        match read {
            Ok(()) => prop_assert_eq!(&found, &SNAPSHOT_BYTES),
            Err(SnapshotError::Damaged { file, .. }) => {
                prop_assert!(names_a_file(&file), "{file}");
                prop_assert!(snapshots.set_aside(&info).is_ok());
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
    if let Err(error) = snapshots.to_replay(&log) {
        let message = error.to_string();
        prop_assert!(names_a_file(&message), "{message}");
        return Ok(Some(Refusal {
            says: message,
            of_reach: true,
        }));
    }
    Ok(None)
}

/// Inspects a copy on a real disk.
fn look(files: &SimFiles, verify: bool) -> Inspection {
    let dir = tempfile::tempdir().unwrap();
    for name in files.names() {
        let path = dir.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, files.bytes(&name).unwrap()).unwrap();
    }
    let options = InspectOptions {
        verify,
        ..InspectOptions::default()
    };
    inspect(dir.path(), &options).unwrap()
}

/// The most that this process ever had in memory.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[derive(Debug, Clone, Copy)]
enum IndexIs {
    Intact,
    Older,
    Lost,
}

proptest! {
    #[test]
    fn a_changed_directory_is_opened_whole_or_refused_by_name(
        deeds in prop::collection::vec((any::<Index>(), deed()), 1..4),
        index in prop::sample::select(vec![IndexIs::Intact, IndexIs::Older, IndexIs::Lost]),
        released in any::<bool>(),
    ) {
        let sample: &Sample = if released { &RELEASED } else { &WHOLE };
        let files = sample.files.fork(1);
        let index = match index {
            IndexIs::Intact => sample.index.fork(),
            IndexIs::Older => sample.old_index.fork(),
            IndexIs::Lost => SimIndex::new(),
        };
        for (which, deed) in deeds {
            let names = files.names();
            deed.perform(&files, &names[which.index(names.len())]);
        }
        // Without the mark, nothing remembers what was cut off the end.
        let older = files.bytes(MARK) != sample.files.bytes(MARK);
        let started = Instant::now();
        let inspections = [look(&files, false), look(&files, true)];
        let refusal = check_opened(sample, &files, &index, older)?;
        prop_assert!(started.elapsed() < TIME_MAX, "{:?}", started.elapsed());
        prop_assert!(peak_memory_bytes() < MEMORY_BYTES_MAX, "{}", peak_memory_bytes());
        let Some(refusal) = refusal else { return Ok(()) };
        for inspection in inspections {
            if refusal.of_reach && !inspection.verified {
                // Only reading the snapshots through tells.
                continue;
            }
            let refused = inspection
                .findings
                .iter()
                .any(|finding| finding.severity == Severity::Refused);
            prop_assert!(refused, "{}, but {:?}", refusal.says, inspection.findings);
        }
    }
}
