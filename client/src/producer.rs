//! Submitting events of one session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use huntlog_proto::v1;
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::encoding::encode_body;
use crate::error::{AppendError, Cause, InvalidBatch};
use crate::lane::{Callers, Command, Control, EncodedEvent, LaneHandle, Opened, Payload, Work};
use crate::limits;
use crate::sequencer::Numbering;

/// An acknowledged batch: it is on the disks of a quorum and applied, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// Its number in the session.
    pub sequence: u64,
    /// It had been applied by an earlier attempt.
    pub duplicate: bool,
    /// The Raft log entry that carries it.
    pub log_index: u64,
    /// The log's time of that entry.
    pub committed_at: Option<Timestamp>,
    /// What was decided about each event, in order. None: it was applied so
    /// long ago that the cluster keeps its outcomes no more; the log has them.
    pub outcomes: Option<Vec<v1::EventOutcome>>,
    /// How often it was sent.
    pub attempts: u32,
    /// When the attempt that was answered was sent.
    pub sent_at: Instant,
}

/// The same for one event of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct EventAppended {
    /// The number of its batch in the session.
    pub sequence: u64,
    /// It had been applied by an earlier attempt.
    pub duplicate: bool,
    /// The Raft log entry that carries it.
    pub log_index: u64,
    /// What was decided about it; None as in [`Appended::outcomes`].
    pub outcome: Option<v1::EventOutcome>,
    /// How often its batch was sent.
    pub attempts: u32,
}

impl EventAppended {
    /// Its position in the partition, if it was accepted.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self.outcome.as_ref()?.outcome.as_ref()? {
            v1::event_outcome::Outcome::Accepted(accepted) => Some(accepted.offset),
            v1::event_outcome::Outcome::Rejected(_) => None,
        }
    }

    /// The events of a batch, without end when their outcomes are gone.
    pub(crate) fn split(batch: Appended) -> impl Iterator<Item = Self> {
        let Appended {
            sequence,
            duplicate,
            log_index,
            outcomes,
            attempts,
            ..
        } = batch;
        let kept = outcomes.is_some();
        outcomes
            .into_iter()
            .flatten()
            .map(Some)
            .chain(std::iter::repeat_n(None, if kept { 0 } else { usize::MAX }))
            .map(move |outcome| Self {
                sequence,
                duplicate,
                log_index,
                outcome,
                attempts,
            })
    }
}

/// The wait for what becomes of something submitted. Dropping it does not take
/// the submission back.
#[derive(Debug)]
#[must_use = "the submission's result is only known by awaiting this"]
pub struct Ticket<T>(oneshot::Receiver<Result<T, AppendError>>);

impl<T> Future for Ticket<T> {
    type Output = Result<T, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| {
            result.unwrap_or(Err(AppendError::Unknown {
                cause: Cause::Closed,
            }))
        })
    }
}

/// A session opened by this client. Appends are sent in the order submitted,
/// numbered, pipelined, and retried until they are answered or their time is
/// up; each is applied at most once.
///
/// Dropping a producer sees what was submitted through in the background.
#[derive(Debug)]
pub struct Producer {
    name: Arc<str>,
    slot: u64,
    opened: Opened,
    lane: LaneHandle,
    buffer: Arc<Semaphore>,
    submitted: AtomicU64,
}

impl Producer {
    pub(crate) fn new(
        name: Arc<str>,
        slot: u64,
        opened: Opened,
        lane: LaneHandle,
        buffer: Arc<Semaphore>,
    ) -> Self {
        Self {
            name,
            slot,
            opened,
            lane,
            buffer,
            submitted: AtomicU64::new(0),
        }
    }

