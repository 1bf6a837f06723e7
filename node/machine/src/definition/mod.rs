//! What a hunt is made of: mirrors of `huntlog.v1.HuntDefinition` and its
//! parts, with the answers already hashed.

mod faults;

pub use faults::DefinitionFault;

use crate::Timestamp;
use bytes::Bytes;

/// What a hunt is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HuntDefinition {
    /// The name to show.
    pub title: String,
    /// At least one.
    pub clues: Vec<Clue>,
    /// What can be won besides points for clues.
    pub treasures: Vec<Treasure>,
    /// Once the log's time reaches it, the hunt starts by itself (from DRAFT or
    /// OPEN).
    pub starts_at: Option<Timestamp>,
    /// Once the log's time reaches it, the hunt finishes by itself (from
    /// RUNNING or PAUSED). Later than `starts_at`.
    pub ends_at: Option<Timestamp>,
    /// The most players that may register, those who withdraw later included; 0
    /// means no limit.
    pub max_players: u32,
}

/// A question, its answers, and where it stands in the hunt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clue {
    /// Unique among the hunt's clues; 1 to 128 bytes.
    pub id: String,
    /// The name to show.
    pub title: String,
    /// Clues to be solved before this one can be attempted. No cycles.
    pub requires: Vec<String>,
    /// Given to each player who solves it.
    pub points: u32,
    /// The salt of `answer_hashes`.
    pub answer_salt: Bytes,
    /// [`answer_hash`](crate::answer_hash)es of the right answers, at least one.
    pub answer_hashes: Vec<[u8; 32]>,
    /// The most attempts a player has; 0 means no limit.
    pub max_attempts: u32,
    /// Help to be bought with points.
    pub hints: Vec<Hint>,
}

/// Help with a clue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    /// Unique among the clue's hints; 1 to 128 bytes.
    pub id: String,
    /// Points taken from the player who takes it; never more than there are.
    pub cost: u32,
}

/// Something that a limited number of players can win.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Treasure {
    /// Unique among the hunt's treasures; 1 to 128 bytes.
    pub id: String,
    /// The name to show.
    pub title: String,
    /// How many players can win it, at least 1.
    pub limit: u32,
    /// Given to each player who wins it.
    pub points: u32,
    /// Clues a player must have solved to claim it.
    pub requires: Vec<String>,
}
