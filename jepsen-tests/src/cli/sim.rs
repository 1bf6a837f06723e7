//! `huntlog-jepsen sim`: simulated clusters, one for each seed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use huntlog_planted::Bug;

use super::prove::plant;
use super::seeds::{SeedRun, Seeds};
use super::{Ending, Failure};
use crate::check::Outcomes;
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
    #[arg(long)]
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
    /// One seed, in this process; the outcome goes to standard output.
    #[arg(long, hide = true)]
    in_process: bool,
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
    if arguments.in_process || (single && !arguments.twice) {
        return one(arguments, first);
    }
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let outcome = child(arguments, seed);
                    let mut tally = tally.lock().expect("no thread panics while it counts");
                    tally.take(arguments.run_of(seed), outcome);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no thread panicked");
    // Nobody listens any more, or everything is said.
    let _ = tally.print(began.elapsed(), &mut io::stdout().lock());
    Ok(if tally.failed.is_empty() {
        Ending::Valid
    } else {
        Ending::Invalid
    })
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
    let valid = outcome.violations.is_empty();
    let mut stdout = io::stdout().lock();
    // Nobody listens any more, or everything is said.
    let _ = if arguments.in_process {
        let text = serde_json::to_string(&outcome).expect("plain data");
        writeln!(stdout, "{text}")
    } else {
        print_one(&outcome, &mut stdout)
    };
    drop(stdout);
    // Runtimes of nodes that still run need not be taken apart.
    std::process::exit(if valid { 0 } else { 1 });
}

fn print_one(outcome: &Outcome, to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "seed {}: {} nodes, {} ms simulated, {} faults, {} ok operations, trace {:016x} of {} lines",
        outcome.seed,
        outcome.nodes,
        outcome.simulated_ms,
        outcome.faults,
        ok_ops(&outcome.ops),
        outcome.trace.0,
        outcome.trace.1,
    )?;
    let rows = outcome.coverage.iter();
    print_counts(
        &outcome.ops,
        rows.map(|(name, count)| (name.as_str(), *count)),
        to,
    )?;
    for violation in &outcome.violations {
        writeln!(to, "  VIOLATION {violation}")?;
    }
    Ok(())
}

fn ok_ops(ops: &BTreeMap<String, Outcomes>) -> u64 {
    ops.values().map(|outcomes| outcomes.ok).sum()
}

