//! The leader's and candidate's side of the peer protocol: openraft's network
//! over tonic.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use huntlog_machine::LevelRange;
use huntlog_proto::peer;
use huntlog_proto::peer::peer_service_client::PeerServiceClient;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::{Mutex, RwLock};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::peer_wire::{
    PeerWireError, append_to_proto, log_id_from_proto, log_id_to_proto, optional_log_id,
    snapshot_meta_to_proto, vote_from_proto, vote_request_to_proto, vote_response_from_proto,
    vote_to_proto,
};
use super::snapshot::chunks;
use super::{MemberNode, NodeId, Snapshot, SnapshotFile, TypeConfig, Vote};
use crate::host::{Dial, connect_lazy};
use crate::limits;

/// The version of the peer protocol; raised when a release can no longer be
/// understood by the one before.
pub const PROTOCOL_VERSION: u32 = 1;

/// Who this node is, as its peers check it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The cluster's name, from the configuration.
    pub cluster_name: String,
    /// Minted when the cluster is formed; empty before.
    pub cluster_id: String,
    /// This node's id.
    pub node_id: NodeId,
    /// This data directory's uuid.
    pub node_uuid: String,
    /// The feature levels that its release reads.
    pub levels: LevelRange,
}

/// What a connection to a peer is for. Each purpose has its own, so that a full
/// replication window or a snapshot never delays a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Streams of entries.
    Replication,
    /// Heartbeats, votes, read indexes, hellos.
    Control,
    /// Snapshots.
    Snapshot,
    /// Clients' requests on their way to the leader.
    Forward,
    /// Reads of what only the peer keeps, at their clients' pace.
    Read,
}

/// The connections of this node to its peers, shared by all partitions.
pub struct Peers {
    identity: RwLock<LocalIdentity>,
    /// The way to them; `None` is TCP.
    dialer: Option<Arc<dyn Dial>>,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
    /// The peers that did not answer when they were last asked.
    lost: Mutex<BTreeMap<NodeId, Lost>>,
}

/// Why a peer does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// There is no way to it, or it is busy or starting.
    Away,
    /// It takes this node for a stranger: another cluster, another directory,
    /// another protocol.
    Refusing,
}

impl Peers {
    /// Reached over `dialer`, `None` being TCP. No connection is made before it
    /// is used.
    pub fn new(identity: LocalIdentity, dialer: Option<Arc<dyn Dial>>) -> Self {
        Self {
            identity: RwLock::new(identity),
            dialer,
            channels: Mutex::new(BTreeMap::new()),
            lost: Mutex::default(),
        }
    }

    /// Who this node is.
    pub fn identity(&self) -> LocalIdentity {
        self.identity.read().clone()
    }

