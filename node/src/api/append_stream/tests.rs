use std::sync::atomic::Ordering;

use futures::{FutureExt as _, StreamExt as _};
use huntlog_proto::v1::append_stream_response::Result as Wire;
use tokio::net::TcpListener;
use tonic::Code;

use super::link::Links;
use super::*;
use crate::admin_http::Health;
use crate::api::context::NodeInfo;
use crate::api::forward::Leader;
use crate::api::scripted_leader::{ScriptedLeader, leader_at};
use crate::raft::{LocalIdentity, Peers};
use crate::telemetry::Metrics;

fn context() -> Arc<NodeContext> {
    Arc::new(NodeContext::new(
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
    ))
}

fn request(session: &str, sequence: u64) -> v1::AppendRequest {
    v1::AppendRequest {
        partition: 0,
        batch: Some(v1::Batch {
            session: session.to_owned(),
            epoch: 3,
            sequence,
            ..v1::Batch::default()
        }),
    }
}

fn reason(response: &v1::AppendStreamResponse) -> &str {
    match &response.result {
        Some(Wire::Failure(failure)) => &failure.reason,
        other => panic!("a failure, not {other:?}"),
    }
}

#[tokio::test]
async fn failures_are_answered_in_band_in_the_order_of_the_requests() {
    let requests = futures::stream::iter((1..=300).map(|sequence| Ok(request("s", sequence))));
    let stream = AppendStream::new(context(), requests, false, None);
    let answers: Vec<_> = stream
        .map(|answer| answer.expect("in band"))
        .collect()
        .await;
    let sequences: Vec<_> = answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequences, (1..=300).collect::<Vec<_>>());
    for answer in &answers {
        assert_eq!((answer.session.as_str(), answer.epoch), ("s", 3));
        assert_eq!(reason(answer), "STARTING");
    }
}

#[tokio::test]
async fn what_is_taken_is_answered_before_a_broken_request_ends_the_stream() {
    let requests = futures::stream::iter([
        Ok(request("s", 1)),
        Err(Status::invalid_argument("no protobuf")),
        Ok(request("s", 2)),
    ]);
    let mut stream = AppendStream::new(context(), requests, false, None);
    let first = stream.next().await.expect("one").expect("in band");
    assert_eq!(first.sequence, 1);
    let status = stream.next().await.expect("the end").expect_err("broken");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_draining_node_ends_idle_streams() {
    let context = context();
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut stream = AppendStream::new(context.clone(), requests, false, None);
    assert!(stream.next().now_or_never().is_none());
    sender.send(Ok(request("s", 1))).await.expect("room");
    context.drain();
    let answer = stream.next().await.expect("one").expect("in band");
    assert_eq!(reason(&answer), "DRAINING");
    let status = stream.next().await.expect("the end").expect_err("draining");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
}

/// I10: a batch has a deadline although its stream has none.
#[tokio::test(start_paused = true)]
async fn an_overdue_batch_is_unknown_and_those_behind_it_are_waited_for() {
    let requests = futures::stream::pending::<Result<v1::AppendRequest, Status>>();
    let mut stream = AppendStream::new(context(), requests, false, None);
    let started = Instant::now();
    let mut senders = Vec::new();
    for sequence in 1..=2 {
        let (sender, receiver) = oneshot::channel();
        senders.push(sender);
        stream.in_flight_bytes += 1;
        stream.in_flight.push_back(InFlight {
            partition: 0,
            session: "s".to_owned(),
            epoch: 3,
            sequence,
            bytes: 1,
            due: started + limits::REQUEST_DEADLINE_DEFAULT * u32::try_from(sequence).expect("2"),
            pending: Pending::Local {
                session: "s".to_owned(),
                receiver,
            },
            _counted: None,
        });
    }
    for sequence in 1..=2 {
        let answer = stream.next().await.expect("one").expect("in band");
        assert_eq!(answer.sequence, sequence);
        let Some(Wire::Failure(failure)) = answer.result else {
            panic!("a failure, not {answer:?}");
        };
        assert_eq!(failure.reason, "DEADLINE");
        assert_eq!(failure.disposition(), v1::Disposition::Unknown);
        assert_eq!(
            started.elapsed(),
            limits::REQUEST_DEADLINE_DEFAULT * u32::try_from(sequence).expect("2")
        );
    }
    assert_eq!(stream.in_flight_bytes, 0);
}

/// Links, with what they are sent over.
struct Sending {
    context: Arc<NodeContext>,
    links: Links,
}

impl Sending {
    fn new() -> Self {
        Self {
            context: context(),
            links: Links::default(),
        }
    }

    fn send(&mut self, leader: &Leader, sequence: u64) -> Result<u64, ApiError> {
        let metrics = self.context.metrics().partition(0);
        let room = self.context.reserve_append(1)?;
        self.links.send(
            &self.context,
            &metrics,
            leader.clone(),
            request("s", sequence),
            room,
        )
    }

    /// Whether the batch was appended; a failure tells whether it may have been
    /// sent.
    async fn answer(&mut self, link: u64, sequence: u64) -> Result<(), bool> {
        let answer =
            std::future::poll_fn(|cx| self.links.poll_answer(link, "s", sequence, cx)).await;
        match answer {
            Ok(Wire::Appended(_)) => Ok(()),
            Err(ApiError::Unreachable { sent, .. }) => Err(sent),
            other => panic!("{other:?}"),
        }
    }

    fn room_in_use(&self) -> usize {
        limits::IN_FLIGHT_APPENDS_MAX - self.context.append_budget().available_permits()
    }
}

#[tokio::test]
async fn one_stream_carries_all_batches_to_a_leader() {
    let (leader, streams) = ScriptedLeader::start(2, usize::MAX, false).await;
    let mut sending = Sending::new();
    let links: Vec<_> = (1..=100)
        .map(|sequence| sending.send(&leader, sequence).expect("sent"))
        .collect();
    assert_eq!(sending.room_in_use(), 100);
    for (sequence, link) in (1..=100).zip(links) {
        assert_eq!(sending.answer(link, sequence).await, Ok(()));
    }
    assert_eq!(streams.load(Ordering::Relaxed), 1);
    assert_eq!(sending.room_in_use(), 0);
}

/// I10: whatever was not answered on a stream that broke may have been applied;
/// it is never sent again by this node.
#[tokio::test]
async fn what_a_broken_stream_owes_is_unknown_and_the_next_batch_begins_anew() {
    let (leader, streams) = ScriptedLeader::start(2, 2, false).await;
    let mut sending = Sending::new();
    let first = sending.send(&leader, 1).expect("sent");
    for sequence in 2..=4 {
        assert_eq!(sending.send(&leader, sequence).expect("sent"), first);
    }
    assert_eq!(sending.answer(first, 1).await, Ok(()));
    assert_eq!(sending.answer(first, 2).await, Ok(()));
    assert_eq!(sending.answer(first, 3).await, Err(true));
    let second = sending.send(&leader, 5).expect("sent");
    assert_ne!(second, first);
    assert_eq!(sending.answer(first, 4).await, Err(true));
    assert_eq!(sending.answer(second, 5).await, Ok(()));
    assert_eq!(streams.load(Ordering::Relaxed), 2);
    assert_eq!(sending.room_in_use(), 0);
}

/// I10: nothing left this node.
#[tokio::test]
async fn what_found_no_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let leader = leader_at(2, address);
    let mut sending = Sending::new();
    let link = sending.send(&leader, 1).expect("queued");
    assert_eq!(sending.send(&leader, 2).expect("queued"), link);
    assert_eq!(sending.answer(link, 1).await, Err(false));
    assert_eq!(sending.answer(link, 2).await, Err(false));
}

