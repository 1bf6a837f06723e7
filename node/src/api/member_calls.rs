//! The part of `AdminService` that forms a cluster and changes its members.

use std::collections::BTreeMap;

use huntlog_proto::v1;
use huntlog_proto::v1::admin_service_client::AdminServiceClient;
use openraft::async_runtime::WatchReceiver as _;
use tonic::{Response, Status};

use super::admin_service::{AdminApi, member_to_proto};
use super::call::Call;
use super::context::{Route, ServedPartition, ServingState};
use super::error::ApiError;
use super::forward::{Leader, forward_unary};
use super::replica_status::RaftStatus;
use super::status::Operation;
use crate::cluster::{Change, Initialized, MemberError};
use crate::limits;
use crate::raft::{MemberNode, NodeId};
use crate::wire::{members_from_proto, node_from_proto};

type Answer<T> = Result<Response<T>, Status>;

fn refused(error: impl Into<ApiError>) -> Status {
    error.into().into_status(Operation::Write)
}

fn members(served: &ServedPartition) -> Vec<v1::Member> {
    RaftStatus::of(&served.partition)
        .members
        .into_iter()
        .map(member_to_proto)
        .collect()
}

fn member(served: &ServedPartition, id: NodeId) -> Option<v1::Member> {
    members(served)
        .into_iter()
        .find(|member| member.node_id == id)
}

/// Members and their addresses, as `cluster init` takes them.
fn in_words(members: &BTreeMap<NodeId, MemberNode>) -> String {
    let words = members
        .iter()
        .map(|(id, node)| format!("{id}={},{}", node.peer_address, node.client_address));
    words.collect::<Vec<_>>().join(" ")
}

impl AdminApi {
    pub(super) async fn init(
        &self,
        request: v1::InitClusterRequest,
        call: Call,
    ) -> Result<v1::InitClusterResponse, ApiError> {
        let listed = members_from_proto(request.members)?;
        let changer = self.context.changer()?;
        let initialized = if listed.is_empty() {
            Initialized::Before
        } else {
            changer.state().init(&listed).await?
        };
        let (already_formed, warnings) = match initialized {
            Initialized::Now(warnings) => (false, warnings),
            Initialized::Before => (true, Vec::new()),
        };
        let served = tokio::time::timeout_at(call.deadline, self.formed())
            .await
            .map_err(|_| match changer.state().identity().formed() {
                true => ApiError::Deadline,
                false => ApiError::NotFormed,
            })??;
        let present = served.partition.committed_members().nodes;
        if already_formed && !listed.is_empty() && in_words(&listed) != in_words(&present) {
            return Err(ApiError::MembersDiffer {
                listed: in_words(&listed),
                present: in_words(&present),
            });
        }
        Ok(v1::InitClusterResponse {
            cluster_id: self.context.peers().identity().cluster_id,
            already_formed,
            members: members(served),
            warnings,
        })
    }

    /// Waits until the cluster has its first membership and a leader.
    async fn formed(&self) -> Result<&ServedPartition, ApiError> {
        let mut serving = self.context.serving();
        serving
            .wait_for(|state| *state != ServingState::Starting)
            .await
            .map_err(|_| ApiError::Dropped)?;
        let served = self.context.partitions().next().ok_or(ApiError::Starting)?;
        let mut metrics = served.partition.raft().server_metrics();
        loop {
            let led = metrics.borrow_watched().current_leader.is_some();
            if led && !served.partition.committed_members().nodes.is_empty() {
                return Ok(served);
            }
            metrics.changed().await.map_err(|_| ApiError::Dropped)?;
        }
    }

    pub(super) async fn list(
        &self,
        request: v1::ListMembersRequest,
        call: Call,
    ) -> Answer<v1::ListMembersResponse> {
        let refused = |error: ApiError| error.into_status(Operation::Read);
        let served = self.context.to_read(request.partition).map_err(refused)?;
        if let Route::Forward(leader) = served.route(call.forwarded).map_err(refused)? {
            let send = async |channel, request| {
                AdminServiceClient::new(channel).list_members(request).await
            };
            return self.forward(served, &leader, &call, request, send).await;
        }
        let partition = &served.partition;
        let effective = partition.effective_members();
        let committed = partition.committed_members();
        Ok(Response::new(v1::ListMembersResponse {
            leader_id: self.context.peers().identity().node_id,
            members: members(served),
            last_log_index: partition.leader_view().unwrap_or_default().last_log_index,
            change_in_progress: effective.joint || effective.log_id != committed.log_id,
            retired_node_ids: effective
                .retired
                .iter()
                .copied()
                .filter(|id| !effective.nodes.contains_key(id))
                .collect(),
        }))
    }

