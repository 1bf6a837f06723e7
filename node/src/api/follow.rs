//! Reading the log for one client: history, and then what is applied, as
//! messages of bounded size.

use huntlog_machine::DecodeError;
use huntlog_machine::history::CommittedEvent;
use huntlog_proto::encoded::{Events, Page, PageHead};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::delivery::{Delivery, Stopped};
use super::error::ApiError;
use super::message_budget::{MessageBudget, shrink};
use crate::limits;
use crate::partition::{AppliedMark, EventReader, Flow, ReadEventsError, Replica};
use crate::wire::encode_committed;

/// Why a delivery goes no further.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The client went away, or has stalled and is told so.
    Stopped(Stopped),
    /// The log could not be read.
    Failed(ApiError),
}

impl From<Stopped> for Interruption {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<ReadEventsError> for Interruption {
    fn from(error: ReadEventsError) -> Self {
        Self::Failed(error.into())
    }
}

/// The events of a page in the making.
struct Batch {
    partition: u32,
    events: Events,
    /// How many more events are wanted at all.
    wanted: u64,
    damage: Option<(u64, DecodeError)>,
}

impl Batch {
    fn add(&mut self, log_index: u64, committed: &CommittedEvent<'_>) -> Flow {
        match encode_committed(self.partition, log_index, committed, &mut self.events) {
            Ok(()) => self.wanted -= 1,
            Err(source) => self.damage = Some((log_index, source)),
        }
        if self.is_full() || self.damage.is_some() {
            Flow::Full
        } else {
            Flow::More
        }
    }

    fn is_full(&self) -> bool {
        self.events.size_bytes() >= limits::READ_MESSAGE_BYTES_TARGET || self.wanted == 0
    }
}

/// Reads events and sends them in pages.
pub(super) struct Follower {
    reader: EventReader,
    delivery: Delivery,
    /// What every page says beside its events and where to go on.
    head: PageHead,
    budget: MessageBudget,
    batch: Batch,
    permit: Option<OwnedSemaphorePermit>,
    /// When the last message was sent, or, before the first, when it began.
    last_sent: Instant,
    /// The client has been told where it stands.
    announced: bool,
}

impl Follower {
    /// Sends what `reader` finds, at most `max_events` (0: all), by way of
    /// `delivery`; what is under way counts against `budget`.
    pub(super) fn new(
        reader: EventReader,
        delivery: Delivery,
        max_events: u64,
        budget: MessageBudget,
        head: PageHead,
    ) -> Self {
        Self {
            reader,
            delivery,
            budget,
            batch: Batch {
                partition: head.partition,
                events: Events::default(),
                wanted: if max_events == 0 {
                    u64::MAX
                } else {
                    max_events
                },
                damage: None,
            },
            head,
            permit: None,
            last_sent: Instant::now(),
            announced: false,
        }
    }

    /// Sends everything up to `end`, and then, even when that is nothing, a
    /// last message that tells where to go on.
    pub(super) async fn read_to(&mut self, end: AppliedMark) -> Result<(), Interruption> {
        loop {
            let reached = self.chunk(end).await?;
            let done = reached || self.batch.wanted == 0;
            if done || self.batch.is_full() || self.is_progress_due() {
                self.flush().await?;
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Sends everything that is applied and goes on as more is, until the
    /// client goes away.
    pub(super) async fn follow(&mut self, replica: &Replica) -> Result<(), Interruption> {
        let mut marks = replica.tail().watch();
        loop {
            let end = *marks.borrow_and_update();
            loop {
                let reached = self.chunk(end).await?;
                let anything = !self.batch.events.is_empty();
                if self.batch.is_full() || (reached && anything) || self.is_progress_due() {
                    self.flush().await?;
                }
                if reached {
                    break;
                }
            }
            // What was reserved for a message that had nothing to say.
            self.permit = None;
            if !self.announced {
                self.flush().await?;
            }
            let progress_due = self.last_sent + limits::SUBSCRIBE_PROGRESS_INTERVAL;
            tokio::select! {
                changed = marks.changed() => if changed.is_err() {
                    return Err(Interruption::Failed(ApiError::Draining));
                },
                () = tokio::time::sleep_until(progress_due) => self.flush().await?,
            }
        }
    }

    /// Reads on into the batch; whether `end` was reached.
    async fn chunk(&mut self, end: AppliedMark) -> Result<bool, Interruption> {
        if self.permit.is_none() {
            self.permit = Some(self.budget.reserve(&self.delivery).await?);
        }
        let batch = &mut self.batch;
        let reached = self
            .reader
            .next_chunk(end, |index, event| batch.add(index, event))
            .await?;
        if let Some((index, source)) = self.batch.damage.take() {
            return Err(ReadEventsError::Decode { index, source }.into());
        }
        if !reached {
            // A filter that matches little must not keep the others waiting.
            tokio::task::yield_now().await;
        }
        Ok(reached)
    }

    /// Sends what there is, be it nothing but the offset to resume from.
    async fn flush(&mut self) -> Result<(), Interruption> {
        let bytes = self.batch.events.size_bytes();
        let permit = self.permit.take().map(|permit| shrink(permit, bytes));
        let page = Page {
            head: PageHead {
                next_offset: self.reader.next_offset(),
                ..self.head.clone()
            },
            events: self.batch.events.take(),
        };
        self.delivery.send(page, bytes, permit).await?;
        self.last_sent = Instant::now();
        self.announced = true;
        Ok(())
    }

    fn is_progress_due(&self) -> bool {
        self.last_sent.elapsed() >= limits::SUBSCRIBE_PROGRESS_INTERVAL
    }
}
