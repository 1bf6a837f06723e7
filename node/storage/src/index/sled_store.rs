//! The index on sled 0.34.7.
//!
//! What sled does not promise is asked of it elsewhere: its file is fdatasynced here, and whatever damage it answers or
//! panics with is a fault that leads to a rebuild. Such a panic is caught and its message kept in the fault, so the
//! panic hook says nothing of it: a panic in a node's log is one that nobody expected.

use super::{Changes, IndexFault, KeyValue};
use std::cell::Cell;
use std::fs;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SEGMENT_BYTES: usize = 4 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct SledStore {
    /// Only dropping takes it out.
    db: Option<sled::Db>,
    dir: PathBuf,
    /// The disk has failed: the database is not touched again, and never dropped.
    forgotten: AtomicBool,
}

impl SledStore {
    /// Opens or creates the database in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, IndexFault> {
        let blobs = dir.join("blobs");
        if fs::read_dir(&blobs).is_ok_and(|mut entries| entries.next().is_some()) {
            tracing::error!(dir = %blobs.display(), "the index has blobs, which are never synced; it will be rebuilt");
            return Err(IndexFault::Damage(format!(
                "{} is not empty",
                blobs.display()
            )));
        }
        let db = guarded("open", || {
            sled::Config::new()
                .path(dir)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(cache_bytes)
                .use_compression(false)
                .flush_every_ms(Some(
                    u64::try_from(FLUSH_INTERVAL.as_millis()).expect("half a second"),
                ))
                .open()
        })?;
        Ok(Self {
            db: Some(db),
            dir: dir.to_owned(),
            forgotten: AtomicBool::new(false),
        })
    }

    fn guarded<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, IndexFault> {
        let db = self.db.as_ref().expect("only dropping takes it out");
        guarded(operation, || run(db))
    }
}

impl Drop for SledStore {
    /// Dropping the database writes what it still holds and syncs, and panics when the disk refuses. After the disk has
    /// failed nothing is asked of it again: the process ends, and the system takes back its memory and its lock. While a
    /// directory is opened it is dropped whatever happens: what it holds would keep the space that a rebuild needs.
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if *self.forgotten.get_mut() {
            std::mem::forget(db);
        } else if let Err(panic) = caught(|| drop(db)) {
            tracing::error!(
                dir = %self.dir.display(),
                reason = crate::error::panic_message(&*panic),
                "the index did not close cleanly; what it lacks is replayed by the next start"
            );
        }
    }
}

thread_local! {
    /// Whether a panic on this thread is caught here.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Makes the process's panic hook say nothing of panics that are caught here.
fn quiet_hook() {
    let said = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !CAUGHT.get() {
            said(info);
        }
    }));
}

/// Runs what may panic, and keeps the panic hook quiet about it.
fn caught<T>(run: impl FnOnce() -> T) -> std::thread::Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(quiet_hook);
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(outer);
    result
}

/// sled panics on some damage; a panic here says as much as an error.
fn guarded<T>(
    operation: &'static str,
    run: impl FnOnce() -> sled::Result<T>,
) -> Result<T, IndexFault> {
    match caught(run) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(IndexFault::Disk {
            operation,
            kind: error.kind(),
            reason: error.to_string(),
        }),
        Ok(Err(error)) => Err(IndexFault::Damage(error.to_string())),
        Err(panic) => Err(IndexFault::Damage(format!(
            "sled panicked: {}",
            crate::error::panic_message(&*panic)
        ))),
    }
}

impl KeyValue for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexFault> {
        self.guarded("read", |db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        range: Range<Vec<u8>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexFault> {
        self.guarded("read", |db| {
            for item in db.range(range) {
                let (key, value) = item?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, changes: Changes) -> Result<(), IndexFault> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes.0 {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        // It reads pages too, and does not tell which of the two failed.
        self.guarded("update", |db| db.apply_batch(batch))
    }

    fn sync(&self) -> Result<(), IndexFault> {
        self.guarded("flush", |db| db.flush())?;
        let path = self.dir.join("db");
        // sled's flush ends in sync_file_range, which leaves the disk's cache and the file's size unsynced.
        fs::File::open(&path)
            .and_then(|file| file.sync_data())
            .and_then(|()| fs::File::open(&self.dir)?.sync_all())
            .map_err(|error| IndexFault::Disk {
                operation: "fdatasync",
                kind: error.kind(),
                reason: error.to_string(),
            })
    }

    fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Everything below is one test, since the panic hook is the process's.
    #[test]
    fn what_is_caught_is_not_printed_and_what_is_forgotten_not_closed() {
        let dir = tempfile::tempdir().unwrap();
        let printed = std::sync::Arc::new(AtomicBool::new(false));
        let hook = printed.clone();
        panic::set_hook(Box::new(move |_| hook.store(true, Ordering::Relaxed)));
        quiet_hook();
        let fault = guarded::<()>("read", || panic!("a page is not there"));
        let fault = fault.unwrap_err().reason();
        assert_eq!(fault, "sled panicked: a page is not there");
        assert!(!printed.load(Ordering::Relaxed));
        let refused = || Err(sled::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let fault = guarded::<()>("read", refused).unwrap_err();
        assert!(
            matches!(
                fault,
                IndexFault::Disk {
                    operation: "read",
                    ..
                }
            ),
            "{fault:?}"
        );

        // Who has the database open has its lock.
        let store = SledStore::open(&dir.path().join("closed"), 1 << 20).unwrap();
        drop(store);
        // A thread of sled's may be the last that holds it.
        let deadline = Instant::now() + Duration::from_secs(30);
        let store = loop {
            match SledStore::open(&dir.path().join("closed"), 1 << 20) {
                Ok(store) => break store,
                Err(fault) => assert!(Instant::now() < deadline, "{fault:?}"),
            }
            std::thread::yield_now();
        };
        store.forget();
        drop(store);
        assert!(SledStore::open(&dir.path().join("closed"), 1 << 20).is_err());
        let _ = panic::take_hook();
    }
}
