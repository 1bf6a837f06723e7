//! What apply decided about an entry, kept beside the log.
//!
//! ```text
//! record      = version:u8 first-offset accepted time_ms clock:[clock-event]
//!               base-revisions:[revision] result-and-repeat... digest:16
//! clock-event = hunt:str kind:u8 revision effects:bytes
//! result      = 0 runs | tag ...         see `put_result`
//! ```
//! Base revisions are those of the entry's hunts before its commands. Offsets
//! and revisions of single events follow by counting, and equal results of
//! consecutive commands are written once, so that an entry of thousands of
//! position reports leaves tens of bytes, in one batch or in thousands.

use super::runs::{RunReader, RunWriter};
use super::{DecodeError, Put, Reader};
use crate::sessions::Opened;
use crate::{Digest, EventType, LogId, Refusal, SessionRefusal};
use bytes::Bytes;

const VERSION: u8 = 1;

const APPLIED: u8 = 0;
const DUPLICATE: u8 = 1;
const DUPLICATE_DROPPED: u8 = 2;
const SEQUENCE_GAP: u8 = 3;
const PAYLOAD_MISMATCH: u8 = 4;
const FENCED: u8 = 5;
const SESSION_UNKNOWN: u8 = 6;
const REVISION_MISMATCH: u8 = 7;
const SESSION_OPENED: u8 = 8;
const SESSIONS_FULL: u8 = 9;
const SESSION_CONTENDED: u8 = 10;
const LEVEL: u8 = 11;

/// What a reader looks for before it decodes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The offset of the entry's first accepted event, or of the next one.
    pub first_offset: u64,
    /// How many events the entry accepted.
    pub accepted: u64,
    /// The machine's time since the entry, milliseconds since 1970.
    pub time_ms: u64,
}

impl RecordHeader {
    /// Reads the head of a record.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later release.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(record))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8("record")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion {
                what: "record",
                version,
                supported: VERSION,
            });
        }
        Ok(Self {
            first_offset: reader.varint("first offset")?,
            accepted: reader.varint("accepted")?,
            time_ms: reader.varint("time")?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_varint(self.first_offset);
        out.put_varint(self.accepted);
        out.put_varint(self.time_ms);
    }
}

/// Gathers what an entry decides; one is used for all entries, to keep its
/// buffers.
#[derive(Debug, Default)]
pub(crate) struct RecordWriter {
    clock: Vec<u8>,
    clock_events: usize,
    bases: Vec<u8>,
    hunts: usize,
    results: Vec<u8>,
    /// The last result, and how often it came in a row.
    last: Vec<u8>,
    repeated: u64,
    current: Vec<u8>,
    /// Hashes of the batches applied: part of the digest, not of the record.
    payloads: Vec<u8>,
    covered: Vec<u8>,
}

impl RecordWriter {
    pub(crate) fn clear(&mut self) {
        self.clock.clear();
        self.clock_events = 0;
        self.bases.clear();
        self.hunts = 0;
        self.results.clear();
        self.repeated = 0;
        self.payloads.clear();
    }

    pub(crate) fn clock_event(
        &mut self,
        hunt: &str,
        kind: EventType,
        revision: u64,
        effects: &[u8],
    ) {
        self.clock_events += 1;
        self.clock.put_str(hunt);
        self.clock.put_u8(kind.number());
        self.clock.put_varint(revision);
        self.clock.put_bytes(effects);
    }

    pub(crate) fn base_revision(&mut self, revision: u64) {
        self.hunts += 1;
        self.bases.put_varint(revision);
    }

    pub(crate) fn applied(&mut self, runs: &mut RunWriter, payload_hash: u64) {
        self.current.put_u8(APPLIED);
        runs.put(&mut self.current);
        self.fold();
        self.payloads.put_raw(&payload_hash.to_le_bytes());
    }

    pub(crate) fn revision_mismatch(&mut self, expectation: u32, actual: u64) {
        self.current.put_u8(REVISION_MISMATCH);
        self.current.put_varint(expectation.into());
        self.current.put_varint(actual);
        self.fold();
    }

