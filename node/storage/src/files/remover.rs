//! Removing large files bit by bit.
//!
//! A file system frees a file in one transaction of its journal, and may tell the disk of each block in it (the mount
//! option `discard`). Until that is done every fdatasync waits, the log's too: 64 MiB at once took 20 ms here, and more
//! when several nodes have one disk. So the file leaves its place at once, and a thread cuts it down in transactions
//! that are as small as one wants them.

use crate::limits::REMOVED_FILES_MAX;
use parking_lot::Mutex;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Where files are until their space is given back, under numbers.
const DIR: &str = "removed";
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
    /// The thread ends when this is dropped and everything is removed. There is none before the first file.
    queue: Option<SyncSender<Removed>>,
    /// The last number given to a file.
    last: u64,
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

    /// Goes on with what an earlier process has not come to.
    pub(super) fn resume(&self) -> io::Result<()> {
        let listed = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed?,
        };
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some() && entry.file_type()?.is_file() {
                self.state.lock().give(Removed {
                    path: entry.path(),
                    from: self.dir.clone(),
                })?;
            }
        }
        Ok(())
    }

    /// The file is not under its name any more when this returns.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.take(&self.dir, path) {
            Ok(removed) => state.give(removed),
            // A full disk may have no room for the directory.
            Err(_) => fs::remove_file(path),
        }
    }
}

impl State {
    fn take(&mut self, dir: &Path, path: &Path) -> io::Result<Removed> {
        fs::create_dir_all(dir)?;
        let removed = loop {
            self.last += 1;
            let unused = dir.join(self.last.to_string());
            if !unused.exists() {
                break unused;
            }
        };
        fs::rename(path, &removed)?;
        Ok(Removed {
            path: removed,
            from: path.parent().unwrap_or(path).to_owned(),
        })
    }

    fn give(&mut self, removed: Removed) -> io::Result<()> {
        if self.queue.is_none() {
            match spawn() {
                Ok(queue) => self.queue = Some(queue),
                Err(error) => {
                    tracing::warn!(%error, "no thread can be made that removes files bit by bit");
                }
            }
        }
        let unsent = match &self.queue {
            Some(queue) => queue.try_send(removed).err().map(|error| match error {
                TrySendError::Full(removed) | TrySendError::Disconnected(removed) => removed,
            }),
            None => Some(removed),
        };
        unsent.map_or(Ok(()), |removed| fs::remove_file(removed.path))
    }
}

fn spawn() -> io::Result<SyncSender<Removed>> {
    let (sender, receiver) = sync_channel(REMOVED_FILES_MAX);
    std::thread::Builder::new()
        .name("file-remover".to_owned())
        .spawn(move || run(&receiver))?;
    Ok(sender)
}

fn run(files: &Receiver<Removed>) {
    while let Ok(removed) = files.recv() {
        let file = fs::File::options().write(true).open(&removed.path);
        if let Ok(file) = &file
            && let Err(error) = cut_down(file, &removed.from)
        {
            let file = removed.path.display();
            tracing::warn!(%file, %error, "a file can not be removed bit by bit");
        }
        // Locked until it has no name: who opens it meanwhile finds that out.
        if let Err(error) = fs::remove_file(&removed.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            let file = removed.path.display();
            tracing::warn!(%file, %error, "a removed file stays until the next start");
        }
    }
}

