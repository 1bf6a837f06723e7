//! What has happened in a run: a run in which nothing did proves nothing.

use std::collections::BTreeMap;

/// Counts of what a run is to be full of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    pub(super) appends: u64,
    /// Those of several events.
    pub(super) batches: u64,
    pub(super) duplicates: u64,
    pub(super) retried: u64,
    pub(super) outcomes_dropped: u64,
    pub(super) not_applied: u64,
    pub(super) unknown: u64,
    pub(super) fenced: u64,
    pub(super) sessions_opened: u64,
    pub(super) sessions_forgotten: u64,
    /// Openings refused because there were too many.
    pub(super) sessions_full: u64,
    /// Acknowledgements held against the disks.
    pub(super) disks_judged: u64,
    pub(super) batches_of_forgotten: u64,
    pub(super) reads: u64,
    pub(super) stale_reads: u64,
    pub(super) polls: u64,
    pub(super) claims: u64,
    /// Reads and subscriptions of what the retention has given up.
    pub(super) given_up: u64,
    pub(super) leaders: u64,
    pub(super) torn_tails: u64,
    pub(super) frames_rewritten: u64,
    pub(super) snapshots_taken: u64,
    pub(super) snapshots_installed: u64,
    pub(super) log_truncated: u64,
    pub(super) segments_lost: u64,
    pub(super) segments_stalled: u64,
    pub(super) connections_reset: u64,
    pub(super) members_changed: u64,
    pub(super) requests_repeated: u64,
    pub(super) requests_delayed: u64,
    pub(super) requests_lost: u64,
    /// By kind of fault.
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Every count by its name.
    pub(super) fn rows(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> = [
            ("appends", self.appends),
            ("batches", self.batches),
            ("duplicates", self.duplicates),
            ("retried", self.retried),
            ("outcomes_dropped", self.outcomes_dropped),
            ("not_applied", self.not_applied),
            ("unknown", self.unknown),
            ("fenced", self.fenced),
            ("sessions_opened", self.sessions_opened),
            ("sessions_forgotten", self.sessions_forgotten),
            ("sessions_full", self.sessions_full),
            ("disks_judged", self.disks_judged),
            ("batches_of_forgotten", self.batches_of_forgotten),
            ("reads", self.reads),
            ("stale_reads", self.stale_reads),
            ("polls", self.polls),
            ("claims", self.claims),
            ("given_up", self.given_up),
            ("leaders", self.leaders),
            ("torn_tails", self.torn_tails),
            ("frames_rewritten", self.frames_rewritten),
            ("snapshots_taken", self.snapshots_taken),
            ("snapshots_installed", self.snapshots_installed),
            ("log_truncated", self.log_truncated),
            ("segments_lost", self.segments_lost),
            ("segments_stalled", self.segments_stalled),
            ("connections_reset", self.connections_reset),
            ("members_changed", self.members_changed),
            ("requests_repeated", self.requests_repeated),
            ("requests_delayed", self.requests_delayed),
            ("requests_lost", self.requests_lost),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        let faults = self.faults.iter();
        rows.extend(faults.map(|(name, count)| (format!("fault_{name}"), *count)));
        rows
    }
}
