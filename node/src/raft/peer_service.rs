//! The follower's and voter's side of the peer protocol: what a node does with
//! its peers' Raft messages for one partition. Whose messages they are has been
//! checked by then.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use huntlog_planted::{Bug, is_planted};
use huntlog_proto::peer;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest,
};
use tokio::sync::{Semaphore, watch};
use tonic::{Status, Streaming};

use super::in_flight::InFlight;
use super::peer_wire::{
    PeerWireError, append_from_proto, log_id_to_proto, optional_log_id, snapshot_from_proto,
    vote_from_proto, vote_request_from_proto, vote_response_to_proto, vote_to_proto,
};
use super::snapshot::SnapshotReception;
use super::{Entry, LogId, Payload, Raft, Snapshot, TypeConfig, Vote};
use crate::limits;

/// One partition's Raft group, as its peers reach it.
#[derive(Clone)]
pub struct PeerRaft {
    raft: Raft,
    snapshots: huntlog_storage::SnapshotStore,
    partition: u32,
    /// Places for snapshots being received.
    installs: Arc<Semaphore>,
    /// The connection that the leader was heard on last, for who wants to know when
    /// it ends; `None` until there was one.
    leader: watch::Sender<Option<LeaderConnection>>,
}

/// The connection that a leader was heard on last.
#[derive(Debug, Clone)]
pub struct LeaderConnection {
    /// The vote that the leader leads by.
    pub vote: Vote,
    /// Its sender is dropped with the connection.
    pub end: watch::Receiver<()>,
}

impl LeaderConnection {
    /// Whether this is to be watched in the place of `known`: a later leader, or
    /// another connection. What a deposed leader still sends says nothing of the
    /// leader.
    fn replaces(&self, known: &Self) -> bool {
        let deposed = self.vote < known.vote;
        let same = self.vote == known.vote && self.end.same_channel(&known.end);
        !deposed && !same
    }
}

impl PeerRaft {
    /// Serves `raft`, receiving snapshots into `snapshots`.
    pub fn new(raft: Raft, snapshots: huntlog_storage::SnapshotStore, partition: u32) -> Self {
        Self {
            raft,
            snapshots,
            partition,
            installs: Arc::new(Semaphore::new(limits::SNAPSHOT_INSTALLS_MAX)),
            leader: watch::Sender::new(None),
        }
    }

    /// Follows which connection the leader was heard on last.
    pub fn leader_connection(&self) -> watch::Receiver<Option<LeaderConnection>> {
        self.leader.subscribe()
    }

    fn heard_on(&self, connection: LeaderConnection) {
        self.leader.send_if_modified(|known| {
            let new = known
                .as_ref()
                .is_none_or(|known| connection.replaces(known));
            if new {
                *known = Some(connection);
            }
            new
        });
    }

    /// Refuses a term that no election has led to: a term is never gone back from,
    /// so that a wrong one would stay.
    fn check_term(&self, vote: &Vote) -> Result<(), Status> {
        let own = self.raft.metrics().borrow_watched().current_term;
        let term = vote.leader_id.term;
        if term > own.saturating_add(limits::TERM_AHEAD_MAX) {
            return Err(invalid(PeerWireError::Impossible(format!(
                "term {term} is too far ahead of {own}, this node's"
            ))));
        }
        Ok(())
    }

    /// Answers one AppendEntries.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a message that does not parse or can not be true,
    /// INTERNAL when Raft has stopped.
    pub async fn append_entries(
        &self,
        request: peer::AppendEntriesRequest,
    ) -> Result<peer::AppendEntriesResponse, Status> {
        let request = append_from_proto(request).map_err(invalid)?;
        self.check_term(&request.vote)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let response = self
            .raft
            .append_entries(request)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(append_response_to_proto(response, prev, last))
    }

