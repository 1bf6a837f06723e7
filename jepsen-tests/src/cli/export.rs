//! `huntlog-jepsen export HISTORY --to CHECKER`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Ending, Failure, check};
use crate::history::EdnForm;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// JSON lines, as `run` writes them.
    history: PathBuf,
    /// For which checker.
    #[arg(long)]
    to: EdnForm,
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let history = check::read(&arguments.history)?;
    let mut to = BufWriter::new(io::stdout().lock());
    let written = history.write_edn(arguments.to, &mut to);
    let written = written.and_then(|written| to.flush().map(|()| written));
    match written {
        Ok(0) => Err(Failure::usage(format!(
            "{} has no operation that this checker knows",
            arguments.history.display()
        ))),
        Ok(_) => Ok(Ending::Valid),
        // Nobody listens any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::Valid),
        Err(error) => Err(Failure::failed(format!("writing: {error}"))),
    }
}
