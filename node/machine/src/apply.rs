//! Applying one entry.

use crate::codec::batch::{BatchRef, Body, CommandRef};
use crate::codec::entry::{EncodedCommandRef, EntryRef};
use crate::codec::event::{EventRef, KindRef};
use crate::hunt::{Hunt, Position, Rules};
use crate::machine::Machine;
use crate::outcome::Kept;
use crate::sessions::{Admission, Opened, Opening, StoredResult};
use crate::workflow::{self, Step};
use crate::{
    Applied, BatchOutcome, BatchResult, CommandResult, EventType, LogId, Refusal, RejectReason,
};
use bytes::Bytes;
use huntlog_planted::{Bug, is_planted};
use std::collections::HashMap;
use std::sync::Arc;

const VALIDATED: &str = "the entry is validated before it is applied";

/// One entry being applied.
pub(crate) struct Application<'m, 'e> {
    machine: &'m mut Machine,
    log_id: LogId,
    /// The same bytes twice: outcomes keep slices of the one alive, decoding
    /// borrows from the other.
    bytes: &'e Bytes,
    entry: &'e EntryRef<'e>,
    hunts: Vec<Concerned>,
    first_offset: u64,
}

/// A hunt of the entry, looked up once for all its events.
#[derive(Debug, Clone, Copy)]
struct Concerned {
    slot: Option<u32>,
    /// As of the last event; written back at the end of the entry.
    revision: u64,
    /// What a `Custom` event comes to, which needs nothing but the state.
    custom: Result<(), RejectReason>,
    changed: bool,
}

impl Concerned {
    fn unknown() -> Self {
        Self {
            slot: None,
            revision: 0,
            custom: Err(RejectReason::HuntUnknown),
            changed: false,
        }
    }

    fn follow(&mut self, hunt: &Hunt) {
        self.custom = match workflow::step(hunt.state, EventType::Custom) {
            Step::Refuse(reason) => Err(reason),
            Step::Stay | Step::To(_) => Ok(()),
        };
    }
}

