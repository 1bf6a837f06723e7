//! A replica with its log, and short ways to write commands.

use bytes::Bytes;
use huntlog_machine::{
    Applied, ApplyError, Batch, BatchOutcome, BatchResult, Clue, CommandResult, EncodedCommand,
    EntryBuilder, Event, EventKind, HuntDefinition, Limits, LogId, Machine, Treasure, answer_hash,
    encode_batch, encode_open_session, history,
};

/// A log entry as a node would have it: its bytes (`None`: one of Raft's own),
/// and what apply made of it.
#[derive(Debug, Clone)]
pub struct Logged {
    pub log_id: LogId,
    pub entry: Option<Bytes>,
    pub record: Bytes,
}

/// A machine, and everything it has been fed.
pub struct Replica {
    pub machine: Machine,
    pub log: Vec<Logged>,
    /// What was decided, as text, where a test keeps it.
    pub decided: Vec<String>,
}

impl Replica {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self {
            machine: Machine::new(0, limits),
            log: Vec::new(),
            decided: Vec::new(),
        }
    }

    pub fn next_log_id(&self) -> LogId {
        LogId {
            term: 1,
            node_id: 1,
            index: self.log.len() as u64,
        }
    }

    pub fn apply_entry(&mut self, entry: Bytes) -> Result<Applied, ApplyError> {
        let log_id = self.next_log_id();
        let applied = self.machine.apply(log_id, &entry)?;
        self.log.push(Logged {
            log_id,
            entry: Some(entry),
            record: applied.record.clone(),
        });
        Ok(applied)
    }

    pub fn entry(&self, stamp_ms: u64, commands: &[EncodedCommand]) -> Bytes {
        let mut builder = EntryBuilder::new(stamp_ms, self.machine.digest());
        commands.iter().for_each(|command| builder.push(command));
        let announced = builder.len_bytes();
        let entry = builder.finish();
        assert!((announced..=announced + 20).contains(&entry.len()));
        entry
    }

    pub fn apply(&mut self, stamp_ms: u64, commands: &[EncodedCommand]) -> Applied {
        let entry = self.entry(stamp_ms, commands);
        self.apply_entry(entry).expect("a sound log")
    }

    pub fn blank(&mut self) {
        let log_id = self.next_log_id();
        let applied = self.machine.apply_blank(log_id).expect("the next entry");
        self.log.push(Logged {
            log_id,
            entry: None,
            record: applied.record,
        });
    }

    pub fn open(&mut self, stamp_ms: u64, session: &str, nonce: &str) -> CommandResult {
        let command = encode_open_session(session, nonce.as_bytes());
        self.apply(stamp_ms, &[command]).results.remove(0)
    }

    /// Opens a session that must open, and returns its epoch.
    pub fn epoch(&mut self, session: &str, nonce: &str) -> u64 {
        match self.open(0, session, nonce) {
            CommandResult::SessionOpened { epoch, .. } => epoch,
            result => panic!("{result:?}"),
        }
    }

    pub fn append(&mut self, stamp_ms: u64, batch: &Batch) -> BatchResult {
        match self
            .apply(stamp_ms, &[encode_batch(batch)])
            .results
            .remove(0)
        {
            CommandResult::Batch(result) => result,
            result => panic!("{result:?}"),
        }
    }

    /// What came of `command` in an entry, as the log has it.
    pub fn recorded(&self, log_index: u64, command: &EncodedCommand) -> Option<BatchOutcome> {
        let position = usize::try_from(log_index).expect("a short log");
        let logged = &self.log[position];
        let entry = logged.entry.as_ref().expect("not one of Raft's own");
        history::batch_outcome(log_index, entry, &logged.record, command).expect("sound")
    }

    /// Feeds the same log to another machine, from its position on.
    pub fn replay_into(&self, machine: &mut Machine) {
        let from = machine.last_applied().map_or(0, |last| last.index + 1);
        for logged in self.log.iter().filter(|logged| logged.log_id.index >= from) {
            let applied = match &logged.entry {
                Some(entry) => machine.apply(logged.log_id, entry),
                None => machine.apply_blank(logged.log_id),
            };
            assert_eq!(applied.expect("a sound log").record, logged.record, "I7");
        }
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

pub fn event(hunt: &str, player: &str, kind: EventKind) -> Event {
    Event {
        hunt: hunt.into(),
        player: player.into(),
        occurred_at: None,
        kind,
    }
}

pub fn custom(hunt: &str, payload: &[u8]) -> Event {
    let kind = EventKind::Custom {
        type_name: "position".into(),
        payload: Bytes::copy_from_slice(payload),
    };
    event(hunt, "", kind)
}

pub fn announce(hunt: &str, clue: &str, text: &str) -> Event {
    let (clue, text) = (clue.into(), text.into());
    event(hunt, "", EventKind::Announced { clue, text })
}

pub fn register(hunt: &str, player: &str) -> Event {
    let display_name = player.to_uppercase();
    event(hunt, player, EventKind::PlayerRegistered { display_name })
}

pub fn attempt(hunt: &str, player: &str, clue: &str, answer: &str) -> Event {
    let kind = EventKind::ClueAttempted {
        clue: clue.into(),
        answer: answer.into(),
    };
    event(hunt, player, kind)
}

pub fn claim(hunt: &str, player: &str, treasure: &str) -> Event {
    let treasure = treasure.into();
    event(hunt, player, EventKind::TreasureClaimed { treasure })
}

/// A clue whose answer is its own id.
pub fn clue(id: &str, requires: &[&str]) -> Clue {
    Clue {
        id: id.into(),
        title: format!("clue {id}"),
        requires: requires.iter().map(|&id| id.into()).collect(),
        points: 10,
        answer_salt: Bytes::from_static(b"salt"),
        answer_hashes: vec![answer_hash(b"salt", id)],
        ..Clue::default()
    }
}

pub fn treasure(id: &str, limit: u32, requires: &[&str]) -> Treasure {
    Treasure {
        id: id.into(),
        title: format!("treasure {id}"),
        limit,
        points: 5,
        requires: requires.iter().map(|&id| id.into()).collect(),
    }
}

pub fn create(hunt: &str, definition: HuntDefinition) -> Event {
    event(hunt, "", EventKind::HuntCreated(Box::new(definition)))
}

/// A small hunt: clues `a`, `b` after `a`, `c` after both; one treasure.
pub fn small_definition() -> HuntDefinition {
    HuntDefinition {
        title: "small".into(),
        clues: vec![clue("a", &[]), clue("b", &["a"]), clue("c", &["a", "b"])],
        treasures: vec![treasure("gold", 1, &["a"])],
        ..HuntDefinition::default()
    }
}
