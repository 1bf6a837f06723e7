//! How fast the log becomes durable: `cargo run --release -p huntlog-storage --example bench [DIR] [SECONDS]`.
//!
//! One partition, so many appends of one entry in flight at once; prints what became durable per second, how many
//! fdatasyncs that took, and how long an append waited for its acknowledgement.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "prints figures"
)]

use bytes::Bytes;
use huntlog_storage::{
    BatchStats, IndexStats, LogEntry, LogId, Metrics, Options, PartitionLog, Storage,
};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Counts {
    syncs: AtomicU64,
    sync_us: AtomicU64,
    written_bytes: AtomicU64,
    index_us: AtomicU64,
    index_keys: AtomicU64,
    behind_max: AtomicU64,
    rolls: AtomicU64,
    roll_us: AtomicU64,
}

impl Metrics for Counts {
    fn batch_synced(&self, stats: &BatchStats) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us
            .fetch_add(stats.sync.as_micros() as u64, Ordering::Relaxed);
        self.written_bytes.fetch_add(stats.bytes, Ordering::Relaxed);
    }

    fn index_stepped(&self, stats: &IndexStats) {
        self.index_us
            .fetch_add(stats.took.as_micros() as u64, Ordering::Relaxed);
        self.index_keys
            .fetch_add(stats.keys as u64, Ordering::Relaxed);
        self.behind_max
            .fetch_max(stats.entries_behind as u64, Ordering::Relaxed);
    }

    fn segment_begun(&self, _segment: u64, took: Duration) {
        self.rolls.fetch_add(1, Ordering::Relaxed);
        self.roll_us
            .fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(
        || std::env::temp_dir().join("huntlog-storage-bench"),
        PathBuf::from,
    );
    let seconds = arguments.next().map_or(Ok(5), |seconds| seconds.parse())?;
    println!(
        "entry B  in flight  entries/s    MB/s  syncs/s  entries/sync  sync us  ack p50 us  p99 us  disk/log  index cpu  behind"
    );
    for (entry_bytes, in_flight) in [
        (32 << 10, 1),
        (32 << 10, 16),
        (32 << 10, 64),
        (256, 1),
        (256, 64),
        (256, 1024),
    ] {
        let dir = dir.join(format!("{entry_bytes}-{in_flight}"));
        run(&dir, entry_bytes, in_flight, Duration::from_secs(seconds))?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn run(
    dir: &Path,
    entry_bytes: usize,
    in_flight: usize,
    duration: Duration,
) -> Result<(), Box<dyn Error>> {
    let counts = Arc::new(Counts::default());
    let (storage, _) = Storage::open(
        dir,
        Options {
            metrics: counts.clone(),
            ..Options::default()
        },
    )?;
    let log = storage.partition(0);
    let payload = Bytes::from(
        (0..entry_bytes)
            .map(|at| (at * 131 % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let (sender, acknowledged) = mpsc::channel();
    let mut latencies_us = Vec::new();
    let started = Instant::now();
    let mut next = 0;
    for _ in 0..in_flight {
        append(&log, &payload, next, &sender);
        next += 1;
    }
    let mut pending = in_flight;
    while pending > 0 {
        let appended: Instant = acknowledged.recv()?;
        latencies_us.push(appended.elapsed().as_micros() as u64);
        pending -= 1;
        if started.elapsed() < duration {
            append(&log, &payload, next, &sender);
            next += 1;
            pending += 1;
        }
    }
    let took = started.elapsed().as_secs_f64();
    storage.close()?;
    let (opened_ms, read_mb_s) = read_back(dir, next)?;

    latencies_us.sort_unstable();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let log_bytes = (next as usize * entry_bytes) as f64;
    println!(
        "{entry_bytes:>7}  {in_flight:>9}  {:>9.0}  {:>6.1}  {:>7.0}  {:>12.1}  {:>7.0}  {:>10}  {:>6}  {:>8.2}  {:>8.1}%  {:>6.0}   {} segments, {:.1} ms each to begin; opened in {opened_ms:.0} ms, read back at {read_mb_s:.0} MB/s",
        next as f64 / took,
        log_bytes / took / 1e6,
        count(&counts.syncs) / took,
        next as f64 / count(&counts.syncs),
        count(&counts.sync_us) / count(&counts.syncs),
        latencies_us[latencies_us.len() / 2],
        latencies_us[latencies_us.len() * 99 / 100],
        count(&counts.written_bytes) / log_bytes,
        count(&counts.index_us) / took / 1e4,
        count(&counts.behind_max),
        count(&counts.rolls),
        count(&counts.roll_us) / count(&counts.rolls).max(1.0) / 1e3,
    );
    Ok(())
}

/// Opens the log anew and reads all of it from its start.
fn read_back(dir: &Path, end: u64) -> Result<(f64, f64), Box<dyn Error>> {
    let started = Instant::now();
    let (storage, _) = Storage::open(dir, Options::default())?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    let log = storage.partition(0);
    let started = Instant::now();
    let (mut at, mut bytes) = (0, 0);
    while at < end {
        let read = log.read_history(at..end, 1 << 20)?;
        at += read.len() as u64;
        bytes += read.iter().map(|entry| entry.payload.len()).sum::<usize>();
    }
    let read_mb_s = bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
    storage.close()?;
    Ok((opened_ms, read_mb_s))
}

fn append(log: &PartitionLog, payload: &Bytes, index: u64, acknowledged: &mpsc::Sender<Instant>) {
    let id = LogId {
        term: 1,
        node_id: 1,
        index,
    };
    let (acknowledged, started) = (acknowledged.clone(), Instant::now());
    let done = Box::new(move |result: Result<(), _>| {
        if result.is_ok() {
            acknowledged.send(started).ok();
        }
    });
    log.append(
        vec![LogEntry {
            id,
            payload: payload.clone(),
        }],
        done,
    );
}
