//! What nodes ask of each other outside Raft: who they are, what time it is,
//! and what they remember of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use huntlog_machine::{FIRST_LEVEL, LevelRange};
use huntlog_proto::peer;
use huntlog_storage::Storage;
use openraft::async_runtime::WatchReceiver as _;

use super::follow_members::RemovedFromCluster;
use super::formation::{FormationError, check_membership};
use super::identity::{IdentityFault, NodeIdentity};
use crate::limits;
use crate::partition::{LogClock, Partition};
use crate::raft::{LocalIdentity, MemberNode, NodeId, PROTOCOL_VERSION, Peers, Purpose};
use crate::telemetry::Metrics;

/// Whom a hello expects at an address. A node that is greeted as itself with
/// another data directory learns that its own was emptied.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whom<'a> {
    /// Whoever is there.
    Anyone,
    /// A member.
    Member(NodeId, &'a str),
}

impl<'a> Whom<'a> {
    /// The member `id`.
    pub(super) fn member(id: NodeId, node: &'a MemberNode) -> Self {
        Self::Member(id, &node.uuid)
    }
}

/// Asks the node at `address` who it is.
///
/// # Errors
/// When it does not answer in time.
pub(super) async fn say_hello(
    own: &LocalIdentity,
    peers: &Peers,
    address: &str,
    whom: Whom<'_>,
) -> Result<peer::HelloResponse, tonic::Status> {
    let mut client = peers
        .client(address, Purpose::Control)
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let (to_node_id, to_node_uuid) = match whom {
        Whom::Anyone => (0, ""),
        Whom::Member(id, uuid) => (id, uuid),
    };
    let request = peer::HelloRequest {
        to_node_id,
        to_node_uuid: to_node_uuid.to_owned(),
        protocol_version: PROTOCOL_VERSION,
        cluster_name: own.cluster_name.clone(),
        cluster_id: own.cluster_id.clone(),
        node_id: own.node_id,
        node_uuid: own.node_uuid.clone(),
    };
    let response = tokio::time::timeout(limits::HELLO_TIMEOUT, client.hello(request))
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("no answer"))??;
    Ok(response.into_inner())
}

/// The feature levels that the answering node's release reads.
pub(super) fn levels_told(answer: &peer::HelloResponse) -> LevelRange {
    match answer.feature_level_max {
        0 => LevelRange::UNTOLD,
        max => LevelRange {
            min: answer.feature_level_min.max(FIRST_LEVEL),
            max,
        },
    }
}

