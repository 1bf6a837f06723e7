//! What an answer, or the loss of all answers to come, means for the batches in
//! flight.

use std::sync::Arc;

use super::{Advice, Moment, Phase, Sequencer};
use crate::error::{AppendError, Cause, Disposition, Refusal};
use crate::status::{Handling, handling};

impl<P, R> Sequencer<P, R> {
    /// The answer to the oldest unanswered batch of the current stream.
    pub fn answered(
        &mut self,
        epoch: u64,
        sequence: u64,
        answer: Result<R, Refusal>,
        now: Moment,
    ) -> Advice {
        if epoch != self.epoch {
            return Advice::Continue;
        }
        if self
            .in_flight
            .front()
            .is_none_or(|first| first.sequence != sequence)
        {
            return Advice::BreakStream;
        }
        self.in_flight.pop_front();
        if let Some(next) = self.in_flight.front_mut() {
            // Its own wait for an answer begins here: they come one by one.
            next.sent = next.sent.max(now);
        }
        let advice = match answer {
            Ok(result) => {
                self.acknowledge(sequence, result);
                Advice::Continue
            }
            Err(refusal) => self.refused(sequence, Arc::new(refusal), now),
        };
        self.settle_if_quiet();
        advice
    }

    fn acknowledge(&mut self, sequence: u64, result: R) {
        self.backoff.reset();
        self.acknowledged = self.acknowledged.max(sequence);
        if let Some(index) = self.find(sequence) {
            self.resolve(index, Ok(result));
        }
    }

    fn refused(&mut self, sequence: u64, refusal: Arc<Refusal>, now: Moment) -> Advice {
        self.last_refusal = Some(Arc::clone(&refusal));
        let Some(index) = self.find(sequence) else {
            return Advice::Continue;
        };
        if refusal.disposition == Disposition::Unknown {
            self.pending[index].unknown = true;
        }
        let handling = handling(&refusal);
        if matches!(self.phase, Phase::Dead(_)) && handling != Handling::Decided {
            let cause = self.dead().cloned().unwrap_or(Cause::Closed);
            let error = AppendError::new(self.pending[index].disposition(), cause);
            self.resolve(index, Err(error));
            return Advice::Continue;
        }
        match handling {
            Handling::Unavailable => {
                self.settling = true;
                return Advice::Unavailable(refusal);
            }
            Handling::Overloaded => {
                self.settling = true;
                self.hold_until = now + self.backoff.next(refusal.retry_after);
            }
            Handling::Gap => self.gap(sequence, &refusal, now),
            Handling::Fenced => self.die(Cause::Fenced),
            Handling::SessionForgotten => {
                self.settling = true;
                self.reopen = true;
                self.forgotten = true;
            }
            // The machine's recorded decision about this very batch: an
            // outcome, whatever earlier attempts met.
            Handling::Decided => {
                self.acknowledged = self.acknowledged.max(sequence);
                let cause = Cause::Refused(refusal);
                self.resolve(index, Err(AppendError::NotApplied { cause }));
            }
            Handling::Taken => {
                self.acknowledged = self.acknowledged.max(sequence);
                let error =
                    AppendError::new(self.pending[index].disposition(), Cause::Refused(refusal));
                self.resolve(index, Err(error));
            }
            Handling::Invalid => self.abandon(index, Cause::Refused(refusal)),
            Handling::Unsure => {
                self.abandon(index, Cause::Refused(refusal));
                self.reopen = true;
            }
        }
        Advice::Continue
    }

    /// The session stands elsewhere than the batch supposed. Usually its
    /// predecessor was refused and goes again in a moment.
    fn gap(&mut self, sequence: u64, refusal: &Refusal, now: Moment) {
        self.settling = true;
        if self
            .pending
            .front()
            .is_some_and(|first| first.sequence == sequence)
        {
            // It has no predecessor here to wait for: do not spin.
            self.hold_until = now + self.backoff.next(refusal.retry_after);
        }
        let Some(expected) = refusal.number("expected") else {
            return;
        };
        if expected <= self.acknowledged {
            self.die(Cause::SequenceRegressed {
                acknowledged: self.acknowledged,
                reported: expected.saturating_sub(1),
            });
        } else if self
            .pending
            .front()
            .is_some_and(|first| expected < first.sequence)
        {
            // Nothing we hold fills it; opening again numbers afresh.
            self.reopen = true;
        }
    }

    /// The stream is gone: whatever was in flight may or may not be applied.
    pub fn stream_lost(&mut self) {
        for lost in std::mem::take(&mut self.in_flight) {
            if let Some(index) = self.find(lost.sequence) {
                self.pending[index].unknown = true;
            }
        }
        if let Phase::Dead(cause) = &self.phase {
            let cause = cause.clone();
            self.resolve_all(&cause);
        }
        self.settling = true;
        self.settle_if_quiet();
    }
}
