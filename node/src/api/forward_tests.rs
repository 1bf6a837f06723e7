use std::sync::Arc;
use std::time::Duration;

use huntlog_proto::v1;
use huntlog_proto::v1::event_service_client::EventServiceClient;
use tokio::net::TcpListener;

use super::*;
use crate::admin_http::Health;
use crate::api::context::NodeInfo;
use crate::api::scripted_leader::{ScriptedLeader, leader_at};
use crate::raft::{LocalIdentity, Peers};
use crate::telemetry::Metrics;

fn context() -> NodeContext {
    NodeContext::new(
        NodeInfo {
            version: "test".to_owned(),
        },
        Arc::new(Peers::new(
            LocalIdentity {
                node_id: 1,
                ..LocalIdentity::default()
            },
            None,
        )),
        Arc::new(Metrics::new("test", 1, "test")),
        Health::starting(),
    )
}

async fn append_to(leader: &Leader) -> ApiError {
    let context = context();
    let channel = leader
        .channel(&context, Purpose::Forward)
        .expect("an address");
    let request = leader.request(&context, v1::AppendRequest::default());
    let status = EventServiceClient::new(channel)
        .append(request)
        .await
        .expect_err("nobody answers");
    assert!(!is_from_huntlog(&status));
    leader.failure(&status)
}

/// I10: where nobody listens, nothing can have been applied.
#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    match append_to(&leader_at(2, address)).await {
        ApiError::Unreachable { leader, sent, .. } => assert_eq!((leader, sent), (2, false)),
        other => panic!("{other:?}"),
    }
}

/// I10: a connection that was there may have carried the request.
#[tokio::test]
async fn a_connection_that_ends_may_have_carried_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.readable().await.expect("the preface arrives");
        drop(stream);
    });
    match append_to(&leader_at(2, address)).await {
        ApiError::Unreachable { sent, .. } => assert!(sent),
        other => panic!("{other:?}"),
    }
    accepting.await.expect("it ran");
}

#[test]
fn statuses_of_nodes_are_told_from_the_transports() {
    let ours = ApiError::NoLeader.into_status(Operation::Write);
    assert!(is_from_huntlog(&ours));
    assert!(!is_from_huntlog(&Status::unavailable("connection reset")));
}

#[test]
fn a_late_answer_is_a_passed_deadline() {
    let leader = leader_at(2, "127.0.0.1:1".to_owned());
    assert!(matches!(
        leader.failure(&Status::deadline_exceeded("late")),
        ApiError::Deadline
    ));
}

#[test]
fn forwarded_requests_say_who_forwards_them() {
    let leader = leader_at(2, "127.0.0.1:1".to_owned());
    let mut request = leader.request(&context(), ());
    request.set_timeout(Duration::from_secs(1));
    let call = Call::new(request.metadata());
    assert!(call.forwarded);
    assert!(call.deadline_named);
    assert_eq!(request.metadata().get(FORWARDED_BY).expect("set"), "1");
}

/// Forwards an append of `session`, with so much time.
async fn forwarded(
    leader: &Leader,
    session: &str,
    time: Duration,
) -> Result<Response<v1::AppendResponse>, Status> {
    let context = context();
    let mut asked = Request::new(());
    asked.set_timeout(time);
    let call = Call::new(asked.metadata());
    let message = v1::AppendRequest {
        partition: 0,
        batch: Some(v1::Batch {
            session: session.to_owned(),
            ..v1::Batch::default()
        }),
    };
    forward_unary(
        &context,
        &context.metrics().partition(0),
        leader,
        &call,
        message,
        async |channel, request| EventServiceClient::new(channel).append(request).await,
    )
    .await
}

#[tokio::test]
async fn what_the_leader_answers_is_passed_on_and_the_leader_named() {
    let (leader, _) = ScriptedLeader::start(2, 0, false).await;
    let time = Duration::from_secs(10);
    let answer = forwarded(&leader, "s", time).await.expect("answered");
    assert_eq!(answer.metadata().get(LEADER).expect("named"), "leader:7650");
    assert_eq!(answer.into_inner().session, "s");

    let status = forwarded(&leader, "refused", time)
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get(LEADER).expect("named"), "leader:7650");
    let info = status
        .get_details_error_info()
        .expect("the leader's details");
    assert_eq!(info.reason, "NO_LEADER");
    assert_eq!(info.metadata["disposition"], "NOT_APPLIED");
    assert!(status.get_details_retry_info().is_some());
}

/// I10: the leader has it, and may apply it yet.
#[tokio::test]
async fn a_silent_leader_is_not_waited_for_beyond_the_deadline() {
    let (leader, _) = ScriptedLeader::start(2, 0, false).await;
    let status = forwarded(&leader, "silent", Duration::from_millis(100))
        .await
        .expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let info = status.get_details_error_info().expect("details");
    assert_eq!(info.reason, "DEADLINE");
    assert_eq!(info.metadata["disposition"], "UNKNOWN");
}
