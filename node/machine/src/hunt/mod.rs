//! One hunt: its definition, its life, its players, and the rules that decide
//! about their events.

mod entry_index;
mod player;
mod ranking;
mod rules;
mod view;

pub use entry_index::EntryIndex;
pub use player::{LastSolve, PlayerStatus};
pub use view::{ClueStats, PlayerRef, Scoreboard, ScoreboardRow, TreasureStats};

pub(crate) use player::Player;
pub(crate) use ranking::Ranking;
pub(crate) use rules::{ClueIndex, Rules};

use crate::answer::hash_normalised;
use crate::codec::event::{EventRef, KindRef};
use crate::effect::{Effect, put_effect};
use crate::workflow::{self, Clock, Step};
use crate::{EventType, HuntState, Limits, RejectReason};
use huntlog_planted::{Bug, is_planted};
use imbl::{OrdMap, Vector};
use player::Standing;
use std::sync::Arc;

/// One hunt. A clone shares everything that neither changes.
#[derive(Debug, Clone)]
pub struct Hunt {
    pub(crate) id: Arc<str>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) state: HuntState,
    pub(crate) revision: u64,
    pub(crate) players: OrdMap<Arc<str>, Arc<Player>>,
    pub(crate) ranking: Ranking<Standing>,
    /// Of each clue: accepted attempts, solves.
    pub(crate) clues: Vector<(u64, u64)>,
    /// Of each treasure: its winners, in order.
    pub(crate) winners: Vector<Vector<Arc<str>>>,
    /// Players who have solved every clue.
    pub(crate) finishers: u32,
    pub(crate) entries: EntryIndex,
}

/// Where in the log an event stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) time_ms: u64,
}

impl Hunt {
    pub(crate) fn new(id: Arc<str>, rules: Rules) -> Self {
        Self {
            id,
            state: HuntState::Draft,
            revision: 0,
            players: OrdMap::new(),
            ranking: Ranking::default(),
            clues: rules.definition.clues.iter().map(|_| (0, 0)).collect(),
            winners: rules
                .definition
                .treasures
                .iter()
                .map(|_| Vector::new())
                .collect(),
            finishers: 0,
            entries: EntryIndex::default(),
            rules: Arc::new(rules),
        }
    }

    /// When the clock will change the hunt, and by which kind of event.
    pub(crate) fn due(&self) -> Option<(u64, EventType)> {
        let (clock, kind) = workflow::awaited(self.state)?;
        let definition = &self.rules.definition;
        let time = match clock {
            Clock::StartsAt => definition.starts_at,
            Clock::EndsAt => definition.ends_at,
        };
        Some((time?.due_ms(), kind))
    }

    /// Goes to another state, as the workflow says for this kind.
    pub(crate) fn go_to(&mut self, to: HuntState, effects: &mut Vec<u8>) {
        let from = std::mem::replace(&mut self.state, to);
        put_effect(effects, &Effect::HuntStateChanged { from, to });
    }

    /// Decides about an event of a kind that is not the creation of a hunt, and
    /// appends what follows from it. A rejected event changes nothing.
    pub(crate) fn apply(
        &mut self,
        event: &EventRef<'_>,
        at: Position,
        limits: &Limits,
        effects: &mut Vec<u8>,
    ) -> Result<(), RejectReason> {
        match workflow::step(self.state, event.kind.event_type()) {
            Step::Refuse(reason) => return Err(reason),
            Step::To(state) => self.go_to(state, effects),
            Step::Stay => match event.kind {
                KindRef::PlayerRegistered { display_name } => {
                    self.register(event.player, display_name, limits)?;
                }
                KindRef::PlayerWithdrawn => self.put_out(event.player, PlayerStatus::Withdrawn)?,
                KindRef::PlayerDisqualified { .. } => {
                    self.put_out(event.player, PlayerStatus::Disqualified)?;
                }
                KindRef::ClueAttempted {
                    clue, normalised, ..
                } => self.attempt(event, clue, normalised, at, effects)?,
                KindRef::TreasureClaimed { treasure } => {
                    self.claim(event.player, treasure, effects)?;
                }
                KindRef::HintTaken { clue, hint } => {
                    self.take_hint(event.player, clue, hint, effects)?;
                }
                KindRef::Announced { clue, .. } if !clue.is_empty() => {
                    self.rules.clue(clue).ok_or(RejectReason::ClueUnknown)?;
                }
                // The rest are transitions, which never stay, and what changes
                // nothing: Custom, and what is announced to all.
                _ => {}
            },
        }
        Ok(())
    }

