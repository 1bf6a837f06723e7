//! `huntlog-jepsen sim`: simulated clusters, one for each seed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use huntlog_planted::Bug;

use super::prove::plant;
use super::seeds::{NoOutcome, SeedRun, Seeds, end_with, ending};
use super::tally::{Tally, print_head, print_one};
use super::{Ending, Failure, interrupts};
use crate::interrupt::Interrupts;
use crate::sim::{Outcome, Plan, run as simulate};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A seed, or A..B with B included.
    #[arg(long, default_value = "1..20")]
    seeds: Seeds,
    /// Milliseconds of simulated time under faults.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    ticks: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Prints everything that happens, of a single seed.
    #[arg(long, conflicts_with = "twice")]
    trace: bool,
    /// Writes a single seed's history there.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Runs each seed twice and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Plants this bug, in a build that has bugs; an unknown name lists them.
    #[arg(long, value_name = "NAME")]
    bug: Option<Bug>,
    /// One seed, in this process, which PARENT has started; the outcome goes to
    /// standard output.
    #[arg(long, hide = true, value_name = "PARENT")]
    in_process: Option<i32>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let Seeds { first, last } = arguments.seeds;
    let single = first == last;
    if (arguments.trace || arguments.history.is_some()) && !single {
        let message = "--trace and --history are for a single seed: give it with --seeds N";
        return Err(Failure::usage(message));
    }
    if let Some(bug) = arguments.bug {
        plant(bug)?;
    }
    if let Some(parent) = arguments.in_process {
        end_with(parent)?;
    }
    if arguments.trace || arguments.in_process.is_some() {
        return one(arguments, first);
    }
    let interrupts = interrupts()?;
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while interrupts.check().is_ok() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let outcome = child(arguments, seed, &interrupts);
                    if matches!(outcome, Err(NoOutcome::Interrupted(_))) {
                        return;
                    }
                    if single && let Ok(outcome) = &outcome {
                        // Nobody listens any more, or everything is said.
                        let _ = print_head(outcome, &mut io::stdout().lock());
                    }
                    let mut tally = tally.lock().expect("no thread panics while it counts");
                    tally.take(arguments.run_of(seed), outcome);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no thread panicked");
    // Nobody listens any more, or everything is said.
    let _ = tally.print(began.elapsed(), &mut io::stdout().lock());
    interrupts.check().map_err(Failure::failed)?;
    Ok(tally.ending())
}

fn one(arguments: &Arguments, seed: u64) -> Result<Ending, Failure> {
    let (outcome, history) = simulate(Plan {
        seed,
        chaos: Duration::from_millis(arguments.ticks),
        shown: arguments.trace,
    });
    if let Some(path) = &arguments.history {
        File::create(path)
            .and_then(|file| history.write(BufWriter::new(file)))
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    let ending = ending(&outcome.violations);
    let mut stdout = io::stdout().lock();
    // Nobody listens any more, or everything is said.
    let _ = if arguments.in_process.is_some() {
        let text = serde_json::to_string(&outcome).expect("plain data");
        writeln!(stdout, "{text}")
    } else {
        print_one(arguments.run_of(seed), &outcome, &mut stdout)
    };
    drop(stdout);
    // Runtimes of nodes that still run need not be taken apart.
    std::process::exit(ending.code().into());
}

impl Arguments {
    fn run_of(&self, seed: u64) -> SeedRun {
        SeedRun {
            seed,
            ticks: self.ticks,
            bug: self.bug,
        }
    }
}

/// Runs a seed in a process of its own, twice if asked to: that the second is another
/// run is a violation.
fn child(arguments: &Arguments, seed: u64, interrupts: &Interrupts) -> Result<Outcome, NoOutcome> {
    let spawn = || {
        let run = arguments.run_of(seed);
        run.spawn(arguments.history.as_deref(), interrupts)
    };
    let mut first = spawn()?;
    if arguments.twice {
        let second = spawn()?;
        if first.trace != second.trace {
            first.violations.push(format!(
                "it does not repeat: its trace is {:016x} of {} lines once, then {:016x} of {}",
                first.trace.0, first.trace.1, second.trace.0, second.trace.1
            ));
        }
    }
    Ok(first)
}
