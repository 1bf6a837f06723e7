//! Pipelined appends: batches are taken in the order sent, proposed in that
//! order, and answered in that order.
//!
//! The stream is driven by the transport alone, without a task or a queue of
//! its own: it takes requests for as long as there is room for them, and when
//! the client does not take the answers, it is not polled and takes no more
//! requests either.

mod link;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt as _};
use huntlog_proto::v1;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::wrappers::WatchStream;
use tonic::{Status, Streaming};

use super::append::{batch_answer, missing_batch, received_result};
use super::context::{NodeContext, Route, ServingState};
use super::error::ApiError;
use super::rpc_layer::named_fault;
use super::status::Operation;
use crate::connections::{ConnectionShare, Counted};
use crate::limits;
use crate::partition::WriteResult;
use crate::wire::{batch_command, level_needed};
use link::Links;

/// Requests taken in a row before answers are looked for.
const REQUESTS_IN_A_ROW_MAX: usize = 128;
/// Answers given in a row before requests are looked for.
const ANSWERS_IN_A_ROW_MAX: usize = 64;

/// The answers of one `AppendStream` call.
///
/// When the client goes away, only its answers are lost: what has been taken is
/// proposed all the same.
pub struct AppendStream<S = Streaming<v1::AppendRequest>> {
    context: Arc<NodeContext>,
    /// `None` once there are no more.
    requests: Option<S>,
    /// How the requests ended, unless by the client's half-close.
    requests_failed: Option<Status>,
    /// Another node has forwarded this stream.
    forwarded: bool,
    /// Of the client's connection.
    share: Option<ConnectionShare>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    links: Links,
    answers_in_a_row: usize,
    /// Goes off no later than when the oldest batch is overdue.
    overdue: Pin<Box<Sleep>>,
    serving: WatchStream<ServingState>,
    draining: bool,
}

/// A batch that is taken and not answered.
struct InFlight {
    partition: u32,
    session: String,
    epoch: u64,
    sequence: u64,
    /// What it counts in the stream's share.
    bytes: usize,
    due: Instant,
    pending: Pending,
    /// In the connection's share; what was refused is not.
    _counted: Option<Counted>,
}

/// Where the answer comes from.
enum Pending {
    /// It was not proposed.
    Failed(Box<v1::Failure>),
    /// The proposer of this node.
    Local {
        session: String,
        receiver: oneshot::Receiver<WriteResult>,
    },
    /// The leader, over the link of that number.
    Forwarded { link: u64 },
}

/// What looking for requests came to.
enum Taking {
    /// There are none at the moment, or no more, or no room.
    Done,
    /// There may be more.
    Interrupted,
}

