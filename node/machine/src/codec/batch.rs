//! Commands: what the proposer puts into an entry.
//!
//! ```text
//! command      = 1 session:str epoch sequence body          a batch
//!              | 2 session:str nonce:bytes [epoch]          opening a session
//!              | 3 level release:str                        raising the level
//! body         = hunts:[str] expected:[hunt-index revision-tag] events:[event]
//! revision-tag = 0 (none) | 1 revision
//! event        = kind+flags:u8 hunt-index [player:str] [seconds:zigzag nanos] content
//! ```
//! A batch names each of its hunts once; events refer to them by index. The
//! body is what makes two batches the same: its hash is how a sequence that is
//! used again with other content is found out.

use super::event::{EventRef, KindRef, put_event};
use super::{DecodeError, Put, Reader};
use crate::level::{FIRST_LEVEL, release_of};
use crate::{Batch, ExpectedRevision};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const BATCH: u8 = 1;
const OPEN_SESSION: u8 = 2;
const RAISE_LEVEL: u8 = 3;

/// A command as it will stand in the log; made where the request arrives, so
/// that the proposer only copies bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCommand {
    bytes: Bytes,
    events: u32,
    level: u32,
}

impl EncodedCommand {
    /// The encoding.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many events it carries.
    #[must_use]
    pub fn events(&self) -> u32 {
        self.events
    }

    /// The feature level from which on a log may hold it.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Takes over a command that another node has encoded.
    ///
    /// # Errors
    /// When the bytes are not one whole command.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (events, level) = match CommandRef::decode(&bytes)? {
            CommandRef::OpenSession { .. } | CommandRef::RaiseLevel { .. } => (0, FIRST_LEVEL),
            CommandRef::Batch(batch) => {
                let body = Body::decode(batch.body)?;
                (body.events.remaining, body.validate()?)
            }
        };
        Ok(Self {
            bytes,
            events,
            level,
        })
    }
}

/// Encodes a batch.
///
/// # Panics
/// When it has 2^32 events or more: the API admits 4,096.
#[must_use]
pub fn encode_batch(batch: &Batch) -> EncodedCommand {
    let mut hunts = HuntNames::default();
    let expected: Vec<_> = batch
        .expected
        .iter()
        .map(|(hunt, revision)| (hunts.index(hunt), *revision))
        .collect();
    let mut events = Vec::new();
    let mut level = FIRST_LEVEL;
    for event in &batch.events {
        level = level.max(event.kind.event_type().level());
        let hunt = hunts.index(&event.hunt);
        put_event(&mut events, hunt, event);
    }

    let mut out = Vec::with_capacity(events.len() + batch.session.len() + 64);
    out.put_u8(BATCH);
    out.put_str(&batch.session);
    out.put_varint(batch.epoch);
    out.put_varint(batch.sequence);
    out.put_len(hunts.names.len());
    for name in &hunts.names {
        out.put_str(name);
    }
    out.put_len(expected.len());
    for (hunt, revision) in expected {
        out.put_len(hunt);
        match revision {
            ExpectedRevision::None => out.put_u8(0),
            ExpectedRevision::Exactly(revision) => {
                out.put_u8(1);
                out.put_varint(revision);
            }
        }
    }
    out.put_len(batch.events.len());
    out.put_raw(&events);
    EncodedCommand {
        bytes: out.into(),
        events: u32::try_from(batch.events.len()).expect("a batch has at most 4,096 events"),
        level,
    }
}

/// Encodes the opening of a session, taken from whoever holds it.
#[must_use]
pub fn encode_open_session(name: &str, nonce: &[u8]) -> EncodedCommand {
    encode_reopen_session(name, nonce, 0)
}

/// Encodes the opening of a session by whoever holds `epoch`; 0 is nobody in
/// particular.
#[must_use]
pub fn encode_reopen_session(name: &str, nonce: &[u8], epoch: u64) -> EncodedCommand {
    let mut out = Vec::with_capacity(name.len() + nonce.len() + 14);
    out.put_u8(OPEN_SESSION);
    out.put_str(name);
    out.put_bytes(nonce);
    if epoch != 0 {
        out.put_varint(epoch);
    }
    EncodedCommand {
        bytes: out.into(),
        events: 0,
        level: FIRST_LEVEL,
    }
}