    fn register(
        &mut self,
        id: &str,
        display_name: &str,
        limits: &Limits,
    ) -> Result<(), RejectReason> {
        if id.is_empty() {
            return Err(RejectReason::PlayerUnknown);
        }
        if let Some(player) = self.players.get(id) {
            return Err(match player.status {
                PlayerStatus::Active => RejectReason::PlayerExists,
                PlayerStatus::Withdrawn => RejectReason::PlayerWithdrawn,
                PlayerStatus::Disqualified => RejectReason::PlayerDisqualified,
            });
        }
        let max = match self.rules.definition.max_players {
            0 => limits.players_per_hunt_max,
            max => max.min(limits.players_per_hunt_max),
        };
        if self.players.len() >= max as usize {
            return Err(RejectReason::HuntFull);
        }
        let id: Arc<str> = id.into();
        let player = Player::new(Arc::clone(&id), display_name, self.players.len() as u64);
        self.ranking.insert(player.standing());
        self.players.insert(id, Arc::new(player));
        Ok(())
    }

    fn put_out(&mut self, id: &str, status: PlayerStatus) -> Result<(), RejectReason> {
        let player = self
            .players
            .get_mut(id)
            .ok_or(RejectReason::PlayerUnknown)?;
        match (player.status, status) {
            (PlayerStatus::Disqualified, _) => return Err(RejectReason::PlayerDisqualified),
            (PlayerStatus::Withdrawn, PlayerStatus::Withdrawn) => {
                return Err(RejectReason::PlayerWithdrawn);
            }
            _ => {}
        }
        self.ranking.remove(&player.standing());
        Arc::make_mut(player).status = status;
        Ok(())
    }

    fn attempt(
        &mut self,
        event: &EventRef<'_>,
        clue: &str,
        normalised: &str,
        at: Position,
        effects: &mut Vec<u8>,
    ) -> Result<(), RejectReason> {
        let player = active(&mut self.players, event.player)?;
        let index = self.rules.clue(clue).ok_or(RejectReason::ClueUnknown)?;
        let definition = &self.rules.definition.clues[index];
        if player.has_solved(index) {
            return Err(RejectReason::ClueSolved);
        }
        if !player.has_solved_all(self.rules.requires(index)) {
            return Err(RejectReason::ClueLocked);
        }
        if definition.max_attempts > 0 && player.attempts(index) >= definition.max_attempts {
            return Err(RejectReason::AttemptsExhausted);
        }

        let player = Arc::make_mut(player);
        player.add_attempt(index);
        let (attempts, solves) = &mut self.clues[index];
        *attempts += 1;
        let hash = hash_normalised(&definition.answer_salt, normalised);
        if !definition.answer_hashes.contains(&hash) {
            put_effect(effects, &Effect::AnswerWrong { clue });
            return Ok(());
        }
        *solves += 1;
        self.ranking.remove(&player.standing());
        player.add_solved(index);
        player.points += u64::from(definition.points);
        player.last_solve = Some(LastSolve {
            offset: at.offset,
            time_ms: at.time_ms,
            occurred_at: event.occurred_at,
        });
        self.ranking.insert(player.standing());

        put_effect(
            effects,
            &Effect::ClueSolved {
                clue,
                rank: u32::try_from(*solves).unwrap_or(u32::MAX),
                points: definition.points,
            },
        );
        for &next in self.rules.required_by(index) {
            if player.has_solved_all(self.rules.requires(next)) {
                let clue = &self.rules.definition.clues[next].id;
                put_effect(effects, &Effect::ClueUnlocked { clue });
            }
        }
        if player.solved.len() == self.rules.definition.clues.len() {
            self.finishers = self.finishers.saturating_add(1);
            let rank = self.finishers;
            put_effect(effects, &Effect::HuntWon { rank });
        }
        Ok(())
    }

