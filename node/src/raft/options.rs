//! The openraft options huntlog runs with, and why.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::limits;

/// The timers of the consensus protocol, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTimings {
    /// How often a leader proves that it lives.
    pub heartbeat_ms: u64,
    /// The shortest time from the end of the leader's lease until a follower asks for
    /// votes.
    pub election_min_ms: u64,
    /// The longest, and the leader's lease as its followers see it.
    pub election_max_ms: u64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a timeout is far below 2^64 ms")
}

/// openraft's validated options for a group of the cluster `cluster_name`.
///
/// # Errors
/// When the timers do not fit together.
pub fn raft_options(cluster_name: &str, timings: RaftTimings) -> Result<Arc<Config>, ConfigError> {
    let options = Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: timings.heartbeat_ms,
        // None is left out because replication was answered: a follower watches the
        // connection of the last heartbeat, and all followers' leases begin with the
        // same ones (`partition::succession`).
        heartbeat_min_interval: Some(0),
        election_timeout_min: timings.election_min_ms,
        election_timeout_max: timings.election_max_ms,
        // A node that was cut off must not depose a working leader with the
        // term it reached alone (Raft dissertation, section 9.6).
        enable_pre_vote: Some(true),
        // With a lazily saved `committed`, a restarted leader that goes on
        // without an election could miss what it had committed.
        enable_leader_restore: Some(false),
        // Snapshots go by bytes and time, which openraft does not know.
        snapshot_policy: SnapshotPolicy::Never,
        // Purging goes by retention, which openraft does not know either.
        max_in_snapshot_log_to_keep: u64::MAX,
        // A follower is sent entries, not a snapshot, as long as the leader
        // still has the entries.
        replication_lag_threshold: u64::MAX,
        max_payload_entries: limits::REPLICATION_ENTRIES_MAX,
        max_append_entries: Some(limits::REPLICATION_ENTRIES_MAX),
        // The time a whole snapshot transfer may take; the transfer itself
        // fails after a shorter silence.
        install_snapshot_timeout: millis(limits::SNAPSHOT_TRANSFER_TIMEOUT),
        backoff: format!("{}ms", limits::PEER_BACKOFF.as_millis()),
        ..Config::default()
    };
    Ok(Arc::new(options.validate()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults of these are unsafe or ruinous here, and nothing else would
    /// notice that one of them had come back.
    #[test]
    fn what_openraft_would_do_by_itself_is_turned_off() {
        let timings = RaftTimings {
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
        };
        let options = raft_options("c", timings).expect("sound");
        assert_eq!(options.enable_pre_vote, Some(true));
        assert_eq!(options.enable_leader_restore, Some(false));
        assert_eq!(options.heartbeat_min_interval, Some(0));
        assert_eq!(options.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(options.max_in_snapshot_log_to_keep, u64::MAX);
        assert_eq!(options.replication_lag_threshold, u64::MAX);
        assert_ne!(options.allow_log_reversion, Some(true));
    }
}