/// Takes what it can from a file that moved here from the directory `from`.
fn cut_down(file: &fs::File, from: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    // Whoever has it open goes on reading it, and so does who gave it another name.
    if found.nlink() > 1 || file.try_lock().is_err() {
        return Ok(());
    }
    // A power cut must not bring the old name back once the bytes are gone.
    fs::File::open(from)?.sync_all()?;
    let mut size = found.size();
    while size > STEP_BYTES {
        size -= STEP_BYTES;
        file.set_len(size)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Files, OsFiles};
    use super::*;

    const NAME: &str = "segments/a";
    const FILE_BYTES: u64 = 10 << 20;

    struct World {
        dir: tempfile::TempDir,
        files: OsFiles,
        queue: Receiver<Removed>,
    }

    impl World {
        /// A directory with one file, and a remover whose thread is the test's.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let files = OsFiles::new(dir.path());
            files.create_dir("segments").unwrap();
            let bytes = vec![7; 10 << 20];
            files.create(NAME).unwrap().write_at(&bytes, 0).unwrap();
            let (sender, queue) = sync_channel(2);
            files.remover().state.lock().queue = Some(sender);
            Self { dir, files, queue }
        }

        /// Has the thread do all that it has.
        fn run(&self) {
            drop(self.files.remover().state.lock().queue.take());
            run(&self.queue);
            assert_eq!(self.files.list(DIR).unwrap_or_default(), [""; 0]);
        }

        /// Opens the file as nobody of ours does: without a lock.
        fn look(&self) -> fs::File {
            fs::File::open(self.dir.path().join(NAME)).unwrap()
        }
    }

    fn size(file: &fs::File) -> u64 {
        file.metadata().unwrap().size()
    }

    #[test]
    fn a_file_leaves_its_name_at_once_and_is_cut_down_before_it_is_gone() {
        let world = World::new();
        let unlocked = world.look();
        world.files.remove_gradually(NAME).unwrap();
        assert!(world.files.list("segments").unwrap().is_empty());
        assert_eq!(size(&unlocked), FILE_BYTES);
        world.run();
        assert_eq!(size(&unlocked), FILE_BYTES - 2 * STEP_BYTES);
        let again = world.files.remove_gradually(NAME);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn whoever_has_it_open_goes_on_reading_it() {
        let world = World::new();
        let open = world.files.open(NAME).unwrap();
        world.files.remove_gradually(NAME).unwrap();
        world.run();
        assert_eq!(open.size().unwrap(), FILE_BYTES);
    }

    #[test]
    fn whoever_gave_it_another_name_keeps_it() {
        let world = World::new();
        let other = world.dir.path().join("other");
        fs::hard_link(world.dir.path().join(NAME), &other).unwrap();
        world.files.remove_gradually(NAME).unwrap();
        world.run();
        assert_eq!(fs::metadata(other).unwrap().size(), FILE_BYTES);
    }

    #[test]
    fn who_comes_too_late_to_keep_it_does_not_find_it() {
        let world = World::new();
        let cutting = world.look();
        cutting.try_lock().unwrap();
        let error = world.files.open(NAME).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        drop(cutting);
        let opened = world.look();
        world.files.remove(NAME).unwrap();
        let error = super::super::keep_whole(&opened).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_next_process_goes_on_with_what_is_left() {
        let world = World::new();
        world.files.remove_gradually(NAME).unwrap();
        let dir = world.dir.path().join(DIR);
        fs::write(dir.join("of somebody else"), "kept").unwrap();

        let files = OsFiles::new(world.dir.path());
        let (sender, queue) = sync_channel(2);
        files.remover().state.lock().queue = Some(sender);
        files.resume_removing().unwrap();
        // The number that is left is not used a second time.
        files.create(NAME).unwrap().write_at(b"another", 0).unwrap();
        files.remove_gradually(NAME).unwrap();
        assert_eq!(files.list(DIR).unwrap(), ["1", "2", "of somebody else"]);
        drop(files.remover().state.lock().queue.take());
        run(&queue);
        assert_eq!(files.list(DIR).unwrap(), ["of somebody else"]);
    }

    /// I11
    #[test]
    fn what_is_too_much_for_the_thread_is_removed_at_once() {
        let world = World::new();
        world.files.remove_gradually(NAME).unwrap();
        for _ in 0..3 {
            world.files.create(NAME).unwrap();
            world.files.remove_gradually(NAME).unwrap();
            assert!(world.files.list("segments").unwrap().is_empty());
        }
        assert_eq!(world.files.list(DIR).unwrap().len(), 2);
        world.run();
    }

    #[test]
    fn without_a_place_for_it_a_file_is_removed_at_once() {
        let world = World::new();
        fs::write(world.dir.path().join(DIR), "in the way").unwrap();
        world.files.remove_gradually(NAME).unwrap();
        assert!(world.files.list("segments").unwrap().is_empty());
    }
}
