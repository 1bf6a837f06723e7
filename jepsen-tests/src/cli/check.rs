//! `huntlog-jepsen check HISTORY`.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Ending, Failure};
use crate::check::{Judgement, Minimum, Verdict, judge};
use crate::history::History;

/// How many violations are shown; the first ones tell.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// JSON lines, as `run` and `sim` write them.
    history: PathBuf,
    /// Below this many answered operations there is no verdict.
    #[arg(long, default_value_t = 1)]
    min_ok: u64,
    /// Below this many injected faults there is no verdict.
    #[arg(long, default_value_t = 0)]
    min_faults: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let history = read(&arguments.history)?;
    let minimum = Minimum {
        ok_ops: arguments.min_ok,
        faults: arguments.min_faults,
    };
    let judgement = judge(&history, minimum);
    // Nobody listens any more, or everything is said.
    let _ = print(&judgement, &mut io::stdout().lock());
    Ok(ending(judgement.verdict()))
}

/// The history in a file.
pub(super) fn read(path: &Path) -> Result<History, Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    History::read(BufReader::new(file))
        .map_err(|error| Failure::usage(format!("{shown} is no history: {error}")))
}

/// How a verdict is reported to the shell.
pub(super) fn ending(verdict: Verdict) -> Ending {
    match verdict {
        Verdict::Valid => Ending::Valid,
        Verdict::Invalid => Ending::Invalid,
        Verdict::NoVerdict => Ending::NoVerdict,
    }
}

/// Says what a history comes to, for people.
pub(super) fn print(judgement: &Judgement, to: &mut impl Write) -> io::Result<()> {
    for (f, outcomes) in &judgement.counts.ops {
        writeln!(
            to,
            "{f:8} {:>9} ok {:>7} fail {:>7} info",
            outcomes.ok, outcomes.fail, outcomes.info
        )?;
    }
    for (name, landed) in &judgement.counts.faults {
        writeln!(to, "fault {name}: {landed}")?;
    }
    for violation in judgement.violations.iter().take(SHOWN) {
        writeln!(to, "{violation}")?;
    }
    let more = judgement.violations.len().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(to, "and {more} more")?;
    }
    for why in judgement.insufficient.iter().take(SHOWN) {
        writeln!(to, "not enough: {why}")?;
    }
    writeln!(to, "{}", judgement.verdict())
}
