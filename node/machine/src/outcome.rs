//! What the machine decides: results of commands, outcomes of events.

use crate::codec::batch::{Body, Events};
use crate::codec::runs::{Positioned, Run, RunReader};
use crate::effect::{Effects, Own};
use crate::{ExpectedRevision, LogId, RejectReason};
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;

/// What applying one entry did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The entry.
    pub log_id: LogId,
    /// The offset of the first event it accepted, or would have.
    pub first_offset: u64,
    /// How many events it accepted, those of the clock included.
    pub accepted: u64,
    /// The machine's time since this entry, milliseconds since 1970.
    pub time_ms: u64,
    /// One for each command, in order.
    pub results: Vec<CommandResult>,
    /// What was decided, encoded, to be kept beside the log:
    /// [`history::events`](crate::history::events) makes events of it and the
    /// entry.
    pub record: Bytes,
}

/// What became of a command.
#[derive(Debug, Clone)]
pub enum CommandResult {
    /// Of an append.
    Batch(BatchResult),
    /// A session is open.
    SessionOpened {
        /// To be sent with every batch; lower ones are refused from now on.
        epoch: u64,
        /// The last sequence applied, 0 when none.
        last_sequence: u64,
        /// Nothing was known of the session: it is new, or was forgotten.
        fresh: bool,
    },
    /// A session could not be opened; nothing has changed.
    SessionRefused(SessionRefusal),
    /// The feature level in force from now on: the one asked for, or a higher one
    /// that was in force before.
    Level(u32),
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub enum BatchResult {
    /// It has been applied now.
    Applied(BatchOutcome),
    /// It had been applied before, as told; nothing was applied now.
    Duplicate(BatchOutcome),
    /// It had been applied before, and the machine does not keep what came of it
    /// any more; nothing was applied now.
    DuplicateDropped {
        /// The entry that applied it, when it is the session's last batch:
        /// [`history::batch_outcome`](crate::history::batch_outcome) reads the
        /// outcome from the log. Of a batch before that it is not known, and one
        /// with expected revisions may have been refused for them instead.
        log_index: Option<u64>,
    },
    /// It has not been applied, and this attempt never will be.
    Refused(Refusal),
}

/// Why a session could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionRefusal {
    /// Every place is taken by a session in use.
    #[error(
        "all {max_sessions} sessions are in use; nothing was changed; open it again later, when one has become idle"
    )]
    TableFull {
        /// The limit.
        max_sessions: u32,
    },
    /// The same session was opened by another at the same log index, and epochs
    /// are log indexes.
    #[error(
        "the session was opened by another at the same moment; nothing was changed; open it again"
    )]
    Contended,
    /// It was to go on from an epoch that another opening has fenced since.
    #[error(
        "epoch {epoch} of the session was fenced by epoch {current}; nothing was changed; another program owns the session now: stop, or open it as a new owner, without an epoch"
    )]
    Fenced {
        /// Of the one who asked.
        epoch: u64,
        /// The session's own.
        current: u64,
    },
}

/// Why a batch was refused whole. None of its events was applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A batch before it is missing. Nothing is used up.
    #[error(
        "sequence {actual} was not applied: the session's next is {expected}; send from there on"
    )]
    SequenceGap {
        /// The sequence that can be applied.
        expected: u64,
        /// The sequence sent.
        actual: u64,
    },
    /// The sequence has been applied, with other content.
    #[error(
        "sequence {sequence} was applied before with another content; this content was not applied; a sequence names one batch for ever"
    )]
    PayloadMismatch {
        /// The sequence sent.
        sequence: u64,
    },
    /// The session was opened anew since.
    #[error(
        "epoch {actual} was not applied: the session has been opened again with epoch {epoch}; this producer must stop"
    )]
    Fenced {
        /// The session's epoch.
        epoch: u64,
        /// The epoch sent.
        actual: u64,
    },
    /// Nothing is known of the session, or not of this epoch: it was never
    /// opened here, or has been forgotten.
    #[error("the session is not known, the batch was not applied; open the session again")]
    SessionUnknown,
    /// The hunt has moved on. The sequence is used up: sent again, it gets this
    /// same answer.
    #[error(
        "hunt {hunt} is at revision {actual}, not at {} as expected; the batch was not applied; read the hunt and decide again, under the next sequence", .expected.revision()
    )]
    RevisionMismatch {
        /// The hunt.
        hunt: String,
        /// What the batch expected.
        expected: ExpectedRevision,
        /// The hunt's revision, 0 when it has no event.
        actual: u64,
    },
}

