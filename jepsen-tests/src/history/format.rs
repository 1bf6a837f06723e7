//! The file: one JSON object a line, read strictly.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::op::{Append, Fault, Op, Who};
use super::{Event, History, Kind, Process};

/// Why something is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line breaks the format.
    #[error("line {line} is no event of a history: {fault}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// There is no line.
    #[error("it is empty; a history has one JSON object a line")]
    Empty,
    /// It can not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It is not what the format says.
    #[error("{0}")]
    Json(String),
    /// There is no such operation.
    #[error("unknown f {0:?}; known are append, resend, read, stale, poll, open, claim and who")]
    UnknownOperation(String),
    /// An answer lacks a field.
    #[error("an ok of {f} needs {field:?} in its value")]
    MissingAnswer {
        /// The operation.
        f: String,
        /// The field.
        field: &'static str,
    },
    /// Lines are missing, or in another order.
    #[error("index {found} where {expected} is next")]
    Index {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Time goes back.
    #[error("time {found} is before the last line's {last}")]
    Time {
        /// The line before.
        last: u64,
        /// This one.
        found: u64,
    },
    /// A second operation of a process that has one.
    #[error("process {0} invokes while an operation of it is open")]
    StillOpen(u64),
    /// An end without a beginning.
    #[error("process {0} has no operation open that could end")]
    NotOpen(u64),
    /// Another operation ends than the one that is open.
    #[error("process {0} ends another operation than it began")]
    OtherOperation(u64),
    /// A process whose operation's fate is unknown goes on.
    #[error("process {0} goes on after an info; a client goes on under a new number")]
    Retired(u64),
    /// Two appends that readers can not tell apart.
    #[error("value {v} is appended to {key} twice; each value of a key is its own")]
    ValueTwice {
        /// The key.
        key: String,
        /// The value.
        v: u64,
    },
    /// The nemesis does what clients do, or the other way round.
    #[error("only the nemesis has faults, and its events are of type info")]
    NotOfNemesis,
}

impl LineFault {
    pub(super) fn at(self, line: u64) -> HistoryError {
        HistoryError::Line { line, fault: self }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    index: u64,
    time: u64,
    process: Value,
    r#type: Type,
    f: String,
    value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// The format's form of [`Who`]: `winner` is there in every answer, null when
/// nobody has won, and `winners` when more than one can.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoValue {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    winner: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    winners: Option<Vec<String>>,
}

impl History {
    /// Reads a history.
    ///
    /// # Errors
    /// With the number of the first line that is not one.
    pub fn read(from: impl BufRead) -> Result<Self, HistoryError> {
        let mut order = Order::default();
        let mut events = Vec::new();
        for (position, line) in from.lines().enumerate() {
            let event = parse(&line?).and_then(|event| {
                order.admit(&event)?;
                Ok(event)
            });
            events.push(event.map_err(|fault| fault.at(position as u64 + 1))?);
        }
        if events.is_empty() {
            return Err(HistoryError::Empty);
        }
        Ok(Self { events })
    }

    /// Writes it as [`Self::read`] takes it.
    ///
    /// # Errors
    /// When `to` does not take it.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, &line_of(event))?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

fn parse(text: &str) -> Result<Event, LineFault> {
    let line: Line = from_json(serde_json::from_str(text))?;
    let process = match &line.process {
        Value::String(name) if name == "nemesis" => Process::Nemesis,
        number => Process::Client(number.as_u64().ok_or_else(|| {
            LineFault::Json(format!(
                "process {number} is neither a number nor \"nemesis\""
            ))
        })?),
    };
    let kind = match line.r#type {
        Type::Invoke => Kind::Invoke,
        Type::Ok => Kind::Ok,
        Type::Fail => Kind::Fail,
        Type::Info => Kind::Info,
    };
    let op = match process {
        Process::Nemesis => Op::Fault(Fault {
            name: line.f,
            ..value(line.value)?
        }),
        Process::Client(_) => client_op(&line.f, line.value)?,
    };
    Ok(Event {
        index: line.index,
        time_ns: line.time,
        process,
        kind,
        op,
        error: line.error,
    })
}

fn client_op(f: &str, json: Value) -> Result<Op, LineFault> {
    Ok(match f {
        "append" => Op::Append(value(json)?),
        "resend" => Op::Resend(value(json)?),
        "read" => Op::Read(value(json)?),
        "stale" => Op::StaleRead(value(json)?),
        "poll" => Op::Poll(value(json)?),
        "open" => Op::Open(value(json)?),
        "claim" => Op::Claim(value(json)?),
        "who" => {
            // serde takes a null for a field that is not there; here they differ.
            let answered = json.get("winner").is_some();
            let who: WhoValue = value(json)?;
            let winner = match who.winner {
                None | Some(Value::Null) => None,
                Some(Value::String(winner)) => Some(winner),
                Some(other) => {
                    return Err(LineFault::Json(format!("winner {other} is no player")));
                }
            };
            let winners = who
                .winners
                .unwrap_or_else(|| winner.clone().into_iter().collect());
            if winners.first() != winner.as_ref() {
                return Err(LineFault::Json(
                    "winner is not the first of winners".to_owned(),
                ));
            }
            Op::Who(Who {
                key: who.key,
                winners: answered.then_some(winners),
            })
        }
        other => return Err(LineFault::UnknownOperation(other.to_owned())),
    })
}

fn value<T: DeserializeOwned>(json: Value) -> Result<T, LineFault> {
    from_json(serde_json::from_value(json))
}

fn from_json<T>(parsed: serde_json::Result<T>) -> Result<T, LineFault> {
    // serde_json counts lines within what it was given, which is always one.
    parsed.map_err(|error| {
        let text = error.to_string();
        let words = text.split(" at line ").next().unwrap_or(&text);
        LineFault::Json(words.to_owned())
    })
}

/// Its line's content, for people: who, what of it, and the value as JSON.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Process::Client(number) => write!(f, "process {number} ")?,
            Process::Nemesis => write!(f, "nemesis ")?,
        }
        let kind = match self.kind {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        };
        write!(f, "{kind} {} {}", self.op.f(), value_of(&self.op))?;
        match &self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

