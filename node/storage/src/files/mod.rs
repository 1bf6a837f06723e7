//! The file layer under segments, mark, identity and snapshots: what an operating system promises, and no more.
//!
//! Names are relative to the data directory, with `/` between directory and file. Nothing is durable before
//! [`File::sync`] (the bytes and size of a file) and [`Files::sync_dir`] (which names exist) have returned.

mod os;
mod read_only;
mod remover;
#[cfg(feature = "simulation")]
mod sim;

pub(crate) use os::OsFiles;
pub(crate) use read_only::ReadOnlyFiles;
#[cfg(feature = "simulation")]
pub use sim::{Crash, SimFiles};

use crate::options::DiskSpace;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory tree.
pub(crate) trait Files: Send + Sync {
    /// The full path of a name, for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// Creates a directory if it is absent; the caller syncs its parent.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// The names of the files in a directory, without the directory, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Creates a file, or empties an existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; what has it open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Removes a file that may be large: its name is gone when this returns, its space is given back bit by bit, so that
    /// nobody's [`File::sync`] has to wait for all of it. Who has opened it can go on reading it; who has created it is
    /// done with it.
    fn remove_gradually(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    /// Goes on with what [`Self::remove_gradually`] had not come to when the last process ended. The directories that
    /// the files were in are synced before.
    fn resume_removing(&self) -> io::Result<()> {
        Ok(())
    }
    /// Makes the directory's names durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Room on the file system.
    fn space(&self) -> io::Result<DiskSpace>;
}

/// An open file.
pub(crate) trait File: Send + Sync {
    /// Reads at a position; fewer bytes than asked only at the end.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all bytes at a position, extending the file if needed.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes the file's bytes and size durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Has the operating system forget what it keeps of the file in memory, so that the next read asks the disk. Only
    /// for files that are synced; what it does not forget does no harm.
    fn drop_cached(&self) {}
    /// Sets aside disk space and extends the file with zeros to `size`. If there is too little, none is taken.
    fn reserve(&self, size: u64) -> io::Result<()>;
}

/// Nobody cuts the file down while it is open, see [`Files::remove_gradually`].
fn keep_whole(file: &fs::File) -> io::Result<()> {
    // Where a file system has no locks, nothing is cut down either.
    let too_late = matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
    // Its name went before it was cut down.
    if too_late || file.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(())
}

/// The names of the files in a directory of the operating system, sorted.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads exactly `length` bytes, or fewer at the end of the file.
pub(crate) fn read_up_to(file: &dyn File, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let read = file.read_at(&mut buffer, position)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// Reads a whole file of at most `limit` bytes; `None` if there is no such file.
pub(crate) fn read_small(
    files: &dyn Files,
    name: &str,
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    if size > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes, more than the {limit} such a file can have"),
        ));
    }
    read_up_to(&*file, 0, size).map(Some)
}

/// Replaces a file in one step: a temporary one is written, synced, renamed, and the directory synced.
pub(crate) fn replace(files: &dyn Files, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let file = files.create(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    files.rename(&temporary, name)?;
    files.sync_dir(dir)
}
