//! What a run leaves behind: the history, a summary for programs, a page for
//! people with a plot.

mod page;
mod plot;
mod timeline;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use serde::Serialize;

use super::finale::Finding;
use super::nemesis::Nemesis;
use super::workload::Workload;
use super::{Plan, RunError};
use crate::check::{Judgement, Minimum, Verdict};
use crate::history::History;
pub use timeline::Spread;
use timeline::{Latency, Window};

/// What a run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The history shows nothing that must not happen, and the cluster lived.
    Valid,
    /// Either is not so.
    Invalid,
    /// Too little happened to tell.
    NoVerdict,
    /// The harness did not do its work.
    HarnessFailed,
}

/// A run, for programs; summary.json.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// What clients did.
    pub workload: Workload,
    /// What was done to the cluster.
    pub nemesis: Nemesis,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// Operations a second that were offered.
    pub rate: u32,
    /// For how long.
    pub time_s: u64,
    /// What decided the faults.
    pub seed: u64,
    /// Whether the nodes had networks of their own.
    pub namespaces: bool,
    /// What it comes to.
    pub outcome: Outcome,
    /// What was needed for a verdict.
    pub minimum: Minimum,
    /// And of each kind of operation.
    pub minimum_of_kinds: BTreeMap<&'static str, u64>,
    /// What the history comes to.
    pub judgement: Judgement,
    /// What else was wrong.
    pub findings: Vec<Finding>,
    /// Of the acknowledged writes.
    pub latency: Latency,
    /// From the beginning of a fault until writes are acknowledged.
    pub recovery: Option<Spread>,
    /// The same from its end.
    pub healing: Option<Spread>,
    /// Each fault, with how long writes were not acknowledged.
    pub windows: Vec<Window>,
}

impl Summary {
    pub(super) fn new(
        plan: &Plan,
        history: &History,
        judgement: Judgement,
        findings: Vec<Finding>,
    ) -> Self {
        let harness = |finding: &Finding| matches!(finding, Finding::Harness(_));
        let outcome = match judgement.verdict() {
            _ if findings.iter().any(|finding| !harness(finding)) => Outcome::Invalid,
            Verdict::Invalid => Outcome::Invalid,
            _ if !findings.is_empty() => Outcome::HarnessFailed,
            Verdict::NoVerdict => Outcome::NoVerdict,
            Verdict::Valid => Outcome::Valid,
        };
        let windows = timeline::windows(history);
        Self {
            workload: plan.workload,
            nemesis: plan.nemesis,
            nodes: plan.nodes,
            rate: plan.rate,
            time_s: plan.time.as_secs(),
            seed: plan.seed,
            namespaces: plan.namespaces,
            outcome,
            minimum: plan.minimum(),
            minimum_of_kinds: plan.minimum_of_kinds(),
            judgement,
            findings,
            latency: timeline::latency(history),
            recovery: Spread::of(windows.iter().map(|window| window.recovery_ms)),
            healing: Spread::of(windows.iter().map(|window| window.healing_ms)),
            windows,
        }
    }

    /// The longest that writes were not acknowledged in a fault: median and most.
    #[must_use]
    pub fn silence_ms(&self) -> Option<(u64, u64)> {
        let mut silences: Vec<u64> = self
            .windows
            .iter()
            .map(|window| window.silence_ms)
            .collect();
        silences.sort_unstable();
        Some((*silences.get(silences.len() / 2)?, *silences.last()?))
    }
}

/// Writes everything into `out`.
pub(super) fn write(out: &Path, summary: &Summary, history: &History) -> Result<(), RunError> {
    let file = |name: &str| {
        let path = out.join(name);
        File::create(&path).map_err(RunError::io(format!("creating {}", path.display())))
    };
    history
        .write(BufWriter::new(file("history.jsonl")?))
        .map_err(RunError::io("writing history.jsonl"))?;
    serde_json::to_writer_pretty(file("summary.json")?, summary)
        .map_err(|error| RunError::io("writing summary.json")(error.into()))?;
    let svg = plot::draw(&timeline::seconds(history), &summary.windows).map_err(RunError::Plot)?;
    fs::write(out.join("plot.svg"), &svg).map_err(RunError::io("writing plot.svg"))?;
    fs::write(out.join("summary.html"), page::html(summary, &svg))
        .map_err(RunError::io("writing summary.html"))
}
