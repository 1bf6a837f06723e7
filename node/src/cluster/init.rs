//! Forming a cluster that an operator asks for, of nodes whose configurations
//! name no initial members.

use std::collections::BTreeMap;

use super::formation::{FormationError, ask_around};
use super::identity::new_uuid;
use super::peer_server::PeerState;
use crate::raft::{MemberNode, NodeId};

/// Why no cluster was formed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The list does not name this node.
    #[error("this is node {0}, which is not among the members")]
    NotListed(NodeId),
    /// One node does it, so that two requests at once do not form two clusters.
    #[error("node {id} forms the cluster, since its id is the lowest")]
    NotCoordinator {
        /// The one to ask.
        id: NodeId,
        /// Where clients reach it.
        client_address: String,
    },
    /// Somebody does not answer.
    #[error("these members do not answer: {}", .0.join(", "))]
    Silent(Vec<String>),
    /// They do not fit together.
    #[error(transparent)]
    Formation(#[from] FormationError),
}

/// Whether the cluster was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialized {
    /// It is being formed now; the first membership follows.
    Now,
    /// This node belonged to one before.
    Before,
}

impl PeerState {
    /// Has this node form a cluster of `listed`, itself among them. What is
    /// left to do after this is done by every start as well: a crash in the
    /// middle is finished by the next one.
    ///
    /// # Errors
    /// When a member is missing, or they do not fit together.
    pub async fn init(
        &self,
        listed: &BTreeMap<NodeId, MemberNode>,
    ) -> Result<Initialized, InitError> {
        let _one = self.forming().lock().await;
        let own = self.identity().local();
        if self.identity().formed() {
            return Ok(Initialized::Before);
        }
        if !listed.contains_key(&own.node_id) {
            return Err(InitError::NotListed(own.node_id));
        }
        if let Some((id, node)) = listed.first_key_value()
            && *id != own.node_id
        {
            return Err(InitError::NotCoordinator {
                id: *id,
                client_address: node.client_address.clone(),
            });
        }
        let round = ask_around(&own, self.peers(), listed).await?;
        if let Some((cluster_id, members)) = round.cluster {
            self.adopt_cluster(&cluster_id, members, true)?;
            return Ok(Initialized::Before);
        }
        if round.members.len() < listed.len() {
            let silent = listed
                .iter()
                .filter(|(id, _)| !round.members.contains_key(id))
                .map(|(id, node)| format!("{id} at {}", node.peer_address))
                .collect();
            return Err(InitError::Silent(silent));
        }
        let members = round.members.into_values().collect();
        self.adopt_cluster(&new_uuid(), members, false)?;
        Ok(Initialized::Now)
    }

    fn adopt_cluster(
        &self,
        cluster_id: &str,
        members: Vec<huntlog_proto::peer::MemberNode>,
        exists: bool,
    ) -> Result<(), FormationError> {
        self.identity().join(cluster_id, members, exists)?;
        self.peers().set_cluster_id(cluster_id);
        self.announce_adoption();
        Ok(())
    }
}
