//! What the handles and the threads of one storage share.

use crate::data_version::DataVersion;
use crate::engine::Engine;
use crate::error::{FatalError, ReadError, WriteError};
use crate::files::Files;
use crate::identity::Identity;
use crate::index::{Index, IndexFault};
use crate::indexer::IndexQueue;
use crate::options::Options;
use crate::partition::Partition;
use crate::segment_files::SegmentFiles;
use crate::snapshot::Catalogue;
use crate::tail::TailBudget;
use crate::write_queue::WriteQueue;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) const INDEX_DIR: &str = "index";
/// Its presence makes the next opening build the index anew.
pub(crate) const REBUILD_INDEX: &str = "rebuild-index";

pub(crate) struct Shared {
    pub files: Arc<dyn Files>,
    pub options: Options,
    pub engine: Mutex<Engine>,
    /// Taken out when closing, so that the database is given back although handles live on.
    pub index: RwLock<Option<Index>>,
    pub queue: WriteQueue,
    pub index_queue: IndexQueue,
    pub partitions: RwLock<BTreeMap<u32, Arc<Partition>>>,
    pub tail: Mutex<TailBudget>,
    pub segments: SegmentFiles,
    pub catalogue: Catalogue,
    pub identity: Mutex<Option<Identity>>,
    pub version: Mutex<DataVersion>,
    fatal: OnceLock<FatalError>,
    closed: AtomicBool,
    /// Whether threads drive the writer and the indexer; otherwise [`crate::Storage::step`] does.
    pub threaded: bool,
    /// Notified when the log became durable further, the index took a step, or the storage failed.
    pub progress: Progress,
}

#[derive(Default)]
pub(crate) struct Progress {
    lock: Mutex<()>,
    changed: Condvar,
}

impl Progress {
    pub(crate) fn notify(&self) {
        // The lock orders this after a waiter's check of its condition.
        drop(self.lock.lock());
        self.changed.notify_all();
    }
}

pub(crate) struct Parts {
    pub files: Arc<dyn Files>,
    pub options: Options,
    pub engine: Engine,
    pub index: Index,
    pub index_queue: IndexQueue,
    pub partitions: BTreeMap<u32, Arc<Partition>>,
    pub segments: SegmentFiles,
    pub catalogue: Catalogue,
    pub identity: Option<Identity>,
    pub version: DataVersion,
    pub threaded: bool,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            files: parts.files,
            tail: Mutex::new(TailBudget::new(parts.options.tail_bytes)),
            options: parts.options,
            engine: Mutex::new(parts.engine),
            index: RwLock::new(Some(parts.index)),
            queue: WriteQueue::default(),
            index_queue: parts.index_queue,
            partitions: RwLock::new(parts.partitions),
            segments: parts.segments,
            catalogue: parts.catalogue,
            identity: Mutex::new(parts.identity),
            version: Mutex::new(parts.version),
            fatal: OnceLock::new(),
            closed: AtomicBool::new(false),
            threaded: parts.threaded,
            progress: Progress::default(),
        }
    }

    pub(crate) fn fatal(&self) -> Option<&FatalError> {
        self.fatal.get()
    }

    /// Records the first fatal error and tells whoever waits.
    pub(crate) fn fail(&self, error: FatalError) -> FatalError {
        if self.fatal.set(error.clone()).is_ok() {
            // On a disk that works, full or not, the index is closed as usual.
            if !matches!(error, FatalError::IndexDamaged { .. })
                && !error.is_disk_full()
                && let Some(index) = &*self.index.read()
            {
                index.forget();
            }
            tracing::error!(%error, "the storage has failed and refuses everything from now on");
            if let Some(hook) = &self.options.on_fatal {
                hook(&error);
            }
        }
        for operation in self.queue.abandon() {
            operation.finish(Err(WriteError::Fatal(error.clone())));
        }
        self.index_queue.wake();
        self.progress.notify();
        self.fatal.get().cloned().unwrap_or(error)
    }

    /// The index cannot be trusted any more: the next opening builds it anew. A full disk is not the index's fault: it is
    /// as whole as after a crash.
    pub(crate) fn fail_index(&self, fault: IndexFault) -> FatalError {
        let error = match fault {
            IndexFault::Damage(reason) => FatalError::IndexDamaged { reason },
            IndexFault::Disk {
                operation,
                kind,
                reason,
            } => {
                let index = self.files.path(INDEX_DIR);
                FatalError::io(operation, index.display(), io::Error::new(kind, reason))
            }
        };
        if error.is_disk_full() {
            return self.fail(error);
        }
        let marked = self
            .files
            .create(REBUILD_INDEX)
            .and_then(|file| file.sync());
        if let Err(error) = marked.and_then(|()| self.files.sync_dir("")) {
            tracing::error!(%error, "the index could not be marked for a rebuild; remove its directory by hand");
        }
        self.fail(error)
    }

    pub(crate) fn alive(&self) -> Result<(), ReadError> {
        if let Some(error) = self.fatal() {
            return Err(error.clone().into());
        }
        if self.is_closed() {
            Err(ReadError::Closed)
        } else {
            Ok(())
        }
    }

    pub(crate) fn index(&self) -> Result<Index, ReadError> {
        self.alive()?;
        self.index.read().clone().ok_or(ReadError::Closed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The first call says `true`.
    pub(crate) fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn partition(&self, id: u32) -> Arc<Partition> {
        if let Some(partition) = self.partitions.read().get(&id) {
            return partition.clone();
        }
        self.partitions
            .write()
            .entry(id)
            .or_insert_with(|| Arc::new(Partition::empty(id)))
            .clone()
    }

    /// Waits until `done`, driving the work itself if no thread does.
    pub(crate) fn wait_until(&self, mut done: impl FnMut() -> bool) -> Result<(), FatalError> {
        loop {
            if let Some(error) = self.fatal() {
                return Err(error.clone());
            }
            if done() {
                return Ok(());
            }
            if !self.threaded {
                if !self.step() && !done() && self.fatal().is_none() {
                    return Ok(());
                }
                continue;
            }
            let mut guard = self.progress.lock.lock();
            if !done() && self.fatal().is_none() {
                // The time-out only guards against a thread that died without a word.
                self.progress
                    .changed
                    .wait_for(&mut guard, Duration::from_secs(1));
            }
        }
    }

    /// One step of the writer, then of the indexer, on this thread.
    pub(crate) fn step(&self) -> bool {
        let wrote = self.write_step();
        let indexed = self.index_step();
        wrote || indexed
    }
}
