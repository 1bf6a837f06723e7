//! Reading history over whichever nodes are there.

use std::collections::VecDeque;
use std::sync::Arc;

use huntlog_proto::v1;
use huntlog_proto::v1::CommittedEvent;

use crate::cluster::Cluster;
use crate::cursor::Cursor;
use crate::error::CallError;
use crate::pages::{Page, Pages};

/// A read under way. It ends at the limit asked for, or at the end of what was
/// committed when its node was asked.
#[derive(Debug)]
pub struct Reader {
    pages: Pages<v1::ReadResponse>,
    request: v1::ReadRequest,
    cursor: Cursor,
    buffer: VecDeque<CommittedEvent>,
    end_offset: Option<u64>,
    staleness: Option<v1::Staleness>,
    done: bool,
}

impl Reader {
    pub(crate) fn new(cluster: Arc<Cluster>, mut request: v1::ReadRequest) -> Self {
        request.partition = cluster.options.partition;
        Self {
            cursor: Cursor::new(request.from_offset, is_filter(request.filter.as_ref())),
            pages: Pages::new(cluster),
            request,
            buffer: VecDeque::new(),
            end_offset: None,
            staleness: None,
            done: false,
        }
    }

    /// The next event, None after the last.
    ///
    /// # Errors
    /// OUT_OF_RANGE before the retained history or beyond the end; no node
    /// that answers within the client's time-out; a node that breaks the
    /// contract. Ends the read.
    pub async fn next(&mut self) -> Result<Option<CommittedEvent>, CallError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(Some(event));
            }
            match self.next_page().await? {
                Some(events) => self.buffer = events.into(),
                None => return Ok(None),
            }
        }
    }

    /// The next events as they come, at least one unless a filter leaves none;
    /// None after the last. Not to be mixed with [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<CommittedEvent>>, CallError> {
        if self.done {
            return Ok(None);
        }
        let request = &self.request;
        let page = self
            .pages
            .next(|attempt| {
                let request = request.clone();
                async move { attempt.events().read(request).await }
            })
            .await?;
        let Page::Message(mut page) = page else {
            self.done = true;
            return Ok(None);
        };
        let taken = self.cursor.take(&mut page.events, page.next_offset);
        taken.map_err(|fault| self.pages.broken(fault))?;
        self.request.from_offset = self.cursor.next_offset();
        self.end_offset = Some(page.end_offset);
        self.staleness = page.staleness;
        if self.request.max_events > 0 {
            let delivered = page.events.len() as u64;
            self.request.max_events = self.request.max_events.saturating_sub(delivered);
            self.done = self.request.max_events == 0;
        }
        Ok(Some(page.events))
    }

    /// Where another read goes on: every matching event below it has been
    /// taken from the cluster.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.cursor.next_offset()
    }

    /// The end of what was committed as the latest page saw it, exclusive.
    #[must_use]
    pub fn end_offset(&self) -> Option<u64> {
        self.end_offset
    }

    /// How old the latest page can be; only in stale reads.
    #[must_use]
    pub fn staleness(&self) -> Option<&v1::Staleness> {
        self.staleness.as_ref()
    }
}

/// Whether it leaves anything out.
pub(crate) fn is_filter(filter: Option<&v1::Filter>) -> bool {
    filter.is_some_and(|filter| {
        !(filter.hunts.is_empty() && filter.players.is_empty() && filter.types.is_empty())
    })
}
