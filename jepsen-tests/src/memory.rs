//! What a process has in memory, as Linux counts it: the resident set, with the
//! pages of its binary.

use std::fs;
use std::io;

/// The most that the process `pid` has had in memory.
///
/// # Errors
/// When it does not run any more.
pub fn peak_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        // One that has ended and is not waited for has a status without it.
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// What the process `pid` has in memory now is its peak from here on.
///
/// # Errors
/// When it does not run any more, or is another user's.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    // proc_pid_clear_refs(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}
