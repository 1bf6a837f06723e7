//! Following the log over whichever nodes are there.

use std::collections::VecDeque;
use std::sync::Arc;

use huntlog_planted::{Bug, is_planted};
use huntlog_proto::v1;
use huntlog_proto::v1::CommittedEvent;

use crate::cluster::Cluster;
use crate::cursor::Cursor;
use crate::error::CallError;
use crate::pages::{Page, Pages};
use crate::reader::is_filter;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the event at this offset.
    Offset(u64),
    /// With what is committed after the node has taken the subscription, which
    /// is certain once [`Subscription::next_page`] has answered for the first
    /// time.
    End,
}

/// A subscription under way. Never ends by itself.
#[derive(Debug)]
pub struct Subscription {
    pages: Pages<v1::SubscribeResponse>,
    partition: u32,
    filter: Option<v1::Filter>,
    /// None until a node has said where the end is.
    cursor: Option<Cursor>,
    buffer: VecDeque<CommittedEvent>,
}

impl Subscription {
    pub(crate) fn new(cluster: Arc<Cluster>, start: Start, filter: Option<v1::Filter>) -> Self {
        let cursor = match start {
            Start::Offset(offset) => Some(Cursor::new(offset, is_filter(filter.as_ref()))),
            Start::End => None,
        };
        Self {
            partition: cluster.options.partition,
            pages: Pages::new(cluster),
            filter,
            cursor,
            buffer: VecDeque::new(),
        }
    }

    /// The next event. Can be dropped and called again without losing one.
    ///
    /// # Errors
    /// OUT_OF_RANGE before the retained history or beyond the end; no node
    /// that answers within the client's time-out, after which it may be called
    /// again to go on; a node that breaks the contract.
    pub async fn next(&mut self) -> Result<CommittedEvent, CallError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(event);
            }
            self.buffer = self.next_page().await?.into();
        }
    }

    /// The next events as they come; none when the node only reports progress,
    /// which it does at least every second. Not to be mixed with
    /// [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_page(&mut self) -> Result<Vec<CommittedEvent>, CallError> {
        let request = self.request();
        let page = loop {
            let page = self
                .pages
                .next(|attempt| {
                    let request = request.clone();
                    async move { attempt.events().subscribe(request).await }
                })
                .await?;
            // A node that ends a subscription, as one does that shuts down, is
            // followed by the next.
            if let Page::Message(page) = page {
                break page;
            }
            self.pages.pause().await;
        };
        let filtered = is_filter(self.filter.as_ref());
        let cursor = self.cursor.get_or_insert_with(|| {
            let first = page.events.first().map(|event| event.offset);
            Cursor::new(first.unwrap_or(page.next_offset), filtered)
        });
        let mut events = page.events;
        match cursor.take(&mut events, page.next_offset) {
            Ok(()) => Ok(events),
            Err(fault) => Err(self.pages.broken(fault)),
        }
    }

    fn request(&self) -> v1::SubscribeRequest {
        use v1::subscribe_request::Start as At;
        let too_far = u64::from(is_planted(Bug::SubscriptionSkips));
        let start = match &self.cursor {
            Some(cursor) => At::FromOffset(cursor.next_offset() + too_far),
            None => At::FromEnd(()),
        };
        v1::SubscribeRequest {
            partition: self.partition,
            start: Some(start),
            filter: self.filter.clone(),
        }
    }

    /// Where another subscription goes on: every matching event below it has
    /// been taken from the cluster. None until the first page when it began at
    /// the end.
    #[must_use]
    pub fn next_offset(&self) -> Option<u64> {
        self.cursor.as_ref().map(Cursor::next_offset)
    }
}
