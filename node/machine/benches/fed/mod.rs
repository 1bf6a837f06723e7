//! A machine under load, for the bench of apply and the example that weighs
//! sessions.
#![allow(dead_code, reason = "each of the two uses a part of it")]

use bytes::Bytes;
use huntlog_machine::{
    Applied, Batch, Clue, CommandResult, EncodedCommand, EntryBuilder, Event, EventKind,
    HuntDefinition, Limits, LogId, Machine, answer_hash, encode_batch, encode_open_session,
};

/// A machine, and the log it is fed.
pub struct Fed {
    pub machine: Machine,
    index: u64,
}

impl Fed {
    pub fn new() -> Self {
        Self {
            machine: Machine::new(0, Limits::default()),
            index: 0,
        }
    }

    pub fn entry(&self, commands: &[EncodedCommand]) -> Bytes {
        let mut entry = EntryBuilder::new(self.index, self.machine.digest());
        commands.iter().for_each(|command| entry.push(command));
        entry.finish()
    }

    pub fn apply(&mut self, entry: &Bytes) -> Applied {
        let log_id = LogId {
            term: 1,
            node_id: 1,
            index: self.index,
        };
        self.index += 1;
        self.machine.apply(log_id, entry).expect("a sound log")
    }

    /// Opens sessions, and returns the epoch of each.
    pub fn open(&mut self, names: &[String]) -> Vec<u64> {
        let mut epochs = Vec::new();
        for names in names.chunks(4_096) {
            let commands: Vec<_> = names
                .iter()
                .map(|name| encode_open_session(name, name.as_bytes()))
                .collect();
            let entry = self.entry(&commands);
            for result in self.apply(&entry).results {
                let CommandResult::SessionOpened { epoch, .. } = result else {
                    panic!("{result:?}");
                };
                epochs.push(epoch);
            }
        }
        epochs
    }

    /// Makes hunts `h0`, `h1`, ... and runs them.
    pub fn start_hunts(&mut self, hunts: usize) {
        let epoch = self.open(&["organiser".into()])[0];
        let mut events = Vec::new();
        for hunt in 0..hunts {
            let clue = Clue {
                id: "c".into(),
                answer_hashes: vec![answer_hash(b"", "never")],
                ..Clue::default()
            };
            let definition = HuntDefinition {
                clues: vec![clue],
                ..HuntDefinition::default()
            };
            events.push(event(
                hunt,
                "",
                EventKind::HuntCreated(Box::new(definition)),
            ));
            events.push(event(hunt, "", EventKind::HuntStarted));
        }
        let entry = self.entry(&[encode_batch(&batch("organiser", epoch, 1, events))]);
        self.apply(&entry);
    }
}

pub fn event(hunt: usize, player: &str, kind: EventKind) -> Event {
    Event {
        hunt: format!("h{hunt}"),
        player: player.into(),
        occurred_at: None,
        kind,
    }
}

pub fn batch(session: &str, epoch: u64, sequence: u64, events: Vec<Event>) -> Batch {
    Batch {
        session: session.into(),
        epoch,
        sequence,
        expected: Vec::new(),
        events,
    }
}

pub fn report(hunt: usize, player: &str) -> Event {
    let kind = EventKind::Custom {
        type_name: "position".into(),
        payload: Bytes::from_static(&[7; 232]),
    };
    event(hunt, player, kind)
}

pub fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|session| format!("session-{session}"))
        .collect()
}
