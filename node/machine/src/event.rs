//! What clients submit: owned types, mirrors of `huntlog.v1.Batch` and
//! `huntlog.v1.Event`.

use crate::level::{FIRST_LEVEL, LEVELS};
use crate::{HuntDefinition, Timestamp};
use bytes::Bytes;

/// The events of one append, logged whole. (session, sequence) names it for
/// ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The producer's session.
    pub session: String,
    /// The session's epoch, as its opening answered.
    pub epoch: u64,
    /// From 1, one higher for each batch of the session.
    pub sequence: u64,
    /// What must hold for the batch to be applied: hunt and revision.
    pub expected: Vec<(String, ExpectedRevision)>,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// What a batch expects of a hunt's latest revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedRevision {
    /// The hunt has no event yet.
    None,
    /// The hunt's latest revision.
    Exactly(u64),
}

impl ExpectedRevision {
    /// As a number: a hunt without events has revision 0.
    #[must_use]
    pub fn revision(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Exactly(revision) => revision,
        }
    }
}

/// One fact a client submits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The hunt it concerns.
    pub hunt: String,
    /// Who plays; empty where the kind needs no player.
    pub player: String,
    /// When it happened in the field, by the client's clock.
    pub occurred_at: Option<Timestamp>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Creates the hunt, in state DRAFT.
    HuntCreated(Box<HuntDefinition>),
    /// Opens registration.
    HuntOpened,
    /// Starts the hunt.
    HuntStarted,
    /// Suspends a running hunt.
    HuntPaused,
    /// Takes a paused hunt up again.
    HuntResumed,
    /// Ends the hunt in good order.
    HuntFinished,
    /// Ends the hunt for another reason.
    HuntCancelled {
        /// Why, for people to read.
        reason: String,
    },
    /// The player takes part from now on.
    PlayerRegistered {
        /// The name to show.
        display_name: String,
    },
    /// The player takes part no longer.
    PlayerWithdrawn,
    /// The player may take part no longer.
    PlayerDisqualified {
        /// Why, for people to read.
        reason: String,
    },
    /// The player answers a clue.
    ClueAttempted {
        /// The clue's id.
        clue: String,
        /// The answer as typed.
        answer: String,
    },
    /// The player claims a treasure.
    TreasureClaimed {
        /// The treasure's id.
        treasure: String,
    },
    /// The player takes a hint.
    HintTaken {
        /// The clue's id.
        clue: String,
        /// The hint's id.
        hint: String,
    },
    /// Opaque and high-volume: a position report, a chat line.
    Custom {
        /// The application's name for it.
        type_name: String,
        /// The application's bytes.
        payload: Bytes,
    },
    /// The organisers tell all players something, such as an erratum.
    Announced {
        /// The id of the clue it is about; empty when it is about the hunt.
        clue: String,
        /// What they say, for people to read.
        text: String,
    },
}

impl EventKind {
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

/// The kind of an event, as filters, the workflow table and the log's encoding
/// name it. The numbers are those of `huntlog.v1.EventType` and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventType {
    /// [`EventKind::HuntCreated`]
    HuntCreated = 1,
    /// [`EventKind::HuntOpened`]
    HuntOpened = 2,
    /// [`EventKind::HuntStarted`]
    HuntStarted = 3,
    /// [`EventKind::HuntPaused`]
    HuntPaused = 4,
    /// [`EventKind::HuntResumed`]
    HuntResumed = 5,
    /// [`EventKind::HuntFinished`]
    HuntFinished = 6,
    /// [`EventKind::HuntCancelled`]
    HuntCancelled = 7,
    /// [`EventKind::PlayerRegistered`]
    PlayerRegistered = 8,
    /// [`EventKind::PlayerWithdrawn`]
    PlayerWithdrawn = 9,
    /// [`EventKind::PlayerDisqualified`]
    PlayerDisqualified = 10,
    /// [`EventKind::ClueAttempted`]
    ClueAttempted = 11,
    /// [`EventKind::TreasureClaimed`]
    TreasureClaimed = 12,
    /// [`EventKind::HintTaken`]
    HintTaken = 13,
    /// [`EventKind::Custom`]
    Custom = 14,
    /// [`EventKind::Announced`]
    Announced = 15,
}

impl EventType {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::HuntCreated,
        Self::HuntOpened,
        Self::HuntStarted,
        Self::HuntPaused,
        Self::HuntResumed,
        Self::HuntFinished,
        Self::HuntCancelled,
        Self::PlayerRegistered,
        Self::PlayerWithdrawn,
        Self::PlayerDisqualified,
        Self::ClueAttempted,
        Self::TreasureClaimed,
        Self::HintTaken,
        Self::Custom,
        Self::Announced,
    ];

    /// The feature level from which on a log may hold it.
    #[must_use]
    pub fn level(self) -> u32 {
        match self {
            Self::Announced => LEVELS,
            _ => FIRST_LEVEL,
        }
    }

    /// Its number, 1 to 15.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Its name, as in the wire contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HuntCreated => "HuntCreated",
            Self::HuntOpened => "HuntOpened",
            Self::HuntStarted => "HuntStarted",
            Self::HuntPaused => "HuntPaused",
            Self::HuntResumed => "HuntResumed",
            Self::HuntFinished => "HuntFinished",
            Self::HuntCancelled => "HuntCancelled",
            Self::PlayerRegistered => "PlayerRegistered",
            Self::PlayerWithdrawn => "PlayerWithdrawn",
            Self::PlayerDisqualified => "PlayerDisqualified",
            Self::ClueAttempted => "ClueAttempted",
            Self::TreasureClaimed => "TreasureClaimed",
            Self::HintTaken => "HintTaken",
            Self::Custom => "Custom",
            Self::Announced => "Announced",
        }
    }

    /// Whether the kind is about one player and means nothing without.
    /// (`Custom` may name one.)
    #[must_use]
    pub fn needs_player(self) -> bool {
        matches!(
            self,
            Self::PlayerRegistered
                | Self::PlayerWithdrawn
                | Self::PlayerDisqualified
                | Self::ClueAttempted
                | Self::TreasureClaimed
                | Self::HintTaken
        )
    }
}
