//! I1: what is acknowledged is synced by a quorum, at that moment (Raft, section
//! 5.3: an entry is committed once a majority has stored it; DESIGN I1: synced).
//!
//! Judged by what a power cut could not take from the disks, not by what nodes
//! say of them.

use std::collections::{BTreeMap, BTreeSet};

/// What a disk has of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Held {
    Nothing,
    /// Its term, and who led then.
    Entry(u64, u64),
    /// A snapshot covers it.
    Covered,
}

/// Judges the acknowledgement of the entry at `index` by what the disks hold.
///
/// One of the sets of `voters` has to have a majority that agrees: which of them
/// counted when the entry was committed, the world does not know.
pub(in crate::sim) fn durable(
    index: u64,
    disks: &BTreeMap<u64, Held>,
    voters: &BTreeSet<BTreeSet<u64>>,
) -> Result<(), String> {
    let entries: BTreeSet<(u64, u64)> = disks
        .values()
        .filter_map(|held| match held {
            Held::Entry(term, leader) => Some((*term, *leader)),
            Held::Nothing | Held::Covered => None,
        })
        .collect();
    // Where all that have it have it in a snapshot, any will do.
    let entries = entries.into_iter().map(Some).chain([None]);
    let is_synced = entries.into_iter().any(|entry| {
        let has = |id: &&u64| match disks.get(id) {
            Some(Held::Entry(term, leader)) => entry == Some((*term, *leader)),
            Some(Held::Covered) => true,
            Some(Held::Nothing) | None => false,
        };
        voters
            .iter()
            .any(|voters| 2 * voters.iter().filter(has).count() > voters.len())
    });
    if is_synced || voters.is_empty() {
        return Ok(());
    }
    Err(format!(
        "I1: log entry {index} is acknowledged, and no quorum has it on disk: {disks:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(disks: &[(u64, Held)], voters: &[&[u64]]) -> bool {
        let disks = disks.iter().copied().collect();
        let set = |ids: &&[u64]| ids.iter().copied().collect();
        durable(9, &disks, &voters.iter().map(set).collect()).is_ok()
    }

    #[test]
    fn a_quorum_has_it() {
        use Held::{Covered, Entry, Nothing};
        assert!(judged(
            &[(1, Entry(3, 1)), (2, Entry(3, 1)), (3, Nothing)],
            &[&[1, 2, 3]]
        ));
        assert!(judged(
            &[(1, Entry(3, 1)), (2, Covered), (3, Entry(2, 2))],
            &[&[1, 2, 3]]
        ));
        assert!(judged(&[(1, Covered), (2, Covered)], &[&[1, 2, 3]]));
    }

    #[test]
    fn a_minority_is_not_enough_and_other_entries_do_not_count() {
        use Held::{Entry, Nothing};
        assert!(!judged(
            &[(1, Entry(3, 1)), (2, Nothing), (3, Nothing)],
            &[&[1, 2, 3]]
        ));
        assert!(!judged(
            &[(1, Entry(3, 1)), (2, Entry(2, 2)), (3, Nothing)],
            &[&[1, 2, 3]]
        ));
        assert!(!judged(
            &[
                (1, Entry(3, 1)),
                (2, Nothing),
                (3, Nothing),
                (4, Entry(3, 1))
            ],
            &[&[1, 2, 3], &[1, 2, 3, 4]]
        ));
    }

    #[test]
    fn a_quorum_of_the_members_before_a_change_is_one() {
        use Held::{Entry, Nothing};
        let disks = [
            (1, Entry(3, 1)),
            (2, Entry(3, 1)),
            (3, Nothing),
            (4, Nothing),
        ];
        assert!(judged(&disks, &[&[1, 2, 3], &[1, 2, 3, 4]]));
        assert!(!judged(&disks, &[&[1, 2, 3, 4]]));
    }
}
