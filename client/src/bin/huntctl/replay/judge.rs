//! Comparing the cluster's outcomes with the recorded verdicts.
//!
//! A guess that solves its clue agrees with Y, one that is wrong with N. A
//! guess at a clue its team has solved before is rejected without being judged
//! again (CLUE_SOLVED): it agrees when its verdict is what the file says of the
//! same text elsewhere, Y for one of the puzzle's answers and N for anything
//! else. Every other rejection disagrees.

use std::collections::HashSet;

use huntlog_client::proto;
use huntlog_client::proto::event_outcome::Outcome;
use serde_json::{Value, json};

use super::plan::Part;
use crate::document;
use crate::failure::Failure;
use crate::recording::{Guess, Recording};

/// Disagreements told one by one.
const TOLD: usize = 20;

/// What the cluster made of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observed {
    Solved,
    Wrong,
    /// Accepted without being judged: no guess.
    Accepted,
    /// Why, unless only its absence from the log tells of it.
    Rejected(Option<proto::RejectReason>),
}

impl Observed {
    pub fn of(outcome: &proto::EventOutcome) -> Self {
        match &outcome.outcome {
            Some(Outcome::Accepted(accepted)) => Self::of_effects(&accepted.effects),
            Some(Outcome::Rejected(rejected)) => Self::Rejected(Some(rejected.reason())),
            None => Self::Rejected(Some(proto::RejectReason::Unspecified)),
        }
    }

    pub fn of_effects(effects: &[proto::Effect]) -> Self {
        use proto::effect::Effect;
        effects
            .iter()
            .find_map(|effect| match effect.effect {
                Some(Effect::ClueSolved(_)) => Some(Self::Solved),
                Some(Effect::AnswerWrong(_)) => Some(Self::Wrong),
                _ => None,
            })
            .unwrap_or(Self::Accepted)
    }

    fn words(self) -> String {
        match self {
            Self::Solved => "solved".to_owned(),
            Self::Wrong => "wrong".to_owned(),
            Self::Accepted => "accepted without effect".to_owned(),
            Self::Rejected(Some(reason)) => {
                format!("rejected: {}", document::reject_reason(reason))
            }
            Self::Rejected(None) => "rejected".to_owned(),
        }
    }
}

/// Takes the outcomes in the file's order.
pub struct Judge<'a> {
    recording: &'a Recording,
    solved: HashSet<(usize, usize)>,
    agreements: u64,
    disagreements: u64,
    already_solved: u64,
    told: Vec<Value>,
}

impl<'a> Judge<'a> {
    pub fn new(recording: &'a Recording) -> Self {
        Self {
            recording,
            solved: HashSet::new(),
            agreements: 0,
            disagreements: 0,
            already_solved: 0,
            told: Vec::new(),
        }
    }

    pub fn guesses(&self) -> u64 {
        self.recording.guesses.len() as u64
    }

    pub fn agreements(&self) -> u64 {
        self.agreements
    }

    pub fn disagreements(&self) -> u64 {
        self.disagreements
    }

    /// Guesses at clues their teams had solved.
    pub fn already_solved(&self) -> u64 {
        self.already_solved
    }

    /// The first disagreements.
    pub fn told(&self) -> &[Value] {
        &self.told
    }

    /// Takes the outcomes of one batch. A setup that is rejected ends the
    /// replay; guesses are counted.
    pub fn take(
        &mut self,
        part: &Part,
        observed: impl Iterator<Item = Observed>,
    ) -> Result<(), Failure> {
        match part {
            Part::Setup => {
                for observed in observed {
                    if let Observed::Rejected(_) = observed {
                        let why = format!("the hunt could not be set up: {}", observed.words());
                        return Err(Failure::Refused(why));
                    }
                }
            }
            Part::Guesses(range) => {
                for (index, observed) in range.clone().zip(observed) {
                    self.judge(&self.recording.guesses[index], observed);
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, guess: &Guess, observed: Observed) {
        let key = (guess.team, guess.puzzle);
        let agrees = match observed {
            Observed::Solved => {
                self.solved.insert(key);
                guess.right
            }
            Observed::Wrong => !guess.right,
            Observed::Rejected(Some(proto::RejectReason::ClueSolved) | None)
                if self.solved.contains(&key) =>
            {
                self.already_solved += 1;
                let answers = &self.recording.puzzles[guess.puzzle].answers;
                guess.right == answers.contains(&guess.text)
            }
            Observed::Accepted | Observed::Rejected(_) => false,
        };
        if agrees {
            self.agreements += 1;
            return;
        }
        self.disagreements += 1;
        if self.told.len() < TOLD {
            self.told.push(json!({
                "line": guess.line,
                "team": self.recording.teams[guess.team],
                "puzzle": self.recording.puzzles[guess.puzzle].name,
                "guess": guess.text,
                "verdict": if guess.right { "Y" } else { "N" },
                "outcome": observed.words(),
            }));
        }
    }
}
