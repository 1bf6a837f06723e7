//! Which cluster a node belongs to, and whether its data directory may speak
//! for it.
//!
//! A cluster is formed once, by the initial members of the configuration or by
//! an operator's list, when all of them have answered and all are fresh; its
//! leader adds and removes members later. From then on identity is in the
//! data directories: every node has a uuid minted with its directory, every
//! peer message carries both ends' uuids, and a directory that was emptied,
//! copied or put back is refused.

mod client_port;
mod digests;
mod follow_members;
mod formation;
mod hello;
mod identity;
mod init;
mod leadership;
mod levels;
mod member_error;
mod members;
mod memory;
mod peer_server;
mod quorum;

pub use digests::{DiffersFromLeader, compare_digests, compare_with_leader};
pub use follow_members::{FollowMembersError, RemovedFromCluster, follow_members};
pub use formation::{FormationError, KnownOtherwise, finish_forming, form};
pub use hello::{StaleDirectory, exchange_hellos, refuse_stale_directory};
pub use identity::{IdentityFault, NodeIdentity, load_or_mint};
pub use init::{InitError, Initialized};
pub use leadership::{others_in_service, transfer_leader};
pub use levels::{Raised, raise_to_founding_level};
pub use member_error::MemberError;
pub use members::{Added, Change, MemberChanger};
pub use memory::{PeerMemory, remember_peers};
pub use peer_server::{PeerServer, PeerState};
pub use quorum::{QuorumLoss, keeps_quorum};
