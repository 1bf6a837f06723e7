//! I7, and Raft's state machine safety (figure 3): nodes that have applied the
//! same log index have come to the same, whenever and after however many lives.

use std::collections::BTreeMap;

use super::Said;

/// What nodes have said of their states.
#[derive(Debug, Default)]
pub(in crate::sim) struct SameState {
    /// By log index: the digest, and which node said it first.
    digests: BTreeMap<u64, (Vec<u8>, u64)>,
    compared: u64,
}

impl SameState {
    pub(in crate::sim) fn see(&mut self, said: &Said) -> Result<(), String> {
        if said.digest.is_empty() {
            if said.applied == 0 {
                return Ok(());
            }
            return Err(format!(
                "I7: node {} has applied log index {} and no digest of it",
                said.node, said.applied
            ));
        }
        let (digest, first) = self
            .digests
            .entry(said.applied)
            .or_insert_with(|| (said.digest.clone(), said.node));
        if *digest == said.digest {
            self.compared += u64::from(*first != said.node);
            return Ok(());
        }
        Err(format!(
            "I7: at log index {} node {} has another digest than node {first} had",
            said.applied, said.node
        ))
    }

    /// How often a node has said what another had said before.
    pub(in crate::sim) fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_that_is_missing_is_seen() {
        let mut state = SameState::default();
        let said = |applied| Said {
            node: 1,
            applied,
            ..Said::default()
        };
        assert_eq!(state.see(&said(0)), Ok(()));
        assert!(state.see(&said(7)).is_err());
        assert_eq!(state.compared(), 0);
    }

    #[test]
    fn another_digest_at_the_same_index_is_seen() {
        let mut state = SameState::default();
        let at = |node, applied, digest: &[u8]| Said {
            node,
            applied,
            digest: digest.to_vec(),
            ..Said::default()
        };
        assert_eq!(state.see(&at(1, 7, b"a")), Ok(()));
        assert_eq!(state.see(&at(2, 8, b"b")), Ok(()));
        assert_eq!(state.see(&at(2, 7, b"a")), Ok(()));
        assert_eq!(state.compared(), 1);
        assert!(state.see(&at(3, 8, b"c")).is_err());
    }
}
