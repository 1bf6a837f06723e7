//! What a benchmark tells, and whether it is as it has to be.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::assertion::Assertions;
use super::check::Findings;
use super::figures::{Figures, Kind, Unit, summarise};
use super::observe::NodeUsage;
use super::recorder::Interval;
use crate::failure::Failure;
use crate::output::{self, Format};

/// One run.
#[derive(Debug, Default)]
pub struct RunReport {
    pub figures: Figures,
    /// Appends that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// What each node used.
    pub nodes: Vec<NodeUsage>,
    /// Second by second, if that was asked for.
    pub timeline: Vec<Interval>,
}

/// All runs.
#[derive(Debug, Default)]
pub struct Report {
    pub runs: Vec<RunReport>,
    /// What reading back found, if that was asked for.
    pub verified: Option<Findings>,
}

impl Report {
    fn summary(&self) -> BTreeMap<&'static str, [f64; 3]> {
        let figures: Vec<_> = self.runs.iter().map(|run| run.figures.clone()).collect();
        summarise(&figures)
    }

    pub fn print(&self, format: Format, kinds: &[&Kind]) -> Result<(), Failure> {
        match format {
            Format::Json => output::json(&self.json(kinds)),
            Format::Table => self.table(kinds),
        }
    }

    fn json(&self, kinds: &[&Kind]) -> Value {
        let named = |values: &BTreeMap<&'static str, f64>| -> Map<String, Value> {
            let known = kinds.iter().filter_map(|kind| {
                let value = values.get(kind.name)?;
                Some((format!("{}{}", kind.name, kind.unit.suffix()), json!(value)))
            });
            known.collect()
        };
        let summary = self.summary().into_iter();
        let medians = summary.map(|(name, [median, ..])| (name, median)).collect();
        let runs = self.runs.iter().map(|run| {
            json!({
                "figures": named(&run.figures),
                "errors": run.errors,
                "nodes": run.nodes,
                "timeline": run.timeline,
            })
        });
        let verified = self.verified.as_ref().map(|found| {
            json!({
                "events": found.events,
                "lost": found.lost,
                "duplicated": found.duplicated,
            })
        });
        json!({
            "figures": named(&medians),
            "runs": runs.collect::<Vec<_>>(),
            "verified": verified,
        })
    }

    fn table(&self, kinds: &[&Kind]) -> Result<(), Failure> {
        let summary = self.summary();
        let several = self.runs.len() > 1;
        let rows = kinds.iter().filter_map(|kind| {
            let [median, least, most] = *summary.get(kind.name)?;
            let mut row = vec![kind.name.to_owned(), kind.unit.show(median)];
            if several {
                row.extend([kind.unit.show(least), kind.unit.show(most)]);
            }
            row.push(kind.what.to_owned());
            Some(row)
        });
        if several {
            output::table(&["FIGURE", "MEDIAN#", "LEAST#", "MOST#", ""], rows)?;
        } else {
            output::table(&["FIGURE", "VALUE#", ""], rows)?;
        }
        if let Some(last) = self.runs.last()
            && !last.nodes.is_empty()
        {
            let rows = last.nodes.iter().map(|node| {
                let cpu = node.cpu_seconds_per_million;
                vec![
                    node.metrics.clone(),
                    if node.leads { "leader" } else { "" }.to_owned(),
                    cpu.map_or_else(String::new, |seconds| Unit::Seconds.show(seconds)),
                    Unit::Bytes.show(node.memory_bytes),
                    Unit::Bytes.show(node.memory_peak_bytes),
                ]
            });
            output::line("node by node, in the last run:")?;
            output::table(
                &["NODE", "", "CPU PER MILLION#", "MEMORY#", "MEMORY PEAK#"],
                rows,
            )?;
        }
        for (number, run) in (1..).zip(&self.runs) {
            for (kind, count) in &run.errors {
                let kind = output::printable(kind);
                output::line(&format!("run {number}: {count} appends failed, {kind}"))?;
            }
        }
        for (number, run) in (1..).zip(&self.runs) {
            if run.timeline.is_empty() {
                continue;
            }
            output::line(&format!("run {number}, second by second:"))?;
            let rows = run.timeline.iter().map(|interval| {
                let times = [interval.p50_ms, interval.p99_ms, interval.max_ms];
                let mut row = vec![
                    Unit::Seconds.show(interval.end_seconds),
                    Unit::PerSecond.show(interval.rate),
                ];
                row.extend(times.map(|millis| Unit::Millis.show(millis)));
                row.push(interval.errors.to_string());
                row
            });
            output::table(&["AT#", "RATE#", "P50#", "P99#", "MAX#", "ERRORS#"], rows)?;
        }
        if let Some(found) = &self.verified {
            output::line(&format!(
                "read back {} events: lost = {}, duplicated = {}",
                found.events, found.lost, found.duplicated
            ))?;
        }
        Ok(())
    }

    /// Fails when something was lost or duplicated, or a condition is broken.
    pub fn judge(&self, assertions: &Assertions) -> Result<(), Failure> {
        let summary = self.summary().into_iter();
        let medians: Figures = summary.map(|(name, [median, ..])| (name, median)).collect();
        let counted = |name| medians.get(name).copied().unwrap_or_default() > 0.0;
        let unsound = self
            .verified
            .as_ref()
            .is_some_and(|found| found.lost + found.duplicated > 0);
        if unsound || counted("lost") || counted("duplicated") {
            let words = "the log does not hold exactly what was acknowledged";
            return Err(Failure::Refused(words.to_owned()));
        }
        let violated = assertions.violated(&medians);
        if violated.is_empty() {
            Ok(())
        } else {
            Err(Failure::Refused(format!(
                "--assert: {}",
                violated.join("; ")
            )))
        }
    }
}
