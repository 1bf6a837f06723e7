//! I12: what has damaged a node, or been damaged in it, is named, and nothing
//! else stops one (DESIGN I12).
//!
//! Simulated disks lose what was not synced, and fail when told to; neither is a
//! reason for a node to refuse what it finds. A disk that has failed is one to
//! stop: if it was made to fail, in that life of the process, and the node names
//! just that failure.

/// What a sync that was made to fail is answered with.
const FAILED_SYNC: &str = "simulated EIO";
/// What a disk without power answers.
const NO_POWER: &str = "the simulated machine is down";
/// What is told of a removed member, after its name.
const REMOVED: &str = " was removed from ";

/// What the world knows of a node that says something is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sim) struct Known {
    pub(in crate::sim) node: u64,
    /// A sync of its disk was made to fail in this life of its process.
    pub(in crate::sim) sync_failed: bool,
    /// Its machine has no power, or its process is being killed.
    pub(in crate::sim) down: bool,
    /// Its removal from the cluster was asked for.
    pub(in crate::sim) removal_asked: bool,
}

/// How it is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Explained {
    /// Its disk failed it, as it was made to.
    Disk,
    /// It is no member any more. Whether that is so the members tell in the end.
    Removed,
}

/// Judges what a node has stopped for, or logged as an error.
///
/// # Errors
/// With the text, when nothing that was done explains it.
pub(in crate::sim) fn loud(text: &str, known: &Known) -> Result<Explained, String> {
    let removed = format!("node {}{REMOVED}", known.node);
    if (known.sync_failed && text.contains(FAILED_SYNC)) || (known.down && text.contains(NO_POWER))
    {
        Ok(Explained::Disk)
    } else if known.removal_asked && text.contains(&removed) {
        Ok(Explained::Removed)
    } else {
        Err(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Known = Known {
        node: 1,
        sync_failed: false,
        down: false,
        removal_asked: false,
    };

    #[test]
    fn a_failure_is_explained_by_what_was_done_to_that_disk_alone() {
        let failed = Known {
            sync_failed: true,
            ..NOTHING
        };
        let text = "storage failed, the node stops: fdatasync failed on 7: simulated EIO";
        assert_eq!(loud(text, &failed), Ok(Explained::Disk));
        assert!(loud(text, &NOTHING).is_err());
        let down = Known {
            down: true,
            ..NOTHING
        };
        let text = "the storage has failed: the simulated machine is down";
        assert_eq!(loud(text, &down), Ok(Explained::Disk));
        assert!(loud(text, &failed).is_err());
    }

    #[test]
    fn another_failure_of_a_disk_that_was_made_to_fail_is_not_explained() {
        let all = Known {
            sync_failed: true,
            down: true,
            removal_asked: true,
            ..NOTHING
        };
        let text = "storage failed, the node stops: the index is damaged (a key is gone)";
        assert!(loud(text, &all).is_err());
    }

    #[test]
    fn a_node_is_removed_if_that_was_asked_for_and_it_is_meant() {
        let text = "node 1 was removed from cluster 7";
        let asked = Known {
            removal_asked: true,
            ..NOTHING
        };
        assert_eq!(loud(text, &asked), Ok(Explained::Removed));
        assert!(loud(text, &NOTHING).is_err());
        let other = Known { node: 2, ..asked };
        assert!(loud(text, &other).is_err());
        let eleven = "node 11 was removed from cluster 7";
        assert!(loud(eleven, &asked).is_err());
    }
}
