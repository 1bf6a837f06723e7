//! Snapshots as openraft handles them: always files, never bytes in memory.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use huntlog_machine::{FIRST_LEVEL, release_of};
use huntlog_proto::peer;
use huntlog_storage::{
    RawSnapshot, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotReceiver, SnapshotStore,
    Storage,
};
use prost::Message as _;
use tonic::Status;

use super::SnapshotMeta;
use super::peer_wire::{snapshot_meta_from_proto, snapshot_meta_to_proto};
use crate::limits;

/// The file of a snapshot.
pub struct SnapshotFile {
    store: SnapshotStore,
    state: State,
}

enum State {
    /// In the catalogue of this node.
    Kept(SnapshotInfo),
    /// Received from a peer; becomes part of the catalogue when it is
    /// installed, and not before: until then the log may hold entries that
    /// contradict it.
    Received(Box<SnapshotReceiver>),
}

impl SnapshotFile {
    pub(super) fn kept(store: SnapshotStore, info: SnapshotInfo) -> Self {
        Self {
            store,
            state: State::Kept(info),
        }
    }

    /// The size of the file.
    pub fn size_bytes(&self) -> u64 {
        match &self.state {
            State::Kept(info) => info.size_bytes,
            State::Received(receiver) => receiver.received_bytes(),
        }
    }

    /// Which releases can read a file that was received; one of this node's own
    /// was read before.
    pub(super) fn level(&self) -> io::Result<SnapshotLevel> {
        match &self.state {
            State::Kept(_) => Ok(SnapshotLevel::first()),
            State::Received(receiver) => SnapshotLevel::received(receiver),
        }
    }

    /// Opens the state for reading, after putting a received file into the
    /// catalogue, verified and synced, in a data directory of `storage` that is
    /// marked as one of the file's feature level. Blocks.
    pub(super) fn open(self, storage: &Storage) -> io::Result<SnapshotReader> {
        let info = match self.state {
            State::Kept(info) => info,
            State::Received(receiver) => {
                let SnapshotLevel { level, release } = SnapshotLevel::received(&receiver)?;
                storage
                    .raise_data_version(level, &release)
                    .map_err(io::Error::other)?;
                receiver.finish().map_err(io::Error::other)?
            }
        };
        self.store.open(&info).map_err(io::Error::other)
    }
}

/// What is stored beside the machine's state: what openraft knows of it, and
/// which releases can read it.
pub(crate) fn encode_meta(meta: &SnapshotMeta, level: u32) -> Bytes {
    let mut message = snapshot_meta_to_proto(meta);
    if level > FIRST_LEVEL {
        message.feature_level = level;
        message.feature_release = release_of(level).unwrap_or_default().to_owned();
    }
    message.encode_to_vec().into()
}

pub(crate) fn decode_meta(bytes: &Bytes) -> io::Result<SnapshotMeta> {
    snapshot_meta_from_proto(decode_description(bytes)?).map_err(|error| invalid_meta(&error))
}

fn decode_description(bytes: &Bytes) -> io::Result<peer::SnapshotMeta> {
    peer::SnapshotMeta::decode(bytes.clone()).map_err(|error| invalid_meta(&error))
}

fn invalid_meta(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the snapshot's description does not decode: {error}"),
    )
}

/// Which releases can read a snapshot, by its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotLevel {
    /// The feature level of the state.
    pub(crate) level: u32,
    /// The first release that reads it; empty at the first level.
    pub(crate) release: String,
}

impl SnapshotLevel {
    fn first() -> Self {
        Self {
            level: FIRST_LEVEL,
            release: String::new(),
        }
    }

    fn received(receiver: &SnapshotReceiver) -> io::Result<Self> {
        receiver.meta().map_or_else(|| Ok(Self::first()), Self::of)
    }

    /// As the description `meta` tells.
    pub(crate) fn of(meta: &Bytes) -> io::Result<Self> {
        let message = decode_description(meta)?;
        Ok(Self {
            level: message.feature_level.max(FIRST_LEVEL),
            release: message.feature_release,
        })
    }
}

/// The bytes of a snapshot file, chunk by chunk. A read error ends the stream;
/// the receiver then finds the file short.
pub(super) fn chunks(file: SnapshotFile) -> impl Stream<Item = Bytes> + Send + 'static {
    enum Progress {
        Closed(SnapshotFile),
        At(std::sync::Arc<RawSnapshot>, u64),
    }
    stream::unfold(Progress::Closed(file), |progress| async move {
        let step = crate::blocking::spawn_blocking(move || {
            let (raw, position) = match progress {
                Progress::At(raw, position) => (raw, position),
                Progress::Closed(file) => match &file.state {
                    State::Kept(info) => (std::sync::Arc::new(file.store.open_raw(info)?), 0),
                    State::Received(_) => return Ok(None),
                },
            };
            let mut chunk = BytesMut::zeroed(limits::SNAPSHOT_CHUNK_BYTES);
            let read = raw.read_at(&mut chunk, position)?;
            if read == 0 {
                return Ok(None);
            }
            chunk.truncate(read);
            Ok(Some((
                chunk.freeze(),
                Progress::At(raw, position + read as u64),
            )))
        })
        .await;
        match step {
            Ok(Ok(step)) => step,
            Ok(Err::<_, SnapshotError>(error)) => {
                tracing::warn!(%error, "sending a snapshot stops: it can not be read");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "sending a snapshot stops: the reader panicked");
                None
            }
        }
    })
}

/// A snapshot being received.
pub(super) struct SnapshotReception {
    store: SnapshotStore,
    receiver: Box<SnapshotReceiver>,
    expected_bytes: u64,
}

impl SnapshotReception {
    pub(super) fn start(
        store: &SnapshotStore,
        partition: u32,
        expected_bytes: u64,
    ) -> Result<Self, Status> {
        let receiver = store.receive(partition).map_err(|error| refused(&error))?;
        Ok(Self {
            store: store.clone(),
            receiver: Box::new(receiver),
            expected_bytes,
        })
    }

    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<(), Status> {
        let received = self.receiver.received_bytes() + chunk.len() as u64;
        if received > self.expected_bytes {
            return Err(Status::data_loss(format!(
                "the snapshot has {received} bytes and more, its sender announced {}",
                self.expected_bytes
            )));
        }
        crate::blocking::in_place(|| self.receiver.write(&chunk)).map_err(|error| refused(&error))
    }

    /// The received file, if it is of the size and the description announced.
    pub(super) fn finish(self, announced: &SnapshotMeta) -> Result<SnapshotFile, Status> {
        let received = self.receiver.received_bytes();
        if received != self.expected_bytes {
            return Err(Status::data_loss(format!(
                "the snapshot ended after {received} of {} bytes",
                self.expected_bytes
            )));
        }
        let described = self.receiver.meta().cloned().unwrap_or_default();
        if decode_meta(&described).ok().as_ref() != Some(announced) {
            return Err(Status::data_loss(
                "the snapshot's file describes another state than its sender announced",
            ));
        }
        Ok(SnapshotFile {
            store: self.store,
            state: State::Received(self.receiver),
        })
    }
}

fn refused(error: &SnapshotError) -> Status {
    Status::internal(format!("the snapshot can not be received: {error}"))
}
