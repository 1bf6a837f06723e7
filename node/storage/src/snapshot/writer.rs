//! Writing a snapshot of this node's own state.

use super::catalogue::SnapshotInfo;
use super::format::Encoder;
use super::into_io;
use crate::entry::LogId;
use crate::error::SnapshotError;
use crate::files::File;
use crate::limits::{SNAPSHOT_BLOCK_BYTES, SNAPSHOT_META_BYTES_MAX, SNAPSHOT_SYNC_BYTES};
use crate::partition::PartitionLog;
use crate::storage::Owner;
use std::io;
use std::sync::Arc;

/// Writes the state of a snapshot; nothing is visible before [`Self::finish`], and nothing is left if it is dropped.
pub struct SnapshotWriter {
    owner: Arc<Owner>,
    partition: u32,
    log_id: LogId,
    file: TemporaryFile,
    encoder: Encoder,
    block: Vec<u8>,
}

impl std::fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("log_id", &self.log_id)
            .finish_non_exhaustive()
    }
}

/// A file that is removed unless it is published.
pub(super) struct TemporaryFile {
    owner: Arc<Owner>,
    file: Arc<dyn File>,
    name: String,
    pub(super) size: u64,
    synced: u64,
    published: bool,
}

impl TemporaryFile {
    pub(super) fn create(owner: Arc<Owner>) -> Result<Self, SnapshotError> {
        if let Some(error) = owner.shared.fatal() {
            return Err(error.clone().into());
        }
        let name = owner.shared.catalogue.temporary_name();
        let file = owner
            .shared
            .files
            .create(&name)
            .map_err(|source| SnapshotError::Io {
                operation: "create",
                file: owner.shared.files.path(&name).display().to_string(),
                source,
            })?;
        Ok(Self {
            owner,
            file,
            name,
            size: 0,
            synced: 0,
            published: false,
        })
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
        let file = self.path();
        move |source| SnapshotError::Io {
            operation,
            file,
            source,
        }
    }

    pub(super) fn path(&self) -> String {
        self.owner
            .shared
            .files
            .path(&self.name)
            .display()
            .to_string()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file
            .write_at(bytes, self.size)
            .map_err(self.failed("write"))?;
        self.size += bytes.len() as u64;
        if self.size - self.synced >= SNAPSHOT_SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), SnapshotError> {
        self.file.sync().map_err(self.failed("fdatasync"))?;
        self.synced = self.size;
        Ok(())
    }

    /// Makes the synced file visible.
    pub(super) fn publish(
        mut self,
        partition: u32,
        log_id: LogId,
    ) -> Result<SnapshotInfo, SnapshotError> {
        let shared = &self.owner.shared;
        let info = SnapshotInfo::new(&*shared.files, partition, log_id, self.size);
        let history = shared
            .partition(partition)
            .live
            .read()
            .state
            .history
            .clone();
        self.published = true;
        shared
            .catalogue
            .publish(&*shared.files, &self.name, &info, &history)?;
        Ok(info)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = self.owner.shared.files.remove_gradually(&self.name)
        {
            tracing::warn!(file = self.path(), %error, "an unfinished snapshot stays until the next start");
        }
    }
}

impl SnapshotWriter {
    pub(super) fn begin(
        owner: Arc<Owner>,
        partition: u32,
        log_id: LogId,
        meta: &[u8],
    ) -> Result<Self, SnapshotError> {
        let mut file = TemporaryFile::create(owner.clone())?;
        if meta.len() > SNAPSHOT_META_BYTES_MAX {
            return Err(SnapshotError::MetaTooLarge {
                size_bytes: meta.len(),
                limit_bytes: SNAPSHOT_META_BYTES_MAX,
            });
        }
        let (encoder, header) = Encoder::begin(partition, log_id, meta);
        file.append(&header)?;
        Ok(Self {
            owner,
            partition,
            log_id,
            file,
            encoder,
            block: Vec::new(),
        })
    }

    fn write_block(&mut self) -> Result<(), SnapshotError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut block = std::mem::take(&mut self.block);
        let header = self.encoder.block(&block);
        self.file.append(&header)?;
        self.file.append(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Waits until the log is durable through the snapshot's last entry and the index is synced, then makes the snapshot
    /// visible and removes those that are now surplus. Blocks.
    ///
    /// A log that never held anything has nothing to wait for.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        self.write_block()?;
        let Self {
            owner,
            partition,
            log_id,
            mut file,
            encoder,
            ..
        } = self;
        file.append(&encoder.end())?;
        file.sync()?;
        let log = PartitionLog::new(owner.clone(), owner.shared.partition(partition));
        log.wait_durable(log_id.index)?;
        if log.last().is_some() && log.durable_index() < Some(log_id.index) {
            return Err(SnapshotError::AheadOfLog {
                partition,
                last: log_id,
            });
        }
        owner.shared.sync_index()?;
        file.publish(partition, log_id)
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SNAPSHOT_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == SNAPSHOT_BLOCK_BYTES {
            self.write_block().map_err(into_io)?;
        }
        Ok(taken)
    }

    /// Blocks are written when they are full; only [`Self::finish`] writes the last one.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
