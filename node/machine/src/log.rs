//! Positions in the log, and the two kinds of time.

use std::fmt;

/// The position of a log entry, and the leader that proposed it.
///
/// Raft, section 5.3: an index and a term name one entry for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// That leader's node id.
    pub node_id: u64,
    /// The entry's position in its partition's log.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.term, self.node_id, self.index)
    }
}

/// A client's time, since 1970-01-01T00:00:00Z. Recorded, never decided upon,
/// except for a hunt's `starts_at` and `ends_at`, which the log's time is
/// compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// The first log time (milliseconds since 1970) that is not before this.
    ///
    /// Times before 1970 give 0, times too late for the log's clock `u64::MAX`.
    #[must_use]
    pub fn due_ms(self) -> u64 {
        let millis = i128::from(self.seconds) * 1_000 + i128::from(self.nanos.div_ceil(1_000_000));
        u64::try_from(millis.max(0)).unwrap_or(u64::MAX)
    }
}
