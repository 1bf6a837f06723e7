//! SIGINT, SIGTERM and SIGHUP. They are caught from the first moment of a command on and
//! asked after between its steps: a process that a signal ends removes nothing of
//! what it has made.

use std::{fs, io};

use rustix::process::Signal;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Somebody stopped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {0}; there is no verdict")]
pub struct Interrupted(&'static str);

/// The signals that stop a command.
#[derive(Debug, Clone)]
pub struct Interrupts(watch::Receiver<Option<Interrupted>>);

impl Interrupts {
    /// From here on they end nothing by themselves. What a shell has told a
    /// background job to ignore is caught as well, but for a SIGHUP under `nohup`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn catch() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let status = fs::read_to_string("/proc/self/status")?;
        let stays = is_ignored(Signal::HUP, &status);
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                (!stays).then(|| signal(SignalKind::hangup())).transpose()?,
            )
        };
        let (sender, receiver) = watch::channel(None);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                // The first one decides; those after it change nothing.
                runtime.block_on(async {
                    let name = tokio::select! {
                        _ = interrupt.recv() => "SIGINT",
                        _ = terminate.recv() => "SIGTERM",
                        Some(()) = async { hangup.as_mut()?.recv().await } => "SIGHUP",
                    };
                    sender.send_replace(Some(Interrupted(name)));
                });
            })?;
        Ok(Self(receiver))
    }

    /// Goes on unless one has come.
    ///
    /// # Errors
    /// When one has.
    pub fn check(&self) -> Result<(), Interrupted> {
        match *self.0.borrow() {
            None => Ok(()),
            Some(interrupted) => Err(interrupted),
        }
    }

    /// Waits for one.
    pub async fn wait(&self) -> Interrupted {
        let mut receiver = self.0.clone();
        let found = receiver.wait_for(Option::is_some).await;
        match found.ok().and_then(|found| *found) {
            Some(interrupted) => interrupted,
            // Nobody is there to send one.
            None => std::future::pending().await,
        }
    }
}

/// Whether a process with this `/proc/PID/status` ignores the signal.
fn is_ignored(signal: Signal, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_told_by_the_kernel_s_mask() {
        let under_nohup = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\n";
        assert!(is_ignored(Signal::HUP, under_nohup));
        assert!(!is_ignored(Signal::INT, under_nohup));
        assert!(!is_ignored(Signal::HUP, "SigIgn:\t0000000000004000\n"));
        assert!(!is_ignored(Signal::HUP, ""));
    }
}