    /// Answers a stream of AppendEntries, in order, until one does not match. What
    /// is replicated comes so, and each heartbeat. `connection` ends with the
    /// connection of the stream.
    pub fn append_stream(
        &self,
        mut connection: Option<watch::Receiver<()>>,
        first: peer::AppendEntriesRequest,
        rest: impl Stream<Item = Result<peer::AppendEntriesRequest, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<peer::AppendEntriesResponse, Status>> {
        let in_flight = InFlight::new(limits::REPLICATION_IN_FLIGHT_BYTES_MAX);
        // A message that does not parse, or a broken connection, ends the
        // stream: the leader opens another.
        let this = self.clone();
        let requests = futures::stream::once(async { Ok(first) })
            .chain(rest)
            .map(move |message| {
                let request = append_from_proto(message.ok()?).map_err(invalid);
                let checked = request.and_then(|request| {
                    this.check_term(&request.vote)?;
                    if let Some(end) = connection.take() {
                        let vote = request.vote;
                        this.heard_on(LeaderConnection { vote, end });
                    }
                    Ok(request)
                });
                match checked {
                    Ok(request) => Some(request),
                    Err(status) => {
                        let reason = status.message();
                        tracing::warn!(reason, "the leader's entries can not be taken");
                        None
                    }
                }
            })
            .then({
                let in_flight = in_flight.clone();
                move |request| take_room(in_flight.clone(), request)
            })
            .take_while(|request| std::future::ready(request.is_some()))
            .filter_map(std::future::ready);
        let answers = in_flight.answers();
        self.raft
            .stream_append(requests)
            .map(move |result| {
                answers.answered();
                match result {
                    Ok(result) => Ok(stream_result_to_proto(result)),
                    Err(fatal) => Err(stopped(&fatal)),
                }
            })
            .boxed()
    }

    /// Answers a candidate.
    ///
    /// # Errors
    /// As [`Self::append_entries`].
    pub async fn vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        let request = vote_request_from_proto(request).map_err(invalid)?;
        self.check_term(&request.vote)?;
        let response = self.raft.vote(request).await.map_err(|e| stopped(&e))?;
        Ok(vote_response_to_proto(&response))
    }

    /// Answers one who asks whether it could win an election.
    ///
    /// # Errors
    /// As [`Self::append_entries`].
    pub async fn pre_vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        let request = vote_request_from_proto(request).map_err(invalid)?;
        self.check_term(&request.vote)?;
        let response = self.raft.pre_vote(request).await.map_err(|e| stopped(&e))?;
        Ok(vote_response_to_proto(&response))
    }

    /// Receives a snapshot into a file beside the others, verifies it, and
    /// installs it. Memory is bounded by a few chunks.
    ///
    /// # Errors
    /// As [`Self::append_entries`]; DATA_LOSS for a snapshot that does not
    /// verify.
    pub async fn install_snapshot(
        &self,
        start: peer::SnapshotStart,
        mut parts: Streaming<peer::InstallSnapshotRequest>,
    ) -> Result<peer::InstallSnapshotResponse, Status> {
        let _place = self.installs.try_acquire().map_err(|_| {
            Status::resource_exhausted("another snapshot is being received; retry later")
        })?;
        let (meta, vote) = snapshot_from_proto(start.meta, start.vote).map_err(invalid)?;
        self.check_term(&vote)?;
        let mut reception =
            SnapshotReception::start(&self.snapshots, self.partition, start.size_bytes)?;
        loop {
            let message = tokio::time::timeout(limits::SNAPSHOT_IDLE_TIMEOUT, parts.message())
                .await
                .map_err(|_| Status::deadline_exceeded("the snapshot's sender went silent"))??;
            let Some(message) = message else { break };
            match message.part {
                Some(peer::install_snapshot_request::Part::Chunk(chunk)) => {
                    reception.write(chunk).await?;
                }
                _ => return Err(invalid(PeerWireError::Missing("chunk"))),
            }
        }
        let snapshot = reception.finish(&meta)?;
        let response = self
            .raft
            .install_full_snapshot(vote, Snapshot { meta, snapshot })
            .await
            .map_err(|error| stopped(&error))?;
        Ok(peer::InstallSnapshotResponse {
            vote: Some(vote_to_proto(&response.vote)),
        })
    }

    /// Takes up, or refuses, the leadership that the leader hands over.
    ///
    /// # Errors
    /// As [`Self::append_entries`].
    pub async fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, Status> {
        use peer::transfer_leader_response::Refused;
        let from_leader = vote_from_proto(request.from_leader).map_err(invalid)?;
        self.check_term(&from_leader)?;
        let request = TransferLeaderRequest::new(
            from_leader,
            request.to_node_id,
            optional_log_id(request.last_log_id).map_err(invalid)?,
        );
        let outcome = self
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(|error| stopped(&error))?;
        let refused = outcome.err().map(|refusal| match refusal {
            TransferLeaderError::VoteChanged { expected, actual } => {
                Refused::VoteChanged(peer::VoteChanged {
                    expected: Some(vote_to_proto(&expected)),
                    actual: Some(vote_to_proto(&actual)),
                })
            }
            TransferLeaderError::LogNotFlushed { expected, actual } => {
                Refused::LogNotFlushed(peer::LogNotFlushed {
                    expected: expected.as_ref().map(log_id_to_proto),
                    actual: actual.as_ref().map(log_id_to_proto),
                })
            }
        });
        Ok(peer::TransferLeaderResponse { refused })
    }

    /// The read index, if this node leads: confirmed by a quorum after the call
    /// began (Raft dissertation, section 6.4).
    ///
    /// # Errors
    /// UNAVAILABLE when this node does not lead or reaches no quorum.
    pub async fn read_index(&self) -> Result<peer::ReadIndexResponse, Status> {
        if is_planted(Bug::DeposedLeaderReads)
            && let Some(applied) = self.raft.metrics().borrow_watched().last_applied
        {
            return Ok(peer::ReadIndexResponse {
                read_log_id: Some(log_id_to_proto(&applied)),
            });
        }
        let limit = limits::READ_INDEX_TIMEOUT;
        let linearizer =
            tokio::time::timeout(limit, self.raft.get_read_linearizer(ReadPolicy::ReadIndex))
                .await
                .map_err(|_| Status::unavailable("no quorum confirmed this leader in time; retry"))?
                .map_err(|error| Status::unavailable(format!("no read index: {error}; retry")))?;
        Ok(peer::ReadIndexResponse {
            read_log_id: Some(log_id_to_proto(linearizer.read_log_id().log_id())),
        })
    }
}

