//! Every bound of this crate, with their relations checked at compile time.

/// Largest payload of one entry.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Largest body of one batch that the writer gathers; a single larger entry travels alone.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Queued and not yet durable bytes at which `append` blocks its caller.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Entries that may wait for the index before the writer pauses.
pub const UNINDEXED_ENTRIES_MAX: usize = 64 << 10;
/// Bytes that may wait for the index (entries kept in the tail, and records) before their writer pauses.
pub const UNINDEXED_BYTES_MAX: usize = 256 << 20;
/// Keys put into the index in one atomic step; readers of the index wait for such a step.
pub const INDEX_BATCH_KEYS_MAX: usize = 512;
/// Changes of entries, and records, that one step of the indexer takes in.
pub const INDEX_STEP_MAX: usize = 4096;
/// Bytes of one derived record kept under one key; larger ones are split over numbered keys.
pub const RECORD_CHUNK_BYTES: usize = 16 << 10;
/// Largest derived record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Segment files kept open for reading.
pub const OPEN_SEGMENTS_MAX: usize = 64;
/// Bytes read from a segment in one go when neighbouring entries are asked for.
pub const READ_AHEAD_BYTES: usize = 1 << 20;
/// Bytes of sealed segments that one step of a scrub reads.
pub const SCRUB_STEP_BYTES: u64 = 256 << 10;
/// Leadership runs kept per partition beside those of the live log; entries of older ones are read without that extra
/// check.
pub const RUNS_MAX: usize = 4096;
/// Gaps in the history kept per partition; past it the oldest range is forgotten.
pub const HISTORY_RANGES_MAX: usize = 64;
/// Snapshots of the thinning series, beside the newest two and the base.
pub const SNAPSHOT_SERIES_MAX: usize = 16;
/// Largest `meta` of a snapshot.
pub const SNAPSHOT_META_BYTES_MAX: usize = 16 << 20;
/// Bytes of a snapshot after which it is synced while it is written: the log's fdatasyncs wait for what another one has
/// to write.
pub const SNAPSHOT_SYNC_BYTES: u64 = 1 << 20;
/// Removed files that wait for their space to be given back bit by bit; what is more is given back at once.
pub const REMOVED_FILES_MAX: usize = 64;
/// Payload bytes of one checksummed block of a snapshot file.
pub const SNAPSHOT_BLOCK_BYTES: usize = 256 << 10;
/// Largest identity file.
pub const IDENTITY_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(ENTRY_BYTES_MAX + 2 * BATCH_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(QUEUE_BYTES_MAX > ENTRY_BYTES_MAX + BATCH_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX / RECORD_CHUNK_BYTES < u16::MAX as usize);
