//! Lock files: what belongs to a living process can be told from what a dead one
//! left behind, because the kernel lets go of a lock however its holder ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that is held locked, and removed when dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Makes the file and locks it.
    pub(crate) fn hold(path: &Path) -> io::Result<Self> {
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            file.lock()?;
            // Before it was locked, somebody may have taken it for a leftover.
            if is_at(&file, path) {
                return Ok(Self::of(file, path));
            }
        }
    }

    /// Locks the file of a process that has ended; none while it lives. A file that
    /// is not there is an error: its holder may be about to make it.
    pub(crate) fn take_over(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => Ok(Some(Self::of(file, path))),
            Ok(()) | Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn of(file: File, path: &Path) -> Self {
        Self {
            file,
            path: path.to_owned(),
        }
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // It may have gone with its directory.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => identity(held) == identity(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_held_is_not_taken_over_and_what_was_let_go_is() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("lock");
        let held = LockFile::hold(&path).expect("locked");
        assert!(LockFile::take_over(&path).expect("readable").is_none());
        held.file().unlock().expect("as when its holder dies");
        let taken = LockFile::take_over(&path).expect("readable");
        assert!(taken.is_some());
        drop(taken);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_taken_away_before_it_was_locked_is_made_again() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("lock");
        let leftover = LockFile::hold(&path).expect("locked");
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || LockFile::hold(&path).expect("locked")
        });
        drop(leftover);
        let held = waiting.join().expect("it ends");
        assert!(is_at(held.file(), &path));
    }
}
