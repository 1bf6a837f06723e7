//! Histories for tests, one event a line: who, what (`>` invokes), the
//! operation, its value.
//!
//! ```text
//! 0 > append h p0 1 17 e5         0 ok append h p0 1 17 e5 @0
//! 0 > append h p0 1 17 b2         0 ok append h p0 1 17 b2 @0
//! 1 > read h 0                    1 ok read h 0 = 0:17 1:18 end=2
//! 1 > read h 7 given-up           1 ok read h 7 given-up = 7:24
//! 1 > stale h 0 1                 1 ok stale h 0 1 = 0:17
//! 2 > poll h s                    2 ok poll h s = 0:17
//! 0 > open p0                     0 ok open p0 5 0 fresh
//! 3 > claim t ann limit=2         3 ok claim t ann limit=2 won
//! 3 > who t                       3 ok who t = ann bob
//! ```

use super::{Invariant, Judgement, Minimum, Verdict, judge};
use crate::history::{
    Append, Claim, Event, History, Kind, Op, Open, Poll, Process, Read, StaleRead, Who,
};

const NO_MINIMUM: Minimum = Minimum {
    ok_ops: 0,
    faults: 0,
};

pub(super) fn judged(script: &str) -> Judgement {
    let events = script
        .lines()
        .enumerate()
        .map(|(index, line)| event(index as u64, line))
        .collect();
    judge(&History::new(events).expect("a sound script"), NO_MINIMUM)
}

pub(super) fn assert_violates(invariant: Invariant, script: &str) {
    let judgement = judged(script);
    assert!(
        judgement
            .violations
            .iter()
            .any(|v| v.invariant == invariant),
        "no violation of {invariant:?}: {judgement:?}"
    );
    assert_eq!(judgement.verdict(), Verdict::Invalid);
}

pub(super) fn assert_insufficient(script: &str, reason: &str) {
    let judgement = judged(script);
    assert_eq!(judgement.verdict(), Verdict::NoVerdict, "{judgement:?}");
    assert!(
        judgement
            .insufficient
            .iter()
            .any(|why| why.contains(reason)),
        "{judgement:?}"
    );
}

pub(super) fn assert_valid(script: &str) {
    let judgement = judged(script);
    assert_eq!(judgement.verdict(), Verdict::Valid, "{judgement:?}");
}

fn event(index: u64, line: &str) -> Event {
    let (said, answer) = match line.split_once(" =") {
        Some((said, answer)) => (said, Some(answer)),
        None => (line, None),
    };
    let words: Vec<&str> = said.split_whitespace().collect();
    let kind = match words[1] {
        ">" => Kind::Invoke,
        "ok" => Kind::Ok,
        "fail" => Kind::Fail,
        "info" => Kind::Info,
        other => panic!("{other} in {line:?}"),
    };
    Event {
        index,
        time_ns: index,
        process: Process::Client(number(words[0])),
        kind,
        op: op(words[2], &words[3..], answer),
        error: None,
    }
}

fn op(f: &str, words: &[&str], answer: Option<&str>) -> Op {
    let with = |prefix: &str| words.iter().find_map(|word| word.strip_prefix(prefix));
    let is = |word: &str| words.contains(&word);
    let (entries, end) = answer.map(entries).unzip();
    match f {
        "append" | "resend" => {
            let append = Append {
                key: words[0].to_owned(),
                producer: words[1].to_owned(),
                seq: number(words[2]),
                v: number(words[3]),
                epoch: words[4..]
                    .iter()
                    .find_map(|word| word.strip_prefix('e'))
                    .map(number),
                batch: words[4..]
                    .iter()
                    .find_map(|word| word.strip_prefix('b'))
                    .map(number),
                offset: with("@").map(number),
            };
            if f == "append" {
                Op::Append(append)
            } else {
                Op::Resend(append)
            }
        }
        "read" => Op::Read(Read {
            key: words[0].to_owned(),
            from: number(words[1]),
            node: None,
            given_up: is("given-up"),
            entries,
            end,
        }),
        "stale" => Op::StaleRead(StaleRead {
            key: words[0].to_owned(),
            from: number(words[1]),
            min_offset: number(words[2]),
            node: None,
            entries,
            end,
        }),
        "poll" => Op::Poll(Poll {
            key: words[0].to_owned(),
            sub: words[1].to_owned(),
            entries,
        }),
        "open" => Op::Open(Open {
            producer: words[0].to_owned(),
            epoch: words.get(1).map(|epoch| number(epoch)),
            last: words.get(2).map(|last| number(last)),
            fresh: words.get(1).map(|_| is("fresh")),
        }),
        "claim" => Op::Claim(Claim {
            key: words[0].to_owned(),
            player: words[1].to_owned(),
            limit: with("limit=").map(number),
            won: (is("won") || is("lost")).then(|| is("won")),
            winner: None,
        }),
        "who" => Op::Who(Who {
            key: words[0].to_owned(),
            winners: answer.map(|names| names.split_whitespace().map(str::to_owned).collect()),
        }),
        other => panic!("unknown {other}"),
    }
}

fn entries(text: &str) -> (Vec<(u64, u64)>, u64) {
    let entries: Vec<(u64, u64)> = text
        .split_whitespace()
        .filter_map(|word| word.split_once(':'))
        .map(|(offset, value)| (number(offset), number(value)))
        .collect();
    let last = entries.iter().map(|(offset, _)| offset + 1).max();
    let end = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("end="));
    let end = end.map_or(last.unwrap_or_default(), number);
    (entries, end)
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}