    /// A batch was sent again, and its outcome was told again or was not kept.
    pub(crate) fn duplicate(&mut self, kept: bool) {
        let tag = if kept { DUPLICATE } else { DUPLICATE_DROPPED };
        self.current.put_u8(tag);
        self.fold();
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        let out = &mut self.current;
        match refusal {
            Refusal::SequenceGap { expected, .. } => {
                out.put_u8(SEQUENCE_GAP);
                out.put_varint(*expected);
            }
            Refusal::PayloadMismatch { .. } => out.put_u8(PAYLOAD_MISMATCH),
            Refusal::Fenced { epoch, .. } => {
                out.put_u8(FENCED);
                out.put_varint(*epoch);
            }
            Refusal::SessionUnknown => out.put_u8(SESSION_UNKNOWN),
            // What was recorded the first time, told again.
            Refusal::RevisionMismatch { .. } => out.put_u8(DUPLICATE),
        }
        self.fold();
    }

    pub(crate) fn opening(&mut self, opening: &Result<Opened, SessionRefusal>) {
        let out = &mut self.current;
        match opening {
            Ok(opened) => {
                out.put_u8(SESSION_OPENED);
                out.put_varint(opened.epoch);
                out.put_varint(opened.last_sequence);
                out.put_u8(opened.fresh.into());
            }
            Err(SessionRefusal::TableFull { .. }) => out.put_u8(SESSIONS_FULL),
            Err(SessionRefusal::Contended) => out.put_u8(SESSION_CONTENDED),
            Err(SessionRefusal::Fenced { current, .. }) => {
                out.put_u8(FENCED);
                out.put_varint(*current);
            }
        }
        self.fold();
    }

    /// A command that raises the level was applied, after which `level` is in
    /// force.
    pub(crate) fn level(&mut self, level: u32) {
        self.current.put_u8(LEVEL);
        self.current.put_varint(level.into());
        self.fold();
    }

    /// Counts a result that equals the one before instead of writing it.
    fn fold(&mut self) {
        if self.repeated == 0 || self.current != self.last {
            self.flush();
            std::mem::swap(&mut self.last, &mut self.current);
        }
        self.current.clear();
        self.repeated += 1;
    }

    fn flush(&mut self) {
        if self.repeated > 0 {
            self.results.put_raw(&self.last);
            self.results.put_varint(self.repeated);
            self.repeated = 0;
        }
    }

    /// The record, and the digest after the entry, which covers the feature level
    /// too where one is given.
    pub(crate) fn finish(
        &mut self,
        header: RecordHeader,
        log_id: LogId,
        previous: Digest,
        covered_level: Option<u32>,
    ) -> (Bytes, Digest) {
        self.flush();
        let covered = &mut self.covered;
        covered.clear();
        covered.resize(Digest::HEAD_BYTES, 0);
        header.put(covered);
        covered.put_len(self.clock_events);
        covered.put_raw(&self.clock);
        covered.put_len(self.hunts);
        covered.put_raw(&self.bases);
        covered.put_raw(&self.results);
        let end = covered.len();
        covered.put_raw(&self.payloads);
        if let Some(level) = covered_level {
            covered.put_varint(level.into());
        }
        let digest = previous.chain(log_id, covered);
        let mut record = Vec::with_capacity(end - Digest::HEAD_BYTES + digest.0.len());
        record.put_raw(&covered[Digest::HEAD_BYTES..end]);
        record.put_raw(&digest.0);
        (record.into(), digest)
    }
}

/// A record, borrowed, its head decoded.
#[derive(Debug, Clone)]
pub(crate) struct RecordRef<'a> {
    pub(crate) header: RecordHeader,
    pub(crate) clock: ClockEvents<'a>,
    pub(crate) base_revisions: Vec<u64>,
    pub(crate) results: Results<'a>,
}

/// The digest after the entry that a record is of.
///
/// # Errors
/// When the record is too short to have one.
pub fn digest_after(record: &[u8]) -> Result<Digest, DecodeError> {
    split_digest(record).map(|(_, digest)| digest)
}

