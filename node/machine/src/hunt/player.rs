//! What a hunt knows of one player.

use super::rules::ClueIndex;
use crate::Timestamp;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// Whether a player takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PlayerStatus {
    /// Takes part.
    Active = 1,
    /// Has left.
    Withdrawn = 2,
    /// Was put out.
    Disqualified = 3,
}

/// The moment of a player's last solve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSolve {
    /// The attempt's offset.
    pub offset: u64,
    /// The log's time, milliseconds since 1970.
    pub time_ms: u64,
    /// The client's time, where it sent one.
    pub occurred_at: Option<Timestamp>,
}

/// One player of a hunt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Player {
    pub(crate) id: Arc<str>,
    pub(crate) display_name: Box<str>,
    pub(crate) status: PlayerStatus,
    /// From 0, in the order of registration.
    pub(crate) registration: u64,
    pub(crate) points: u64,
    pub(crate) last_solve: Option<LastSolve>,
    /// In the order solved.
    pub(crate) solved: Vec<ClueIndex>,
    /// The same as a bit set.
    solved_bits: Vec<u64>,
    /// Clue and accepted attempts, by clue.
    pub(crate) attempts: Vec<(ClueIndex, u32)>,
    /// Clue and hint, sorted.
    pub(crate) hints: Vec<(ClueIndex, usize)>,
    /// In the order won.
    pub(crate) treasures: Vec<usize>,
}

impl Player {
    pub(crate) fn new(id: Arc<str>, display_name: &str, registration: u64) -> Self {
        Self {
            id,
            display_name: display_name.into(),
            status: PlayerStatus::Active,
            registration,
            points: 0,
            last_solve: None,
            solved: Vec::new(),
            solved_bits: Vec::new(),
            attempts: Vec::new(),
            hints: Vec::new(),
            treasures: Vec::new(),
        }
    }

    pub(crate) fn has_solved(&self, clue: ClueIndex) -> bool {
        self.solved_bits
            .get(clue / 64)
            .is_some_and(|bits| bits >> (clue % 64) & 1 == 1)
    }

    pub(crate) fn has_solved_all(&self, clues: &[ClueIndex]) -> bool {
        clues.iter().all(|&clue| self.has_solved(clue))
    }

    pub(crate) fn add_solved(&mut self, clue: ClueIndex) {
        if self.solved_bits.len() <= clue / 64 {
            self.solved_bits.resize(clue / 64 + 1, 0);
        }
        self.solved_bits[clue / 64] |= 1 << (clue % 64);
        self.solved.push(clue);
    }

    pub(crate) fn attempts(&self, clue: ClueIndex) -> u32 {
        match self.attempts.binary_search_by_key(&clue, |(clue, _)| *clue) {
            Ok(position) => self.attempts[position].1,
            Err(_) => 0,
        }
    }

    pub(crate) fn add_attempt(&mut self, clue: ClueIndex) {
        match self.attempts.binary_search_by_key(&clue, |(clue, _)| *clue) {
            Ok(position) => {
                let (_, count) = &mut self.attempts[position];
                *count = count.saturating_add(1);
            }
            Err(position) => self.attempts.insert(position, (clue, 1)),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            points: Reverse(self.points),
            last_solve: self.last_solve.map_or(u64::MAX, |solve| solve.offset),
            registration: self.registration,
            player: Arc::clone(&self.id),
        }
    }
}

/// A player's place in the order of the scoreboard, best first: points, then
/// the earlier last solve (none at all comes last), then registration.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    points: Reverse<u64>,
    last_solve: u64,
    registration: u64,
    pub(crate) player: Arc<str>,
}

impl Standing {
    fn key(&self) -> (Reverse<u64>, u64, u64) {
        (self.points, self.last_solve, self.registration)
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Standing {}
impl PartialOrd for Standing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Standing {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