/// Encodes the raising of the feature level to `level`, together with the first
/// release that reads it: those before it can name it.
///
/// # Panics
/// When this release does not know the level.
#[must_use]
pub fn encode_raise_level(level: u32) -> EncodedCommand {
    let release = release_of(level).expect("nobody asks for a level that is not known");
    let mut out = Vec::with_capacity(release.len() + 7);
    out.put_u8(RAISE_LEVEL);
    out.put_varint(level.into());
    out.put_str(release);
    EncodedCommand {
        bytes: out.into(),
        events: 0,
        level: FIRST_LEVEL,
    }
}

/// The hunts of a batch, in order of first mention.
#[derive(Default)]
struct HuntNames<'a> {
    names: Vec<&'a str>,
    indexes: BTreeMap<&'a str, usize>,
}

impl<'a> HuntNames<'a> {
    fn index(&mut self, name: &'a str) -> usize {
        if self.names.last() == Some(&name) {
            return self.names.len() - 1;
        }
        *self.indexes.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }
}

/// A command, borrowed from an entry.
#[derive(Debug, Clone, Copy)]
pub enum CommandRef<'a> {
    /// An append.
    Batch(BatchRef<'a>),
    /// The opening of a session.
    OpenSession {
        /// Its name.
        name: &'a str,
        /// What tells a retry from another opening.
        nonce: &'a [u8],
        /// The epoch it goes on from; 0 takes the session from whoever holds it.
        epoch: u64,
    },
    /// The raising of the feature level. Every release that knows levels reads
    /// it, whatever level it names: that is how one which is too old finds out.
    RaiseLevel {
        /// The level from now on, unless a higher one is in force.
        level: u32,
        /// The first release that reads it.
        release: &'a str,
    },
}

/// A batch, borrowed from an entry.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    /// The producer's session.
    pub session: &'a str,
    /// The session's epoch.
    pub epoch: u64,
    /// The batch's number in the session.
    pub sequence: u64,
    pub(crate) body: &'a [u8],
}

impl<'a> CommandRef<'a> {
    /// Reads the head of a command; a batch's body is left undecoded.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later release.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("command")? {
            BATCH => Ok(Self::Batch(BatchRef {
                session: reader.str("session")?,
                epoch: reader.varint("epoch")?,
                sequence: reader.varint("sequence")?,
                body: reader.rest(),
            })),
            OPEN_SESSION => {
                let name = reader.str("session")?;
                let nonce = reader.bytes("nonce")?;
                let epoch = match reader.is_empty() {
                    true => 0,
                    // There is one way to write a command: 0 is left out.
                    false => match reader.varint("epoch")? {
                        0 => return Err(DecodeError::OutOfRange { what: "epoch" }),
                        epoch => epoch,
                    },
                };
                reader.finish("command")?;
                Ok(Self::OpenSession { name, nonce, epoch })
            }
            RAISE_LEVEL => {
                let level = reader.varint_u32("level")?;
                let release = reader.str("release")?;
                reader.finish("command")?;
                Ok(Self::RaiseLevel { level, release })
            }
            tag => Err(DecodeError::UnknownTag {
                what: "command",
                tag,
            }),
        }
    }
}