fn split_digest(record: &[u8]) -> Result<(&[u8], Digest), DecodeError> {
    let (body, digest) = record
        .split_last_chunk::<16>()
        .ok_or(DecodeError::Truncated { what: "record" })?;
    Ok((body, Digest(*digest)))
}

impl<'a> RecordRef<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (body, _) = split_digest(bytes)?;
        let mut reader = Reader::new(body);
        let header = RecordHeader::read(&mut reader)?;
        let mut clock = ClockEvents {
            remaining: reader.count("clock events")?,
            reader,
        };
        let start = clock.clone();
        while clock.next()?.is_some() {}
        reader = clock.reader;
        let mut base_revisions = Vec::new();
        for _ in 0..reader.count("base revisions")? {
            base_revisions.push(reader.varint("base revision")?);
        }
        Ok(Self {
            header,
            clock: start,
            base_revisions,
            results: Results {
                reader,
                last: RecordedResult::NotApplied,
                repeat: 0,
            },
        })
    }
}

/// Clock events of an entry, in order.
#[derive(Debug, Clone)]
pub(crate) struct ClockEvents<'a> {
    reader: Reader<'a>,
    remaining: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockEvent<'a> {
    pub(crate) hunt: &'a str,
    pub(crate) kind: EventType,
    pub(crate) revision: u64,
    pub(crate) effects: &'a [u8],
}

impl<'a> ClockEvents<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<ClockEvent<'a>>, DecodeError> {
        let Some(remaining) = self.remaining.checked_sub(1) else {
            return Ok(None);
        };
        self.remaining = remaining;
        let reader = &mut self.reader;
        let hunt = reader.str("hunt")?;
        let tag = reader.u8("clock event")?;
        let kind = EventType::from_number(tag).ok_or(DecodeError::UnknownTag {
            what: "clock event",
            tag,
        })?;
        Ok(Some(ClockEvent {
            hunt,
            kind,
            revision: reader.varint("revision")?,
            effects: reader.bytes("effects")?,
        }))
    }
}

/// What became of the entry's commands, in order.
#[derive(Debug, Clone)]
pub(crate) struct Results<'a> {
    reader: Reader<'a>,
    last: RecordedResult<'a>,
    repeat: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum RecordedResult<'a> {
    /// Anything that added no events.
    NotApplied,
    Applied {
        runs: RunReader<'a>,
        accepted: u64,
    },
}

impl<'a> Results<'a> {
    pub(crate) fn next(&mut self) -> Result<RecordedResult<'a>, DecodeError> {
        if self.repeat == 0 {
            self.last = self.read()?;
            self.repeat = self.reader.varint("repeat")?;
            if self.repeat == 0 {
                return Err(DecodeError::OutOfRange { what: "repeat" });
            }
        }
        self.repeat -= 1;
        Ok(self.last.clone())
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.repeat > 0 {
            return Err(DecodeError::Contradiction { what: "record" });
        }
        self.reader.finish("record")
    }

    fn read(&mut self) -> Result<RecordedResult<'a>, DecodeError> {
        let reader = &mut self.reader;
        match reader.u8("result")? {
            APPLIED => {
                let (runs, accepted, _) = RunReader::take(reader)?;
                return Ok(RecordedResult::Applied { runs, accepted });
            }
            DUPLICATE | DUPLICATE_DROPPED | PAYLOAD_MISMATCH | SESSION_UNKNOWN | SESSIONS_FULL
            | SESSION_CONTENDED => {}
            SEQUENCE_GAP | FENCED | LEVEL => {
                reader.varint("result")?;
            }
            REVISION_MISMATCH => {
                reader.varint("result")?;
                reader.varint("result")?;
            }
            SESSION_OPENED => {
                reader.varint("epoch")?;
                reader.varint("sequence")?;
                reader.u8("fresh")?;
            }
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "result",
                    tag,
                });
            }
        }
        Ok(RecordedResult::NotApplied)
    }
}
