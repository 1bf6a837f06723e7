//! The record of what clients asked of a cluster and what it answered: one
//! operation's beginning or end per event, in the order the harness saw them.
//! As a file it is JSON lines with the op maps of Jepsen, so that independent
//! checkers can judge it as well as ours.

mod edn;
mod format;
mod op;
mod recorder;
#[cfg(test)]
mod tests;

pub use edn::EdnForm;
pub use format::{HistoryError, LineFault};
pub use op::{Append, Claim, Fault, Op, Open, Phase, Poll, Read, StaleRead, Who};
pub use recorder::{Client, OpenOp, Recorder};

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// A client, which has at most one operation under way. Its number is not
    /// used again once the fate of one of its operations is unknown.
    Client(u64),
    /// Whoever injects the faults.
    Nemesis,
}

/// What an event says of its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It has happened, with the answer that the event carries.
    Ok,
    /// It has not happened and never will.
    Fail,
    /// It may or may not have happened, or may yet; for the nemesis: something
    /// was done to the cluster.
    Info,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the history, from 0.
    pub index: u64,
    /// Since the start of the run, by the one clock of the harness.
    pub time_ns: u64,
    /// Whose it is.
    pub process: Process,
    /// Beginning or end.
    pub kind: Kind,
    /// Of which operation.
    pub op: Op,
    /// Why it failed or is unknown, for people.
    pub error: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// The history of `events`.
    ///
    /// # Errors
    /// At the first that breaks the format: indexes are 0, 1, 2 and so on, time
    /// does not go back, each process has at most one operation open and none
    /// after one whose fate is unknown, no value is appended to a key twice.
    pub fn new(events: Vec<Event>) -> Result<Self, HistoryError> {
        let mut order = format::Order::default();
        for (position, event) in events.iter().enumerate() {
            order
                .admit(event)
                .map_err(|fault| fault.at(position as u64 + 1))?;
        }
        Ok(Self { events })
    }

    /// Its events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}