    /// The session's name.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.name
    }

    /// The last sequence the cluster had applied for this session when it was
    /// opened; 0 for a new one. After a crash, a program that keeps its
    /// unacknowledged batches with their sequences finds out with this which
    /// were applied: those up to here. It goes on with [`Self::append_at`].
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.opened.last_sequence
    }

    /// Whether the cluster knew nothing of the session when it was opened: it
    /// is new, or has been forgotten.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.opened.fresh
    }

    /// The epoch it was opened under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.opened.epoch
    }

    /// Submits one event, which travels together with others submitted about
    /// the same time. Waits only while the client's buffer is full.
    ///
    /// # Errors
    /// NOT_APPLIED when the event is too large or the client is closed.
    pub async fn append(&self, event: v1::Event) -> Result<Ticket<EventAppended>, AppendError> {
        let bytes = event.encoded_len();
        check_event(0, bytes)?;
        let permit = self.room(bytes + limits::EVENT_OVERHEAD_BYTES).await?;
        let (caller, ticket) = oneshot::channel();
        let body = encode_body(vec![event], Vec::new());
        self.send(Work::Event(EncodedEvent {
            body,
            caller,
            permit,
        }))
        .await?;
        Ok(Ticket(ticket))
    }

    /// Submits events that are logged together or not at all, in this order.
    /// Waits only while the client's buffer is full.
    ///
    /// # Errors
    /// NOT_APPLIED when the batch is empty or too large, or the client is
    /// closed.
    pub async fn append_batch(
        &self,
        events: Vec<v1::Event>,
    ) -> Result<Ticket<Appended>, AppendError> {
        self.submit(Numbering::Next, events, Vec::new()).await
    }

    /// The same, on condition that each of these hunts has the revision
    /// expected. Otherwise the whole batch is refused, NOT_APPLIED, with the
    /// reason REVISION_MISMATCH and the actual revision.
    ///
    /// # Errors
    /// As [`Self::append_batch`].
    pub async fn append_batch_expecting(
        &self,
        events: Vec<v1::Event>,
        expected: Vec<v1::ExpectedRevision>,
    ) -> Result<Ticket<Appended>, AppendError> {
        self.submit(Numbering::Next, events, expected).await
    }

    /// Submits a batch under a fixed number, for programs that keep their
    /// batches on disk until they are acknowledged. `sequence` is the next one
    /// ([`Self::last_sequence`] + 1 at first, then one more each time); or one
    /// at or below [`Self::last_sequence`], in ascending order, which asks
    /// again for the outcome of a batch sent before the crash: it must have
    /// the same events, and is not applied a second time.
    ///
    /// Such a batch is never given another number. If one before it fails
    /// without having been applied, it fails as well.
    ///
    /// # Errors
    /// As [`Self::append_batch`]; the ticket reports a sequence out of turn.
    pub async fn append_at(
        &self,
        sequence: u64,
        events: Vec<v1::Event>,
        expected: Vec<v1::ExpectedRevision>,
    ) -> Result<Ticket<Appended>, AppendError> {
        self.submit(Numbering::At(sequence), events, expected).await
    }

    async fn submit(
        &self,
        numbering: Numbering,
        events: Vec<v1::Event>,
        expected: Vec<v1::ExpectedRevision>,
    ) -> Result<Ticket<Appended>, AppendError> {
        let count = events.len();
        check_count(count)?;
        for (index, event) in events.iter().enumerate() {
            check_event(index, event.encoded_len())?;
        }
        let body = encode_body(events, expected);
        if body.len() > limits::BATCH_BYTES {
            return Err(invalid(InvalidBatch::TooLarge {
                bytes: body.len(),
                max: limits::BATCH_BYTES,
            }));
        }
        let permit = self
            .room(body.len() + count * limits::EVENT_OVERHEAD_BYTES)
            .await?;
        let (caller, ticket) = oneshot::channel();
        let payload = Payload {
            body,
            events: count,
            callers: Callers::Batch(caller),
            permit,
        };
        self.send(Work::Batch { payload, numbering }).await?;
        Ok(Ticket(ticket))
    }

    /// Waits until everything submitted before is resolved, one way or the
    /// other; the tickets tell which.
    ///
    /// # Errors
    /// NOT_APPLIED when the client is closed.
    pub async fn flush(&self) -> Result<(), AppendError> {
        let (done, flushed) = oneshot::channel();
        self.send(Work::Flush(done)).await?;
        flushed.await.map_err(|_| closed())
    }

    /// Flushes, and lets go of the session, which can then be opened again by
    /// this client.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn close(self) -> Result<(), AppendError> {
        self.flush().await
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let bytes = u32::try_from(bytes).expect("a batch has at most a few MiB");
        Arc::clone(&self.buffer)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| closed())
    }

    async fn send(&self, work: Work) -> Result<(), AppendError> {
        let place = self.lane.commands.reserve().await.map_err(|_| closed())?;
        self.submitted.fetch_add(1, Ordering::Relaxed);
        place.send(Command {
            slot: self.slot,
            work,
        });
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // A lane that is gone has nothing to close.
        let _ = self.lane.control.send(Control::Close {
            slot: self.slot,
            submitted: *self.submitted.get_mut(),
        });
    }
}

fn closed() -> AppendError {
    AppendError::NotApplied {
        cause: Cause::Closed,
    }
}

fn invalid(fault: InvalidBatch) -> AppendError {
    AppendError::NotApplied {
        cause: Cause::Invalid(fault),
    }
}

fn check_count(events: usize) -> Result<(), AppendError> {
    match events {
        0 => Err(invalid(InvalidBatch::Empty)),
        1..=limits::BATCH_EVENTS => Ok(()),
        _ => Err(invalid(InvalidBatch::TooManyEvents {
            events,
            max: limits::BATCH_EVENTS,
        })),
    }
}

fn check_event(index: usize, bytes: usize) -> Result<(), AppendError> {
    if bytes > limits::EVENT_BYTES {
        return Err(invalid(InvalidBatch::EventTooLarge {
            index,
            bytes,
            max: limits::EVENT_BYTES,
        }));
    }
    Ok(())
}
