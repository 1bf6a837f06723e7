//! Playing a generated hunt: many sessions at once, every outcome that can be
//! foreseen checked.
//!
//! A team's events go through one session, in order, so that the outcome of
//! each guess follows from the team's own past whatever the other sessions do.
//! Only treasures are contested across sessions: there the number of winners is
//! foreseen, and the scoreboard's solves are compared at the end.

mod generator;

use std::collections::BTreeMap;

use futures::future::try_join_all;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::{Appended, Client, Producer, event, proto};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::args::PlayArguments;
use crate::command::hunt::scoreboard;
use crate::document;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::{Batch, Run, session_name, summary_lines};
use generator::{Expected, World};

/// Registrations in one batch.
const REGISTRATIONS: usize = 512;

/// Surprises told one by one.
const TOLD: usize = 20;

pub async fn run(client: &Client, format: Format, arguments: PlayArguments) -> Result<(), Failure> {
    let mut world = World::new(&arguments);
    let setup = setup(&world);
    let setup_batches = setup.len() as u64;
    let run = Run::new(
        client,
        world.hunt(),
        arguments.events,
        &arguments.run,
        "play",
    )?;
    let producers = open_sessions(client, &arguments).await?;
    let control = &producers[0];

    let mut surprises = Surprises::default();
    for batch in setup {
        run.drive(control, [batch], |moves, appended| {
            surprises.take(moves, appended)
        })
        .await?;
        surprises.must_be_none("the hunt could not be set up")?;
    }
    let shares = split(&mut world, &arguments, setup_batches);
    let last_of_control = setup_batches + shares[0].len() as u64;
    let runs = producers.iter().zip(shares).map(async |(producer, share)| {
        let mut surprises = Surprises::default();
        let done = |moves: &Vec<Expected>, appended: &Appended| surprises.take(moves, appended);
        run.drive(producer, share, done).await?;
        Ok::<_, Failure>(surprises)
    });
    for of_session in try_join_all(runs).await? {
        surprises.merge(of_session);
    }
    let finish = Batch {
        sequence: last_of_control + 1,
        events: vec![event::hunt_finished(world.hunt())],
        expected: Vec::new(),
        tag: vec![Expected::Accepted],
    };
    run.drive(control, [finish], |moves, appended| {
        surprises.take(moves, appended)
    })
    .await?;
    for producer in producers {
        producer.close().await?;
    }
    check_treasures(&world, &mut surprises);
    check_scoreboard(client, &world, &mut surprises).await?;
    report(format, &world, run.finish()?, &surprises)
}

/// The sessions, which must be new: a generated hunt is played once.
async fn open_sessions(
    client: &Client,
    arguments: &PlayArguments,
) -> Result<Vec<Producer>, Failure> {
    let mut hash = Sha256::new();
    for number in [
        arguments.seed,
        arguments.events,
        arguments.teams.into(),
        arguments.clues.into(),
        arguments.treasures.into(),
        arguments.run.batch.into(),
        arguments.run.sessions.into(),
    ] {
        hash.update(number.to_le_bytes());
    }
    hash.update(&arguments.hunt);
    let fingerprint = hex::encode(&hash.finalize()[..8]);
    let mut producers = Vec::new();
    for index in 0..usize::from(arguments.run.sessions) {
        let name = session_name("play", &arguments.hunt, &fingerprint, index);
        let producer = client.session(&name).await?;
        if producer.last_sequence() > 0 {
            return Err(Failure::Refused(format!(
                "hunt {} was played with these flags before; choose another --hunt",
                arguments.hunt
            )));
        }
        producers.push(producer);
    }
    Ok(producers)
}

/// The hunt and its teams; each batch has to succeed before the next.
fn setup(world: &World) -> Vec<Batch<Vec<Expected>>> {
    let hunt = world.hunt();
    let mut batches = vec![(
        vec![
            event::hunt_created(hunt, world.definition()),
            event::hunt_opened(hunt),
        ],
        vec![event::expect_no_event(hunt)],
    )];
    let teams: Vec<u32> = (0..world.teams()).collect();
    batches.extend(teams.chunks(REGISTRATIONS).map(|chunk| {
        let registrations = chunk.iter().map(|team| world.registration(*team));
        (registrations.collect(), Vec::new())
    }));
    batches.push((vec![event::hunt_started(hunt)], Vec::new()));
    let numbered = (1..).zip(batches);
    numbered
        .map(|(sequence, (events, expected))| Batch {
            sequence,
            tag: vec![Expected::Accepted; events.len()],
            events,
            expected,
        })
        .collect()
}

