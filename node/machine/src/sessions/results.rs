//! Results of applied batches, kept for those who ask again.

use crate::outcome::Kept;
use imbl::Vector;

/// The result of one applied batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredResult {
    /// What tells a retry from another batch under the same sequence.
    pub(crate) payload_hash: u64,
    pub(crate) log_index: u64,
    pub(crate) time_ms: u64,
    pub(crate) kept: Kept,
}

/// A result as the queue has it.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) result: StoredResult,
    /// The number of the same session's result before it; 0: none.
    pub(crate) previous: u64,
    /// Where the session stood when the result was added.
    pub(crate) slot: u32,
}

/// All sessions' results in log order, within one budget of memory.
///
/// They are numbered from 1 without gaps, and each knows the number of its
/// session's result before it, so a session needs to keep one number only.
#[derive(Debug, Clone)]
pub(crate) struct ResultQueue {
    queue: Vector<Queued>,
    /// The number of the first one in the queue.
    first: u64,
    bytes: u64,
}

/// What a result counts for besides its encoding. A constant of the log
/// version, not a size in memory: it decides what is dropped.
const RESULT_BYTES: u64 = 72;

impl Default for ResultQueue {
    fn default() -> Self {
        Self {
            queue: Vector::new(),
            first: 1,
            bytes: 0,
        }
    }
}

impl Kept {
    /// The length of what is kept outside of the result itself.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Outcomes(encoded) => encoded.len(),
            Self::Dropped | Self::Plain { .. } | Self::RevisionMismatch { .. } => 0,
        }
    }
}

impl Queued {
    fn bytes(&self) -> u64 {
        RESULT_BYTES + self.result.kept.encoded_len() as u64
    }
}

impl ResultQueue {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Adds a result and returns its number.
    pub(crate) fn push(&mut self, queued: Queued) -> u64 {
        self.bytes += queued.bytes();
        self.queue.push_back(queued);
        self.first + self.queue.len() as u64 - 1
    }

    /// Drops the oldest while the budget is exceeded: number and result of it.
    pub(crate) fn pop_beyond(&mut self, budget_bytes: u64) -> Option<(u64, Queued)> {
        if self.bytes <= budget_bytes {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.bytes -= queued.bytes();
        self.first += 1;
        Some((self.first - 1, queued))
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Queued> {
        self.queue.get(self.position(number)?)
    }

    pub(crate) fn set_slot(&mut self, number: u64, slot: u32) {
        if let Some(position) = self.position(number)
            && let Some(queued) = self.queue.get_mut(position)
        {
            queued.slot = slot;
        }
    }

    fn position(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Queued> {
        self.queue.iter()
    }
}
