//! Looking at a data directory without changing it: what is in it, and what a node would make of it.
//!
//! Nothing is written: every file is opened for reading, and of the index, which sled changes even when it only reads, a
//! copy in the temporary directory is opened. The directory's lock is held shared meanwhile, so that no node moves what
//! is looked at.

mod index;
mod log;
mod report;
mod segments;

pub use report::{
    Finding, FrameCounts, IdentityInspection, IndexInspection, Inspection, MarkInspection,
    PartitionInspection, Place, RecordsInspection, SegmentEntries, SegmentInspection, Severity,
    SnapshotInspection, TermRun,
};

use crate::data_version::{self, DataVersion, FIRST_DATA_VERSION};
use crate::error::{OpenError, newer};
use crate::files::{Files, ReadOnlyFiles};
use crate::identity::Identity;
use crate::open::LOCK;
use crate::recovery::States;
use crate::segment;
use crate::snapshot;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

const REJOIN: &str = "move this directory away and rejoin the cluster under a new node id, or restore the file from a copy of this very directory";

/// Called while an inspection runs: bytes read, bytes in all, both about.
pub type InspectProgressHook = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to inspect.
#[derive(Clone)]
pub struct InspectOptions {
    /// Check every checksum, and the index against the segments; otherwise what is read is what opening reads.
    pub verify: bool,
    /// The newest data version that opening takes; one above it is a finding.
    pub data_version_max: u32,
    /// Told how far it is.
    pub on_progress: Option<InspectProgressHook>,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            verify: false,
            data_version_max: FIRST_DATA_VERSION,
            on_progress: None,
        }
    }
}

impl std::fmt::Debug for InspectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InspectOptions")
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

/// Why a directory was not inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Nothing of a data directory is there.
    #[error(
        "{path} is not a data directory: it has neither {} nor {}",
        data_version::NAME,
        segment::DIR
    )]
    NotADataDirectory {
        /// The directory.
        path: String,
    },
    /// A node has it open.
    #[error("{path} is in use by a node{}; stop it first, what it writes meanwhile would look like damage", holder.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// The lock file.
        path: String,
        /// The node's process, if it said.
        holder: Option<u32>,
    },
    /// It cannot be read.
    #[error("{operation} failed on {path}: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// Inspects a data directory that no node has open, and changes nothing in it. Blocks. While it runs, a node that is
/// started on the directory is refused, as by another node.
///
/// # Errors
/// If a node has the directory open, or if there is no such directory. What is wrong inside it is a [`Finding`].
pub fn inspect(dir: &Path, options: &InspectOptions) -> Result<Inspection, InspectError> {
    let io = |operation, path: &Path| {
        let path = path.display().to_string();
        move |source| InspectError::Io {
            operation,
            path,
            source,
        }
    };
    fs::read_dir(dir).map_err(io("open", dir))?;
    let has = |name| dir.join(name).exists();
    if !has(data_version::NAME) && !has(segment::DIR) {
        return Err(InspectError::NotADataDirectory {
            path: dir.display().to_string(),
        });
    }
    let _lock = lock(dir)?;
    let mut inspector = Inspector::new(dir, options).map_err(io("read", dir))?;
    inspector.look().map_err(io("read", dir))?;
    Ok(inspector.inspection)
}

/// Keeps nodes away while it is held; `None` if none was ever there.
fn lock(dir: &Path) -> Result<Option<fs::File>, InspectError> {
    let path = dir.join(LOCK);
    let io = |source| InspectError::Io {
        operation: "lock",
        path: path.display().to_string(),
        source,
    };
    let mut file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; it is held either way.
            let _ = file.read_to_string(&mut holder);
            Err(InspectError::InUse {
                path: path.display().to_string(),
                holder: holder.trim().parse().ok(),
            })
        }
        Err(fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

struct Inspector<'a> {
    dir: &'a Path,
    files: Arc<dyn Files>,
    options: &'a InspectOptions,
    inspection: Inspection,
    identity_missing: bool,
    bytes_done: u64,
    bytes_all: u64,
}