fn line_of(event: &Event) -> Line {
    Line {
        index: event.index,
        time: event.time_ns,
        process: match event.process {
            Process::Client(number) => number.into(),
            Process::Nemesis => "nemesis".into(),
        },
        r#type: match event.kind {
            Kind::Invoke => Type::Invoke,
            Kind::Ok => Type::Ok,
            Kind::Fail => Type::Fail,
            Kind::Info => Type::Info,
        },
        f: event.op.f().to_owned(),
        value: value_of(&event.op),
        error: event.error.clone(),
    }
}

fn value_of(op: &Op) -> Value {
    let json = match op {
        Op::Append(op) | Op::Resend(op) => serde_json::to_value(op),
        Op::Read(op) => serde_json::to_value(op),
        Op::StaleRead(op) => serde_json::to_value(op),
        Op::Poll(op) => serde_json::to_value(op),
        Op::Open(op) => serde_json::to_value(op),
        Op::Claim(op) => serde_json::to_value(op),
        Op::Who(op) => Ok(who_value(op)),
        Op::Fault(op) => serde_json::to_value(op),
    };
    json.expect("plain structures with text keys are JSON")
}

fn who_value(who: &Who) -> Value {
    let mut map = Map::new();
    map.insert("key".to_owned(), who.key.clone().into());
    if let Some(winners) = &who.winners {
        let first = winners.first().cloned();
        map.insert("winner".to_owned(), first.map_or(Value::Null, Value::from));
        if winners.len() > 1 {
            map.insert("winners".to_owned(), winners.clone().into());
        }
    }
    map.into()
}

/// What the events so far allow the next one to be.
#[derive(Debug, Default)]
pub(super) struct Order {
    next_index: u64,
    last_time_ns: u64,
    processes: HashMap<u64, State>,
    /// The values that were appended, by key.
    appended: HashMap<String, HashSet<u64>>,
}

#[derive(Debug)]
enum State {
    Idle,
    Open(Op),
    Retired,
}

impl Order {
    pub(super) fn admit(&mut self, event: &Event) -> Result<(), LineFault> {
        if event.index != self.next_index {
            return Err(LineFault::Index {
                expected: self.next_index,
                found: event.index,
            });
        }
        if event.time_ns < self.last_time_ns {
            return Err(LineFault::Time {
                last: self.last_time_ns,
                found: event.time_ns,
            });
        }
        self.next_index += 1;
        self.last_time_ns = event.time_ns;
        let is_fault = matches!(event.op, Op::Fault(_));
        match event.process {
            Process::Nemesis if is_fault && event.kind == Kind::Info => Ok(()),
            Process::Client(number) if !is_fault => self.step(number, event),
            _ => Err(LineFault::NotOfNemesis),
        }
    }

    fn step(&mut self, number: u64, event: &Event) -> Result<(), LineFault> {
        let state = self.processes.entry(number).or_insert(State::Idle);
        match (&*state, event.kind) {
            (State::Retired, _) => return Err(LineFault::Retired(number)),
            (State::Open(_), Kind::Invoke) => return Err(LineFault::StillOpen(number)),
            (State::Idle, Kind::Invoke) => {
                *state = State::Open(event.op.clone());
                return self.appended_once(&event.op);
            }
            (State::Idle, _) => return Err(LineFault::NotOpen(number)),
            (State::Open(op), _) if event.op.invocation() != *op => {
                return Err(LineFault::OtherOperation(number));
            }
            (State::Open(_), Kind::Ok) => {
                if let Some(field) = event.op.missing_answer() {
                    let f = event.op.f().to_owned();
                    return Err(LineFault::MissingAnswer { f, field });
                }
            }
            (State::Open(_), _) => {}
        }
        *state = match event.kind {
            Kind::Info => State::Retired,
            _ => State::Idle,
        };
        Ok(())
    }

    fn appended_once(&mut self, op: &Op) -> Result<(), LineFault> {
        let Op::Append(Append { key, v, .. }) = op else {
            return Ok(());
        };
        let values = self.appended.entry(key.clone()).or_default();
        if values.insert(*v) {
            return Ok(());
        }
        let key = key.clone();
        Err(LineFault::ValueTwice { key, v: *v })
    }
}
