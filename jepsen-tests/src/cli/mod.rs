//! The command line: one file for each subcommand.

mod check;
mod export;
mod matrix;
mod prove;
mod run;
mod seeds;
mod sim;
mod tally;
mod upgrade;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::interrupt::Interrupts;

/// Breaks huntlog on purpose and judges what came of it.
#[derive(Debug, Parser)]
#[command(name = "huntlog-jepsen", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  valid
  1  invalid: an invariant is broken, or the cluster did not recover
  2  wrong usage or input
  3  no verdict: too little happened to tell
  4  the harness could not do its work, or this machine lacks what it needs";

#[derive(Debug, Subcommand)]
enum Command {
    /// Judges a history that a run has written.
    Check(check::Arguments),
    /// Writes a history in the form of another checker.
    Export(export::Arguments),
    /// Runs simulated clusters, one for each seed.
    Sim(sim::Arguments),
    /// Plants known bugs and shows that the simulation notices each.
    Prove(prove::Arguments),
    /// Runs real nodes under faults, and judges what clients saw.
    Run(run::Arguments),
    /// Runs every workload under every nemesis, and prints the table.
    Matrix(matrix::Arguments),
    /// Upgrades a real cluster under load from an earlier release to this one.
    Upgrade(upgrade::Arguments),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Valid,
    /// Something was found that must not be.
    Invalid,
    /// The arguments or the input are at fault.
    Usage,
    /// Too little happened to tell.
    NoVerdict,
    /// The machine or the harness is at fault.
    Failed,
}

impl Ending {
    /// The exit status that says so.
    fn code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Usage => 2,
            Self::NoVerdict => 3,
            Self::Failed => 4,
        }
    }

    /// How two end of which one has ended so and one as `other`: what was found is
    /// worse than what could not be done, and that worse than too little.
    fn or_worse(self, other: Self) -> Self {
        let rank = |ending| match ending {
            Self::Valid => 0,
            Self::NoVerdict => 1,
            Self::Usage | Self::Failed => 2,
            Self::Invalid => 3,
        };
        match rank(other) > rank(self) {
            true => other,
            false => self,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        ExitCode::from(ending.code())
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How it is reported.
    pub ending: Ending,
    message: String,
}

impl Failure {
    /// The arguments or the input are at fault.
    pub fn usage(message: impl ToString) -> Self {
        Self {
            ending: Ending::Usage,
            message: message.to_string(),
        }
    }

    /// The machine or the harness is at fault.
    pub fn failed(message: impl ToString) -> Self {
        Self {
            ending: Ending::Failed,
            message: message.to_string(),
        }
    }
}

/// Does what was asked for.
///
/// # Errors
/// When it can not be done; what was found is no error but an [`Ending`].
pub fn run(arguments: Arguments) -> Result<Ending, Failure> {
    match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Prove(arguments) => prove::run(&arguments),
        Command::Run(arguments) => run::run(arguments, &interrupts()?),
        Command::Matrix(arguments) => matrix::run(&arguments, &interrupts()?),
        Command::Upgrade(arguments) => upgrade::run(arguments),
    }
}

/// What ends a command before it is done: SIGINT, SIGTERM, SIGHUP.
fn interrupts() -> Result<Interrupts, Failure> {
    Interrupts::catch().map_err(|error| Failure::failed(format!("listening for signals: {error}")))
}
