//! A disk that is slow for one process: a cgroup whose writes are throttled.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{DiskError, LoopDisk};

const CONTROLLER: &str = "/sys/fs/cgroup/blkio";
const LIMIT: &str = "blkio.throttle.write_iops_device";
const PROCESSES: &str = "cgroup.procs";

/// Few writes a second for one process on one disk, until this is dropped.
#[derive(Debug)]
pub struct Throttle {
    group: PathBuf,
    device: String,
}

impl Throttle {
    /// Why no disk can be slowed down on this machine, if none can.
    pub fn unavailable() -> Option<&'static str> {
        let limit = Path::new(CONTROLLER).join(LIMIT);
        LoopDisk::unavailable().or((!limit.exists()).then_some("there is no cgroup v1 blkio"))
    }

    /// From now on `pid` writes to `disk` so often, and no more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(disk: &LoopDisk, pid: u32, writes_per_second: u32) -> Result<Self, DiskError> {
        let device = disk.device()?;
        let group = Path::new(CONTROLLER).join(format!("huntlog-{pid}"));
        fs::create_dir(&group).map_err(DiskError::io(format!("making {}", group.display())))?;
        let throttle = Self { group, device };
        throttle.set(LIMIT, format!("{} {writes_per_second}", throttle.device))?;
        throttle.set(PROCESSES, pid.to_string())?;
        Ok(throttle)
    }

    fn set(&self, name: &str, value: String) -> Result<(), DiskError> {
        let file = self.group.join(name);
        let what = format!("writing {value} to {}", file.display());
        fs::write(file, value).map_err(DiskError::io(what))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // What waits goes on, and then the group is left and removed.
        let _ = self.set(LIMIT, format!("{} 0", self.device));
        let processes = fs::read_to_string(self.group.join(PROCESSES));
        for pid in processes.unwrap_or_default().lines() {
            let _ = fs::write(Path::new(CONTROLLER).join(PROCESSES), pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
