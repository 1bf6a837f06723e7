//! Everything that can come of a request except its answer.

use crate::cluster::{InitError, MemberError};
use crate::connections::ShareUsedUp;
use crate::limits;
use crate::partition::{AdminError, ReadEventsError, ReadIndexError, WriteError};
use crate::raft::NodeId;
use crate::wire::InvalidRequest;
use huntlog_machine::{Refusal, SessionRefusal};

/// Why a request has no answer. What the caller is told of it, and how, is
/// decided in [`super::status`].
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The partitions have not started.
    #[error("this node is starting")]
    Starting,
    /// The node belongs to no cluster yet.
    #[error("this node does not serve yet: {0}")]
    Waiting(String),
    /// The node is stopping.
    #[error("this node is stopping")]
    Draining,
    /// The node is out of service.
    #[error("an operator has drained this node, taken it out of service")]
    Drained,
    /// There is no such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(u32),
    /// The request is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// Nobody is known to lead.
    #[error("no leader is known")]
    NoLeader,
    /// Another node leads, and the request has been forwarded before.
    #[error("node {leader} leads, not this node")]
    NotLeader {
        /// Who leads.
        leader: NodeId,
        /// Where clients reach it, when known.
        address: Option<String>,
    },
    /// The partition did not take, or lost sight of, the request.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The machine refuses the batch.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine refuses the session.
    #[error(transparent)]
    SessionRefused(#[from] SessionRefusal),
    /// The leader could not be reached, or its answer did not arrive.
    #[error("the leader, node {leader} at {address}, was not reached: {cause}")]
    Unreachable {
        /// Who leads.
        leader: NodeId,
        /// Where it was looked for.
        address: String,
        /// Whether something of the request may have been sent.
        sent: bool,
        /// What went wrong.
        cause: String,
    },
    /// This node does not keep the events asked for, and another does or may.
    #[error(
        "this node keeps the events from offset {earliest} on, not those from {asked}; another member keeps them, or has not said yet"
    )]
    KeptElsewhere {
        /// The offset asked for.
        asked: u64,
        /// The first one kept here.
        earliest: u64,
    },
    /// The node that keeps the events asked for does not send them (any more).
    #[error("node {holder}, which keeps the events asked for, was not reached: {cause}")]
    HolderLost {
        /// Who keeps them.
        holder: NodeId,
        /// What went wrong.
        cause: String,
    },
    /// The time is up.
    #[error("the deadline has passed")]
    Deadline,
    /// A linearizable read is not possible now.
    #[error(transparent)]
    ReadIndex(#[from] ReadIndexError),
    /// This node did not get as far as the read asks for.
    #[error("this node has applied everything below offset {end}, and the read asks for {asked}")]
    Behind {
        /// The offset asked for.
        asked: u64,
        /// The end here.
        end: u64,
    },
    /// The log could not be read.
    #[error(transparent)]
    ReadEvents(#[from] ReadEventsError),
    /// The cluster has not got that far.
    #[error("offset {asked} is beyond the end of the log, {end}")]
    BeyondEnd {
        /// The offset asked for.
        asked: u64,
        /// One past the last event.
        end: u64,
    },
    /// There is no such hunt.
    #[error("there is no hunt `{0}`")]
    HuntUnknown(String),
    /// The hunt has no such player.
    #[error("hunt `{hunt}` has no player `{player}`")]
    PlayerUnknown {
        /// The hunt.
        hunt: String,
        /// The player.
        player: String,
    },
    /// The node has no room for more.
    #[error("{}", resource.shortage())]
    TooMuch {
        /// Of what.
        resource: Resource,
    },
    /// The client does not take what it asked for.
    #[error(
        "nothing was taken from this stream for {} s", limits::READER_STALL_MAX.as_secs()
    )]
    Stalled {
        /// Every matching event below it has been handed to the transport.
        next_offset: u64,
    },
    /// An operator's request failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A change of the members was refused, or is not known to be done.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// No cluster was formed.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The request is meant for a node of another cluster.
    #[error("the request is meant for cluster {wanted}, and this is node {node} of cluster {own}")]
    WrongCluster {
        /// The cluster that was meant.
        wanted: String,
        /// This node.
        node: NodeId,
        /// Its cluster.
        own: String,
    },
    /// The cluster was formed, and of other members than these.
    #[error("the cluster is there already, and its members are {present}, not {listed}")]
    MembersDiffer {
        /// Those that were listed.
        listed: String,
        /// Those that there are.
        present: String,
    },
    /// The node belongs to no cluster, and none was named.
    #[error("this node belongs to no cluster, and none is being formed")]
    NotFormed,
    /// A task of this node ended before its work.
    #[error("this node dropped the request")]
    Dropped,
}

impl From<ShareUsedUp> for ApiError {
    fn from(ShareUsedUp: ShareUsedUp) -> Self {
        Self::TooMuch {
            resource: Resource::ConnectionBytes,
        }
    }
}

/// What a node has only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of appends in flight.
    AppendBytes,
    /// Those of one connection.
    ConnectionBytes,
    /// `Read` streams.
    Reads,
    /// Streams of another node that this one passes on.
    ForwardedReads,
    /// `Subscribe` streams.
    Subscribers,
}

impl Resource {
    fn shortage(self) -> String {
        match self {
            Self::AppendBytes => format!(
                "this node has {} MiB of appends in flight, its limit",
                limits::IN_FLIGHT_BYTES_MAX >> 20
            ),
            Self::ConnectionBytes => format!(
                "this connection has {} MiB of appends in flight, its limit",
                limits::IN_FLIGHT_BYTES_PER_CONNECTION_MAX >> 20
            ),
            Self::ForwardedReads => format!(
                "this node passes on {} reads of what only others keep, its limit",
                limits::FORWARDED_READS_MAX
            ),
            Self::Reads => format!(
                "this node has {} reads under way, its limit",
                limits::READS_MAX
            ),
            Self::Subscribers => format!(
                "this node has {} subscribers, its limit",
                limits::SUBSCRIBERS_MAX
            ),
        }
    }
}
