//! Forming a cluster, of the initial members of the configuration.
//!
//! The initial member with the lowest id coordinates. It asks every other for
//! its uuid, and once all have answered and none belongs to a cluster, it mints
//! the cluster's id, writes it to its own directory, and has every other write
//! it too; only when all have does it write the first membership to the log. A
//! crash anywhere in between is finished by the next start: every step can be
//! repeated. The others wait, and ask around meanwhile: a peer that knows a
//! cluster in which this node's id has another uuid ends the start, since this
//! directory was emptied or replaced.
//!
//! A node whose configuration names no initial members waits to be given a
//! cluster: by an operator's init, or by a cluster that adds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::{FIRST_LEVEL, LevelRange};
use huntlog_proto::peer;
use tokio::sync::watch;

use super::hello::{Whom, levels_told, say_hello};
use super::identity::{IdentityFault, NodeIdentity, new_uuid};
use crate::limits;
use crate::partition::Partition;
use crate::raft::{
    LocalIdentity, MemberNode, NodeId, PROTOCOL_VERSION, Peers, Purpose, member_from_proto,
};

/// Between two rounds of asking the initial members.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// After this long without a cluster, the log says who is waited for.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// Why a node can not become a member of the configured cluster.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// A peer belongs to a cluster of another name.
    #[error(
        "the node at {address} belongs to cluster `{found}`, not `{expected}`; correct cluster.name or cluster.initial_members"
    )]
    OtherCluster {
        /// Where it answered.
        address: String,
        /// Its cluster's name.
        found: String,
        /// Ours.
        expected: String,
    },
    /// A peer has another id than configured.
    #[error(
        "the node at {address} says it is node {found}, the configuration says {expected}; correct cluster.initial_members"
    )]
    OtherNode {
        /// Where it answered.
        address: String,
        /// Its id.
        found: NodeId,
        /// The id configured.
        expected: NodeId,
    },
    /// A peer speaks another version of the peer protocol.
    #[error(
        "the node at {address} speaks peer protocol {found}, this release speaks {supported}; run the same release on all nodes before the cluster is formed"
    )]
    Protocol {
        /// Where it answered.
        address: String,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The cluster exists, and knows this node's id with another directory.
    #[error(
        "cluster {cluster_id} exists and knows node {node_id} with data directory {known_uuid}; this one is {own_uuid}: it was emptied or is another's. Reusing the id could lose acknowledged events: restore the directory, or join under an id never used before"
    )]
    Replaced {
        /// The cluster.
        cluster_id: String,
        /// This node's id.
        node_id: NodeId,
        /// The uuid the cluster knows.
        known_uuid: String,
        /// This directory's uuid.
        own_uuid: String,
    },
    /// The cluster exists, and this node is not part of it.
    #[error(
        "cluster {cluster_id} exists and has no member {node_id}; an existing cluster is extended by adding a member: leave cluster.initial_members out, and use `huntctl member add`"
    )]
    NotAMember {
        /// The cluster.
        cluster_id: String,
        /// This node's id.
        node_id: NodeId,
    },
    /// No feature level is read by all initial members.
    #[error(
        "the initial members have no feature level in common: {0}; run releases that have one on all nodes"
    )]
    Levels(String),
    /// Two initial members belong to different clusters.
    #[error(
        "the initial members belong to two clusters, {0} and {1}; correct cluster.initial_members"
    )]
    Split(String, String),
    /// The identity could not be written.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
}

/// What the initial members said in one round.
pub(super) struct Round {
    /// Everyone who answered, this node included.
    pub(super) members: BTreeMap<NodeId, peer::MemberNode>,
    /// The feature levels that each of them reads.
    levels: BTreeMap<NodeId, LevelRange>,
    /// The cluster that one of them, and this node, belong to.
    pub(super) cluster: Option<(String, Vec<peer::MemberNode>)>,
}

impl Round {
    /// The highest feature level that all who answered read: that at which a
    /// cluster of them is formed.
    pub(super) fn common_level(&self) -> Result<u32, FormationError> {
        let highest = self.levels.values().map(|levels| levels.max).min();
        let level = highest.unwrap_or(FIRST_LEVEL);
        if self.levels.values().all(|levels| levels.contains(level)) {
            return Ok(level);
        }
        let each = self.levels.iter();
        let each: Vec<_> = each
            .map(|(id, levels)| format!("node {id} reads level {levels}"))
            .collect();
        Err(FormationError::Levels(each.join(", ")))
    }
}

/// A cluster that knows this node's id with another data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOtherwise {
    /// The cluster.
    pub cluster_id: String,
    /// The uuid of the directory it knows.
    pub known_uuid: String,
}

