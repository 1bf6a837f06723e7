//! A follower whose connection to the leader breaks stands for election as soon
//! as the leader's lease is over, without the election timer on top of it.
//!
//! The end of a leader's process breaks its connections at once, and silence would
//! only show it once the timer has run out. It is no more than a hint: while the
//! lease lasts, here or at a quorum, nobody grants a vote (Raft dissertation,
//! sections 4.2.3 and 9.6), so a leader that only lost a connection stays. When
//! nothing breaks, as in a partition, the election timer does what it always does.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::Instant;

use super::Partition;
use crate::raft::{RaftTimings, Vote};

/// When a follower stands for election after a connection has broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct SuccessionTimings {
    /// The lease of a leader at its followers.
    lease: Duration,
    /// Candidates stand one such time after another, so that they do not split
    /// the vote: an election among nodes that are not further apart than a
    /// heartbeat allows is over by then.
    turn: Duration,
    /// After the lease and this, the election timer can have run out.
    timer: Duration,
}

impl From<RaftTimings> for SuccessionTimings {
    fn from(timings: RaftTimings) -> Self {
        Self {
            lease: Duration::from_millis(timings.election_max_ms),
            turn: Duration::from_millis(timings.heartbeat_ms),
            timer: Duration::from_millis(timings.election_min_ms),
        }
    }
}

impl SuccessionTimings {
    /// How long after the last contact with the leader the candidate stands that
    /// comes after `others`. The others' lease began with the same heartbeats, and
    /// a quarter of one leaves it the time to end.
    fn due(self, others: usize) -> Duration {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        self.lease + self.turn / 4 + self.turn.saturating_mul(others)
    }
}

impl Partition {
    /// Stands for election whenever the connection breaks that the leader was heard on
    /// last, and it is not heard any more. Ends with Raft.
    pub async fn succeed_leaders(&self) {
        let mut leader = self.peer_raft.leader_connection();
        loop {
            let heard_on = leader.borrow_and_update().clone();
            if let Some(mut connection) = heard_on {
                tokio::select! {
                    // Nothing is sent on it.
                    _ = connection.end.changed() => {
                        if self.succeed(connection.leader).await.is_none() {
                            return;
                        }
                    }
                    changed = leader.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            }
            // The first leader, the next, or the same again on another connection.
            if leader.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stands for election in the place of the leader of `lost`, until there is
    /// another vote, or the leader is back, or the election timer takes over;
    /// `None` when Raft has stopped.
    async fn succeed(&self, lost: Vote) -> Option<()> {
        let timings = self.succession;
        let broke = Instant::now();
        while self.follows(&lost) && !self.is_aside() {
            let Some(silence) = self.leader_contact_age().await else {
                return Some(());
            };
            let due = timings.due(self.candidates_before(&lost));
            if silence < due {
                if broke.elapsed() >= due {
                    return Some(());
                }
                tokio::time::sleep(due - silence).await;
                continue;
            }
            if silence >= timings.lease + timings.timer {
                return Some(());
            }
            tracing::info!(
                partition = self.id,
                leader = lost.leader_id.node_id,
                silent_ms = silence.as_millis(),
                "the leader's connection broke and its lease is over: standing for election"
            );
            self.raft.trigger().elect(true).await.ok()?;
            tokio::time::sleep(timings.turn.saturating_mul(2)).await;
        }
        Some(())
    }

    /// Whether this node is a voter and knows of no vote after `leader`.
    fn follows(&self, leader: &Vote) -> bool {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        server.vote == *leader
            && server
                .membership_config
                .voter_ids()
                .any(|id| id == self.node_id)
    }

    /// How many voters stand before this one when the leader of `lost` is gone.
    fn candidates_before(&self, lost: &Vote) -> usize {
        let aside = self.aside.others();
        let gone = lost.leader_id.node_id;
        let before = |id: &u64| *id < self.node_id && *id != gone && !aside.contains(id);
        self.voters().iter().filter(|id| before(id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two that stand at once split the vote, and an attempt within the lease is
    /// wasted.
    #[test]
    fn candidates_stand_one_after_the_other_once_the_lease_is_over() {
        let timings = SuccessionTimings::from(RaftTimings {
            heartbeat_ms: 40,
            election_min_ms: 150,
            election_max_ms: 300,
        });
        let due = |others| timings.due(others).as_millis();
        assert_eq!([due(0), due(1), due(2)], [310, 350, 390]);
    }
}
