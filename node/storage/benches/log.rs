//! The codec of frames, and how fast the log becomes durable and is read back:
//! `cargo bench -p huntlog-storage`. The log's files go to TMPDIR, which has to
//! be a real disk.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use huntlog_storage::{LogEntry, LogId, Options, PartitionLog, Storage, frame_codec};

fn entry(index: u64, payload: &Bytes) -> LogEntry {
    let id = LogId {
        term: 1,
        node_id: 1,
        index,
    };
    LogEntry {
        id,
        payload: payload.clone(),
    }
}

fn payload(bytes: usize) -> Bytes {
    let bytes = (0..bytes).map(|at| (at * 131 % 251).to_le_bytes()[0]);
    bytes.collect()
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame codec");
    for (bytes, frames) in [(32 << 10, 16), (256, 1_024)] {
        let payload = payload(bytes);
        let entries: Vec<_> = (0..frames).map(|index| entry(index, &payload)).collect();
        group.throughput(Throughput::Bytes((bytes * entries.len()) as u64));
        let mut buffer = BytesMut::new();
        group.bench_function(BenchmarkId::new("encode", bytes), |bencher| {
            bencher.iter(|| buffer = frame_codec::encode(&entries, std::mem::take(&mut buffer)));
        });
        let batch = frame_codec::encode(&entries, BytesMut::new()).freeze();
        group.bench_function(BenchmarkId::new("decode", bytes), |bencher| {
            bencher.iter(|| frame_codec::decode(&batch, entries.len()));
        });
    }
    group.finish();
}

/// Appends entries of one size to an empty log.
struct Appender {
    log: PartitionLog,
    payload: Bytes,
    next: u64,
}

impl Appender {
    fn append(&mut self, acknowledged: &mpsc::Sender<()>) {
        let acknowledged = acknowledged.clone();
        let done = Box::new(move |result: Result<(), _>| {
            if result.is_ok() {
                acknowledged.send(()).ok();
            }
        });
        self.log.append(vec![entry(self.next, &self.payload)], done);
        self.next += 1;
    }

    /// Until so many are durable, with some in flight at a time.
    fn time(&mut self, entries: u64, in_flight: u64) -> Duration {
        let (sender, acknowledged) = mpsc::channel();
        let start = Instant::now();
        let at_once = entries.min(in_flight);
        (0..at_once).for_each(|_| self.append(&sender));
        for _ in at_once..entries {
            acknowledged.recv().expect("the log takes it");
            self.append(&sender);
        }
        for _ in 0..at_once {
            acknowledged.recv().expect("the log takes it");
        }
        start.elapsed()
    }
}

fn open(dir: &Path) -> Storage {
    let (storage, _) = Storage::open(dir, Options::default()).expect("a directory of its own");
    storage
}

fn writer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment writer");
    for (bytes, in_flight) in [
        (32 << 10, 1),
        (32 << 10, 16),
        (256, 1),
        (256, 64),
        (256, 1_024),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let storage = open(dir.path());
        let mut appender = Appender {
            log: storage.partition(0),
            payload: payload(bytes),
            next: 0,
        };
        group.throughput(Throughput::Elements(1));
        let id = BenchmarkId::new(format!("{bytes} bytes"), format!("{in_flight} in flight"));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|entries| appender.time(entries, in_flight));
        });
        storage.close().expect("closes");
    }
    group.finish();
}

fn history(criterion: &mut Criterion) {
    const ENTRIES: u64 = 1_024;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let storage = open(dir.path());
    let mut appender = Appender {
        log: storage.partition(0),
        payload: payload(32 << 10),
        next: 0,
    };
    appender.time(ENTRIES, 16);
    drop(appender);
    storage.close().expect("closes");
    // What the log keeps of its tail in memory is gone with that.
    let storage = open(dir.path());
    let log = storage.partition(0);
    let mut group = criterion.benchmark_group("history");
    group.throughput(Throughput::Bytes(ENTRIES * (32 << 10)));
    group.bench_function("entries of 32 KiB", |bencher| {
        bencher.iter(|| {
            let mut at = 0;
            while at < ENTRIES {
                let read = log.read_history(at..ENTRIES, 1 << 20);
                at += read.expect("it was written").len() as u64;
            }
        });
    });
    group.finish();
    storage.close().expect("closes");
}

criterion_group!(benches, codec, writer, history);
criterion_main!(benches);