impl<'a> Inspector<'a> {
    fn new(dir: &'a Path, options: &'a InspectOptions) -> io::Result<Self> {
        Ok(Self {
            dir,
            files: Arc::new(ReadOnlyFiles::new(dir)),
            options,
            inspection: Inspection {
                dir: dir.to_owned(),
                data_version: None,
                in_use: None,
                identity: None,
                mark: None,
                synced_to: None,
                segments: Vec::new(),
                partitions: Vec::new(),
                snapshots: Vec::new(),
                index: index::look_at(dir)?,
                findings: Vec::new(),
                verified: options.verify,
            },
            identity_missing: false,
            bytes_done: 0,
            bytes_all: 0,
        })
    }

    fn say(
        &mut self,
        severity: Severity,
        file: impl Into<String>,
        position: Option<u64>,
        what: impl Into<String>,
        what_to_do: impl Into<String>,
    ) {
        self.inspection.findings.push(Finding {
            severity,
            file: file.into(),
            position,
            what: what.into(),
            what_to_do: what_to_do.into(),
        });
    }

    fn say_path(&mut self, severity: Severity, name: &str, what: &str, what_to_do: &str) {
        let file = self.files.path(name).display().to_string();
        self.say(severity, file, None, what, what_to_do);
    }

    /// What opening would be refused for.
    fn refused(&mut self, error: OpenError) {
        match error {
            OpenError::Damaged {
                file,
                position,
                what,
            } => self.say(Severity::Refused, file, Some(position), what, REJOIN),
            OpenError::Version {
                path,
                found,
                supported,
                release,
            } => {
                self.inspection.data_version = Some(found);
                self.say(
                    Severity::Refused,
                    path,
                    None,
                    format!(
                        "the data version is {found}, this release reads versions up to {supported}"
                    ),
                    format!("use {}", newer(&release)),
                );
            }
            OpenError::Io { file, source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
                let what_to_do = "move it away";
                self.say(
                    Severity::Refused,
                    file,
                    None,
                    source.to_string(),
                    what_to_do,
                );
            }
            OpenError::Io {
                operation,
                file,
                source,
            } => self.say(
                Severity::Refused,
                file,
                None,
                format!("{operation} failed: {source}"),
                "check the disk",
            ),
            other @ (OpenError::Locked { .. } | OpenError::Index { .. }) => {
                let dir = self.dir.display().to_string();
                self.say(Severity::Refused, dir, None, other.to_string(), REJOIN);
            }
        }
    }

    fn read(&mut self, bytes: u64) {
        self.bytes_done += bytes;
        if let Some(hook) = &self.options.on_progress {
            hook(self.bytes_done.min(self.bytes_all), self.bytes_all);
        }
    }

    fn look(&mut self) -> io::Result<()> {
        match Identity::load(&*self.files) {
            Ok(identity) => {
                self.identity_missing = identity.is_none();
                self.inspection.identity = identity.map(|identity| IdentityInspection {
                    cluster_id: identity.cluster_id,
                    cluster_name: identity.cluster_name,
                    node_id: identity.node_id,
                    node_uuid: identity.node_uuid,
                    members_bytes: identity.members.len(),
                });
            }
            Err(error) => self.refused(error),
        }
        let snapshots = match self.files.list(snapshot::DIR) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        self.bytes_all = self.bytes_to_read(&snapshots)?;
        let mut states = States::new();
        match DataVersion::load(&*self.files, self.options.data_version_max) {
            Ok(Some(version)) => {
                self.inspection.data_version = Some(version.version);
                self.inspection.in_use = Some(version.in_use);
                states = self.log(version)?;
            }
            Ok(None) => {
                let what = "the data version is missing, though the directory was in use";
                self.say_path(Severity::Refused, data_version::NAME, what, REJOIN);
            }
            Err(error) => self.refused(error),
        }
        for name in &snapshots {
            self.snapshot(name)?;
        }
        self.reach(&states, &snapshots);
        self.remarks();
        self.bytes_done = self.bytes_all;
        self.read(0);
        Ok(())
    }

    /// Whether the frames behind footers are read too: a start does that when it has to build the index anew.
    fn reads_all_segments(&self) -> bool {
        let index = &self.inspection.index;
        self.options.verify || !index.present || index.rebuild_marked
    }

