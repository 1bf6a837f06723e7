//! The storage of one node: opening, closing, and the handles it gives out.

use crate::data_version::{DataVersion, NAME};
use crate::error::{FatalError, IdentityError, OpenError, panic_message};
use crate::identity::Identity;
use crate::options::{DiskSpace, OpenReport, Options};
use crate::partition::PartitionLog;
use crate::shared::Shared;
use crate::snapshot::SnapshotStore;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A node's storage; cheap to clone. Closed by [`Storage::close`], or when the last handle of any kind is dropped.
#[derive(Clone)]
pub struct Storage {
    pub(crate) owner: Arc<Owner>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// Owns the threads: they end when the last handle is gone.
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held open for its lock.
    lock: Mutex<Option<std::fs::File>>,
}

/// What a thread repeats until the storage is closed.
type Step = fn(&Shared);

impl Owner {
    pub(crate) fn start(
        shared: Shared,
        lock: Option<std::fs::File>,
    ) -> Result<Arc<Self>, OpenError> {
        let shared = Arc::new(shared);
        let mut threads = Vec::new();
        if shared.threaded {
            for (name, run) in [
                ("log-writer", run_writer as Step),
                ("log-indexer", run_indexer),
            ] {
                let shared = shared.clone();
                let run = move || {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&shared))) {
                        shared.fail(FatalError::Panicked {
                            thread: name,
                            reason: panic_message(&*panic),
                        });
                    }
                };
                let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
                threads.push(thread.map_err(|error| {
                    OpenError::io("start", format!("the {name} thread"), error)
                })?);
            }
        }
        Ok(Arc::new(Self {
            shared,
            threads: Mutex::new(threads),
            lock: Mutex::new(lock),
        }))
    }

    fn close(&self) -> Result<(), FatalError> {
        let shared = &self.shared;
        if shared.set_closed() {
            shared.queue.close();
            if !shared.threaded {
                while shared.step() {}
            }
            let mut threads = self.threads.lock();
            // The writer first: what it completes is work for the indexer.
            for (at, thread) in threads.drain(..).enumerate() {
                if at == 1 {
                    shared.index_queue.wake();
                }
                if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                    tracing::error!("a storage thread ended in a panic");
                }
            }
            if shared.fatal().is_none() {
                let index = shared.index.read().clone();
                if let Some(Err(fault)) = index.map(|index| index.sync()) {
                    shared.fail_index(fault);
                }
            }
            *shared.index.write() = None;
            *self.lock.lock() = None;
        }
        shared.fatal().map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`; a failure was logged when it happened.
        let _ = self.close();
    }
}

fn run_writer(shared: &Shared) {
    while shared.fatal().is_none() && shared.queue.wait() {
        shared.write_step();
    }
}

fn run_indexer(shared: &Shared) {
    while shared.fatal().is_none() && shared.index_queue.wait() {
        shared.index_step();
    }
}

impl Storage {
    pub(crate) fn from_owner(owner: Arc<Owner>) -> Self {
        Self { owner }
    }

    /// Opens the directory, creating it if needed, and starts the writer. Blocks.
    ///
    /// # Errors
    /// If another process has it open, if synced bytes are missing, if it was written by a release this one does not
    /// know, or if the disk fails. Nothing that was acknowledged is changed then.
    pub fn open(
        dir: &std::path::Path,
        options: Options,
    ) -> Result<(Storage, OpenReport), OpenError> {
        crate::open::open(dir, options)
    }

    /// Opens a simulated disk, with no thread: [`Storage::step`] does the work.
    ///
    /// # Errors
    /// As [`Storage::open`].
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        files: &crate::files::SimFiles,
        index: &crate::index::SimIndex,
        options: Options,
    ) -> Result<(Storage, OpenReport), OpenError> {
        crate::open::open_simulated(files, index, options)
    }

    /// Who the directory belongs to; `None` while nobody has said.
    pub fn identity(&self) -> Option<Identity> {
        self.owner.shared.identity.lock().clone()
    }

    /// Replaces the identity, durably. The node's id and uuid, and a cluster id that is not empty, never change. Blocks.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let shared = &self.owner.shared;
        if let Some(error) = shared.fatal() {
            return Err(error.clone().into());
        }
        let mut saved = shared.identity.lock();
        match identity.save(&*shared.files, saved.as_ref()) {
            Ok(()) => {
                *saved = Some(identity.clone());
                Ok(())
            }
            Err(IdentityError::Fatal(error)) => Err(shared.fail(error).into()),
            Err(error) => Err(error),
        }
    }

    /// The directory's data version.
    pub fn data_version(&self) -> u32 {
        self.owner.shared.version.lock().version
    }

    /// Raises the data version to `version`, which `release` is the first to read, durably; does nothing when it is that
    /// or higher. What releases of a lower version cannot read may be kept here from then on. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn raise_data_version(&self, version: u32, release: &str) -> Result<(), FatalError> {
        let shared = &self.owner.shared;
        let mut current = shared.version.lock();
        if current.version >= version {
            return Ok(());
        }
        if let Some(error) = shared.fatal() {
            return Err(error.clone());
        }
        let raised = DataVersion {
            version,
            release: release.to_owned(),
            ..current.clone()
        };
        match raised.save(&*shared.files) {
            Ok(()) => {
                *current = raised;
                Ok(())
            }
            Err(error) => {
                let file = shared.files.path(NAME).display().to_string();
                Err(shared.fail(FatalError::io("write", file, error)))
            }
        }
    }

    /// The partition's log; it is empty if nothing was written to it yet.
    pub fn partition(&self, id: u32) -> PartitionLog {
        PartitionLog::new(self.owner.clone(), self.owner.shared.partition(id))
    }

    /// Ids of the partitions that hold anything.
    pub fn partitions(&self) -> Vec<u32> {
        let partitions = self.owner.shared.partitions.read();
        let used = partitions.values().filter(|partition| {
            let live = partition.live.read();
            live.state.last.is_some() || live.state.vote.is_some()
        });
        used.map(|partition| partition.id).collect()
    }

    /// The snapshots.
    pub fn snapshots(&self) -> SnapshotStore {
        SnapshotStore {
            owner: self.owner.clone(),
        }
    }

    /// The first fatal error, after which every operation fails.
    pub fn fatal(&self) -> Option<FatalError> {
        self.owner.shared.fatal().cloned()
    }

    /// Operations queued and not yet taken by the writer.
    pub fn queued(&self) -> usize {
        self.owner.shared.queue.queued()
    }

    /// Room on the file system that holds the directory: warn long before there is none.
    pub fn disk_space(&self) -> std::io::Result<DiskSpace> {
        self.owner.shared.files.space()
    }

    /// Bytes of memory the tails of all partitions take.
    pub fn tail_bytes(&self) -> usize {
        self.owner.shared.tail.lock().bytes()
    }

    /// Writes what is queued, makes the index durable, joins the threads and gives the lock back; handles that are left
    /// answer that the storage is closed. Blocks.
    pub fn close(self) -> Result<(), FatalError> {
        self.owner.close()
    }

    /// Carries out one step of the writer and of the indexer on this thread; `false` if there was nothing to do.
    ///
    /// Only for storages that no thread drives; otherwise it does nothing.
    pub fn step(&self) -> bool {
        !self.owner.shared.threaded && self.owner.shared.step()
    }
}