/// Asks the member `id` who it is, and takes nobody else's answer.
///
/// # Errors
/// What is there instead.
pub(super) async fn greet_member(
    own: &LocalIdentity,
    peers: &Peers,
    id: NodeId,
    node: &MemberNode,
) -> Result<peer::HelloResponse, String> {
    match say_hello(own, peers, &node.peer_address, Whom::member(id, node)).await {
        Ok(answer)
            if answer.cluster_id == own.cluster_id
                && answer.node_id == id
                && answer.node_uuid == node.uuid =>
        {
            Ok(answer)
        }
        Ok(answer) => Err(format!(
            "node {} ({}) of cluster `{}` answers there",
            answer.node_id, answer.node_uuid, answer.cluster_id
        )),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// A peer remembers more of this node than its data directory has.
#[derive(Debug, thiserror::Error)]
pub enum StaleDirectory {
    /// Entries this node has acknowledged are not there.
    #[error(
        "node {peer} remembers that this node had acknowledged the log of partition {partition} up to index {remembered}, the data directory ends at {found}: it is an older copy. Starting it could lose acknowledged events: restore the newest copy, or join under an id never used before"
    )]
    Log {
        /// Who remembers.
        peer: NodeId,
        /// The partition.
        partition: u32,
        /// The index acknowledged.
        remembered: u64,
        /// The last index found, 0 for none.
        found: u64,
    },
    /// A vote this node has given is not there.
    #[error(
        "node {peer} remembers that this node had voted in term {remembered} of partition {partition}, the data directory says {found}: it is an older copy. Starting it could elect two leaders: restore the newest copy, or join under an id never used before"
    )]
    Vote {
        /// Who remembers.
        peer: NodeId,
        /// The partition.
        partition: u32,
        /// The term voted in.
        remembered: u64,
        /// The term found, 0 for none.
        found: u64,
    },
    /// The cluster knows this node otherwise, or not at all.
    #[error(transparent)]
    Membership(#[from] FormationError),
    /// The cluster has removed this node.
    #[error(transparent)]
    Removed(#[from] RemovedFromCluster),
    /// The directory's members do not decode.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
}

/// Asks every member it knows what it remembers of this node, before Raft sees
/// the log; and those that the configuration names, since a directory of another
/// cluster knows other members. Best effort: what no reachable peer remembers can
/// not be known.
///
/// # Errors
/// When one remembers more than the data directory has, or knows this node with
/// another directory.
pub async fn refuse_stale_directory(
    identity: &NodeIdentity,
    peers: &Peers,
    initial: &BTreeMap<NodeId, MemberNode>,
    storage: &Storage,
) -> Result<(), StaleDirectory> {
    let own = identity.local();
    let members = identity.members()?;
    let was_added = identity.was_added()?;
    let known = members
        .iter()
        .map(|(id, node)| (id, node, Whom::member(*id, node)));
    let configured = initial.iter().map(|(id, node)| (id, node, Whom::Anyone));
    let mut asked = BTreeSet::new();
    let questions = known
        .chain(configured)
        .filter(|(id, node, _)| **id != own.node_id && asked.insert(&node.peer_address))
        .map(|(_, node, whom)| say_hello(&own, peers, &node.peer_address, whom));
    let answers = futures::future::join_all(questions).await;
    for answer in answers.into_iter().flatten() {
        if answer.cluster_id != own.cluster_id {
            tracing::warn!(
                node = answer.node_id,
                theirs = answer.cluster_id,
                ours = own.cluster_id,
                "a member's address answers for another cluster"
            );
            let namesake = !answer.cluster_id.is_empty() && answer.cluster_name == own.cluster_name;
            if namesake
                && let Err(replaced @ FormationError::Replaced { .. }) =
                    check_membership(&own, &answer)
            {
                return Err(replaced.into());
            }
            continue;
        }
        if answer.asker_removed {
            return Err(RemovedFromCluster::of(identity).into());
        }
        match check_membership(&own, &answer) {
            // A node that was given the cluster is not a member before that is
            // in the log.
            Err(FormationError::NotAMember { .. }) if was_added => {}
            // One of the first members was one all the time. Who answers has just
            // started, and can not tell yet that it was removed.
            Err(FormationError::NotAMember { .. }) => {
                return Err(RemovedFromCluster::of(identity).into());
            }
            checked => checked?,
        }
        for remembered in &answer.remembered {
            check_remembered(storage, answer.node_id, remembered)?;
        }
    }
    Ok(())
}

fn check_remembered(
    storage: &Storage,
    peer: NodeId,
    remembered: &peer::Remembered,
) -> Result<(), StaleDirectory> {
    if !storage.partitions().contains(&remembered.partition) {
        // Nothing of it is stored here, so nothing of it was ever acknowledged
        // here, or everything is gone; then the uuid has told.
        return Ok(());
    }
    let log = storage.partition(remembered.partition);
    let term = remembered
        .vote
        .as_ref()
        .and_then(|vote| vote.leader_id.as_ref())
        .map_or(0, |leader| leader.term);
    let voted = log.vote().map_or(0, |vote| vote.term);
    if let Some(log_id) = &remembered.log_id {
        let found = log.last().map_or(0, |id| id.index);
        if found < log_id.index {
            return Err(StaleDirectory::Log {
                peer,
                partition: remembered.partition,
                remembered: log_id.index,
                found,
            });
        }
    }
    if voted < term {
        return Err(StaleDirectory::Vote {
            peer,
            partition: remembered.partition,
            remembered: term,
            found: voted,
        });
    }
    Ok(())
}

/// Asks the members for their clocks, and how far back their histories reach,
/// again and again; ends when one says that this node was removed.
pub async fn exchange_hellos(
    identity: Arc<NodeIdentity>,
    peers: Arc<Peers>,
    partition: Arc<Partition>,
    clock: Arc<LogClock>,
    metrics: Arc<Metrics>,
) -> RemovedFromCluster {
    let mut rounds = tokio::time::interval(limits::CLOCK_EXCHANGE_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let own = identity.local();
        let members = known_members(&partition).await;
        let questions =
            members
                .iter()
                .filter(|(id, _)| **id != own.node_id)
                .map(async |(id, node)| {
                    let asked = Instant::now();
                    let answer = greet_member(&own, &peers, *id, node).await.ok()?;
                    clock.observe(*id, answer.clock_unix_ms, asked.elapsed());
                    partition.note_aside(*id, answer.draining);
                    for history in &answer.histories {
                        if history.partition == partition.id() {
                            let earliest = history.earliest_offset;
                            partition.note_history(*id, earliest);
                        }
                    }
                    Some((*id, answer))
                });
        let answers = futures::future::join_all(questions).await;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        if answers.iter().any(|(_, answer)| answer.asker_removed) {
            return RemovedFromCluster::of(&identity);
        }
        let levels = answers
            .iter()
            .map(|(id, answer)| (*id, levels_told(answer)));
        partition.note_levels(levels.collect());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a skew of 2^53 ms is not told finer"
        )]
        let ahead_seconds = clock.skew().ahead_ms as f64 / 1_000.0;
        metrics.node.clock_skew_seconds.set(ahead_seconds);
    }
}

/// The members, once there are any: a new cluster's first stamps need the
/// others' clocks.
async fn known_members(partition: &Partition) -> BTreeMap<NodeId, MemberNode> {
    let mut metrics = partition.raft().server_metrics();
    loop {
        let members = partition.members();
        if !members.is_empty() || metrics.changed().await.is_err() {
            return members;
        }
    }
}
