//! One session's batches: their numbers, what has become of each, and what may
//! be sent when. This is where exactly-once is decided on the client's side,
//! without IO, clock or randomness from outside: the client's connections drive
//! it in production, a simulation can drive it as well.
//!
//! The rules, with the invariants of the design they keep:
//!
//! - A batch is sent under one number until an answer to it arrives (I3). Up
//!   to a window of batches is under way; they are answered in the order sent.
//! - After a refusal, nothing is sent until all that is under way is answered;
//!   then everything unresolved goes again, in order, from the first. So one
//!   copy of a batch at most is under way on a stream, and each answer belongs
//!   to one attempt.
//! - An attempt whose answer was lost, or says UNKNOWN, makes its batch
//!   *unknown*, and later refusals do not change that (I10). What ends it is an
//!   outcome, a duplicate's included, or a fence.
//! - A batch that fails without using up its number leaves a hole, which the
//!   cluster would refuse to pass. If nothing behind the hole can have reached
//!   the cluster, the batches behind it move up. Otherwise the session is
//!   opened again: the new epoch fences every copy still in the network, and
//!   the answer tells the last sequence applied. What is at or below it was
//!   applied and is sent again for its outcome; what is above was not and never
//!   will be, so that it can safely get new numbers.
//! - A session that is unknown to the cluster, or comes back `fresh`, was
//!   forgotten. What is unknown then stays unknown and goes back to the caller;
//!   only what certainly was not applied is numbered anew (I3). A session that
//!   is forgotten, and opened by someone else, while a batch of ours is under
//!   way could not be told apart from one that goes on; the cluster forgets
//!   after an hour at the earliest, and [`limits::TIMEOUT`] keeps every batch
//!   shorter than that.
//! - A batch with a number fixed by its caller is never renumbered: it fails
//!   instead.

mod answers;
mod hole;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::{AppendError, Cause, Disposition, Refusal};
use crate::limits;
use crate::status::{Handling, handling};

/// A point in time, as the time passed since the driver's start.
pub type Moment = Duration;

/// How a sequencer behaves.
#[derive(Debug, Clone)]
pub struct SequencerConfig {
    /// Batches under way at most.
    pub window: usize,
    /// How long a batch may stay unanswered before its stream counts as dead.
    pub answer_timeout: Duration,
    /// Seeds the jitter of retries.
    pub seed: u64,
}

/// The number a batch is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// The next one; it may change while the batch certainly is not applied.
    Next,
    /// Exactly this one.
    At(u64),
}

/// A batch whose fate is settled, as far as it ever will be.
#[derive(Debug)]
pub struct Resolution<P, R> {
    /// What was submitted.
    pub payload: P,
    /// The number it had last.
    pub sequence: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// When the attempt that was answered, or the last one, was sent.
    pub last_sent: Option<Moment>,
    /// What became of it.
    pub result: Result<R, AppendError>,
}

/// A batch to be sent now.
#[derive(Debug)]
pub struct Outgoing<'a, P> {
    /// The epoch to send it under.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
    /// What to send.
    pub payload: &'a P,
}

/// What the driver has to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Nothing in particular.
    Continue,
    /// No leader behind that node now: pause the connection, or change it,
    /// before [`Sequencer::next_send`] is asked again.
    Unavailable(Arc<Refusal>),
    /// The answer fits nothing that was sent: the stream cannot be trusted.
    BreakStream,
}

#[derive(Debug)]
struct Pending<P> {
    sequence: u64,
    /// Its caller fixed the number.
    pinned: bool,
    /// None once its caller has been answered while the number's fate was
    /// still open.
    payload: Option<P>,
    deadline: Moment,
    attempts: u32,
    last_sent: Option<Moment>,
    /// Some attempt may have been applied, or may yet be.
    unknown: bool,
}

impl<P> Pending<P> {
    fn is_abandoned(&self) -> bool {
        self.payload.is_none()
    }

    fn disposition(&self) -> Disposition {
        if self.unknown {
            Disposition::Unknown
        } else {
            Disposition::NotApplied
        }
    }
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    sent: Moment,
}

#[derive(Debug)]
enum Phase {
    /// An opening is wanted or under way; nothing is in flight.
    Opening,
    Open,
    /// Nothing is sent any more; what is in flight may still be answered.
    Dead(Cause),
}

