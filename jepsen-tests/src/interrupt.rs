//! SIGINT and SIGTERM. They are caught from the first moment of a command on and
//! asked after between its steps: a process that a signal ends removes nothing of
//! what it has made.

use std::io;

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
    /// background job to ignore is caught as well.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn catch() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
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
