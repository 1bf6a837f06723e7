//! nemesis.log: what was done to the cluster, for people.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A file of lines with the seconds since the run began.
#[derive(Debug)]
pub(crate) struct Journal {
    started: Instant,
    file: Mutex<File>,
}

impl Journal {
    pub(crate) fn create(path: &Path, started: Instant) -> io::Result<Self> {
        Ok(Self {
            started,
            file: Mutex::new(File::create(path)?),
        })
    }

    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that is lost here is in the history all the same.
        let _ = writeln!(file, "{seconds:8.3} {}", text.as_ref());
    }
}
