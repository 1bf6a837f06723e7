//! huntlog-jepsen: real and simulated clusters under faults.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use huntlog_jepsen::cli;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(ending) => ending.into(),
        Err(failure) => {
            // If standard error is closed, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "huntlog-jepsen: {failure}");
            failure.ending.into()
        }
    }
}
