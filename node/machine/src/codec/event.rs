//! Events, as they stand in the body of a batch.

use super::batch::HuntTable;
use super::definition::{EncodedDefinition, put_definition};
use super::{DecodeError, Put, Reader};
use crate::{Event, EventKind, EventType, Timestamp, normalise};
use bytes::Bytes;

const KIND_MASK: u8 = 0x0f;
/// In place of a kind whose number does not fit the mask: the number follows the
/// head.
const KIND_FOLLOWS: u8 = 15;
const HAS_PLAYER: u8 = 0x10;
const HAS_OCCURRED_AT: u8 = 0x20;
/// The answer as typed differs from its normal form, which follows it.
const HAS_NORMALISED: u8 = 0x40;

/// Appends an event of the hunt with that index.
pub(crate) fn put_event(out: &mut Vec<u8>, hunt: usize, event: &Event) {
    let normalised = match &event.kind {
        EventKind::ClueAttempted { answer, .. } => Some(normalise(answer)).filter(|n| n != answer),
        _ => None,
    };
    let kind = event.kind.event_type().number();
    let mut head = kind.min(KIND_FOLLOWS);
    if !event.player.is_empty() {
        head |= HAS_PLAYER;
    }
    if event.occurred_at.is_some() {
        head |= HAS_OCCURRED_AT;
    }
    if normalised.is_some() {
        head |= HAS_NORMALISED;
    }
    out.put_u8(head);
    if kind >= KIND_FOLLOWS {
        out.put_varint(kind.into());
    }
    out.put_len(hunt);
    if !event.player.is_empty() {
        out.put_str(&event.player);
    }
    if let Some(time) = event.occurred_at {
        put_timestamp(out, time);
    }
    match &event.kind {
        EventKind::HuntCreated(definition) => {
            let mut encoded = Vec::new();
            put_definition(&mut encoded, definition);
            out.put_bytes(&encoded);
        }
        EventKind::HuntOpened
        | EventKind::HuntStarted
        | EventKind::HuntPaused
        | EventKind::HuntResumed
        | EventKind::HuntFinished
        | EventKind::PlayerWithdrawn => {}
        EventKind::HuntCancelled { reason } | EventKind::PlayerDisqualified { reason } => {
            out.put_str(reason);
        }
        EventKind::PlayerRegistered { display_name } => out.put_str(display_name),
        EventKind::ClueAttempted { clue, answer } => {
            out.put_str(clue);
            out.put_str(answer);
            if let Some(normalised) = normalised {
                out.put_str(&normalised);
            }
        }
        EventKind::TreasureClaimed { treasure } => out.put_str(treasure),
        EventKind::HintTaken { clue, hint } => {
            out.put_str(clue);
            out.put_str(hint);
        }
        EventKind::Custom { type_name, payload } => {
            out.put_str(type_name);
            out.put_bytes(payload);
        }
        EventKind::Announced { clue, text } => {
            out.put_str(clue);
            out.put_str(text);
        }
    }
}

pub(crate) fn put_timestamp(out: &mut Vec<u8>, time: Timestamp) {
    out.put_zigzag(time.seconds);
    out.put_varint(time.nanos.into());
}

pub(crate) fn read_timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    let seconds = reader.zigzag("seconds")?;
    let nanos = reader.varint_u32("nanoseconds")?;
    if nanos >= 1_000_000_000 {
        return Err(DecodeError::OutOfRange {
            what: "nanoseconds",
        });
    }
    Ok(Timestamp { seconds, nanos })
}

/// One event, borrowed from an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Which of its batch's hunts.
    pub(crate) hunt_index: usize,
    /// The hunt it concerns.
    pub hunt: &'a str,
    /// Who plays; empty where the kind needs no player.
    pub player: &'a str,
    /// When it happened in the field, by the client's clock.
    pub occurred_at: Option<Timestamp>,
    /// What happened.
    pub kind: KindRef<'a>,
}

/// [`EventKind`], borrowed from an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the same as EventKind's")]
pub enum KindRef<'a> {
    HuntCreated(EncodedDefinition<'a>),
    HuntOpened,
    HuntStarted,
    HuntPaused,
    HuntResumed,
    HuntFinished,
    HuntCancelled {
        reason: &'a str,
    },
    PlayerRegistered {
        display_name: &'a str,
    },
    PlayerWithdrawn,
    PlayerDisqualified {
        reason: &'a str,
    },
    ClueAttempted {
        clue: &'a str,
        answer: &'a str,
        /// The answer in the normal form that its hash is made of, as the node
        /// that took the request saw it: replicas need not agree on Unicode.
        normalised: &'a str,
    },
    TreasureClaimed {
        treasure: &'a str,
    },
    HintTaken {
        clue: &'a str,
        hint: &'a str,
    },
    Custom {
        type_name: &'a str,
        payload: &'a [u8],
    },
    Announced {
        clue: &'a str,
        text: &'a str,
    },
}

impl KindRef<'_> {
    /// The kind without its content.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self {
            Self::HuntCreated(_) => EventType::HuntCreated,
            Self::HuntOpened => EventType::HuntOpened,
            Self::HuntStarted => EventType::HuntStarted,
            Self::HuntPaused => EventType::HuntPaused,
            Self::HuntResumed => EventType::HuntResumed,
            Self::HuntFinished => EventType::HuntFinished,
            Self::HuntCancelled { .. } => EventType::HuntCancelled,
            Self::PlayerRegistered { .. } => EventType::PlayerRegistered,
            Self::PlayerWithdrawn => EventType::PlayerWithdrawn,
            Self::PlayerDisqualified { .. } => EventType::PlayerDisqualified,
            Self::ClueAttempted { .. } => EventType::ClueAttempted,
            Self::TreasureClaimed { .. } => EventType::TreasureClaimed,
            Self::HintTaken { .. } => EventType::HintTaken,
            Self::Custom { .. } => EventType::Custom,
            Self::Announced { .. } => EventType::Announced,
        }
    }
}

