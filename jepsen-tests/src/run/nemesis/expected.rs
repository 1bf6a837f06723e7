//! What each fault explains: how its victims may end, and what they may say.

use super::super::excuses::{Expected, Said};
use super::Fault;
use crate::OPENRAFT_CORE_ENDED;

/// The exit statuses of a node: failed while running, and not to be used as it is.
const FAILED: i32 = 1;
const DATA: i32 = 4;

/// What a disk that fails, or is full, is named by.
const DISK: &[&str] = &[
    "Input/output error",
    "No space left on device",
    "fdatasync failed on",
    // The file system was shut down under it.
    "Read-only file system",
];
/// The message says all of it.
const ANYTHING: &[&str] = &[""];

/// The log or the index could not be written, and all that follows from it.
const STORAGE_FAILS: &[Said] = &[
    said("the storage has failed and refuses everything", DISK),
    said("the node stops", DISK),
    said("the storage did not close cleanly", DISK),
    said("the index could not be marked for a rebuild", DISK),
    said("the index did not close cleanly", DISK),
    said("io_completed: IOFlushed error", DISK),
    said(
        "RaftCore received Notification::StorageError: when Write ",
        DISK,
    ),
    said("RaftCore::main error: when Write ", DISK),
    said("when Write Apply(", DISK),
    // Whoever applies entries has ended first.
    said(
        "RaftCore::main error: when Write Apply(",
        &["channel closed"],
    ),
    // What follows an entry that was not written.
    said(
        "io_completed: IOFlushed error: refused, nothing was written",
        &["does not follow the last one"],
    ),
    said("raft did not stop cleanly", ANYTHING),
    // The scrub is refused what it reads, before the log's writer is.
    said("a segment is damaged", DISK),
    said("a snapshot is damaged and set aside", DISK),
    said("the snapshot's header is damaged", ANYTHING),
];
/// openraft calls it an error that it is asked for something while it stops.
const RAFT_STOPS: &[Said] = &[
    said("stream_append: RaftCore stopped", ANYTHING),
    said("failed to send RaftMsg to RaftCore", ANYTHING),
    said("failed to receive from RaftCore", ANYTHING),
    said("failed to report metrics, error: watch channel", ANYTHING),
    said("openraft::raft::Raft<_, _>::with_raft_state: ", ANYTHING),
    said(
        "openraft::raft::raft_inner::RaftInner<_>::recv_msg: error",
        ANYTHING,
    ),
    said("HeartbeatWorker(", &["failed to send HeartbeatProgress"]),
];
/// What was not synced is gone, and the index is built anew.
const INDEX_BEHIND: &[Said] = &[
    said("the index is damaged; building it anew", ANYTHING),
    said("the index has blobs", ANYTHING),
];
const STARTS_FULL: &[Said] = &[said("the disk is full; starting with the space", ANYTHING)];
const DAMAGED: &[&str] = &["is damaged"];
const DAMAGE: &[Said] = &[
    said("the node stops", DAMAGED),
    said("the storage has failed", DAMAGED),
    said("a segment is damaged", DAMAGED),
    said("RaftCore::main error: when Read ", DAMAGED),
    said("RaftCore received Notification::StorageError", DAMAGED),
];
const EMPTIED: &[Said] = &[
    said("the node stops", &["it was emptied or is another's"]),
    said(
        "a peer refuses this node",
        &["it was emptied or is another's"],
    ),
];
const CHANGE_REFUSED: &[Said] = &[
    said("the first step error: has to forward request to", ANYTHING),
    said("the second step error: has to forward request to", ANYTHING),
];
const REMOVED: &[Said] = &[
    said("the node stops", &["removed"]),
    said("a peer refuses this node", &["removed"]),
];

/// The node has failed by then, and said why.
const CORE_ENDED: &[&str] = &[OPENRAFT_CORE_ENDED];