/// The outcomes of a batch that was applied, compact, and cheap to clone.
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    /// The entry that applied it.
    pub log_index: u64,
    /// The machine's time then, milliseconds since 1970.
    pub time_ms: u64,
    pub(crate) kept: Kept,
    /// The batch's events, where outcomes borrow names from.
    pub(crate) body: Bytes,
}

/// How the outcomes of a batch are kept: everything that does not follow from
/// its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Not any more.
    Dropped,
    /// All events concern one hunt and were accepted without effects.
    Plain {
        first_offset: u64,
        /// The hunt's revision before the batch.
        base_revision: u64,
        events: u32,
    },
    /// First offset, revision of each of the batch's hunts before it, runs.
    Outcomes(Arc<[u8]>),
    /// An expected revision did not hold.
    RevisionMismatch {
        /// Which of the batch's expectations.
        expectation: u32,
        actual: u64,
    },
}

impl Kept {
    /// Whether it can be of this batch.
    ///
    /// Batches are told apart by 64 bits of a hash that whoever wants to can
    /// make collide, and outcomes must not be read with another's events.
    pub(crate) fn fits(&self, body: &Body<'_>) -> bool {
        let (hunts, sent) = (body.hunts.len(), body.events.remaining());
        match self {
            Self::Dropped => true,
            Self::Plain { events, .. } => hunts == 1 && *events == sent,
            Self::Outcomes(encoded) => Positioned::decode(encoded).is_ok_and(|outcomes| {
                outcomes.base_revisions.len() == hunts && outcomes.events == u64::from(sent)
            }),
            Self::RevisionMismatch { expectation, .. } => {
                (*expectation as usize) < body.expected.len()
            }
        }
    }
}

/// What the machine decided about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome<'a> {
    /// It is part of the hunt.
    Accepted {
        /// Position in the partition, from 0.
        offset: u64,
        /// Position in the hunt, from 1.
        revision: u64,
        /// What followed from it, in order.
        effects: Effects<'a>,
    },
    /// A rule of the hunt refuses it.
    Rejected(RejectReason),
}

impl BatchOutcome {
    /// The outcome of each event, in order.
    ///
    /// # Panics
    /// Never: the machine made the outcome from the same events.
    #[must_use]
    pub fn iter(&self) -> Outcomes<'_> {
        Outcomes::new(&self.kept, &self.body)
    }

    /// How many events were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        match &self.kept {
            Kept::Plain { events, .. } => u64::from(*events),
            _ => self
                .iter()
                .filter(|outcome| matches!(outcome, EventOutcome::Accepted { .. }))
                .count() as u64,
        }
    }
}

impl<'a> IntoIterator for &'a BatchOutcome {
    type Item = EventOutcome<'a>;
    type IntoIter = Outcomes<'a>;
    fn into_iter(self) -> Outcomes<'a> {
        self.iter()
    }
}

/// The outcomes of a batch's events, in order.
#[derive(Debug, Clone)]
pub struct Outcomes<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    Plain {
        offset: u64,
        revision: u64,
        remaining: u32,
    },
    Runs {
        offset: u64,
        revisions: Vec<u64>,
        events: Events<'a>,
        runs: RunReader<'a>,
    },
}

