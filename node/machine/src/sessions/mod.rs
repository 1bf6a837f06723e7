//! Sessions: who sent which batch, and what became of it.
//!
//! What is kept of a session answers every question about its past: a sequence
//! up to the last is a duplicate, the next applies, any other is a gap. There
//! is no time window in which only a retry is recognised. A session that has
//! been forgotten is unknown, and its batches are refused, never applied as if
//! they were new (I3).
//!
//! A session takes about 200 bytes beside its name (see the test
//! `a_session_is_small`; the example `session_weight` has what the allocator makes of
//! them), and its results beyond
//! the last one share one budget with those of all others.

mod recency;
mod results;

pub(crate) use results::{Queued, ResultQueue, StoredResult};

use crate::codec::batch::BatchRef;
use crate::names::Names;
use crate::outcome::Kept;
use crate::{Limits, Refusal, SessionRefusal};
use huntlog_planted::{Bug, is_planted, wall_clock_ms};
use imbl::{OrdMap, Vector};
use recency::Recency;
use std::ops::Bound;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// What can be told of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its latest epoch.
    pub epoch: u64,
    /// The last sequence applied, 0 when none.
    pub last_sequence: u64,
    /// Log time since it was last used, milliseconds.
    pub idle_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) name: Arc<str>,
    /// 128 bits of XXH3 of the nonce that opened the epoch.
    pub(crate) nonce: [u8; 16],
    /// The log index of the opening.
    pub(crate) epoch: u64,
    pub(crate) last_sequence: u64,
    /// The idle clock when it was last used.
    pub(crate) used_ms: u64,
    /// The uses of any session before that one: they order the sessions.
    pub(crate) used: u64,
    /// Of the last sequence; `Kept::Dropped` before the first.
    pub(crate) last: StoredResult,
    /// The number of the last result in the queue; 0 before the first.
    pub(crate) newest: u64,
    /// Whether the epoch began with nothing applied.
    pub(crate) fresh: bool,
}

/// The replicated part of the table of sessions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    by_name: OrdMap<Arc<str>, u32>,
    slots: Vector<Option<Session>>,
    results: ResultQueue,
    /// Grows with log time, but by a limited step per entry.
    idle_clock_ms: u64,
    uses: u64,
}

/// What follows from the sessions, so that views and snapshots do without it.
#[derive(Debug, Default)]
pub(crate) struct SessionIndex {
    names: Names,
    recency: Recency,
}

const LISTED: &str = "every listed slot has a session";

/// An opening that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) name: &'a str,
    pub(crate) nonce: &'a [u8],
    /// The epoch it goes on from; 0 takes the session from whoever holds it.
    pub(crate) epoch: u64,
}

/// An opening that succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) epoch: u64,
    pub(crate) last_sequence: u64,
    pub(crate) fresh: bool,
}