impl<'m, 'e> Application<'m, 'e> {
    pub(crate) fn new(
        machine: &'m mut Machine,
        log_id: LogId,
        bytes: &'e Bytes,
        entry: &'e EntryRef<'e>,
    ) -> Self {
        Self {
            first_offset: machine.view.end_offset,
            machine,
            log_id,
            bytes,
            entry,
            hunts: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) -> Applied {
        self.machine.scratch.record.clear();
        self.advance_time();
        self.fire_due();
        self.look_up_hunts();
        let results = self
            .entry
            .commands()
            .map(|command| self.command(&command))
            .collect();
        self.write_back();
        self.machine.finish(self.log_id, self.first_offset, results)
    }

    fn advance_time(&mut self) {
        let Machine {
            view,
            session_index,
            ..
        } = &mut *self.machine;
        let now_ms = self.entry.stamp_ms().max(view.time_ms);
        let elapsed_ms = now_ms - view.time_ms;
        view.time_ms = now_ms;
        view.sessions
            .elapse(elapsed_ms, &view.limits, session_index);
    }

    /// Starts and ends what is due, ordered by time and hunt id.
    fn fire_due(&mut self) {
        let Machine { view, scratch, .. } = &mut *self.machine;
        while let Some(slot) = view.hunts.first_due(view.time_ms) {
            scratch.effects.clear();
            let effects = &mut scratch.effects;
            let (id, kind, revision) = view.hunts.change(slot, |hunt| {
                let (_, kind) = hunt.due().expect("it is listed as due");
                let Step::To(state) = workflow::step(hunt.state, kind) else {
                    unreachable!("the clock makes only legal transitions");
                };
                hunt.go_to(state, effects);
                hunt.revision += 1;
                hunt.entries.push(self.log_id.index);
                (Arc::clone(&hunt.id), kind, hunt.revision)
            });
            view.end_offset += 1;
            scratch.record.clock_event(&id, kind, revision, effects);
        }
    }

    fn look_up_hunts(&mut self) {
        let Machine {
            view,
            hunt_names,
            scratch,
            ..
        } = &mut *self.machine;
        self.hunts.reserve_exact(self.entry.hunts().len());
        for id in self.entry.hunts() {
            let mut concerned = Concerned::unknown();
            let slot = hunt_names.find(id, |slot| view.hunts.id(slot));
            debug_assert_eq!(slot, view.hunts.slot(id));
            if let Some(slot) = slot {
                let hunt = view.hunts.at(slot);
                concerned.slot = Some(slot);
                concerned.revision = hunt.revision;
                concerned.follow(hunt);
            }
            self.hunts.push(concerned);
        }
        let revisions = self.hunts.iter().map(|hunt| hunt.revision);
        if is_planted(Bug::HashMapIterated) {
            let by_position: HashMap<usize, u64> = revisions.enumerate().collect();
            for revision in by_position.into_values() {
                scratch.record.base_revision(revision);
            }
        } else {
            revisions.for_each(|revision| scratch.record.base_revision(revision));
        }
    }

    fn write_back(&mut self) {
        for concerned in &self.hunts {
            if let (Some(slot), true) = (concerned.slot, concerned.changed) {
                self.machine.view.hunts.change(slot, |hunt| {
                    hunt.revision = concerned.revision;
                    hunt.entries.push(self.log_id.index);
                });
            }
        }
    }

    fn command(&mut self, command: &EncodedCommandRef<'e>) -> CommandResult {
        match command.decode().expect(VALIDATED) {
            CommandRef::Batch(batch) => CommandResult::Batch(self.batch(&batch, command)),
            CommandRef::RaiseLevel { level, .. } => self.raise_level(level),
            CommandRef::OpenSession { name, nonce, epoch } => {
                let Machine {
                    view,
                    session_index,
                    scratch,
                    ..
                } = &mut *self.machine;
                let index = self.log_id.index;
                let opening = Opening { name, nonce, epoch };
                let opening = view
                    .sessions
                    .open(&opening, index, &view.limits, session_index);
                scratch.record.opening(&opening);
                match opening {
                    Err(refusal) => CommandResult::SessionRefused(refusal),
                    Ok(Opened {
                        epoch,
                        last_sequence,
                        fresh,
                    }) => CommandResult::SessionOpened {
                        epoch,
                        last_sequence,
                        fresh,
                    },
                }
            }
        }
    }

    /// Raises the level; what this entry goes on with is decided at the new one.
    fn raise_level(&mut self, level: u32) -> CommandResult {
        let Machine { view, scratch, .. } = &mut *self.machine;
        view.level = view.level.max(level);
        scratch.record.level(view.level);
        CommandResult::Level(view.level)
    }

    fn batch(&mut self, batch: &BatchRef<'e>, command: &EncodedCommandRef<'e>) -> BatchResult {
        let Machine {
            view,
            session_index,
            ..
        } = &mut *self.machine;
        let payload_hash = batch.payload_hash();
        let admission = view
            .sessions
            .admit(batch, payload_hash, &view.limits, session_index);
        match admission {
            Admission::Apply { slot } => self.apply_batch(batch, command, slot, payload_hash),
            Admission::Refused(refusal) => self.refuse(refusal),
            Admission::Duplicate(mut result) => {
                if is_planted(Bug::OutcomesNotRecorded)
                    && let Kept::Plain { base_revision, .. } = &mut result.kept
                {
                    let mut hunts = command.hunts;
                    let hunt = hunts.next().expect(VALIDATED);
                    *base_revision = hunt.map_or(0, |hunt| self.hunts[hunt].revision);
                }
                self.tell_again(batch, result)
            }
            Admission::DuplicateDropped(log_index) => {
                self.machine.scratch.record.duplicate(false);
                BatchResult::DuplicateDropped { log_index }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> BatchResult {
        self.machine.scratch.record.refused(&refusal);
        BatchResult::Refused(refusal)
    }

    /// Answers a duplicate as the batch was answered the first time.
    fn tell_again(&mut self, batch: &BatchRef<'e>, result: StoredResult) -> BatchResult {
        if !result
            .kept
            .fits(&Body::decode(batch.body).expect(VALIDATED))
        {
            let sequence = batch.sequence;
            return self.refuse(Refusal::PayloadMismatch { sequence });
        }
        if let Kept::RevisionMismatch {
            expectation,
            actual,
        } = result.kept
        {
            return self.refuse(mismatch(batch, expectation, actual));
        }
        self.machine.scratch.record.duplicate(true);
        BatchResult::Duplicate(BatchOutcome {
            log_index: result.log_index,
            time_ms: result.time_ms,
            kept: result.kept,
            body: self.bytes.slice_ref(batch.body),
        })
    }

    fn apply_batch(
        &mut self,
        batch: &BatchRef<'e>,
        command: &EncodedCommandRef<'e>,
        slot: u32,
        payload_hash: u64,
    ) -> BatchResult {
        let body = Body::decode(batch.body).expect(VALIDATED);
        let mut indexes = command.hunts;
        let mut hunts = std::mem::take(&mut self.machine.scratch.hunts);
        hunts.clear();
        while let Some(index) = indexes.next().expect(VALIDATED) {
            hunts.push(index);
        }
        let failed = body
            .expected
            .iter()
            .enumerate()
            .find_map(|(position, &(hunt, expected))| {
                let actual = self.hunts[hunts[hunt]].revision;
                (actual != expected.revision()).then_some((position, actual))
            });
        let kept = match failed {
            Some((position, actual)) => {
                let expectation = u32::try_from(position).expect("a batch is at most 4 MiB");
                self.machine
                    .scratch
                    .record
                    .revision_mismatch(expectation, actual);
                Kept::RevisionMismatch {
                    expectation,
                    actual,
                }
            }
            None => self.events(body, &hunts, payload_hash),
        };
        self.machine.scratch.hunts = hunts;

        let view = &mut self.machine.view;
        let (log_index, time_ms) = (self.log_id.index, view.time_ms);
        view.sessions.applied(
            slot,
            StoredResult {
                payload_hash,
                log_index,
                time_ms,
                kept: kept.clone(),
            },
            &view.limits,
        );
        match kept {
            Kept::RevisionMismatch {
                expectation,
                actual,
            } => BatchResult::Refused(mismatch(batch, expectation, actual)),
            kept => BatchResult::Applied(BatchOutcome {
                log_index,
                time_ms,
                kept,
                body: self.bytes.slice_ref(batch.body),
            }),
        }
    }

    /// Decides about each event of an admitted batch.
    fn events(&mut self, body: Body<'e>, hunts: &[usize], payload_hash: u64) -> Kept {
        let first_offset = self.machine.view.end_offset;
        let mut positions = Vec::new();
        let single = if let [hunt] = hunts {
            Some(self.hunts[*hunt].revision)
        } else {
            positions = hunts
                .iter()
                .map(|&hunt| self.hunts[hunt].revision)
                .collect();
            None
        };
        self.machine.scratch.runs.clear();
        for event in body.events {
            let event = event.expect(VALIDATED);
            let index = hunts[event.hunt_index];
            let concerned = &self.hunts[index];
            let decided = if matches!(event.kind, KindRef::Custom { .. }) {
                self.machine.scratch.effects.clear();
                concerned.custom
            } else {
                self.by_rules(index, &event)
            };
            let scratch = &mut self.machine.scratch;
            match decided {
                Ok(()) => {
                    self.machine.view.end_offset += 1;
                    let concerned = &mut self.hunts[index];
                    concerned.revision += 1;
                    concerned.changed = true;
                    scratch.runs.accepted(&scratch.effects);
                }
                Err(reason) => scratch.runs.rejected(reason),
            }
        }

        let scratch = &mut self.machine.scratch;
        let plain = scratch.runs.all_plain();
        scratch.record.applied(&mut scratch.runs, payload_hash);
        if let (Some(events), Some(base_revision)) = (plain, single) {
            return Kept::Plain {
                first_offset,
                base_revision,
                events: u32::try_from(events).expect("decoded from a u32"),
            };
        }
        let bases = single
            .as_ref()
            .map_or(positions.as_slice(), std::slice::from_ref);
        Kept::Outcomes(scratch.runs.positioned(first_offset, bases).into())
    }

    /// Decides about an event of any kind but `Custom`; what follows from it is
    /// left in the scratch.
    fn by_rules(&mut self, index: usize, event: &EventRef<'e>) -> Result<(), RejectReason> {
        let Machine {
            view,
            hunt_names,
            scratch,
            ..
        } = &mut *self.machine;
        let concerned = &mut self.hunts[index];
        let effects = &mut scratch.effects;
        effects.clear();
        let at = Position {
            offset: view.end_offset,
            time_ms: view.time_ms,
        };
        let slot = match (concerned.slot, event.kind) {
            (Some(slot), _) => slot,
            (None, KindRef::HuntCreated(definition)) => {
                let definition = definition.decode().expect(VALIDATED);
                let rules = Rules::new(definition).map_err(|_| RejectReason::DefinitionInvalid)?;
                if view.hunt_count() >= view.limits.hunts_max.into() {
                    return Err(RejectReason::HuntsFull);
                }
                let slot = view.hunts.add(Hunt::new(event.hunt.into(), rules));
                hunt_names.insert(slot, |slot| view.hunts.id(slot));
                concerned.slot = Some(slot);
                concerned.follow(view.hunts.at(slot));
                return Ok(());
            }
            (None, _) => return Err(RejectReason::HuntUnknown),
        };
        view.hunts.change(slot, |hunt| {
            let decided = hunt.apply(event, at, &view.limits, effects);
            concerned.follow(hunt);
            decided
        })
    }
}

fn mismatch(batch: &BatchRef<'_>, expectation: u32, actual: u64) -> Refusal {
    let expectations = batch.expected().expect(VALIDATED);
    let (hunt, expected) = expectations[expectation as usize];
    Refusal::RevisionMismatch {
        hunt: hunt.to_owned(),
        expected,
        actual,
    }
}
