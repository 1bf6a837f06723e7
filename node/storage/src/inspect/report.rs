//! What an inspection found.

use crate::entry::{LogId, Vote};
use crate::segment::Position;
use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A data directory as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// The format it is in; `None` if that cannot be read.
    pub data_version: Option<u32>,
    /// Whether a log was ever begun in it.
    pub in_use: Option<bool>,
    /// Who it belongs to; `None` while nobody has said, or if that cannot be read.
    pub identity: Option<IdentityInspection>,
    /// The high-water mark's file; `None` if it is not there.
    pub mark: Option<MarkInspection>,
    /// The end of what is known to be synced: damage before it is a loss, damage after it a torn tail.
    pub synced_to: Option<Place>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// The partitions, by id.
    pub partitions: Vec<PartitionInspection>,
    /// The snapshots, by partition and index.
    pub snapshots: Vec<SnapshotInspection>,
    /// The index.
    pub index: IndexInspection,
    /// Everything there is to say about it, the log first.
    pub findings: Vec<Finding>,
    /// Whether every checksum was checked, and the index against the segments.
    pub verified: bool,
}

impl Inspection {
    /// Whether there is nothing that has to be repaired or is refused.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Note)
    }
}

/// What a finding means for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it may be after a crash; nothing is lost.
    Note,
    /// Damage that a node repairs by itself, from what is whole.
    Repaired,
    /// Damage with which a node refuses to start, or to hand out what it concerns.
    Refused,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Repaired => "repaired",
            Severity::Refused => "refused",
        })
    }
}

/// Something to say about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The byte, if one can be named.
    pub position: Option<u64>,
    /// What is there, or is missing.
    pub what: String,
    /// What the operator does about it.
    pub what_to_do: String,
}

/// A place in the log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub offset: u64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self {
            segment: position.segment,
            offset: position.offset,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} byte {}", self.segment, self.offset)
    }
}

/// Who the directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityInspection {
    /// Id of the cluster; empty until it has been formed.
    pub cluster_id: String,
    /// Name of the cluster, as configured.
    pub cluster_name: String,
    /// The node's id.
    pub node_id: u64,
    /// Minted when the directory was first used.
    pub node_uuid: String,
    /// Bytes of what the node keeps about the members, which storage does not read.
    pub members_bytes: usize,
}

/// The high-water mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MarkInspection {
    /// The higher of the valid slots; `None` if neither is.
    pub synced_to: Option<Place>,
    /// The batch that ends there.
    pub batch: Option<u64>,
    /// How many of the two slots are valid; one is enough, and none is as good as no mark.
    pub valid_slots: usize,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentInspection {
    /// Its number.
    pub number: u64,
    /// The file.
    pub file: String,
    /// Size of the file, space set aside included.
    pub size_bytes: u64,
    /// Where its last whole batch ends.
    pub used_bytes: u64,
    /// Whether it ends in a footer.
    pub sealed: bool,
    /// Whether it is part of the log; a start that was never synced is not, and is removed by the next start.
    pub in_log: bool,
    /// Its entries, by partition.
    pub entries: Vec<SegmentEntries>,
    /// Its frames, if it was read whole.
    pub frames: Option<FrameCounts>,
}

/// Entries of one partition in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SegmentEntries {
    /// The partition.
    pub partition: u32,
    /// How many there are, truncated ones included.
    pub entries: u64,
    /// The lowest log index among them.
    pub first_index: u64,
    /// The highest log index among them.
    pub last_index: u64,
}

/// Whole frames by kind, and the batches they came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FrameCounts {
    /// Batches: each was written and synced at once.
    pub batches: u64,
    /// Log entries.
    pub entries: u64,
    /// Votes.
    pub votes: u64,
    /// Truncations of the log's end.
    pub truncations: u64,
    /// Purges of its beginning.
    pub purges: u64,
    /// Releases of history.
    pub releases: u64,
    /// Checkpoints of partitions.
    pub checkpoints: u64,
}

/// One partition's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionInspection {
    /// Its id.
    pub partition: u32,
    /// The node's vote.
    pub vote: Option<Vote>,
    /// The last entry that is purged from the live log.
    pub purged: Option<LogId>,
    /// The last entry, purged ones included.
    pub last: Option<LogId>,
    /// The live log's indexes.
    pub live: Range<u64>,
    /// Ranges of indexes that can be read; the last one ends with the live log.
    pub history: Vec<Range<u64>>,
    /// Who led when, ascending, as far as it is remembered.
    pub terms: Vec<TermRun>,
}

/// Consecutive entries of one leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TermRun {
    /// Index of the first.
    pub first_index: u64,
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub node_id: u64,
}

/// One snapshot file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInspection {
    /// The file.
    pub file: String,
    /// The partition; `None` if the header is damaged.
    pub partition: Option<u32>,
    /// The last entry it contains; `None` if the header is damaged.
    pub last: Option<LogId>,
    /// Size of the file.
    pub size_bytes: u64,
    /// Whether its checksums match: all of them if everything was verified, else the header's.
    pub checksum_ok: bool,
}

/// The index, which can be rebuilt from the segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IndexInspection {
    /// Whether it is there.
    pub present: bool,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Whether the next start rebuilds it, since a lookup found it damaged.
    pub rebuild_marked: bool,
    /// How far it has followed the segments; known if it was verified.
    pub cursor: Option<Place>,
    /// Entries found in it that lead to the right frames; known if it was verified.
    pub entries: Option<u64>,
    /// What it keeps per partition; known if it was verified.
    pub records: Vec<RecordsInspection>,
}

/// What the index keeps of one partition beside the places of entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordsInspection {
    /// The partition.
    pub partition: u32,
    /// Ranges of log indexes for which derived records are kept.
    pub records: Vec<Range<u64>>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
}
