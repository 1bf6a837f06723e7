//! Events as readers see them: an entry's bytes, zipped with the record of what
//! applying it decided.

use crate::codec::batch::{Body, CommandRef, Events};
use crate::codec::entry::{Commands, EncodedCommandRef, EntryRef};
use crate::codec::event::{EventRef, KindRef};
use crate::codec::record::{ClockEvents, RecordRef, RecordedResult, Results};
use crate::codec::runs::{Run, RunReader};
use crate::effect::{Effects, Own};
use crate::{DecodeError, EventType};

pub use crate::codec::record::{RecordHeader, digest_after};
pub use crate::recorded::batch_outcome;

/// Who made an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A client's batch.
    Client {
        /// The session that sent it.
        session: &'a str,
        /// The batch's number in the session.
        sequence: u64,
    },
    /// The log's time: the hunt's start or end came due.
    Clock,
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedEvent<'a> {
    /// Position in the partition, from 0.
    pub offset: u64,
    /// Position in the event's hunt, from 1.
    pub revision: u64,
    /// The log's time when it was applied, milliseconds since 1970.
    pub time_ms: u64,
    /// Who made it.
    pub origin: Origin<'a>,
    /// The event itself.
    pub event: EventRef<'a>,
    /// What followed from it.
    pub effects: Effects<'a>,
}

/// Which events a reader wants; what is left empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Hunts by id.
    pub hunts: Vec<String>,
    /// Players by id.
    pub players: Vec<String>,
    /// Kinds.
    pub types: Vec<EventType>,
}

impl Filter {
    /// Whether events of this hunt can match.
    #[must_use]
    pub fn wants_hunt(&self, hunt: &str) -> bool {
        self.hunts.is_empty() || self.hunts.iter().any(|wanted| wanted == hunt)
    }

    /// Whether an event matches.
    #[must_use]
    pub fn matches(&self, event: &EventRef<'_>) -> bool {
        self.wants_hunt(event.hunt)
            && (self.types.is_empty() || self.types.contains(&event.kind.event_type()))
            && (self.players.is_empty() || self.players.iter().any(|wanted| wanted == event.player))
    }
}

/// The accepted events of an entry, in order.
///
/// # Errors
/// When the entry's or the record's head is damaged; damage further on is an
/// item of the iterator, and the last.
pub fn events<'a>(entry: &'a [u8], record: &'a [u8]) -> Result<CommittedEvents<'a>, DecodeError> {
    events_from(entry, record, 0, &MATCH_ALL)
}

static MATCH_ALL: Filter = Filter {
    hunts: Vec::new(),
    players: Vec::new(),
    types: Vec::new(),
};

/// The accepted events of an entry from an offset on that match a filter, in
/// order. Commands that do not concern the wanted hunts, or lie before the
/// offset, are skipped undecoded where that is possible.
///
/// # Errors
/// As [`events`].
pub fn events_from<'a>(
    entry: &'a [u8],
    record: &'a [u8],
    from_offset: u64,
    filter: &'a Filter,
) -> Result<CommittedEvents<'a>, DecodeError> {
    let entry = EntryRef::decode(entry)?;
    let record = RecordRef::decode(record)?;
    if record.base_revisions.len() != entry.hunts().len() {
        return Err(DecodeError::Contradiction { what: "record" });
    }
    Ok(CommittedEvents {
        from_offset,
        filter,
        wanted: entry
            .hunts()
            .iter()
            .map(|hunt| filter.wants_hunt(hunt))
            .collect(),
        commands: entry.commands(),
        offset: record.header.first_offset,
        end_offset: record
            .header
            .first_offset
            .saturating_add(record.header.accepted),
        time_ms: record.header.time_ms,
        clock: record.clock,
        revisions: record.base_revisions,
        results: record.results,
        batch: None,
        hunts: Vec::new(),
        ended: false,
    })
}

/// The accepted events of an entry that are wanted, in order.
#[derive(Debug, Clone)]
pub struct CommittedEvents<'a> {
    from_offset: u64,
    filter: &'a Filter,
    /// Of each of the entry's hunts.
    wanted: Vec<bool>,
    commands: Commands<'a>,
    /// Of the next accepted event.
    offset: u64,
    /// One past the entry's last.
    end_offset: u64,
    time_ms: u64,
    clock: ClockEvents<'a>,
    /// Of each of the entry's hunts, so far.
    revisions: Vec<u64>,
    results: Results<'a>,
    batch: Option<OpenBatch<'a>>,
    /// The open batch's hunts as indexes into the entry's.
    hunts: Vec<usize>,
    ended: bool,
}

