//! Seeds, each run in a process of its own: a simulation takes over its
//! process's clocks, and a process that hangs must not keep the others.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use huntlog_planted::Bug;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::{Ending, Failure};
use crate::interrupt::{Interrupted, Interrupts};
use crate::sim::Outcome;

/// A seed whose process has not ended in this time of the real clock, and the time that
/// it simulates besides, hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a process, and at what may interrupt it.
const POLL: Duration = Duration::from_millis(5);
/// How a violation begins that says only that too little has happened.
pub(super) const NO_VERDICT: &str = "no verdict";

/// Seeds from one to another, the last one included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeds {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|error| format!("\"{text}\" is no seed: {error}"))
        };
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!("there is no seed from {first} to {last}"));
        }
        Ok(Self { first, last })
    }
}

/// Why a seed has no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoOutcome {
    /// The operating system refused.
    #[error("its process can not be run: {0}")]
    Io(#[from] io::Error),
    /// Its process does not come to an end.
    #[error("it hangs: no end after {} s", .0.as_secs())]
    Hangs(Duration),
    /// Its process ended before it had one.
    #[error("its process ended with {status}: {said}")]
    Died {
        /// How.
        status: ExitStatus,
        /// The last lines of its standard error.
        said: String,
    },
    /// Somebody stopped the command.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// How a seed ends that comes to this.
pub(super) fn ending(violations: &[String]) -> Ending {
    let endings = violations.iter().map(|what| match what.split_once(": ") {
        Some((NO_VERDICT, _)) => Ending::NoVerdict,
        _ => Ending::Invalid,
    });
    endings.fold(Ending::Valid, Ending::or_worse)
}

/// From now on this process, which `parent` has started for a seed, ends when
/// `parent` does, in whatever way: nobody else would end it.
pub(super) fn end_with(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::failed(format!("asking to end with {parent}: {error}")))?;
    match Pid::as_raw(getppid()) == parent {
        true => Ok(()),
        false => Err(Failure::failed(format!("{parent} has ended before"))),
    }
}

/// One run of one seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeedRun {
    pub(super) seed: u64,
    /// Milliseconds of simulated time under faults.
    pub(super) ticks: u64,
    /// The bug planted in it.
    pub(super) bug: Option<Bug>,
}

impl SeedRun {
    /// The arguments of the command that does it.
    pub(super) fn arguments(self) -> Vec<String> {
        let mut arguments = vec![
            "sim".to_owned(),
            "--ticks".to_owned(),
            self.ticks.to_string(),
            "--seeds".to_owned(),
            self.seed.to_string(),
        ];
        if let Some(bug) = self.bug {
            arguments.extend(["--bug".to_owned(), bug.name().to_owned()]);
        }
        arguments
    }

    /// The command that does it once more, and shows everything.
    pub(super) fn repetition(self) -> String {
        format!("huntlog-jepsen {} --trace", self.arguments().join(" "))
    }

    /// Does it in a process of its own, which writes its history to the file if there
    /// is one. The process ends with the thread that calls this, at the latest.
    pub(super) fn spawn(
        self,
        history: Option<&Path>,
        interrupts: &Interrupts,
    ) -> Result<Outcome, NoOutcome> {
        // Files and not pipes: a run with many violations says more than a pipe
        // holds, and would wait for a reader.
        let said = Said::new()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(self.arguments())
            .args(["--in-process", &Pid::as_raw(Some(getpid())).to_string()])
            // A terminal's Ctrl-C is this process's to hear.
            .process_group(0);
        if let Some(history) = history {
            command.arg("--history").arg(history);
        }
        let mut process = said.taken_down_of(&mut command)?.spawn()?;
        let patience = PATIENCE + Duration::from_millis(self.ticks);
        let status = match end_of(&mut process, patience, interrupts) {
            Ok(status) => status,
            Err(why) => {
                // It may have ended meanwhile; either way it is waited for.
                let _ = process.kill();
                let _ = process.wait();
                return Err(why);
            }
        };
        let (outcome, errors) = said.read()?;
        serde_json::from_str(&outcome).map_err(|_| {
            let last: Vec<&str> = errors.lines().rev().take(5).collect();
            let said = last.join(" | ");
            NoOutcome::Died { status, said }
        })
    }
}

/// Waits for it, for as long as there is patience.
fn end_of(
    process: &mut Child,
    patience: Duration,
    interrupts: &Interrupts,
) -> Result<ExitStatus, NoOutcome> {
    let began = Instant::now();
    while began.elapsed() <= patience {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        interrupts.check()?;
        std::thread::sleep(POLL);
    }
    Err(NoOutcome::Hangs(patience))
}

/// What a process says, in files without names.
struct Said {
    stdout: File,
    stderr: File,
}

impl Said {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stdout: tempfile::tempfile()?,
            stderr: tempfile::tempfile()?,
        })
    }

    fn taken_down_of<'a>(&self, command: &'a mut Command) -> io::Result<&'a mut Command> {
        Ok(command
            .stdin(Stdio::null())
            .stdout(self.stdout.try_clone()?)
            .stderr(self.stderr.try_clone()?))
    }

    /// Standard output and standard error.
    fn read(self) -> io::Result<(String, String)> {
        Ok((text(self.stdout)?, text(self.stderr)?))
    }
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_only_that_too_little_happened_is_no_violation() {
        let ending_of = |violations: &[&str]| {
            let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
            ending(&violations)
        };
        assert_eq!(ending_of(&[]), Ending::Valid);
        let too_little = "no verdict: 3 ok operations";
        assert_eq!(ending_of(&[too_little, too_little]), Ending::NoVerdict);
        assert_eq!(ending_of(&[too_little, "a panic: x"]), Ending::Invalid);
    }

    #[test]
    fn a_process_may_say_more_than_a_pipe_holds() {
        let said = Said::new().expect("a temporary file");
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 1000000 /dev/zero; echo late >&2"]);
        let status = said
            .taken_down_of(&mut command)
            .and_then(Command::status)
            .expect("it runs");
        assert!(status.success());
        let (stdout, stderr) = said.read().expect("it was written");
        assert_eq!((stdout.len(), stderr.as_str()), (1_000_000, "late\n"));
    }
}
