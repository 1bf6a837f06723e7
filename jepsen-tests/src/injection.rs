//! System calls of a running node that fail, or lie, by strace.

use std::fs;
use std::io::BufRead as _;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::node::{NodeProcess, ProcessError};

/// How long attaching may take.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// Faults in a node's system calls, until this is dropped or the node ends.
#[derive(Debug)]
pub struct Injection {
    _strace: Child,
    /// What strace says of each call.
    calls: NamedTempFile,
}

impl Injection {
    /// Why no faults can be injected on this machine, if they can not: found out
    /// once, by attaching to a process that waits.
    pub fn unavailable() -> Option<&'static str> {
        static REASON: OnceLock<Option<String>> = OnceLock::new();
        REASON.get_or_init(|| probe().err()).as_deref()
    }

    /// Attaches to `node`. `fault` is what strace's `inject=` takes, such as
    /// `fdatasync:error=EIO:when=3` (the third call of each thread), `paths`
    /// limits it to calls on these files.
    ///
    /// # Errors
    /// When strace is missing, or is not allowed to attach.
    pub async fn attach(
        node: &NodeProcess,
        fault: &str,
        paths: &[&str],
    ) -> Result<Self, ProcessError> {
        let refused = |message: String| {
            ProcessError::io("attaching strace to a node", std::io::Error::other(message))
        };
        let Some(pid) = node.pid() else {
            return Err(refused("the node does not run".into()));
        };
        let log = NamedTempFile::with_prefix("huntlog-strace-")
            .map_err(|source| ProcessError::io("making a temporary file", source))?;
        let (calls, _) = fault.split_once(':').unwrap_or((fault, ""));
        let mut command = Command::new("strace");
        command
            .arg("-f")
            .arg("-o")
            .arg(log.path())
            .args(["-p", &pid.to_string()])
            .arg(format!("--trace={calls}"))
            .arg(format!("--inject={fault}"))
            .args(paths.iter().flat_map(|path| ["-P", path]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut strace = command
            .spawn()
            .map_err(|source| ProcessError::io("starting strace", source))?;
        let said = strace.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(said).lines();
        let attached = async {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(" attached") {
                    return Ok(());
                }
                all.push_str(&line);
            }
            Err(refused(all))
        };
        tokio::time::timeout(ATTACH_LIMIT, attached)
            .await
            .unwrap_or_else(|_| Err(refused("it takes too long".into())))?;
        // It goes on to speak of threads as they come; a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            _strace: strace,
            calls: log,
        })
    }

    /// How many calls it has made fail, lie or wait so far.
    pub fn count(&self) -> usize {
        // A call that can not be read of was not seen.
        let text = fs::read_to_string(self.calls.path()).unwrap_or_default();
        text.lines().filter(|line| is_injected(line)).count()
    }
}

/// Whether strace says of a call that it has interfered with it.
fn is_injected(line: &str) -> bool {
    line.ends_with("INJECTED)") || line.ends_with("DELAYED)")
}

/// Attaches to a child of this process, as a node is one, and lets it go.
fn probe() -> Result<(), String> {
    let mut waiting = std::process::Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("no process to try strace on can be started: {error}"))?;
    let attached = attach_once(waiting.id());
    // It may have ended; either way it is waited for.
    let _ = waiting.kill();
    let _ = waiting.wait();
    attached
}

fn attach_once(pid: u32) -> Result<(), String> {
    let mut strace = std::process::Command::new("strace")
        .args(["-o", "/dev/null", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|_| "strace is not installed; install the package strace".to_owned())?;
    let said = strace.stderr.take().expect("it is piped");
    let mut all = String::new();
    let attached = std::io::BufReader::new(said)
        .lines()
        .map_while(Result::ok)
        .any(|line| {
            all.push_str(&line);
            line.contains(" attached")
        });
    let _ = strace.kill();
    let _ = strace.wait();
    match attached {
        true => Ok(()),
        false => Err(format!("strace is not allowed to attach: {all}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_not_attach_says_why() {
        if std::process::Command::new("strace")
            .arg("-V")
            .output()
            .is_err()
        {
            let why = Injection::unavailable().expect("a reason");
            assert!(why.starts_with("strace is not installed"), "{why}");
            return;
        }
        // Nobody can attach to a process that does not exist.
        let refused = attach_once(u32::MAX >> 1).expect_err("there is no such process");
        assert!(
            refused.contains("not allowed to attach: strace: "),
            "{refused}"
        );
    }
}
