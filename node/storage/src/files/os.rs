//! The operating system's files.

use super::remover::Remover;
use super::{File, Files};
use crate::options::DiskSpace;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files below one directory.
#[derive(Debug)]
pub(crate) struct OsFiles {
    root: PathBuf,
    remover: Remover,
}

impl OsFiles {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            remover: Remover::new(root),
        }
    }

    #[cfg(test)]
    pub(super) fn remover(&self) -> &Remover {
        &self.remover
    }
}

impl Files for OsFiles {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.path(dir))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        super::list(&self.path(dir))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        super::keep_whole(&file)?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn remove_gradually(&self, name: &str) -> io::Result<()> {
        self.remover.remove(&self.path(name))
    }

    fn resume_removing(&self) -> io::Result<()> {
        self.remover.resume()
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.path(dir))?.sync_all()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(&self.root)?;
        Ok(DiskSpace {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], position + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn drop_cached(&self) {
        let advice = rustix::fs::Advice::DontNeed;
        // Advice: where it is not taken, the memory answers.
        rustix::fs::fadvise(self, 0, None, advice).ok();
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let before = self.metadata()?.len();
        let reserved = rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, size);
        reserved.map_err(|error| {
            // What was taken before the disk was full would starve everything else on it.
            match self.set_len(before) {
                Ok(()) => error.into(),
                Err(error) => error,
            }
        })
    }
}
