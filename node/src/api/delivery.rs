//! From the task that reads the log to the transport that takes messages at the
//! client's pace: a few messages ahead, never more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use huntlog_proto::encoded::Page;
use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tonic::Status;

use super::error::ApiError;
use super::status::Operation;
use crate::limits;

struct Message {
    page: Page,
    size_bytes: usize,
    /// Held until the transport asks for the next one.
    budget: Option<OwnedSemaphorePermit>,
}

enum End {
    /// After what is queued.
    Finished(Result<(), Status>),
    /// At once, without what was queued.
    Stalled,
}

struct State {
    queue: VecDeque<Message>,
    queued_bytes: usize,
    /// Of the message that the transport has taken and may not have sent.
    in_hand: Option<OwnedSemaphorePermit>,
    end: Option<End>,
    abandoned: bool,
    reader: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was taken, or the stream is abandoned.
    taken: Notify,
    /// The stream is abandoned.
    abandoned: Notify,
}

/// A queue and the stream that empties it.
pub(super) fn delivery(first_offset: u64) -> (Delivery, DeliveryStream) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::with_capacity(limits::READ_MESSAGES_AHEAD_MAX),
            queued_bytes: 0,
            in_hand: None,
            end: None,
            abandoned: false,
            reader: None,
        }),
        taken: Notify::new(),
        abandoned: Notify::new(),
    });
    let stream = DeliveryStream {
        shared: shared.clone(),
        next_offset: first_offset,
        ended: false,
    };
    (Delivery { shared }, stream)
}

/// Where messages are put.
pub(super) struct Delivery {
    shared: Arc<Shared>,
}

impl Delivery {
    /// Puts `page` in the queue once there is room, and gives the client up
    /// when it takes nothing for [`limits::READER_STALL_MAX`].
    ///
    /// # Errors
    /// When the client went away or has stalled.
    pub(super) async fn send(
        &self,
        page: Page,
        size_bytes: usize,
        budget: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Stopped> {
        loop {
            // Registered before the look at the state, so that none is missed.
            let taken = self.shared.taken.notified();
            {
                let mut state = self.shared.state.lock();
                if state.abandoned || state.end.is_some() {
                    return Err(Stopped::Gone);
                }
                if state.has_room_for(size_bytes) {
                    state.queued_bytes += size_bytes;
                    state.queue.push_back(Message {
                        page,
                        size_bytes,
                        budget,
                    });
                    state.wake();
                    return Ok(());
                }
            }
            self.or_stalled(taken).await?;
        }
    }

    /// Waits until the transport has sent everything, and gives the client up
    /// when it takes nothing for [`limits::READER_STALL_MAX`].
    ///
    /// # Errors
    /// When the client went away or has stalled.
    pub(super) async fn emptied(&self) -> Result<(), Stopped> {
        loop {
            let taken = self.shared.taken.notified();
            {
                let state = self.shared.state.lock();
                if state.abandoned || state.end.is_some() {
                    return Err(Stopped::Gone);
                }
                if state.queue.is_empty() && state.in_hand.is_none() {
                    return Ok(());
                }
            }
            self.or_stalled(taken).await?;
        }
    }

    /// Waits for `taken`, for as long as a client may take nothing.
    async fn or_stalled(&self, taken: Notified<'_>) -> Result<(), Stopped> {
        tokio::time::timeout(limits::READER_STALL_MAX, taken)
            .await
            .map_err(|_| {
                self.stall();
                Stopped::Stalled
            })
    }

    /// Watches over the delivery while somebody else delivers.
    pub(super) fn watch(&self) -> DeliveryWatch {
        DeliveryWatch {
            shared: self.shared.clone(),
        }
    }

    fn stall(&self) {
        let mut state = self.shared.state.lock();
        // The transport may hold one more message until the connection ends;
        // what is prepared here is let go.
        state.queue.clear();
        state.queued_bytes = 0;
        state.in_hand = None;
        state.end = Some(End::Stalled);
        state.wake();
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.watch()
            .finish(Err(ApiError::Dropped.into_status(Operation::Read)));
    }
}

/// Sees when a delivery has no reader any more, and ends it.
pub(super) struct DeliveryWatch {
    shared: Arc<Shared>,
}

impl DeliveryWatch {
    /// Ends the stream after what is queued, unless it has ended before.
    pub(super) fn finish(&self, result: Result<(), Status>) {
        let mut state = self.shared.state.lock();
        if state.end.is_none() {
            state.end = Some(End::Finished(result));
            state.wake();
        }
    }

    /// Completes once nobody reads the stream any more.
    pub(super) async fn abandoned(&self) {
        loop {
            let abandoned = self.shared.abandoned.notified();
            if self.shared.state.lock().abandoned {
                return;
            }
            abandoned.await;
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nobody reads the stream any more.
    Gone,
    /// The client took nothing for too long.
    Stalled,
}

impl State {
    /// One message always has room; more only within the byte limit.
    fn has_room_for(&self, size_bytes: usize) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < limits::READ_MESSAGES_AHEAD_MAX
                && self.queued_bytes + size_bytes <= limits::READER_BUFFER_BYTES_MAX)
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The messages of a reader or subscriber, as the transport takes them.
pub struct DeliveryStream {
    shared: Arc<Shared>,
    /// After what the transport has taken.
    next_offset: u64,
    ended: bool,
}

impl Stream for DeliveryStream {
    type Item = Result<Page, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut state = this.shared.state.lock();
        // That it asks for more means that it has sent what it had.
        if state.in_hand.take().is_some() {
            this.shared.taken.notify_waiters();
        }
        if let Some(message) = state.queue.pop_front() {
            state.queued_bytes -= message.size_bytes;
            state.in_hand = message.budget;
            drop(state);
            this.shared.taken.notify_waiters();
            this.next_offset = message.page.head.next_offset;
            return Poll::Ready(Some(Ok(message.page)));
        }
        let item = match state.end.take() {
            None => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(End::Finished(Ok(()))) => None,
            Some(End::Finished(Err(status))) => Some(Err(status)),
            Some(End::Stalled) => Some(Err(ApiError::Stalled {
                next_offset: this.next_offset,
            }
            .into_status(Operation::Read))),
        };
        drop(state);
        this.ended = true;
        Poll::Ready(item)
    }
}

impl Drop for DeliveryStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.abandoned = true;
        state.queue.clear();
        state.in_hand = None;
        drop(state);
        self.shared.taken.notify_waiters();
        self.shared.abandoned.notify_waiters();
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
