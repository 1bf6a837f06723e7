//! What is watched while a node runs: each ends with an error once the node can
//! not go on, or tells readiness and metrics how it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use huntlog_storage::Storage;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::sync::Semaphore;

use super::NodeError;
use crate::admin_http::{Health, TroubleKind, Warning};
use crate::cluster::{NodeIdentity, compare_digests, compare_with_leader};
use crate::limits;
use crate::partition::{LogClock, Partition};
use crate::raft::{Peers, TypeConfig};
use crate::telemetry::Metrics;

/// How often gauges that nobody tells about changes are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the free space of the disk is looked at.
const DISK_INTERVAL: Duration = Duration::from_secs(5);

/// Ready means: the leader has confirmed a read index after the start, and this
/// node has applied up to it. In a cluster that is just being formed also: the level
/// is in force at which it is formed, unless a member is away by now.
pub(super) async fn become_ready(
    partition: Arc<Partition>,
    identity: Arc<NodeIdentity>,
    health: Health,
) -> Result<(), NodeError> {
    loop {
        let deadline = Instant::now() + limits::READ_INDEX_TIMEOUT;
        match partition.linearizable(deadline).await {
            Ok(mark) => {
                let founding = identity.founding_level()?;
                let deadline = Instant::now() + limits::MEMBER_CHANGE_TIMEOUT;
                if !partition.replica().wait_level(founding, deadline).await {
                    tracing::warn!(
                        founding,
                        "the feature level at which the cluster was formed is not in force yet"
                    );
                }
                tracing::info!(
                    partition = partition.id(),
                    end_offset = mark.end_offset,
                    "ready"
                );
                health.resolve(TroubleKind::CatchingUp, Some(partition.id()));
                return Ok(());
            }
            Err(error) => {
                health.report(
                    TroubleKind::CatchingUp,
                    Some(partition.id()),
                    error.to_string(),
                );
                tokio::time::sleep(limits::RETRY_DELAY_NO_LEADER).await;
            }
        }
    }
}

/// Reports whether a leader is known, and ends with an error once Raft stops.
pub(super) async fn watch_raft(
    partition: Arc<Partition>,
    peers: Arc<Peers>,
    health: Health,
) -> Result<(), NodeError> {
    let ended = raft_ended(&partition, &health).await;
    if ended.is_err() {
        // What this node has come to may be why it ends: the leader must know,
        // or it never learns that it is the one that is wrong.
        if let Ok(Some(differs)) = compare_with_leader(&peers, &partition).await {
            tracing::error!("{differs}");
        }
    }
    match partition.replica().failure() {
        Some(source) if ended.is_err() => Err(NodeError::Apply {
            partition: partition.id(),
            source: source.clone(),
        }),
        _ => ended,
    }
}

async fn raft_ended(partition: &Partition, health: &Health) -> Result<(), NodeError> {
    let id = partition.id();
    let mut metrics = partition.raft().metrics();
    loop {
        {
            let state = metrics.borrow_watched();
            if let Err(fatal) = &state.running_state {
                return ended_raft(id, Some(fatal));
            }
            let silent = state.state == ServerState::Leader
                && state
                    .last_quorum_acked
                    .is_none_or(|at| at.elapsed() > limits::QUORUM_SILENCE_MAX);
            if silent {
                let message = "this node leads, and no quorum answers it";
                health.report(TroubleKind::NoLeader, Some(id), message);
            } else if state.current_leader.is_some() {
                health.resolve(TroubleKind::NoLeader, Some(id));
            } else {
                health.report(TroubleKind::NoLeader, Some(id), "no leader is known");
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                // The core is gone. If it panicked it had no time to say why.
                let last = metrics.borrow_watched().running_state.clone();
                return ended_raft(id, last.err().as_ref());
            },
            // Silence changes nothing in the metrics.
            () = tokio::time::sleep(limits::QUORUM_SILENCE_MAX) => {}
        }
    }
}

/// Whether Raft ended as it was told to.
fn ended_raft(
    partition: u32,
    fatal: Option<&openraft::errors::Fatal<TypeConfig>>,
) -> Result<(), NodeError> {
    match fatal {
        Some(openraft::errors::Fatal::Stopped) => Ok(()),
        Some(fatal) => Err(NodeError::Raft {
            partition,
            reason: fatal.to_string(),
        }),
        None => Err(NodeError::Raft {
            partition,
            reason: "its core ended without a word, probably by a panic; the log above has it"
                .to_owned(),
        }),
    }
}

/// Ends with an error once this node's state differs from its leader's, or from
/// a quorum's.
pub(super) async fn watch_digests(
    partition: Arc<Partition>,
    peers: Arc<Peers>,
) -> Result<(), NodeError> {
    tokio::select! {
        differs = compare_digests(peers, partition.clone()) => Err(differs.into()),
        contradicted = partition.contradicted() => Err(contradicted.into()),
    }
}

/// Ends with an error once one of the partition's own tasks panics.
pub(super) async fn watch_tasks(partition: Arc<Partition>) -> Result<(), NodeError> {
    let reason = partition.failed().await;
    Err(NodeError::Raft {
        partition: partition.id(),
        reason,
    })
}

/// Warns while this node's clock is far from the others'.
pub(super) async fn watch_clock(clock: Arc<LogClock>, health: Health) -> Result<(), NodeError> {
    let mut rounds = tokio::time::interval(limits::CLOCK_EXCHANGE_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let skew = clock.skew();
        if u128::from(skew.ahead_ms.unsigned_abs()) > limits::CLOCK_SKEW_MAX.as_millis() {
            health.warn(
                Warning::ClockSkew,
                format!(
                    "this node's clock is {} ms ahead of the voters' median; set it right",
                    skew.ahead_ms
                ),
            );
        } else {
            health.calm(Warning::ClockSkew);
        }
    }
}

/// Brings the node's own gauges up to date, again and again.
pub(super) async fn sample(
    budget: Arc<Semaphore>,
    health: Health,
    metrics: Arc<Metrics>,
) -> Result<(), NodeError> {
    let mut rounds = tokio::time::interval(METRICS_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let units = limits::IN_FLIGHT_APPENDS_MAX.saturating_sub(budget.available_permits());
        let bytes = units * limits::IN_FLIGHT_BYTES_PER_APPEND_MIN;
        metrics.node.in_flight_bytes.set(bytes as u64);
        metrics.node.ready.set(u64::from(health.state().is_ready()));
    }
}

/// Warns while the disk is nearly full: once it is, the node stops.
pub(super) async fn watch_disk(storage: Storage, health: Health) -> Result<(), NodeError> {
    let mut rounds = tokio::time::interval(DISK_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut low = false;
    loop {
        rounds.tick().await;
        let storage = storage.clone();
        let asked = crate::blocking::spawn_blocking(move || storage.disk_space()).await;
        let Ok(Ok(space)) = asked else {
            // A disk that does not tell will tell when it is written to.
            continue;
        };
        let was_low = low;
        low = space.free_bytes < limits::DISK_FREE_BYTES_WARNING;
        if low {
            let message = format!(
                "{} MiB are free on the data directory's disk; when it is full the node stops: free space or add some",
                space.free_bytes >> 20
            );
            if !was_low {
                tracing::warn!("{message}");
            }
            health.warn(Warning::DiskNearlyFull, message);
        } else {
            health.calm(Warning::DiskNearlyFull);
        }
    }
}
