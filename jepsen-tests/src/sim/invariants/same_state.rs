//! I7, and Raft's state machine safety (figure 3): nodes that have applied the
//! same log index have come to the same, whenever and after however many lives.

use std::collections::BTreeMap;

use super::Said;

/// By log index: the digest, and which node said it first.
#[derive(Debug, Default)]
pub(in crate::sim) struct SameState(BTreeMap<u64, (Vec<u8>, u64)>);

impl SameState {
    pub(in crate::sim) fn see(&mut self, said: &Said) -> Result<(), String> {
        if said.digest.is_empty() {
            return Ok(());
        }
        let (digest, first) = self
            .0
            .entry(said.applied)
            .or_insert_with(|| (said.digest.clone(), said.node));
        if *digest == said.digest {
            return Ok(());
        }
        Err(format!(
            "I7: at log index {} node {} has another digest than node {first} had",
            said.applied, said.node
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(state.see(&at(3, 8, b"c")).is_err());
    }
}
