//! Seeds, each run in a process of its own: a simulation takes over its
//! process's clocks, and a process that hangs must not keep the others.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use huntlog_planted::Bug;

use crate::sim::Outcome;

/// A seed whose process has not ended in this time of the real clock hangs.
const PATIENCE: Duration = Duration::from_secs(120);

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

    /// Does it in a process of its own; why there is no outcome, otherwise.
    pub(super) fn spawn(self) -> Result<Outcome, String> {
        // Files and not pipes: a run with many violations says more than a pipe
        // holds, and would wait for a reader.
        let said = Said::new().map_err(|error| error.to_string())?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut process = said
            .taken_down_of(Command::new(own).args(self.arguments()).arg("--in-process"))
            .and_then(Command::spawn)
            .map_err(|error| format!("its process does not start: {error}"))?;
        let began = Instant::now();
        let status = loop {
            let ended = process.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                break status;
            }
            if began.elapsed() > PATIENCE {
                let _ = process.kill();
                let _ = process.wait();
                return Err(format!("it hangs: no end after {} s", PATIENCE.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (outcome, errors) = said.read().map_err(|error| error.to_string())?;
        serde_json::from_str(&outcome).map_err(|_| {
            let last: Vec<&str> = errors.lines().rev().take(5).collect();
            format!("its process ended with {status}: {}", last.join(" | "))
        })
    }
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
