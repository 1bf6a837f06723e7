//! The disk alone: a write and its fdatasync, again and again, as a node's log
//! does it. No append is acknowledged sooner, and while a sync hangs, nothing is.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::DiskArguments;
use super::figures::{Figures, add_latencies};
use super::recorder::{new_histogram, record};
use super::report::{Report, RunReport};
use crate::failure::Failure;

/// The file that is written to, from its start to its end and over again: its
/// blocks are there, as those of a segment are, so that a sync has no more to do
/// than to write them.
const FILE_BYTES: u64 = 64 << 20;

/// A sync that takes so long is a stall.
const STALL: Duration = Duration::from_millis(50);

/// Times syncs in the directory, in a file that nobody else sees.
pub async fn run(arguments: &DiskArguments) -> Result<Report, Failure> {
    let mut report = Report::default();
    for _ in 0..arguments.runs {
        let directory = arguments.directory.clone();
        let (bytes, duration) = (arguments.bytes, arguments.duration);
        let measured = tokio::task::spawn_blocking(move || measure(&directory, bytes, duration));
        let figures = measured.await.expect("it does not panic")?;
        report.runs.push(RunReport {
            figures,
            ..RunReport::default()
        });
    }
    Ok(report)
}

fn measure(directory: &Path, bytes: u32, duration: Duration) -> Result<Figures, Failure> {
    let failed = || Failure::io(format!("measuring the disk of {}", directory.display()));
    let file = filled(directory).map_err(failed())?;
    let written = vec![0x5a; bytes as usize];
    let places = FILE_BYTES / u64::from(bytes);
    let mut times_us = new_histogram();
    let mut stalls = 0_u32;
    let start = Instant::now();
    for turn in 0_u64.. {
        let begun = start.elapsed();
        if begun >= duration {
            break;
        }
        file.write_all_at(&written, turn % places * u64::from(bytes))
            .and_then(|()| file.sync_data())
            .map_err(failed())?;
        let took = start.elapsed() - begun;
        record(&mut times_us, took);
        stalls += u32::from(took >= STALL);
    }
    let rate = times_us.len() as f64 / start.elapsed().as_secs_f64();
    let mut figures = Figures::from([("rate", rate), ("stalls", f64::from(stalls))]);
    let names = ["mean", "p50", "p90", "p99", "p99.9", "max"];
    add_latencies(&mut figures, names, &times_us);
    Ok(figures)
}

fn filled(directory: &Path) -> std::io::Result<File> {
    let mut file = tempfile::tempfile_in(directory)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    Ok(file)
}
