//! Commands of the operating system.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{command} failed: {message}")]
pub struct CommandError {
    /// What was run.
    pub command: String,
    /// What it printed, or why it did not start.
    pub message: String,
}

/// Runs it to its end, and expects success. A terminal's Ctrl-C does not reach
/// it: what it has begun is done or undone, not left half done.
pub(crate) fn run(command: &mut Command) -> Result<Output, CommandError> {
    let output = command.process_group(0).output();
    judge(command, output)
}

/// The same for one that reads `input`.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<Output, CommandError> {
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    judge(command, output)
}

fn judge(command: &Command, output: std::io::Result<Output>) -> Result<Output, CommandError> {
    let failed = |message: String| CommandError {
        command: format!("{command:?}"),
        message,
    };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}
