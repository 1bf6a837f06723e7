//! Receiving a snapshot file from a peer.

use super::catalogue::SnapshotInfo;
use super::format::{Decoder, Header, Part};
use super::writer::TemporaryFile;
use crate::error::SnapshotError;
use crate::storage::Owner;
use bytes::Bytes;
use std::sync::Arc;

/// Receives the raw bytes of a snapshot file, in order, and verifies them as they come; dropped, it leaves nothing.
pub struct SnapshotReceiver {
    partition: u32,
    file: TemporaryFile,
    decoder: Decoder,
    header: Option<Header>,
}

impl std::fmt::Debug for SnapshotReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReceiver")
            .field("received_bytes", &self.file.size)
            .finish_non_exhaustive()
    }
}

impl SnapshotReceiver {
    pub(super) fn begin(owner: Arc<Owner>, partition: u32) -> Result<Self, SnapshotError> {
        let file = TemporaryFile::create(owner)?;
        Ok(Self {
            partition,
            file,
            decoder: Decoder::new(),
            header: None,
        })
    }

    /// Takes the next bytes. After an error the rest is of no use. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.decoder.push(bytes);
        while let Some(part) = self
            .decoder
            .next_part()
            .map_err(|fault| self.damaged(fault.0, fault.1))?
        {
            if let Part::Header(header) = part {
                if header.partition != self.partition {
                    return Err(SnapshotError::WrongPartition {
                        file: self.file.path(),
                        found: header.partition,
                        asked: self.partition,
                    });
                }
                self.header = Some(header);
            }
        }
        self.file.append(bytes)
    }

    fn damaged(&self, position: u64, what: &str) -> SnapshotError {
        SnapshotError::Damaged {
            file: self.file.path(),
            position,
            what: what.to_owned(),
        }
    }

    /// Bytes taken so far.
    pub fn received_bytes(&self) -> u64 {
        self.file.size
    }

    /// The sender's meta, once it has arrived.
    pub fn meta(&self) -> Option<&Bytes> {
        self.header.as_ref().map(|header| &header.meta)
    }

    /// Verifies that the file is whole, syncs it and makes it visible. Blocks.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        if !self.decoder.ended() {
            return Err(self.damaged(
                self.decoder.position(),
                "the snapshot's end has not arrived",
            ));
        }
        let Some(header) = &self.header else {
            return Err(self.damaged(0, "the snapshot has no header"));
        };
        self.file.sync()?;
        let log_id = header.log_id;
        self.file.publish(self.partition, log_id)
    }
}
