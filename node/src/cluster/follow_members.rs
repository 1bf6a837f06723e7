//! What a node does as its cluster's members change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::identity::{IdentityFault, NodeIdentity};
use super::memory::PeerMemory;
use crate::partition::{MembersSeen, Partition};
use crate::raft::{NodeId, Peers};

/// This node was removed from its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node_id} was removed from cluster {cluster_id}; its id and its data directory are not used again: to bring this machine back, give it an empty data directory and a node id never used before, and add it"
)]
pub struct RemovedFromCluster {
    /// This node.
    pub node_id: NodeId,
    /// The cluster.
    pub cluster_id: String,
}

impl RemovedFromCluster {
    pub(super) fn of(identity: &NodeIdentity) -> Self {
        let own = identity.local();
        Self {
            node_id: own.node_id,
            cluster_id: own.cluster_id,
        }
    }
}

/// Why a node does not follow its members any more.
#[derive(Debug, thiserror::Error)]
pub enum FollowMembersError {
    /// It is none of them any more.
    #[error(transparent)]
    Removed(#[from] RemovedFromCluster),
    /// They could not be written down.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
}

/// Keeps what this node knows of its cluster as the log has it: the members it
/// asks when it starts, its connections, and what it remembers of the others.
/// Ends with Raft.
///
/// # Errors
/// Once this node's removal is committed, or the members can not be written
/// down.
pub async fn follow_members(
    identity: Arc<NodeIdentity>,
    peers: Arc<Peers>,
    memory: Arc<PeerMemory>,
    partition: Arc<Partition>,
) -> Result<(), FollowMembersError> {
    let own = identity.local();
    let mut seen = MembersSeen::default();
    let mut known: BTreeMap<NodeId, String> = BTreeMap::new();
    while let Some(now) = partition.members_changed(&seen).await {
        seen = now;
        if partition.committed_members().has_removed(own.node_id) {
            return Err(RemovedFromCluster::of(&identity).into());
        }
        let members = partition.effective_members().nodes;
        if members.is_empty() {
            continue;
        }
        known.retain(|id, address| {
            let stays = members.contains_key(id);
            if !stays {
                peers.forget(*id, address);
            }
            stays
        });
        known.extend(
            members
                .iter()
                .map(|(id, node)| (*id, node.peer_address.clone())),
        );
        memory.keep_only(partition.id(), &members);
        let identity = identity.clone();
        let written =
            crate::blocking::spawn_blocking(move || identity.keep_members(&members)).await;
        match written {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(())
}
