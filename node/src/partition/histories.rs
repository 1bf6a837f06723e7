//! How far back the other nodes' histories reach.
//!
//! A node that joined by a snapshot, or whose retention has given up more than
//! another's, does not have every event that the cluster still has. Nodes tell
//! each other the earliest offset that can be read from them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits;
use crate::raft::{MemberNode, NodeId};

/// What is known of one node.
#[derive(Debug, Clone)]
struct Known {
    node: MemberNode,
    earliest_offset: u64,
    at: Instant,
}

/// The earliest offset of each other node that said so lately.
#[derive(Debug, Clone, Default)]
pub struct Histories {
    known: BTreeMap<NodeId, Known>,
}

impl Histories {
    /// `id` can be read from `earliest_offset` on.
    pub(super) fn note(&mut self, id: NodeId, node: MemberNode, earliest_offset: u64, at: Instant) {
        let known = Known {
            node,
            earliest_offset,
            at,
        };
        self.known.insert(id, known);
    }

    /// Without those that have been silent for long at `now`.
    pub(super) fn fresh(&self, now: Instant) -> Self {
        let heard = |known: &Known| now.duration_since(known.at) <= limits::CLOCK_FRESH;
        Self {
            known: self
                .known
                .iter()
                .filter(|(_, known)| heard(known))
                .map(|(id, known)| (*id, known.clone()))
                .collect(),
        }
    }

    /// Another node that has the events from `offset` on: of several the one
    /// that was heard of last.
    pub fn holder_of(&self, offset: u64) -> Option<(NodeId, MemberNode)> {
        self.known
            .iter()
            .filter(|(_, known)| known.earliest_offset <= offset)
            .max_by_key(|(_, known)| known.at)
            .map(|(id, known)| (*id, known.node.clone()))
    }

    /// The earliest offset that any of them has.
    pub fn earliest(&self) -> Option<u64> {
        self.known.values().map(|known| known.earliest_offset).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: &str) -> MemberNode {
        MemberNode {
            client_address: address.to_owned(),
            ..MemberNode::default()
        }
    }

    #[test]
    fn whoever_has_it_and_was_heard_of_last_is_asked() {
        let start = Instant::now();
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        let mut histories = Histories::default();
        histories.note(1, node("a"), 0, at(0));
        histories.note(2, node("b"), 100, at(8));
        histories.note(3, node("c"), 50, at(5));
        assert_eq!(histories.earliest(), Some(0));
        assert_eq!(histories.holder_of(10).map(|(id, _)| id), Some(1));
        assert_eq!(histories.holder_of(60).map(|(id, _)| id), Some(3));
        assert_eq!(histories.holder_of(100).map(|(id, _)| id), Some(2));
        // The first was heard of too long ago.
        let later = histories.fresh(at(11));
        assert_eq!(later.holder_of(10), None);
        assert_eq!(later.earliest(), Some(50));
        assert_eq!(Histories::default().earliest(), None);
    }
}
