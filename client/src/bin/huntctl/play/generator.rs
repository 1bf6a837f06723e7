//! A hunt out of nothing but a seed: its clues and treasures, its teams, and
//! what each of them does next, with what has to come of it.

use std::collections::BTreeSet;
use std::time::Duration;

use huntlog_client::proto::RejectReason;
use huntlog_client::proto::effect::Effect;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::{event, proto};
use prost_types::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::args::PlayArguments;

/// When the generated hunt takes place, in seconds since 1970: a Saturday
/// morning in May.
const BEGINS_AT: i64 = 1_778_918_400;

/// The most players that win one treasure.
const WINNERS_MAX: u32 = 3;

const SYLLABLES: [&str; 16] = [
    "an", "bor", "cal", "dun", "el", "fir", "gol", "hai", "ist", "jor", "kel", "lum", "mar", "nos",
    "oth", "per",
];

/// What has to come of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    Accepted,
    Wrong,
    Solved,
    Hint,
    Rejected(RejectReason),
    /// Won by some of those who claim it.
    Contest(u32),
}

impl Expected {
    /// Whether this outcome is as it has to be.
    pub fn is_met_by(self, outcome: &proto::EventOutcome) -> bool {
        let has = |wanted: fn(&Effect) -> bool| match &outcome.outcome {
            Some(Outcome::Accepted(accepted)) => accepted
                .effects
                .iter()
                .any(|effect| effect.effect.as_ref().is_some_and(wanted)),
            _ => false,
        };
        let rejected_for = |reason| match &outcome.outcome {
            Some(Outcome::Rejected(rejected)) => rejected.reason() == reason,
            _ => false,
        };
        match self {
            Self::Accepted => matches!(outcome.outcome, Some(Outcome::Accepted(_))),
            Self::Wrong => has(|effect| matches!(effect, Effect::AnswerWrong(_))),
            Self::Solved => has(|effect| matches!(effect, Effect::ClueSolved(_))),
            Self::Hint => has(|effect| matches!(effect, Effect::HintRevealed(_))),
            Self::Rejected(reason) => rejected_for(reason),
            Self::Contest(_) => {
                has(|effect| matches!(effect, Effect::TreasureWon(_)))
                    || rejected_for(RejectReason::TreasureExhausted)
            }
        }
    }
}

#[derive(Debug)]
struct Treasure {
    limit: u32,
    requires: usize,
    claimants: u32,
}

#[derive(Debug, Default, Clone)]
struct Team {
    solved: BTreeSet<usize>,
    hinted: BTreeSet<usize>,
    claimed: BTreeSet<usize>,
}

/// The hunt and everybody in it.
#[derive(Debug)]
pub struct World {
    hunt: String,
    rng: StdRng,
    clues: Vec<proto::Clue>,
    /// Of each clue, those to be solved before.
    requires: Vec<Vec<usize>>,
    treasures: Vec<Treasure>,
    teams: Vec<Team>,
    clock: Duration,
}

impl World {
    pub fn new(arguments: &PlayArguments) -> Self {
        let mut rng = StdRng::seed_from_u64(arguments.seed);
        let count = arguments.clues as usize;
        let requires: Vec<Vec<usize>> = (0..count)
            .map(|clue| {
                // Edges lead to earlier clues only, so that there is no cycle;
                // the first few are free.
                let wanted = if clue < 3 { 0 } else { rng.random_range(0..=2) };
                let chosen: BTreeSet<usize> =
                    (0..wanted).map(|_| rng.random_range(0..clue)).collect();
                chosen.into_iter().collect()
            })
            .collect();
        let clues = requires
            .iter()
            .enumerate()
            .map(|(index, requires)| generate_clue(&mut rng, index, requires))
            .collect();
        let treasures = (0..arguments.treasures)
            .map(|_| Treasure {
                limit: rng.random_range(1..=WINNERS_MAX),
                requires: rng.random_range(0..count),
                claimants: 0,
            })
            .collect();
        Self {
            hunt: arguments.hunt.clone(),
            rng,
            clues,
            requires,
            treasures,
            teams: vec![Team::default(); arguments.teams as usize],
            clock: Duration::ZERO,
        }
    }

    pub fn hunt(&self) -> &str {
        &self.hunt
    }