    fn claim(
        &mut self,
        player: &str,
        treasure: &str,
        effects: &mut Vec<u8>,
    ) -> Result<(), RejectReason> {
        let player = active(&mut self.players, player)?;
        let index = self
            .rules
            .treasure(treasure)
            .ok_or(RejectReason::TreasureUnknown)?;
        let definition = &self.rules.definition.treasures[index];
        if player.treasures.contains(&index) {
            return Err(RejectReason::TreasureAlreadyWon);
        }
        if !player.has_solved_all(self.rules.treasure_requires(index)) {
            return Err(RejectReason::TreasureLocked);
        }
        let winners = &mut self.winners[index];
        let one_more = usize::from(is_planted(Bug::ClaimCountedTwice));
        if winners.len() >= definition.limit as usize + one_more {
            return Err(RejectReason::TreasureExhausted);
        }
        let player = Arc::make_mut(player);
        winners.push_back(Arc::clone(&player.id));
        player.treasures.push(index);
        self.ranking.remove(&player.standing());
        player.points += u64::from(definition.points);
        self.ranking.insert(player.standing());
        put_effect(
            effects,
            &Effect::TreasureWon {
                treasure,
                rank: u32::try_from(winners.len()).expect("at most the limit"),
                points: definition.points,
            },
        );
        Ok(())
    }

    fn take_hint(
        &mut self,
        player: &str,
        clue: &str,
        hint: &str,
        effects: &mut Vec<u8>,
    ) -> Result<(), RejectReason> {
        let player = active(&mut self.players, player)?;
        let clue_index = self.rules.clue(clue).ok_or(RejectReason::ClueUnknown)?;
        let definition = &self.rules.definition.clues[clue_index];
        let hint_index = definition
            .hints
            .iter()
            .position(|known| known.id == hint)
            .ok_or(RejectReason::HintUnknown)?;
        // A hint to what is solved would cost points and help nobody.
        if player.has_solved(clue_index) {
            return Err(RejectReason::ClueSolved);
        }
        if !player.has_solved_all(self.rules.requires(clue_index)) {
            return Err(RejectReason::ClueLocked);
        }
        let Err(position) = player.hints.binary_search(&(clue_index, hint_index)) else {
            return Err(RejectReason::HintAlreadyTaken);
        };
        let player = Arc::make_mut(player);
        player.hints.insert(position, (clue_index, hint_index));
        let cost = u64::from(definition.hints[hint_index].cost).min(player.points);
        self.ranking.remove(&player.standing());
        player.points -= cost;
        self.ranking.insert(player.standing());
        let cost = u32::try_from(cost).expect("at most the hint's cost");
        put_effect(effects, &Effect::HintRevealed { clue, hint, cost });
        Ok(())
    }
}

/// A player who takes part.
fn active<'p>(
    players: &'p mut OrdMap<Arc<str>, Arc<Player>>,
    id: &str,
) -> Result<&'p mut Arc<Player>, RejectReason> {
    let player = players.get_mut(id).ok_or(RejectReason::PlayerUnknown)?;
    match player.status {
        PlayerStatus::Active => Ok(player),
        PlayerStatus::Withdrawn => Err(RejectReason::PlayerWithdrawn),
        PlayerStatus::Disqualified => Err(RejectReason::PlayerDisqualified),
    }
}
