//! `huntlog-jepsen prove`: plants each bug and shows that the simulation notices.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use huntlog_planted::Bug;

use super::seeds::{NO_VERDICT, SeedRun, Seeds};
use super::{Ending, Failure, interrupts};
use crate::interrupt::Interrupts;
use crate::sim::Outcome;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A seed, or A..B with B included.
    #[arg(long, default_value = "1..100")]
    seeds: Seeds,
    /// The bugs, with commas between them; all when not given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    bugs: Vec<Bug>,
    /// Runs every seed, also after the first that notices.
    #[arg(long)]
    all: bool,
    /// Milliseconds of simulated time under faults.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    ticks: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    require_bugs()?;
    let bugs = if arguments.bugs.is_empty() {
        &Bug::ALL[..]
    } else {
        &arguments.bugs
    };
    let interrupts = interrupts()?;
    let controls = Controls::default();
    let mut missed = Vec::new();
    say(&format!(
        "{:27} {:>9} {:>6}  by, in how many seeds",
        "bug", "noticed", "first"
    ));
    for bug in bugs {
        let row = prove(*bug, arguments, &controls, &interrupts);
        interrupts.check().map_err(Failure::failed)?;
        say(&row.to_string());
        if row.noticed.is_empty() {
            missed.push(bug.name());
        }
    }
    if missed.is_empty() {
        say("every bug is noticed");
        return Ok(Ending::Valid);
    }
    say(&format!("NOT NOTICED: {}", missed.join(", ")));
    Ok(Ending::Invalid)
}

fn say(line: &str) {
    // Nobody listens any more, or everything is said.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What came of one bug.
struct Row {
    bug: Bug,
    seeds: u64,
    /// By seed: the kinds of what was noticed.
    noticed: BTreeMap<u64, Vec<String>>,
    /// Seeds that did not come to an outcome, or fail without the bug too.
    void: u64,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        for kind in self.noticed.values().flatten() {
            *by.entry(kind).or_default() += 1;
        }
        let mut by: Vec<(&str, u64)> = by.into_iter().collect();
        by.sort_by_key(|(_, seeds)| std::cmp::Reverse(*seeds));
        let by: Vec<String> = by
            .iter()
            .map(|(kind, seeds)| format!("{kind} {seeds}"))
            .collect();
        let share = format!("{}/{}", self.noticed.len(), self.seeds);
        let first = self
            .noticed
            .keys()
            .next()
            .map_or_else(|| "-".to_owned(), u64::to_string);
        let name = self.bug.name();
        write!(f, "{name:27} {share:>9} {first:>6}  {}", by.join(", "))?;
        if self.void > 0 {
            write!(f, " (void seeds: {})", self.void)?;
        }
        Ok(())
    }
}

/// Runs the seeds with the bug planted, until one notices, or somebody interrupts it,
/// or through all.
fn prove(bug: Bug, arguments: &Arguments, controls: &Controls, interrupts: &Interrupts) -> Row {
    let next = AtomicU64::new(arguments.seeds.first);
    let enough = AtomicBool::new(false);
    let row = Mutex::new(Row {
        bug,
        seeds: 0,
        noticed: BTreeMap::new(),
        void: 0,
    });
    let work = || {
        while !enough.load(Ordering::Relaxed) && interrupts.check().is_ok() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > arguments.seeds.last {
                return;
            }
            let planted = SeedRun {
                seed,
                ticks: arguments.ticks,
                bug: Some(bug),
            };
            let outcome = planted.spawn(None, interrupts);
            let kinds = outcome.map(|outcome| kinds(&outcome));
            let noticed = kinds.as_ref().is_ok_and(|kinds| !kinds.is_empty());
            let sound = !noticed || controls.is_sound(planted, interrupts);
            let mut row = row.lock().expect("no thread panics while it counts");
            row.seeds += 1;
            match kinds {
                Ok(kinds) if noticed && sound => {
                    row.noticed.insert(seed, kinds);
                    enough.fetch_or(!arguments.all, Ordering::Relaxed);
                }
                Ok(_) => row.void += u64::from(noticed),
                Err(_) => row.void += 1,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(work);
        }
    });
    row.into_inner().expect("no thread panicked")
}

/// Seeds without a bug: what fails then too has not been noticed.
#[derive(Default)]
struct Controls {
    sound: Mutex<BTreeMap<u64, bool>>,
}

impl Controls {
    fn is_sound(&self, planted: SeedRun, interrupts: &Interrupts) -> bool {
        let known = self.known().get(&planted.seed).copied();
        known.unwrap_or_else(|| {
            let control = SeedRun {
                bug: None,
                ..planted
            };
            let sound = control
                .spawn(None, interrupts)
                .is_ok_and(|outcome| outcome.violations.is_empty());
            self.known().insert(planted.seed, sound);
            sound
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, bool>> {
        self.sound.lock().expect("no thread panics while it looks")
    }
}

/// What the violations are of, each once: an invariant, or what befell a node. A run
/// without a verdict has noticed nothing.
fn kinds(outcome: &Outcome) -> Vec<String> {
    let mut kinds = Vec::new();
    for violation in &outcome.violations {
        let (head, _) = violation.split_once(": ").unwrap_or((violation, ""));
        let kind = match head.strip_prefix("node ") {
            Some(rest) => format!("a node{}", rest.trim_start_matches(char::is_numeric)),
            None => head.to_owned(),
        };
        if kind != NO_VERDICT && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Plants `bug` in this process.
#[cfg(feature = "planted-bugs")]
pub(super) fn plant(bug: Bug) -> Result<(), Failure> {
    huntlog_planted::plant(bug).map_err(Failure::usage)
}

/// Plants `bug` in this process.
#[cfg(not(feature = "planted-bugs"))]
pub(super) fn plant(_: Bug) -> Result<(), Failure> {
    require_bugs()
}

/// Refuses what a build without bugs can not do.
fn require_bugs() -> Result<(), Failure> {
    if cfg!(feature = "planted-bugs") {
        return Ok(());
    }
    Err(Failure::usage(
        "this build has no bugs to plant: use scripts/prove, or build it with --features planted-bugs",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_violation_counts_once() {
        let violations = [
            "node 2 stopped: it differs",
            "node 3 stopped: it differs",
            "I7: at log index 8 node 2 has another digest",
            "no verdict: 3 ok operations",
        ];
        let outcome = Outcome {
            seed: 1,
            violations: violations.map(str::to_owned).into(),
            trace: (0, 0),
            simulated_ms: 0,
            nodes: 3,
            faults: 0,
            ops: BTreeMap::new(),
            coverage: Vec::new(),
        };
        assert_eq!(kinds(&outcome), ["a node stopped", "I7"]);
    }
}