const OWN: &str = "the machine made the outcome from these events";

impl<'a> Outcomes<'a> {
    fn new(kept: &'a Kept, body: &'a [u8]) -> Self {
        match kept {
            Kept::Plain {
                first_offset,
                base_revision,
                events,
            } => Self(Source::Plain {
                offset: *first_offset,
                revision: *base_revision,
                remaining: *events,
            }),
            Kept::Outcomes(encoded) => {
                let outcomes = Positioned::decode(encoded).expect(OWN);
                let body = Body::decode(body).expect(OWN);
                Self(Source::Runs {
                    offset: outcomes.first_offset,
                    revisions: outcomes.base_revisions,
                    events: body.events,
                    runs: outcomes.runs,
                })
            }
            Kept::Dropped | Kept::RevisionMismatch { .. } => Self(Source::Plain {
                offset: 0,
                revision: 0,
                remaining: 0,
            }),
        }
    }
}

impl<'a> Iterator for Outcomes<'a> {
    type Item = EventOutcome<'a>;

    fn next(&mut self) -> Option<EventOutcome<'a>> {
        match &mut self.0 {
            Source::Plain {
                offset,
                revision,
                remaining,
            } => {
                *remaining = remaining.checked_sub(1)?;
                *offset += 1;
                *revision += 1;
                Some(EventOutcome::Accepted {
                    offset: *offset - 1,
                    revision: *revision,
                    effects: Effects::default(),
                })
            }
            Source::Runs {
                offset,
                revisions,
                events,
                runs,
            } => {
                let event = events.next()?.expect(OWN);
                let effects = match runs.next().expect(OWN) {
                    Run::Rejected(reason) => return Some(EventOutcome::Rejected(reason)),
                    Run::Plain => &[],
                    Run::Effects(bytes) => bytes,
                };
                let revision = &mut revisions[event.hunt_index];
                *revision += 1;
                *offset += 1;
                Some(EventOutcome::Accepted {
                    offset: *offset - 1,
                    revision: *revision,
                    effects: Effects::decode(effects, Own::of(&event.kind)).expect(OWN),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::runs::RunWriter;
    use crate::codec::{Put as _, batch::CommandRef};
    use crate::{Batch, Event, EventKind, encode_batch};

    fn body_of(events: usize) -> Vec<u8> {
        let event = Event {
            hunt: "h".into(),
            player: String::new(),
            occurred_at: None,
            kind: EventKind::HuntOpened,
        };
        let command = encode_batch(&Batch {
            session: "s".into(),
            epoch: 1,
            sequence: 1,
            expected: Vec::new(),
            events: vec![event; events],
        });
        let CommandRef::Batch(batch) = CommandRef::decode(command.bytes()).unwrap() else {
            panic!("a batch was encoded");
        };
        batch.body.to_vec()
    }

    /// A batch made to have the hash of another must not be answered with the
    /// other's outcomes, which would be read with the wrong events.
    #[test]
    fn outcomes_are_not_told_of_another_batch() {
        let (two, three) = (body_of(2), body_of(3));
        let (two, three) = (Body::decode(&two).unwrap(), Body::decode(&three).unwrap());
        let plain = Kept::Plain {
            first_offset: 7,
            base_revision: 1,
            events: 2,
        };
        let mut runs = RunWriter::default();
        runs.plain();
        runs.rejected(RejectReason::HuntOver);
        let mut encoded = Vec::new();
        encoded.put_varint(7);
        encoded.put_len(1);
        encoded.put_varint(1);
        runs.put(&mut encoded);
        let outcomes = Kept::Outcomes(encoded.into());
        for kept in [plain, outcomes] {
            assert!(kept.fits(&two));
            assert!(!kept.fits(&three));
        }
        let mismatch = Kept::RevisionMismatch {
            expectation: 0,
            actual: 1,
        };
        assert!(!mismatch.fits(&two), "it expects nothing");
    }
}
