//! The kinds of faults, and what they are called.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Halves,
    IsolateLeader,
    Asymmetric,
    Bridge,
    Flapping,
    Loss,
    Delay,
    ResetConnections,
    LateBytes,
    Kill,
    PowerCut,
    TornWrite,
    TornWriteAll,
    KillMajority,
    PowerCutAll,
    KillAll,
    Pause,
    PauseLeader,
    SlowDisk,
    StalledDisk,
    FailedSync,
    ClockJump,
    ClockDrift,
    Restart,
    TransferLeader,
    Snapshot,
    Drain,
    ClientCrash,
    Member,
    OtherRelease,
    Finalize,
}

/// A drain that an operator was asked for, once it has come about.
pub(in crate::sim) const DRAIN: &str = "drain";
/// A feature level that an operator has put in force.
pub(in crate::sim) const FINALIZE: &str = "finalize";
/// A node that was started under another release than before.
pub(in crate::sim) const OTHER_RELEASE: &str = "other_release";
/// A sync of a disk that has failed.
pub(in crate::sim) const FAILED_SYNC: &str = "failed_sync";
/// A member that was added, promoted or removed.
pub(in crate::sim) const MEMBER: &str = "member";
/// A node that was told to stop, and has.
pub(in crate::sim) const RESTART: &str = "restart";
/// A snapshot that was asked for, and taken.
pub(in crate::sim) const SNAPSHOT: &str = "snapshot";
/// A leader that has given its place to another.
pub(in crate::sim) const TRANSFER_LEADER: &str = "transfer_leader";

pub(super) const ISOLATE_LEADER: (Kind, &str) = (Kind::IsolateLeader, "isolate_leader");

pub(super) const KINDS: [(Kind, &str); 31] = [
    (Kind::Halves, "halves"),
    ISOLATE_LEADER,
    (Kind::Asymmetric, "asymmetric"),
    (Kind::Bridge, "bridge"),
    (Kind::Flapping, "flapping"),
    (Kind::Loss, "loss"),
    (Kind::Delay, "delay"),
    (Kind::ResetConnections, "reset_connections"),
    (Kind::LateBytes, "late_bytes"),
    (Kind::Kill, "kill"),
    (Kind::PowerCut, "power_cut"),
    (Kind::TornWrite, "torn_write"),
    (Kind::TornWriteAll, "torn_write_all"),
    (Kind::KillMajority, "kill_majority"),
    (Kind::PowerCutAll, "power_cut_all"),
    (Kind::KillAll, "kill_all"),
    (Kind::Pause, "pause"),
    (Kind::PauseLeader, "pause_leader"),
    (Kind::SlowDisk, "slow_disk"),
    (Kind::StalledDisk, "stalled_disk"),
    (Kind::FailedSync, FAILED_SYNC),
    (Kind::ClockJump, "clock_jump"),
    (Kind::ClockDrift, "clock_drift"),
    (Kind::Restart, RESTART),
    (Kind::TransferLeader, TRANSFER_LEADER),
    (Kind::Snapshot, SNAPSHOT),
    (Kind::Drain, DRAIN),
    (Kind::ClientCrash, "client_crash"),
    (Kind::Member, MEMBER),
    (Kind::OtherRelease, OTHER_RELEASE),
    (Kind::Finalize, FINALIZE),
];

impl Kind {
    /// Whether it is one of worlds that are being upgraded alone.
    pub(super) fn upgrades(self) -> bool {
        matches!(self, Self::OtherRelease | Self::Finalize)
    }
}

/// What every kind of fault is called.
pub(in crate::sim) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(_, name)| name)
}
