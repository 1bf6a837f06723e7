//! Snapshots of a partition's state: files beside the log, checksummed, visible only when whole.
//!
//! A snapshot built here becomes visible once the local log is durable through its last entry and the index, with the
//! records derived so far, is synced: so whatever replays from it finds everything before it in place. One received from
//! a peer is verified from its first byte to its last before it becomes visible.

mod catalogue;
mod format;
mod reach;
mod reader;
mod receiver;
mod thinning;
mod verify;
mod writer;

pub(crate) use catalogue::{Catalogue, file_name, place_of_path};
pub use catalogue::{SnapshotInfo, SnapshotStore};
pub(crate) use reach::{describe, lost_file, to_replay};
pub use reader::{RawSnapshot, SnapshotReader};
pub use receiver::SnapshotReceiver;
pub(crate) use verify::verify;
pub use writer::SnapshotWriter;

pub(crate) const DIR: &str = "snapshots";

/// Errors of `io` traits carry the typed one inside.
fn into_io(error: crate::error::SnapshotError) -> std::io::Error {
    std::io::Error::other(error)
}