/// Everybody's moves, in batches by the session of their team.
fn split(
    world: &mut World,
    arguments: &PlayArguments,
    setup_batches: u64,
) -> Vec<Vec<Batch<Vec<Expected>>>> {
    let sessions = usize::from(arguments.run.sessions);
    let size = usize::from(arguments.run.batch);
    let mut moves: Vec<Vec<(proto::Event, Expected)>> = vec![Vec::new(); sessions];
    for _ in 0..arguments.events {
        let (team, event, expected) = world.next_move();
        moves[team as usize % sessions].push((event, expected));
    }
    let shares = moves.into_iter().enumerate();
    shares
        .map(|(session, moves)| {
            let first = if session == 0 { setup_batches + 1 } else { 1 };
            let mut moves = moves.into_iter().peekable();
            let mut share = Vec::new();
            while moves.peek().is_some() {
                let (events, tag) = moves.by_ref().take(size).unzip();
                share.push(Batch {
                    sequence: first + share.len() as u64,
                    events,
                    expected: Vec::new(),
                    tag,
                });
            }
            share
        })
        .collect()
}

/// Outcomes that are not as foreseen.
#[derive(Debug, Default)]
struct Surprises {
    count: u64,
    told: Vec<String>,
    /// Winners of each treasure.
    winners: BTreeMap<u32, u32>,
}

impl Surprises {
    fn take(&mut self, moves: &[Expected], appended: &Appended) -> Result<(), Failure> {
        let outcomes = appended.outcomes.as_deref().ok_or_else(|| {
            Failure::Refused("the cluster no longer keeps a batch's outcomes".to_owned())
        })?;
        for (expected, outcome) in moves.iter().zip(outcomes) {
            if !expected.is_met_by(outcome) {
                let got = document::outcome(Some(outcome));
                let sequence = appended.sequence;
                self.add(format!("batch {sequence}: {expected:?} became {got}"));
            } else if let (Expected::Contest(treasure), Some(Outcome::Accepted(_))) =
                (expected, &outcome.outcome)
            {
                *self.winners.entry(*treasure).or_default() += 1;
            }
        }
        Ok(())
    }

    fn add(&mut self, words: String) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(words);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.told.extend(other.told);
        self.told.truncate(TOLD);
        for (treasure, winners) in other.winners {
            *self.winners.entry(treasure).or_default() += winners;
        }
    }

    fn must_be_none(&self, what: &str) -> Result<(), Failure> {
        match self.told.first() {
            None => Ok(()),
            Some(first) => Err(Failure::Refused(format!("{what}: {first}"))),
        }
    }
}

/// A treasure limited to n is won by exactly min(n, claimants) teams.
fn check_treasures(world: &World, surprises: &mut Surprises) {
    for (treasure, winners) in world.foreseen_winners() {
        let got = surprises.winners.get(&treasure).copied().unwrap_or(0);
        if got != winners {
            surprises.add(format!(
                "treasure {treasure} has {got} winners instead of {winners}"
            ));
        }
    }
}

/// Each team has solved what it solved here.
async fn check_scoreboard(
    client: &Client,
    world: &World,
    surprises: &mut Surprises,
) -> Result<(), Failure> {
    let (rows, _) = scoreboard(client, world.hunt(), 0).await?;
    let mut solved: BTreeMap<String, u32> = rows
        .into_iter()
        .map(|row| (row.player, row.solved))
        .collect();
    for (team, foreseen) in world.foreseen_solves() {
        let got = solved.remove(&team);
        if got != Some(foreseen) {
            surprises.add(format!(
                "the scoreboard says {got:?} solves of {team}, who made {foreseen}"
            ));
        }
    }
    Ok(())
}

fn report(
    format: Format,
    world: &World,
    mut summary: Value,
    surprises: &Surprises,
) -> Result<(), Failure> {
    match format {
        Format::Json => {
            summary["hunt"] = json!(world.hunt());
            summary["surprises"] = json!(surprises.count);
            summary["first_surprises"] = json!(surprises.told);
            output::json(&summary)?;
        }
        Format::Table => {
            output::line(&format!(
                "hunt {}: {} teams, {} clues; {} outcomes other than foreseen",
                output::printable(world.hunt()),
                world.teams(),
                world.definition().clues.len(),
                surprises.count
            ))?;
            for told in &surprises.told {
                output::line(&format!("  {told}"))?;
            }
            for line in summary_lines(&summary) {
                output::line(&line)?;
            }
        }
    }
    if surprises.count > 0 {
        return Err(Failure::Refused(format!(
            "{} outcomes are not as foreseen",
            surprises.count
        )));
    }
    Ok(())
}
