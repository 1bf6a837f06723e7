//! `huntlog-jepsen upgrade`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Ending, Failure};
use crate::upgrade::{Plan, Report, UpgradeError, execute};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// `huntlog-node` of the release to upgrade from.
    #[arg(long)]
    old: PathBuf,
    /// For how many seconds there is load; the steps have to end before.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=3_600))]
    time: u64,
    /// Kills nodes in the middle of the steps, as this seed draws.
    #[arg(long, value_name = "SEED")]
    kills: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Result<Ending, Failure> {
    if !arguments.old.is_file() {
        let old = arguments.old.display();
        return Err(Failure::usage(format!("there is no {old}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let plan = Plan {
        old: arguments.old,
        time: Duration::from_secs(arguments.time),
        kills: arguments.kills,
    };
    let mut out = io::stdout().lock();
    // Nobody listens any more, or everything is said.
    match runtime.block_on(execute(&plan)) {
        Ok(report) => {
            let _ = print(&report, &mut out);
            Ok(Ending::Valid)
        }
        Err(UpgradeError::Wrong(what)) => {
            let _ = writeln!(out, "not as it must be: {what}");
            Ok(Ending::Invalid)
        }
        Err(error) => Err(Failure::failed(error)),
    }
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for (step, took) in &report.steps {
        writeln!(out, "{step}: {} ms", took.as_millis())?;
    }
    let load = &report.load;
    writeln!(
        out,
        "load: {} events acknowledged, {} sent again, {} answered as duplicates; longest time without an acknowledgement {} ms; acknowledged after p50 {} us, p99 {} us",
        load["events"]["acknowledged"],
        load["events"]["retried"],
        load["events"]["duplicates"],
        report.stall.as_millis(),
        load["ack_latency_us"]["p50"],
        load["ack_latency_us"]["p99"],
    )?;
    writeln!(out, "processes killed: {}", report.kills)?;
    write!(out, "{}", report.verified)
}