/// Waits until this node belongs to a cluster: forms it, or is given one
/// (`adopted` changes then). Returns at once when it does. Without `initial`
/// members it only waits, until somebody knows this node `otherwise`.
///
/// # Errors
/// When the initial members, or this directory, do not fit together.
pub async fn form(
    identity: &NodeIdentity,
    peers: &Peers,
    initial: &BTreeMap<NodeId, MemberNode>,
    mut adopted: watch::Receiver<u64>,
    mut otherwise: watch::Receiver<Option<KnownOtherwise>>,
) -> Result<(), FormationError> {
    let own = identity.local();
    let coordinator = initial.keys().next() == Some(&own.node_id);
    let started = tokio::time::Instant::now();
    let mut reported = false;
    while !identity.formed() {
        if let Some(known) = otherwise.borrow_and_update().clone() {
            return Err(FormationError::Replaced {
                cluster_id: known.cluster_id,
                node_id: own.node_id,
                known_uuid: known.known_uuid,
                own_uuid: own.node_uuid,
            });
        }
        if initial.is_empty() {
            tokio::select! {
                // Closed channels only mean that the node is stopping, which
                // drops this future.
                Ok(()) = adopted.changed() => {}
                Ok(()) = otherwise.changed() => {}
                else => std::future::pending().await,
            }
            continue;
        }
        let round = ask_around(&own, peers, initial).await?;
        if let Some((cluster_id, members)) = round.cluster {
            identity.join(&cluster_id, members, false, FIRST_LEVEL)?;
            break;
        }
        if coordinator && round.members.len() == initial.len() {
            let level = round.common_level()?;
            let members = round.members.into_values().collect();
            identity.join(&new_uuid(), members, false, level)?;
            break;
        }
        if !reported && started.elapsed() > REPORT_AFTER {
            reported = true;
            let missing: Vec<_> = initial
                .iter()
                .filter(|(id, _)| !round.members.contains_key(id))
                .map(|(id, node)| format!("{id} at {}", node.peer_address))
                .collect();
            tracing::warn!(
                ?missing,
                "the cluster is not formed yet: waiting for its initial members"
            );
        }
        // Being adopted ends the pause early; a closed channel only means that
        // the node is stopping, which drops this future.
        let _ = tokio::time::timeout(ROUND_PAUSE, adopted.changed()).await;
    }
    let local = identity.local();
    peers.set_cluster_id(&local.cluster_id);
    tracing::info!(
        cluster_id = local.cluster_id,
        "this node belongs to the cluster"
    );
    Ok(())
}

pub(super) async fn ask_around(
    own: &LocalIdentity,
    peers: &Peers,
    initial: &BTreeMap<NodeId, MemberNode>,
) -> Result<Round, FormationError> {
    let answers = futures::future::join_all(initial.iter().map(async |(id, node)| {
        if *id == own.node_id {
            return (*id, node, None);
        }
        let answer = say_hello(own, peers, &node.peer_address, Whom::Anyone)
            .await
            .ok();
        (*id, node, answer)
    }))
    .await;
    let mut round = Round {
        members: BTreeMap::new(),
        levels: BTreeMap::from([(own.node_id, own.levels)]),
        cluster: None,
    };
    for (id, node, answer) in answers {
        let uuid = if id == own.node_id {
            own.node_uuid.clone()
        } else {
            let Some(answer) = answer else { continue };
            round.levels.insert(id, levels_told(&answer));
            check_answer(own, id, &node.peer_address, &answer)?;
            if !answer.cluster_id.is_empty() {
                check_membership(own, &answer)?;
                match &round.cluster {
                    Some((other, _)) if *other != answer.cluster_id => {
                        return Err(FormationError::Split(other.clone(), answer.cluster_id));
                    }
                    _ => round.cluster = Some((answer.cluster_id, answer.members)),
                }
            }
            answer.node_uuid
        };
        round.members.insert(
            id,
            peer::MemberNode {
                node_id: id,
                node_uuid: uuid,
                peer_address: node.peer_address.clone(),
                client_address: node.client_address.clone(),
                ..peer::MemberNode::default()
            },
        );
    }
    Ok(round)
}

fn check_answer(
    own: &LocalIdentity,
    id: NodeId,
    address: &str,
    answer: &peer::HelloResponse,
) -> Result<(), FormationError> {
    if answer.protocol_version != PROTOCOL_VERSION {
        return Err(FormationError::Protocol {
            address: address.to_owned(),
            found: answer.protocol_version,
            supported: PROTOCOL_VERSION,
        });
    }
    if answer.cluster_name != own.cluster_name {
        return Err(FormationError::OtherCluster {
            address: address.to_owned(),
            found: answer.cluster_name.clone(),
            expected: own.cluster_name.clone(),
        });
    }
    if answer.node_id != id {
        return Err(FormationError::OtherNode {
            address: address.to_owned(),
            found: answer.node_id,
            expected: id,
        });
    }
    Ok(())
}

