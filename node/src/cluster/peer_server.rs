//! The peer port's service: checks whose messages they are, then hands them to
//! the partition they are for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use huntlog_machine::{FIRST_LEVEL, release_of};
use huntlog_proto::peer;
use huntlog_proto::peer::peer_service_server::PeerService;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::digests::answer_comparison;
use super::formation::{KnownOtherwise, take_adoption};
use super::identity::NodeIdentity;
use super::memory::PeerMemory;
use crate::connections::ConnectionInfo;
use crate::partition::{Partition, wall_clock_ms};
use crate::raft::{PROTOCOL_VERSION, PeerRaft, Peers, member_to_proto};
use crate::server::until;

/// What the peer service works on.
pub struct PeerState {
    identity: Arc<NodeIdentity>,
    peers: Arc<Peers>,
    partitions: OnceLock<BTreeMap<u32, Arc<Partition>>>,
    adopted: watch::Sender<u64>,
    otherwise: watch::Sender<Option<KnownOtherwise>>,
    forming: tokio::sync::Mutex<()>,
    memory: Arc<PeerMemory>,
    /// Turns true once the node stops.
    stopped: watch::Receiver<bool>,
}

impl PeerState {
    /// A node without partitions yet: it answers hellos and adoptions.
    /// Streams end once `stopped` turns true.
    pub fn new(
        identity: Arc<NodeIdentity>,
        peers: Arc<Peers>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            identity,
            peers,
            partitions: OnceLock::new(),
            adopted: watch::Sender::new(0),
            otherwise: watch::Sender::new(None),
            forming: tokio::sync::Mutex::new(()),
            memory: Arc::default(),
            stopped,
        }
    }

    /// What this node remembers of the others.
    pub fn memory(&self) -> &Arc<PeerMemory> {
        &self.memory
    }

    /// Changes whenever the node has been made a member of a cluster.
    pub fn adopted(&self) -> watch::Receiver<u64> {
        self.adopted.subscribe()
    }

    /// Tells those who wait that the node belongs to a cluster.
    pub(super) fn announce_adoption(&self) {
        self.adopted.send_modify(|times| *times += 1);
    }

    /// Set once a cluster greets this node, which belongs to none, as one that
    /// had another data directory.
    pub fn known_otherwise(&self) -> watch::Receiver<Option<KnownOtherwise>> {
        self.otherwise.subscribe()
    }

    /// Held by whoever forms a cluster.
    pub(super) fn forming(&self) -> &tokio::sync::Mutex<()> {
        &self.forming
    }

    /// The node's identity.
    pub fn identity(&self) -> &Arc<NodeIdentity> {
        &self.identity
    }

    /// The node's connections.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Whether a hello is meant for this node, but for another data directory.
    fn note_greeting(&self, asker: &peer::HelloRequest) {
        let own = self.identity.local();
        let meant = own.cluster_id.is_empty()
            && asker.cluster_name == own.cluster_name
            && !asker.cluster_id.is_empty()
            && asker.to_node_id == own.node_id
            && !asker.to_node_uuid.is_empty();
        if meant && asker.to_node_uuid != own.node_uuid {
            self.otherwise.send_replace(Some(KnownOtherwise {
                cluster_id: asker.cluster_id.clone(),
                known_uuid: asker.to_node_uuid.clone(),
            }));
        }
    }

    /// From now on the Raft messages of `partitions` are taken.
    ///
    /// # Panics
    /// When called twice.
    pub fn serve(&self, partitions: BTreeMap<u32, Arc<Partition>>) {
        assert!(
            self.partitions.set(partitions).is_ok(),
            "partitions are started once"
        );
    }

    fn partition(&self, id: u32) -> Result<&Arc<Partition>, Status> {
        let partitions = self
            .partitions
            .get()
            .ok_or_else(|| Status::unavailable("this node is starting; retry"))?;
        partitions
            .get(&id)
            .ok_or_else(|| Status::failed_precondition(format!("this node has no partition {id}")))
    }

    /// The partition's Raft, for a request that is really meant for this node.
    fn raft(&self, header: Option<&peer::Header>, partition: u32) -> Result<&PeerRaft, Status> {
        let partition = self.partition(partition)?;
        self.check(header, partition)?;
        Ok(partition.peer_raft())
    }

    /// The header, if the request is from a peer and meant for this node.
    fn check<'h>(
        &self,
        header: Option<&'h peer::Header>,
        partition: &Partition,
    ) -> Result<&'h peer::Header, Status> {
        let refuse = |reason: String| Err(Status::failed_precondition(reason));
        let header = header.ok_or_else(|| Status::invalid_argument("the request has no header"))?;
        let own = self.peers.identity();
        if header.protocol_version != PROTOCOL_VERSION {
            return refuse(format!(
                "peer protocol {} is not {PROTOCOL_VERSION}, this node's",
                header.protocol_version
            ));
        }
        if header.cluster_id != own.cluster_id {
            return refuse(format!(
                "the sender is of cluster {}, this node of {}",
                header.cluster_id, own.cluster_id
            ));
        }
        if header.to_node_id != own.node_id || header.to_node_uuid != own.node_uuid {
            return refuse(format!(
                "the request is for node {} ({}), this is node {} ({})",
                header.to_node_id, header.to_node_uuid, own.node_id, own.node_uuid
            ));
        }
        let levels = header.feature_level_max.max(FIRST_LEVEL);
        if levels < partition.level() {
            return refuse(format!(
                "the sender's release reads feature levels up to {levels}, and level {} is in force; run release {} or a newer one on node {}",
                partition.level(),
                release_of(partition.level()).unwrap_or_default(),
                header.from_node_id
            ));
        }
        match partition.member(header.from_node_id) {
            None if partition
                .committed_members()
                .has_removed(header.from_node_id) =>
            {
                refuse(format!(
                    "node {} was removed from the cluster",
                    header.from_node_id
                ))
            }
            Some(known) if known.uuid != header.from_node_uuid => refuse(format!(
                "node {} is known with data directory {}, the sender has {}",
                header.from_node_id, known.uuid, header.from_node_uuid
            )),
            // A node that is not known yet may be the leader that adds this one.
            _ => Ok(header),
        }
    }
}

