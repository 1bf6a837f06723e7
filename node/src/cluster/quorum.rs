//! Whether a change of the voters leaves a cluster that can go on.
//!
//! Pure: given who votes before and after, and who answers now.

use std::collections::BTreeSet;
use std::fmt;

use crate::raft::NodeId;

/// Voters of whom too few answer: what a change would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumLoss {
    /// Who would have to agree.
    pub voters: BTreeSet<NodeId>,
    /// Those of them that do not answer.
    pub silent: BTreeSet<NodeId>,
    /// How many of the voters must answer.
    pub needed: usize,
}

impl QuorumLoss {
    /// How many of the voters answer.
    pub fn answering(&self) -> usize {
        self.voters.len() - self.silent.len()
    }
}

impl fmt::Display for QuorumLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "of the voters {} only {} would answer and {} are needed: until more of {} answer, nothing is acknowledged, no leader is elected, and this change is not finished either",
            list(&self.voters),
            self.answering(),
            self.needed,
            list(&self.silent),
        )
    }
}

/// Ids, comma separated.
pub(super) fn list(ids: &BTreeSet<NodeId>) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

/// Whether both `before` and `after`, the voters of a change, have a quorum
/// among those who are `answering`: a change is committed by both.
///
/// # Errors
/// The first of the two that has none.
pub fn keeps_quorum(
    before: &BTreeSet<NodeId>,
    after: &BTreeSet<NodeId>,
    answering: &BTreeSet<NodeId>,
) -> Result<(), QuorumLoss> {
    for voters in [before, after] {
        let silent: BTreeSet<NodeId> = voters.difference(answering).copied().collect();
        let loss = QuorumLoss {
            voters: voters.clone(),
            silent,
            needed: voters.len() / 2 + 1,
        };
        if loss.answering() < loss.needed {
            return Err(loss);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(ids: [NodeId; N]) -> BTreeSet<NodeId> {
        BTreeSet::from(ids)
    }

    fn judge<const B: usize, const A: usize, const W: usize>(
        before: [NodeId; B],
        after: [NodeId; A],
        answering: [NodeId; W],
    ) -> Result<(), (usize, usize)> {
        keeps_quorum(&set(before), &set(after), &set(answering))
            .map_err(|loss| (loss.answering(), loss.needed))
    }

    #[test]
    fn changes_while_all_answer_are_allowed() {
        assert_eq!(judge([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]), Ok(()));
        assert_eq!(judge([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4]), Ok(()));
        assert_eq!(judge([1, 2], [1], [1, 2]), Ok(()));
        assert_eq!(judge([1], [1, 2], [1, 2]), Ok(()));
    }

    #[test]
    fn a_dead_voter_can_be_removed_and_a_live_one_can_not() {
        assert_eq!(judge([1, 2, 3], [1, 2], [1, 2]), Ok(()));
        assert_eq!(judge([1, 2, 3], [1, 3], [1, 2]), Err((1, 2)));
    }

    #[test]
    fn a_new_voter_makes_up_for_a_dead_one() {
        assert_eq!(judge([1, 2, 3], [1, 2, 3, 4], [1, 2, 4]), Ok(()));
        assert_eq!(judge([1, 2, 3, 4], [1, 2, 4], [1, 2, 4]), Ok(()));
        // A silent one does not: two of the four would have to be three.
        assert_eq!(judge([1, 2, 3], [1, 2, 3, 4], [1, 2]), Err((2, 3)));
    }

    #[test]
    fn of_an_even_number_more_than_half_are_needed() {
        assert_eq!(judge([1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3]), Ok(()));
        assert_eq!(judge([1, 2, 3, 4, 5], [1, 2, 4, 5], [1, 2, 3]), Err((2, 3)));
    }

    #[test]
    fn without_a_quorum_now_nothing_can_be_changed() {
        assert_eq!(judge([1, 2, 3], [1], [1]), Err((1, 2)));
    }

    /// Against counting quorums one by one, for every case of up to six nodes.
    #[test]
    fn it_agrees_with_looking_for_a_quorum() {
        let subset = |mask: u32| -> BTreeSet<NodeId> {
            (0..6u32)
                .filter(|bit| mask >> bit & 1 == 1)
                .map(NodeId::from)
                .collect()
        };
        let has_quorum = |voters: u32, answering: u32| {
            (0..64u32).any(|quorum| {
                quorum & !(voters & answering) == 0 && 2 * quorum.count_ones() > voters.count_ones()
            })
        };
        for before in 1..64 {
            for bit in 0..6 {
                let after = before ^ (1 << bit);
                if after == 0 {
                    continue;
                }
                for answering in 0..64 {
                    let expected = has_quorum(before, answering) && has_quorum(after, answering);
                    let judged = keeps_quorum(&subset(before), &subset(after), &subset(answering));
                    assert_eq!(judged.is_ok(), expected, "{before} {after} {answering}");
                }
            }
        }
    }

    #[test]
    fn the_loss_is_spelled_out() {
        let loss = keeps_quorum(&set([1, 2, 3]), &set([1, 3]), &set([1, 2])).expect_err("loss");
        let words = loss.to_string();
        assert!(words.contains("of the voters 1, 3 only 1 would answer and 2 are needed"));
        assert!(words.contains("until more of 3 answer, nothing is acknowledged"));
    }
}
