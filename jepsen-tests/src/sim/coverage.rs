//! What has happened in a run: a run in which nothing did proves nothing.

use std::collections::BTreeMap;

use super::nemesis;

/// Counts of what a run is to be full of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    pub(super) appends: u64,
    /// Those of several events.
    pub(super) batches: u64,
    pub(super) duplicates: u64,
    /// Those that leaders have met, also of those that nobody waits for any more.
    pub(super) duplicates_proposed: u64,
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
    /// Nodes held against their limits.
    pub(super) bounds_judged: u64,
    /// Digests that a second node had too.
    pub(super) states_compared: u64,
    /// Sessions begun anew of which it is known how long they had been idle.
    pub(super) forgettings_judged: u64,
    /// Nodes whose history begins later, held against the retention.
    pub(super) retention_judged: u64,
    /// Nodes read from their first kept offset to the end.
    pub(super) kept_read: u64,
    pub(super) batches_of_forgotten: u64,
    pub(super) reads: u64,
    pub(super) stale_reads: u64,
    pub(super) polls: u64,
    pub(super) claims: u64,
    /// Reads and subscriptions of what the retention has given up.
    pub(super) given_up: u64,
    /// Batches taken of what a feature level brings.
    pub(super) announced: u64,
    /// Those refused, since that level was not in force.
    pub(super) levels_refused: u64,
    /// Leaderships after the first.
    pub(super) leader_changes: u64,
    /// Followers that asked for votes since the leader's connection had broken.
    pub(super) successions: u64,
    pub(super) members_added: u64,
    pub(super) members_promoted: u64,
    pub(super) members_removed: u64,
    /// Batches refused, since they expected another revision than there was.
    pub(super) expectations_failed: u64,
    /// Panics that are not held against the run.
    pub(super) excused_panics: u64,
    pub(super) torn_tails: u64,
    pub(super) frames_rewritten: u64,
    pub(super) snapshots_taken: u64,
    pub(super) snapshots_installed: u64,
    pub(super) log_truncated: u64,
    pub(super) segments_lost: u64,
    pub(super) segments_stalled: u64,
    /// That arrived when their connection was lost to whoever had sent them.
    pub(super) segments_late: u64,
    pub(super) connections_reset: u64,
    pub(super) requests_repeated: u64,
    pub(super) requests_delayed: u64,
    pub(super) requests_lost: u64,
    /// Those that have taken effect, by kind; every kind is there.
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(super) fn new() -> Self {
        Self {
            faults: nemesis::names().map(|name| (name, 0)).collect(),
            ..Self::default()
        }
    }

    /// Faults of all kinds.
    pub(super) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Every count by its name.
    pub(super) fn rows(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> = [
            ("appends", self.appends),
            ("batches", self.batches),
            ("duplicates", self.duplicates),
            ("duplicates_proposed", self.duplicates_proposed),
            ("retried", self.retried),
            ("outcomes_dropped", self.outcomes_dropped),
            ("not_applied", self.not_applied),
            ("unknown", self.unknown),
            ("fenced", self.fenced),
            ("sessions_opened", self.sessions_opened),
            ("sessions_forgotten", self.sessions_forgotten),
            ("sessions_full", self.sessions_full),
            ("disks_judged", self.disks_judged),
            ("bounds_judged", self.bounds_judged),
            ("states_compared", self.states_compared),
            ("forgettings_judged", self.forgettings_judged),
            ("retention_judged", self.retention_judged),
            ("kept_read", self.kept_read),
            ("batches_of_forgotten", self.batches_of_forgotten),
            ("reads", self.reads),
            ("stale_reads", self.stale_reads),
            ("polls", self.polls),
            ("claims", self.claims),
            ("given_up", self.given_up),
            ("announced", self.announced),
            ("levels_refused", self.levels_refused),
            ("leader_changes", self.leader_changes),
            ("successions", self.successions),
            ("members_added", self.members_added),
            ("members_promoted", self.members_promoted),
            ("members_removed", self.members_removed),
            ("expectations_failed", self.expectations_failed),
            ("torn_tails", self.torn_tails),
            ("frames_rewritten", self.frames_rewritten),
            ("snapshots_taken", self.snapshots_taken),
            ("snapshots_installed", self.snapshots_installed),
            ("log_truncated", self.log_truncated),
            ("segments_lost", self.segments_lost),
            ("segments_stalled", self.segments_stalled),
            ("segments_late", self.segments_late),
            ("connections_reset", self.connections_reset),
            ("requests_repeated", self.requests_repeated),
            ("requests_delayed", self.requests_delayed),
            ("requests_lost", self.requests_lost),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        let faults = self.faults.iter();
        rows.extend(faults.map(|(name, count)| (format!("fault_{name}"), *count)));
        // No run has to have any.
        let excused = Some(self.excused_panics).filter(|count| *count > 0);
        rows.extend(excused.map(|count| ("excused_panics".to_owned(), count)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_fault_that_never_landed_has_its_zero() {
        let rows = Coverage::new().rows();
        for name in nemesis::names() {
            assert!(rows.contains(&(format!("fault_{name}"), 0)), "{name}");
        }
    }
}
