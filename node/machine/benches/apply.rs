//! How fast one core applies, and reads back what it applied:
//! `cargo bench -p huntlog-machine --bench apply`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod fed;

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fed::{Fed, batch, event, names, report};
use huntlog_machine::{
    BatchResult, CommandResult, EncodedCommand, EventKind, encode_batch, history,
};

/// What the proposer puts into an entry at most.
const EVENTS_PER_ENTRY: usize = 4_096;

/// The time `fed` takes for `rounds` of entries that are made beforehand.
fn time_apply(
    fed: &mut Fed,
    rounds: u64,
    mut round: impl FnMut() -> Vec<EncodedCommand>,
) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let entry = fed.entry(&round());
        let start = Instant::now();
        let applied = fed.apply(&entry);
        took += start.elapsed();
        let all_applied = applied
            .results
            .iter()
            .all(|result| matches!(result, CommandResult::Batch(BatchResult::Applied(_))));
        assert!(all_applied);
    }
    took
}

/// Entries of 32 batches of 128 events, from 32 sessions in turn.
fn large_batches(hunts: usize) -> (Fed, impl FnMut() -> Vec<EncodedCommand>) {
    let mut fed = Fed::new();
    fed.start_hunts(hunts);
    let names = names(EVENTS_PER_ENTRY / 128);
    let epochs = fed.open(&names);
    let mut sequence = 0;
    let round = move || {
        sequence += 1;
        let sessions = names.iter().zip(&epochs);
        let commands = sessions.enumerate().map(|(position, (name, epoch))| {
            let hunt = |number| (position * 128 + number) % hunts;
            let events = (0..128).map(|number| report(hunt(number), "player-123"));
            encode_batch(&batch(name, *epoch, sequence, events.collect()))
        });
        commands.collect()
    };
    (fed, round)
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    for hunts in [1, 16, 1_000] {
        let (mut fed, mut round) = large_batches(hunts);
        group.throughput(Throughput::Elements(EVENTS_PER_ENTRY as u64));
        let id = BenchmarkId::new("batches of 128", format!("{hunts} hunt"));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|rounds| time_apply(&mut fed, rounds, &mut round));
        });
    }
    for (sessions, per_entry) in [(10_000, 512), (10_000, 16), (999_999, 512)] {
        let mut fed = Fed::new();
        fed.start_hunts(1);
        let names = names(sessions);
        let epochs = fed.open(&names);
        let mut sent = 0;
        let mut round = || {
            let commands = (sent..sent + per_entry).map(|number| {
                // A stride that visits all sessions, far from each other.
                let session = number * 7_919 % names.len();
                let sequence = 1 + (number / names.len()) as u64;
                let events = vec![report(0, "player-123")];
                encode_batch(&batch(&names[session], epochs[session], sequence, events))
            });
            let commands = commands.collect();
            sent += per_entry;
            commands
        };
        group.throughput(Throughput::Elements(per_entry as u64));
        let id = BenchmarkId::new(format!("single events of {sessions} sessions"), per_entry);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|rounds| time_apply(&mut fed, rounds, &mut round));
        });
    }
    group.finish();
}

fn guesses(criterion: &mut Criterion) {
    let mut fed = Fed::new();
    fed.start_hunts(1);
    let session = names(1).remove(0);
    let epoch = fed.open(std::slice::from_ref(&session))[0];
    let players: Vec<_> = (0..1_000)
        .map(|player| format!("player-{player}"))
        .collect();
    let registrations = players.iter().map(|player| {
        let display_name = player.clone();
        event(0, player, EventKind::PlayerRegistered { display_name })
    });
    let registered = encode_batch(&batch(&session, epoch, 1, registrations.collect()));
    let entry = fed.entry(&[registered]);
    fed.apply(&entry);
    let mut sequence = 1;
    let mut round = || {
        sequence += 1;
        let events = (0..128).map(|number| {
            let kind = EventKind::ClueAttempted {
                clue: "c".into(),
                answer: "GUESS".into(),
            };
            event(0, &players[number * 7 % players.len()], kind)
        });
        vec![encode_batch(&batch(
            &session,
            epoch,
            sequence,
            events.collect(),
        ))]
    };
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(128));
    group.bench_function("wrong answers of 1,000 players", |bencher| {
        bencher.iter_custom(|rounds| time_apply(&mut fed, rounds, &mut round));
    });
    group.finish();
}

/// The events of an applied entry, as a reader decodes them.
fn read_back(criterion: &mut Criterion) {
    let (mut fed, mut round) = large_batches(1);
    let entry: Bytes = fed.entry(&round());
    let record = fed.apply(&entry).record;
    let mut group = criterion.benchmark_group("read back");
    group.throughput(Throughput::Elements(EVENTS_PER_ENTRY as u64));
    group.bench_function("batches of 128", |bencher| {
        bencher.iter(|| {
            let events = history::events(&entry, &record).expect("sound");
            events.filter(Result::is_ok).count()
        });
    });
    group.finish();
}

criterion_group!(benches, apply, guesses, read_back);
criterion_main!(benches);
