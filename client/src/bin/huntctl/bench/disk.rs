//! The disk alone: a write and its fdatasync, again and again, as a node's log does
//! it. An append waits for those of a quorum of nodes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::NamedTempFile;

use super::args::DiskArguments;
use super::figures::{Figures, add_latencies};
use super::recorder::{new_histogram, record};
use super::report::{Report, RunReport};
use crate::failure::Failure;

/// As large as a node's segments, and set aside at once as they are.
const FILE_BYTES: u64 = 64 << 20;

/// A sync that takes so long is a stall.
const STALL: Duration = Duration::from_millis(50);

/// Times syncs in the directory, so many times.
pub async fn run(arguments: &DiskArguments) -> Result<Report, Failure> {
    let mut report = Report::default();
    for _ in 0..arguments.runs {
        let directory = arguments.directory.clone();
        let (bytes, duration) = (arguments.bytes, arguments.duration);
        let measured = tokio::task::spawn_blocking(move || {
            let measured = measure(&directory, bytes, duration);
            measured.map_err(Failure::io(format!(
                "measuring the disk of {}",
                directory.display()
            )))
        });
        let figures = measured.await.expect("it does not panic")?;
        report.runs.push(RunReport {
            figures,
            ..RunReport::default()
        });
    }
    Ok(report)
}

fn measure(directory: &Path, bytes: u32, duration: Duration) -> io::Result<Figures> {
    // What compresses to nothing would cost some file systems nothing.
    let mut content = vec![0; bytes as usize];
    rand::rng().fill_bytes(&mut content);
    let bytes = u64::from(bytes);
    let mut file = segment(directory)?;
    let mut offset = 0;
    let mut times_us = new_histogram();
    let mut stalls = 0_u32;
    let start = Instant::now();
    while start.elapsed() < duration {
        if offset + bytes > FILE_BYTES {
            file = segment(directory)?;
            offset = 0;
        }
        let begun = Instant::now();
        file.as_file().write_all_at(&content, offset)?;
        file.as_file().sync_data()?;
        let took = begun.elapsed();
        offset += bytes;
        record(&mut times_us, took);
        stalls += u32::from(took >= STALL);
    }
    let rate = times_us.len() as f64 / start.elapsed().as_secs_f64();
    let mut figures = Figures::from([("rate", rate), ("stalls", f64::from(stalls))]);
    let names = ["mean", "p50", "p90", "p99", "p99.9", "max"];
    add_latencies(&mut figures, names, &times_us);
    Ok(figures)
}

/// A file that has a name and its blocks, and nothing in them; removed when dropped.
fn segment(directory: &Path) -> io::Result<NamedTempFile> {
    let file = NamedTempFile::with_prefix_in("huntctl-disk-", directory)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
    file.as_file().sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}
