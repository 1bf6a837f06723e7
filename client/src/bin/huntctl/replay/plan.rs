//! The batches of a replay, every one of them known before the first is sent.

use std::collections::HashSet;
use std::ops::Range;

use huntlog_client::{event, limits, proto};
use sha2::{Digest, Sha256};

use crate::args::ReplayArguments;
use crate::recording::{Guess, Recording};
use crate::run::{Batch, session_name};

/// Registrations in one batch.
const REGISTRATIONS: usize = 512;

/// The hash of a puzzle nobody solved: SHA-256 of nothing. The salted input of
/// a real answer's hash is never empty, so that to match it takes a second
/// preimage.
const NO_ANSWER: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
const NO_ANSWER_SALT: &[u8] = b"never solved";

/// What a batch is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// The hunt, or its teams.
    Setup,
    /// These guesses of the recording.
    Guesses(Range<usize>),
}

/// Every batch, by session.
pub struct Plan<'a> {
    recording: &'a Recording,
    hunt: &'a str,
    fingerprint: String,
    teams: Vec<String>,
    puzzles: Vec<String>,
    shares: Vec<Vec<Part>>,
}

impl<'a> Plan<'a> {
    pub fn new(recording: &'a Recording, arguments: &'a ReplayArguments) -> Self {
        let batch = usize::from(arguments.run.batch);
        let sessions = usize::from(arguments.run.sessions);
        let guesses = recording.guesses.len();
        let parts: Vec<Part> = (0..guesses)
            .step_by(batch)
            .map(|from| Part::Guesses(from..(from + batch).min(guesses)))
            .collect();
        let from = |session: usize| session * parts.len() / sessions;
        let mut shares: Vec<Vec<Part>> = (0..sessions)
            .map(|session| parts[from(session)..from(session + 1)].to_vec())
            .collect();
        let setup = 1 + recording.teams.len().div_ceil(REGISTRATIONS);
        shares[0].splice(0..0, vec![Part::Setup; setup]);
        let puzzles = recording.puzzles.iter().map(|puzzle| &puzzle.name);
        Self {
            recording,
            hunt: &arguments.hunt,
            fingerprint: fingerprint(recording, arguments),
            teams: ids("team", recording.teams.iter()),
            puzzles: ids("puzzle", puzzles),
            shares,
        }
    }

    pub fn hunt(&self) -> &str {
        self.hunt
    }

    pub fn sessions(&self) -> usize {
        self.shares.len()
    }

    /// The name of a session.
    pub fn session(&self, index: usize) -> String {
        session_name("replay", self.hunt, &self.fingerprint, index)
    }

    /// How many guesses a batch has.
    pub fn guesses_of(&self, part: &Part) -> u64 {
        match part {
            Part::Setup => 0,
            Part::Guesses(range) => range.len() as u64,
        }
    }

    /// A session's batches without the first `skip`.
    pub fn share(&self, session: usize, skip: usize) -> impl Iterator<Item = Batch<(usize, Part)>> {
        let places = skip..self.shares[session].len();
        places.map(move |place| self.batch(session, place))
    }

    fn batch(&self, session: usize, place: usize) -> Batch<(usize, Part)> {
        let part = self.shares[session][place].clone();
        let mut expected = Vec::new();
        let events = match &part {
            Part::Setup if place == 0 => {
                expected.push(event::expect_no_event(self.hunt));
                self.creation()
            }
            Part::Setup => self.registrations(place - 1),
            Part::Guesses(range) => {
                let guesses = self.recording.guesses[range.clone()].iter();
                guesses.map(|guess| self.guess(guess)).collect()
            }
        };
        Batch {
            sequence: place as u64 + 1,
            events,
            expected,
            tag: (place, part),
        }
    }

    fn creation(&self) -> Vec<proto::Event> {
        let clues = self.recording.puzzles.iter().zip(&self.puzzles);
        let clues = clues.map(|(puzzle, id)| {
            let mut clue = proto::Clue {
                id: id.clone(),
                title: puzzle.name.clone(),
                points: 1,
                answers: puzzle.answers.iter().cloned().collect(),
                ..Default::default()
            };
            if clue.answers.is_empty() {
                clue.answer_hashes = vec![NO_ANSWER.to_vec().into()];
                clue.answer_salt = NO_ANSWER_SALT.into();
            }
            clue
        });
        let definition = proto::HuntDefinition {
            title: self.hunt.to_owned(),
            clues: clues.collect(),
            ..Default::default()
        };
        vec![
            event::hunt_created(self.hunt, definition),
            event::hunt_opened(self.hunt),
            event::hunt_started(self.hunt),
        ]
    }

    fn registrations(&self, chunk: usize) -> Vec<proto::Event> {
        let names = self.teams.iter().zip(&self.recording.teams);
        names
            .skip(chunk * REGISTRATIONS)
            .take(REGISTRATIONS)
            .map(|(id, name)| event::player_registered(self.hunt, id, name))
            .collect()
    }

    fn guess(&self, guess: &Guess) -> proto::Event {
        let (team, puzzle) = (&self.teams[guess.team], &self.puzzles[guess.puzzle]);
        proto::Event {
            occurred_at: Some(guess.time),
            ..event::clue_attempted(self.hunt, team, puzzle, &guess.text)
        }
    }
}

/// What decides which batch has which number.
fn fingerprint(recording: &Recording, arguments: &ReplayArguments) -> String {
    let mut hash = Sha256::new();
    hash.update(recording.digest);
    hash.update(arguments.run.batch.to_le_bytes());
    hash.update(arguments.run.sessions.to_le_bytes());
    hash.update(arguments.hunt.as_bytes());
    hex::encode(&hash.finalize()[..8])
}

/// The names themselves where they can be ids, and numbered ones otherwise.
fn ids<'n>(what: &str, names: impl Iterator<Item = &'n String> + Clone) -> Vec<String> {
    let mut taken: HashSet<String> = names.clone().cloned().collect();
    names
        .enumerate()
        .map(|(index, name)| {
            if name.len() <= limits::NAME_BYTES && !name.chars().any(char::is_control) {
                return name.clone();
            }
            let mut id = format!("{what}-{}", index + 1);
            while !taken.insert(id.clone()) {
                id.push('\'');
            }
            id
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_ids_get_numbered_ones() {
        let names = [
            "a".to_owned(),
            "x".repeat(200),
            "team-2".to_owned(),
            "b\nc".to_owned(),
        ];
        assert_eq!(
            ids("team", names.iter()),
            ["a", "team-2'", "team-2", "team-4"]
        );
    }

    #[test]
    fn no_answer_is_the_hash_of_nothing() {
        assert_eq!(<[u8; 32]>::from(Sha256::digest([])), NO_ANSWER);
    }
}
