//! `AdminService`: operating a cluster.

use std::sync::Arc;

use bytes::Bytes;
use huntlog_proto::v1;
use huntlog_proto::v1::admin_service_client::AdminServiceClient;
use huntlog_proto::v1::admin_service_server::AdminService;
use openraft::ServerState;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::context::{NodeContext, Route, ServedPartition};
use super::error::ApiError;
use super::forward::forward_unary;
use super::reading::{duration_to_proto, read_mark};
use super::replica_status::{MemberStatus, RaftStatus};
use super::status::Operation;
use crate::admin_http::{HealthState, Trouble, TroubleKind};
use crate::cluster::{others_in_service, transfer_leader};
use crate::raft::NodeId;
use crate::wire::{ReadLevel, cut, page, session_to_proto, timestamp_of_ms};

/// Serves `AdminService`.
pub struct AdminApi {
    pub(super) context: Arc<NodeContext>,
}

impl AdminApi {
    /// Serves it for `context`.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context }
    }

    async fn sessions(
        &self,
        request: v1::ListSessionsRequest,
        call: Call,
    ) -> Result<v1::ListSessionsResponse, ApiError> {
        let served = self.context.to_read(request.partition)?;
        let page = page(request.page_size, &request.page_token)?;
        read_mark(served, ReadLevel::Linearizable, &call).await?;
        let view = served.partition.replica().machine().view();
        let sessions = view
            .sessions(page.after.as_deref(), page.size + 1)
            .map(|session| session_to_proto(&session))
            .collect();
        let (sessions, next_page_token) = cut(sessions, page.size, |session| &session.session);
        Ok(v1::ListSessionsResponse {
            sessions,
            next_page_token,
        })
    }
}