    pub(super) async fn add(
        &self,
        request: v1::AddMemberRequest,
        call: Call,
    ) -> Answer<v1::AddMemberResponse> {
        let served = self.context.to_write(request.partition).map_err(refused)?;
        let (id, node) = node_from_proto(request.node.clone()).map_err(refused)?;
        if let Route::Forward(leader) = served.route(call.forwarded).map_err(refused)? {
            let send =
                async |channel, request| AdminServiceClient::new(channel).add_member(request).await;
            return self.forward(served, &leader, &call, request, send).await;
        }
        let changer = self.context.changer().map_err(refused)?;
        let added = changer.add(&served.partition, id, node);
        let added = within(&call, added).await?;
        Ok(Response::new(v1::AddMemberResponse {
            member: member(served, id),
            already_done: added.change == Change::AlreadyMade,
            warnings: added.warnings,
        }))
    }

    pub(super) async fn promote(
        &self,
        request: v1::PromoteMemberRequest,
        call: Call,
    ) -> Answer<v1::PromoteMemberResponse> {
        let served = self.context.to_write(request.partition).map_err(refused)?;
        if let Route::Forward(leader) = served.route(call.forwarded).map_err(refused)? {
            let send = async |channel, request| {
                AdminServiceClient::new(channel)
                    .promote_member(request)
                    .await
            };
            return self.forward(served, &leader, &call, request, send).await;
        }
        let changer = self.context.changer().map_err(refused)?;
        let id = request.node_id;
        let promoted = changer.promote(&served.partition, id, request.force);
        let change = within(&call, promoted).await?;
        Ok(Response::new(v1::PromoteMemberResponse {
            member: member(served, id),
            already_done: change == Change::AlreadyMade,
        }))
    }

    pub(super) async fn remove(
        &self,
        request: v1::RemoveMemberRequest,
        call: Call,
    ) -> Answer<v1::RemoveMemberResponse> {
        let served = self.context.to_write(request.partition).map_err(refused)?;
        let send = async |channel, request| {
            AdminServiceClient::new(channel)
                .remove_member(request)
                .await
        };
        if let Route::Forward(leader) = served.route(call.forwarded).map_err(refused)? {
            return self.forward(served, &leader, &call, request, send).await;
        }
        let changer = self.context.changer().map_err(refused)?;
        let removed = changer.remove(&served.partition, request.node_id, request.force);
        let removed = tokio::time::timeout_at(call.deadline, removed).await;
        let change = match removed.map_err(|_| refused(ApiError::Deadline))? {
            // A second hop at most: the one who leads now is not the one to be
            // removed.
            Err(MemberError::HandedOver { leader, node }) => {
                let leader = Leader { id: leader, node };
                return self.forward(served, &leader, &call, request, send).await;
            }
            removed => removed.map_err(refused)?,
        };
        Ok(Response::new(v1::RemoveMemberResponse {
            already_done: change == Change::AlreadyMade,
            members: members(served),
        }))
    }

    pub(super) async fn finalize(
        &self,
        request: v1::FinalizeUpgradeRequest,
        call: Call,
    ) -> Answer<v1::FinalizeUpgradeResponse> {
        let served = self.context.to_write(request.partition).map_err(refused)?;
        if let Route::Forward(leader) = served.route(call.forwarded).map_err(refused)? {
            let send = async |channel, request| {
                AdminServiceClient::new(channel)
                    .finalize_upgrade(request)
                    .await
            };
            return self.forward(served, &leader, &call, request, send).await;
        }
        let changer = self.context.changer().map_err(refused)?;
        let raised = within(&call, changer.finalize(&served.partition)).await?;
        Ok(Response::new(v1::FinalizeUpgradeResponse {
            feature_level: raised.level,
            already_done: raised.change == Change::AlreadyMade,
            behind_node_ids: raised.behind,
        }))
    }

    async fn forward<Q, A, F>(
        &self,
        served: &ServedPartition,
        leader: &Leader,
        call: &Call,
        request: Q,
        send: impl FnOnce(tonic::transport::Channel, tonic::Request<Q>) -> F,
    ) -> Answer<A>
    where
        F: Future<Output = Answer<A>>,
    {
        forward_unary(&self.context, &served.metrics, leader, call, request, send).await
    }
}

/// A change that goes on although its caller's time is up.
async fn within<T>(
    call: &Call,
    change: impl Future<Output = Result<T, MemberError>>,
) -> Result<T, Status> {
    match tokio::time::timeout_at(call.deadline, change).await {
        Ok(changed) => changed.map_err(refused),
        Err(_) => Err(refused(ApiError::Deadline)),
    }
}

// A refusal that takes a hello to find out arrives before a default deadline.
const _: () = assert!(
    limits::HELLO_TIMEOUT.as_millis() * 2
        + limits::LEADER_TRANSFER_TIMEOUT.as_millis()
        + limits::MEMBER_CHANGE_TIMEOUT.as_millis()
        < limits::REQUEST_DEADLINE_DEFAULT.as_millis()
);