/// See the module's description. `P` is what a batch carries, `R` what an
/// acknowledgement brings.
#[derive(Debug)]
pub struct Sequencer<P, R> {
    config: SequencerConfig,
    phase: Phase,
    epoch: u64,
    /// The last sequence applied when the session was last opened.
    opened_at: u64,
    /// The highest sequence known to be used up.
    acknowledged: u64,
    next_sequence: u64,
    /// By sequence, ascending.
    pending: VecDeque<Pending<P>>,
    /// What the current stream owes answers for, in the order sent.
    in_flight: VecDeque<InFlight>,
    /// Where sending goes on.
    cursor: u64,
    /// Nothing is sent until all in flight is answered; then `settle` decides.
    settling: bool,
    /// Once settled, the session has to be opened again.
    reopen: bool,
    /// The cluster said that it does not know the session any more.
    forgotten: bool,
    hold_until: Moment,
    backoff: Backoff,
    last_refusal: Option<Arc<Refusal>>,
    resolved: Vec<Resolution<P, R>>,
}

impl<P, R> Sequencer<P, R> {
    /// A session that is yet to be opened.
    #[must_use]
    pub fn new(config: SequencerConfig) -> Self {
        let backoff = Backoff::new(
            limits::BACKOFF_MIN,
            limits::OVERLOAD_BACKOFF_MAX,
            config.seed,
        );
        Self {
            config,
            phase: Phase::Opening,
            epoch: 0,
            opened_at: 0,
            acknowledged: 0,
            next_sequence: 1,
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            cursor: 0,
            settling: false,
            reopen: false,
            forgotten: false,
            hold_until: Moment::ZERO,
            backoff,
            last_refusal: None,
            resolved: Vec::new(),
        }
    }

