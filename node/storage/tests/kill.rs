//! SIGKILL at any moment, over real files: a child appends and says what was acknowledged, the parent kills it, opens
//! the directory and compares. The child is this very test binary, told by its environment.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

mod common;

use bytes::Bytes;
use common::{entry, id, identify, read_all, vote};
use huntlog_storage::{OpenError, Options, Storage};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

const CHILD_DIR: &str = "HUNTLOG_KILL_CHILD_DIR";
const ROUNDS: u64 = 60;

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        tail_bytes: 32 << 10,
        ..Options::default()
    }
}

fn payload_bytes(index: u64) -> usize {
    (index * 977 % 700) as usize
}

/// Appends for ever, with writes in flight, and prints what was acknowledged.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let (storage, _) = Storage::open(Path::new(&dir), options()).unwrap();
    identify(&storage);
    let log = storage.partition(0);
    let term = log.vote().map_or(1, |vote| vote.term + 1);
    let (said, lines) = mpsc::channel::<String>();
    let say = move |line: String| {
        let said = said.clone();
        let done: huntlog_storage::Done = Box::new(move |result| {
            if result.is_ok() {
                drop(said.send(line));
            }
        });
        done
    };
    // Whatever the last life left unacknowledged at the end is cut, as a new leader would.
    let keep = log
        .last()
        .map_or(0, |last| last.index + 1)
        .saturating_sub(2)
        .max(log.committed().map_or(0, |c| c.index + 1));
    println!("cut {keep}");
    log.truncate_after(
        keep.checked_sub(1).and_then(|index| log.id_at(index)),
        say(format!("kept {keep}")),
    );
    std::thread::spawn(move || {
        let log = storage.partition(0);
        let mut next = keep;
        for round in 1u64.. {
            let count = 1 + round % 4;
            let entries = (next..next + count)
                .map(|index| entry(term, index, payload_bytes(index)))
                .collect();
            next += count;
            log.append(entries, say(format!("ack {}", next - 1)));
            if round % 16 == 0 {
                log.save_vote(vote(term + round), say(format!("vote {}", term + round)));
            }
            if round % 64 == 0 {
                // Only what is committed may be in a snapshot; this cluster of one commits what is durable.
                log.wait_durable(next - 1).unwrap();
                let last = id(term, next - 1);
                log.save_committed(Some(last));
                let records = log.missing_records(0..next);
                for range in records {
                    log.put_records(
                        range
                            .map(|index| (index, Bytes::from(index.to_string())))
                            .collect(),
                    )
                    .unwrap();
                }
                let mut writer = storage.snapshots().create(0, last, Bytes::new()).unwrap();
                writer.write_all(&vec![7; 5000]).unwrap();
                writer.finish().unwrap();
                say(format!("snapshot {}", next - 1))(Ok(()));
            }
        }
    });
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").unwrap();
    }
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[derive(Default)]
struct Acknowledged {
    last: Option<u64>,
    vote: u64,
    snapshot: Option<u64>,
    lines: u64,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(word), Some(Ok(number))) = (words.next(), words.next().map(str::parse::<u64>))
        else {
            return;
        };
        match word {
            "cut" => self.last = self.last.min(number.checked_sub(1)),
            "ack" => self.last = Some(number),
            "vote" => self.vote = number,
            "snapshot" => self.snapshot = Some(number),
            _ => return,
        }
        self.lines += 1;
    }
}

#[test]
fn sigkill_at_any_moment_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = start(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let wanted = acknowledged.lines + 1 + round * 37 % 80;
        let mut line = String::new();
        while acknowledged.lines < wanted {
            line.clear();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "round {round}: the child ended by itself"
            );
            acknowledged.take(&line);
        }
        child.kill().unwrap();
        // What it said before it died counts too.
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        whole.lines().for_each(|line| acknowledged.take(line));
        child.wait().unwrap();

        let (storage, _) = Storage::open(dir.path(), options()).unwrap();
        let log = storage.partition(0);
        let last = log.last().map(|last| last.index);
        assert!(
            last >= acknowledged.last,
            "round {round}: {:?} was acknowledged, {last:?} is there",
            acknowledged.last
        );
        assert!(
            log.vote().map_or(0, |vote| vote.term) >= acknowledged.vote,
            "round {round}: the vote went back"
        );
        let found = read_all(&log);
        assert_eq!(found.len() as u64, last.map_or(0, |last| last + 1));
        for (index, found) in found.iter().enumerate() {
            let index = index as u64;
            assert_eq!(
                *found,
                entry(found.id.term, index, payload_bytes(index)),
                "round {round}"
            );
        }
        let newest = storage.snapshots().newest(0);
        assert!(
            newest.as_ref().map(|info| info.log_id.index) >= acknowledged.snapshot,
            "round {round}"
        );
        if let Some(newest) = newest {
            let mut state = Vec::new();
            storage
                .snapshots()
                .open(&newest)
                .unwrap()
                .read_to_end(&mut state)
                .unwrap();
            assert_eq!(state, vec![7; 5000]);
            assert_eq!(
                log.missing_records(0..newest.log_id.index + 1),
                vec![],
                "round {round}"
            );
            assert_eq!(
                log.record(newest.log_id.index).unwrap().unwrap(),
                newest.log_id.index.to_string()
            );
        }
        storage.close().unwrap();
        total += found.len();
    }
    assert!(
        acknowledged.lines > ROUNDS * 30 && total > 0,
        "{} lines",
        acknowledged.lines
    );
}

#[test]
fn a_directory_that_another_process_has_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ack") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
    }
    let error = Storage::open(dir.path(), options()).unwrap_err();
    let pid = child.id();
    assert!(
        matches!(error, OpenError::Locked { holder: Some(holder), .. } if holder == pid),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    Storage::open(dir.path(), options()).unwrap();
}
