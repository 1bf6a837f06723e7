//! What the nodes and this process used while they were under load.

use std::io::Write;

use futures::future::{join_all, try_join_all};
use procfs::process::Process;
use serde::Serialize;

use super::exposition::Exposition;
use super::figures::Figures;
use crate::failure::Failure;

/// Where the nodes' metrics are.
#[derive(Debug)]
pub struct Observer {
    addresses: Vec<String>,
}

/// A moment.
#[derive(Debug)]
pub struct Observation {
    nodes: Vec<Exposition>,
    generator: Usage,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
}

impl Usage {
    /// Of this process; nothing where /proc does not tell.
    fn own() -> Self {
        let Ok(stat) = Process::myself().and_then(|process| process.stat()) else {
            return Self::default();
        };
        Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            resident_bytes: (stat.rss * procfs::page_size()) as f64,
        }
    }
}

impl Observer {
    /// Observes those of these admin addresses that answer; the others are
    /// named on standard error.
    pub async fn of_those_that_answer(addresses: Vec<String>) -> Self {
        let answers = join_all(addresses.iter().map(|a| Exposition::fetch(a))).await;
        let mut answering = Vec::new();
        for (address, answer) in addresses.iter().zip(answers) {
            match answer {
                Ok(_) => answering.push(address.clone()),
                Err(error) => warn(&format!("what this node uses is not measured: {error}")),
            }
        }
        Self {
            addresses: answering,
        }
    }

    /// Observes all of these admin addresses.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn of_all(addresses: Vec<String>) -> Result<Self, Failure> {
        try_join_all(addresses.iter().map(|a| Exposition::fetch(a)))
            .await
            .map_err(|error| {
                Failure::Unavailable(format!("what the nodes use can not be measured: {error}"))
            })?;
        Ok(Self { addresses })
    }

    /// Asks all. Without a node that does not answer now, there is nothing to
    /// tell of any: sums over fewer would mislead.
    pub async fn observe(&self) -> Observation {
        let answers = join_all(self.addresses.iter().map(|a| Exposition::fetch(a))).await;
        let nodes: Result<Vec<_>, String> = answers.into_iter().collect();
        Observation {
            nodes: nodes.unwrap_or_else(|error| {
                warn(&format!("what the nodes use is not measured: {error}"));
                Vec::new()
            }),
            generator: Usage::own(),
        }
    }
}

fn warn(words: &str) {
    // If standard error is closed, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "huntctl: {words}");
}

impl Observation {
    /// The log of the node with most.
    pub fn largest_log(&self) -> Option<f64> {
        self.most("huntlog_storage_segments_bytes")
    }

    /// The resident memory of the node with most.
    pub fn largest_memory(&self) -> Option<f64> {
        self.most(RESIDENT)
    }

    fn most(&self, name: &str) -> Option<f64> {
        let values = self.nodes.iter().map(|node| node.value(name));
        values.max_by(f64::total_cmp)
    }
}

/// What stands between two observations.
#[derive(Debug)]
pub struct Usages<'a> {
    pub before: &'a Observation,
    pub after: &'a Observation,
    /// Events of the load in between.
    pub events: u64,
}

impl Usages<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&Exposition, &Exposition)> {
        let complete = self.before.nodes.len() == self.after.nodes.len();
        let nodes = self.before.nodes.iter().zip(&self.after.nodes);
        nodes.filter(move |_| complete)
    }

    /// The figures of the nodes and of this process.
    pub fn add_to(&self, figures: &mut Figures) {
        let events = self.events as f64;
        let (before, after) = (self.before.generator, self.after.generator);
        figures.insert("generator_memory", after.resident_bytes);
        if self.events > 0 {
            let cpu = after.cpu_seconds - before.cpu_seconds;
            figures.insert("generator_cpu", cpu / events * 1e6);
        }
        let mut added = Exposition::default();
        for (before, after) in self.pairs() {
            added.add(&after.since(before));
        }
        let nodes = self.pairs().count() as f64;
        if nodes == 0.0 {
            return;
        }
        let [began, ended] = [self.before, self.after].map(|moment| moment.most(TERM));
        let of_all = [
            ("memory", self.after.largest_memory()),
            ("memory_before", self.before.largest_memory()),
            ("memory_peak", self.after.most(RESIDENT_PEAK)),
            (
                "terms",
                ended.zip(began).map(|(ended, began)| ended - began),
            ),
        ];
        figures.extend(
            of_all
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        if self.events > 0 {
            figures.extend([
                ("cpu", added.value(CPU) / events * 1e6),
                ("written", added.value(WRITTEN) / events),
                (
                    "kept",
                    added.value("huntlog_storage_segments_bytes") / events,
                ),
            ]);
        }
        let syncs = added.value("huntlog_storage_sync_seconds_count");
        if syncs > 0.0 {
            let applied = added.value("huntlog_events_accepted_total");
            figures.insert("events_per_sync", applied / syncs);
        }
        let means = [
            ("entries_per_sync", "huntlog_storage_sync_writes"),
            ("events_per_entry", "huntlog_entry_events"),
        ];
        for (figure, histogram) in means {
            if let Some(mean) = added.mean(histogram) {
                figures.insert(figure, mean);
            }
        }
        for (mean, p99, histogram) in STAGES {
            if let Some(seconds) = added.mean(histogram) {
                figures.insert(mean, seconds * 1e3);
            }
            if let Some(seconds) = added.quantile(histogram, 0.99) {
                figures.insert(p99, seconds * 1e3);
            }
        }
    }

    /// What each node used.
    pub fn nodes(&self, observer: &Observer) -> Vec<NodeUsage> {
        let nodes = self.pairs().zip(&observer.addresses);
        let nodes = nodes.map(|((before, after), address)| {
            let added = after.since(before);
            let cpu_seconds = added.value(CPU);
            NodeUsage {
                metrics: address.clone(),
                leads: after.value("huntlog_is_leader") > 0.0,
                cpu_seconds,
                cpu_seconds_per_million: (self.events > 0)
                    .then(|| cpu_seconds / self.events as f64 * 1e6),
                memory_bytes: after.value(RESIDENT),
                memory_peak_bytes: after.value(RESIDENT_PEAK),
                written_bytes: added.value(WRITTEN),
                events: added.value("huntlog_events_accepted_total"),
            }
        });
        nodes.collect()
    }
}

/// What a node used while it was under load.
#[derive(Debug, Serialize)]
pub struct NodeUsage {
    /// Its admin address.
    pub metrics: String,
    /// Whether it led in the end.
    pub leads: bool,
    pub cpu_seconds: f64,
    /// Of events of the load.
    pub cpu_seconds_per_million: Option<f64>,
    pub memory_bytes: f64,
    /// The most there ever was.
    pub memory_peak_bytes: f64,
    pub written_bytes: f64,
    /// Events that it applied and accepted.
    pub events: f64,
}

const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";
const RESIDENT_PEAK: &str = "process_resident_memory_peak_bytes";
const TERM: &str = "huntlog_term";
const WRITTEN: &str = "process_disk_written_bytes_total";

/// Where the time of an append goes, by the nodes' histograms.
const STAGES: [(&str, &str, &str); 5] = [
    ("queue_mean", "queue_p99", "huntlog_proposer_queue_seconds"),
    ("sync_mean", "sync_p99", "huntlog_storage_sync_seconds"),
    ("commit_mean", "commit_p99", "huntlog_commit_seconds"),
    ("apply_mean", "apply_p99", "huntlog_apply_seconds"),
    ("append_mean", "append_p99", "huntlog_append_seconds"),
];
