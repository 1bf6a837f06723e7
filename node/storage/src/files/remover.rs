//! Removing large files bit by bit.
//!
//! A file system frees a file in one transaction of its journal, and may tell the disk of each block in it (the mount
//! option `discard`). Until that is done every fdatasync waits, the log's too: 64 MiB at once took 20 ms here, and more
//! when several nodes have one disk. So the file leaves its place at once, and a thread cuts it down in transactions
//! that are as small as one wants them.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Where files are until their space is given back. What a crash leaves here goes with the next start.
pub(crate) const DIR: &str = "removed";
/// What is freed in one transaction.
const STEP_BYTES: u64 = 4 << 20;

/// Removes files below one directory.
#[derive(Debug)]
pub(super) struct Remover {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ends the thread when it is dropped and everything is removed. There is none before the first file.
    thread: Option<Sender<Removed>>,
    files: u64,
}

#[derive(Debug)]
struct Removed {
    path: PathBuf,
    /// The directory that it was in.
    from: PathBuf,
}

impl Remover {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            dir: root.join(DIR),
            state: Mutex::default(),
        }
    }

    /// Removes what an earlier process has not come to.
    pub(super) fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file is not under its name any more when this returns.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.files += 1;
        let removed = Removed {
            path: self.dir.join(state.files.to_string()),
            from: path.parent().unwrap_or(path).to_owned(),
        };
        // A full disk may have no room for the directory.
        if fs::create_dir_all(&self.dir).is_err() || fs::rename(path, &removed.path).is_err() {
            return fs::remove_file(path);
        }
        let unsent = match state.thread.take().map_or_else(spawn, Ok) {
            Ok(thread) => {
                let unsent = thread.send(removed).err().map(|unsent| unsent.0);
                state.thread = unsent.is_none().then_some(thread);
                unsent
            }
            Err(error) => {
                tracing::warn!(%error, "no thread can be made that removes files bit by bit");
                Some(removed)
            }
        };
        unsent.map_or(Ok(()), |removed| fs::remove_file(removed.path))
    }
}

fn spawn() -> io::Result<Sender<Removed>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("file-remover".to_owned())
        .spawn(move || run(&receiver))?;
    Ok(sender)
}

fn run(files: &Receiver<Removed>) {
    while let Ok(removed) = files.recv() {
        if let Err(error) = give_back(&removed)
            && error.kind() != io::ErrorKind::NotFound
        {
            let file = removed.path.display();
            tracing::warn!(%file, %error, "a removed file stays until the next start");
        }
    }
}

fn give_back(removed: &Removed) -> io::Result<()> {
    // A power cut must not bring the name back once the bytes are gone.
    fs::File::open(&removed.from)?.sync_all()?;
    let file = fs::File::options().write(true).open(&removed.path)?;
    // Whoever has it open goes on reading it: then it is freed when it is closed.
    if file.try_lock().is_ok() {
        let mut size = file.metadata()?.len();
        while size > STEP_BYTES {
            size -= STEP_BYTES;
            file.set_len(size)?;
            file.sync_all()?;
        }
    }
    fs::remove_file(&removed.path)
}

#[cfg(test)]
mod tests {
    use super::super::{Files, OsFiles};
    use super::*;

    /// A directory with a file of ten megabytes and the files below it.
    fn large_file() -> (tempfile::TempDir, OsFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = OsFiles::new(dir.path());
        files.create_dir("segments").unwrap();
        let bytes = vec![7; 10 << 20];
        files
            .create("segments/a")
            .unwrap()
            .write_at(&bytes, 0)
            .unwrap();
        (dir, files)
    }

    /// Has the remover do all it has, and end.
    fn finish(remover: &Remover) {
        drop(remover.state.lock().thread.take());
    }

    #[test]
    fn a_file_leaves_its_name_at_once_and_the_disk_in_the_end() {
        let (dir, files) = large_file();
        files.remove_gradually("segments/a").unwrap();
        assert!(files.list("segments").unwrap().is_empty());
        assert!(files.open("segments/a").is_err());
        finish(files.remover());
        while files.list(DIR).unwrap() != [""; 0] {
            std::thread::yield_now();
        }
        assert_eq!(
            files.remove_gradually("segments/a").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        drop(dir);
    }

    #[test]
    fn whoever_has_it_open_goes_on_reading_it() {
        let (_dir, files) = large_file();
        let open = files.open("segments/a").unwrap();
        files.remove_gradually("segments/a").unwrap();
        finish(files.remover());
        while files.list(DIR).unwrap() != [""; 0] {
            std::thread::yield_now();
        }
        let mut buffer = vec![0; 10 << 20];
        assert_eq!(open.read_at(&mut buffer, 0).unwrap(), 10 << 20);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_start_removes_what_is_left() {
        let (dir, files) = large_file();
        fs::create_dir(dir.path().join(DIR)).unwrap();
        fs::write(dir.path().join(DIR).join("1"), "left").unwrap();
        files.clear_removed().unwrap();
        assert!(!dir.path().join(DIR).exists());
        files.clear_removed().unwrap();
        assert_eq!(files.list("segments").unwrap(), ["a"]);
    }

    #[test]
    fn without_a_place_for_it_a_file_is_removed_at_once() {
        let (dir, files) = large_file();
        fs::write(dir.path().join(DIR), "in the way").unwrap();
        files.remove_gradually("segments/a").unwrap();
        assert!(files.list("segments").unwrap().is_empty());
    }
}