/// A peer that belongs to a cluster must know this very directory as a member.
pub(super) fn check_membership(
    own: &LocalIdentity,
    answer: &peer::HelloResponse,
) -> Result<(), FormationError> {
    match answer.members.iter().find(|m| m.node_id == own.node_id) {
        Some(known) if known.node_uuid == own.node_uuid => Ok(()),
        Some(known) => Err(FormationError::Replaced {
            cluster_id: answer.cluster_id.clone(),
            node_id: own.node_id,
            known_uuid: known.node_uuid.clone(),
            own_uuid: own.node_uuid.clone(),
        }),
        None => Err(FormationError::NotAMember {
            cluster_id: answer.cluster_id.clone(),
            node_id: own.node_id,
        }),
    }
}

/// The coordinator's last step: every initial member writes the cluster's id,
/// then the first membership goes into the log. Does nothing on other nodes,
/// and once the log has a membership.
///
/// # Errors
/// When the members written in the directory do not decode, or Raft refuses.
pub async fn finish_forming(
    identity: Arc<NodeIdentity>,
    peers: Arc<Peers>,
    partitions: Vec<Arc<Partition>>,
) -> Result<(), FormationError> {
    let own = identity.local();
    let members = identity.members()?;
    if identity.was_added()? || members.keys().next() != Some(&own.node_id) {
        return Ok(());
    }
    let mut waiting: Vec<Arc<Partition>> = Vec::new();
    for partition in partitions {
        if !matches!(partition.raft().is_initialized().await, Ok(true)) {
            waiting.push(partition);
        }
    }
    if waiting.is_empty() {
        return Ok(());
    }
    let request = peer::AdoptRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: own.cluster_name.clone(),
        cluster_id: own.cluster_id.clone(),
        members: members
            .iter()
            .map(|(id, node)| crate::raft::member_to_proto(*id, node))
            .collect(),
        exists: false,
        feature_level: identity.founding_level()?,
    };
    for (id, node) in members.iter().filter(|(id, _)| **id != own.node_id) {
        let mut told = false;
        while let Err(status) = give_cluster(&peers, node, &request).await {
            if status.code() == tonic::Code::FailedPrecondition && !told {
                told = true;
                tracing::warn!(
                    node = id,
                    reason = status.message(),
                    "an initial member refuses to be part of the cluster; correct the configurations"
                );
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
    for partition in waiting {
        if let Err(error) = partition.initialize(members.clone()).await {
            tracing::error!(partition = partition.id(), %error, "the first membership was not written");
        }
    }
    Ok(())
}

/// Has the node at `node`'s address write down the cluster of `request`.
///
/// # Errors
/// FAILED_PRECONDITION, with the reason, when it is not the one meant.
pub(super) async fn give_cluster(
    peers: &Peers,
    node: &MemberNode,
    request: &peer::AdoptRequest,
) -> Result<(), tonic::Status> {
    let mut client = peers
        .client(&node.peer_address, Purpose::Control)
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    tokio::time::timeout(limits::HELLO_TIMEOUT, client.adopt(request.clone()))
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("no answer"))??;
    Ok(())
}

/// Takes part in the cluster that its coordinator, or its leader, gives.
///
/// # Errors
/// FAILED_PRECONDITION, with the reason, when this node is not the one meant.
pub(super) fn take_adoption(
    identity: &NodeIdentity,
    peers: &Peers,
    request: peer::AdoptRequest,
) -> Result<(), tonic::Status> {
    let own = identity.local();
    let refuse = |reason: String| Err(tonic::Status::failed_precondition(reason));
    if request.protocol_version != PROTOCOL_VERSION {
        return refuse(format!(
            "peer protocol {} is not {PROTOCOL_VERSION}",
            request.protocol_version
        ));
    }
    if request.cluster_name != own.cluster_name {
        return refuse(format!(
            "this node is configured for cluster `{}`",
            own.cluster_name
        ));
    }
    let members: BTreeMap<NodeId, MemberNode> = request
        .members
        .iter()
        .cloned()
        .map(member_from_proto)
        .collect();
    if members.get(&own.node_id).map(|node| &node.uuid) != Some(&own.node_uuid) {
        return refuse(format!(
            "this is node {} with data directory {}, which is not among the members",
            own.node_id, own.node_uuid
        ));
    }
    let refused = |fault: IdentityFault| tonic::Status::failed_precondition(fault.to_string());
    let level = request.feature_level.max(FIRST_LEVEL);
    // A node that found the cluster by itself is told here at which level it is
    // formed.
    if own.cluster_id == request.cluster_id
        && level <= identity.founding_level().map_err(refused)?
    {
        return Ok(());
    }
    identity
        .join(&request.cluster_id, request.members, request.exists, level)
        .map_err(refused)?;
    peers.set_cluster_id(&request.cluster_id);
    Ok(())
}
