//! What the clients do.

mod batch;
mod claim;
mod clients;
mod drain;
mod key;
mod keys;
mod log;
mod sessions;

use std::sync::Arc;

use clap::ValueEnum;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::proto::{Accepted, EventOutcome};
use huntlog_client::{AppendError, CallError, Cause, Disposition};
use serde::Serialize;
use tokio::time::Instant;

use super::finale::Finding;
use super::stage::Stage;
use crate::history::OpenOp;
use clients::Clients;
pub(crate) use key::definition;

/// What the clients of a run do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Appends, batches sent again, linearizable and stale reads on every node,
    /// subscriptions that go on at other nodes.
    Log,
    /// Players claim treasures of which there are fewer than players.
    Claim,
    /// Producers that take sessions away from each other, and crash.
    Sessions,
    /// As log, while nodes are replaced by new ones.
    Membership,
    /// Log, claim and sessions at once.
    Mixed,
}

/// How many workers share the rate. Each has one operation under way at most, and
/// waits for a node that does not answer; so many that some are always free.
pub(super) fn workers(rate: u32) -> u32 {
    (rate / 10).clamp(16, 128)
}

/// Running clients of all the workloads asked for.
#[derive(Debug, Default)]
pub(crate) struct Load {
    log: Option<log::Log>,
    claim: Option<claim::Claims>,
    sessions: Option<sessions::Sessions>,
    clients: Clients,
}

/// Why the clients could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A session could not be opened.
    #[error("opening a session to set the hunts up: {0}")]
    Session(#[from] CallError),
    /// The hunts were not created.
    #[error("setting the hunts up: {0}")]
    Append(#[from] AppendError),
}

impl Load {
    /// Creates the hunts, and starts the clients.
    pub(crate) async fn start(stage: &Arc<Stage>) -> Result<Self, SetupError> {
        let rate = stage.plan.rate;
        let mut load = Self::default();
        match stage.plan.workload {
            Workload::Log | Workload::Membership => load.log = Some(log::Log::new(stage, rate)),
            Workload::Claim => load.claim = Some(claim::Claims::new(stage, rate)),
            Workload::Sessions => load.sessions = Some(sessions::Sessions::new(stage, rate)),
            Workload::Mixed => {
                load.log = Some(log::Log::new(stage, rate / 2));
                load.claim = Some(claim::Claims::new(stage, rate / 4));
                load.sessions = Some(sessions::Sessions::new(stage, rate / 4));
            }
        }
        if let Some(log) = &load.log {
            log.start(stage, &mut load.clients).await?;
        }
        if let Some(claim) = &load.claim {
            claim.start(stage, &mut load.clients).await?;
        }
        if let Some(sessions) = &load.sessions {
            sessions.start(stage, &mut load.clients).await?;
        }
        Ok(load)
    }

    /// Lets every client end what it has begun, until the deadline.
    pub(crate) async fn finish(&mut self, stage: &Stage, deadline: Instant) -> Vec<Finding> {
        stage.stop();
        self.clients.finish(deadline).await
    }

    /// Reads everything whole and drains every subscription, after the load has
    /// ended and the faults are healed, until the deadline.
    pub(crate) async fn drain(&self, stage: &Arc<Stage>, deadline: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(log) = &self.log {
            findings.extend(drain::drain(&log.keys, stage, deadline).await);
        }
        if let Some(claim) = &self.claim {
            findings.extend(claim.drain(stage, deadline).await);
        }
        if let Some(sessions) = &self.sessions {
            findings.extend(drain::drain(&sessions.keys, stage, deadline).await);
        }
        findings
    }
}

/// Operations to have ready for `rate` a second: half as many again as fit in the
/// plan's time, since time passes before the first fault as well.
fn enough_ops(stage: &Stage, rate: u32) -> u64 {
    let ops = u64::from(rate) * stage.plan.time.as_secs().max(1);
    ops + ops / 2
}

/// The one event's place, if it was accepted.
pub(crate) fn accepted(outcomes: Option<&Vec<EventOutcome>>) -> Option<&Accepted> {
    match outcomes?.first()?.outcome.as_ref()? {
        Outcome::Accepted(accepted) => Some(accepted),
        Outcome::Rejected(_) => None,
    }
}

/// Ends an operation that was not acknowledged.
pub(super) fn unacknowledged(open: OpenOp<'_>, error: &AppendError) {
    if is_not_applied(error) {
        open.fail(error);
    } else {
        open.info(error);
    }
}

/// Whether a history may say that it failed: the library vouches for it, and it did
/// not just run out of time. A time-out says nothing of what may yet arrive, also
/// where the library knows that nothing is under way: what it knows is judged, not
/// believed.
pub(super) fn is_not_applied(error: &AppendError) -> bool {
    let timed_out = matches!(error.cause(), Cause::DeadlineExceeded { .. });
    error.disposition() == Disposition::NotApplied && !timed_out
}
