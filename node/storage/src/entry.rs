//! What the log holds: entries, their ids, and votes.

use bytes::Bytes;
use serde::Serialize;
use std::fmt;

/// Names one log entry for ever: the leader that proposed it and its index.
///
/// Two entries with the same id are the same entry (Raft, section 5.3, "Log Matching"). Ordered by leader, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Node id of that leader.
    pub node_id: u64,
    /// Position in the partition's log.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}.{}", self.term, self.node_id, self.index)
    }
}

/// A node's vote: whom it follows, and whether a quorum confirmed that leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Vote {
    /// Term voted in.
    pub term: u64,
    /// Node voted for.
    pub node_id: u64,
    /// Whether a quorum granted the vote, that is, whether the candidate became leader.
    pub committed: bool,
}

/// One log entry; the payload is opaque to storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The entry's id.
    pub id: LogId,
    /// The entry's bytes, at most [`crate::limits::ENTRY_BYTES_MAX`].
    pub payload: Bytes,
}