    /// What a progress bar counts to.
    fn bytes_to_read(&self, snapshots: &[String]) -> io::Result<u64> {
        if !self.options.verify {
            return Ok(0);
        }
        let mut bytes = 0;
        let segments = self.files.list(segment::DIR).unwrap_or_default();
        for name in &segments {
            // Once for the frames, once to where the index leads.
            bytes += 2 * fs::metadata(self.dir.join(segment::DIR).join(name))?.len();
        }
        for name in snapshots {
            bytes += fs::metadata(self.dir.join(snapshot::DIR).join(name))?.len();
        }
        Ok(bytes)
    }

    fn snapshot(&mut self, listed: &str) -> io::Result<()> {
        let name = format!("{}/{listed}", snapshot::DIR);
        if !listed.ends_with(".snapshot") {
            let (what, what_to_do) = match listed.ends_with(".tmp") {
                true => (
                    "a snapshot that was not finished",
                    "nothing: the next start removes it",
                ),
                false => (
                    "not a snapshot in use, such as a damaged one that was set aside",
                    "look at it, or remove it",
                ),
            };
            self.say_path(Severity::Note, &name, what, what_to_do);
            return Ok(());
        }
        let files = self.files.clone();
        let whole = self.options.verify;
        let verdict = snapshot::verify(&*files, &name, whole, &mut |bytes| self.read(bytes))?;
        let file = files.path(&name).display().to_string();
        let misnamed = verdict
            .header
            .is_some_and(|(partition, id)| snapshot::file_name(partition, id) != name);
        let fault = verdict.fault.or(misnamed.then(|| {
            let what = "the file's name is another snapshot's".to_owned();
            (0, what)
        }));
        self.inspection.snapshots.push(SnapshotInspection {
            file: file.clone(),
            partition: verdict.header.map(|(partition, _)| partition),
            last: verdict.header.map(|(_, id)| id),
            size_bytes: verdict.size_bytes,
            checksum_ok: fault.is_none(),
        });
        if let Some((position, what)) = fault {
            let what_to_do =
                "nothing: the node sets it aside and uses an older one, the log, or another node's";
            self.say(Severity::Repaired, file, Some(position), what, what_to_do);
        }
        Ok(())
    }

    /// Whether the state can be made from the snapshots that are whole and the log that is kept.
    fn reach(&mut self, states: &States, names: &[String]) {
        for (partition, state) in states {
            let whole =
                self.inspection.snapshots.iter().filter(|snapshot| {
                    snapshot.checksum_ok && snapshot.partition == Some(*partition)
                });
            let newest = whole
                .filter_map(|snapshot| snapshot.last)
                .max_by_key(|id| id.index);
            let Err(missing) = snapshot::to_replay(state, newest.map(|id| id.index)) else {
                continue;
            };
            let lost = snapshot::lost_file(names, *partition, missing.start);
            let file = self.files.path(&lost).display().to_string();
            // There is no older one to use: what was said of it would promise too much.
            let findings = &mut self.inspection.findings;
            findings.retain(|finding| {
                finding.severity != Severity::Repaired
                    || snapshot::place_of_path(&finding.file)
                        .is_none_or(|(of, id)| of != *partition || id.index < missing.start)
            });
            let what = snapshot::describe(&missing, *partition);
            self.say(Severity::Refused, file, Some(0), what, REJOIN);
        }
    }

    /// What can be seen from names alone.
    fn remarks(&mut self) {
        let used = self.inspection.in_use == Some(true);
        let index = crate::shared::INDEX_DIR;
        if used && !self.inspection.index.present {
            let what = "the index is missing";
            let what_to_do = "nothing: the next start builds it anew from the segments, and derives the records again";
            self.say_path(Severity::Repaired, index, what, what_to_do);
        }
        if self.inspection.index.rebuild_marked {
            let what = "a lookup found the index damaged";
            let what_to_do = "nothing: the next start builds it anew from the segments, and derives the records again";
            self.say_path(
                Severity::Repaired,
                crate::shared::REBUILD_INDEX,
                what,
                what_to_do,
            );
        }
        // The worst first, as they will be read.
        let findings = &mut self.inspection.findings;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }
}
