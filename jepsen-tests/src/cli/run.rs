//! `huntlog-jepsen run`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Ending, Failure, check};
use crate::interrupt::Interrupts;
use crate::run::{Nemesis, Outcome, Plan, RunError, Summary, Workload, execute};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What clients do.
    #[arg(long, value_enum)]
    workload: Workload,
    /// What is done to the cluster.
    #[arg(long, value_enum)]
    nemesis: Nemesis,
    /// For how many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    time: u64,
    /// Operations a second, all clients together.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Nodes of the cluster: 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    nodes: u64,
    /// Decides what is done when, as far as real processes allow; drawn when it
    /// is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A directory for everything that is written; empty, or not there yet.
    #[arg(long)]
    out: PathBuf,
    /// All nodes on the loopback interface, without namespaces and without the
    /// faults that need them. So it is as well where this machine has none.
    #[arg(long)]
    loopback: bool,
}

fn nodes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(nodes @ (3 | 5)) => Ok(nodes),
        _ => Err("a cluster of 3 or 5".to_owned()),
    }
}

pub(super) fn run(arguments: Arguments, interrupts: &Interrupts) -> Result<Ending, Failure> {
    let why_loopback = match arguments.loopback {
        true => None,
        false => Plan::namespaces_missing(),
    };
    if let Some(why) = &why_loopback {
        // If standard error is closed, there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "huntlog-jepsen: all nodes are on loopback addresses: {why}"
        );
    }
    let plan = Plan {
        workload: arguments.workload,
        nemesis: arguments.nemesis,
        time: Duration::from_secs(arguments.time),
        rate: arguments.rate,
        nodes: arguments.nodes,
        seed: arguments
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>())),
        out: arguments.out,
        namespaces: !arguments.loopback && why_loopback.is_none(),
    };
    let out = plan.out.clone();
    let summary = execute(plan, interrupts).map_err(failure)?;
    let mut stdout = io::stdout().lock();
    // Nobody listens any more, or everything is said.
    let _ = print(&summary, &mut stdout);
    let _ = writeln!(stdout, "{}", out.join("summary.html").display());
    Ok(ending(summary.outcome))
}

pub(super) fn failure(error: RunError) -> Failure {
    match error {
        RunError::Loopback(_) | RunError::NotEmpty(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}

pub(super) fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Valid => Ending::Valid,
        Outcome::Invalid => Ending::Invalid,
        Outcome::NoVerdict => Ending::NoVerdict,
        Outcome::HarnessFailed => Ending::Failed,
    }
}

fn print(summary: &Summary, to: &mut impl Write) -> io::Result<()> {
    for finding in &summary.findings {
        writeln!(to, "{finding}")?;
    }
    let latency = summary.latency;
    writeln!(
        to,
        "writes: p50 {:.1} ms, p99 {:.1} ms, at most {:.0} ms; seed {}",
        latency.p50_ms, latency.p99_ms, latency.max_ms, summary.seed
    )?;
    if let Some((median, most)) = summary.silence_ms() {
        writeln!(
            to,
            "without an acknowledged write in a fault: {median} ms (median), {most} ms (most)"
        )?;
    }
    check::print(&summary.judgement, to)?;
    if summary.outcome == Outcome::Invalid && summary.judgement.violations.is_empty() {
        writeln!(to, "the run is INVALID for what stands above")?;
    }
    Ok(())
}