    pub fn teams(&self) -> u32 {
        u32::try_from(self.teams.len()).expect("made from a u32")
    }

    pub fn definition(&self) -> proto::HuntDefinition {
        let treasures = self.treasures.iter().enumerate();
        let treasures = treasures.map(|(index, treasure)| proto::Treasure {
            id: treasure_id(index),
            title: format!("Chest {}", index + 1),
            limit: treasure.limit,
            points: 25,
            requires: vec![clue_id(treasure.requires)],
        });
        proto::HuntDefinition {
            title: "A hunt through the old town".to_owned(),
            clues: self.clues.clone(),
            treasures: treasures.collect(),
            ..Default::default()
        }
    }

    pub fn registration(&self, team: u32) -> proto::Event {
        let id = team_id(team as usize);
        let name = format!("Team {}", team + 1);
        event::player_registered(&self.hunt, &id, &name)
    }

    /// Somebody's next event.
    pub fn next_move(&mut self) -> (u32, proto::Event, Expected) {
        let team = self.rng.random_range(0..self.teams.len());
        self.clock += Duration::from_millis(self.rng.random_range(1..500));
        let (mut event, expected) = match self.rng.random_range(0..100) {
            0..8 => self.right_guess(team),
            8..30 => self.wrong_guess(team),
            30..34 => self.early_guess(team),
            34..38 => self.hint(team),
            38..46 => self.claim(team),
            _ => None,
        }
        .unwrap_or_else(|| self.position(team));
        event.occurred_at = Some(Timestamp {
            seconds: BEGINS_AT + i64::try_from(self.clock.as_secs()).unwrap_or(i64::MAX / 2),
            nanos: i32::try_from(self.clock.subsec_nanos()).expect("below one billion"),
        });
        let team = u32::try_from(team).expect("made from a u32");
        (team, event, expected)
    }

    fn open_clues(&self, team: usize, open: bool) -> Vec<usize> {
        let solved = &self.teams[team].solved;
        (0..self.clues.len())
            .filter(|clue| !solved.contains(clue))
            .filter(|clue| self.requires[*clue].iter().all(|r| solved.contains(r)) == open)
            .collect()
    }

    fn choose_clue(&mut self, team: usize, open: bool) -> Option<usize> {
        let clues = self.open_clues(team, open);
        clues.choose(&mut self.rng).copied()
    }

    fn guess(&self, team: usize, clue: usize, answer: &str) -> proto::Event {
        event::clue_attempted(&self.hunt, &team_id(team), &clue_id(clue), answer)
    }

    fn right_guess(&mut self, team: usize) -> Option<(proto::Event, Expected)> {
        let clue = self.choose_clue(team, true)?;
        self.teams[team].solved.insert(clue);
        // As people type: case, spaces and punctuation do not matter.
        let answer = match self.rng.random_range(0..3) {
            0 => answer_of(&self.clues[clue]).to_owned(),
            1 => answer_of(&self.clues[clue]).to_lowercase(),
            _ => format!(" {}! ", answer_of(&self.clues[clue]).replace('R', "R ")),
        };
        Some((self.guess(team, clue, &answer), Expected::Solved))
    }

    fn wrong_guess(&mut self, team: usize) -> Option<(proto::Event, Expected)> {
        let clue = self.choose_clue(team, true)?;
        let answer = format!("{}X", word(&mut self.rng));
        Some((self.guess(team, clue, &answer), Expected::Wrong))
    }

    fn early_guess(&mut self, team: usize) -> Option<(proto::Event, Expected)> {
        let clue = self.choose_clue(team, false)?;
        let answer = answer_of(&self.clues[clue]).to_owned();
        let expected = Expected::Rejected(RejectReason::ClueLocked);
        Some((self.guess(team, clue, &answer), expected))
    }

    fn hint(&mut self, team: usize) -> Option<(proto::Event, Expected)> {
        let clue = self.choose_clue(team, true)?;
        let hint = &self.clues[clue].hints.first()?.id;
        let event = event::hint_taken(&self.hunt, &team_id(team), &clue_id(clue), hint);
        let expected = if self.teams[team].hinted.insert(clue) {
            Expected::Hint
        } else {
            Expected::Rejected(RejectReason::HintAlreadyTaken)
        };
        Some((event, expected))
    }

