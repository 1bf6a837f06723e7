//! What can go wrong, told so that a program knows what to do next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

/// The stable reason of a refusal, as in `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is documented in the contract, as `huntlog.v1.ErrorReason`"
)]
pub enum Reason {
    NoLeader,
    Draining,
    Starting,
    Overloaded,
    SequenceGap,
    Fenced,
    SessionUnknown,
    PayloadMismatch,
    RevisionMismatch,
    Invalid,
    Deadline,
    LeadershipLost,
    NodeFailed,
    SessionsFull,
    OutOfRange,
    NotFound,
    UnknownPartition,
    WrongCluster,
    FeatureLevel,
    /// A change of the members is in the log and not known to be in force.
    ChangeUnfinished,
    /// One this release does not know, or none at all (empty).
    Other(String),
}

impl Reason {
    const KNOWN: [(Reason, &'static str); 20] = [
        (Reason::NoLeader, "NO_LEADER"),
        (Reason::Draining, "DRAINING"),
        (Reason::Starting, "STARTING"),
        (Reason::Overloaded, "OVERLOADED"),
        (Reason::SequenceGap, "SEQUENCE_GAP"),
        (Reason::Fenced, "FENCED"),
        (Reason::SessionUnknown, "SESSION_UNKNOWN"),
        (Reason::PayloadMismatch, "PAYLOAD_MISMATCH"),
        (Reason::RevisionMismatch, "REVISION_MISMATCH"),
        (Reason::Invalid, "INVALID"),
        (Reason::Deadline, "DEADLINE"),
        (Reason::LeadershipLost, "LEADERSHIP_LOST"),
        (Reason::NodeFailed, "NODE_FAILED"),
        (Reason::SessionsFull, "SESSIONS_FULL"),
        (Reason::OutOfRange, "OUT_OF_RANGE"),
        (Reason::NotFound, "NOT_FOUND"),
        (Reason::UnknownPartition, "UNKNOWN_PARTITION"),
        (Reason::WrongCluster, "WRONG_CLUSTER"),
        (Reason::FeatureLevel, "FEATURE_LEVEL"),
        (Reason::ChangeUnfinished, "CHANGE_UNFINISHED"),
    ];

    /// The reason of this name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        Self::KNOWN
            .iter()
            .find(|(_, known)| *known == name)
            .map_or_else(
                || Self::Other(name.to_owned()),
                |(reason, _)| reason.clone(),
            )
    }

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => Self::KNOWN
                .iter()
                .find(|(reason, _)| reason == known)
                .map_or("", |(_, name)| name),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a write that failed has been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It was not, and will not be.
    NotApplied,
    /// It may have been, or may yet be.
    Unknown,
}

/// What a node answered instead of doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The stable reason.
    pub reason: Reason,
    /// The node's words.
    pub message: String,
    /// Whether this attempt was applied. Means nothing for reads.
    pub disposition: Disposition,
    /// When a retry can help, how long to wait before it.
    pub retry_after: Option<Duration>,
    /// What a program needs to go on: "expected", "actual", "leader_address".
    pub metadata: BTreeMap<String, String>,
    /// The fields at fault, with what is wrong about each.
    pub violations: Vec<(String, String)>,
}

impl Refusal {
    /// The number the node gave under this key.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.parse().ok()
    }

    /// Whether it has a reason: what the transport says has none.
    pub(crate) fn has_reason(&self) -> bool {
        !self.reason.as_str().is_empty()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_reason() {
            write!(f, "{}: {}", self.reason, self.message)?;
        } else {
            write!(f, "{:?}: {}", self.code, self.message)?;
        }
        // The message spells out the first few itself.
        let told = |fault: &str| self.message.contains(fault);
        for (field, fault) in self.violations.iter().filter(|(_, fault)| !told(fault)) {
            write!(f, "; {field}: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Why a batch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A node refused it, and trying again cannot help.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// Its time ran out.
    #[error("the deadline passed{}", last_refusal(.last))]
    DeadlineExceeded {
        /// The latest refusal of the session, if any.
        last: Option<Arc<Refusal>>,
    },
    /// The session was opened again elsewhere; this producer cannot append any
    /// more.
    #[error("the session was opened by another producer, which fences this one")]
    Fenced,
    /// The session was idle so long that the cluster has forgotten it.
    #[error("the cluster has forgotten the session, and with it whether this batch was applied")]
    SessionForgotten,
    /// A batch before it, on whose number this one's rests, failed.
    #[error("an earlier batch of the session failed, and this one's sequence was fixed behind it")]
    EarlierBatchFailed,
    /// [`append_at`](crate::Producer::append_at) named a sequence out of turn.
    #[error("sequence {actual} is out of turn: the session's next is {expected}")]
    SequenceNotNext {
        /// The sequence that would be next.
        expected: u64,
        /// The one asked for.
        actual: u64,
    },
    /// The cluster knows less of the session than it has acknowledged. This
    /// must never happen; the cluster's data need looking into.
    #[error(
        "the cluster reports sequence {reported} as the session's last, but had acknowledged {acknowledged}: \
         acknowledged data may be lost; check the nodes' logs before going on"
    )]
    SequenceRegressed {
        /// The highest sequence acknowledged to this producer.
        acknowledged: u64,
        /// What the cluster says now.
        reported: u64,
    },
    /// The batch cannot be valid, and was not sent.
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    /// The producer, or its client, is closed.
    #[error("the producer is closed")]
    Closed,
}

