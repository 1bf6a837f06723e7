//! How far back the other members' histories reach.
//!
//! A node that joined by a snapshot, or whose retention has given up more than
//! another's, does not have every event that the cluster still has. Nodes tell
//! each other the earliest offset that can be read from them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::raft::{MemberNode, NodeId};

/// What a member has said last.
#[derive(Debug, Clone, Copy)]
struct Known {
    earliest_offset: u64,
    at: Instant,
}

/// The earliest offset of each other node that has said so. It only rises, so
/// what was said long ago still tells what a node does not have.
#[derive(Debug, Default)]
pub(super) struct Histories {
    known: BTreeMap<NodeId, Known>,
}

/// Where events can be read that this node does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryElsewhere {
    /// Another member keeps them.
    At {
        /// Its id.
        id: NodeId,
        /// Where it is.
        node: MemberNode,
    },
    /// Nobody does.
    Nowhere {
        /// The earliest offset that any of the other members keeps; `None` when
        /// there are no others.
        earliest: Option<u64>,
    },
    /// Not every member has said yet what it keeps.
    Unknown,
}

impl Histories {
    /// `id` can be read from `earliest_offset` on.
    pub(super) fn note(&mut self, id: NodeId, earliest_offset: u64, at: Instant) {
        let known = Known {
            earliest_offset,
            at,
        };
        self.known.insert(id, known);
    }

    /// Which of the other members has the events from `offset` on: of several
    /// the one that was heard of last.
    pub(super) fn find(
        &self,
        offset: u64,
        others: &BTreeMap<NodeId, MemberNode>,
    ) -> HistoryElsewhere {
        let holder = others
            .iter()
            .filter_map(|(id, node)| Some((id, node, self.known.get(id)?)))
            .filter(|(_, _, known)| known.earliest_offset <= offset)
            .max_by_key(|(_, _, known)| known.at);
        if let Some((id, node, _)) = holder {
            return HistoryElsewhere::At {
                id: *id,
                node: node.clone(),
            };
        }
        let said: Option<Vec<u64>> = others
            .keys()
            .map(|id| self.known.get(id).map(|known| known.earliest_offset))
            .collect();
        said.map_or(HistoryElsewhere::Unknown, |said| {
            HistoryElsewhere::Nowhere {
                earliest: said.into_iter().min(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId) -> MemberNode {
        MemberNode {
            client_address: format!("node{id}:7650"),
            ..MemberNode::default()
        }
    }

    fn others(ids: &[NodeId]) -> BTreeMap<NodeId, MemberNode> {
        ids.iter().map(|id| (*id, node(*id))).collect()
    }

    fn at(id: NodeId) -> HistoryElsewhere {
        HistoryElsewhere::At { id, node: node(id) }
    }

    #[test]
    fn whoever_has_it_and_was_heard_of_last_is_asked() {
        let start = Instant::now();
        let later = |seconds| start + std::time::Duration::from_secs(seconds);
        let mut histories = Histories::default();
        histories.note(1, 0, start);
        histories.note(2, 100, later(8));
        histories.note(3, 50, later(5));
        let members = others(&[1, 2, 3]);
        assert_eq!(histories.find(10, &members), at(1));
        assert_eq!(histories.find(60, &members), at(3));
        assert_eq!(histories.find(100, &members), at(2));
        // One that is no member any more is not asked.
        let left = others(&[2, 3]);
        let nowhere = HistoryElsewhere::Nowhere { earliest: Some(50) };
        assert_eq!(histories.find(10, &left), nowhere);
    }

    #[test]
    fn nothing_is_gone_while_a_member_has_not_said() {
        let mut histories = Histories::default();
        histories.note(2, 100, Instant::now());
        assert_eq!(
            histories.find(10, &others(&[2, 3])),
            HistoryElsewhere::Unknown
        );
        histories.note(3, 70, Instant::now());
        let nowhere = HistoryElsewhere::Nowhere { earliest: Some(70) };
        assert_eq!(histories.find(10, &others(&[2, 3])), nowhere);
        let alone = HistoryElsewhere::Nowhere { earliest: None };
        assert_eq!(histories.find(10, &others(&[])), alone);
    }
}
