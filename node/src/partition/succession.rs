//! A follower whose connection to the leader breaks asks for votes as soon as the
//! leader's lease is over, without the election timer on top of it.
//!
//! The end of a leader's process breaks its connections at once, and silence would
//! only show it once the timer has run out. It is no more than a hint: while the
//! lease lasts, here or at a quorum, nobody grants a vote (Raft dissertation,
//! sections 4.2.3 and 9.6), so a leader that only lost a connection stays. When
//! nothing breaks, as in a partition, the election timer does what it always does.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::Instant;

use super::Partition;
use crate::raft::{NodeId, RaftTimings, Vote};

/// When a follower asks for votes after a connection has broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct SuccessionTimings {
    /// The lease of a leader at its followers.
    lease: Duration,
    /// Candidates ask one such time after another, so that they do not split the
    /// vote: an election among nodes that are not further apart than a heartbeat
    /// allows is over by then.
    turn: Duration,
}

impl From<RaftTimings> for SuccessionTimings {
    fn from(timings: RaftTimings) -> Self {
        Self {
            lease: Duration::from_millis(timings.election_max_ms),
            turn: Duration::from_millis(timings.heartbeat_ms),
        }
    }
}

impl SuccessionTimings {
    /// How long after the last contact with the leader the candidate asks that comes
    /// after `others`. The others' lease began with the same heartbeats, and a
    /// quarter of one leaves it the time to end.
    fn due(self, others: usize) -> Duration {
        self.lease + self.turn / 4 + self.turns(others)
    }

    /// How long after it has asked one of `candidates` asks again: each of the others
    /// has its turn in between. One that is alone gives the answers a turn too.
    fn round(self, candidates: usize) -> Duration {
        self.turns(candidates.max(2))
    }

    fn turns(self, count: usize) -> Duration {
        self.turn
            .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

impl Partition {
    /// Asks for votes whenever the connection breaks that the leader was heard on
    /// last, and it is not heard any more. Ends with Raft.
    pub async fn succeed_leaders(&self) {
        let mut metrics = self.raft.server_metrics();
        let raft_ended = async { while metrics.changed().await.is_ok() {} };
        tokio::select! {
            () = raft_ended => {}
            never = self.watch_leader_connections() => match never {},
        }
    }

    async fn watch_leader_connections(&self) -> Infallible {
        const OWN_SENDER: &str = "the sender is this partition's own";
        let mut leader = self.peer_raft.leader_connection();
        loop {
            let heard_on = leader.borrow_and_update().clone();
            if let Some(mut connection) = heard_on {
                tokio::select! {
                    // Nothing is sent on it.
                    _ = connection.end.changed() => self.succeed(connection.vote).await,
                    changed = leader.changed() => {
                        changed.expect(OWN_SENDER);
                        continue;
                    }
                }
            }
            // The first leader, the next, or the same again on another connection.
            leader.changed().await.expect(OWN_SENDER);
        }
    }

    /// Asks for votes in the place of the leader of `lost`, round after round, until
    /// there is another vote or the leader is heard again. While no quorum answers
    /// that has no end, as the election timer has none, which each attempt puts off.
    async fn succeed(&self, lost: Vote) {
        let timings = self.succession;
        let broke = Instant::now();
        let mut begun = false;
        while self.follows(&lost) && !self.is_aside() {
            let candidates = self.candidates(&lost);
            let due = timings.due(candidates.range(..self.node_id).count());
            let Some(silence) = self.leader_contact_age().await else {
                return;
            };
            if silence < due {
                if broke.elapsed() >= due {
                    return;
                }
                tokio::time::sleep(due - silence).await;
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                self.successions_begun.inc();
                tracing::info!(
                    partition = self.id,
                    leader = lost.leader_id.node_id,
                    silent_ms = silence.as_millis(),
                    "the leader's connection broke and its lease is over: asking for votes"
                );
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            tokio::time::sleep(timings.round(candidates.len())).await;
        }
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

    /// The voters that ask for votes when the leader of `lost` is gone, in the order
    /// of their turns.
    fn candidates(&self, lost: &Vote) -> BTreeSet<NodeId> {
        let aside = self.aside.others();
        let mut candidates = self.voters();
        candidates.retain(|id| *id != lost.leader_id.node_id && !aside.contains(id));
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMINGS: RaftTimings = RaftTimings {
        heartbeat_ms: 40,
        election_min_ms: 150,
        election_max_ms: 300,
    };

    /// Two that ask at once split the vote, and an attempt within the lease is
    /// wasted.
    #[test]
    fn candidates_ask_one_after_the_other_once_the_lease_is_over() {
        let timings = SuccessionTimings::from(TIMINGS);
        let due = |others| timings.due(others).as_millis();
        assert_eq!([due(0), due(1), due(2)], [310, 350, 390]);
    }

    #[test]
    fn whoever_asks_again_lets_all_others_ask_first() {
        let timings = SuccessionTimings::from(TIMINGS);
        let attempts = |rank| {
            let first = timings.due(rank);
            [first, first + timings.round(4)].map(|at| at.as_millis())
        };
        let of_four: Vec<_> = (0..4).map(attempts).collect();
        assert_eq!(of_four, [[310, 470], [350, 510], [390, 550], [430, 590]]);
        assert_eq!(timings.round(1), timings.round(2));
    }
}