impl<'a> BatchRef<'a> {
    /// The batch's expectations of revisions, in order.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn expected(&self) -> Result<Vec<(&'a str, ExpectedRevision)>, DecodeError> {
        let body = Body::decode(self.body)?;
        Ok(body
            .expected
            .iter()
            .map(|&(hunt, revision)| (body.hunts.name(hunt), revision))
            .collect())
    }

    /// The batch's events, in order.
    ///
    /// # Errors
    /// When the bytes before the events are damaged.
    pub fn events(&self) -> Result<Events<'a>, DecodeError> {
        Ok(Body::decode(self.body)?.events)
    }

    pub(crate) fn payload_hash(&self) -> u64 {
        xxh3_64(self.body)
    }

    /// Copies the batch out.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn to_owned(&self) -> Result<Batch, DecodeError> {
        Ok(Batch {
            session: self.session.to_owned(),
            epoch: self.epoch,
            sequence: self.sequence,
            expected: self
                .expected()?
                .into_iter()
                .map(|(hunt, revision)| (hunt.to_owned(), revision))
                .collect(),
            events: self
                .events()?
                .map(|event| event?.to_owned())
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The names of a batch's hunts. One is the common case, and costs nothing.
#[derive(Debug, Clone)]
pub(crate) enum HuntTable<'a> {
    One(&'a str),
    Many(Arc<[&'a str]>),
}

impl<'a> HuntTable<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.count("hunts")? {
            1 => Ok(Self::One(reader.str("hunt")?)),
            count => (0..count)
                .map(|_| reader.str("hunt"))
                .collect::<Result<_, _>>()
                .map(Self::Many),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(names) => names.len(),
        }
    }

    /// # Panics
    /// When there is no such hunt: decoding checks every index.
    pub(crate) fn name(&self, index: usize) -> &'a str {
        match self {
            Self::One(name) => name,
            Self::Many(names) => names[index],
        }
    }

    pub(crate) fn read_index(&self, reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
        let index = reader.varint("hunt index")?;
        usize::try_from(index)
            .ok()
            .filter(|&index| index < self.len())
            .ok_or(DecodeError::OutOfRange { what: "hunt index" })
    }
}

/// Revisions are counted by place in the table, so a name may have only one.
pub(crate) fn check_distinct(names: &[&str]) -> Result<(), DecodeError> {
    let distinct: BTreeSet<_> = names.iter().collect();
    if distinct.len() == names.len() {
        Ok(())
    } else {
        Err(DecodeError::Contradiction { what: "hunts" })
    }
}

/// A batch's content.
#[derive(Debug, Clone)]
pub(crate) struct Body<'a> {
    pub(crate) hunts: HuntTable<'a>,
    /// Index of the hunt, what is expected of it.
    pub(crate) expected: Vec<(usize, ExpectedRevision)>,
    pub(crate) events: Events<'a>,
}

impl<'a> Body<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let hunts = HuntTable::read(&mut reader)?;
        let expected = (0..reader.count("expected revisions")?)
            .map(|_| {
                let hunt = hunts.read_index(&mut reader)?;
                let revision = match reader.u8("expected revision")? {
                    0 => ExpectedRevision::None,
                    1 => ExpectedRevision::Exactly(reader.varint("expected revision")?),
                    tag => {
                        return Err(DecodeError::UnknownTag {
                            what: "expected revision",
                            tag,
                        });
                    }
                };
                Ok((hunt, revision))
            })
            .collect::<Result<_, DecodeError>>()?;
        let remaining = reader.count("events")?;
        let remaining =
            u32::try_from(remaining).map_err(|_| DecodeError::OutOfRange { what: "events" })?;
        Ok(Self {
            events: Events {
                reader,
                remaining,
                hunts: hunts.clone(),
            },
            hunts,
            expected,
        })
    }

    /// Reads all of it, so that a second reading cannot fail. Answers the feature
    /// level from which on a log may hold it.
    pub(crate) fn validate(&self) -> Result<u32, DecodeError> {
        if let HuntTable::Many(names) = &self.hunts {
            check_distinct(names)?;
        }
        self.validate_events()
    }

    /// The same of a batch whose hunts are known to be distinct.
    pub(crate) fn validate_events(&self) -> Result<u32, DecodeError> {
        let mut level = FIRST_LEVEL;
        for event in self.events.clone() {
            let kind = event?.kind;
            level = level.max(kind.event_type().level());
            if let KindRef::HuntCreated(definition) = kind {
                definition.decode()?;
            }
        }
        Ok(level)
    }
}

/// The events of a batch, in order. After damage there are no more.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    reader: Reader<'a>,
    remaining: u32,
    hunts: HuntTable<'a>,
}

impl<'a> Events<'a> {
    /// How many are left.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<EventRef<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            if self.reader.is_empty() {
                return None;
            }
            let trailing = std::mem::replace(&mut self.reader, Reader::new(&[]));
            return trailing.finish("batch").err().map(Err);
        }
        self.remaining -= 1;
        let event = EventRef::read(&mut self.reader, &self.hunts);
        if event.is_err() {
            self.remaining = 0;
            self.reader = Reader::new(&[]);
        }
        Some(event)
    }
}
