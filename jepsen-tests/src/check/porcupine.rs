//! The same histories before a checker that is not ours: Porcupine's search for
//! an order (Athalye, "Testing distributed systems for linearizability"; the
//! crate `porcupine-rs`). What [`linearizable`](super::linearizable) and its
//! neighbours conclude without a search has to be what the search finds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};
use proptest::prelude::*;

use super::index::Index;
use super::tests::{MINIMUM, valid_history};
use super::{Verdict, judge};
use crate::history::{Event, History, Kind, Op, Read};

/// How long a key is searched before it counts as unknown.
const LIMIT: Duration = Duration::from_secs(60);

/// A key: the values appended to it.
#[derive(Clone)]
struct Log;

#[derive(Debug, Clone)]
enum Step {
    Append {
        value: u64,
        offset: u64,
    },
    /// Everything from `from` on.
    Read {
        from: u64,
        values: Vec<u64>,
        end: u64,
    },
}

impl Model for Log {
    type State = Arc<Vec<u64>>;
    type Op = Step;
    type Metadata = ();

    fn init() -> Self::State {
        Arc::default()
    }

    fn step(log: &Self::State, op: &Self::Op) -> (bool, Self::State) {
        let length = log.len() as u64;
        match op {
            Step::Append { value, offset } => {
                let mut longer = log.to_vec();
                longer.push(*value);
                (*offset == length, longer.into())
            }
            Step::Read { from, values, end } => {
                let shown = usize::try_from(*from).ok().and_then(|from| log.get(from..));
                let same = *end == length && shown == Some(values.as_slice());
                (same, Arc::clone(log))
            }
        }
    }
}

/// What the search says of each key's appends and linearizable reads.
fn searched(history: &History) -> BTreeMap<String, CheckResult> {
    let index = Index::new(history);
    let time = |index: u64| i64::try_from(index).expect("an index");
    let mut results = BTreeMap::new();
    for (name, key) in &index.keys {
        // A value that was shown somewhere can only be there. One that nobody
        // knows of may have its turn after everything else, or never.
        let offsets = key.offsets();
        let appends = key.appends.iter().filter(|op| op.failed().is_none());
        let appends = appends.filter_map(|append| {
            let &(shown, _) = offsets.get(&append.op.v)?;
            let op = Step::Append {
                value: append.op.v,
                offset: append.op.offset.unwrap_or(shown),
            };
            Some((append.invoked, append.ok(), op))
        });
        let reads = key.reads.iter().filter_map(|read| {
            let entries = read.op.entries.as_ref()?;
            let op = Step::Read {
                from: read.op.from,
                values: entries.iter().map(|&(_, value)| value).collect(),
                end: read.op.end?,
            };
            Some((read.invoked, Some(read.ok()?), op))
        });
        let operations: Vec<Operation<Log>> = appends
            .chain(reads)
            .map(|(invoked, ended, op)| Operation {
                client_id: None,
                call_time: time(invoked),
                // What may yet happen may happen after everything else.
                return_time: ended.map_or(i64::MAX, time),
                op,
                metadata: None,
            })
            .collect();
        let result = check_operations_timeout(&operations, LIMIT);
        results.insert((*name).to_owned(), result);
    }
    results
}

/// Without what the search knows nothing of.
fn appends_and_reads(events: Vec<Event>) -> Vec<Event> {
    let events = events
        .into_iter()
        .filter(|event| matches!(event.op, Op::Append(_) | Op::Read(_)));
    let numbered = (0..).zip(events);
    numbered
        .map(|(index, event)| Event {
            index,
            time_ns: index,
            ..event
        })
        .collect()
}

/// Changes an answer in a way that may or may not be allowed.
fn changed(mut events: Vec<Event>, at: prop::sample::Index, how: u8) -> Vec<Event> {
    let answers: Vec<usize> = (0..events.len())
        .filter(|&position| events[position].kind == Kind::Ok)
        .collect();
    if answers.is_empty() {
        return events;
    }
    let position = answers[at.index(answers.len())];
    match &mut events[position].op {
        Op::Append(append) if how.is_multiple_of(2) => {
            append.offset = append.offset.map(|offset| offset + 1);
        }
        Op::Append(append) => {
            append.offset = append.offset.map(|offset| offset.saturating_sub(1));
        }
        Op::Read(Read {
            from,
            entries: Some(entries),
            end: Some(end),
            ..
        }) => match how % 3 {
            // An earlier state of the same log.
            0 if !entries.is_empty() => {
                entries.pop();
                *end -= 1;
            }
            1 if entries.len() > 1 => {
                let first = entries[0].1;
                let last = entries.len() - 1;
                entries[0].1 = entries[last].1;
                entries[last].1 = first;
            }
            _ => {
                entries.push((*from + entries.len() as u64, 1));
                *end += 1;
            }
        },
        _ => {}
    }
    events
}

proptest! {
    #[test]
    fn the_search_comes_to_the_same(
        events in valid_history(),
        at in any::<prop::sample::Index>(),
        how in any::<u8>(),
        honest in any::<bool>(),
    ) {
        let mut events = appends_and_reads(events);
        if !honest {
            events = changed(events, at, how);
        }
        let history = History::new(events).expect("sound");
        let ours = judge(&history, MINIMUM);
        for (key, found) in searched(&history) {
            prop_assert_ne!(&found, &CheckResult::Unknown);
            let violated = ours.verdict() == Verdict::Invalid;
            prop_assert_eq!(violated, found == CheckResult::Illegal, "{}: {:?}", key, ours);
        }
    }
}

/// Histories of runs: every `history.jsonl` below the directories of
/// `HUNTLOG_HISTORIES`, which has directories of runs.
#[test]
#[ignore = "needs histories: jepsen-tests/README.md"]
fn the_search_agrees_with_runs() {
    let runs = std::env::var_os("HUNTLOG_HISTORIES").expect("a directory with runs");
    let runs = std::fs::read_dir(runs).expect("a directory");
    let histories: Vec<PathBuf> = runs
        .map(|run| run.expect("an entry").path().join("history.jsonl"))
        .filter(|path| path.exists())
        .collect();
    assert!(!histories.is_empty(), "no run with a history");
    for path in histories {
        let history = File::open(&path).expect("a file");
        let history = History::read(BufReader::new(history)).expect("a history");
        let searched = searched(&history);
        let of = |result: &CheckResult| searched.values().filter(|found| *found == result).count();
        eprintln!(
            "{}: {} keys in order, {} not, {} unknown",
            path.display(),
            of(&CheckResult::Ok),
            of(&CheckResult::Illegal),
            of(&CheckResult::Unknown)
        );
        assert_eq!(of(&CheckResult::Illegal), 0, "{}", path.display());
    }
}
