//! `huntlog-jepsen matrix`: every workload under every nemesis.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::run::{ending, failure};
use super::{Ending, Failure};
use crate::check::Outcomes;
use crate::interrupt::Interrupts;
use crate::run::{Nemesis, Outcome, Plan, RunError, Spread, Summary, Workload, execute};

/// The rows: those that draw one of several faults stand for each of them.
const NEMESES: [Nemesis; 16] = [
    Nemesis::None,
    Nemesis::Kill,
    Nemesis::Pause,
    Nemesis::Partition,
    Nemesis::PacketLoss,
    Nemesis::Delay,
    Nemesis::ClockJump,
    Nemesis::PowerCut,
    Nemesis::DiskFull,
    Nemesis::DiskSlow,
    Nemesis::DiskFailing,
    Nemesis::Damage,
    Nemesis::Emptied,
    Nemesis::RollingRestart,
    Nemesis::Transfer,
    Nemesis::All,
];
const SHORT: [Nemesis; 4] = [
    Nemesis::KillLeader,
    Nemesis::PauseLeader,
    Nemesis::Partition,
    Nemesis::PowerCut,
];
const TIME_S: u64 = 60;
const SHORT_TIME_S: u64 = 18;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The workload log under four faults, about two minutes in all.
    #[arg(long)]
    short: bool,
    /// For how many seconds each.
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    time: Option<u64>,
    /// Operations a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Only these workloads.
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Only these nemeses.
    #[arg(long, value_enum, value_delimiter = ',')]
    nemesis: Vec<Nemesis>,
    /// How often each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Decides what is done when; drawn when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A directory with one for each run; empty, or not there yet.
    #[arg(long)]
    out: PathBuf,
}

/// One run of the table.
#[derive(Debug, Serialize)]
struct Cell {
    workload: String,
    nemesis: String,
    seed: u64,
    #[serde(flatten)]
    result: CellResult,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum CellResult {
    Ran {
        outcome: Outcome,
        ops: Outcomes,
        faults: u64,
        p99_ms: f64,
        /// Without an acknowledged write in a fault: median and most.
        silence_ms: Option<(u64, u64)>,
        /// From a fault's beginning, and from its end, until a write is acknowledged.
        recovery: Option<Spread>,
        healing: Option<Spread>,
    },
    Skipped(String),
    Failed(String),
}

pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> Result<Ending, Failure> {
    let (default_workloads, default_nemeses, default_time) = match arguments.short {
        true => (vec![Workload::Log], SHORT.to_vec(), SHORT_TIME_S),
        false => (
            Workload::value_variants().to_vec(),
            NEMESES.to_vec(),
            TIME_S,
        ),
    };
    let workloads = or(&arguments.workload, default_workloads);
    let nemeses = or(&arguments.nemesis, default_nemeses);
    let time = Duration::from_secs(arguments.time.unwrap_or(default_time));
    let mut cells = Vec::new();
    let mut stdout = io::stdout().lock();
    let header = [
        "workload",
        "nemesis",
        "verdict",
        "ok",
        "fail",
        "unknown",
        "faults",
        "p99 ms",
        "silence ms",
        "recovery ms",
        "healing ms",
    ];
    row(&mut stdout, &header);
    for workload in &workloads {
        for nemesis in &nemeses {
            for time_number in 1..=arguments.times {
                let (workload_name, nemesis_name) = (name(workload), name(nemesis));
                let seed = arguments.seed.map_or_else(
                    || u64::from(rand::random::<u32>()),
                    |seed| seed + u64::from(time_number) - 1,
                );
                let directory = format!("{workload_name}-{nemesis_name}-{time_number}");
                let plan = Plan {
                    workload: *workload,
                    nemesis: *nemesis,
                    time,
                    rate: arguments.rate,
                    nodes: 3,
                    seed,
                    out: arguments.out.join(directory),
                    namespaces: Plan::namespaces_missing().is_none(),
                };
                let cell = Cell {
                    workload: workload_name,
                    nemesis: nemesis_name,
                    seed,
                    result: cell(plan, interrupts)?,
                };
                print(&mut stdout, &cell);
                cells.push(cell);
                save(arguments, &cells)?;
            }
        }
    }
    Ok(worst(&cells))
}

fn or<T: Clone>(given: &[T], default: Vec<T>) -> Vec<T> {
    match given {
        [] => default,
        given => given.to_vec(),
    }
}

fn cell(plan: Plan, interrupts: &Interrupts) -> Result<CellResult, Failure> {
    interrupts.check().map_err(Failure::failed)?;
    if let Some(missing) = plan.missing() {
        return Ok(CellResult::Skipped(missing.to_string()));
    }
    match execute(plan, interrupts) {
        Ok(summary) => Ok(ran(&summary)),
        Err(error @ (RunError::Interrupted(_) | RunError::NotEmpty(_))) => Err(failure(error)),
        Err(error) => Ok(CellResult::Failed(error.to_string())),
    }
}

fn ran(summary: &Summary) -> CellResult {
    CellResult::Ran {
        outcome: summary.outcome,
        ops: summary.judgement.counts.total(),
        faults: summary.judgement.counts.faults_landed(),
        p99_ms: summary.latency.p99_ms,
        silence_ms: summary.silence_ms(),
        recovery: summary.recovery,
        healing: summary.healing,
    }
}

/// Written after each run: the table of a long one is of use while it goes on.
fn save(arguments: &Arguments, cells: &[Cell]) -> Result<(), Failure> {
    let path = arguments.out.join("matrix.json");
    let text = serde_json::to_string_pretty(cells).expect("plain structures are JSON");
    fs::create_dir_all(&arguments.out)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| Failure::failed(format!("writing {}: {error}", path.display())))
}

