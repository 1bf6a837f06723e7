//! The log's tail in memory: everything not yet durable or not yet indexed, and as much of the rest as the budget allows.

use crate::entry::LogEntry;
use std::collections::VecDeque;

/// Memory an entry takes beside its payload, roughly.
const OVERHEAD_BYTES: usize = 160;

#[derive(Debug, Clone)]
pub(crate) struct TailEntry {
    pub entry: LogEntry,
    /// The operation that wrote it.
    pub stamp: u64,
}

pub(crate) fn bytes_of(entry: &LogEntry) -> usize {
    entry.payload.len() + OVERHEAD_BYTES
}

/// One entry of some partition's tail, in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub partition: u32,
    pub index: u64,
    pub stamp: u64,
}

/// The budget of all partitions' tails together.
#[derive(Debug)]
pub(crate) struct TailBudget {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    limit: usize,
}

impl TailBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            arrivals: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    pub(crate) fn arrived(&mut self, arrival: Arrival, bytes: usize) {
        self.arrivals.push_back(arrival);
        self.bytes += bytes;
    }

    pub(crate) fn left(&mut self, bytes: usize) {
        self.bytes -= bytes.min(self.bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest arrival, if the budget is exceeded and everything through `indexed` may go.
    pub(crate) fn next_to_leave(&mut self, indexed: u64) -> Option<Arrival> {
        if self.bytes <= self.limit || self.arrivals.front()?.stamp > indexed {
            return None;
        }
        self.arrivals.pop_front()
    }
}
