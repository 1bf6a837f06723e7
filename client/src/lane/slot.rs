//! One session within a lane: its sequencer, the events gathering into its
//! next batch, and the callers to be answered.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use huntlog_proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::cluster::Cluster;
use crate::encoding::{EncodedAppendRequest, encode_request};
use crate::error::{AppendError, CallError};
use crate::limits;
use crate::options::SessionOptions;
use crate::producer::{Appended, EventAppended};
use crate::sequencer::{Moment, Numbering, Resolution, Sequencer, SequencerConfig};

pub(crate) type SlotId = u64;

/// What opening a session told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) epoch: u64,
    pub(crate) last_sequence: u64,
    pub(crate) fresh: bool,
}

impl From<v1::OpenSessionResponse> for Opened {
    fn from(answer: v1::OpenSessionResponse) -> Self {
        Self {
            epoch: answer.epoch,
            last_sequence: answer.last_sequence,
            fresh: answer.fresh,
        }
    }
}

pub(crate) type OpenReply = oneshot::Sender<Result<(SlotId, Opened), CallError>>;

#[derive(Debug)]
pub(crate) enum Control {
    Open {
        name: Arc<str>,
        options: SessionOptions,
        reply: OpenReply,
    },
    /// The producer is gone after having submitted so many commands.
    Close { slot: SlotId, submitted: u64 },
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) slot: SlotId,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    Event(EncodedEvent),
    Batch {
        payload: Payload,
        numbering: Numbering,
    },
    /// Answered once everything submitted before is resolved.
    Flush(oneshot::Sender<()>),
}

pub(crate) type EventCaller = oneshot::Sender<Result<EventAppended, AppendError>>;

#[derive(Debug)]
pub(crate) struct EncodedEvent {
    /// As a batch of one, without numbers.
    pub(crate) body: Bytes,
    pub(crate) caller: EventCaller,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Who waits for a batch.
#[derive(Debug)]
pub(crate) enum Callers {
    Batch(oneshot::Sender<Result<Appended, AppendError>>),
    Events(Vec<EventCaller>),
}

/// What a batch carries through the sequencer.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) body: Bytes,
    pub(crate) events: usize,
    pub(crate) callers: Callers,
    /// Its share of the client's buffer, given back when it is resolved.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Single events on their way into one batch.
#[derive(Debug)]
struct Gathering {
    body: BytesMut,
    callers: Vec<EventCaller>,
    permit: OwnedSemaphorePermit,
    due: Moment,
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    pub(super) at: Moment,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) sequencer: Sequencer<Payload, v1::AppendResponse>,
    options: SessionOptions,
    pub(super) timeout: std::time::Duration,
    /// An opening is under way.
    pub(super) opening: bool,
    /// What it is opened with: made anew for each opening, kept through its
    /// retries.
    nonce: Option<Bytes>,
    /// Who waits for the first opening.
    pub(super) reply: Option<OpenReply>,
    gathering: Option<Gathering>,
    /// What is in flight, in the order sent.
    pub(super) sent: VecDeque<Sent>,
    /// Commands taken so far.
    taken: u64,
    /// After how many commands the slot is to go, once its producer is gone.
    pub(super) closing: Option<u64>,
    flushes: Vec<oneshot::Sender<()>>,
    /// It stands in the lane's queue of those with work.
    pub(super) queued: bool,
    /// When the lane looks at it next.
    pub(super) timer: Option<Moment>,
}

impl Slot {
    pub(super) fn new(
        cluster: &Cluster,
        name: Arc<str>,
        options: SessionOptions,
        reply: OpenReply,
    ) -> Self {
        Self {
            name,
            sequencer: Sequencer::new(SequencerConfig {
                window: limits::IN_FLIGHT_BATCHES_PER_SESSION,
                answer_timeout: cluster.options.answer_timeout,
                seed: cluster.next_seed(),
            }),
            timeout: options
                .timeout
                .unwrap_or(cluster.options.timeout)
                .min(limits::TIMEOUT),
            options,
            opening: false,
            nonce: None,
            reply: Some(reply),
            gathering: None,
            sent: VecDeque::new(),
            taken: 0,
            closing: None,
            flushes: Vec::new(),
            queued: false,
            timer: None,
        }
    }

    pub(super) fn begin_opening(&mut self, cluster: &Cluster) -> Bytes {
        self.opening = true;
        self.nonce
            .get_or_insert_with(|| {
                let mut rng = StdRng::seed_from_u64(cluster.next_seed());
                Bytes::copy_from_slice(&rng.random::<[u8; 16]>())
            })
            .clone()
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        self.opening = false;
        self.nonce = None;
        self.sequencer
            .opened(opened.epoch, opened.last_sequence, opened.fresh);
    }

    pub(super) fn take(&mut self, work: Work, now: Moment) {
        self.taken += 1;
        match work {
            Work::Event(event) => self.gather(event, now),
            Work::Batch { payload, numbering } => {
                self.seal(now);
                self.submit(payload, numbering, now);
            }
            Work::Flush(done) => {
                self.seal(now);
                self.flushes.push(done);
            }
        }
    }

