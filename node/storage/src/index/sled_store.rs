//! The index on sled 0.34.7.
//!
//! What sled does not promise is asked of it elsewhere: its file is fdatasynced here, and whatever damage it answers or
//! panics with is a fault that leads to a rebuild.

use super::{Changes, IndexFault, KeyValue};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SEGMENT_BYTES: usize = 4 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct SledStore {
    db: sled::Db,
    dir: PathBuf,
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
        let db = guarded(|| {
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
            db,
            dir: dir.to_owned(),
        })
    }
}

/// sled panics on some damage; a panic here says as much as an error.
fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexFault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(IndexFault::Disk(error.kind(), error.to_string())),
        Ok(Err(error)) => Err(IndexFault::Damage(error.to_string())),
        Err(panic) => Err(IndexFault::Damage(format!(
            "sled panicked: {}",
            crate::error::panic_message(&*panic)
        ))),
    }
}

impl KeyValue for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexFault> {
        guarded(|| Ok(self.db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        range: Range<Vec<u8>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexFault> {
        guarded(|| {
            for item in self.db.range(range) {
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
        guarded(|| self.db.apply_batch(batch))
    }

    fn sync(&self) -> Result<(), IndexFault> {
        guarded(|| self.db.flush())?;
        let path = self.dir.join("db");
        // sled's flush ends in sync_file_range, which leaves the disk's cache and the file's size unsynced.
        fs::File::open(&path)
            .and_then(|file| file.sync_data())
            .and_then(|()| fs::File::open(&self.dir)?.sync_all())
            .map_err(|error| {
                let reason = format!("fdatasync of {} failed: {error}", path.display());
                IndexFault::Disk(error.kind(), reason)
            })
    }
}
