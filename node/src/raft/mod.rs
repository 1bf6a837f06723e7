//! openraft, and everything that is said in its types.
//!
//! The rest of the node sees [`Raft`], [`EntryData`] and [`Response`]; how
//! openraft stores, applies and replicates stays in here.

use std::collections::BTreeSet;

mod entry;
mod in_flight;
mod log_store;
#[cfg(test)]
mod log_store_suite;
mod network;
mod options;
#[cfg(test)]
mod peer_fuzz;
mod peer_service;
mod peer_wire;
mod snapshot;
mod state_machine;

pub use entry::{EntryData, EntryFormatError, Response, entry_data, membership_in};
pub use log_store::LogStore;
pub use network::{LocalIdentity, PROTOCOL_VERSION, PeerNetwork, Peers, Purpose};
pub use options::{RaftTimings, raft_options};
pub use peer_service::PeerRaft;
pub use peer_wire::log_id_to_proto;
pub use peer_wire::{PeerWireError, member_from_proto, member_to_proto, vote_to_proto};
pub use snapshot::SnapshotFile;
pub(crate) use snapshot::{SnapshotLevel, decode_meta, encode_meta};
pub use state_machine::{AppliedEntry, ApplyObserver, MachineRules, StateMachine};

/// The id of a node within its cluster, from 1, never used again once removed.
pub type NodeId = u64;

/// What every member knows of a node: its identity, and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberNode {
    /// Minted with the node's data directory: 32 hex digits.
    pub uuid: String,
    /// `host:port` of its peer service.
    pub peer_address: String,
    /// `host:port` of its client service.
    pub client_address: String,
    /// Ids of removed members; see [`retired_ids`].
    pub retired_ids: BTreeSet<NodeId>,
}

/// The ids of removed members, never to be used again. They are part of the
/// membership, so that log and snapshots carry them to every node: one of the
/// members has them, and whoever removes that one gives them to another in the
/// same entry.
pub fn retired_ids<'a>(nodes: impl IntoIterator<Item = &'a MemberNode>) -> BTreeSet<NodeId> {
    nodes
        .into_iter()
        .flat_map(|node| &node.retired_ids)
        .copied()
        .collect()
}

openraft::declare_raft_types!(
    /// The types huntlog runs openraft with.
    pub TypeConfig:
        D = EntryData,
        R = Response,
        NodeId = NodeId,
        Node = MemberNode,
);

/// A running Raft group's handle.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// A Raft log id: the leader that proposed the entry, and its index.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote, or, when committed, a leadership.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What a log entry carries.
pub type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// A membership, joint while it has two voter sets.
pub type Membership = openraft::Membership<NodeId, MemberNode>;
/// A membership and the log id it was written at.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers, and the file that holds it.
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// openraft's log id of storage's.
pub(crate) fn log_id_from_storage(id: huntlog_storage::LogId) -> LogId {
    LogId {
        leader_id: openraft::impls::leader_id_adv::LeaderId {
            term: id.term,
            node_id: id.node_id,
        },
        index: id.index,
    }
}

/// Storage's log id of openraft's.
pub(crate) fn log_id_to_storage(id: &LogId) -> huntlog_storage::LogId {
    huntlog_storage::LogId {
        term: id.leader_id.term,
        node_id: id.leader_id.node_id,
        index: id.index,
    }
}

/// The machine's log id of openraft's.
pub(crate) fn log_id_to_machine(id: &LogId) -> huntlog_machine::LogId {
    huntlog_machine::LogId {
        term: id.leader_id.term,
        node_id: id.leader_id.node_id,
        index: id.index,
    }
}
