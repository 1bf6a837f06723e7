//! Reading a snapshot.

use super::catalogue::SnapshotInfo;
use super::format::{Decoder, Part};
use super::into_io;
use crate::error::SnapshotError;
use crate::files::File;
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use bytes::{Buf, Bytes};
use std::io;
use std::sync::Arc;

/// A snapshot file's raw bytes.
pub struct RawSnapshot {
    file: Arc<dyn File>,
    info: SnapshotInfo,
}

impl std::fmt::Debug for RawSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawSnapshot")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl RawSnapshot {
    pub(super) fn new(file: Arc<dyn File>, info: SnapshotInfo) -> Self {
        Self { file, info }
    }

    /// The snapshot.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.info.size_bytes
    }

    /// Reads at a position; fewer bytes than asked only at the end.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize, SnapshotError> {
        self.file
            .read_at(buffer, position)
            .map_err(|source| SnapshotError::Io {
                operation: "read",
                file: self.info.path.display().to_string(),
                source,
            })
    }
}

/// Reads a snapshot's state; every block is verified before any of it is handed out, and the state's end is reached only
/// if the file's end verifies too. An [`io::Error`] carries the [`SnapshotError`] inside.
pub struct SnapshotReader {
    raw: RawSnapshot,
    position: u64,
    decoder: Decoder,
    meta: Bytes,
    block: Bytes,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("info", &self.raw.info)
            .finish_non_exhaustive()
    }
}

impl SnapshotReader {
    pub(super) fn open(raw: RawSnapshot) -> Result<Self, SnapshotError> {
        let mut reader = Self {
            raw,
            position: 0,
            decoder: Decoder::new(),
            meta: Bytes::new(),
            block: Bytes::new(),
            buffer: vec![0; SNAPSHOT_BLOCK_BYTES],
        };
        match reader.next_part()? {
            Part::Header(header)
                if (header.partition, header.log_id)
                    == (reader.raw.info.partition, reader.raw.info.log_id) =>
            {
                reader.meta = header.meta;
                Ok(reader)
            }
            _ => Err(reader.damaged(0, "the header is of another snapshot")),
        }
    }

    /// What was given to [`super::SnapshotStore::create`].
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// The snapshot.
    pub fn info(&self) -> &SnapshotInfo {
        &self.raw.info
    }

    fn damaged(&self, position: u64, what: &str) -> SnapshotError {
        SnapshotError::Damaged {
            file: self.raw.info.path.display().to_string(),
            position,
            what: what.to_owned(),
        }
    }

    fn next_part(&mut self) -> Result<Part, SnapshotError> {
        loop {
            let part = self
                .decoder
                .next_part()
                .map_err(|(position, what)| self.damaged(position, what))?;
            if let Some(part) = part {
                return Ok(part);
            }
            let read = self.raw.read_at(&mut self.buffer, self.position)?;
            if read == 0 {
                return Err(self.damaged(self.position, "the file ends too early"));
            }
            self.position += read as u64;
            self.decoder.push(&self.buffer[..read]);
        }
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            if self.decoder.ended() {
                return Ok(0);
            }
            match self.next_part().map_err(into_io)? {
                Part::Block(block) => self.block = block,
                Part::End if self.position != self.raw.info.size_bytes => {
                    return Err(into_io(
                        self.damaged(self.position, "there are bytes after the end"),
                    ));
                }
                Part::End | Part::Header(_) => {}
            }
        }
        let read = buffer.len().min(self.block.len());
        self.block.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