#[derive(Debug, Clone)]
struct OpenBatch<'a> {
    session: &'a str,
    sequence: u64,
    events: Events<'a>,
    runs: RunReader<'a>,
}

impl<'a> CommittedEvents<'a> {
    fn find_next(&mut self) -> Result<Option<CommittedEvent<'a>>, DecodeError> {
        while let Some(event) = self.clock.next()? {
            let committed = self.clock_event(&event)?;
            if self.is_wanted(&committed) {
                return Ok(Some(committed));
            }
        }
        loop {
            while let Some(batch) = &mut self.batch {
                let Some(event) = batch.events.next() else {
                    batch.runs.finish()?;
                    self.batch = None;
                    break;
                };
                let event = event?;
                let effects = match batch.runs.next()? {
                    Run::Rejected(_) => continue,
                    Run::Plain => &[],
                    Run::Effects(effects) => effects,
                };
                let origin = Origin::Client {
                    session: batch.session,
                    sequence: batch.sequence,
                };
                let revision = &mut self.revisions[self.hunts[event.hunt_index]];
                advance(revision, 1)?;
                let committed = CommittedEvent {
                    offset: self.offset,
                    revision: *revision,
                    time_ms: self.time_ms,
                    origin,
                    event,
                    effects: Effects::decode(effects, Own::of(&event.kind))?,
                };
                advance(&mut self.offset, 1)?;
                if self.is_wanted(&committed) {
                    return Ok(Some(committed));
                }
            }
            let Some(command) = self.commands.next() else {
                self.results.finish()?;
                if self.offset != self.end_offset {
                    return Err(DecodeError::Contradiction { what: "record" });
                }
                return Ok(None);
            };
            if let RecordedResult::Applied { runs, accepted } = self.results.next()? {
                self.open(&command, runs, accepted)?;
            }
        }
    }

    /// Goes into a command that was applied, unless it can be passed over.
    fn open(
        &mut self,
        command: &EncodedCommandRef<'a>,
        runs: RunReader<'a>,
        accepted: u64,
    ) -> Result<(), DecodeError> {
        self.hunts.clear();
        let mut indexes = command.hunts;
        while let Some(index) = indexes.next()? {
            self.hunts.push(index);
        }
        let unwanted = !self.hunts.iter().any(|&hunt| self.wanted[hunt]);
        let before = self.offset.saturating_add(accepted) <= self.from_offset;
        // Revisions of hunts that are not wanted need not be right; those of
        // one wanted hunt follow without decoding.
        if unwanted || (before && self.hunts.len() == 1) {
            advance(&mut self.offset, accepted)?;
            if let [hunt] = self.hunts[..] {
                advance(&mut self.revisions[hunt], accepted)?;
            }
            return Ok(());
        }
        let CommandRef::Batch(batch) = command.decode()? else {
            return Err(DecodeError::Contradiction { what: "record" });
        };
        let body = Body::decode(batch.body)?;
        if body.hunts.len() != self.hunts.len() {
            return Err(DecodeError::Contradiction { what: "directory" });
        }
        self.batch = Some(OpenBatch {
            session: batch.session,
            sequence: batch.sequence,
            events: body.events,
            runs,
        });
        Ok(())
    }

    fn clock_event(
        &mut self,
        event: &crate::codec::record::ClockEvent<'a>,
    ) -> Result<CommittedEvent<'a>, DecodeError> {
        let kind = match event.kind {
            EventType::HuntStarted => KindRef::HuntStarted,
            EventType::HuntFinished => KindRef::HuntFinished,
            other => {
                return Err(DecodeError::UnknownTag {
                    what: "clock event",
                    tag: other.number(),
                });
            }
        };
        let offset = self.offset;
        advance(&mut self.offset, 1)?;
        Ok(CommittedEvent {
            offset,
            revision: event.revision,
            time_ms: self.time_ms,
            origin: Origin::Clock,
            event: EventRef {
                hunt_index: 0,
                hunt: event.hunt,
                player: "",
                occurred_at: None,
                kind,
            },
            effects: Effects::decode(event.effects, Own::of(&kind))?,
        })
    }

    fn is_wanted(&self, committed: &CommittedEvent<'_>) -> bool {
        committed.offset >= self.from_offset && self.filter.matches(&committed.event)
    }
}

/// Counts on; a damaged record may start anywhere.
fn advance(position: &mut u64, by: u64) -> Result<(), DecodeError> {
    *position = position
        .checked_add(by)
        .ok_or(DecodeError::OutOfRange { what: "position" })?;
    Ok(())
}

impl<'a> Iterator for CommittedEvents<'a> {
    type Item = Result<CommittedEvent<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = self.find_next().transpose();
        self.ended = !matches!(found, Some(Ok(_)));
        found
    }
}
