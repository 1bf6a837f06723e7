//! A history's operations, put together and sorted by what they concern.

use std::collections::{BTreeMap, HashMap};

use super::{Invariant, Violation};
use crate::history::{
    Append, Claim, Event, History, Kind, Op, Open, Process, Read, StaleRead, Who,
};

/// An operation: its invocation, its end if it has one, and what it says. What
/// has been answered when it is ok, what was asked otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a, T> {
    pub(super) invoked: u64,
    /// By index; none when its fate is unknown.
    pub(super) ended: Option<(u64, Kind)>,
    pub(super) op: &'a T,
}

impl<T> Operation<'_, T> {
    /// The index of its ok.
    pub(super) fn ok(&self) -> Option<u64> {
        match self.ended {
            Some((index, Kind::Ok)) => Some(index),
            _ => None,
        }
    }

    pub(super) fn failed(&self) -> Option<u64> {
        match self.ended {
            Some((index, Kind::Fail)) => Some(index),
            _ => None,
        }
    }

    /// The events that tell of it.
    pub(super) fn events(&self) -> Vec<u64> {
        let end = self.ended.map(|(index, _)| index);
        [self.invoked].into_iter().chain(end).collect()
    }
}

/// Entries of a key that somebody was shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The event that shows them.
    pub(super) event: u64,
    pub(super) entries: &'a [(u64, u64)],
}

/// A value whose append was answered with an offset: at once, or when its batch
/// was sent again because nobody knew what had become of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledgement<'a> {
    pub(super) invoked: u64,
    pub(super) ok: u64,
    pub(super) op: &'a Append,
    pub(super) offset: u64,
}

/// All that concerns one key of the log workloads.
#[derive(Debug, Default)]
pub(super) struct Key<'a> {
    pub(super) appends: Vec<Operation<'a, Append>>,
    pub(super) resends: Vec<Operation<'a, Append>>,
    pub(super) reads: Vec<Operation<'a, Read>>,
    pub(super) stale_reads: Vec<Operation<'a, StaleRead>>,
    /// What each subscription was given, in order.
    pub(super) subscriptions: BTreeMap<&'a str, Vec<Seen<'a>>>,
    /// All that anybody was shown, in order.
    pub(super) seen: Vec<Seen<'a>>,
    /// The position of each value's append in `appends`.
    by_value: HashMap<u64, usize>,
}

impl<'a> Key<'a> {
    /// Every answer that vouches for a value.
    pub(super) fn acknowledgements(&self) -> impl Iterator<Item = Acknowledgement<'a>> {
        self.appends
            .iter()
            .chain(&self.resends)
            .filter_map(|operation| {
                Some(Acknowledgement {
                    invoked: operation.invoked,
                    ok: operation.ok()?,
                    op: operation.op,
                    offset: operation.op.offset?,
                })
            })
    }

    /// Who appended `value`.
    pub(super) fn append_of(&self, value: u64) -> Option<&Operation<'a, Append>> {
        self.by_value
            .get(&value)
            .map(|&position| &self.appends[position])
    }

    /// The first offset that is still kept, as far as a read has said.
    pub(super) fn first_kept(&self) -> u64 {
        let given_up = self.reads.iter().filter(|read| read.op.given_up);
        given_up.map(|read| read.op.from).max().unwrap_or_default()
    }

    /// The last whole read that began after every append was acknowledged.
    pub(super) fn final_read(&self) -> Option<&Operation<'a, Read>> {
        let last = self.acknowledgements().map(|answer| answer.ok).max();
        self.reads
            .iter()
            .filter(|read| read.ok().is_some() && (read.op.from == 0 || read.op.given_up))
            .filter(|read| last.is_none_or(|last| read.invoked > last))
            .max_by_key(|read| read.invoked)
    }

    /// One offset for each value that anybody has seen or been told of, with the
    /// event that says so first.
    pub(super) fn offsets(&self) -> BTreeMap<u64, (u64, u64)> {
        let mut offsets = BTreeMap::new();
        for seen in &self.seen {
            for &(offset, value) in seen.entries {
                offsets.entry(value).or_insert((offset, seen.event));
            }
        }
        for answer in self.acknowledgements() {
            let place = (answer.offset, answer.ok);
            offsets.entry(answer.op.v).or_insert(place);
        }
        offsets
    }
}