impl<S> AppendStream<S>
where
    S: Stream<Item = Result<v1::AppendRequest, Status>> + Unpin,
{
    /// Answers `requests`, forwarding what is for another leader unless it has
    /// been `forwarded` before.
    pub(super) fn new(
        context: Arc<NodeContext>,
        requests: S,
        forwarded: bool,
        share: Option<ConnectionShare>,
    ) -> Self {
        let serving = WatchStream::new(context.serving());
        Self {
            context,
            requests: Some(requests),
            requests_failed: None,
            forwarded,
            share,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            links: Links::default(),
            answers_in_a_row: 0,
            overdue: Box::pin(sleep_until(
                Instant::now() + limits::REQUEST_DEADLINE_DEFAULT,
            )),
            serving,
            draining: false,
        }
    }

    fn take_requests(&mut self, cx: &mut Context<'_>) -> Taking {
        for _ in 0..REQUESTS_IN_A_ROW_MAX {
            let has_room = self.in_flight.len() < limits::APPEND_STREAM_IN_FLIGHT_BATCHES_MAX
                && self.in_flight_bytes < limits::IN_FLIGHT_BYTES_PER_CONNECTION_MAX;
            let Some(requests) = self.requests.as_mut().filter(|_| has_room) else {
                return Taking::Done;
            };
            match requests.poll_next_unpin(cx) {
                Poll::Pending => return Taking::Done,
                Poll::Ready(Some(Ok(request))) => self.take(request),
                Poll::Ready(Some(Err(status))) => {
                    self.requests = None;
                    self.requests_failed = Some(named_fault(status));
                }
                Poll::Ready(None) => self.requests = None,
            }
        }
        Taking::Interrupted
    }

    fn take(&mut self, request: v1::AppendRequest) {
        let partition = request.partition;
        let batch = request.batch;
        let (session, epoch, sequence) = batch.as_ref().map_or_else(Default::default, |batch| {
            (batch.session.clone(), batch.epoch, batch.sequence)
        });
        let mut taken = InFlight {
            partition,
            session,
            epoch,
            sequence,
            bytes: 0,
            due: Instant::now() + limits::REQUEST_DEADLINE_DEFAULT,
            pending: Pending::Failed(Box::default()),
            _counted: None,
        };
        let counted = batch
            .as_ref()
            .zip(self.share.as_ref())
            .map(|(batch, share)| share.count(batch.encoded_len()))
            .transpose()
            .map_err(ApiError::from);
        let proposed = counted.and_then(|counted| {
            let (pending, bytes) = self.propose(partition, batch)?;
            Ok((pending, bytes, counted))
        });
        match proposed {
            Ok((pending, bytes, counted)) => {
                taken._counted = counted;
                if matches!(pending, Pending::Forwarded { .. }) {
                    taken.due += limits::FORWARD_ANSWER_GRACE;
                }
                taken.pending = pending;
                taken.bytes = bytes;
            }
            Err(error) => taken.pending = Pending::Failed(Box::new(error.into_failure())),
        }
        taken.bytes = taken.bytes.max(limits::IN_FLIGHT_BYTES_PER_APPEND_MIN);
        self.in_flight_bytes += taken.bytes;
        self.in_flight.push_back(taken);
    }

    /// Hands a batch to this node's proposer, or on to the leader.
    fn propose(
        &mut self,
        partition: u32,
        batch: Option<v1::Batch>,
    ) -> Result<(Pending, usize), ApiError> {
        let served = self.context.to_write(partition)?;
        let batch = batch.ok_or_else(missing_batch)?;
        match served.route(self.forwarded)? {
            Route::Local => {
                let named = batch_command(batch)?;
                let bytes = named.command.bytes().len();
                let receiver = served.partition.submit(named.command)?;
                let pending = Pending::Local {
                    session: named.session,
                    receiver,
                };
                Ok((pending, bytes))
            }
            Route::Forward(leader) => {
                let needed = level_needed(&batch);
                served.partition.check_leaders_level(leader.id, needed)?;
                let bytes = batch.encoded_len();
                let room = self.context.reserve_append(bytes)?;
                let request = v1::AppendRequest {
                    partition,
                    batch: Some(batch),
                };
                let link =
                    self.links
                        .send(&self.context, &served.metrics, leader, request, room)?;
                Ok((Pending::Forwarded { link }, bytes))
            }
        }
    }

    /// The answer to the oldest batch.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<v1::AppendStreamResponse> {
        use v1::append_stream_response::Result as Wire;
        let Some(oldest) = self.in_flight.front_mut() else {
            return Poll::Pending;
        };
        let result = match &mut oldest.pending {
            Pending::Failed(failure) => Wire::Failure(std::mem::take(failure)),
            Pending::Local { session, receiver } => {
                let received = ready!(Pin::new(receiver).poll(cx));
                let session = std::mem::take(session);
                received_result(received)
                    .and_then(|committed| {
                        batch_answer(oldest.partition, session, oldest.sequence, committed)
                    })
                    .map_or_else(|error| Wire::Failure(error.into_failure()), Wire::Appended)
            }
            Pending::Forwarded { link } => {
                let answered =
                    ready!(
                        self.links
                            .poll_answer(*link, &oldest.session, oldest.sequence, cx)
                    );
                answered.unwrap_or_else(|error| Wire::Failure(error.into_failure()))
            }
        };
        Poll::Ready(self.answer_oldest(result))
    }

    fn answer_oldest(
        &mut self,
        result: v1::append_stream_response::Result,
    ) -> v1::AppendStreamResponse {
        let oldest = self
            .in_flight
            .pop_front()
            .expect("it has just been looked at");
        self.in_flight_bytes -= oldest.bytes;
        v1::AppendStreamResponse {
            session: oldest.session,
            epoch: oldest.epoch,
            sequence: oldest.sequence,
            result: Some(result),
        }
    }

    /// The answer to the oldest batch when its time is up: nobody here knows
    /// what becomes of it.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<v1::AppendStreamResponse> {
        use v1::append_stream_response::Result as Wire;
        loop {
            ready!(self.overdue.as_mut().poll(cx));
            let now = Instant::now();
            let due = self
                .in_flight
                .front()
                .map_or(now + limits::REQUEST_DEADLINE_DEFAULT, |oldest| oldest.due);
            if due > now {
                self.overdue.as_mut().reset(due);
                continue;
            }
            if let Some(InFlight {
                pending: Pending::Forwarded { link },
                ..
            }) = self.in_flight.front()
            {
                self.links.give_up(*link);
            }
            let failure = ApiError::Deadline.into_failure();
            return Poll::Ready(self.answer_oldest(Wire::Failure(failure)));
        }
    }

    fn watch_drain(&mut self, cx: &mut Context<'_>) {
        loop {
            match self.serving.poll_next_unpin(cx) {
                Poll::Ready(Some(state)) => self.draining = state == ServingState::Draining,
                // The node is gone.
                Poll::Ready(None) => {
                    self.draining = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }
}

impl<S> Stream for AppendStream<S>
where
    S: Stream<Item = Result<v1::AppendRequest, Status>> + Unpin,
{
    type Item = Result<v1::AppendStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Answers come in bursts, a whole log entry's at once: they are not
        // worth a look at the connection each.
        if this.answers_in_a_row < ANSWERS_IN_A_ROW_MAX
            && let Poll::Ready(answer) = this.poll_answer(cx)
        {
            this.answers_in_a_row += 1;
            return Poll::Ready(Some(Ok(answer)));
        }
        this.answers_in_a_row = 0;
        this.watch_drain(cx);
        let taking = this.take_requests(cx);
        this.links.poll_opening(cx);
        if let Poll::Ready(answer) = this.poll_answer(cx) {
            return Poll::Ready(Some(Ok(answer)));
        }
        if let Poll::Ready(answer) = this.poll_overdue(cx) {
            return Poll::Ready(Some(Ok(answer)));
        }
        if matches!(taking, Taking::Interrupted) {
            cx.waker().wake_by_ref();
        } else if this.in_flight.is_empty() {
            if this.requests.is_none() {
                return Poll::Ready(this.requests_failed.take().map(Err));
            }
            if this.draining && !this.context.takes_appends() {
                this.requests = None;
                let status = this.context.why_draining().into_status(Operation::Write);
                return Poll::Ready(Some(Err(status)));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