/// The gRPC service of the peer port.
#[derive(Clone)]
pub struct PeerServer {
    state: Arc<PeerState>,
}

impl PeerServer {
    /// Serves `state`.
    pub fn new(state: Arc<PeerState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AppendStreamStream =
        Pin<Box<dyn Stream<Item = Result<peer::AppendEntriesResponse, Status>> + Send>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<peer::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let state = self.state.clone();
        let connection = ConnectionInfo::end_in(request.extensions());
        // A leader with nothing to send would keep its stream, and with it this
        // node, open.
        let stopped = until(self.state.stopped.clone());
        let mut requests = Box::pin(request.into_inner().take_until(stopped));
        // The answer's headers go out before the first request is there: the
        // leader opens its stream first.
        let answers = futures::stream::once(async move {
            let Some(first) = requests.try_next().await? else {
                return Err(Status::cancelled(
                    "the stream ended before its first request",
                ));
            };
            let raft = state.raft(first.header.as_ref(), first.partition)?;
            Ok(raft.append_stream(connection, first, requests))
        });
        Ok(Response::new(Box::pin(answers.try_flatten())))
    }

    async fn append_entries(
        &self,
        request: Request<peer::AppendEntriesRequest>,
    ) -> Result<Response<peer::AppendEntriesResponse>, Status> {
        let request = request.into_inner();
        let raft = self
            .state
            .raft(request.header.as_ref(), request.partition)?;
        raft.append_entries(request).await.map(Response::new)
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = request.into_inner();
        let raft = self
            .state
            .raft(request.header.as_ref(), request.partition)?;
        raft.vote(request).await.map(Response::new)
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = request.into_inner();
        let raft = self
            .state
            .raft(request.header.as_ref(), request.partition)?;
        raft.pre_vote(request).await.map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::InstallSnapshotRequest>>,
    ) -> Result<Response<peer::InstallSnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let start = match parts.message().await?.and_then(|message| message.part) {
            Some(peer::install_snapshot_request::Part::Start(start)) => start,
            _ => {
                return Err(Status::invalid_argument(
                    "a snapshot begins with its description",
                ));
            }
        };
        let raft = self.state.raft(start.header.as_ref(), start.partition)?;
        raft.install_snapshot(start, parts).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let raft = self
            .state
            .raft(request.header.as_ref(), request.partition)?;
        raft.transfer_leader(request).await.map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let request = request.into_inner();
        let raft = self
            .state
            .raft(request.header.as_ref(), request.partition)?;
        raft.read_index().await.map(Response::new)
    }

    async fn compare_digest(
        &self,
        request: Request<peer::CompareDigestRequest>,
    ) -> Result<Response<peer::CompareDigestResponse>, Status> {
        let request = request.into_inner();
        let partition = self.state.partition(request.partition)?;
        let header = self.state.check(request.header.as_ref(), partition)?;
        answer_comparison(partition, header.from_node_id, &request).map(Response::new)
    }

    async fn hello(
        &self,
        request: Request<peer::HelloRequest>,
    ) -> Result<Response<peer::HelloResponse>, Status> {
        let asker = request.into_inner();
        self.state.note_greeting(&asker);
        let own = self.state.identity.local();
        let known: BTreeMap<_, _> =
            match self.state.partitions.get().and_then(|p| p.values().next()) {
                Some(partition) if !partition.members().is_empty() => partition.members(),
                _ => self
                    .state
                    .identity
                    .members()
                    .map_err(|fault| Status::internal(fault.to_string()))?,
            };
        let same_cluster = asker.cluster_id == own.cluster_id;
        let remembered = if same_cluster {
            self.state.memory.of(asker.node_id)
        } else {
            Vec::new()
        };
        let draining = self
            .state
            .partitions
            .get()
            .is_some_and(|partitions| partitions.values().any(|p| p.is_aside()));
        let asker_removed = same_cluster
            && self.state.partitions.get().is_some_and(|partitions| {
                partitions
                    .values()
                    .any(|partition| partition.committed_members().has_removed(asker.node_id))
            });
        let levels = self.state.partitions.get().into_iter().flatten();
        let levels = levels.map(|(id, partition)| peer::PartitionLevel {
            partition: *id,
            feature_level: partition.level(),
        });
        let mut histories = Vec::new();
        for partition in self
            .state
            .partitions
            .get()
            .into_iter()
            .flat_map(BTreeMap::values)
        {
            // What can not be read here is not offered to others.
            if let Ok(earliest_offset) = partition.earliest_offset().await {
                let partition = partition.id();
                histories.push(peer::History {
                    partition,
                    earliest_offset,
                });
            }
        }
        Ok(Response::new(peer::HelloResponse {
            feature_level_min: own.levels.min,
            feature_level_max: own.levels.max,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            levels: levels.collect(),
            histories,
            asker_removed,
            draining,
            protocol_version: PROTOCOL_VERSION,
            cluster_name: own.cluster_name,
            cluster_id: own.cluster_id,
            node_id: own.node_id,
            node_uuid: own.node_uuid,
            clock_unix_ms: wall_clock_ms(),
            remembered,
            members: known
                .iter()
                .map(|(id, node)| member_to_proto(*id, node))
                .collect(),
        }))
    }

    async fn adopt(
        &self,
        request: Request<peer::AdoptRequest>,
    ) -> Result<Response<peer::AdoptResponse>, Status> {
        take_adoption(
            &self.state.identity,
            &self.state.peers,
            request.into_inner(),
        )?;
        self.state.announce_adoption();
        Ok(Response::new(peer::AdoptResponse {}))
    }
}
