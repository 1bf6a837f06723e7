//! Whole histories: generated from a correct log, which have to pass, and the
//! same with one answer falsified, which must not.

use proptest::prelude::*;

use super::*;
use crate::history::{Append, Event, Fault, Kind, Op, Open, Phase, Poll, Process, Read, StaleRead};

pub(super) const MINIMUM: Minimum = Minimum {
    ok_ops: 0,
    faults: 0,
};

/// What one client does next: begins something, lets it happen, or ends it.
#[derive(Debug, Clone, Copy)]
struct Step {
    client: usize,
    choice: u8,
}

/// A log that does what it promises, and clients whose operations overlap.
#[derive(Default)]
struct World {
    events: Vec<Event>,
    log: Vec<Append>,
    clients: Vec<Client>,
    next_process: u64,
    next_value: u64,
    /// What the one subscription has been given.
    polled: usize,
    /// Whether a client polls: a subscription belongs to one at a time.
    polling: bool,
}

#[derive(Default)]
struct Client {
    process: u64,
    producer: u64,
    seq: u64,
    acknowledged: Option<Append>,
    open: Option<(Op, Option<Op>)>,
}

impl World {
    fn new(clients: usize) -> Self {
        let mut world = Self::default();
        for _ in 0..clients {
            let process = world.number();
            world.clients.push(Client {
                process,
                producer: process,
                ..Client::default()
            });
        }
        world
    }

    fn number(&mut self) -> u64 {
        self.next_process += 1;
        self.next_process - 1
    }

    fn push(&mut self, process: Process, kind: Kind, op: Op) {
        let index = self.events.len() as u64;
        self.events.push(Event {
            index,
            time_ns: index,
            process,
            kind,
            op,
            error: None,
        });
    }

    fn step(&mut self, step: Step) {
        let client = &self.clients[step.client];
        match &client.open {
            None => self.begin(step),
            Some((_, None)) if step.choice < 200 => self.happen(step.client),
            Some((_, None)) => self.end_unanswered(step),
            Some((_, Some(_))) if step.choice < 230 => self.end(step.client),
            Some((_, Some(_))) => self.lose_answer(step.client),
        }
    }

    fn begin(&mut self, step: Step) {
        let length = self.log.len() as u64;
        let client = &mut self.clients[step.client];
        let resend = client.acknowledged.clone().filter(|_| step.choice % 8 == 7);
        let op = match step.choice % 8 {
            0..4 => {
                client.seq += 1;
                self.next_value += 1;
                Op::Append(Append {
                    key: "h".to_owned(),
                    producer: format!("p{}", client.producer),
                    seq: client.seq,
                    v: self.next_value,
                    epoch: None,
                    batch: None,
                    offset: None,
                })
            }
            4 => Op::StaleRead(StaleRead {
                key: "h".to_owned(),
                from: length / 2,
                min_offset: length,
                ..StaleRead::default()
            }),
            5 if !self.polling => {
                self.polling = true;
                Op::Poll(Poll {
                    key: "h".to_owned(),
                    sub: "s".to_owned(),
                    entries: None,
                })
            }
            _ => Op::Read(Read {
                key: "h".to_owned(),
                from: u64::from(step.choice) % (length + 1),
                ..Read::default()
            }),
        };
        let op = resend.map_or(op, Op::Resend).invocation();
        client.open = Some((op.clone(), None));
        let process = Process::Client(client.process);
        self.push(process, Kind::Invoke, op);
    }

    fn happen(&mut self, client: usize) {
        let Some((op, answer @ None)) = &mut self.clients[client].open else {
            return;
        };
        let mut answered = op.clone();
        let end = self.log.len() as u64;
        let entries = |from: usize| {
            (from..self.log.len())
                .map(|offset| (offset as u64, self.log[offset].v))
                .collect::<Vec<_>>()
        };
        match &mut answered {
            Op::Append(append) => {
                append.offset = Some(end);
                self.log.push(append.clone());
            }
            Op::Resend(resend) => {
                let first = self.log.iter().position(|append| append.v == resend.v);
                resend.offset = first.map(|offset| offset as u64);
            }
            Op::Read(Read {
                from,
                entries: e,
                end: at,
                ..
            })
            | Op::StaleRead(StaleRead {
                from,
                entries: e,
                end: at,
                ..
            }) => {
                *e = Some(entries(usize::try_from(*from).expect("small")));
                *at = Some(end);
            }
            Op::Poll(poll) => {
                poll.entries = Some(entries(self.polled));
                self.polled = self.log.len();
            }
            _ => {}
        }
        *answer = Some(answered);
    }

    fn end(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let Some((_, Some(answer))) = client.open.take() else {
            return;
        };
        match &answer {
            Op::Append(append) => client.acknowledged = Some(append.clone()),
            Op::Poll(_) => self.polling = false,
            _ => {}
        }
        let process = Process::Client(client.process);
        self.push(process, Kind::Ok, answer);
    }

    /// It has happened, and nobody is told. A subscription's answer is not lost
    /// but comes with the next.
    fn lose_answer(&mut self, client: usize) {
        if matches!(self.clients[client].open, Some((Op::Poll(_), _))) {
            return self.end(client);
        }
        self.end_unknown(client);
    }

    /// It has not happened: refused, or nobody knows.
    fn end_unanswered(&mut self, step: Step) {
        if step.choice.is_multiple_of(2) {
            return self.end_unknown(step.client);
        }
        let client = &mut self.clients[step.client];
        let Some((op, _)) = client.open.take() else {
            return;
        };
        match op {
            Op::Append(_) => client.seq -= 1,
            Op::Poll(_) => self.polling = false,
            _ => {}
        }
        let process = Process::Client(client.process);
        self.push(process, Kind::Fail, op);
    }

