//! A disk of a node's own, whose power can be cut: ext4 on a loop device.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::ioctl::{self, Opcode, Setter};
use tempfile::TempDir;

use crate::command::{CommandError, run};
use crate::lock::LockFile;

/// What every directory with a disk's image is called; nothing else is ever
/// removed as left over.
const PREFIX: &str = "huntlog-disk-";
const IMAGE: &str = "image";
/// `EXT4_IOC_SHUTDOWN` of linux/fs/ext4/ext4.h: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: Opcode = ioctl::opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: neither data nor the journal is written out.
const NO_LOG_FLUSH: u32 = 2;
/// How long a killed process may keep the file system busy.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Why a disk could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl DiskError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A file system of its own on a loop device. Cutting its power leaves what was
/// synced and what the kernel happened to have written, as when a machine's plug
/// is pulled. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    dir: TempDir,
    /// Held locked, so that another process can tell this disk from a leftover.
    _lock: LockFile,
    mount_point: PathBuf,
}

impl LoopDisk {
    /// Why this machine has no such disks, if it has none: root, loop devices,
    /// `mkfs.ext4` and a kernel that shuts ext4 down are needed. Tries it, once.
    pub fn unavailable() -> Option<&'static str> {
        static REASON: OnceLock<Option<String>> = OnceLock::new();
        let attempt = || -> Result<(), DiskError> {
            Self::remove_leftovers();
            let dir = own_directory()?;
            // Within its own directory, so that it is found if this is killed.
            let mount_point = dir.path().join("mount");
            let disk = Self::create_in(dir, &mount_point, 8 << 20)?;
            disk.shut_down()?;
            disk.remount()
        };
        REASON
            .get_or_init(|| attempt().err().map(|error| error.to_string()))
            .as_deref()
    }

    /// Makes a disk of `size_bytes` and mounts it at `mount_point`, which is
    /// created. Its blocks take space on the host only once they are written.
    ///
    /// # Errors
    /// When a step of it is refused.
    pub fn create(mount_point: &Path, size_bytes: u64) -> Result<Self, DiskError> {
        Self::create_in(own_directory()?, mount_point, size_bytes)
    }

    fn create_in(dir: TempDir, mount_point: &Path, size_bytes: u64) -> Result<Self, DiskError> {
        let image = dir.path().join(IMAGE);
        let lock = LockFile::hold(&image)
            .and_then(|lock| {
                lock.file().set_len(size_bytes)?;
                Ok(lock)
            })
            .map_err(DiskError::io(format!("making {}", image.display())))?;
        // Nothing is kept back for root, so that full means full.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-E", "nodiscard"])
            .arg(&image))?;
        fs::create_dir_all(mount_point)
            .map_err(DiskError::io(format!("making {}", mount_point.display())))?;
        let disk = Self {
            dir,
            _lock: lock,
            mount_point: mount_point.to_owned(),
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The numbers of its device, as the kernel writes them: `major:minor`.
    pub(crate) fn device(&self) -> Result<String, DiskError> {
        let what = format!("looking at {}", self.mount_point.display());
        let found = rustix::fs::stat(&self.mount_point)
            .map_err(|error| DiskError::io(what)(error.into()))?;
        let (major, minor) = (
            rustix::fs::major(found.st_dev),
            rustix::fs::minor(found.st_dev),
        );
        Ok(format!("{major}:{minor}"))
    }

    fn mount(&self) -> Result<(), DiskError> {
        let image = self.dir.path().join(IMAGE);
        // The loop device goes with the mount.
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .args([&image, &self.mount_point]))?;
        Ok(())
    }

    /// Cuts the power: from here on nothing reaches the disk, and whoever writes
    /// is told EIO. The processes that use it are the caller's to kill, at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn shut_down(&self) -> Result<(), DiskError> {
        let what = || format!("shutting {} down", self.mount_point.display());
        let root = File::open(&self.mount_point).map_err(DiskError::io(what()))?;
        #[expect(unsafe_code, reason = "the kernel has no safe call for this")]
        // SAFETY: the opcode takes a pointer to a u32 that it reads, which is
        // what the setter passes; `root` is on an ext4 of our own.
        let done = unsafe {
            let flags = Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH);
            ioctl::ioctl(&root, flags)
        };
        done.map_err(|error| DiskError::io(what())(error.into()))
    }

    /// Brings the power back: unmounts what was shut down, and mounts what the
    /// disk holds. Waits until a killed process lets go of it.
    ///
    /// # Errors
    /// When it stays busy, or cannot be mounted again.
    pub fn remount(&self) -> Result<(), DiskError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        while let Err(error) = run(Command::new("umount").arg(&self.mount_point)) {
            if Instant::now() > deadline {
                return Err(error.into());
            }
            // Nobody says when the last reference is gone.
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mount()
    }

    /// Leaves `free_bytes` of room, and answers the file that takes the rest:
    /// removing it makes room again. Done again, it makes that file larger or
    /// smaller.
    ///
    /// # Errors
    /// When the file can not be made.
    pub fn fill(&self, free_bytes: u64) -> Result<PathBuf, DiskError> {
        let ballast = self.mount_point.join("ballast");
        let space = rustix::fs::statvfs(&self.mount_point)
            .map_err(|error| DiskError::io("asking for room")(error.into()))?;
        let room = space.f_bavail.saturating_mul(space.f_frsize);
        let filled = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&ballast)
            .and_then(|file| {
                let held = file.metadata()?.len();
                let taken = (held + room).saturating_sub(free_bytes);
                if taken > held {
                    let all = rustix::fs::FallocateFlags::empty();
                    rustix::fs::fallocate(&file, all, 0, taken)?;
                } else {
                    file.set_len(taken)?;
                }
                file.sync_all()
            });
        if filled.is_err() {
            // What it has taken of the room by then would stay taken.
            let _ = fs::remove_file(&ballast);
        }
        filled.map_err(DiskError::io(format!("filling {}", ballast.display())))?;
        Ok(ballast)
    }

    /// Lets whoever writes wait until [`Self::thaw`]: a disk that hangs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self) -> Result<(), DiskError> {
        run(Command::new("fsfreeze").arg("-f").arg(&self.mount_point))?;
        Ok(())
    }

    /// Lets writers go on.
    ///
    /// # Errors
    /// When it is not frozen.
    pub fn thaw(&self) -> Result<(), DiskError> {
        run(Command::new("fsfreeze").arg("-u").arg(&self.mount_point))?;
        Ok(())
    }

    /// Unmounts and removes what processes that were killed left behind: disks of
    /// our own prefix in the temporary directory whose lock nobody holds.
    pub fn remove_leftovers() {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            let image = entry.path().join(IMAGE);
            if let Ok(Some(_lock)) = LockFile::take_over(&image) {
                unmount_image(&image);
                // Whatever stays is found again next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A frozen file system can not be unmounted, a busy one only lazily: its
        // process was told to die and may still be on its way.
        let _ = self.thaw();
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount_point));
    }
}

