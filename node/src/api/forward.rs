//! Handing a client's request on to the leader: one hop, and never again once
//! something of it may have been sent (I10).

use std::error::Error as _;

use huntlog_proto::{CLUSTER_ID_HEADER, ERROR_DOMAIN};
use tokio::time::timeout_at;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::call::{Call, FORWARDED_BY, FORWARDED_TO, LEADER, add_header};
use super::context::NodeContext;
use super::error::ApiError;
use super::status::Operation;
use crate::raft::{MemberNode, NodeId, Purpose};
use crate::telemetry::{ForwardResult, PartitionMetrics};

/// Who leads a partition, when it is another node.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    /// Its id.
    pub(super) id: NodeId,
    /// Where it is.
    pub(super) node: MemberNode,
}

impl Leader {
    /// The connection for forwarded requests of that purpose.
    pub(super) fn channel(
        &self,
        context: &NodeContext,
        purpose: Purpose,
    ) -> Result<Channel, ApiError> {
        context
            .peers()
            .channel(&self.node.peer_address, purpose)
            .map_err(|error| self.unreachable(false, error.to_string()))
    }

    /// A request that is known to be forwarded.
    pub(super) fn request<Q>(&self, context: &NodeContext, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        let own = context.peers().identity();
        let headers = request.metadata_mut();
        add_header(headers, FORWARDED_BY, &own.node_id.to_string());
        add_header(headers, CLUSTER_ID_HEADER, &own.cluster_id);
        add_header(headers, FORWARDED_TO, &self.node.uuid);
        request
    }

    /// What becomes of a call that the leader did not answer itself.
    pub(super) fn failure(&self, status: &Status) -> ApiError {
        if status.code() == Code::DeadlineExceeded || is_timeout(status) {
            ApiError::Deadline
        } else {
            self.unreachable(!was_never_sent(status), describe(status))
        }
    }

    pub(super) fn unreachable(&self, sent: bool, cause: String) -> ApiError {
        ApiError::Unreachable {
            leader: self.id,
            address: self.node.client_address.clone(),
            sent,
            cause,
        }
    }

    fn mark<A>(&self, answer: A) -> Response<A> {
        let mut response = Response::new(answer);
        add_header(response.metadata_mut(), LEADER, &self.node.client_address);
        response
    }

    fn mark_status(&self, status: &mut Status) {
        add_header(status.metadata_mut(), LEADER, &self.node.client_address);
    }
}

/// Forwards a unary call, and passes on what the leader answers.
pub(super) async fn forward_unary<Q, A, F>(
    context: &NodeContext,
    metrics: &PartitionMetrics,
    leader: &Leader,
    call: &Call,
    message: Q,
    send: impl FnOnce(Channel, Request<Q>) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let counted = |result| metrics.forward(result).inc();
    let channel = leader
        .channel(context, Purpose::Forward)
        .map_err(|error| error.into_status(Operation::Write))?;
    let mut request = leader.request(context, message);
    request.set_timeout(call.time_left());
    let answered = timeout_at(call.deadline, send(channel, request)).await;
    let mut status = match answered {
        Ok(Ok(response)) => {
            counted(ForwardResult::Answered);
            return Ok(leader.mark(response.into_inner()));
        }
        Ok(Err(status)) if is_from_huntlog(&status) => {
            counted(ForwardResult::Answered);
            // Only what the leader says; its transport's headers stay here.
            Status::with_details(
                status.code(),
                status.message(),
                status.details().to_vec().into(),
            )
        }
        Ok(Err(status)) => {
            let error = leader.failure(&status);
            counted(forward_result(&error));
            error.into_status(Operation::Write)
        }
        Err(_) => {
            counted(ForwardResult::Lost);
            ApiError::Deadline.into_status(Operation::Write)
        }
    };
    leader.mark_status(&mut status);
    Err(status)
}

/// How a failure to forward is counted.
pub(super) fn forward_result(error: &ApiError) -> ForwardResult {
    match error {
        ApiError::Unreachable { sent: false, .. } => ForwardResult::NotSent,
        _ => ForwardResult::Lost,
    }
}

/// Whether a node has put the status together, rather than the transport.
pub(super) fn is_from_huntlog(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.domain == ERROR_DOMAIN)
}

/// Whether it is certain that nothing of the request left this node: there was
/// no connection to send it on.
fn was_never_sent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

fn is_timeout(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::TimeoutExpired>())
}

fn causes<'a>(
    status: &'a Status,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> + 'a {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// A transport's status says little itself; its causes say more.
pub(super) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
