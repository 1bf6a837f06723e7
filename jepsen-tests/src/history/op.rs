//! The operations of all workloads. An answer's fields are none while the
//! operation is open, and in an operation that did not come to an answer.

use serde::{Deserialize, Serialize};

/// An operation, or its answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A producer appends one value to a key.
    Append(Append),
    /// A producer sends a batch that was acknowledged once more.
    Resend(Append),
    /// A linearizable read of a key's entries.
    Read(Read),
    /// A read of what one node has.
    StaleRead(StaleRead),
    /// A subscription to a key is asked for what has come since.
    Poll(Poll),
    /// A producer opens its session anew, which fences whoever had it open.
    Open(Open),
    /// A player claims a treasure.
    Claim(Claim),
    /// A linearizable read of who has won a treasure.
    Who(Who),
    /// Something was done to the cluster, or was undone.
    Fault(Fault),
}

/// An append of one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The hunt.
    pub key: String,
    /// The session.
    pub producer: String,
    /// The batch's number in its session, from 1.
    pub seq: u64,
    /// The value, unique in its key.
    pub v: u64,
    /// The opening of the session it was sent under, where sessions are
    /// reopened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How many values its batch has, where that is more than one: all of the
    /// same key, each an operation of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// Answer: its position among the key's entries, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// A linearizable read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The hunt.
    pub key: String,
    /// The first offset wanted.
    pub from: u64,
    /// Which node was asked, if it was a certain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// What is before `from` is kept no more, as the retention says: this is a
    /// read of everything that is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// Answer: (offset, value) from `from` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<(u64, u64)>>,
    /// Answer: how many entries the key had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// A read that asks one node for its own copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaleRead {
    /// The hunt.
    pub key: String,
    /// The first offset wanted.
    pub from: u64,
    /// The node has to have the entries below this one.
    pub min_offset: u64,
    /// Which node was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// Answer: (offset, value) from `from` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<(u64, u64)>>,
    /// Answer: how many entries the node had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// What a subscription has delivered since the poll before. One subscription
/// may go on under several processes; its name tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// The hunt.
    pub key: String,
    /// The subscription.
    pub sub: String,
    /// Answer: (offset, value), as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<(u64, u64)>>,
}

/// A session is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The session.
    pub producer: String,
    /// Answer: its epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Answer: the last sequence that was applied, 0 when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Answer: the cluster knew nothing of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<bool>,
}

/// A claim of a treasure. Each player claims a key at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The treasure.
    pub key: String,
    /// The claimant.
    pub player: String,
    /// How many can win it: 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Answer: the claim was in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub won: Option<bool>,
    /// Answer, where it is known: the first winner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
}

/// A read of a treasure's winners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// The treasure.
    pub key: String,
    /// Answer: the winners, first one first.
    pub winners: Option<Vec<String>>,
}

/// Whether a fault begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has been injected and holds.
    Start,
    /// It has been healed.
    Stop,
}

/// A fault. `name` is the event's `f`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What kind of fault.
    #[serde(skip)]
    pub name: String,
    /// Beginning or end.
    pub phase: Phase,
    /// The nodes that it hit.
    pub nodes: Vec<u64>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Op {
    /// Its name in the format.
    #[must_use]
    pub fn f(&self) -> &str {
        match self {
            Self::Append(_) => "append",
            Self::Resend(_) => "resend",
            Self::Read(_) => "read",
            Self::StaleRead(_) => "stale",
            Self::Poll(_) => "poll",
            Self::Open(_) => "open",
            Self::Claim(_) => "claim",
            Self::Who(_) => "who",
            Self::Fault(fault) => &fault.name,
        }
    }

    /// The answer's fields that are missing, or none.
    pub(super) fn missing_answer(&self) -> Option<&'static str> {
        let missing = |there: bool, name| (!there).then_some(name);
        match self {
            Self::Append(op) | Self::Resend(op) => missing(op.offset.is_some(), "offset"),
            Self::Read(Read { entries, end, .. })
            | Self::StaleRead(StaleRead { entries, end, .. }) => {
                missing(entries.is_some(), "entries").or(missing(end.is_some(), "end"))
            }
            Self::Poll(op) => missing(op.entries.is_some(), "entries"),
            Self::Open(op) => missing(op.epoch.is_some(), "epoch")
                .or(missing(op.last.is_some(), "last"))
                .or(missing(op.fresh.is_some(), "fresh")),
            Self::Claim(op) => missing(op.won.is_some(), "won"),
            Self::Who(op) => missing(op.winners.is_some(), "winner"),
            Self::Fault(_) => None,
        }
    }

    /// The operation as it was invoked: without what an answer adds.
    #[must_use]
    pub fn invocation(&self) -> Self {
        let mut op = self.clone();
        match &mut op {
            Self::Append(op) | Self::Resend(op) => op.offset = None,
            Self::Read(Read { entries, end, .. })
            | Self::StaleRead(StaleRead { entries, end, .. }) => {
                (*entries, *end) = (None, None);
            }
            Self::Poll(op) => op.entries = None,
            Self::Open(op) => (op.epoch, op.last, op.fresh) = (None, None, None),
            Self::Claim(op) => (op.won, op.winner) = (None, None),
            Self::Who(op) => op.winners = None,
            Self::Fault(_) => {}
        }
        op
    }
}