    /// Sets the cluster's id, once the cluster has been formed.
    pub fn set_cluster_id(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.identity.write().cluster_id);
    }

    /// What a request to `node` begins with.
    pub fn header(&self, target: NodeId, node: &MemberNode) -> peer::Header {
        let identity = self.identity.read();
        peer::Header {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: identity.cluster_id.clone(),
            from_node_id: identity.node_id,
            from_node_uuid: identity.node_uuid.clone(),
            to_node_id: target,
            to_node_uuid: node.uuid.clone(),
            feature_level_max: identity.levels.max,
        }
    }

    /// The connection to `address` for `purpose`; it connects, and reconnects,
    /// by itself.
    ///
    /// # Errors
    /// When `address` is not a `host:port`.
    pub fn channel(
        &self,
        address: &str,
        purpose: Purpose,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&(address.to_owned(), purpose)) {
            return Ok(channel.clone());
        }
        let (stream_window_bytes, connection_window_bytes) = match purpose {
            Purpose::Read => (
                limits::FORWARDED_READ_WINDOW_BYTES,
                limits::FORWARDED_READS_WINDOW_BYTES,
            ),
            _ => (
                limits::PEER_STREAM_WINDOW_BYTES,
                limits::PEER_CONNECTION_WINDOW_BYTES,
            ),
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(limits::PEER_CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(limits::PEER_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(limits::PEER_KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(stream_window_bytes)
            .initial_connection_window_size(connection_window_bytes);
        let channel = connect_lazy(&endpoint, self.dialer.as_ref());
        channels.insert((address.to_owned(), purpose), channel.clone());
        Ok(channel)
    }

    /// Says in the log when a peer is lost, refuses this node, or answers again;
    /// not each time that it is asked in vain.
    fn note_answer(&self, peer: NodeId, node: &MemberNode, failed: Option<&Status>) {
        let address = &node.peer_address;
        let mut lost = self.lost.lock();
        let Some(status) = failed else {
            if lost.remove(&peer).is_some() {
                tracing::info!(peer, address, "a peer answers again");
            }
            return;
        };
        let how = match status.code() {
            Code::FailedPrecondition => Lost::Refusing,
            _ => Lost::Away,
        };
        if lost.insert(peer, how) == Some(how) {
            return;
        }
        let reason = status.message();
        match how {
            Lost::Refusing => tracing::error!(peer, address, reason, "a peer refuses this node"),
            Lost::Away => tracing::warn!(peer, address, reason, "a peer can not be reached"),
        }
    }

    /// Lets go of what is kept of `peer` at `address`, which is no member any
    /// more.
    pub fn forget(&self, peer: NodeId, address: &str) {
        self.lost.lock().remove(&peer);
        self.channels
            .lock()
            .retain(|(known, _), _| known != address);
    }

    /// A client of the peer service at `address`.
    ///
    /// # Errors
    /// When `address` is not a `host:port`.
    pub fn client(
        &self,
        address: &str,
        purpose: Purpose,
    ) -> Result<PeerServiceClient<Channel>, tonic::transport::Error> {
        Ok(PeerServiceClient::new(self.channel(address, purpose)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX))
    }
}

/// openraft's way to the peers of one partition.
#[derive(Clone)]
pub struct PeerNetwork {
    peers: Arc<Peers>,
    partition: u32,
}

impl PeerNetwork {
    /// The network of `partition`.
    pub fn new(peers: Arc<Peers>, partition: u32) -> Self {
        Self { peers, partition }
    }

    fn link(&self, target: NodeId, node: &MemberNode, purpose: Purpose) -> PeerLink {
        PeerLink {
            peers: self.peers.clone(),
            partition: self.partition,
            target,
            node: node.clone(),
            purpose,
            failures: 0,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerLink;

    async fn new_client(&mut self, target: NodeId, node: &MemberNode) -> PeerLink {
        self.link(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &MemberNode) -> PeerLink {
        self.link(target, node, Purpose::Control)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &MemberNode) -> PeerLink {
        self.link(target, node, Purpose::Snapshot)
    }
}

/// One peer, for one purpose.
pub struct PeerLink {
    peers: Arc<Peers>,
    partition: u32,
    target: NodeId,
    node: MemberNode,
    purpose: Purpose,
    /// Streams that could not be opened, in a row.
    failures: u32,
}

impl PeerLink {
    fn client(
        &self,
        purpose: Purpose,
    ) -> Result<PeerServiceClient<Channel>, Unreachable<TypeConfig>> {
        self.peers
            .client(&self.node.peer_address, purpose)
            .map_err(|error| Unreachable::new(&error))
    }

    fn header(&self) -> peer::Header {
        self.peers.header(self.target, &self.node)
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout {
            action,
            id: self.peers.identity.read().node_id,
            target: self.target,
            timeout,
        }
    }

    /// Awaits `call` no longer than `option` allows.
    async fn within<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let answer = self.opened_within(action, option, call).await?;
        self.note_answer(None);
        Ok(answer)
    }

    /// As [`Self::within`], for a stream: that it opens is no answer yet.
    async fn opened_within<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let limit = option.soft_ttl();
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.note_answer(Some(&status));
                Err(unreachable(&status).into())
            }
            Err(_) => Err(self.timed_out(action, limit).into()),
        }
    }

    fn note_answer(&self, failed: Option<&Status>) {
        self.peers.note_answer(self.target, &self.node, failed);
    }

    /// openraft opens the next stream at once when one could not be opened: a
    /// peer that is away would be tried thousands of times a second.
    async fn pause(&mut self) {
        let doublings = self.failures.min(limits::PEER_BACKOFF_DOUBLINGS_MAX);
        self.failures += 1;
        tokio::time::sleep(limits::PEER_BACKOFF * 2_u32.pow(doublings)).await;
    }
}

fn unreachable(status: &Status) -> Unreachable<TypeConfig> {
    Unreachable::new(status)
}

fn malformed(error: &PeerWireError) -> NetworkError<TypeConfig> {
    NetworkError::new(error)
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(self.purpose)?;
        let message = append_to_proto(&request, Some(self.header()), self.partition);
        let response = self
            .within(
                RPCTypes::AppendEntries,
                &option,
                client.append_entries(message),
            )
            .await?;
        append_response_from_proto(response).map_err(|error| malformed(&error).into())
    }

    /// One bidirectional stream for as long as it works; the answers come in
    /// the order of the requests.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut client = self.client(self.purpose)?;
            let partition = self.partition;
            let sent = Arc::new(AtomicU64::new(0));
            let mut header = Some(self.header());
            let outgoing = input.map({
                let sent = sent.clone();
                move |request| {
                    sent.fetch_add(1, Ordering::Relaxed);
                    append_to_proto(&request, header.take(), partition)
                }
            });
            // The time to live of one heartbeat is too short for a connection
            // to be made in.
            let setup = RPCOption::new(option.hard_ttl().max(2 * limits::PEER_CONNECT_TIMEOUT));
            let opened = self
                .opened_within(
                    RPCTypes::AppendEntries,
                    &setup,
                    client.append_stream(outgoing),
                )
                .await;
            let incoming = match opened {
                Ok(incoming) => incoming,
                Err(error) => {
                    self.pause().await;
                    return Err(error);
                }
            };
            self.failures = 0;
            let answers = Answers {
                link: self,
                incoming,
                sent,
                received: 0,
                silent: false,
            };
            let answers = stream::unfold(Some(answers), |state| async move {
                let mut answers = state?;
                let answer = answers.next().await?;
                let go_on = matches!(answer, Ok(Ok(_))).then_some(answers);
                Some((answer, go_on))
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Control)?;
        let message = vote_request_to_proto(&request, self.header(), self.partition);
        let response = self
            .within(RPCTypes::Vote, &option, client.vote(message))
            .await?;
        vote_response_from_proto(response).map_err(|error| malformed(&error).into())
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Control)?;
        let message = vote_request_to_proto(&request, self.header(), self.partition);
        let response = self
            .within(RPCTypes::Vote, &option, client.pre_vote(message))
            .await?;
        vote_response_from_proto(response).map_err(|error| malformed(&error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client(Purpose::Snapshot)?;
        let start = peer::SnapshotStart {
            header: Some(self.header()),
            partition: self.partition,
            vote: Some(vote_to_proto(&vote)),
            meta: Some(snapshot_meta_to_proto(&snapshot.meta)),
            size_bytes: snapshot.snapshot.size_bytes(),
        };
        let start = peer::InstallSnapshotRequest {
            part: Some(peer::install_snapshot_request::Part::Start(start)),
        };
        let parts = chunks(snapshot.snapshot).map(|chunk| peer::InstallSnapshotRequest {
            part: Some(peer::install_snapshot_request::Part::Chunk(chunk)),
        });
        let call = client.install_snapshot(stream::once(async { start }).chain(parts));
        let limit = option.hard_ttl();
        let sent = async {
            match tokio::time::timeout(limit, call).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => {
                    self.note_answer(Some(&status));
                    let reason = status.message();
                    tracing::warn!(peer = self.target, reason, "a snapshot was not taken");
                    // openraft sends the whole snapshot again at once.
                    self.pause().await;
                    Err(unreachable(&status).into())
                }
                Err(_) => Err(self.timed_out(RPCTypes::InstallSnapshot, limit).into()),
            }
        };
        let response: peer::InstallSnapshotResponse = tokio::select! {
            closed = cancel => return Err(closed.into()),
            sent = sent => sent.map_err(|error: StreamingError<TypeConfig>| error)?,
        };
        self.failures = 0;
        let vote = vote_from_proto(response.vote).map_err(|error| malformed(&error))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Control)?;
        let message = peer::TransferLeaderRequest {
            header: Some(self.header()),
            partition: self.partition,
            from_leader: Some(vote_to_proto(request.from_leader())),
            to_node_id: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to_proto),
        };
        let response = self
            .within(
                RPCTypes::TransferLeader,
                &option,
                client.transfer_leader(message),
            )
            .await?;
        match response.refused {
            None => Ok(Ok(())),
            Some(refused) => transfer_refusal(refused)
                .map(Err)
                .map_err(|error| malformed(&error).into()),
        }
    }
}

