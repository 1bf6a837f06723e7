//! How a storage is opened, and what it reports while it runs.

use crate::data_version::FIRST_DATA_VERSION;
use crate::error::FatalError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Called while a long opening step runs: the step, bytes done, bytes in all.
pub type ProgressHook = Arc<dyn Fn(OpenStep, u64, u64) + Send + Sync>;
/// Called once, with the first fatal error.
pub type FatalHook = Arc<dyn Fn(&FatalError) + Send + Sync>;
/// Called when work is queued and nobody drives it; see [`crate::Storage::step`].
pub type WakeHook = Arc<dyn Fn() + Send + Sync>;

/// A step of opening that can take more than a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenStep {
    /// Checking the frames after the last checkpoint.
    Verify,
    /// Bringing the index up to date from its cursor.
    Replay,
    /// Building the index anew from all segments.
    Rebuild,
}

/// What can be chosen when opening; the default is what production uses.
#[derive(Clone)]
pub struct Options {
    /// Size at which a segment is sealed, in bytes.
    pub segment_bytes: u64,
    /// Bytes of durable and indexed entries kept readable in memory, for all partitions together.
    pub tail_bytes: usize,
    /// Disk space set aside so that a full disk does not keep the node from starting and being repaired, in bytes.
    pub reserve_bytes: u64,
    /// Pages of the index that are kept in memory, in bytes as they are on disk; in memory they take more.
    pub index_cache_bytes: u64,
    /// The newest data version that is opened; one above it is a later release's.
    pub data_version_max: u32,
    /// Receives counts and latencies.
    pub metrics: Arc<dyn Metrics>,
    /// Told the first fatal error, on the thread that met it.
    pub on_fatal: Option<FatalHook>,
    /// Told how far long opening steps are.
    pub on_progress: Option<ProgressHook>,
    /// Told that [`crate::Storage::step`] has work; only used when no thread drives the writer.
    pub on_queued: Option<WakeHook>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail_bytes: 32 << 20,
            reserve_bytes: 8 << 20,
            // Events are read from the log's segments, and the index beside them is
            // walked in order, so that little of it is needed again: a larger cache made
            // no figure better when it was measured, and cost memory.
            index_cache_bytes: 16 << 20,
            data_version_max: FIRST_DATA_VERSION,
            metrics: Arc::new(NoMetrics),
            on_fatal: None,
            on_progress: None,
            on_queued: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("tail_bytes", &self.tail_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("index_cache_bytes", &self.index_cache_bytes)
            .finish_non_exhaustive()
    }
}

/// One synced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStats {
    /// Entries in the batch.
    pub entries: usize,
    /// Entries, votes, truncations and purges in the batch.
    pub frames: usize,
    /// Bytes written.
    pub bytes: u64,
    /// Time to encode and write.
    pub write: Duration,
    /// Time of the fdatasync.
    pub sync: Duration,
    /// Operations still queued when the batch was done.
    pub queued: usize,
}

/// One step of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStats {
    /// Keys written.
    pub keys: usize,
    /// Time it took.
    pub took: Duration,
    /// Entries durable and not yet indexed.
    pub entries_behind: usize,
}

/// Receives what happens; every method returns quickly, since it runs on the writer's threads.
pub trait Metrics: Send + Sync {
    /// A batch was written and synced.
    fn batch_synced(&self, stats: &BatchStats) {
        let _ = stats;
    }
    /// The index took a step.
    fn index_stepped(&self, stats: &IndexStats) {
        let _ = stats;
    }
    /// A segment was sealed and the next one begun.
    fn segment_begun(&self, segment: u64, took: Duration) {
        let _ = (segment, took);
    }
    /// Entries were read from disk, not from the tail.
    fn disk_read(&self, entries: usize, bytes: usize, took: Duration) {
        let _ = (entries, bytes, took);
    }
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMetrics;
impl Metrics for NoMetrics {}

/// Room on the file system that holds the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes this process can still use.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The directory was empty before.
    pub fresh: bool,
    /// A torn tail was cut off.
    pub cut: Option<TailCut>,
    /// Frames above the floor that were rewritten to a fresh segment.
    pub frames_rewritten: usize,
    /// What became of the index.
    pub index: IndexReport,
    /// Segments of the log.
    pub segments: usize,
    /// Bytes of the log's segments.
    pub log_bytes: u64,
    /// Every partition found.
    pub partitions: Vec<PartitionReport>,
    /// Time opening took.
    pub took: Duration,
}

/// A torn tail: bytes after the last frame that is whole; none of them was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailCut {
    /// The segment file.
    pub file: String,
    /// Where it was cut.
    pub position: u64,
    /// What was wrong there.
    pub reason: String,
}

/// What became of the index when opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexReport {
    /// It was brought up to date from its cursor.
    Replayed {
        /// Frames it had not seen.
        frames: usize,
    },
    /// It was built anew from the segments; derived records are gone and must be derived again.
    Rebuilt {
        /// Why.
        reason: String,
        /// Frames put into it.
        frames: usize,
    },
}

/// One partition as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// Its id.
    pub partition: u32,
    /// Ranges of log indexes that can be read; the last one ends with the live log.
    pub history: Vec<Range<u64>>,
    /// Ranges of log indexes for which derived records are kept.
    pub records: Vec<Range<u64>>,
}
