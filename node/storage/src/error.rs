//! Typed errors. Each says what happened, whether the write was applied, and what to do.

use crate::entry::LogId;
use std::ops::Range;
use std::sync::Arc;
use std::{fmt, io};

/// The first failure after which the storage refuses everything; cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FatalError {
    /// A file operation failed. A failed sync is never retried: what the page cache shows may not be on the disk.
    #[error(
        "{operation} failed on {file}: {source}; writes in flight may or may not be durable; {}, then restart the node",
        if is_full(source) { "make room on the disk" } else { "check the disk" }
    )]
    Io {
        /// What was attempted, such as `fdatasync`.
        operation: &'static str,
        /// The file concerned.
        file: String,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The index lost or mixed up keys; the log itself is unharmed.
    #[error(
        "the index is damaged ({reason}); the log is unharmed; restart the node, which rebuilds the index"
    )]
    IndexDamaged {
        /// What did not fit.
        reason: String,
    },
    /// The writer thread panicked.
    #[error(
        "the {thread} thread panicked: {reason}; writes in flight may or may not be durable; restart the node"
    )]
    Panicked {
        /// Which thread.
        thread: &'static str,
        /// The panic's message.
        reason: String,
    },
}

impl FatalError {
    pub(crate) fn io(operation: &'static str, file: impl fmt::Display, source: io::Error) -> Self {
        FatalError::Io {
            operation,
            file: file.to_string(),
            source: Arc::new(source),
        }
    }

    /// Whether the disk ran out of space.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, FatalError::Io { source, .. } if is_full(source))
    }
}

/// What reads a directory that this release does not.
pub(crate) fn newer(release: &str) -> String {
    match release {
        "" => "the release that wrote it, or a newer one".to_owned(),
        release => format!("release {release} or a newer one"),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Why an append, vote, truncation or purge did not become durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The storage has failed; whether this write is durable is known only after a restart.
    #[error("the write may or may not be durable: {0}")]
    Fatal(#[from] FatalError),
    /// The write does not fit the log as it stands; nothing was written.
    #[error("refused, nothing was written: {reason}")]
    Refused {
        /// What does not fit.
        reason: String,
    },
    /// The storage was closed; nothing was written.
    #[error("the storage is closed; nothing was written")]
    Closed,
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The storage has failed.
    #[error(transparent)]
    Fatal(#[from] FatalError),
    /// The index is not, or no longer, kept by this node.
    #[error(
        "entry {index} of partition {partition} is not kept here; kept: {kept:?}; ask another node"
    )]
    NotKept {
        /// Partition asked.
        partition: u32,
        /// First index that is not kept.
        index: u64,
        /// What is kept.
        kept: Vec<Range<u64>>,
    },
    /// Bytes on disk do not match their checksum.
    #[error(
        "{file} is damaged at byte {position}: {what}; move this node's directory away and rejoin under a new node id"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in the file.
        position: u64,
        /// What is missing.
        what: String,
    },
    /// The read could not be carried out.
    #[error("reading {file} failed: {source}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The storage was closed.
    #[error("the storage is closed")]
    Closed,
}

/// Why a data directory was not opened. Nothing acknowledged was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("{path} is in use by another process{}; stop it, or give this node a directory of its own", holder.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: String,
        /// The other process, if it said.
        holder: Option<u32>,
    },
    /// The directory was written by a release this one does not know.
    #[error(
        "{path} has data version {found}, this release reads versions up to {supported}; run {}",
        newer(release)
    )]
    Version {
        /// The version file.
        path: String,
        /// What it says.
        found: u32,
        /// The newest version that this release reads.
        supported: u32,
        /// The first release that reads the version found; empty when the file does not say.
        release: String,
    },
    /// Synced bytes are gone or changed.
    #[error(
        "{file} is damaged at byte {position}: {what}. Acknowledged data is missing here, so this directory must not be used again: move it away and rejoin the cluster under a new node id, or restore the file from a copy of this very directory"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in the file.
        position: u64,
        /// What is missing.
        what: String,
    },
    /// A file operation failed.
    #[error("{operation} failed on {file}: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file concerned.
        file: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The index could not be opened even after it was rebuilt.
    #[error(
        "the index in {path} cannot be opened or rebuilt: {reason}; the log is unharmed; check the disk, then restart the node"
    )]
    Index {
        /// The index directory.
        path: String,
        /// What failed.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn io(operation: &'static str, file: impl fmt::Display, source: io::Error) -> Self {
        OpenError::Io {
            operation,
            file: file.to_string(),
            source,
        }
    }
}

/// Why the identity was not saved.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory belongs to another node or cluster; nothing was written.
    #[error(
        "this directory belongs to {field} {found}, not {asked}; nothing was written; use this node's own directory"
    )]
    Foreign {
        /// Which field differs.
        field: &'static str,
        /// What the directory says.
        found: String,
        /// What was to be saved.
        asked: String,
    },
    /// The identity is larger than its file may be; nothing was written.
    #[error("the identity takes {size_bytes} bytes, more than {limit_bytes}; nothing was written")]
    TooLarge {
        /// Its encoded size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The file could not be written; the old one is in place.
    #[error(transparent)]
    Fatal(#[from] FatalError),
}

/// Why a snapshot could not be written, received or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed; no snapshot became visible.
    #[error(
        "{operation} failed on {file}: {source}; the snapshot is not in use; the log is unharmed"
    )]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file concerned.
        file: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The bytes do not match their checksum or their form.
    #[error(
        "the snapshot {file} is damaged at byte {position}: {what}; use an older one, or another node's"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in the file.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// It holds another partition's state.
    #[error("the snapshot {file} is of partition {found}, not {asked}")]
    WrongPartition {
        /// The file.
        file: String,
        /// What it holds.
        found: u32,
        /// What was wanted.
        asked: u32,
    },
    /// The meta is too large; nothing was written.
    #[error(
        "the snapshot's meta takes {size_bytes} bytes, more than {limit_bytes}; nothing was written"
    )]
    MetaTooLarge {
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The log does not reach the snapshot's last index, so it cannot become visible.
    #[error("the log of partition {partition} ends before {last}, so the snapshot was dropped")]
    AheadOfLog {
        /// The partition.
        partition: u32,
        /// The snapshot's last entry.
        last: LogId,
    },
    /// No longer in the catalogue.
    #[error("the snapshot {file} is gone; ask for the newest again")]
    Gone {
        /// The file.
        file: String,
    },
    /// The storage has failed.
    #[error(transparent)]
    Fatal(#[from] FatalError),
}

/// The message of a caught panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}
