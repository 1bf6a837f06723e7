//! The client: the way to sessions, reads, and the state of hunts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use huntlog_proto::v1;
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status};

use crate::cluster::{Attempt, Cluster, Repeat};
use crate::error::{CallError, ConfigError};
use crate::lane::{CongestionWindow, Control, Lane, LaneHandle};
use crate::options::{ClientOptions, SessionOptions};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::subscription::{Start, Subscription};

/// A client of one cluster. Cloning it is cheap and shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    lanes: Arc<[LaneHandle]>,
    buffer: Arc<Semaphore>,
}

impl Client {
    /// A client of the cluster that these nodes, given as `host:port`, belong
    /// to. Connects when there is something to do, to any node that answers,
    /// and learns from it where the leader is and who else belongs to the
    /// cluster. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When an endpoint is not an address, or an option cannot work.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: ClientOptions,
    ) -> Result<Self, ConfigError> {
        let cluster = Arc::new(Cluster::new(endpoints, options)?);
        let window = Arc::new(CongestionWindow::new(cluster.options.connections));
        let lanes = (0..cluster.options.connections)
            .map(|_| Lane::spawn(Arc::clone(&cluster), Arc::clone(&window)))
            .collect();
        if cluster.options.follow_leader {
            tokio::spawn(Cluster::follow_members(Arc::downgrade(&cluster)));
        }
        let buffer = Arc::new(Semaphore::new(cluster.options.max_buffered_bytes));
        Ok(Self {
            cluster,
            lanes,
            buffer,
        })
    }

    /// Opens a named session, which fences every earlier producer of that name
    /// wherever it runs.
    ///
    /// # Errors
    /// When no node opens it in time, the name is refused, or this client has
    /// it open already.
    pub async fn session(&self, name: &str) -> Result<Producer, CallError> {
        self.session_with(name, SessionOptions::default()).await
    }

    /// The same with other than the default options.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn session_with(
        &self,
        name: &str,
        options: SessionOptions,
    ) -> Result<Producer, CallError> {
        let name: Arc<str> = name.into();
        let lane = self.lane_of(&name);
        let (reply, opened) = oneshot::channel();
        let control = Control::Open {
            name: Arc::clone(&name),
            options,
            reply,
        };
        lane.control.send(control).map_err(|_| CallError::Closed)?;
        let (slot, opened) = opened.await.map_err(|_| CallError::Closed)??;
        let buffer = Arc::clone(&self.buffer);
        Ok(Producer::new(name, slot, opened, lane.clone(), buffer))
    }

    fn lane_of(&self, session: &str) -> &LaneHandle {
        let mut hasher = DefaultHasher::new();
        session.hash(&mut hasher);
        let lane = hasher.finish() % self.lanes.len() as u64;
        &self.lanes[usize::try_from(lane).expect("below the number of lanes")]
    }

    /// Reads history from `request.from_offset` on. Goes on at another node
    /// where one breaks off.
    #[must_use]
    pub fn read(&self, request: v1::ReadRequest) -> Reader {
        Reader::new(Arc::clone(&self.cluster), request)
    }

    /// Follows the log. Goes on at another node where one breaks off, without
    /// a gap and without a duplicate.
    #[must_use]
    pub fn subscribe(&self, start: Start, filter: Option<v1::Filter>) -> Subscription {
        Subscription::new(Arc::clone(&self.cluster), start, filter)
    }

    /// The nodes given and learned so far, as `host:port`.
    #[must_use]
    pub fn known_nodes(&self) -> Vec<String> {
        let addresses = self.cluster.addresses();
        addresses.iter().map(ToString::to_string).collect()
    }

    /// The partition all calls are for.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.cluster.options.partition
    }

    /// How long a call, or a batch, may take over all its attempts.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.cluster.options.timeout
    }

    /// A hunt's state and definition. Whatever partition a request names, it is
    /// asked of [the client's](Self::partition), here as in the calls below.
    ///
    /// # Errors
    /// NOT_FOUND, or no answer in time.
    pub async fn hunt(
        &self,
        mut request: v1::GetHuntRequest,
    ) -> Result<v1::GetHuntResponse, CallError> {
        request.partition = self.partition();
        self.ask(Repeat::Idempotent, request, |attempt, request| async move {
            attempt.hunts().get_hunt(request).await
        })
        .await
    }

    /// One page of the hunts.
    ///
    /// # Errors
    /// No answer in time, or a page size out of range.
    pub async fn hunts(
        &self,
        mut request: v1::ListHuntsRequest,
    ) -> Result<v1::ListHuntsResponse, CallError> {
        request.partition = self.partition();
        self.ask(Repeat::Idempotent, request, |attempt, request| async move {
            attempt.hunts().list_hunts(request).await
        })
        .await
    }

    /// One player of a hunt.
    ///
    /// # Errors
    /// NOT_FOUND, or no answer in time.
    pub async fn player(
        &self,
        mut request: v1::GetPlayerRequest,
    ) -> Result<v1::GetPlayerResponse, CallError> {
        request.partition = self.partition();
        self.ask(Repeat::Idempotent, request, |attempt, request| async move {
            attempt.hunts().get_player(request).await
        })
        .await
    }

    /// One page of a hunt's scoreboard.
    ///
    /// # Errors
    /// NOT_FOUND, a page size out of range, or no answer in time.
    pub async fn scoreboard(
        &self,
        mut request: v1::GetScoreboardRequest,
    ) -> Result<v1::GetScoreboardResponse, CallError> {
        request.partition = self.partition();
        self.ask(Repeat::Idempotent, request, |attempt, request| async move {
            attempt.hunts().get_scoreboard(request).await
        })
        .await
    }

    /// Sends `message` until a node answers it, within the client's time-out.
    async fn ask<Q, A, F>(
        &self,
        repeat: Repeat,
        message: Q,
        send: impl Fn(Attempt, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let timeout = self.cluster.options.timeout;
        self.cluster
            .call(timeout, repeat, |attempt| {
                let request = attempt.request(message.clone());
                send(attempt, request)
            })
            .await
    }

    /// What the node that answers knows of itself and its cluster. To ask a
    /// certain node, use a client of that endpoint alone with
    /// [`ClientOptions::follow_leader`] off.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn status(&self) -> Result<v1::GetStatusResponse, CallError> {
        self.ask(
            Repeat::Idempotent,
            v1::GetStatusRequest {},
            |attempt, request| async move { attempt.admin().get_status(request).await },
        )
        .await
    }

    /// One page of the sessions.
    ///
    /// # Errors
    /// No answer in time, or a page size out of range.
    pub async fn sessions(
        &self,
        request: v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse, CallError> {
        self.ask(Repeat::Idempotent, request, |attempt, request| async move {
            attempt.admin().list_sessions(request).await
        })
        .await
    }

    /// Hands leadership over, to the most up-to-date follower when
    /// `to_node_id` is 0.
    ///
    /// # Errors
    /// Refused, or no answer; an attempt that may have had an effect is not
    /// repeated unless a node is named.
    pub async fn transfer_leader(
        &self,
        to_node_id: u64,
    ) -> Result<v1::TransferLeaderResponse, CallError> {
        let message = v1::TransferLeaderRequest {
            partition: self.partition(),
            to_node_id,
        };
        // Who leads already is handed nothing; another follower each time would
        // be.
        let repeat = match to_node_id {
            0 => Repeat::OnlyIfNotApplied,
            _ => Repeat::Idempotent,
        };
        self.ask(repeat, message, |attempt, request| async move {
            attempt.admin().transfer_leader(request).await
        })
        .await
    }

    /// Forms a cluster of nodes that wait for one; safe to repeat. Ask the node
    /// with the lowest id: another names it.
    ///
    /// # Errors
    /// Refused, or no answer in time.
    pub async fn init_cluster(
        &self,
        members: Vec<v1::NodeAddress>,
    ) -> Result<v1::InitClusterResponse, CallError> {
        let message = v1::InitClusterRequest { members };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().init_cluster(request).await
        })
        .await
    }

    /// The members, as the leader knows them.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn members(&self) -> Result<v1::ListMembersResponse, CallError> {
        let message = v1::ListMembersRequest {
            partition: self.partition(),
        };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().list_members(request).await
        })
        .await
    }

    /// Makes a waiting node a learner; safe to repeat.
    ///
    /// # Errors
    /// Refused, no answer in time, or written and not known to be in force
    /// ([`Reason::ChangeUnfinished`](crate::Reason::ChangeUnfinished)).
    pub async fn add_member(
        &self,
        node: v1::NodeAddress,
    ) -> Result<v1::AddMemberResponse, CallError> {
        let message = v1::AddMemberRequest {
            partition: self.partition(),
            node: Some(node),
        };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().add_member(request).await
        })
        .await
    }

    /// Makes a learner a voter, waiting within the client's time-out until it
    /// has caught up; safe to repeat.
    ///
    /// # Errors
    /// As [`Self::add_member`].
    pub async fn promote_member(
        &self,
        node_id: u64,
        force: bool,
    ) -> Result<v1::PromoteMemberResponse, CallError> {
        let message = v1::PromoteMemberRequest {
            partition: self.partition(),
            node_id,
            force,
        };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().promote_member(request).await
        })
        .await
    }

    /// Removes a member for ever; safe to repeat.
    ///
    /// # Errors
    /// As [`Self::add_member`].
    pub async fn remove_member(
        &self,
        node_id: u64,
        force: bool,
    ) -> Result<v1::RemoveMemberResponse, CallError> {
        let message = v1::RemoveMemberRequest {
            partition: self.partition(),
            node_id,
            force,
        };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().remove_member(request).await
        })
        .await
    }

    /// Takes the node that answers out of service, or back with `undo`; to
    /// mean a certain node, use a client of that endpoint alone with
    /// [`ClientOptions::follow_leader`] off. Safe to repeat.
    ///
    /// # Errors
    /// Refused, or no answer in time.
    pub async fn drain_node(&self, undo: bool) -> Result<v1::DrainNodeResponse, CallError> {
        let message = v1::DrainNodeRequest { undo };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().drain_node(request).await
        })
        .await
    }

    /// Ends an upgrade: puts the highest feature level in force that any member
    /// reads, once all read it. There is no way back. Safe to repeat.
    ///
    /// # Errors
    /// Refused, with the members that do not answer or do not read it, or no
    /// answer in time.
    pub async fn finalize_upgrade(&self) -> Result<v1::FinalizeUpgradeResponse, CallError> {
        let message = v1::FinalizeUpgradeRequest {
            partition: self.partition(),
        };
        self.ask(Repeat::Idempotent, message, |attempt, request| async move {
            attempt.admin().finalize_upgrade(request).await
        })
        .await
    }

    /// Takes a snapshot on the node that answers.
    ///
    /// # Errors
    /// Refused, or no answer; an attempt that may have had an effect is not
    /// repeated.
    pub async fn take_snapshot(&self) -> Result<v1::TakeSnapshotResponse, CallError> {
        let timeout = self.cluster.options.timeout;
        let message = v1::TakeSnapshotRequest {
            partition: self.partition(),
        };
        self.cluster
            .call(timeout, Repeat::OnlyIfNotApplied, |attempt| {
                let request = attempt.request(message);
                async move { attempt.admin().take_snapshot(request).await }
            })
            .await
    }
}
