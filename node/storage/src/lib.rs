//! The durable log of one node, for any number of partitions: segments that hold the truth, an index over them, and
//! snapshots beside them.
//!
//! The parts, from the ground up: `files` is what an operating system promises; `segment` is the form of frames and
//! batches; `state` folds frames into what a log is; `engine` writes batches, one fdatasync each; `recovery` decides
//! what of a directory is the log; `index` finds entries and keeps derived records, and can be rebuilt; `write_queue`
//! and `indexer` are the steps that two threads (or a simulation) drive; `partition` is the handle above all of it.
//!
//! A data directory:
//!
//! | name | what it is | if it is lost |
//! |---|---|---|
//! | `segments/` | the log: entries, votes, truncations, purges | refused |
//! | `mark` | the end of the last synced batch, unsynced | the newest batch can no longer be told from a torn one |
//! | `data-version` | which releases can read it, salt of the checksums, whether the directory is in use | refused |
//! | `identity` | which node and cluster this is | refused, once there is a vote or an entry |
//! | `snapshots/` | states of partitions | replayed from the log; what a log that was released needs of them is refused |
//! | `index/` | sled: places of entries, derived records, the committed id | rebuilt, records derived again |
//! | `rebuild-index` | present after a lookup found the index damaged | |
//! | `reserve` | space for starting on a full disk | set aside again |
//! | `removed/` | segments and snapshots that are given up, until their space is given back | |
//! | `lock` | held by the process that has the directory open | |

pub mod limits;

mod data_version;
mod engine;
mod entry;
mod error;
mod files;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod frame_codec;
mod identity;
mod index;
mod indexer;
mod inspect;
mod mark;
mod open;
mod options;
mod partition;
mod ranges;
mod recovery;
mod scrub;
mod segment;
mod segment_files;
mod shared;
mod snapshot;
mod state;
mod storage;
mod tail;
mod write_queue;

pub use data_version::FIRST_DATA_VERSION;
pub use entry::{LogEntry, LogId, Vote};
pub use error::{FatalError, IdentityError, OpenError, ReadError, SnapshotError, WriteError};
#[cfg(feature = "simulation")]
pub use files::{Crash, SimFiles};
pub use identity::Identity;
#[cfg(feature = "simulation")]
pub use index::SimIndex;
pub use inspect::{
    Finding, FrameCounts, IdentityInspection, IndexInspection, InspectError, InspectOptions,
    InspectProgressHook, Inspection, MarkInspection, PartitionInspection, Place, RecordsInspection,
    SegmentEntries, SegmentInspection, Severity, SnapshotInspection, TermRun, inspect,
};
pub use options::{
    BatchStats, DiskSpace, FatalHook, IndexReport, IndexStats, Metrics, NoMetrics, OpenReport,
    OpenStep, Options, PartitionReport, ProgressHook, TailCut, WakeHook,
};
pub use partition::{ClosedSegment, Done, PartitionLog};
pub use scrub::{Scrub, ScrubStep};
pub use snapshot::{
    RawSnapshot, SnapshotInfo, SnapshotReader, SnapshotReceiver, SnapshotStore, SnapshotWriter,
};
pub use storage::Storage;