fn own_directory() -> Result<TempDir, DiskError> {
    TempDir::with_prefix(PREFIX).map_err(DiskError::io("making a temporary directory"))
}

/// Unmounts the file systems on loop devices over `image`.
fn unmount_image(image: &Path) {
    let Ok(output) = run(Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(image))
    else {
        return;
    };
    for device in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        let _ = run(Command::new("umount").args(["--all-targets", "--lazy", device]));
        let _ = run(Command::new("losetup").args(["--detach", device]));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_leaves_what_was() {
        if let Some(reason) = LoopDisk::unavailable() {
            println!("skipped: no loop disks here: {reason}");
            return;
        }
        let dir = TempDir::with_prefix("huntlog-test-").expect("a directory");
        let disk = LoopDisk::create(&dir.path().join("mount"), 16 << 20).expect("a disk");
        let path = |name: &str| disk.mount_point().join(name);
        let (synced, unsynced) = (path("synced"), path("unsynced"));
        for path in [&synced, &unsynced] {
            fs::write(path, "first").expect("written");
        }
        let all = File::open(&synced).expect("there");
        all.sync_all().expect("synced");
        File::open(disk.mount_point())
            .and_then(|root| root.sync_all())
            .expect("synced");
        let append = |path: &Path, sync: bool| {
            let mut file = File::options().append(true).open(path).expect("there");
            file.write_all(b" second").expect("written");
            if sync {
                file.sync_data().expect("synced");
            }
        };
        append(&unsynced, false);
        append(&synced, true);
        disk.shut_down().expect("shut down");
        assert!(
            File::open(&synced).is_err() || fs::write(path("late"), "x").is_err(),
            "nothing works on a disk without power"
        );
        drop(all);
        disk.remount().expect("mounted again");
        assert_eq!(fs::read(&synced).expect("there"), b"first second");
        assert_ne!(
            fs::read(&unsynced).unwrap_or_default(),
            b"first second",
            "what was not synced is gone"
        );
        assert!(!path("late").exists());
    }

    #[test]
    fn what_a_killed_process_left_behind_is_found_and_removed() {
        if let Some(reason) = LoopDisk::unavailable() {
            println!("skipped: no loop disks here: {reason}");
            return;
        }
        let dir = TempDir::with_prefix("huntlog-test-").expect("a directory");
        let disk = LoopDisk::create(&dir.path().join("mount"), 8 << 20).expect("a disk");
        let (mount_point, image) = (disk.mount_point().to_owned(), disk.dir.path().join(IMAGE));
        LoopDisk::remove_leftovers();
        assert!(image.exists(), "a disk in use is no leftover");
        let unlocked = disk._lock.file().unlock();
        unlocked.expect("unlocked, as when a process ends");
        std::mem::forget(disk);
        LoopDisk::remove_leftovers();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
        assert!(!mounts.contains(&mount_point.display().to_string()));
        assert!(!image.exists());
    }

    #[test]
    fn a_disk_that_is_filled_again_has_the_room_it_was_told_last() {
        if let Some(reason) = LoopDisk::unavailable() {
            println!("skipped: no loop disks here: {reason}");
            return;
        }
        let dir = TempDir::with_prefix("huntlog-test-").expect("a directory");
        let disk = LoopDisk::create(&dir.path().join("mount"), 32 << 20).expect("a disk");
        let fits = |bytes: u64| {
            let file = File::create(disk.mount_point().join("probe")).expect("made");
            let all = rustix::fs::FallocateFlags::empty();
            let fits = rustix::fs::fallocate(&file, all, 0, bytes).is_ok();
            fs::remove_file(disk.mount_point().join("probe")).expect("removed");
            fits
        };
        for free in [4 << 20, 1 << 20, 8 << 20] {
            disk.fill(free).expect("filled");
            assert!(fits(free / 2) && !fits(free * 2), "{free} bytes");
        }
    }

    #[test]
    fn a_dropped_disk_leaves_nothing_mounted() {
        if let Some(reason) = LoopDisk::unavailable() {
            println!("skipped: no loop disks here: {reason}");
            return;
        }
        let dir = TempDir::with_prefix("huntlog-test-").expect("a directory");
        let disk = LoopDisk::create(&dir.path().join("mount"), 8 << 20).expect("a disk");
        let (mount_point, image) = (disk.mount_point().to_owned(), disk.dir.path().join(IMAGE));
        let mounted = |path: &Path| {
            let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
            mounts.contains(&path.display().to_string())
        };
        disk.freeze().expect("frozen");
        assert!(mounted(&mount_point) && image.exists());
        drop(disk);
        assert!(!mounted(&mount_point) && !image.exists());
    }
}