/// Whether a batch may be applied.
pub(crate) enum Admission {
    Apply {
        slot: u32,
    },
    Duplicate(StoredResult),
    /// With the entry that applied it, when that is known.
    DuplicateDropped(Option<u64>),
    Refused(Refusal),
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<SessionInfo<'_>> {
        let slot = *self.by_name.get(name)?;
        Some(self.info(self.session(slot)))
    }

    pub(crate) fn after(&self, name: Option<&str>) -> impl Iterator<Item = SessionInfo<'_>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name
            .range::<_, str>((from, Bound::Unbounded))
            .map(|(_, slot)| self.info(self.session(*slot)))
    }

    fn info<'a>(&self, session: &'a Session) -> SessionInfo<'a> {
        SessionInfo {
            name: &session.name,
            epoch: session.epoch,
            last_sequence: session.last_sequence,
            idle_ms: self.idle_clock_ms - session.used_ms,
        }
    }

    fn session(&self, slot: u32) -> &Session {
        self.slots[slot as usize].as_ref().expect(LISTED)
    }

    fn name(&self, slot: u32) -> &str {
        &self.session(slot).name
    }

    fn find(&self, name: &str, index: &SessionIndex) -> Option<u32> {
        let slot = index.names.find(name, |slot| self.name(slot));
        debug_assert_eq!(slot, self.by_name.get(name).copied());
        slot
    }

    fn session_mut(&mut self, slot: u32) -> &mut Session {
        self.slots[slot as usize].as_mut().expect(LISTED)
    }

    /// Log time has gone on by `elapsed_ms`: forgets who has been idle too
    /// long.
    pub(crate) fn elapse(&mut self, elapsed_ms: u64, limits: &Limits, index: &mut SessionIndex) {
        let step_ms = elapsed_ms.min(limits.idle_step_ms_max);
        self.idle_clock_ms = self.idle_clock_ms.saturating_add(step_ms);
        if is_planted(Bug::ExpiryByWallClock) {
            self.idle_clock_ms = self.idle_clock_ms.max(wall_clock_ms());
        }
        for _ in 0..limits.forgotten_per_entry_max {
            let Some(oldest) = index.recency.oldest() else {
                return;
            };
            if self.idle_ms(oldest) < limits.session_idle_ms {
                return;
            }
            self.forget(oldest, index);
        }
    }

    fn idle_ms(&self, slot: u32) -> u64 {
        self.idle_clock_ms - self.session(slot).used_ms
    }

    fn forget(&mut self, slot: u32, index: &mut SessionIndex) {
        let session = self.slots[slot as usize].take().expect(LISTED);
        self.by_name.remove(&session.name);
        index.names.remove(&session.name, slot);
        index.recency.remove(slot);
    }

    /// Opens a session with the epoch `log_index`.
    pub(crate) fn open(
        &mut self,
        opening: &Opening<'_>,
        log_index: u64,
        limits: &Limits,
        index: &mut SessionIndex,
    ) -> Result<Opened, SessionRefusal> {
        let Opening { name, epoch, .. } = *opening;
        let nonce = xxh3_128(opening.nonce).to_le_bytes();
        let slot = match self.find(name, index) {
            Some(slot) => {
                let session = self.session_mut(slot);
                if session.nonce != nonce {
                    // A higher one comes from a future that a restored backup has
                    // not: its owner finds out by the last sequence.
                    if epoch != 0 && epoch < session.epoch {
                        return Err(SessionRefusal::Fenced {
                            epoch,
                            current: session.epoch,
                        });
                    }
                    if session.epoch >= log_index {
                        return Err(SessionRefusal::Contended);
                    }
                    session.nonce = nonce;
                    session.epoch = log_index;
                    // Whoever opened it before, it is as one that is not known: a
                    // delayed repetition of an old opening can have brought a
                    // forgotten session back, and its producer must hear of that.
                    session.fresh = session.last_sequence == 0;
                }
                slot
            }
            None => self.create(name, nonce, log_index, limits, index)?,
        };
        self.touch(slot, index);
        let session = self.session(slot);
        Ok(Opened {
            epoch: session.epoch,
            last_sequence: session.last_sequence,
            fresh: session.fresh,
        })
    }

    fn create(
        &mut self,
        name: &str,
        nonce: [u8; 16],
        log_index: u64,
        limits: &Limits,
        index: &mut SessionIndex,
    ) -> Result<u32, SessionRefusal> {
        if self.by_name.len() >= limits.max_sessions as usize {
            let oldest = index
                .recency
                .oldest()
                .filter(|&oldest| self.idle_ms(oldest) >= limits.evictable_idle_ms)
                .ok_or(SessionRefusal::TableFull {
                    max_sessions: limits.max_sessions,
                })?;
            self.forget(oldest, index);
        }
        let session = Session {
            name: name.into(),
            nonce,
            epoch: log_index,
            last_sequence: 0,
            used_ms: 0,
            used: 0,
            last: StoredResult {
                payload_hash: 0,
                log_index: 0,
                time_ms: 0,
                kept: Kept::Dropped,
            },
            newest: 0,
            fresh: true,
        };
        Ok(self.place(session, index))
    }

    fn place(&mut self, session: Session, index: &mut SessionIndex) -> u32 {
        let slot = index.recency.add();
        self.by_name.insert(Arc::clone(&session.name), slot);
        if slot as usize == self.slots.len() {
            self.slots.push_back(Some(session));
        } else {
            self.slots[slot as usize] = Some(session);
        }
        index.names.insert(slot, |slot| self.name(slot));
        slot
    }

    fn touch(&mut self, slot: u32, index: &mut SessionIndex) {
        index.recency.touch(slot);
        let (used_ms, used) = (self.idle_clock_ms, self.uses);
        self.uses += 1;
        let session = self.session_mut(slot);
        session.used_ms = used_ms;
        session.used = used;
    }

    /// Decides whether a batch applies. Only a batch of the session's own epoch
    /// counts as using it.
    pub(crate) fn admit(
        &mut self,
        batch: &BatchRef<'_>,
        payload_hash: u64,
        limits: &Limits,
        index: &mut SessionIndex,
    ) -> Admission {
        let Some(slot) = self.find(batch.session, index) else {
            return Admission::Refused(Refusal::SessionUnknown);
        };
        let session = self.session(slot);
        if batch.epoch < session.epoch && !is_planted(Bug::FencedEpochAccepted) {
            return Admission::Refused(Refusal::Fenced {
                epoch: session.epoch,
                actual: batch.epoch,
            });
        }
        if batch.epoch > session.epoch {
            // No epoch is known before it is given out: this one comes from
            // another cluster, or from a future that a restored backup has not.
            return Admission::Refused(Refusal::SessionUnknown);
        }
        self.touch(slot, index);
        let session = self.session(slot);
        let next = session.last_sequence + 1;
        if batch.sequence == next || (batch.sequence < next && is_planted(Bug::NoDedup)) {
            return Admission::Apply { slot };
        }
        if batch.sequence > next || batch.sequence == 0 {
            return Admission::Refused(Refusal::SequenceGap {
                expected: next,
                actual: batch.sequence,
            });
        }
        match self.past_result(session, batch.sequence, limits) {
            Some(result) if result.payload_hash != payload_hash => {
                Admission::Refused(Refusal::PayloadMismatch {
                    sequence: batch.sequence,
                })
            }
            Some(result) if result.kept != Kept::Dropped => Admission::Duplicate(result.clone()),
            Some(result) => Admission::DuplicateDropped(Some(result.log_index)),
            None => Admission::DuplicateDropped(None),
        }
    }

    fn past_result<'s>(
        &'s self,
        session: &'s Session,
        sequence: u64,
        limits: &Limits,
    ) -> Option<&'s StoredResult> {
        let back = session.last_sequence - sequence;
        if back == 0 {
            return Some(&session.last);
        }
        if back >= u64::from(limits.results_per_session) {
            return None;
        }
        let mut queued = self.results.get(session.newest)?;
        for _ in 0..back {
            queued = self.results.get(queued.previous)?;
        }
        Some(&queued.result)
    }

    /// The admitted batch has been applied with this result.
    pub(crate) fn applied(&mut self, slot: u32, result: StoredResult, limits: &Limits) {
        let previous = self.session(slot).newest;
        let newest = self.results.push(Queued {
            result: result.clone(),
            previous,
            slot,
        });
        let session = self.session_mut(slot);
        session.last_sequence += 1;
        session.newest = newest;
        session.last = result;
        while let Some((number, dropped)) = self.results.pop_beyond(limits.result_budget_bytes) {
            if dropped.result.kept.encoded_len() <= limits.last_result_bytes_max {
                continue;
            }
            // A large last result does not outlive its place in the queue: the
            // log has it, and the session knows where.
            if let Some(Some(session)) = self.slots.get_mut(dropped.slot as usize)
                && session.newest == number
            {
                session.last.kept = Kept::Dropped;
            }
        }
    }

    /// The sessions by name, for snapshots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_name.values().map(|slot| self.session(*slot))
    }

    pub(crate) fn results(&self) -> &ResultQueue {
        &self.results
    }

    pub(crate) fn idle_clock_ms(&self) -> u64 {
        self.idle_clock_ms
    }

    pub(crate) fn uses(&self) -> u64 {
        self.uses
    }

    /// Puts the parts of a snapshot together; sessions come by name.
    ///
    /// # Panics
    /// With 2^32 sessions or more, which no limit allows.
    pub(crate) fn restore(
        sessions: Vec<Session>,
        mut results: ResultQueue,
        idle_clock_ms: u64,
        uses: u64,
    ) -> (Self, SessionIndex) {
        let count = u32::try_from(sessions.len()).expect("fewer than 2^32 sessions");
        let slots = 0..count;
        let mut order: Vec<u32> = slots.clone().collect();
        order.sort_unstable_by_key(|&slot| sessions[slot as usize].used);
        let recency = Recency::of(&order);
        for (slot, session) in slots.clone().zip(&sessions) {
            results.set_slot(session.newest, slot);
        }
        let names = sessions.iter().map(|session| Arc::clone(&session.name));
        let restored = Self {
            by_name: names.zip(slots).collect(),
            slots: sessions.into_iter().map(Some).collect(),
            results,
            idle_clock_ms,
            uses,
        };
        let names = Names::of(count, |slot| restored.name(slot));
        (restored, SessionIndex { names, recency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I11: at most 200 bytes beside the name. 24 is an entry of
    /// `by_name`, of which about two thirds of the places are taken; 16 are the
    /// counts before the name; 8 are the links by recency; and a place in the hash
    /// table that grows, of which at least seven sixteenths are taken, has four and one.
    #[test]
    fn a_session_is_small() {
        let index = 24 * 3 / 2;
        let hashed = (5 * 16_usize).div_ceil(7);
        let bytes = size_of::<Option<Session>>() + index + hashed + 16 + 8;
        assert!(bytes <= 200, "{bytes}");
    }
}