impl AdminApi {
    /// Takes the node out of service, or back into it.
    async fn drain(&self, undo: bool) -> Result<v1::DrainNodeResponse, ApiError> {
        let context = &self.context;
        let back = || -> Result<(), ApiError> {
            context.return_to_service()?;
            context.health().resolve(TroubleKind::Draining, None);
            for served in context.partitions() {
                served.partition.step_back();
            }
            Ok(())
        };
        if undo {
            back()?;
        } else {
            // Asked first: a refusal ends nobody's subscription.
            let mut successors = Vec::new();
            for served in context.partitions().filter(|s| !s.partition.is_aside()) {
                let others = others_in_service(&served.partition, context.peers()).await?;
                successors.push((served, others));
            }
            context.leave_service()?;
            let told = "an operator has drained this node; use another one";
            context.health().report(TroubleKind::Draining, None, told);
            for (served, others) in successors {
                if let Err(error) = served.partition.step_aside(&others).await {
                    back()?;
                    return Err(error.into());
                }
            }
            // Streams that this node kept while it led are told once more.
            context.leave_service()?;
        }
        tracing::info!(undo, "an operator has drained this node, or undone it");
        Ok(v1::DrainNodeResponse {
            node_id: context.peers().identity().node_id,
            draining: context.is_draining(),
        })
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let identity = self.context.peers().identity();
        let health = self.context.health().state();
        let mut partitions = Vec::new();
        for served in self.context.partitions() {
            partitions.push(partition_status(served, &health).await);
        }
        Ok(Response::new(v1::GetStatusResponse {
            node_id: identity.node_id,
            node_uuid: identity.node_uuid,
            cluster_name: identity.cluster_name,
            cluster_id: identity.cluster_id,
            version: self.context.info().version.clone(),
            partitions,
            draining: self.context.is_draining(),
            feature_level_min: identity.levels.min,
            feature_level_max: identity.levels.max,
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let refused = |error: ApiError| error.into_status(Operation::Write);
        let call = Call::new(request.metadata());
        let request = request.into_inner();
        let served = self.context.to_write(request.partition).map_err(refused)?;
        match served.route(call.forwarded).map_err(refused)? {
            Route::Local => {
                let to = (request.to_node_id != 0).then_some(request.to_node_id);
                let transfer = transfer_leader(&served.partition, self.context.peers(), to);
                let leader_id = tokio::time::timeout_at(call.deadline, transfer)
                    .await
                    .map_err(|_| refused(ApiError::Deadline))?
                    .map_err(|error| refused(error.into()))?;
                Ok(Response::new(v1::TransferLeaderResponse {
                    leader_id,
                    term: RaftStatus::of(&served.partition).term,
                }))
            }
            Route::Forward(leader) => {
                forward_unary(
                    &self.context,
                    &served.metrics,
                    &leader,
                    &call,
                    request,
                    async |channel, request| {
                        AdminServiceClient::new(channel)
                            .transfer_leader(request)
                            .await
                    },
                )
                .await
            }
        }
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let refused = |error: ApiError| error.into_status(Operation::Write);
        let call = Call::new(request.metadata());
        let served = self
            .context
            .to_write(request.get_ref().partition)
            .map_err(refused)?;
        let taken = served
            .partition
            .take_snapshot(call.time_left())
            .await
            .map_err(|error| refused(error.into()))?;
        Ok(Response::new(v1::TakeSnapshotResponse {
            log_index: taken.log_index,
            size_bytes: taken.size_bytes,
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let call = Call::new(request.metadata());
        self.sessions(request.into_inner(), call)
            .await
            .map(Response::new)
            .map_err(|error| error.into_status(Operation::Read))
    }

    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        let call = Call::new(request.metadata());
        self.init(request.into_inner(), call)
            .await
            .map(Response::new)
            .map_err(|error| error.into_status(Operation::Write))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let call = Call::new(request.metadata());
        self.list(request.into_inner(), call).await
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let call = Call::new(request.metadata());
        self.add(request.into_inner(), call).await
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        let call = Call::new(request.metadata());
        self.promote(request.into_inner(), call).await
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        self.drain(request.into_inner().undo)
            .await
            .map(Response::new)
            .map_err(|error| error.into_status(Operation::Write))
    }

    async fn finalize_upgrade(
        &self,
        request: Request<v1::FinalizeUpgradeRequest>,
    ) -> Result<Response<v1::FinalizeUpgradeResponse>, Status> {
        let call = Call::new(request.metadata());
        self.finalize(request.into_inner(), call).await
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let call = Call::new(request.metadata());
        self.remove(request.into_inner(), call).await
    }
}

async fn partition_status(served: &ServedPartition, health: &HealthState) -> v1::PartitionStatus {
    let partition = &served.partition;
    let raft = RaftStatus::of(partition);
    let contact = if raft.leads() {
        None
    } else {
        served.contact.since(partition).await
    };
    let replica = partition.replica();
    let log = replica.log();
    // Taken under one lock, so that they belong together.
    let view = replica.machine().view();
    let digest = view.digest();
    v1::PartitionStatus {
        partition: partition.id(),
        role: role_to_proto(raft.state).into(),
        term: raft.term,
        leader_id: raft.leader.unwrap_or(0),
        ready: is_ready(partition.id(), health),
        members: raft.members.into_iter().map(member_to_proto).collect(),
        last_log_index: raft.last_log_index,
        durable_log_index: log.durable_index().unwrap_or(0),
        committed_log_index: raft.committed_log_index,
        applied_log_index: view.last_applied().map_or(0, |id| id.index),
        snapshot_log_index: raft.snapshot_log_index,
        first_log_index: log.history_start(),
        end_offset: view.end_offset(),
        log_time: Some(timestamp_of_ms(view.time_ms())),
        sessions: view.session_count(),
        hunts: view.hunt_count(),
        digest: digest.map_or_else(Bytes::new, |check| Bytes::copy_from_slice(&check.digest.0)),
        digest_log_index: digest.map_or(0, |check| check.index),
        since_leader_contact: contact.and_then(duration_to_proto),
        feature_level: view.level(),
    }
}

/// A member, with what is known of it here.
pub(super) fn member_to_proto((node_id, member): (NodeId, MemberStatus)) -> v1::Member {
    v1::Member {
        node_id,
        node_uuid: member.node.uuid,
        client_address: member.node.client_address,
        peer_address: member.node.peer_address,
        voter: member.voter,
        matched_log_index: member.matched_log_index,
        since_contact: member.since_contact.and_then(duration_to_proto),
        draining: member.aside,
    }
}

/// What `/readyz` says, as far as it is about this partition.
fn is_ready(partition: u32, health: &HealthState) -> bool {
    let concerns = |trouble: &Trouble| trouble.partition.is_none_or(|of| of == partition);
    health.is_live() && !health.troubles.keys().any(concerns)
}

fn role_to_proto(state: ServerState) -> v1::Role {
    match state {
        ServerState::Leader => v1::Role::Leader,
        ServerState::Follower => v1::Role::Follower,
        ServerState::Candidate => v1::Role::Candidate,
        ServerState::Learner => v1::Role::Learner,
        ServerState::Shutdown => v1::Role::Unspecified,
    }
}