fn transfer_refusal(
    refused: peer::transfer_leader_response::Refused,
) -> Result<openraft::raft::TransferLeaderError<TypeConfig>, PeerWireError> {
    use openraft::raft::TransferLeaderError;
    use peer::transfer_leader_response::Refused;
    Ok(match refused {
        Refused::VoteChanged(change) => TransferLeaderError::VoteChanged {
            expected: vote_from_proto(change.expected)?,
            actual: vote_from_proto(change.actual)?,
        },
        Refused::LogNotFlushed(state) => TransferLeaderError::LogNotFlushed {
            expected: optional_log_id(state.expected)?,
            actual: optional_log_id(state.actual)?,
        },
    })
}

/// The answers of an append stream.
struct Answers<'s> {
    link: &'s PeerLink,
    incoming: tonic::Streaming<peer::AppendEntriesResponse>,
    /// Requests handed to the transport so far.
    sent: Arc<AtomicU64>,
    /// Answers received so far.
    received: u64,
    /// A whole idle period has passed with answers outstanding.
    silent: bool,
}

impl Answers<'_> {
    /// The next answer; `None` at the stream's end.
    ///
    /// A stream has no deadline of its own: one that owes an answer and is
    /// silent for two idle periods is given up, so that replication starts
    /// anew on another.
    async fn next(
        &mut self,
    ) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        let idle = limits::PEER_STREAM_IDLE_TIMEOUT;
        loop {
            match tokio::time::timeout(idle, self.incoming.message()).await {
                Ok(Ok(Some(response))) => {
                    if self.received == 0 {
                        self.link.note_answer(None);
                    }
                    self.received += 1;
                    self.silent = false;
                    return Some(
                        stream_result_from_proto(response)
                            .map_err(|error| malformed(&error).into()),
                    );
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => {
                    self.link.note_answer(Some(&status));
                    return Some(Err(unreachable(&status).into()));
                }
                Err(_) => {
                    let owing = self.sent.load(Ordering::Relaxed) > self.received;
                    if owing && self.silent {
                        let timeout = self.link.timed_out(RPCTypes::AppendEntries, 2 * idle);
                        return Some(Err(timeout.into()));
                    }
                    self.silent = owing;
                }
            }
        }
    }
}

