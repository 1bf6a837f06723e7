//! A node follows leaderships in rising order, across crashes too: its vote is
//! synced before it is acted upon (Raft, figure 2: persistent state; DESIGN 6).
//!
//! openraft orders leaderships by term, then by node id, so that a term can have
//! more than one, each above the one before (`leader_id_adv`); log ids carry both.

use std::collections::{BTreeMap, BTreeSet};

use super::Said;

/// What has been seen of leaderships.
#[derive(Debug, Default)]
pub(in crate::sim) struct LeadersRise {
    /// The highest term, and the highest leadership, of each node.
    highest: BTreeMap<u64, (u64, (u64, u64))>,
    /// Term and node.
    led: BTreeSet<(u64, u64)>,
}

impl LeadersRise {
    pub(in crate::sim) fn see(&mut self, said: &Said) -> Result<(), String> {
        if said.leader == said.node {
            self.led.insert((said.term, said.node));
        }
        let (term, leadership) = self.highest.entry(said.node).or_default();
        if said.term < *term {
            return Err(format!(
                "node {} went back from term {term} to {}",
                said.node, said.term
            ));
        }
        *term = said.term;
        // 0 is nobody: it has voted, and waits.
        if said.leader != 0 {
            let follows = (said.term, said.leader);
            if follows < *leadership {
                return Err(format!(
                    "node {} went back from the leader {} of term {} to {}",
                    said.node, leadership.1, leadership.0, said.leader
                ));
            }
            *leadership = follows;
        }
        Ok(())
    }

    /// Leaderships seen.
    pub(in crate::sim) fn leaderships(&self) -> u64 {
        self.led.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(node: u64, term: u64, leader: u64) -> Said {
        Said {
            node,
            term,
            leader,
            ..Said::default()
        }
    }

    #[test]
    fn a_term_that_falls_is_seen() {
        let mut leaders = LeadersRise::default();
        assert_eq!(leaders.see(&said(1, 4, 0)), Ok(()));
        assert_eq!(leaders.see(&said(2, 3, 2)), Ok(()));
        assert!(leaders.see(&said(1, 3, 2)).is_err());
    }

    #[test]
    fn a_lower_leader_of_the_same_term_is_seen() {
        let mut leaders = LeadersRise::default();
        assert_eq!(leaders.see(&said(1, 4, 2)), Ok(()));
        assert_eq!(leaders.see(&said(1, 4, 0)), Ok(()));
        assert_eq!(leaders.see(&said(1, 4, 3)), Ok(()));
        assert!(leaders.see(&said(1, 4, 2)).is_err());
    }
}
