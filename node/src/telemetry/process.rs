//! The standard metrics of a process, read from /proc when they are asked for.
//! Names and units are those of Prometheus's own client libraries; the bytes
//! read and written and the peak of memory are ours.

use std::fmt;

use procfs::process::Process;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // What /proc does not tell (hidden, or not Linux) is left out.
        let Ok(process) = Process::myself() else {
            return Ok(());
        };
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)
        };
        if let Ok(stat) = process.stat() {
            let ticks = stat.utime + stat.stime;
            let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
            let started = procfs::boot_time_secs().map_or(0.0, |boot| {
                boot as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64
            });
            put(
                "process_cpu_seconds",
                "CPU time used, user and system.",
                &ConstCounter::new(seconds),
            )?;
            put(
                "process_start_time_seconds",
                "When the process started, since 1970.",
                &ConstGauge::new(started),
            )?;
            put(
                "process_resident_memory_bytes",
                "Resident memory.",
                &ConstGauge::new(stat.rss * procfs::page_size()),
            )?;
            put(
                "process_virtual_memory_bytes",
                "Virtual memory.",
                &ConstGauge::new(stat.vsize),
            )?;
            put(
                "process_threads",
                "Threads of the process.",
                &ConstGauge::new(stat.num_threads),
            )?;
        }
        if let Ok(status) = process.status()
            && let Some(peak_kib) = status.vmhwm
        {
            put(
                "process_resident_memory_peak_bytes",
                "Most memory that was ever resident.",
                &ConstGauge::new(peak_kib * 1024),
            )?;
        }
        if let Ok(open) = process.fd_count() {
            put(
                "process_open_fds",
                "Open file descriptors.",
                &ConstGauge::new(open as u64),
            )?;
        }
        if let Ok(io) = process.io() {
            put(
                "process_disk_read_bytes",
                "Bytes fetched from disk.",
                &ConstCounter::new(io.read_bytes),
            )?;
            put(
                "process_disk_written_bytes",
                "Bytes sent towards the disk.",
                &ConstCounter::new(io.write_bytes),
            )?;
        }
        Ok(())
    }
}