impl<'a> EventRef<'a> {
    #[inline]
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        hunts: &HuntTable<'a>,
    ) -> Result<Self, DecodeError> {
        let head = reader.u8("event")?;
        let unknown = DecodeError::UnknownTag {
            what: "event",
            tag: head,
        };
        let event_type = match head & KIND_MASK {
            KIND_FOLLOWS => Self::read_kind(reader)?,
            number => EventType::from_number(number).ok_or(unknown)?,
        };
        if head & 0x80 != 0
            || (head & HAS_NORMALISED != 0 && event_type != EventType::ClueAttempted)
        {
            return Err(unknown);
        }
        let hunt_index = hunts.read_index(reader)?;
        let player = if head & HAS_PLAYER == 0 {
            ""
        } else {
            reader.str("player")?
        };
        let occurred_at = if head & HAS_OCCURRED_AT == 0 {
            None
        } else {
            Some(read_timestamp(reader)?)
        };
        let kind = match event_type {
            EventType::HuntCreated => {
                KindRef::HuntCreated(EncodedDefinition(reader.bytes("definition")?))
            }
            EventType::HuntOpened => KindRef::HuntOpened,
            EventType::HuntStarted => KindRef::HuntStarted,
            EventType::HuntPaused => KindRef::HuntPaused,
            EventType::HuntResumed => KindRef::HuntResumed,
            EventType::HuntFinished => KindRef::HuntFinished,
            EventType::HuntCancelled => KindRef::HuntCancelled {
                reason: reader.str("reason")?,
            },
            EventType::PlayerRegistered => KindRef::PlayerRegistered {
                display_name: reader.str("display name")?,
            },
            EventType::PlayerWithdrawn => KindRef::PlayerWithdrawn,
            EventType::PlayerDisqualified => KindRef::PlayerDisqualified {
                reason: reader.str("reason")?,
            },
            EventType::ClueAttempted => {
                let clue = reader.str("clue")?;
                let answer = reader.str("answer")?;
                let normalised = if head & HAS_NORMALISED == 0 {
                    answer
                } else {
                    reader.str("normalised answer")?
                };
                KindRef::ClueAttempted {
                    clue,
                    answer,
                    normalised,
                }
            }
            EventType::TreasureClaimed => KindRef::TreasureClaimed {
                treasure: reader.str("treasure")?,
            },
            EventType::HintTaken => KindRef::HintTaken {
                clue: reader.str("clue")?,
                hint: reader.str("hint")?,
            },
            EventType::Custom => KindRef::Custom {
                type_name: reader.str("type")?,
                payload: reader.bytes("payload")?,
            },
            EventType::Announced => KindRef::Announced {
                clue: reader.str("clue")?,
                text: reader.str("text")?,
            },
        };
        Ok(Self {
            hunt_index,
            hunt: hunts.name(hunt_index),
            player,
            occurred_at,
            kind,
        })
    }

    /// A kind whose number follows the head: never one that fits into it, so that
    /// there is one way to write an event.
    #[cold]
    fn read_kind(reader: &mut Reader<'a>) -> Result<EventType, DecodeError> {
        let what = "kind of event";
        u8::try_from(reader.varint(what)?)
            .ok()
            .filter(|number| *number >= KIND_FOLLOWS)
            .and_then(EventType::from_number)
            .ok_or(DecodeError::OutOfRange { what })
    }

    /// Copies the event out.
    ///
    /// # Errors
    /// When it creates a hunt and the definition is damaged.
    pub fn to_owned(&self) -> Result<Event, DecodeError> {
        let kind = match self.kind {
            KindRef::HuntCreated(definition) => {
                EventKind::HuntCreated(Box::new(definition.decode()?))
            }
            KindRef::HuntOpened => EventKind::HuntOpened,
            KindRef::HuntStarted => EventKind::HuntStarted,
            KindRef::HuntPaused => EventKind::HuntPaused,
            KindRef::HuntResumed => EventKind::HuntResumed,
            KindRef::HuntFinished => EventKind::HuntFinished,
            KindRef::HuntCancelled { reason } => EventKind::HuntCancelled {
                reason: reason.to_owned(),
            },
            KindRef::PlayerRegistered { display_name } => EventKind::PlayerRegistered {
                display_name: display_name.to_owned(),
            },
            KindRef::PlayerWithdrawn => EventKind::PlayerWithdrawn,
            KindRef::PlayerDisqualified { reason } => EventKind::PlayerDisqualified {
                reason: reason.to_owned(),
            },
            KindRef::ClueAttempted { clue, answer, .. } => EventKind::ClueAttempted {
                clue: clue.to_owned(),
                answer: answer.to_owned(),
            },
            KindRef::TreasureClaimed { treasure } => EventKind::TreasureClaimed {
                treasure: treasure.to_owned(),
            },
            KindRef::HintTaken { clue, hint } => EventKind::HintTaken {
                clue: clue.to_owned(),
                hint: hint.to_owned(),
            },
            KindRef::Custom { type_name, payload } => EventKind::Custom {
                type_name: type_name.to_owned(),
                payload: Bytes::copy_from_slice(payload),
            },
            KindRef::Announced { clue, text } => EventKind::Announced {
                clue: clue.to_owned(),
                text: text.to_owned(),
            },
        };
        Ok(Event {
            hunt: self.hunt.to_owned(),
            player: self.player.to_owned(),
            occurred_at: self.occurred_at,
            kind,
        })
    }
}
