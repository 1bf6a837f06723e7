//! Closing the holes that failed batches leave among a session's numbers.

use std::collections::VecDeque;

use super::{Pending, Phase, Sequencer};
use crate::error::{AppendError, Cause};

impl<P, R> Sequencer<P, R> {
    /// Once nothing is in flight after a refusal, a loss or a deadline: sends
    /// everything unresolved again, after closing holes.
    pub(super) fn settle_if_quiet(&mut self) {
        if !self.settling || !self.in_flight.is_empty() || !matches!(self.phase, Phase::Open) {
            return;
        }
        self.settling = false;
        self.cursor = 0;
        // A number that is used up is no hole, whatever its caller was told.
        let used_up = self.acknowledged;
        self.pending
            .retain(|batch| !(batch.is_abandoned() && batch.sequence <= used_up));
        let hole = self.pending.iter().position(Pending::is_abandoned);
        let behind_is_certain =
            |from: usize| self.pending.range(from..).all(|batch| !batch.unknown);
        match hole {
            _ if self.reopen => self.begin_opening(),
            None => {}
            Some(first) if behind_is_certain(first) => self.close_in_place(first),
            Some(_) => self.begin_opening(),
        }
    }

    fn begin_opening(&mut self) {
        self.reopen = false;
        self.phase = Phase::Opening;
    }

    /// Every attempt of what is behind the hole was refused for certain, or
    /// never made: no copy is left that a new number could be confused with.
    fn close_in_place(&mut self, first: usize) {
        let next = self.pending[first].sequence;
        let behind = self.pending.split_off(first);
        self.number_from(next, behind);
    }

    /// A new epoch stands behind everything sent so far, `last_sequence` of
    /// which was applied and nothing more ever will be.
    pub(super) fn renumber_after_fence(&mut self, last_sequence: u64, forgotten: bool) {
        let mut above = VecDeque::new();
        for mut batch in std::mem::take(&mut self.pending) {
            if forgotten && batch.unknown {
                self.fail(batch, Cause::SessionForgotten);
            } else if forgotten {
                above.push_back(batch);
            } else if batch.sequence <= last_sequence && (batch.unknown || batch.pinned) {
                // Applied, or for a fixed number to be compared: its outcome
                // comes with the duplicate.
                if !batch.is_abandoned() {
                    self.pending.push_back(batch);
                }
            } else {
                batch.unknown = false;
                above.push_back(batch);
            }
        }
        self.number_from(last_sequence + 1, above);
    }

    /// Appends `batches` to those pending, numbered from `next`, without those
    /// that are abandoned.
    fn number_from(&mut self, mut next: u64, batches: VecDeque<Pending<P>>) {
        for mut batch in batches {
            if batch.is_abandoned() {
                continue;
            }
            if batch.pinned && batch.sequence != next {
                self.fail(batch, Cause::EarlierBatchFailed);
                continue;
            }
            batch.sequence = next;
            next += 1;
            self.pending.push_back(batch);
        }
        self.next_sequence = next.max(self.acknowledged + 1);
    }

    fn fail(&mut self, batch: Pending<P>, cause: Cause) {
        let error = AppendError::new(batch.disposition(), cause);
        self.pending.push_back(batch);
        self.resolve(self.pending.len() - 1, Err(error));
    }
}