fn append_response_from_proto(
    response: peer::AppendEntriesResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, PeerWireError> {
    use peer::append_entries_response::Result as Wire;
    Ok(
        match response.result.ok_or(PeerWireError::Missing("result"))? {
            Wire::Matched(_) => AppendEntriesResponse::Success,
            Wire::Partial(log_id) => {
                AppendEntriesResponse::PartialSuccess(Some(log_id_from_proto(log_id)?))
            }
            Wire::Conflict(_) => AppendEntriesResponse::Conflict,
            Wire::HigherVote(vote) => {
                AppendEntriesResponse::HigherVote(vote_from_proto(Some(vote))?)
            }
        },
    )
}

pub(super) fn stream_result_from_proto(
    response: peer::AppendEntriesResponse,
) -> Result<StreamAppendResult<TypeConfig>, PeerWireError> {
    use peer::append_entries_response::Result as Wire;
    Ok(
        match response.result.ok_or(PeerWireError::Missing("result"))? {
            Wire::Matched(matched) => Ok(optional_log_id(matched.log_id)?),
            Wire::Partial(log_id) => Ok(Some(log_id_from_proto(log_id)?)),
            Wire::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_from_proto(log_id)?)),
            Wire::HigherVote(vote) => {
                Err(StreamAppendError::HigherVote(vote_from_proto(Some(vote))?))
            }
        },
    )
}