/// I10: a node that refuses the stream itself has read nothing of it.
#[tokio::test]
async fn what_another_node_than_the_leader_refuses_was_not_applied() {
    let other = Arc::new(Peers::new(
        LocalIdentity {
            cluster_id: "another".to_owned(),
            ..LocalIdentity::default()
        },
        None,
    ));
    let leader = ScriptedLeader::start_guarded(2, other).await;
    let mut sending = Sending::new();
    let link = sending.send(&leader, 1).expect("queued");
    assert_eq!(sending.answer(link, 1).await, Err(false));
}

#[tokio::test]
async fn a_new_leader_gets_a_stream_of_its_own_and_the_old_one_its_answers() {
    let (old, _) = ScriptedLeader::start(2, usize::MAX, false).await;
    let (new, _) = ScriptedLeader::start(3, usize::MAX, false).await;
    let mut sending = Sending::new();
    let to_old = sending.send(&old, 1).expect("sent");
    let to_new = sending.send(&new, 2).expect("sent");
    assert_ne!(to_old, to_new);
    assert_eq!(sending.answer(to_old, 1).await, Ok(()));
    assert_eq!(sending.answer(to_new, 2).await, Ok(()));
    assert_eq!(sending.send(&new, 3).expect("sent"), to_new);
    assert_eq!(sending.answer(to_new, 3).await, Ok(()));
}

/// I10: the answer of a silent leader may come later, to nobody.
#[tokio::test]
async fn a_stream_that_is_given_up_owes_nothing_any_more() {
    let (leader, _) = ScriptedLeader::start(2, 1, true).await;
    let mut sending = Sending::new();
    let link = sending.send(&leader, 1).expect("sent");
    for sequence in 2..=3 {
        sending.send(&leader, sequence).expect("sent");
    }
    assert_eq!(sending.answer(link, 1).await, Ok(()));
    sending.links.give_up(link);
    assert_eq!(sending.answer(link, 3).await, Err(true));
    assert_ne!(sending.send(&leader, 4).expect("sent"), link);
    assert_eq!(sending.room_in_use(), 1);
}

/// An answer to another batch than the oldest would be told to the wrong one.
#[tokio::test]
async fn answers_out_of_order_break_the_stream() {
    let (leader, _) = ScriptedLeader::start(2, usize::MAX, false).await;
    let mut sending = Sending::new();
    let link = sending.send(&leader, 1).expect("sent");
    assert_eq!(sending.answer(link, 9).await, Err(true));
}
