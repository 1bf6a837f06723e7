//! Replicas whose digests differ from this node's (I7).
//!
//! A replica that differs from its leader stops by itself. When it is the
//! leader that is wrong, every other replica does, and the leader would go on
//! alone with a state that nobody shares: so replicas tell the leader what they
//! have come to, and a node that a quorum contradicts stops as well.

use std::collections::{BTreeMap, BTreeSet};

use huntlog_machine::{Digest, DigestCheck};
use tokio::sync::watch;

use crate::raft::NodeId;

/// A replica that came to another digest than this node, at one log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The log index; the replicas parted there or before.
    pub log_index: u64,
    /// This node's digest.
    pub ours: Digest,
    /// The other's.
    pub theirs: Digest,
}

/// More than half of the voters have come to other digests than this node.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a quorum contradicts this node: nodes {voters:?} of partition {partition} have other digests at log index {index} (here {ours}); this node's state is wrong, the log is not, and nothing that was acknowledged is lost: start every node again; if it stops at an entry that carries this node's digest, set raft.ignore_digests_through as it says", index = .at.log_index, ours = .at.ours
)]
pub struct QuorumContradicts {
    /// The partition.
    pub partition: u32,
    /// The voters that differ.
    pub voters: Vec<NodeId>,
    /// What the last of them said.
    pub at: Contradiction,
}

/// Who contradicts this node, since it started.
#[derive(Debug)]
pub(super) struct Contradictions {
    seen: watch::Sender<BTreeMap<NodeId, Contradiction>>,
}

impl Default for Contradictions {
    fn default() -> Self {
        Self {
            seen: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl Contradictions {
    /// Compares what `node` has come to with `ours`, this node's digest at the
    /// same index if it is known.
    pub(super) fn compare(&self, node: NodeId, theirs: DigestCheck, ours: Option<Digest>) {
        let Some(ours) = ours else { return };
        let agrees = ours == theirs.digest;
        self.seen.send_if_modified(|seen| {
            if agrees {
                // A node that was replaced, or has restarted on the right state.
                return seen.remove(&node).is_some();
            }
            let contradiction = Contradiction {
                log_index: theirs.index,
                ours,
                theirs: theirs.digest,
            };
            tracing::error!(
                node,
                log_index = contradiction.log_index,
                %contradiction.ours,
                %contradiction.theirs,
                "a replica has come to another state than this node"
            );
            seen.insert(node, contradiction);
            true
        });
    }

    /// Waits until a quorum of `voters` contradicts this node.
    pub(super) async fn by_quorum(
        &self,
        partition: u32,
        voters: impl Fn() -> BTreeSet<NodeId>,
    ) -> QuorumContradicts {
        let mut seen = self.seen.subscribe();
        loop {
            if let Some(found) = quorum(partition, &seen.borrow_and_update(), &voters()) {
                return found;
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn quorum(
    partition: u32,
    seen: &BTreeMap<NodeId, Contradiction>,
    voters: &BTreeSet<NodeId>,
) -> Option<QuorumContradicts> {
    let differ: Vec<NodeId> = seen
        .keys()
        .filter(|id| voters.contains(id))
        .copied()
        .collect();
    let at = *seen.get(differ.last()?)?;
    (differ.len() > voters.len() / 2).then_some(QuorumContradicts {
        partition,
        voters: differ,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 16])
    }

    fn contradictions(of: &[NodeId]) -> Contradictions {
        let contradictions = Contradictions::default();
        for node in of {
            let theirs = DigestCheck {
                index: 7,
                digest: digest(2),
            };
            contradictions.compare(*node, theirs, Some(digest(1)));
        }
        contradictions
    }

    fn quorum_of(contradictions: &Contradictions, voters: &[NodeId]) -> Option<Vec<NodeId>> {
        let voters = voters.iter().copied().collect();
        quorum(0, &contradictions.seen.borrow(), &voters).map(|found| found.voters)
    }

    #[test]
    fn a_minority_that_differs_is_not_a_quorum() {
        let seen = contradictions(&[2]);
        assert_eq!(quorum_of(&seen, &[1, 2, 3]), None);
        assert_eq!(quorum_of(&contradictions(&[2, 3]), &[1, 2, 3, 4, 5]), None);
    }

    #[test]
    fn more_than_half_of_the_voters_is() {
        let seen = contradictions(&[2, 3]);
        assert_eq!(quorum_of(&seen, &[1, 2, 3]), Some(vec![2, 3]));
        assert_eq!(quorum_of(&contradictions(&[]), &[]), None);
    }

    #[test]
    fn learners_do_not_count() {
        let seen = contradictions(&[2, 4, 5]);
        assert_eq!(quorum_of(&seen, &[1, 2, 3]), None);
    }

    #[test]
    fn what_can_not_be_compared_contradicts_nobody() {
        let seen = Contradictions::default();
        let theirs = DigestCheck {
            index: 7,
            digest: digest(2),
        };
        seen.compare(2, theirs, None);
        seen.compare(3, theirs, None);
        assert_eq!(quorum_of(&seen, &[1, 2, 3]), None);
    }

    #[test]
    fn a_replaced_node_that_agrees_contradicts_no_longer() {
        let seen = contradictions(&[2, 3]);
        let agrees = DigestCheck {
            index: 9,
            digest: digest(1),
        };
        seen.compare(3, agrees, Some(digest(1)));
        assert_eq!(quorum_of(&seen, &[1, 2, 3]), None);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_the_quorum() {
        let seen = contradictions(&[2]);
        let waiting = seen.by_quorum(4, || [1, 2, 3].into());
        let theirs = DigestCheck {
            index: 8,
            digest: digest(2),
        };
        let speaking = async { seen.compare(3, theirs, Some(digest(1))) };
        let (found, ()) = tokio::join!(waiting, speaking);
        assert_eq!((found.partition, found.voters), (4, vec![2, 3]));
        assert_eq!(found.at.log_index, 8);
    }
}