/// Of the runs that there were; where there were none, nothing can be told.
fn worst(cells: &[Cell]) -> Ending {
    let skipped = |cell: &Cell| matches!(cell.result, CellResult::Skipped(_));
    if cells.iter().all(skipped) {
        return Ending::NoVerdict;
    }
    let endings = cells.iter().map(|cell| match &cell.result {
        CellResult::Ran { outcome, .. } => ending(*outcome),
        CellResult::Skipped(_) => Ending::Valid,
        CellResult::Failed(_) => Ending::Failed,
    });
    endings.fold(Ending::Valid, Ending::or_worse)
}

fn row(to: &mut impl Write, cells: &[&str]) {
    let widths = [11, 18, 11, 8, 6, 8, 7, 8, 14, 14, 14];
    for (cell, width) in cells.iter().zip(widths) {
        // Nobody listens any more, or everything is said.
        let _ = write!(to, "{cell:<width$} ");
    }
    let _ = writeln!(to);
}

fn print(to: &mut impl Write, cell: &Cell) {
    match &cell.result {
        CellResult::Skipped(why) => row(to, &[&cell.workload, &cell.nemesis, "skipped:", why]),
        CellResult::Failed(why) => row(to, &[&cell.workload, &cell.nemesis, "failed:", why]),
        CellResult::Ran {
            outcome,
            ops,
            faults,
            p99_ms,
            silence_ms,
            recovery,
            healing,
        } => {
            let verdict = match outcome {
                Outcome::Valid => "valid",
                Outcome::Invalid => "INVALID",
                Outcome::NoVerdict => "no verdict",
                Outcome::HarnessFailed => "harness",
            };
            let silence = silence_ms.map(|(median, most)| format!("{median} / {most}"));
            let spread = |spread: &Option<Spread>| {
                let shown =
                    spread.map(|spread| format!("{} / {}", spread.median_ms, spread.max_ms));
                shown.unwrap_or_default()
            };
            row(
                to,
                &[
                    &cell.workload,
                    &cell.nemesis,
                    verdict,
                    &ops.ok.to_string(),
                    &ops.fail.to_string(),
                    &ops.info.to_string(),
                    &faults.to_string(),
                    &format!("{p99_ms:.1}"),
                    &silence.unwrap_or_default(),
                    &spread(recovery),
                    &spread(healing),
                ],
            );
        }
    }
}

/// As it is called on the command line.
fn name(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(result: CellResult) -> Cell {
        Cell {
            workload: "log".to_owned(),
            nemesis: "none".to_owned(),
            seed: 1,
            result,
        }
    }

    #[test]
    fn a_table_of_skipped_cells_has_no_verdict() {
        let skipped = || cell(CellResult::Skipped("no root".to_owned()));
        let ran = |outcome| {
            cell(CellResult::Ran {
                outcome,
                ops: Outcomes::default(),
                faults: 0,
                p99_ms: 0.0,
                silence_ms: None,
                recovery: None,
                healing: None,
            })
        };
        assert_eq!(worst(&[skipped(), skipped()]), Ending::NoVerdict);
        assert_eq!(worst(&[skipped(), ran(Outcome::Valid)]), Ending::Valid);
        let cells = [ran(Outcome::Invalid), skipped(), ran(Outcome::Valid)];
        assert_eq!(worst(&cells), Ending::Invalid);
    }
}
