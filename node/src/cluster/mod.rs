//! Which cluster a node belongs to, and whether its data directory may speak
//! for it.
//!
//! A cluster is formed once, by the initial members of the configuration, when
//! all of them have answered and all are fresh. From then on identity is in the
//! data directories: every node has a uuid minted with its directory, every
//! peer message carries both ends' uuids, and a directory that was emptied,
//! copied or put back is refused.

mod digests;
mod formation;
mod hello;
mod identity;
mod memory;
mod peer_server;

pub use digests::{DiffersFromLeader, compare_digests, compare_with_leader};
pub use formation::{FormationError, finish_forming, form};
pub use hello::{StaleDirectory, exchange_clocks, refuse_stale_directory};
pub use identity::{IdentityFault, NodeIdentity, load_or_mint};
pub use memory::{PeerMemory, remember_peers};
pub use peer_server::{PeerServer, PeerState};