fn last_refusal(last: &Option<Arc<Refusal>>) -> String {
    last.as_ref().map_or_else(
        || ": no node could be reached".to_owned(),
        |refusal| format!("; last refusal: {refusal}"),
    )
}

/// What makes a batch impossible before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// It has no event.
    #[error("a batch needs at least one event")]
    Empty,
    /// It has too many events.
    #[error("{events} events in one batch; at most {max} are allowed")]
    TooManyEvents {
        /// How many it has.
        events: usize,
        /// How many it may have.
        max: usize,
    },
    /// One of its events is too large.
    #[error("event {index} has {bytes} bytes; at most {max} are allowed")]
    EventTooLarge {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its encoded size.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// It is too large as a whole.
    #[error("the batch has {bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

/// A batch that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No event of it was applied, nor will be; it may be submitted anew.
    #[error("not applied: {cause}")]
    NotApplied {
        /// Why.
        cause: Cause,
    },
    /// It may have been applied, or may yet be. Submitting its events anew
    /// could apply them twice: reopen the session and look
    /// ([`Producer::last_sequence`](crate::Producer::last_sequence)), or read
    /// the log back.
    #[error("unknown whether applied: {cause}; do not submit it anew before reading the log back")]
    Unknown {
        /// Why no answer was got.
        cause: Cause,
    },
}

impl AppendError {
    pub(crate) fn new(disposition: Disposition, cause: Cause) -> Self {
        match disposition {
            Disposition::NotApplied => Self::NotApplied { cause },
            Disposition::Unknown => Self::Unknown { cause },
        }
    }

    /// Whether the batch was applied, as far as can be known.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotApplied { .. } => Disposition::NotApplied,
            Self::Unknown { .. } => Disposition::Unknown,
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        match self {
            Self::NotApplied { cause } | Self::Unknown { cause } => cause,
        }
    }
}

/// A call that is not an append and failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A node refused it, and trying again cannot help.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// No node answered in time.
    #[error("no answer within {} ms over {attempts} attempts: {last}", .timeout.as_millis())]
    Unavailable {
        /// The time the call had.
        timeout: Duration,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met. Where that was no node's answer, its message ends
        /// with the answer to an earlier one, if there was any.
        last: Arc<Refusal>,
    },
    /// A node's answer breaks the contract.
    #[error("{node} broke the protocol: {fault}")]
    Protocol {
        /// The node's address.
        node: String,
        /// What is wrong with the answer.
        fault: String,
    },
    /// This client has a living producer of that name, or one whose last
    /// batches are not resolved yet.
    #[error("session {0} is open already in this client")]
    AlreadyOpen(String),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Settings or endpoints that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No endpoint was given.
    #[error("no endpoint given; name at least one node as host:port")]
    NoEndpoint,
    /// An endpoint is not an address.
    #[error("endpoint {endpoint:?} is not of the form host:port")]
    InvalidEndpoint {
        /// As it was given.
        endpoint: String,
    },
    /// An option is outside what can work.
    #[error("{option} is {actual}; {needed}")]
    InvalidOption {
        /// Its name.
        option: &'static str,
        /// As it was given.
        actual: u128,
        /// What it needs to be.
        needed: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_told_once() {
        let refusal = Refusal {
            code: Code::InvalidArgument,
            reason: Reason::Invalid,
            message:
                "the request is not valid: a: an id is needed; and 1 more; nothing was applied"
                    .to_owned(),
            disposition: Disposition::NotApplied,
            retry_after: None,
            metadata: BTreeMap::new(),
            violations: vec![
                ("a".to_owned(), "an id is needed".to_owned()),
                ("b".to_owned(), "7 bytes are too many".to_owned()),
            ],
        };
        let words = refusal.to_string();
        assert_eq!(words.matches("an id is needed").count(), 1, "{words}");
        assert!(words.ends_with("; b: 7 bytes are too many"), "{words}");
    }
}
