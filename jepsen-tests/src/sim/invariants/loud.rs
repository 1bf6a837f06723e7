//! I12: what has damaged a node, or been damaged in it, is named, and nothing
//! else stops one (DESIGN I12).
//!
//! Simulated disks lose what was not synced, and fail when told to; neither is a
//! reason for a node to refuse what it finds, and a failed disk is one to stop.

/// What a node may stop for by itself, to be started again.
const STOPS: [&str; 3] = ["storage failed", "simulated EIO", "Input/output error"];

/// How a node's ending is to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Stop {
    /// It is no member any more.
    Removed,
    /// Its disk failed it, as it was made to.
    Explained,
}

/// Judges why `node` has stopped.
pub(in crate::sim) fn loud(node: u64, reason: &str) -> Result<Stop, String> {
    if reason.contains("removed") {
        Ok(Stop::Removed)
    } else if STOPS.iter().any(|part| reason.contains(part)) {
        Ok(Stop::Explained)
    } else {
        Err(format!("I12: node {node} stopped: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_explains_is_a_violation() {
        assert_eq!(loud(1, "node 1 was removed"), Ok(Stop::Removed));
        assert_eq!(
            loud(1, "storage failed: simulated EIO"),
            Ok(Stop::Explained)
        );
        assert!(loud(1, "the log is damaged at byte 7").is_err());
    }
}
