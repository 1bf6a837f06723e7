//! Mistakes that replicated logs are known to make, put back on purpose to prove
//! that the harness notices them.
//!
//! Each stands as one `if is_planted(..)` at the place where it would be made.
//! With the feature `planted-bugs` one of them can be chosen, once for the whole
//! process. Without it [`is_planted`] is the constant `false`, and the compiler
//! leaves nothing of any of them.

#[cfg(feature = "planted-bugs")]
mod chosen;

#[cfg(feature = "planted-bugs")]
pub use chosen::{AlreadyPlanted, is_planted, plant, wall_clock_ms};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// An append to the log is reported as durable before it is.
    AcknowledgeBeforeSync,
    /// A batch that was applied is applied again.
    NoDedup,
    /// A snapshot is written without the sessions.
    SnapshotWithoutSessions,
    /// Whatever a node starts from, its table of sessions is empty.
    DedupWipedByRestart,
    /// A node answers linearizable reads from what it has, and asks nobody.
    NoReadIndex,
    /// A leader gives read indexes without asking whether it still leads.
    DeposedLeaderReads,
    /// A duplicate is told what would become of it now.
    OutcomesNotRecorded,
    /// The appends of an epoch that was superseded are applied.
    FencedEpochAccepted,
    /// Sessions idle by the clock of the node instead of the log's.
    ExpiryByWallClock,
    /// Cutting off a deposed leader's entries is not written to disk.
    TruncationNotPersisted,
    /// A vote is not written to disk.
    VoteNotPersisted,
    /// What apply decides depends on the order of a hash map.
    HashMapIterated,
    /// A subscription that is made again, at whatever node, is one event too far.
    SubscriptionSkips,
    /// One player more wins a limited treasure.
    ClaimCountedTwice,
    /// What a feature level brings is taken and applied before that level is in
    /// force.
    AppliedBelowLevel,
    /// The feature level is that of the node's release instead of the state's.
    LevelOfTheRelease,
    /// The digest covers the feature level before the level that brings this.
    DigestCoversTooEarly,
}

impl Bug {
    /// All there are.
    pub const ALL: [Self; 17] = [
        Self::AcknowledgeBeforeSync,
        Self::NoDedup,
        Self::SnapshotWithoutSessions,
        Self::DedupWipedByRestart,
        Self::NoReadIndex,
        Self::DeposedLeaderReads,
        Self::OutcomesNotRecorded,
        Self::FencedEpochAccepted,
        Self::ExpiryByWallClock,
        Self::TruncationNotPersisted,
        Self::VoteNotPersisted,
        Self::HashMapIterated,
        Self::SubscriptionSkips,
        Self::ClaimCountedTwice,
        Self::AppliedBelowLevel,
        Self::LevelOfTheRelease,
        Self::DigestCoversTooEarly,
    ];

    /// What it is called on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Self::NoDedup => "no-dedup",
            Self::SnapshotWithoutSessions => "snapshot-without-sessions",
            Self::DedupWipedByRestart => "dedup-wiped-by-restart",
            Self::NoReadIndex => "no-read-index",
            Self::DeposedLeaderReads => "deposed-leader-reads",
            Self::OutcomesNotRecorded => "outcomes-not-recorded",
            Self::FencedEpochAccepted => "fenced-epoch-accepted",
            Self::ExpiryByWallClock => "expiry-by-wall-clock",
            Self::TruncationNotPersisted => "truncation-not-persisted",
            Self::VoteNotPersisted => "vote-not-persisted",
            Self::HashMapIterated => "hash-map-iterated",
            Self::SubscriptionSkips => "subscription-skips",
            Self::ClaimCountedTwice => "claim-counted-twice",
            Self::AppliedBelowLevel => "applied-below-level",
            Self::LevelOfTheRelease => "level-of-the-release",
            Self::DigestCoversTooEarly => "digest-covers-too-early",
        }
    }
}

/// No bug has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBug {
    name: String,
}

impl std::error::Error for UnknownBug {}

impl std::fmt::Display for UnknownBug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = Bug::ALL.map(Bug::name).join(", ");
        write!(f, "there is no bug \"{}\"; known: {known}", self.name)
    }
}

impl std::str::FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        let found = Self::ALL.into_iter().find(|bug| bug.name() == name);
        found.ok_or_else(|| UnknownBug {
            name: name.to_owned(),
        })
    }
}

/// Whether `bug` is planted: never, in a build without bugs.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}

/// The clock that [`Bug::ExpiryByWallClock`] looks at; a build without bugs has
/// none to offer.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
#[inline(always)]
pub const fn wall_clock_ms() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(bug));
        }
        let error = "none".parse::<Bug>().expect_err("there is no such bug");
        assert!(error.to_string().contains("no-dedup"), "{error}");
    }
}
