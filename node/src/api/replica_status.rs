//! What Raft knows of its own state, for answers that tell of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admin_http::{Health, TroubleKind};
use crate::limits;
use crate::partition::Partition;
use crate::raft::{MemberNode, NodeId};

/// How long an answer of Raft's core is used again.
const CONTACT_REUSED: Duration = Duration::from_millis(20);
/// How long Raft's core may take to answer; it is busy at worst.
const CONTACT_TIMEOUT: Duration = Duration::from_millis(100);

/// A partition's Raft group, as this node sees it.
pub(super) struct RaftStatus {
    pub(super) state: ServerState,
    pub(super) term: u64,
    pub(super) leader: Option<NodeId>,
    pub(super) last_log_index: u64,
    pub(super) committed_log_index: u64,
    pub(super) snapshot_log_index: u64,
    pub(super) members: BTreeMap<NodeId, MemberStatus>,
}

/// A member of the group.
pub(super) struct MemberStatus {
    pub(super) node: MemberNode,
    pub(super) voter: bool,
    /// Known while this node leads.
    pub(super) matched_log_index: Option<u64>,
    /// Known while this node leads, unless it never heard from it.
    pub(super) since_contact: Option<Duration>,
    /// It stands aside, as this node last heard.
    pub(super) aside: bool,
}

impl RaftStatus {
    pub(super) fn of(partition: &Partition) -> Self {
        let aside = partition.those_aside();
        let metrics = partition.raft().metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        let matched = |id: &NodeId| {
            let matched = metrics.replication.as_ref()?.get(id)?;
            Some(matched.map_or(0, |log_id| log_id.index))
        };
        let since_contact = |id: &NodeId| {
            let acked = metrics.heartbeat.as_ref().and_then(|acked| *acked.get(id)?);
            acked.map(|at| at.elapsed())
        };
        Self {
            state: metrics.state,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_log_index: metrics.local_committed.map_or(0, |id| id.index),
            snapshot_log_index: metrics.snapshot.map_or(0, |id| id.index),
            members: metrics
                .membership_config
                .nodes()
                .map(|(id, node)| {
                    let member = MemberStatus {
                        node: node.clone(),
                        voter: voters.contains(id),
                        matched_log_index: matched(id),
                        since_contact: since_contact(id),
                        aside: aside.contains(id),
                    };
                    (*id, member)
                })
                .collect(),
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.state == ServerState::Leader
    }
}

/// When this node last heard from a leader.
#[derive(Default)]
pub(super) struct LeaderContact {
    last: Mutex<Option<Asked>>,
    silent: AtomicBool,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    contact: Option<Instant>,
}

impl LeaderContact {
    /// How long ago this node last heard from a leader: zero while it leads,
    /// `None` when it has not since it started. Never too short.
    pub(super) async fn since(&self, partition: &Partition) -> Option<Duration> {
        if RaftStatus::of(partition).leads() {
            return Some(Duration::ZERO);
        }
        let last = *self.last.lock();
        let now = Instant::now();
        let contact = match last {
            Some(asked) if now.duration_since(asked.at) < CONTACT_REUSED => asked.contact,
            _ => {
                let age = partition.leader_contact_age();
                let contact = match tokio::time::timeout(CONTACT_TIMEOUT, age).await {
                    Ok(Some(age)) => now.checked_sub(age),
                    _ => last.and_then(|asked| asked.contact),
                };
                *self.last.lock() = Some(Asked { at: now, contact });
                contact
            }
        };
        contact.map(|contact| Instant::now().saturating_duration_since(contact))
    }

    /// Whether the leader has been silent for too long to count as one. Raft
    /// itself keeps a silent leader's name until there is another, which
    /// without a quorum is never.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

/// Keeps `contact` at whether the leader is silent, for as long as there is the
/// partition, and says so in the node's health.
pub(super) async fn watch_leader(
    partition: Weak<Partition>,
    contact: Arc<LeaderContact>,
    health: Health,
) {
    let started = Instant::now();
    let mut rounds = tokio::time::interval(limits::LEADER_CHECK_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(partition) = partition.upgrade() else {
            return;
        };
        let since = contact.since(&partition).await;
        let silent = since.unwrap_or_else(|| started.elapsed()) > limits::LEADER_SILENCE_MAX;
        if contact.silent.swap(silent, Ordering::Relaxed) == silent {
            continue;
        }
        if silent {
            let message = "the leader has not been heard of for a while, and no other is elected";
            health.report(TroubleKind::LeaderSilent, Some(partition.id()), message);
        } else {
            health.resolve(TroubleKind::LeaderSilent, Some(partition.id()));
        }
    }
}
