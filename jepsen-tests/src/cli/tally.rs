//! What seeds have come to, for people.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use super::Ending;
use super::seeds::{NoOutcome, SeedRun, ending};
use crate::check::Outcomes;
use crate::sim::Outcome;

/// What all seeds came to.
#[derive(Default)]
pub(super) struct Tally {
    seeds: u64,
    simulated_ms: u64,
    faults: u64,
    ops: BTreeMap<String, Outcomes>,
    coverage: BTreeMap<String, u64>,
    /// Those that are not valid, by how they have ended.
    not_valid: Vec<(Ending, u64)>,
}

/// What is said of those that are not valid.
const NOT_VALID: [(Ending, &str); 3] = [
    (Ending::Invalid, "FAILED"),
    (Ending::NoVerdict, "without a verdict"),
    (Ending::Failed, "came to no end"),
];

impl Tally {
    /// Counts it, and says at once what is wrong with it.
    pub(super) fn take(&mut self, run: SeedRun, outcome: Result<Outcome, NoOutcome>) {
        self.seeds += 1;
        let (ending, faults) = match outcome {
            Err(reason) => (Ending::Failed, vec![reason.to_string()]),
            Ok(outcome) => {
                self.simulated_ms += outcome.simulated_ms;
                self.faults += outcome.faults;
                for (f, outcomes) in outcome.ops {
                    self.ops.entry(f).or_default().add(outcomes);
                }
                for (name, count) in outcome.coverage {
                    *self.coverage.entry(name).or_default() += count;
                }
                (ending(&outcome.violations), outcome.violations)
            }
        };
        let Some((_, said)) = NOT_VALID.iter().find(|(of, _)| *of == ending) else {
            return;
        };
        self.not_valid.push((ending, run.seed));
        let mut stdout = io::stdout().lock();
        // Nobody listens any more, or everything is said.
        let _ = writeln!(stdout, "seed {} {said}", run.seed);
        for fault in faults.iter().take(8) {
            let _ = writeln!(stdout, "  {fault}");
        }
        let _ = writeln!(stdout, "  repeat it: {}", run.repetition());
    }

    /// How all of them end.
    pub(super) fn ending(&self) -> Ending {
        let endings = self.not_valid.iter().map(|(ending, _)| *ending);
        endings.fold(Ending::Valid, Ending::or_worse)
    }

    /// Says it.
    pub(super) fn print(&self, took: Duration, to: &mut impl Write) -> io::Result<()> {
        if self.seeds == 0 {
            // It was interrupted before the first had ended.
            return Ok(());
        }
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
        if self.not_valid.is_empty() {
            return writeln!(to, "all valid");
        }
        for (ending, said) in NOT_VALID {
            let of_it = self.not_valid.iter().filter(|(found, _)| *found == ending);
            let seeds: Vec<u64> = of_it.map(|(_, seed)| *seed).collect();
            if !seeds.is_empty() {
                writeln!(to, "{} {said}: {seeds:?}", seeds.len())?;
            }
        }
        Ok(())
    }
}

/// Says what one seed has come to, but not how long it took: that differs from run to
/// run, and the rest does not.
pub(super) fn print_one(run: SeedRun, outcome: &Outcome, to: &mut impl Write) -> io::Result<()> {
    print_head(outcome, to)?;
    let rows = outcome.coverage.iter();
    print_counts(
        &outcome.ops,
        rows.map(|(name, count)| (name.as_str(), *count)),
        to,
    )?;
    for violation in &outcome.violations {
        writeln!(to, "  VIOLATION {violation}")?;
    }
    if !outcome.violations.is_empty() {
        writeln!(to, "  repeat it: {}", run.repetition())?;
    }
    Ok(())
}

/// The first line of it.
pub(super) fn print_head(outcome: &Outcome, to: &mut impl Write) -> io::Result<()> {
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
    )
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
        let run = SeedRun {
            seed: 7,
            ticks: 1,
            bug: None,
        };
        let text = said(|to| print_one(run, &one, to));
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

    #[test]
    fn the_worst_seed_decides_and_each_that_is_not_valid_is_named() {
        let run = |seed| SeedRun {
            seed,
            ticks: 1,
            bug: None,
        };
        let with = |violation: &str| {
            let mut outcome = outcome(&[]);
            outcome.violations.push(violation.to_owned());
            outcome
        };
        let mut tally = Tally::default();
        tally.take(run(1), Ok(outcome(&[])));
        assert_eq!(tally.ending(), Ending::Valid);
        tally.take(run(2), Ok(with("no verdict: 3 ok operations")));
        assert_eq!(tally.ending(), Ending::NoVerdict);
        tally.take(run(3), Err(NoOutcome::Hangs(Duration::from_secs(120))));
        assert_eq!(tally.ending(), Ending::Failed);
        tally.take(run(4), Ok(with("I3: it was applied twice")));
        assert_eq!(tally.ending(), Ending::Invalid);
        let text = said(|to| tally.print(Duration::from_secs(1), to));
        for line in [
            "1 FAILED: [4]",
            "1 without a verdict: [2]",
            "1 came to no end: [3]",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_traced_seed_that_is_not_valid_says_how_to_repeat_it() {
        let run = SeedRun {
            seed: 7,
            ticks: 20,
            bug: None,
        };
        let mut one = outcome(&[]);
        let text = said(|to| print_one(run, &one, to));
        assert!(!text.contains("repeat it"), "{text}");
        one.violations.push("I3: it was applied twice".to_owned());
        let text = said(|to| print_one(run, &one, to));
        let repeated = "repeat it: huntlog-jepsen sim --ticks 20 --seeds 7 --trace\n";
        assert!(text.contains(repeated), "{text}");
    }
}
