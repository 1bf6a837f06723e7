//! A directory that is only looked at: whatever would change it is refused here, and by the operating system as well,
//! since every file is opened for reading.

use super::{File, Files};
use crate::options::DiskSpace;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files below one directory, for reading.
#[derive(Debug)]
pub(crate) struct ReadOnlyFiles {
    root: PathBuf,
}

impl ReadOnlyFiles {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }
}

fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the directory is only looked at",
    )
}

impl Files for ReadOnlyFiles {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        super::list(&self.path(dir))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::open(self.path(name))?;
        super::keep_whole(&file)?;
        Ok(Arc::new(file))
    }

    fn create(&self, _name: &str) -> io::Result<Arc<dyn File>> {
        Err(refused())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Err(refused())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Err(refused())
    }
}
