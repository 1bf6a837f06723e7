//! What follows from an accepted event, and how it is encoded.
//!
//! Most effects are about the very clue, treasure or hint their event names, so
//! the encoding leaves those names out and decoding borrows them from the event.

use crate::HuntState;
use crate::codec::event::KindRef;
use crate::codec::{DecodeError, Put, Reader};

/// What followed from an accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The answer is not among the right ones.
    AnswerWrong {
        /// The clue attempted.
        clue: &'a str,
    },
    /// The answer is right.
    ClueSolved {
        /// The clue attempted.
        clue: &'a str,
        /// The player is the rank-th to solve it, from 1.
        rank: u32,
        /// Given to the player.
        points: u32,
    },
    /// The player may attempt a further clue.
    ClueUnlocked {
        /// That clue.
        clue: &'a str,
    },
    /// The player has the treasure.
    TreasureWon {
        /// The treasure claimed.
        treasure: &'a str,
        /// The player is the rank-th winner, from 1 to the treasure's limit.
        rank: u32,
        /// Given to the player.
        points: u32,
    },
    /// The player has solved every clue.
    HuntWon {
        /// The player is the rank-th to do so, from 1.
        rank: u32,
    },
    /// The hunt is in another state.
    HuntStateChanged {
        /// The state before.
        from: HuntState,
        /// The state since.
        to: HuntState,
    },
    /// The player knows the hint.
    HintRevealed {
        /// The clue it helps with.
        clue: &'a str,
        /// The hint taken.
        hint: &'a str,
        /// Points taken from the player, who may have had fewer than it costs.
        cost: u32,
    },
}

/// The names an event itself gives, which its effects need not repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Own<'a> {
    clue: &'a str,
    treasure: &'a str,
    hint: &'a str,
}

impl<'a> Own<'a> {
    pub(crate) fn of(kind: &KindRef<'a>) -> Self {
        match *kind {
            KindRef::ClueAttempted { clue, .. } => Self {
                clue,
                ..Self::default()
            },
            KindRef::TreasureClaimed { treasure } => Self {
                treasure,
                ..Self::default()
            },
            KindRef::HintTaken { clue, hint } => Self {
                clue,
                hint,
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

const ANSWER_WRONG: u8 = 1;
const CLUE_SOLVED: u8 = 2;
const CLUE_UNLOCKED: u8 = 3;
const TREASURE_WON: u8 = 4;
const HUNT_WON: u8 = 5;
const HUNT_STATE_CHANGED: u8 = 6;
const HINT_REVEALED: u8 = 7;

/// Appends an effect of the event whose names [`Own`] has.
pub(crate) fn put_effect(out: &mut Vec<u8>, effect: &Effect<'_>) {
    match *effect {
        Effect::AnswerWrong { .. } => out.put_u8(ANSWER_WRONG),
        Effect::ClueSolved { rank, points, .. } => {
            out.put_u8(CLUE_SOLVED);
            out.put_varint(rank.into());
            out.put_varint(points.into());
        }
        Effect::ClueUnlocked { clue } => {
            out.put_u8(CLUE_UNLOCKED);
            out.put_str(clue);
        }
        Effect::TreasureWon { rank, points, .. } => {
            out.put_u8(TREASURE_WON);
            out.put_varint(rank.into());
            out.put_varint(points.into());
        }
        Effect::HuntWon { rank } => {
            out.put_u8(HUNT_WON);
            out.put_varint(rank.into());
        }
        Effect::HuntStateChanged { from, to } => {
            out.put_u8(HUNT_STATE_CHANGED);
            out.put_u8(from.number());
            out.put_u8(to.number());
        }
        Effect::HintRevealed { cost, .. } => {
            out.put_u8(HINT_REVEALED);
            out.put_varint(cost.into());
        }
    }
}

fn read_effect<'a>(reader: &mut Reader<'a>, own: Own<'a>) -> Result<Effect<'a>, DecodeError> {
    Ok(match reader.u8("effect")? {
        ANSWER_WRONG => Effect::AnswerWrong { clue: own.clue },
        CLUE_SOLVED => Effect::ClueSolved {
            clue: own.clue,
            rank: reader.varint_u32("rank")?,
            points: reader.varint_u32("points")?,
        },
        CLUE_UNLOCKED => Effect::ClueUnlocked {
            clue: reader.str("clue")?,
        },
        TREASURE_WON => Effect::TreasureWon {
            treasure: own.treasure,
            rank: reader.varint_u32("rank")?,
            points: reader.varint_u32("points")?,
        },
        HUNT_WON => Effect::HuntWon {
            rank: reader.varint_u32("rank")?,
        },
        HUNT_STATE_CHANGED => Effect::HuntStateChanged {
            from: HuntState::read(reader)?,
            to: HuntState::read(reader)?,
        },
        HINT_REVEALED => Effect::HintRevealed {
            clue: own.clue,
            hint: own.hint,
            cost: reader.varint_u32("cost")?,
        },
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "effect",
                tag,
            });
        }
    })
}

/// The effects of one event, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects<'a> {
    encoded: &'a [u8],
    own: Own<'a>,
}

impl<'a> Effects<'a> {
    /// Checks the encoding, so that iterating cannot fail.
    pub(crate) fn decode(encoded: &'a [u8], own: Own<'a>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(encoded);
        while !reader.is_empty() {
            read_effect(&mut reader, own)?;
        }
        Ok(Self { encoded, own })
    }

    /// Whether nothing followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Effect<'a>;

    fn next(&mut self) -> Option<Effect<'a>> {
        if self.encoded.is_empty() {
            return None;
        }
        let mut reader = Reader::new(self.encoded);
        let effect = read_effect(&mut reader, self.own).expect("checked when decoded");
        self.encoded = reader.rest();
        Some(effect)
    }
}
