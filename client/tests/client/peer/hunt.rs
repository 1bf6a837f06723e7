//! Just enough of a hunt's rules to judge guesses and claims.

use std::collections::{BTreeMap, BTreeSet};

use huntlog_client::proto;
use huntlog_client::proto::RejectReason as No;
use huntlog_client::proto::effect::Effect;
use huntlog_client::proto::event::Kind;

type Decision = Result<(u64, Vec<proto::Effect>), No>;

#[derive(Default)]
pub struct Hunts(BTreeMap<String, Hunt>);

#[derive(Default)]
pub struct Hunt {
    pub definition: proto::HuntDefinition,
    pub running: bool,
    pub revision: u64,
    pub players: BTreeMap<String, Player>,
    winners: BTreeMap<String, Vec<String>>,
}

#[derive(Default)]
pub struct Player {
    /// Clue, and the offset of its solving.
    pub solved: BTreeMap<String, u64>,
    hints: BTreeSet<String>,
}

fn normalised(answer: &str) -> String {
    let letters = answer.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_uppercase).collect()
}

fn effect(effect: Effect) -> proto::Effect {
    proto::Effect {
        effect: Some(effect),
    }
}

impl Hunts {
    pub fn get(&self, hunt: &str) -> Option<&Hunt> {
        self.0.get(hunt)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Hunt)> {
        self.0.iter()
    }

    pub fn revision(&self, hunt: &str) -> u64 {
        self.0.get(hunt).map_or(0, |hunt| hunt.revision)
    }

    pub fn apply(&mut self, event: &proto::Event, offset: u64) -> Decision {
        let kind = event.kind.as_ref().expect("a kind");
        if let Kind::HuntCreated(created) = kind {
            if self.0.contains_key(&event.hunt) {
                return Err(No::HuntExists);
            }
            let hunt = Hunt {
                definition: created.definition.clone().unwrap_or_default(),
                ..Hunt::default()
            };
            self.0.insert(event.hunt.clone(), hunt);
        }
        // The log is opaque to tests of nothing but delivery.
        if matches!(kind, Kind::Custom(_)) {
            let hunt = self.0.entry(event.hunt.clone()).or_default();
            hunt.revision += 1;
            return Ok((hunt.revision, Vec::new()));
        }
        let hunt = self.0.get_mut(&event.hunt).ok_or(No::HuntUnknown)?;
        let effects = hunt.decide(&event.player, kind, offset)?;
        hunt.revision += 1;
        Ok((hunt.revision, effects.into_iter().map(effect).collect()))
    }
}

impl Hunt {
    fn decide(&mut self, player: &str, kind: &Kind, offset: u64) -> Result<Vec<Effect>, No> {
        match kind {
            Kind::HuntStarted(_) => self.running = true,
            Kind::HuntFinished(_) => self.running = false,
            Kind::PlayerRegistered(_) => {
                if self.players.contains_key(player) {
                    return Err(No::PlayerExists);
                }
                self.players.insert(player.to_owned(), Player::default());
            }
            Kind::ClueAttempted(attempt) => return self.attempt(player, attempt, offset),
            Kind::TreasureClaimed(claim) => return self.claim(player, &claim.treasure),
            Kind::HintTaken(hint) => {
                let player = self.players.get_mut(player).ok_or(No::PlayerUnknown)?;
                if !player.hints.insert(format!("{}/{}", hint.clue, hint.hint)) {
                    return Err(No::HintAlreadyTaken);
                }
                return Ok(vec![Effect::HintRevealed(proto::HintRevealed {
                    clue: hint.clue.clone(),
                    hint: hint.hint.clone(),
                    cost: 1,
                })]);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn attempt(
        &mut self,
        player: &str,
        attempt: &proto::ClueAttempted,
        offset: u64,
    ) -> Result<Vec<Effect>, No> {
        if !self.running {
            return Err(No::HuntNotRunning);
        }
        let clues = self.definition.clues.iter();
        let mut clues = clues.filter(|clue| clue.id == attempt.clue);
        let clue = clues.next().ok_or(No::ClueUnknown)?.clone();
        let others = self.players.values();
        let rank = others.filter(|p| p.solved.contains_key(&clue.id)).count() + 1;
        let player = self.players.get_mut(player).ok_or(No::PlayerUnknown)?;
        if player.solved.contains_key(&clue.id) {
            return Err(No::ClueSolved);
        }
        if !clue.requires.iter().all(|r| player.solved.contains_key(r)) {
            return Err(No::ClueLocked);
        }
        let answer = normalised(&attempt.answer);
        if !clue.answers.iter().any(|right| normalised(right) == answer) {
            return Ok(vec![Effect::AnswerWrong(proto::AnswerWrong {
                clue: clue.id,
            })]);
        }
        player.solved.insert(clue.id.clone(), offset);
        Ok(vec![Effect::ClueSolved(proto::ClueSolved {
            clue: clue.id,
            rank: u32::try_from(rank).expect("small"),
            points: clue.points,
        })])
    }

    fn claim(&mut self, player: &str, treasure: &str) -> Result<Vec<Effect>, No> {
        let treasures = self.definition.treasures.iter();
        let mut treasures = treasures.filter(|known| known.id == treasure);
        let definition = treasures.next().ok_or(No::TreasureUnknown)?;
        let solved = &self.players.get(player).ok_or(No::PlayerUnknown)?.solved;
        if !definition.requires.iter().all(|r| solved.contains_key(r)) {
            return Err(No::TreasureLocked);
        }
        let winners = self.winners.entry(treasure.to_owned()).or_default();
        if winners.len() >= definition.limit as usize {
            return Err(No::TreasureExhausted);
        }
        winners.push(player.to_owned());
        Ok(vec![Effect::TreasureWon(proto::TreasureWon {
            treasure: treasure.to_owned(),
            rank: u32::try_from(winners.len()).expect("small"),
            points: definition.points,
        })])
    }
}
