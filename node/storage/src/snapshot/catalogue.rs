//! The snapshots there are. The directory is the catalogue: a file under its final name was synced before it got it.

use super::format::{Decoder, HEADER_BYTES, Part};
use super::thinning;
use super::{DIR, RawSnapshot, SnapshotReader, SnapshotReceiver, SnapshotWriter};
use crate::entry::LogId;
use crate::error::{OpenError, SnapshotError};
use crate::files::{Files, read_up_to};
use crate::limits::SNAPSHOT_META_BYTES_MAX;
use crate::storage::Owner;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One snapshot in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The partition whose state it holds.
    pub partition: u32,
    /// The last entry it contains.
    pub log_id: LogId,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// The file.
    pub path: PathBuf,
}

impl SnapshotInfo {
    pub(super) fn new(files: &dyn Files, partition: u32, log_id: LogId, size_bytes: u64) -> Self {
        let path = files.path(&file_name(partition, log_id));
        Self {
            partition,
            log_id,
            size_bytes,
            path,
        }
    }

    pub(super) fn name(&self) -> String {
        file_name(self.partition, self.log_id)
    }
}

pub(crate) fn file_name(partition: u32, id: LogId) -> String {
    format!(
        "{DIR}/p{partition:010}-i{:020}-t{}-n{}.snapshot",
        id.index, id.term, id.node_id
    )
}

/// The partition and the last entry of a snapshot, by its file's name, also after it was set aside.
pub(crate) fn place_of(name: &str) -> Option<(u32, LogId)> {
    let name = name.strip_suffix(".damaged").unwrap_or(name);
    let mut parts = name.strip_suffix(".snapshot")?.split('-');
    let mut part = |letter| parts.next()?.strip_prefix(letter);
    let partition = part('p')?.parse().ok()?;
    let index = part('i')?.parse().ok()?;
    let term = part('t')?.parse().ok()?;
    let node_id = part('n')?.parse().ok()?;
    let id = LogId {
        term,
        node_id,
        index,
    };
    Some((partition, id))
}

/// As [`place_of`], for a path.
pub(crate) fn place_of_path(path: &str) -> Option<(u32, LogId)> {
    place_of(path.rsplit('/').next()?)
}

/// What is there, by partition and place in the log.
pub(crate) struct Catalogue {
    snapshots: Mutex<BTreeMap<(u32, u64, u64, u64), SnapshotInfo>>,
    temporary_files: AtomicU64,
}

fn place(info: &SnapshotInfo) -> (u32, u64, u64, u64) {
    (
        info.partition,
        info.log_id.index,
        info.log_id.term,
        info.log_id.node_id,
    )
}

impl Catalogue {
    /// Reads the directory; removes what never got its final name, sets aside what has no valid header.
    pub(crate) fn open(files: &dyn Files) -> Result<Self, OpenError> {
        let io = |operation, name: &str| {
            let file = files.path(name).display().to_string();
            move |error| OpenError::io(operation, file, error)
        };
        let mut snapshots = BTreeMap::new();
        for listed in files.list(DIR).map_err(io("list", DIR))? {
            let name = format!("{DIR}/{listed}");
            if listed.ends_with(".tmp") {
                files.remove(&name).map_err(io("remove", &name))?;
                continue;
            }
            if !listed.ends_with(".snapshot") {
                continue;
            }
            match read_header(files, &name).map_err(io("read", &name))? {
                Some(info) if info.name() == name => {
                    snapshots.insert(place(&info), info);
                }
                _ => {
                    tracing::error!(file = %files.path(&name).display(), "the snapshot's header is damaged; set aside");
                    files
                        .rename(&name, &format!("{name}.damaged"))
                        .map_err(io("rename", &name))?;
                }
            }
        }
        Ok(Self {
            snapshots: Mutex::new(snapshots),
            temporary_files: AtomicU64::new(0),
        })
    }

