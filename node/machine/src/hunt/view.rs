//! What can be asked of a hunt.

use super::{Hunt, LastSolve, Player, PlayerStatus};
use crate::{EntryIndex, HuntDefinition, HuntState};
use std::sync::Arc;

/// How a clue has fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClueStats<'a> {
    /// Its id.
    pub clue: &'a str,
    /// Accepted attempts, right and wrong.
    pub attempts: u64,
    /// Players who solved it.
    pub solves: u64,
}

/// How a treasure has fared.
#[derive(Debug, Clone)]
pub struct TreasureStats<'a> {
    /// Its id.
    pub treasure: &'a str,
    /// How many players can win it.
    pub limit: u32,
    /// Who has, in order.
    pub winners: Vec<&'a str>,
}

/// Some rows of a hunt's scoreboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoreboard<'a> {
    /// Best first: points, then the earlier last solve, then registration.
    pub rows: Vec<ScoreboardRow<'a>>,
    /// All players on the scoreboard.
    pub total: u64,
}

/// One player's place on the scoreboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreboardRow<'a> {
    /// From 1.
    pub rank: u64,
    /// The player's id.
    pub player: &'a str,
    /// Points, for clues and treasures, less those paid for hints.
    pub points: u64,
    /// The number of clues solved.
    pub solved: u32,
    /// `None` while nothing is solved.
    pub last_solve: Option<LastSolve>,
}

impl Hunt {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is made of; answers as hashes only.
    #[must_use]
    pub fn definition(&self) -> &HuntDefinition {
        &self.rules.definition
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> HuntState {
        self.state
    }

    /// The number of its accepted events.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many players have registered, those who left or were put out
    /// included.
    #[must_use]
    pub fn player_count(&self) -> u64 {
        self.players.len() as u64
    }

    /// How many players have solved every clue.
    #[must_use]
    pub fn finishers(&self) -> u32 {
        self.finishers
    }

    /// The clues, in the order of the definition.
    pub fn clue_stats(&self) -> impl Iterator<Item = ClueStats<'_>> {
        self.rules
            .definition
            .clues
            .iter()
            .zip(&self.clues)
            .map(|(clue, &(attempts, solves))| ClueStats {
                clue: &clue.id,
                attempts,
                solves,
            })
    }

    /// The treasures, in the order of the definition.
    pub fn treasure_stats(&self) -> impl Iterator<Item = TreasureStats<'_>> {
        self.rules
            .definition
            .treasures
            .iter()
            .zip(&self.winners)
            .map(|(treasure, winners)| TreasureStats {
                treasure: &treasure.id,
                limit: treasure.limit,
                winners: winners.iter().map(AsRef::as_ref).collect(),
            })
    }

    /// The log indexes of the entries that added events to it.
    #[must_use]
    pub fn entries(&self) -> &EntryIndex {
        &self.entries
    }

    /// One of its players.
    #[must_use]
    pub fn player(&self, id: &str) -> Option<PlayerRef<'_>> {
        let player = self.players.get(id)?;
        Some(PlayerRef { hunt: self, player })
    }

    /// The players, by id.
    pub fn players(&self) -> impl Iterator<Item = PlayerRef<'_>> {
        self.players
            .values()
            .map(|player| PlayerRef { hunt: self, player })
    }

    /// Rows of the scoreboard: at most `limit` after the first `skip`.
    #[must_use]
    pub fn scoreboard(&self, skip: u64, limit: usize) -> Scoreboard<'_> {
        let rows = match usize::try_from(skip) {
            Ok(skip) => self
                .ranking
                .iter_from(skip)
                .take(limit)
                .zip(skip as u64 + 1..)
                .map(|(standing, rank)| row(&self.players[&standing.player], rank))
                .collect(),
            Err(_) => Vec::new(),
        };
        Scoreboard {
            rows,
            total: self.ranking.len() as u64,
        }
    }
}

fn row(player: &Player, rank: u64) -> ScoreboardRow<'_> {
    ScoreboardRow {
        rank,
        player: &player.id,
        points: player.points,
        solved: u32::try_from(player.solved.len()).expect("a hunt has at most 4,096 clues"),
        last_solve: player.last_solve,
    }
}

/// One player of a hunt.
#[derive(Debug, Clone, Copy)]
pub struct PlayerRef<'a> {
    hunt: &'a Hunt,
    player: &'a Arc<Player>,
}

impl<'a> PlayerRef<'a> {
    /// The player's id.
    #[must_use]
    pub fn id(&self) -> &'a str {
        &self.player.id
    }

    /// The name to show.
    #[must_use]
    pub fn display_name(&self) -> &'a str {
        &self.player.display_name
    }

    /// Whether the player takes part.
    #[must_use]
    pub fn status(&self) -> PlayerStatus {
        self.player.status
    }

    /// The place on the scoreboard; `None` for one who is not on it.
    #[must_use]
    pub fn row(&self) -> Option<ScoreboardRow<'a>> {
        (self.player.status == PlayerStatus::Active).then(|| {
            let rank = self.hunt.ranking.rank(&self.player.standing());
            row(self.player, rank as u64 + 1)
        })
    }

    /// The clues solved, in the order solved.
    pub fn solved_clues(&self) -> impl Iterator<Item = &'a str> {
        let clues = &self.hunt.rules.definition.clues;
        self.player
            .solved
            .iter()
            .map(|&clue| clues[clue].id.as_str())
    }

    /// The clues unlocked and not solved, in the order of the definition.
    pub fn open_clues(&self) -> impl Iterator<Item = &'a str> {
        let (rules, player) = (&self.hunt.rules, self.player);
        rules
            .definition
            .clues
            .iter()
            .enumerate()
            .filter(move |&(index, _)| {
                !player.has_solved(index) && player.has_solved_all(rules.requires(index))
            })
            .map(|(_, clue)| clue.id.as_str())
    }

    /// The treasures won, in the order won.
    pub fn treasures(&self) -> impl Iterator<Item = &'a str> {
        let treasures = &self.hunt.rules.definition.treasures;
        self.player
            .treasures
            .iter()
            .map(|&treasure| treasures[treasure].id.as_str())
    }

    /// Clue and hint of each hint taken, in the order of the definition.
    pub fn hints(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let clues = &self.hunt.rules.definition.clues;
        self.player.hints.iter().map(|&(clue, hint)| {
            let clue = &clues[clue];
            (clue.id.as_str(), clue.hints[hint].id.as_str())
        })
    }

    /// Clue and accepted attempts, for each clue attempted, in the order of the
    /// definition.
    pub fn attempts(&self) -> impl Iterator<Item = (&'a str, u32)> {
        let clues = &self.hunt.rules.definition.clues;
        self.player
            .attempts
            .iter()
            .map(|&(clue, attempts)| (clues[clue].id.as_str(), attempts))
    }
}