/// All that concerns one treasure.
#[derive(Debug, Default)]
pub(super) struct Treasure<'a> {
    pub(super) claims: Vec<Operation<'a, Claim>>,
    pub(super) whos: Vec<Operation<'a, Who>>,
}

#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) keys: BTreeMap<&'a str, Key<'a>>,
    pub(super) treasures: BTreeMap<&'a str, Treasure<'a>>,
    /// By session.
    pub(super) opens: BTreeMap<&'a str, Vec<Operation<'a, Open>>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let events = history.events();
        let mut index = Self::default();
        for (invocation, end) in pairs(events) {
            index.add(invocation, end);
        }
        for key in index.keys.values_mut() {
            key.seen.sort_by_key(|seen| seen.event);
            for polls in key.subscriptions.values_mut() {
                polls.sort_by_key(|seen| seen.event);
            }
        }
        index
    }

    fn add(&mut self, invocation: &'a Event, end: Option<&'a Event>) {
        let operation = Pair { invocation, end };
        match operation.said() {
            Op::Append(op) => {
                let key = self.keys.entry(&op.key).or_default();
                key.by_value.entry(op.v).or_insert(key.appends.len());
                key.appends.push(operation.of(op));
            }
            Op::Resend(op) => {
                let key = self.keys.entry(&op.key).or_default();
                key.resends.push(operation.of(op));
            }
            Op::Read(op) => {
                let key = self.keys.entry(&op.key).or_default();
                key.seen.extend(operation.seen(op.entries.as_deref()));
                key.reads.push(operation.of(op));
            }
            Op::StaleRead(op) => {
                let key = self.keys.entry(&op.key).or_default();
                key.seen.extend(operation.seen(op.entries.as_deref()));
                key.stale_reads.push(operation.of(op));
            }
            Op::Poll(op) => {
                let key = self.keys.entry(&op.key).or_default();
                let seen = operation.seen(op.entries.as_deref());
                key.seen.extend(seen);
                key.subscriptions.entry(&op.sub).or_default().extend(seen);
            }
            Op::Open(op) => {
                let opens = self.opens.entry(&op.producer).or_default();
                opens.push(operation.of(op));
            }
            Op::Claim(op) => {
                let treasure = self.treasures.entry(&op.key).or_default();
                treasure.claims.push(operation.of(op));
            }
            Op::Who(op) => {
                let treasure = self.treasures.entry(&op.key).or_default();
                treasure.whos.push(operation.of(op));
            }
            Op::Fault(_) => {}
        }
    }
}

#[derive(Clone, Copy)]
struct Pair<'a> {
    invocation: &'a Event,
    end: Option<&'a Event>,
}

impl<'a> Pair<'a> {
    fn said(&self) -> &'a Op {
        match self.end {
            Some(end) if end.kind == Kind::Ok => &end.op,
            _ => &self.invocation.op,
        }
    }

    fn of<T>(&self, op: &'a T) -> Operation<'a, T> {
        let end = self.end.filter(|end| end.kind != Kind::Info);
        Operation {
            invoked: self.invocation.index,
            ended: end.map(|end| (end.index, end.kind)),
            op,
        }
    }

    fn seen(&self, entries: Option<&'a [(u64, u64)]>) -> Option<Seen<'a>> {
        Some(Seen {
            event: self.end?.index,
            entries: entries?,
        })
    }
}

/// The clients' operations, in the order of their invocations.
fn pairs(events: &[Event]) -> Vec<(&Event, Option<&Event>)> {
    let mut pairs: Vec<(&Event, Option<&Event>)> = Vec::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for event in events {
        let Process::Client(number) = event.process else {
            continue;
        };
        if event.kind == Kind::Invoke {
            open.insert(number, pairs.len());
            pairs.push((event, None));
        } else if let Some(position) = open.remove(&number) {
            pairs[position].1 = Some(event);
        }
    }
    pairs
}

/// A violation that these events show.
pub(super) fn violation(
    invariant: Invariant,
    events: impl IntoIterator<Item = u64>,
    what: String,
) -> Violation {
    let mut events: Vec<u64> = events.into_iter().collect();
    events.sort_unstable();
    events.dedup();
    Violation {
        invariant,
        what,
        events,
    }
}
