//! One huntlog-node process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid,
};

use tokio::process::{Child, Command};

use crate::config::NodeSpec;
use crate::memory;
use crate::network::path;

/// How long the end of a process that is killed and dropped is waited for: one
/// whose disk hangs does not end before the disk is let go.
const DROP_LIMIT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Where openraft can panic in a node whose storage has failed: when its core has ended,
/// the first who notices waits for its task in behalf of all, and if that one is dropped
/// before, since its connection broke or the process ends, whoever asks next panics.
pub const OPENRAFT_CORE_ENDED: &str = "/openraft-0.10.0-alpha.37/src/raft/raft_inner.rs:214:";

/// Why a process could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A binary of the workspace is not there.
    #[error("{0} is not built; run `cargo build --workspace --bins` with the same profile first")]
    NotBuilt(PathBuf),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl ProcessError {
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// The workspace's binary `name`, of the profile that runs now.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf, ProcessError> {
    let own = std::env::current_exe()
        .map_err(|source| ProcessError::io("looking for the own binary", source))?;
    // target/debug/huntlog-jepsen, or target/debug/deps/tests-1234.
    let directory = own
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps") && !directory.ends_with("examples"))
        .unwrap_or(Path::new("."));
    let path = directory.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(ProcessError::NotBuilt(path))
    }
}

/// A node's process, or the place for one. Killed when dropped, and gone then.
#[derive(Debug)]
pub struct NodeProcess {
    spec: NodeSpec,
    environment: Vec<(String, String)>,
    /// Another release's program; none: the workspace's own.
    program: Option<PathBuf>,
    child: Option<Child>,
    /// How it ended when nobody had told it to, until somebody asks.
    own_end: Option<ExitStatus>,
}

impl NodeProcess {
    /// A node that does not run yet.
    pub fn new(spec: NodeSpec) -> Self {
        Self {
            spec,
            environment: Vec::new(),
            program: None,
            child: None,
            own_end: None,
        }
    }

    /// Starts it with this environment variable from now on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Starts this program from now on.
    pub fn set_program(&mut self, program: &Path) {
        self.program = Some(program.to_owned());
    }