    /// Whether the driver has to open the session, with a new nonce each time
    /// this becomes true.
    #[must_use]
    pub fn wants_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening)
    }

    /// Why the session can append no more, if so.
    #[must_use]
    pub fn dead(&self) -> Option<&Cause> {
        match &self.phase {
            Phase::Dead(cause) => Some(cause),
            _ => None,
        }
    }

    /// Batches not resolved yet, those included whose caller has given up.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Batches sent and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The epoch batches are sent under; 0 before the first opening.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number the next batch will get.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What has been resolved since the last call.
    pub fn take_resolved(&mut self) -> Vec<Resolution<P, R>> {
        std::mem::take(&mut self.resolved)
    }

    /// Takes a batch. Deadlines of a session never go back: one earlier than
    /// its predecessor's is raised to it.
    ///
    /// # Errors
    /// Gives the payload back, not applied, when the session is dead or the
    /// number is out of turn. A number at or below the last one applied when
    /// the session was opened is in turn, as long as they ascend: it asks for
    /// the outcome of a batch sent before.
    pub fn submit(
        &mut self,
        payload: P,
        numbering: Numbering,
        deadline: Moment,
    ) -> Result<u64, (P, AppendError)> {
        if let Phase::Dead(cause) = &self.phase {
            let cause = cause.clone();
            return Err((payload, AppendError::NotApplied { cause }));
        }
        let sequence = match numbering {
            Numbering::Next => self.next_sequence,
            Numbering::At(sequence) => {
                let again = (1..=self.opened_at).contains(&sequence)
                    && self
                        .pending
                        .back()
                        .is_none_or(|last| last.sequence < sequence);
                if sequence != self.next_sequence && !again {
                    let cause = Cause::SequenceNotNext {
                        expected: self.next_sequence,
                        actual: sequence,
                    };
                    return Err((payload, AppendError::NotApplied { cause }));
                }
                sequence
            }
        };
        let deadline = self
            .pending
            .back()
            .map_or(deadline, |last| deadline.max(last.deadline));
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.cursor = self.cursor.min(sequence);
        self.pending.push_back(Pending {
            sequence,
            pinned: numbering != Numbering::Next,
            payload: Some(payload),
            deadline,
            attempts: 0,
            last_sent: None,
            unknown: false,
        });
        Ok(sequence)
    }

    /// Whether a batch submitted now could be sent at once.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.pending.is_empty()
    }

    /// The next batch to send, if one may be sent now. It counts as sent.
    pub fn next_send(&mut self, now: Moment) -> Option<Outgoing<'_, P>> {
        if !matches!(self.phase, Phase::Open)
            || self.settling
            || now < self.hold_until
            || self.in_flight.len() >= self.config.window
        {
            return None;
        }
        let index = self
            .pending
            .partition_point(|batch| batch.sequence < self.cursor);
        let batch = self.pending.get_mut(index)?;
        self.cursor = batch.sequence + 1;
        batch.attempts += 1;
        batch.last_sent = Some(now);
        self.in_flight.push_back(InFlight {
            sequence: batch.sequence,
            sent: now,
        });
        Some(Outgoing {
            epoch: self.epoch,
            sequence: batch.sequence,
            payload: batch
                .payload
                .as_ref()
                .expect("abandoned batches are settled before anything is sent"),
        })
    }

    /// The session was opened under the nonce of the latest opening.
    pub fn opened(&mut self, epoch: u64, last_sequence: u64, fresh: bool) {
        if !self.wants_opening() {
            return;
        }
        let first_opening = self.epoch == 0;
        let forgotten = (fresh || self.forgotten) && !first_opening;
        if !forgotten && last_sequence < self.acknowledged {
            self.die(Cause::SequenceRegressed {
                acknowledged: self.acknowledged,
                reported: last_sequence,
            });
            return;
        }
        self.epoch = epoch;
        self.opened_at = last_sequence;
        self.acknowledged = last_sequence;
        self.phase = Phase::Open;
        self.settling = false;
        self.reopen = false;
        self.forgotten = false;
        self.renumber_after_fence(last_sequence, forgotten);
        self.cursor = 0;
    }

    /// The session cannot be opened, for a reason that will not pass.
    pub fn open_refused(&mut self, refusal: Arc<Refusal>) {
        self.die(match handling(&refusal) {
            Handling::Fenced => Cause::Fenced,
            _ => Cause::Refused(refusal),
        });
    }

    /// Gives up on every batch whose deadline has passed. True when the oldest
    /// batch in flight has waited too long for its answer, so that the stream
    /// has to be abandoned.
    #[must_use]
    pub fn tick(&mut self, now: Moment) -> bool {
        if self.hold_until <= now {
            self.hold_until = Moment::ZERO;
        }
        let mut index = 0;
        while index < self.pending.len() && self.pending[index].deadline <= now {
            if self.pending[index].is_abandoned() {
                index += 1;
                continue;
            }
            if self.is_in_flight(self.pending[index].sequence) {
                self.pending[index].unknown = true;
            }
            let cause = Cause::DeadlineExceeded {
                last: self.last_refusal.clone(),
            };
            self.abandon(index, cause);
            index += 1;
        }
        self.settle_if_quiet();
        self.in_flight
            .front()
            .is_some_and(|first| first.sent + self.config.answer_timeout <= now)
    }

    /// When [`Self::tick`] or [`Self::next_send`] has something to do next.
    #[must_use]
    pub fn next_timer(&self) -> Option<Moment> {
        let deadline = self
            .pending
            .iter()
            .find(|batch| !batch.is_abandoned())
            .map(|batch| batch.deadline);
        let stuck = self
            .in_flight
            .front()
            .map(|first| first.sent + self.config.answer_timeout);
        let resume = (self.hold_until > Moment::ZERO).then_some(self.hold_until);
        [deadline, stuck, resume].into_iter().flatten().min()
    }

    /// Ends the session: what is not in flight fails at once, what is in
    /// flight when it is answered, lost, or late.
    pub fn die(&mut self, cause: Cause) {
        if matches!(self.phase, Phase::Dead(_)) {
            return;
        }
        let mut index = 0;
        while index < self.pending.len() {
            if self.is_in_flight(self.pending[index].sequence) {
                index += 1;
            } else {
                let error = AppendError::new(self.pending[index].disposition(), cause.clone());
                self.resolve(index, Err(error));
            }
        }
        self.phase = Phase::Dead(cause);
    }

    fn resolve_all(&mut self, cause: &Cause) {
        while !self.pending.is_empty() {
            let error = AppendError::new(self.pending[0].disposition(), cause.clone());
            self.resolve(0, Err(error));
        }
    }

    fn is_in_flight(&self, sequence: u64) -> bool {
        self.in_flight
            .binary_search_by_key(&sequence, |sent| sent.sequence)
            .is_ok()
    }

    fn find(&self, sequence: u64) -> Option<usize> {
        self.pending
            .binary_search_by_key(&sequence, |batch| batch.sequence)
            .ok()
    }

    /// Removes a batch and answers its caller, unless that was done before.
    fn resolve(&mut self, index: usize, result: Result<R, AppendError>) {
        let Some(batch) = self.pending.remove(index) else {
            return;
        };
        if let Some(payload) = batch.payload {
            self.resolved.push(Resolution {
                payload,
                sequence: batch.sequence,
                attempts: batch.attempts,
                last_sent: batch.last_sent,
                result,
            });
        }
    }

    /// Answers a batch's caller that it failed while its number is not used
    /// up, or not known to be: it stays, as a hole to be closed.
    fn abandon(&mut self, index: usize, cause: Cause) {
        let batch = &mut self.pending[index];
        let error = AppendError::new(batch.disposition(), cause);
        if let Some(payload) = batch.payload.take() {
            self.resolved.push(Resolution {
                payload,
                sequence: batch.sequence,
                attempts: batch.attempts,
                last_sent: batch.last_sent,
                result: Err(error),
            });
        }
        self.settling = true;
    }
}