    fn gather(&mut self, event: EncodedEvent, now: Moment) {
        let too_full = self.gathering.as_ref().is_some_and(|gathering| {
            gathering.body.len() + event.body.len() > self.max_batch_bytes()
        });
        if too_full {
            self.seal(now);
        }
        let due = now + self.options.linger;
        if let Some(gathering) = &mut self.gathering {
            gathering.body.put(event.body);
            gathering.callers.push(event.caller);
            gathering.permit.merge(event.permit);
        } else {
            self.gathering = Some(Gathering {
                body: BytesMut::from(event.body),
                callers: vec![event.caller],
                permit: event.permit,
                due,
            });
        }
        let gathered = self.gathering.as_ref().map_or(0, |g| g.callers.len());
        if gathered >= self.options.max_batch_events.clamp(1, limits::BATCH_EVENTS) {
            self.seal(now);
        }
    }

    fn max_batch_bytes(&self) -> usize {
        self.options.max_batch_bytes.min(limits::BATCH_BYTES)
    }

    /// Makes a batch of what has gathered.
    fn seal(&mut self, now: Moment) {
        if let Some(gathering) = self.gathering.take() {
            let payload = Payload {
                events: gathering.callers.len(),
                body: gathering.body.freeze(),
                callers: Callers::Events(gathering.callers),
                permit: gathering.permit,
            };
            self.submit(payload, Numbering::Next, now);
        }
    }

    pub(super) fn seal_if_due(&mut self, now: Moment) {
        if self.gathering.as_ref().is_some_and(|g| g.due <= now) {
            self.seal(now);
        }
    }

    fn submit(&mut self, payload: Payload, numbering: Numbering, now: Moment) {
        let deadline = now + self.timeout;
        if let Err((payload, error)) = self.sequencer.submit(payload, numbering, deadline) {
            answer(payload.callers, Err(error));
        }
    }

    /// The next request to send, and its size.
    pub(super) fn next_request(
        &mut self,
        partition: u32,
        now: Moment,
    ) -> Option<(EncodedAppendRequest, usize)> {
        if self.sequencer.is_idle() {
            // Waiting for company would only delay the event.
            self.seal(now);
        }
        let out = self.sequencer.next_send(now)?;
        let request = encode_request(
            partition,
            &self.name,
            out.epoch,
            out.sequence,
            &out.payload.body,
        );
        let bytes = request.batch.len();
        self.sent.push_back(Sent { bytes, at: now });
        Some((request, bytes))
    }

    /// Answers the callers of what is resolved. True when the cluster's answer
    /// breaks the contract.
    pub(super) fn deliver(&mut self, cluster: &Cluster) -> bool {
        let mut broken = false;
        for done in self.sequencer.take_resolved() {
            broken |= deliver_one(cluster, done);
        }
        if self.sequencer.pending() == 0 && self.gathering.is_none() {
            for flush in self.flushes.drain(..) {
                let _ = flush.send(());
            }
        }
        if let Some(cause) = self.sequencer.dead().cloned()
            && let Some(gathering) = self.gathering.take()
        {
            let error = AppendError::NotApplied { cause };
            answer(Callers::Events(gathering.callers), Err(error));
        }
        broken
    }

    /// Whether it is worth having a session open.
    pub(super) fn is_wanted(&self) -> bool {
        self.closing.is_none() || self.sequencer.pending() > 0 || self.gathering.is_some()
    }

    pub(super) fn has_work(&self) -> bool {
        self.gathering.is_some() || self.sequencer.pending() > self.sequencer.in_flight()
    }

    pub(super) fn next_timer(&self) -> Option<Moment> {
        let linger = self.gathering.as_ref().map(|gathering| gathering.due);
        self.sequencer.next_timer().into_iter().chain(linger).min()
    }

    pub(super) fn is_done(&self, orphaned: bool) -> bool {
        let all_taken = self
            .closing
            .is_some_and(|submitted| orphaned || self.taken >= submitted);
        all_taken
            && self.reply.is_none()
            && self.sequencer.pending() == 0
            && self.gathering.is_none()
    }
}

fn deliver_one(cluster: &Cluster, done: Resolution<Payload, v1::AppendResponse>) -> bool {
    let mut broken = false;
    let result = done.result.map(|answer| {
        let outcomes = if answer.outcomes_dropped {
            None
        } else if answer.outcomes.len() == done.payload.events {
            Some(answer.outcomes)
        } else {
            broken = true;
            None
        };
        Appended {
            sequence: answer.sequence,
            duplicate: answer.duplicate,
            log_index: answer.log_index,
            committed_at: answer.committed_at,
            outcomes,
            attempts: done.attempts,
            sent_at: cluster.at(done.last_sent.unwrap_or_default()).into_std(),
        }
    });
    answer(done.payload.callers, result);
    drop(done.payload.permit);
    broken
}

/// Callers that have gone away do not mind.
fn answer(callers: Callers, result: Result<Appended, AppendError>) {
    match (callers, result) {
        (Callers::Batch(caller), result) => drop(caller.send(result)),
        (Callers::Events(callers), Ok(batch)) => {
            for (caller, event) in callers.into_iter().zip(EventAppended::split(batch)) {
                let _ = caller.send(Ok(event));
            }
        }
        (Callers::Events(callers), Err(error)) => {
            for caller in callers {
                let _ = caller.send(Err(error.clone()));
            }
        }
    }
}