/// Waits until there is room for the entries of `request`.
async fn take_room(
    in_flight: InFlight,
    request: Option<AppendEntriesRequest<TypeConfig>>,
) -> Option<AppendEntriesRequest<TypeConfig>> {
    let request = request?;
    let payload_bytes = |entry: &Entry| match &entry.payload {
        Payload::Normal(data) => data.0.len(),
        // Small, and rare.
        Payload::Blank | Payload::Membership(_) => 0,
    };
    let bytes = request.entries.iter().map(payload_bytes).sum();
    in_flight.take(bytes).await?;
    Some(request)
}

fn invalid(error: PeerWireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &impl std::fmt::Display) -> Status {
    Status::internal(format!("this node's Raft has stopped: {error}"))
}

fn append_response_to_proto(
    response: AppendEntriesResponse<TypeConfig>,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> peer::AppendEntriesResponse {
    use peer::append_entries_response::Result as Wire;
    let result = match response {
        AppendEntriesResponse::PartialSuccess(Some(log_id)) => {
            Wire::Partial(log_id_to_proto(&log_id))
        }
        // A prefix of nothing is what the leader probes with.
        AppendEntriesResponse::PartialSuccess(None) => {
            Wire::Matched(peer::Matched { log_id: None })
        }
        other => return stream_result_to_proto(other.into_stream_result(prev, last)),
    };
    peer::AppendEntriesResponse {
        result: Some(result),
    }
}

fn stream_result_to_proto(result: StreamAppendResult<TypeConfig>) -> peer::AppendEntriesResponse {
    use peer::append_entries_response::Result as Wire;
    let result = match result {
        Ok(log_id) => Wire::Matched(peer::Matched {
            log_id: log_id.as_ref().map(log_id_to_proto),
        }),
        Err(StreamAppendError::Conflict(log_id)) => Wire::Conflict(log_id_to_proto(&log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_proto(&vote)),
    };
    peer::AppendEntriesResponse {
        result: Some(result),
    }
}

#[cfg(test)]
mod tests {
    use openraft::impls::leader_id_adv::LeaderId;

    use super::*;

    #[test]
    fn a_deposed_leader_s_connection_is_not_watched() {
        let vote = |term, node_id| Vote {
            leader_id: LeaderId { term, node_id },
            committed: true,
        };
        let (_first, end) = watch::channel(());
        let (_second, other) = watch::channel(());
        let heard = |vote, end: &watch::Receiver<()>| LeaderConnection {
            vote,
            end: end.clone(),
        };
        let known = heard(vote(2, 1), &end);
        assert!(!heard(vote(2, 1), &end).replaces(&known), "nothing is new");
        assert!(heard(vote(2, 1), &other).replaces(&known), "it reconnected");
        assert!(heard(vote(3, 2), &other).replaces(&known), "it is later");
        assert!(!heard(vote(1, 3), &other).replaces(&known), "it is deposed");
    }
}
