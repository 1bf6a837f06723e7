//! Forming a cluster that an operator asks for, of nodes whose configurations
//! name no initial members.

use std::collections::BTreeMap;

use huntlog_machine::FIRST_LEVEL;

use super::client_port::{ClientPort, ask_client_port, nobody_at};
use super::formation::{FormationError, Round, ask_around};
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
    /// Other nodes serve clients at the addresses of some.
    #[error("clients would reach others at these addresses: {}", .0.join("; "))]
    ClientAddresses(Vec<String>),
    /// They do not fit together.
    #[error(transparent)]
    Formation(#[from] FormationError),
}

/// Whether the cluster was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initialized {
    /// It is being formed now; the first membership follows. What is not as it
    /// should be all the same is told.
    Now(Vec<String>),
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
            self.adopt_cluster(&cluster_id, members, true, FIRST_LEVEL)?;
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
        let warnings = self.check_client_ports(&round).await?;
        let level = round.common_level()?;
        let members = round.members.into_values().collect();
        self.adopt_cluster(&new_uuid(), members, false, level)?;
        Ok(Initialized::Now(warnings))
    }

    /// Who can not be reached by clients, as far as this node can tell.
    async fn check_client_ports(&self, round: &Round) -> Result<Vec<String>, InitError> {
        let asked = round.members.values().map(async |member| {
            let address = &member.client_address;
            let port = ask_client_port(self.peers(), address, &member.node_uuid).await;
            (member.node_id, address, port)
        });
        let mut others = Vec::new();
        let mut warnings = Vec::new();
        for (id, address, port) in futures::future::join_all(asked).await {
            match port {
                ClientPort::Itself => {}
                ClientPort::Another(who) => {
                    others.push(format!("at {address}, of node {id}, answers {who}"));
                }
                ClientPort::Silent(why) => warnings.push(nobody_at(id, address, &why)),
            }
        }
        match others.is_empty() {
            true => Ok(warnings),
            false => Err(InitError::ClientAddresses(others)),
        }
    }

    fn adopt_cluster(
        &self,
        cluster_id: &str,
        members: Vec<huntlog_proto::peer::MemberNode>,
        exists: bool,
        founding_level: u32,
    ) -> Result<(), FormationError> {
        self.identity()
            .join(cluster_id, members, exists, founding_level)?;
        self.peers().set_cluster_id(cluster_id);
        self.announce_adoption();
        Ok(())
    }
}
