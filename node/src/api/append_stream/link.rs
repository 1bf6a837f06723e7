//! The forwarding half of an append stream: one stream to each leader it has
//! had, answered in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use huntlog_proto::v1;
use huntlog_proto::v1::append_stream_response::Result as WireResult;
use huntlog_proto::v1::event_service_client::EventServiceClient;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::api::context::NodeContext;
use crate::api::error::{ApiError, Resource};
use crate::api::forward::{Leader, forward_result, is_from_huntlog};
use crate::limits;
use crate::raft::Purpose;
use crate::telemetry::{ForwardResult, PartitionMetrics};

type Opening = Pin<
    Box<dyn Future<Output = Result<Response<Streaming<v1::AppendStreamResponse>>, Status>> + Send>,
>;

/// The streams to leaders, the newest last.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
    opened: u64,
}

/// A stream to the leader of a partition.
struct Link {
    number: u64,
    partition: u32,
    leader: Leader,
    metrics: PartitionMetrics,
    /// `None` once no more is sent on it.
    requests: Option<mpsc::Sender<v1::AppendRequest>>,
    answers: Answers,
    /// One for each batch that the leader owes an answer to.
    owed: VecDeque<OwnedSemaphorePermit>,
}

enum Answers {
    Opening(Opening),
    Open(Box<Streaming<v1::AppendStreamResponse>>),
    Broken {
        /// Whether something may have been sent before it broke.
        sent: bool,
        cause: String,
    },
}

impl Links {
    /// Sends a batch to the leader; answers the number of the link that it was
    /// sent on.
    pub(super) fn send(
        &mut self,
        context: &NodeContext,
        metrics: &PartitionMetrics,
        leader: Leader,
        request: v1::AppendRequest,
        room: OwnedSemaphorePermit,
    ) -> Result<u64, ApiError> {
        let position = self.links.iter().position(|link| {
            link.partition == request.partition && link.leader.id == leader.id && link.takes_more()
        });
        let position = match position {
            Some(position) => position,
            None => self.open(context, metrics, leader, request.partition)?,
        };
        let link = &mut self.links[position];
        let Some(requests) = &link.requests else {
            unreachable!("a link that takes more has a sender");
        };
        match requests.try_send(request) {
            Ok(()) => {
                link.owed.push_back(room);
                Ok(link.number)
            }
            // There is room for all that may be in flight.
            Err(TrySendError::Full(_)) => Err(ApiError::TooMuch {
                resource: Resource::AppendBytes,
            }),
            // It broke just now, before this batch was handed over.
            Err(TrySendError::Closed(_)) => {
                link.requests = None;
                Err(link
                    .leader
                    .unreachable(false, "its stream has just ended".to_owned()))
            }
        }
    }

    /// Opens a stream to `leader`; those before it take no more batches of the
    /// partition.
    fn open(
        &mut self,
        context: &NodeContext,
        metrics: &PartitionMetrics,
        leader: Leader,
        partition: u32,
    ) -> Result<usize, ApiError> {
        for link in &mut self.links {
            if link.partition == partition {
                link.requests = None;
            }
        }
        self.links
            .retain(|link| link.requests.is_some() || !link.owed.is_empty());
        let mut client = EventServiceClient::new(leader.channel(context, Purpose::Forward)?)
            .max_encoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX)
            .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX);
        let (requests, outgoing) = mpsc::channel(limits::APPEND_STREAM_IN_FLIGHT_BATCHES_MAX);
        let request = leader.request(context, ReceiverStream::new(outgoing));
        let opening = Box::pin(async move { client.append_stream(request).await });
        self.opened += 1;
        self.links.push(Link {
            number: self.opened,
            partition,
            leader,
            metrics: metrics.clone(),
            requests: Some(requests),
            answers: Answers::Opening(opening),
            owed: VecDeque::new(),
        });
        Ok(self.links.len() - 1)
    }

    /// Goes on with those that are being opened.
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) {
        for link in &mut self.links {
            link.poll_open(cx);
        }
    }

    /// The answer to the oldest batch that was sent on the link `number`, which
    /// is that of `session` and `sequence`.
    pub(super) fn poll_answer(
        &mut self,
        number: u64,
        session: &str,
        sequence: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<WireResult, ApiError>> {
        let link = self.link(number);
        let answer = ready!(link.poll_answer(session, sequence, cx));
        link.owed.pop_front();
        match &answer {
            Ok(_) => link.metrics.forward(ForwardResult::Answered).inc(),
            Err(error) => link.metrics.forward(forward_result(error)).inc(),
        };
        Poll::Ready(answer)
    }

    /// The oldest batch of the link `number` is answered otherwise; so are,
    /// from now on, all that it still owes an answer to.
    pub(super) fn give_up(&mut self, number: u64) {
        let link = self.link(number);
        link.owed.pop_front();
        link.metrics.forward(ForwardResult::Lost).inc();
        link.break_off(true, "the leader did not answer in time".to_owned());
    }

    fn link(&mut self, number: u64) -> &mut Link {
        self.links
            .iter_mut()
            .find(|link| link.number == number)
            .expect("a link is kept as long as it owes an answer")
    }
}

impl Link {
    fn takes_more(&self) -> bool {
        self.requests
            .as_ref()
            .is_some_and(|requests| !requests.is_closed())
    }

    fn break_off(&mut self, sent: bool, cause: String) {
        self.requests = None;
        self.answers = Answers::Broken { sent, cause };
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) {
        let Answers::Opening(opening) = &mut self.answers else {
            return;
        };
        match opening.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(response)) => {
                self.answers = Answers::Open(Box::new(response.into_inner()));
            }
            // A node that refuses the stream itself has read nothing of it.
            Poll::Ready(Err(status)) if is_from_huntlog(&status) => {
                self.break_off(false, status.message().to_owned());
            }
            Poll::Ready(Err(status)) => self.fail(&status),
        }
    }

    fn fail(&mut self, status: &Status) {
        match self.leader.failure(status) {
            ApiError::Unreachable { sent, cause, .. } => self.break_off(sent, cause),
            error => self.break_off(true, error.to_string()),
        }
    }

    fn poll_answer(
        &mut self,
        session: &str,
        sequence: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<WireResult, ApiError>> {
        self.poll_open(cx);
        if let Answers::Open(answers) = &mut self.answers {
            match ready!(answers.poll_next_unpin(cx)) {
                Some(Ok(v1::AppendStreamResponse {
                    session: answered,
                    sequence: number,
                    result: Some(result),
                    ..
                })) if answered == session && number == sequence => {
                    return Poll::Ready(Ok(result));
                }
                Some(Ok(_)) => {
                    self.break_off(true, "it answered another batch than the oldest".to_owned())
                }
                Some(Err(status)) => self.fail(&status),
                None => self.break_off(true, "it ended the stream".to_owned()),
            }
        }
        match &self.answers {
            Answers::Broken { sent, cause } => {
                Poll::Ready(Err(self.leader.unreachable(*sent, cause.clone())))
            }
            _ => Poll::Pending,
        }
    }
}
