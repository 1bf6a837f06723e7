//! The newest applied entries, in memory: what subscribers and most readers
//! read.
//!
//! Readers pull at their own pace and fall back to the disk once they are
//! slower than the tail is long, so that no reader costs the writers anything.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::limits;
use crate::raft::AppliedEntry;

/// How far this node has applied the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedMark {
    /// The next log index to be applied.
    pub next_index: u64,
    /// One past the last accepted event.
    pub end_offset: u64,
    /// The log's time, in milliseconds since 1970.
    pub time_ms: u64,
}

/// What the tail says of a log index.
#[derive(Debug)]
pub enum TailLookup {
    /// The entry.
    Entry(Arc<AppliedEntry>),
    /// It is older than the tail: ask the disk.
    Older,
    /// It is not applied yet.
    NotYet,
}

/// A bounded window on the newest applied entries.
pub struct Tail {
    window: RwLock<Window>,
    mark: watch::Sender<AppliedMark>,
}

#[derive(Default)]
struct Window {
    /// Consecutive log indexes.
    entries: VecDeque<Arc<AppliedEntry>>,
    bytes: usize,
}

impl Tail {
    /// An empty tail of a log that is applied up to `mark`.
    pub fn new(mark: AppliedMark) -> Self {
        Self {
            window: RwLock::default(),
            mark: watch::Sender::new(mark),
        }
    }

    /// Adds the entry just applied.
    pub fn push(&self, entry: AppliedEntry, mark: AppliedMark) {
        let mut window = self.window.write();
        window.bytes += entry.memory_bytes();
        window.entries.push_back(Arc::new(entry));
        while window.bytes > limits::TAIL_CACHE_BYTES && window.entries.len() > 1 {
            if let Some(oldest) = window.entries.pop_front() {
                window.bytes -= oldest.memory_bytes();
            }
        }
        drop(window);
        self.mark.send_replace(mark);
    }

    /// Starts over at `mark`, after a snapshot has been installed.
    pub fn reset(&self, mark: AppliedMark) {
        *self.window.write() = Window::default();
        self.mark.send_replace(mark);
    }

    /// How far the log is applied.
    pub fn mark(&self) -> AppliedMark {
        *self.mark.borrow()
    }

    /// Follows how far the log is applied.
    pub fn watch(&self) -> watch::Receiver<AppliedMark> {
        self.mark.subscribe()
    }

    /// The entry at `index`.
    pub fn get(&self, index: u64) -> TailLookup {
        let window = self.window.read();
        let Some(first) = window.entries.front() else {
            return if index < self.mark.borrow().next_index {
                TailLookup::Older
            } else {
                TailLookup::NotYet
            };
        };
        let Some(position) = index.checked_sub(first.index()) else {
            return TailLookup::Older;
        };
        usize::try_from(position)
            .ok()
            .and_then(|position| window.entries.get(position))
            .map_or(TailLookup::NotYet, |entry| TailLookup::Entry(entry.clone()))
    }

    /// The index of the entry that holds `offset`, or of the first after it;
    /// `None` when it is older than the tail, or not applied yet.
    pub fn index_of_offset(&self, offset: u64) -> Option<u64> {
        let window = self.window.read();
        let first = window.entries.front()?;
        if offset < first.first_offset {
            return None;
        }
        let position = window
            .entries
            .partition_point(|entry| entry.first_offset + entry.accepted <= offset);
        window.entries.get(position).map(|entry| entry.index())
    }
}
