//! The identity kept in a data directory.

use bytes::Bytes;
use huntlog_machine::{FIRST_LEVEL, LevelRange};
use huntlog_proto::peer;
use huntlog_storage::{Identity, IdentityError, Storage};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;

use crate::raft::{LocalIdentity, MemberNode, NodeId, member_from_proto, member_to_proto};

/// Why a data directory can not be used for the configured node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFault {
    /// It belongs to another node or cluster.
    #[error(
        "the data directory belongs to {field} {found}, the configuration says {configured}; point node.data_dir at this node's own directory, or correct the configuration"
    )]
    Foreign {
        /// What differs.
        field: &'static str,
        /// What the directory says.
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The members written there do not decode.
    #[error("the members in the data directory do not decode: {0}; restore the identity file")]
    Members(#[from] prost::DecodeError),
    /// The identity could not be written.
    #[error(transparent)]
    Save(#[from] IdentityError),
}

/// Who this node is, kept on disk.
pub struct NodeIdentity {
    storage: Storage,
    /// The feature levels that this release reads.
    levels: LevelRange,
    current: Mutex<Identity>,
}

/// Reads the directory's identity, or mints one for a fresh directory.
///
/// # Errors
/// When the directory belongs to another node or cluster.
pub fn load_or_mint(
    storage: &Storage,
    cluster_name: &str,
    node_id: NodeId,
    levels: LevelRange,
) -> Result<NodeIdentity, IdentityFault> {
    let identity = match storage.identity() {
        Some(identity) => identity,
        None => {
            let identity = Identity {
                cluster_id: String::new(),
                cluster_name: cluster_name.to_owned(),
                node_id,
                node_uuid: new_uuid(),
                members: Bytes::new(),
            };
            storage.save_identity(&identity)?;
            identity
        }
    };
    let foreign = |field, found: &dyn ToString, configured: &dyn ToString| IdentityFault::Foreign {
        field,
        found: found.to_string(),
        configured: configured.to_string(),
    };
    if identity.node_id != node_id {
        return Err(foreign("node id", &identity.node_id, &node_id));
    }
    if identity.cluster_name != cluster_name {
        return Err(foreign("cluster", &identity.cluster_name, &cluster_name));
    }
    Ok(NodeIdentity {
        storage: storage.clone(),
        levels,
        current: Mutex::new(identity),
    })
}

pub(super) fn new_uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl NodeIdentity {
    /// As peers check it.
    pub fn local(&self) -> LocalIdentity {
        let identity = self.current.lock();
        LocalIdentity {
            cluster_name: identity.cluster_name.clone(),
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            node_uuid: identity.node_uuid.clone(),
            levels: self.levels,
        }
    }

    /// Whether the node belongs to a cluster.
    pub fn formed(&self) -> bool {
        !self.current.lock().cluster_id.is_empty()
    }

    /// The members the cluster was formed of, or that were last written.
    ///
    /// # Errors
    /// When they do not decode.
    pub fn members(&self) -> Result<BTreeMap<NodeId, MemberNode>, IdentityFault> {
        let message = self.adoption()?;
        Ok(message.members.into_iter().map(member_from_proto).collect())
    }

    /// Whether the cluster was there before this node belonged to it: such a
    /// node never forms it.
    ///
    /// # Errors
    /// When what is written does not decode.
    pub fn was_added(&self) -> Result<bool, IdentityFault> {
        Ok(self.adoption()?.exists)
    }

    /// The feature level at which the cluster was formed, which its first leader
    /// puts in force; the first level when it is not known here.
    ///
    /// # Errors
    /// When what is written does not decode.
    pub fn founding_level(&self) -> Result<u32, IdentityFault> {
        Ok(self.adoption()?.feature_level.max(FIRST_LEVEL))
    }

    fn adoption(&self) -> Result<peer::AdoptRequest, IdentityFault> {
        let bytes = self.current.lock().members.clone();
        Ok(peer::AdoptRequest::decode(bytes)?)
    }

    /// Makes the node part of a cluster, durably: one that is being formed of
    /// `members` at `founding_level`, or one that `exists` and adds it. Repeatable.
    ///
    /// # Errors
    /// When the directory belongs to another cluster already.
    pub fn join(
        &self,
        cluster_id: &str,
        members: Vec<peer::MemberNode>,
        exists: bool,
        founding_level: u32,
    ) -> Result<(), IdentityFault> {
        let mut current = self.current.lock();
        if !current.cluster_id.is_empty() && current.cluster_id != cluster_id {
            return Err(IdentityFault::Foreign {
                field: "cluster id",
                found: current.cluster_id.clone(),
                configured: cluster_id.to_owned(),
            });
        }
        let message = peer::AdoptRequest {
            members,
            exists,
            // Absent at the first level, as releases before levels write it.
            feature_level: match founding_level {
                FIRST_LEVEL => 0,
                level => level,
            },
            ..peer::AdoptRequest::default()
        };
        let joined = Identity {
            cluster_id: cluster_id.to_owned(),
            members: message.encode_to_vec().into(),
            ..current.clone()
        };
        if joined != *current {
            self.storage.save_identity(&joined)?;
            *current = joined;
        }
        Ok(())
    }

    /// Writes down the members that the log names: whom the next start asks
    /// what they remember of this node. Blocks.
    ///
    /// # Errors
    /// When they can not be written.
    pub fn keep_members(
        &self,
        members: &BTreeMap<NodeId, MemberNode>,
    ) -> Result<(), IdentityFault> {
        let cluster_id = self.current.lock().cluster_id.clone();
        let exists = self.was_added()?;
        let members = members
            .iter()
            .map(|(id, node)| member_to_proto(*id, node))
            .collect();
        self.join(&cluster_id, members, exists, self.founding_level()?)
    }
}
