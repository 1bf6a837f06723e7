//! A node's configuration: a TOML file, overridden by environment variables,
//! overridden by flags.
//!
//! Loading has two steps. The sources are gathered into a raw configuration,
//! which keeps where each value was written; validation turns it into a
//! [`Config`], whose values are of the right types and go together, or into
//! [`Faults`]: all that is wrong, each with its place and what to do about it.
//!
//! There are few keys on purpose: what an operator has no reason to change is a
//! constant in [`crate::limits`].

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{
    address::{Address, AddressError},
    bind::{BindError, Port},
    cluster_files::disagreements,
    data_dir::DataDirError,
    fault::{Fault, Faults, Hint, Origin, Position, Problem, Severity},
    layers::Sources,
    log_level::{InvalidLogLevel, LogLevel},
};

mod address;
mod bind;
mod cluster_files;
mod data_dir;
mod fault;
#[cfg(test)]
mod fuzz;
mod layers;
mod log_level;
mod members;
pub mod schema;
#[cfg(test)]
mod tests;
mod validate;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// The cluster it belongs to.
    pub cluster: ClusterConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// Raft's timers.
    pub raft: RaftConfig,
    /// When snapshots are taken.
    pub snapshot: SnapshotConfig,
    /// How much history is kept.
    pub retention: RetentionConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// From 1; one of the initial members, if there are any.
    pub id: u64,
    /// Where everything the node keeps is kept.
    pub data_dir: PathBuf,
}

/// The cluster a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The same on all nodes; a node of another cluster is refused.
    pub name: String,
    /// The nodes that form the cluster while their data directories are fresh:
    /// 1 to 7, ids and addresses unique, this node among them; or none, and the
    /// node waits to be given a cluster. Without meaning afterwards: the members
    /// are then in the log.
    pub initial_members: Vec<Member>,
}

/// One of the nodes that form the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// From 1.
    pub id: u64,
    /// Where the other nodes reach it.
    pub peer_address: Address,
    /// Where clients reach it, and are sent when it leads.
    pub client_address: Address,
}

/// Where a node listens. Port 0 is whatever port the system finds free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// gRPC for clients.
    pub client: SocketAddr,
    /// gRPC for the other nodes.
    pub peer: SocketAddr,
    /// HTTP for metrics and probes.
    pub admin: SocketAddr,
}

/// Raft's timers: `2 * heartbeat <= election_min < election_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest time after the leader's lease at which a follower stands.
    pub election_min: Duration,
    /// The longest such time, each draw is between the two; and the lease itself.
    pub election_max: Duration,
    /// Of entries through this log index, 0 for none, the leader's digest is not
    /// compared.
    pub ignore_digests_through: u64,
}

/// How much history is kept; whatever is beyond either limit may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Events older than this; None keeps them for ever.
    pub max_age: Option<Duration>,
    /// The oldest of more bytes of log than this; None keeps any amount.
    pub max_bytes: Option<u64>,
}

/// When snapshots are taken: whichever of the two comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Bytes of log since the last one.
    pub every_bytes: u64,
    /// Time since the last one, if there are new entries.
    pub every: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Which events are logged.
    pub level: LogLevel,
    /// How they look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people when standard error is a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Human, Self::Json];

    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// A configuration a node can start with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the operator should know all the same; each a warning.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// Reads and validates a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included, in the order of the
    /// file, then of the variables and flags.
    pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
        let mut faults = Vec::new();
        let config = layers::Layers::gather(sources, &mut faults)
            .and_then(|layers| validate::Validator::new(&layers, &mut faults).config());
        // Stable, so that what has no place keeps the order in which it was found.
        faults.sort_by_key(|fault| match &fault.origin {
            Origin::File { position, .. } => (0, *position),
            Origin::Default => (0, None),
            Origin::Variable(_) => (1, None),
            Origin::Flag(_) => (2, None),
        });
        let has_error = faults
            .iter()
            .any(|fault| fault.severity() == Severity::Error);
        match config {
            Some(config) if !has_error => Ok(Loaded {
                config,
                warnings: faults,
            }),
            _ => Err(Faults(faults)),
        }
    }

    /// This node among the initial members, if there are any: where others are
    /// told to reach it.
    pub fn this_member(&self) -> Option<&Member> {
        self.cluster
            .initial_members
            .iter()
            .find(|member| member.id == self.node.id)
    }
}