    fn claim(&mut self, team: usize) -> Option<(proto::Event, Expected)> {
        let may_claim = |index: &usize| {
            let team = &self.teams[team];
            team.solved.contains(&self.treasures[*index].requires) && !team.claimed.contains(index)
        };
        let claimable: Vec<usize> = (0..self.treasures.len()).filter(may_claim).collect();
        let index = *claimable.choose(&mut self.rng)?;
        self.teams[team].claimed.insert(index);
        self.treasures[index].claimants += 1;
        let event = event::treasure_claimed(&self.hunt, &team_id(team), &treasure_id(index));
        let treasure = u32::try_from(index).expect("made from a u32");
        Some((event, Expected::Contest(treasure)))
    }

    fn position(&mut self, team: usize) -> (proto::Event, Expected) {
        // Millionths of a degree, around a harbour.
        let (lat, lon) = (
            self.rng.random_range(53_540_000..53_560_000),
            self.rng.random_range(9_960_000..10_010_000),
        );
        let payload = format!(
            r#"{{"lat_e6":{lat},"lon_e6":{lon},"accuracy_m":{}}}"#,
            lat % 40
        );
        let event = event::custom(&self.hunt, &team_id(team), "position", payload.into_bytes());
        (event, Expected::Accepted)
    }

    /// How many teams have to win each treasure.
    pub fn foreseen_winners(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(self.treasures.iter().map(|t| t.limit.min(t.claimants)))
    }

    /// How many clues each team has to have solved.
    pub fn foreseen_solves(&self) -> impl Iterator<Item = (String, u32)> {
        self.teams.iter().enumerate().map(|(index, team)| {
            let solves = u32::try_from(team.solved.len()).expect("at most 1,000 clues");
            (team_id(index), solves)
        })
    }
}

fn generate_clue(rng: &mut StdRng, index: usize, requires: &[usize]) -> proto::Clue {
    let hints = rng.random_range(0..=1);
    let hints = (0..hints).map(|hint| proto::Hint {
        id: format!("hint-{}", hint + 1),
        cost: rng.random_range(1..=3),
    });
    let hints = hints.collect();
    proto::Clue {
        id: clue_id(index),
        title: format!("Stop {}", index + 1),
        requires: requires.iter().copied().map(clue_id).collect(),
        points: 5 * rng.random_range(1..=4),
        answers: vec![word(rng)],
        hints,
        ..Default::default()
    }
}

/// Four syllables, of which no wrong guess consists: those end in X.
fn word(rng: &mut StdRng) -> String {
    let syllables = (0..4).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]);
    syllables.collect::<String>().to_uppercase()
}

fn answer_of(clue: &proto::Clue) -> &str {
    clue.answers.first().map_or("", String::as_str)
}

fn clue_id(index: usize) -> String {
    format!("clue-{:03}", index + 1)
}

fn treasure_id(index: usize) -> String {
    format!("treasure-{:02}", index + 1)
}

fn team_id(index: usize) -> String {
    format!("team-{:03}", index + 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn world(seed: &str) -> World {
        let arguments = Arguments::parse_from(["huntctl", "play", "--seed", seed]);
        match arguments.command {
            Command::Play(play) => World::new(&play),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_seed_makes_one_hunt() {
        let play = |seed| {
            let mut world = world(seed);
            let moves: Vec<_> = (0..2_000).map(|_| world.next_move().1).collect();
            (world.definition(), moves)
        };
        assert_eq!(play("7"), play("7"));
        assert_ne!(play("7"), play("8"));
    }

    #[test]
    fn a_hunt_has_something_of_everything() {
        let mut world = world("1");
        let mut seen = BTreeSet::new();
        for _ in 0..5_000 {
            let (_, _, expected) = world.next_move();
            seen.insert(match expected {
                Expected::Contest(_) => "contest".to_owned(),
                other => format!("{other:?}"),
            });
        }
        let all = [
            "Accepted",
            "Hint",
            "Rejected(ClueLocked)",
            "Rejected(HintAlreadyTaken)",
            "Solved",
            "Wrong",
            "contest",
        ];
        assert_eq!(seen, all.map(str::to_owned).into());
        assert!(world.foreseen_winners().any(|(_, winners)| winners > 0));
    }
}