    fn end_unknown(&mut self, client: usize) {
        let number = self.number();
        let client = &mut self.clients[client];
        let Some((op, _)) = client.open.take() else {
            return;
        };
        if matches!(op, Op::Poll(_)) {
            self.polling = false;
        }
        let process = Process::Client(client.process);
        *client = Client {
            process: number,
            producer: number,
            ..Client::default()
        };
        self.push(process, Kind::Info, op);
    }

    /// The whole read and the drained subscription at the end.
    fn finish(mut self) -> Vec<Event> {
        for client in 0..self.clients.len() {
            self.happen(client);
            self.end(client);
        }
        let process = Process::Client(self.number());
        let client = self.clients.len();
        for op in [
            Op::Read(Read {
                key: "h".to_owned(),
                ..Read::default()
            }),
            Op::Poll(Poll {
                key: "h".to_owned(),
                sub: "s".to_owned(),
                entries: None,
            }),
        ] {
            self.push(process, Kind::Invoke, op.clone());
            self.clients.push(Client {
                open: Some((op, None)),
                ..Client::default()
            });
            self.happen(client);
            let answer = self.clients.pop().and_then(|client| client.open);
            if let Some((_, Some(answer))) = answer {
                self.push(process, Kind::Ok, answer);
            }
        }
        self.events
    }
}

pub(super) fn valid_history() -> impl Strategy<Value = Vec<Event>> {
    let step = (0..4_usize, any::<u8>()).prop_map(|(client, choice)| Step { client, choice });
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut world = World::new(4);
        for step in steps {
            world.step(step);
        }
        world.finish()
    })
}

/// Falsifies one answer, if there is one at or after `at` that can be.
fn falsified(events: &[Event], at: prop::sample::Index, how: u8) -> Option<Vec<Event>> {
    let mut events = events.to_vec();
    let answers: Vec<usize> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.kind == Kind::Ok)
        .filter(|(_, event)| match &event.op {
            Op::Append(_) | Op::Resend(_) => true,
            Op::Read(Read { entries, .. }) | Op::StaleRead(StaleRead { entries, .. }) => {
                entries.as_ref().is_some_and(|entries| !entries.is_empty())
            }
            _ => false,
        })
        .map(|(position, _)| position)
        .collect();
    if answers.is_empty() {
        return None;
    }
    let position = answers[at.index(answers.len())];
    match &mut events[position].op {
        Op::Append(op) | Op::Resend(op) => {
            op.offset = op.offset.map(|offset| offset + 1);
        }
        Op::Read(Read {
            entries: Some(entries),
            ..
        })
        | Op::StaleRead(StaleRead {
            entries: Some(entries),
            ..
        }) => {
            let last = entries.len() - 1;
            match how % 4 {
                // A value that nobody has sent.
                0 => entries[last].1 += 1_000_000,
                // A gap.
                1 => drop(entries.remove(0)),
                2 => entries.push(entries[last]),
                // Another order, or a gap at the end.
                _ if last > 0 => {
                    let first = entries[0].1;
                    entries[0].1 = entries[last].1;
                    entries[last].1 = first;
                }
                _ => drop(entries.pop()),
            }
        }
        _ => {}
    }
    Some(events)
}

proptest! {
    #[test]
    fn a_log_that_keeps_its_promise_passes(events in valid_history()) {
        let judgement = judge(&History::new(events).expect("sound"), MINIMUM);
        prop_assert_eq!(judgement.verdict(), Verdict::Valid, "{:?}", judgement);
    }

    #[test]
    fn one_false_answer_does_not(
        events in valid_history(),
        at in any::<prop::sample::Index>(),
        how in any::<u8>(),
    ) {
        if let Some(events) = falsified(&events, at, how) {
            let judgement = judge(&History::new(events).expect("sound"), MINIMUM);
            prop_assert_eq!(judgement.verdict(), Verdict::Invalid);
        }
    }
}

#[test]
fn a_run_that_did_too_little_has_no_verdict() {
    let fault = |phase| Event {
        index: 0,
        time_ns: 0,
        process: Process::Nemesis,
        kind: Kind::Info,
        op: Op::Fault(Fault {
            name: "kill".to_owned(),
            phase,
            nodes: vec![1],
            detail: None,
        }),
        error: None,
    };
    let history = |events: Vec<Event>| {
        let numbered = (0..)
            .zip(events)
            .map(|(index, event)| Event { index, ..event });
        History::new(numbered.collect()).expect("sound")
    };
    let minimum = Minimum {
        ok_ops: 1,
        faults: 1,
    };
    let only_healed = judge(&history(vec![fault(Phase::Stop)]), minimum);
    assert_eq!(only_healed.verdict(), Verdict::NoVerdict);
    assert_eq!(only_healed.insufficient.len(), 2);
    let of_client = |kind, op| Event {
        process: Process::Client(0),
        kind,
        op,
        ..fault(Phase::Start)
    };
    let opened = Op::Open(Open {
        producer: "p".to_owned(),
        epoch: Some(1),
        last: Some(0),
        fresh: Some(true),
    });
    let enough = history(vec![
        fault(Phase::Start),
        of_client(Kind::Invoke, opened.invocation()),
        of_client(Kind::Ok, opened),
        fault(Phase::Stop),
    ]);
    let judgement = judge(&enough, minimum);
    assert_eq!(judgement.verdict(), Verdict::Valid, "{judgement:?}");
    assert_eq!(judgement.counts.faults_landed(), 1);
    assert_eq!(judgement.counts.total().ok, 1);
}