    pub(super) fn temporary_name(&self) -> String {
        format!(
            "{DIR}/{}.tmp",
            self.temporary_files.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn list(&self, partition: u32) -> Vec<SnapshotInfo> {
        let snapshots = self.snapshots.lock();
        snapshots
            .values()
            .filter(|info| info.partition == partition)
            .cloned()
            .collect()
    }

    /// Gives a synced file its final name, makes that durable, and removes what is now surplus.
    pub(super) fn publish(
        &self,
        files: &dyn Files,
        temporary: &str,
        info: &SnapshotInfo,
        history: &[Range<u64>],
    ) -> Result<(), SnapshotError> {
        let io = |operation, name: &str| {
            let file = files.path(name).display().to_string();
            move |source| SnapshotError::Io {
                operation,
                file,
                source,
            }
        };
        let name = info.name();
        files
            .rename(temporary, &name)
            .map_err(io("rename", temporary))?;
        files.sync_dir(DIR).map_err(io("sync", DIR))?;
        self.snapshots.lock().insert(place(info), info.clone());

        let mut indexes: Vec<u64> = self
            .list(info.partition)
            .iter()
            .map(|info| info.log_id.index)
            .collect();
        indexes.dedup();
        let surplus = thinning::surplus(&indexes, history);
        for old in self
            .list(info.partition)
            .into_iter()
            .filter(|old| surplus.contains(&old.log_id.index))
        {
            self.snapshots.lock().remove(&place(&old));
            files
                .remove_gradually(&old.name())
                .map_err(io("remove", &old.name()))?;
        }
        Ok(())
    }

    pub(super) fn contains(&self, info: &SnapshotInfo) -> bool {
        self.snapshots.lock().contains_key(&place(info))
    }
}

/// The snapshot a file's header names; `None` if that is damaged.
fn read_header(files: &dyn Files, name: &str) -> std::io::Result<Option<SnapshotInfo>> {
    let file = files.open(name)?;
    let size_bytes = file.size()?;
    let mut decoder = Decoder::new();
    let mut position = 0;
    while position < (HEADER_BYTES + SNAPSHOT_META_BYTES_MAX) as u64 {
        let bytes = read_up_to(&*file, position, 64 << 10)?;
        position += bytes.len() as u64;
        decoder.push(&bytes);
        match decoder.next_part() {
            Ok(Some(Part::Header(header))) => {
                return Ok(Some(SnapshotInfo::new(
                    files,
                    header.partition,
                    header.log_id,
                    size_bytes,
                )));
            }
            Ok(None) if !bytes.is_empty() => {}
            _ => break,
        }
    }
    Ok(None)
}

/// The catalogue of snapshots; cheap to clone.
#[derive(Clone)]
pub struct SnapshotStore {
    pub(crate) owner: Arc<Owner>,
}

impl std::fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotStore").finish_non_exhaustive()
    }
}

impl SnapshotStore {
    /// Begins a snapshot built from this node's own state: `log_id` is the last entry it contains, `meta` is handed back
    /// by [`SnapshotReader::meta`] and has at most [`SNAPSHOT_META_BYTES_MAX`] bytes.
    pub fn create(
        &self,
        partition: u32,
        log_id: LogId,
        meta: Bytes,
    ) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(self.owner.clone(), partition, log_id, &meta)
    }

    /// Begins to receive the bytes of a snapshot file from a peer.
    pub fn receive(&self, partition: u32) -> Result<SnapshotReceiver, SnapshotError> {
        SnapshotReceiver::begin(self.owner.clone(), partition)
    }

    /// The newest snapshot.
    pub fn newest(&self, partition: u32) -> Option<SnapshotInfo> {
        self.list(partition).pop()
    }

    /// All snapshots, ascending by index.
    pub fn list(&self, partition: u32) -> Vec<SnapshotInfo> {
        self.owner.shared.catalogue.list(partition)
    }

    /// Opens a snapshot for reading its state.
    pub fn open(&self, info: &SnapshotInfo) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(self.open_raw(info)?)
    }

    /// Opens the file's raw bytes, for sending them to a peer; stays readable if the snapshot is pruned meanwhile.
    pub fn open_raw(&self, info: &SnapshotInfo) -> Result<RawSnapshot, SnapshotError> {
        let shared = &self.owner.shared;
        let file = info.path.display().to_string();
        if !shared.catalogue.contains(info) {
            return Err(SnapshotError::Gone { file });
        }
        match shared.files.open(&info.name()) {
            Ok(opened) => Ok(RawSnapshot::new(opened, info.clone())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(SnapshotError::Gone { file })
            }
            Err(source) => Err(SnapshotError::Io {
                operation: "open",
                file,
                source,
            }),
        }
    }

    /// Takes a damaged snapshot out of the catalogue; its file stays under the name with `.damaged` after it.
    pub fn set_aside(&self, info: &SnapshotInfo) -> Result<(), SnapshotError> {
        let shared = &self.owner.shared;
        shared.catalogue.snapshots.lock().remove(&place(info));
        let name = info.name();
        shared
            .files
            .rename(&name, &format!("{name}.damaged"))
            .map_err(|source| SnapshotError::Io {
                operation: "rename",
                file: info.path.display().to_string(),
                source,
            })
    }
}