const fn said(begins: &'static str, because: &'static [&'static str]) -> Said {
    Said { begins, because }
}

/// Its syncs fail, or its power is cut, which is the same until it is killed.
static DISK_FAILS: Expected = Expected {
    statuses: &[FAILED],
    errors: &[STORAGE_FAILS, RAFT_STOPS, INDEX_BEHIND],
    panics: CORE_ENDED,
};
static DISK_FULL: Expected = Expected {
    statuses: &[FAILED],
    errors: &[STORAGE_FAILS, RAFT_STOPS, STARTS_FULL],
    panics: CORE_ENDED,
};
/// It starts on what such a disk has kept, which can be anything.
static DISK_LYING: Expected = Expected {
    statuses: &[FAILED, DATA],
    errors: &[STORAGE_FAILS, RAFT_STOPS, INDEX_BEHIND, DAMAGE],
    panics: CORE_ENDED,
};
static DAMAGED_LOG: Expected = Expected {
    statuses: &[FAILED, DATA],
    errors: &[DAMAGE, RAFT_STOPS],
    panics: CORE_ENDED,
};
static EMPTIED_NODE: Expected = Expected {
    statuses: &[DATA],
    errors: &[EMPTIED, RAFT_STOPS],
    panics: &[],
};
static RESTARTED: Expected = Expected {
    statuses: &[],
    errors: &[RAFT_STOPS],
    panics: &[],
};
/// No end, and no error.
static NOTHING: Expected = Expected {
    statuses: &[],
    errors: &[],
    panics: &[],
};
/// The members are changed: whoever does not lead any more says so.
pub(crate) static MEMBERS_CHANGE: Expected = Expected {
    statuses: &[],
    errors: &[CHANGE_REFUSED],
    panics: &[],
};
/// A node is taken out of the members, and ends.
pub(crate) static MEMBER_LEAVES: Expected = Expected {
    statuses: &[DATA],
    errors: &[REMOVED, RAFT_STOPS],
    panics: &[],
};

impl Fault {
    /// What it explains, of the nodes it hits.
    pub(super) fn expected(self) -> &'static Expected {
        match self {
            Self::PowerCut | Self::PowerCutAll | Self::DiskFailing => &DISK_FAILS,
            Self::DiskFull => &DISK_FULL,
            Self::DiskLying => &DISK_LYING,
            Self::Damage => &DAMAGED_LOG,
            Self::Emptied => &EMPTIED_NODE,
            Self::RollingRestart => &RESTARTED,
            _ => &NOTHING,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use prost_types::Timestamp;

    use super::super::super::excuses::Excuses;
    use super::*;

    fn is_unexpected(fault: Fault, message: &str, error: &str) -> bool {
        let now = SystemTime::now();
        let excuses = Excuses::default();
        excuses.begin(&[1], fault.expected(), now);
        let timestamp = Timestamp::from(now);
        let line = format!(
            r#"{{"timestamp":"{timestamp}","level":"ERROR","message":"{message}","error":"{error}"}}"#
        );
        excuses.of_log(1).is_unexpected(&line)
    }

    #[test]
    fn a_storage_that_fails_is_explained_by_faults_of_the_disk_alone() {
        let eio = "storage failed, the node stops: write failed on data/mark: \
                   Input/output error (os error 5)";
        for fault in Fault::ALL {
            let of_the_disk = matches!(
                fault,
                Fault::PowerCut | Fault::PowerCutAll | Fault::DiskFull | Fault::DiskFailing
            );
            assert_eq!(
                is_unexpected(fault, "the node stops", eio),
                !of_the_disk,
                "{fault:?}"
            );
        }
    }

    #[test]
    fn openraft_may_panic_where_a_disk_made_it_end_alone() {
        let panic = "thread 'tokio-rt-worker' (9) panicked at \
                     /registry/openraft-0.10.0-alpha.37/src/raft/raft_inner.rs:214:17:";
        for fault in Fault::ALL.into_iter().chain([Fault::DiskLying]) {
            let of_the_disk = matches!(
                fault,
                Fault::PowerCut
                    | Fault::PowerCutAll
                    | Fault::DiskFull
                    | Fault::DiskFailing
                    | Fault::DiskLying
                    | Fault::Damage
            );
            let excuses = Excuses::default();
            let now = SystemTime::now();
            excuses.begin(&[1], fault.expected(), now);
            let mut log = excuses.of_log(1);
            let timestamp = Timestamp::from(now);
            log.is_unexpected(&format!(r#"{{"timestamp":"{timestamp}"}}"#));
            assert_eq!(log.is_unexpected(panic), !of_the_disk, "{fault:?}");
        }
    }

    #[test]
    fn no_fault_explains_a_state_that_differs() {
        let differs = "its state differs from the leader's at log index 7";
        for fault in Fault::ALL {
            for message in [
                "the node stops",
                "when Write Apply(LogId)",
                "RaftCore::main error: when Write Apply(LogId)",
                "openraft says something new",
            ] {
                assert!(is_unexpected(fault, message, differs), "{fault:?}");
            }
        }
    }

    #[test]
    fn damage_is_explained_where_the_harness_has_done_it() {
        let damaged = "segments/1.segment is damaged at byte 9510";
        let stops = |fault| is_unexpected(fault, "the node stops", damaged);
        assert!(!stops(Fault::Damage));
        assert!(stops(Fault::PowerCut) && stops(Fault::DiskFailing) && stops(Fault::KillAll));
    }
}
