//! A recorded hunt with published results: every verdict and the winners must
//! come out as they did then. The recording is not part of the project; where
//! it is absent, the test says so and does nothing.

use crate::support::{Replica, attempt, batch, create, event, register};
use huntlog_machine::{
    Batch, BatchResult, Clue, Effect, EventKind, EventOutcome, HuntDefinition, Machine, answer_hash,
};
use std::collections::{BTreeMap, BTreeSet};

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/data/gph2018-guesses.csv"
);
const HUNT: &str = "gph2018";

struct Guess {
    team: String,
    puzzle: String,
    guess: String,
    right: bool,
}

fn guesses(recording: &str) -> Vec<Guess> {
    let rows = recording.lines().skip(1).map(|row| {
        let fields: Vec<_> = row.split(',').collect();
        let [_, team, puzzle, guess, verdict] = fields[..] else {
            panic!("five fields are expected: {row}");
        };
        Guess {
            team: team.into(),
            puzzle: puzzle.into(),
            guess: guess.into(),
            right: verdict == "Y",
        }
    });
    rows.collect()
}

fn definition(guesses: &[Guess]) -> HuntDefinition {
    let mut clues: Vec<Clue> = Vec::new();
    for guess in guesses {
        if !clues.iter().any(|clue| clue.id == guess.puzzle) {
            clues.push(Clue {
                id: guess.puzzle.clone(),
                points: 1,
                ..Clue::default()
            });
        }
        let clue = clues.iter_mut().find(|clue| clue.id == guess.puzzle);
        let clue = clue.expect("just added");
        let hash = answer_hash(&clue.answer_salt, &guess.guess);
        if guess.right && !clue.answer_hashes.contains(&hash) {
            clue.answer_hashes.push(hash);
        }
    }
    HuntDefinition {
        clues,
        ..HuntDefinition::default()
    }
}

fn applied(replica: &mut Replica, batch: &Batch) -> Vec<Option<bool>> {
    let BatchResult::Applied(outcome) = replica.append(0, batch) else {
        panic!("each batch is new");
    };
    let verdict = |outcome: EventOutcome<'_>| match outcome {
        EventOutcome::Rejected(reason) => panic!("rejected: {reason:?}"),
        EventOutcome::Accepted { mut effects, .. } => effects.find_map(|effect| match effect {
            Effect::ClueSolved { .. } => Some(true),
            Effect::AnswerWrong { .. } => Some(false),
            _ => None,
        }),
    };
    outcome.iter().map(verdict).collect()
}

#[test]
fn a_recorded_hunt_has_its_published_results() {
    let Ok(recording) = std::fs::read_to_string(RECORDING) else {
        println!("skipped: there is no {RECORDING}");
        return;
    };
    let guesses = guesses(&recording);
    let mut replica = Replica::new();
    let epoch = replica.epoch("replay", "nonce");
    let teams: BTreeSet<_> = guesses.iter().map(|guess| guess.team.as_str()).collect();
    let mut setup = vec![
        create(HUNT, definition(&guesses)),
        event(HUNT, "", EventKind::HuntStarted),
    ];
    setup.extend(teams.iter().map(|team| register(HUNT, team)));
    applied(&mut replica, &batch("replay", epoch, 1, setup));
    let mut verdicts = Vec::new();
    for (chunk, sequence) in guesses.chunks(500).zip(2..) {
        let attempts = chunk
            .iter()
            .map(|guess| attempt(HUNT, &guess.team, &guess.puzzle, &guess.guess))
            .collect();
        verdicts.extend(applied(
            &mut replica,
            &batch("replay", epoch, sequence, attempts),
        ));
    }
    let expected: Vec<_> = guesses.iter().map(|guess| Some(guess.right)).collect();
    assert!(verdicts == expected, "38,508 of 38,508 agree");

    let check = |machine: &Machine| {
        let hunt = machine.hunt(HUNT).expect("created");
        assert_eq!(hunt.player_count(), 458);
        let board = hunt.scoreboard(0, 6);
        let first: Vec<_> = board
            .rows
            .iter()
            .map(|row| (row.player, row.points))
            .collect();
        let teams = ["029", "013", "004", "003", "009", "014"];
        let teams: Vec<_> = teams.iter().map(|team| format!("team-{team}")).collect();
        assert!(
            first
                .iter()
                .copied()
                .eq(teams.iter().map(|team| (team.as_str(), 41)))
        );
        let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for guess in &guesses {
            let (attempts, solves) = counted.entry(&guess.puzzle).or_default();
            *attempts += 1;
            *solves += u64::from(guess.right);
        }
        assert_eq!(counted["Try and Eat"], (647, 420));
        for stats in hunt.clue_stats() {
            assert_eq!((stats.attempts, stats.solves), counted[stats.clue]);
        }
    };
    check(&replica.machine);
    let mut snapshot = Vec::new();
    let view = replica.machine.view();
    view.write_to(&mut snapshot).expect("a Vec takes all");
    check(&Machine::restore(snapshot.as_slice(), view.limits().clone()).expect("sound"));
}