/// What became of the operations, every count, and in the end what never happened.
fn print_counts<'a>(
    ops: &'a BTreeMap<String, Outcomes>,
    counts: impl Iterator<Item = (&'a str, u64)>,
    to: &mut impl Write,
) -> io::Result<()> {
    let mut never: Vec<&str> = Vec::new();
    writeln!(
        to,
        "  {:28} {:>9} {:>9} {:>9}",
        "operation", "ok", "fail", "info"
    )?;
    for (f, Outcomes { ok, fail, info }) in ops {
        writeln!(to, "  {f:28} {ok:>9} {fail:>9} {info:>9}")?;
        if *ok == 0 {
            never.push(f);
        }
    }
    for (name, count) in counts {
        writeln!(to, "  {name:28} {count:>9}")?;
        if count == 0 {
            never.push(name);
        }
    }
    if never.is_empty() {
        return writeln!(to, "everything that is counted has happened");
    }
    writeln!(to, "never happened: {}", never.join(", "))
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

/// Runs a seed in a process of its own, twice if asked to; why it failed to,
/// otherwise.
fn child(arguments: &Arguments, seed: u64) -> Result<Outcome, String> {
    let first = arguments.run_of(seed).spawn()?;
    if arguments.twice {
        let second = arguments.run_of(seed).spawn()?;
        if first.trace != second.trace {
            return Err(format!(
                "it does not repeat: its trace is {:016x} of {} lines once, then {:016x} of {}",
                first.trace.0, first.trace.1, second.trace.0, second.trace.1
            ));
        }
    }
    Ok(first)
}

/// What all seeds came to.
#[derive(Default)]
struct Tally {
    seeds: u64,
    simulated_ms: u64,
    faults: u64,
    ops: BTreeMap<String, Outcomes>,
    coverage: BTreeMap<String, u64>,
    failed: Vec<u64>,
}

impl Tally {
    fn take(&mut self, run: SeedRun, outcome: Result<Outcome, String>) {
        self.seeds += 1;
        let faults = match outcome {
            Err(reason) => vec![reason],
            Ok(outcome) => {
                self.simulated_ms += outcome.simulated_ms;
                self.faults += outcome.faults;
                for (f, outcomes) in outcome.ops {
                    self.ops.entry(f).or_default().add(outcomes);
                }
                for (name, count) in outcome.coverage {
                    *self.coverage.entry(name).or_default() += count;
                }
                outcome.violations
            }
        };
        if faults.is_empty() {
            return;
        }
        self.failed.push(run.seed);
        let mut stdout = io::stdout().lock();
        // Nobody listens any more, or everything is said.
        let _ = writeln!(stdout, "seed {} FAILED", run.seed);
        for fault in faults.iter().take(8) {
            let _ = writeln!(stdout, "  {fault}");
        }
        let _ = writeln!(
            stdout,
            "  repeat it: huntlog-jepsen {} --trace",
            run.arguments().join(" ")
        );
    }

    fn print(&self, took: Duration, to: &mut impl Write) -> io::Result<()> {
        let seconds = took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = self.seeds as f64 / seconds;
        writeln!(
            to,
            "{} seeds in {seconds:.1} s ({rate:.2} a second), {} s simulated, {} faults, {} ok operations",
            self.seeds,
            self.simulated_ms / 1000,
            self.faults,
            ok_ops(&self.ops)
        )?;
        let rows = self.coverage.iter();
        print_counts(
            &self.ops,
            rows.map(|(name, count)| (name.as_str(), *count)),
            to,
        )?;
        if self.failed.is_empty() {
            writeln!(to, "all valid")
        } else {
            writeln!(to, "{} FAILED: {:?}", self.failed.len(), self.failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(coverage: &[(&str, u64)]) -> Outcome {
        let rows = coverage.iter();
        let ops = [
            (
                "append",
                Outcomes {
                    ok: 5,
                    fail: 2,
                    info: 1,
                },
            ),
            (
                "who",
                Outcomes {
                    ok: 0,
                    fail: 0,
                    info: 3,
                },
            ),
        ];
        Outcome {
            seed: 7,
            violations: Vec::new(),
            trace: (1, 2),
            simulated_ms: 3,
            nodes: 3,
            faults: 4,
            ops: ops.map(|(f, outcomes)| (f.to_owned(), outcomes)).into(),
            coverage: rows
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        }
    }

    fn said(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut text = Vec::new();
        print(&mut text).expect("memory takes it");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn what_never_happened_is_said_of_one_seed_and_of_many() {
        let one = outcome(&[("fenced", 0), ("duplicates", 9)]);
        let text = said(|to| print_one(&one, to));
        assert!(text.contains("never happened: who, fenced\n"), "{text}");
        let columns = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let lines: Vec<_> = text.lines().map(columns).collect();
        assert!(lines.contains(&columns("append 5 2 1")), "{text}");
        assert!(lines.contains(&columns("fenced 0")), "{text}");

        let mut tally = Tally::default();
        let run = SeedRun {
            seed: 7,
            ticks: 1,
            bug: None,
        };
        tally.take(run, Ok(one));
        tally.take(run, Ok(outcome(&[("fenced", 3), ("duplicates", 9)])));
        let text = said(|to| tally.print(Duration::from_secs(1), to));
        assert!(text.contains("never happened: who\n"), "{text}");
        assert!(
            text.lines()
                .map(columns)
                .any(|line| line == columns("append 10 4 2")),
            "{text}"
        );
    }
}