    /// Who it is.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Whether it has been started and not stopped.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it does not run, be it that it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.child {
            None => true,
            Some(child) => match child.try_wait() {
                Ok(Some(status)) => {
                    self.child = None;
                    self.own_end = Some(status);
                    true
                }
                // Who can not be asked is taken to run.
                Ok(None) | Err(_) => false,
            },
        }
    }

    /// How it has ended by itself, if it has since this was last asked: also one
    /// that runs again, and one that was dead already when it was to be killed.
    pub fn take_own_end(&mut self) -> Option<ExitStatus> {
        self.has_ended();
        self.own_end.take()
    }

    /// Starts it, appending what it prints to its log file.
    ///
    /// # Errors
    /// When the binary is missing or does not start.
    pub fn start(&mut self) -> Result<(), ProcessError> {
        self.start_with(&[])
    }

    /// The same with these environment variables, this time.
    ///
    /// # Errors
    /// When the binary is missing or does not start.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<(), ProcessError> {
        let log_file = self.spec.log_file();
        let open = || -> std::io::Result<File> {
            OpenOptions::new().create(true).append(true).open(&log_file)
        };
        let failed = |source| ProcessError::io(format!("opening {}", log_file.display()), source);
        let node = match &self.program {
            Some(program) => program.clone(),
            None => binary("huntlog-node")?,
        };
        let mut command = match &self.spec.namespace {
            None => Command::new(node),
            // nsenter becomes the node: the process id is the node's.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path(namespace).display()));
                command.arg("--").arg(node);
                command
            }
        };
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.spec.config_file())
            .envs(self.environment.iter().cloned())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(open().map_err(failed)?)
            .stderr(open().map_err(failed)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ProcessError::io("starting huntlog-node", source))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The most it has had in memory since it was started, or since the last
    /// [`Self::forget_peak`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn peak_bytes(&self) -> Result<u64, ProcessError> {
        memory::peak_bytes(self.pid().unwrap_or_default())
            .map_err(|source| ProcessError::io("reading what a node has in memory", source))
    }

    /// What it has in memory now is its peak from here on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn forget_peak(&self) -> Result<(), ProcessError> {
        memory::forget_peak(self.pid().unwrap_or_default())
            .map_err(|source| ProcessError::io("resetting a node's peak of memory", source))
    }

    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid()?).ok()?)
    }

    /// Whether it was started and has ended by itself. Unlike [`Self::has_ended`]
    /// leaves it to be collected.
    pub fn has_exited(&self) -> bool {
        let Some(pid) = self.raw_pid() else {
            return false;
        };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(pid), look), Ok(None))
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match self.raw_pid() {
            Some(pid) => kill_process(pid, signal)
                .map_err(|error| ProcessError::io(format!("sending {signal:?}"), error.into())),
            None => Ok(()),
        }
    }

    /// Kills it: SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        if self.has_ended() {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        let status = self.wait().await?;
        // It may have been faster.
        if status.is_some_and(|status| status.signal() != Some(Signal::KILL.as_raw())) {
            self.own_end = status;
        }
        Ok(())
    }

    /// Tells it to stop in good order: SIGTERM.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn terminate(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)
    }

    /// Stops it in good order: SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn stop(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.terminate()?;
        self.wait().await
    }

    /// Freezes it: SIGSTOP.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn wait(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        // Whoever does not wait to the end leaves the process as it is.
        let ended = child.wait().await;
        self.child = None;
        ended
            .map(Some)
            .map_err(|source| ProcessError::io("waiting for huntlog-node", source))
    }

    /// What `huntlog-node inspect --verify` says of its data directory, as JSON,
    /// while it does not run.
    ///
    /// # Errors
    /// When the directory can not be inspected.
    pub async fn inspect(&self) -> Result<serde_json::Value, ProcessError> {
        let what = format!("inspecting {}", self.spec.data_dir().display());
        let output = Command::new(binary("huntlog-node")?)
            .arg("inspect")
            .arg(self.spec.data_dir())
            .args(["--verify", "-o", "json"])
            .output()
            .await
            .map_err(|source| ProcessError::io(&what, source))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ProcessError::io(what, std::io::Error::other(said))
        })
    }

    /// Takes what it has printed from this byte on out of its log.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn forget_log_from(&self, position: usize) -> Result<(), ProcessError> {
        OpenOptions::new()
            .write(true)
            .open(self.spec.log_file())
            .and_then(|file| file.set_len(position as u64))
            .map_err(|source| ProcessError::io("cutting a node's log", source))
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.spec.log_file()).unwrap_or_default()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Its files, disk and network can be removed only once it is gone.
        let Some(pid) = self.raw_pid() else {
            return;
        };
        let process = pidfd_open(pid, PidfdFlags::empty());
        if self.signal(Signal::KILL).is_ok()
            && let Ok(process) = process
        {
            // Whether it has ended or takes too long, there is no more to do.
            let _ = poll(
                &mut [PollFd::new(&process, PollFlags::IN)],
                Some(&DROP_LIMIT),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(script: &str) -> NodeProcess {
        let mut node = NodeProcess::new(crate::config::spec(Path::new("."), 1));
        let child = Command::new("sh").args(["-c", script]).spawn();
        node.child = Some(child.expect("started"));
        node
    }

    async fn ended(node: &mut NodeProcess) {
        while !node.has_ended() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn an_end_of_its_own_is_told_apart_from_a_kill() {
        let mut node = running("exec sleep 60");
        node.kill().await.expect("killed");
        assert_eq!(node.take_own_end(), None);

        let mut node = running("kill -SEGV $$");
        ended(&mut node).await;
        node.kill().await.expect("nothing to kill");
        let own = node.take_own_end().and_then(|status| status.signal());
        assert_eq!(own, Some(Signal::SEGV.as_raw()));
        assert_eq!(node.take_own_end(), None, "told once");
    }

    #[tokio::test]
    async fn one_that_does_not_stop_in_time_is_there_still() {
        let mut node = running("exec sleep 60");
        let limit = std::time::Duration::from_millis(50);
        let stopped = tokio::time::timeout(limit, node.wait()).await;
        assert!(stopped.is_err() && node.runs());
        node.kill().await.expect("killed");
        assert_eq!(node.take_own_end(), None);
    }
}
