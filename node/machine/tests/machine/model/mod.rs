//! Random logs, decided a second time by a model that is as dumb as possible:
//! it remembers every batch for ever, keeps hunts in plain lists, and sorts the
//! scoreboard each time.
//!
//! Guards I3 (a batch applies once), I4 (fencing), I5 (offsets and revisions
//! without gaps, sequences in order), I7 (a replay decides the same), I8 (a
//! treasure limited to n is won by min(n, claimants), in log order) and I9
//! (batches of one entry are independent).

mod acts;
mod state;

pub use acts::any_entries;

use crate::support::Replica;
use crate::text;
use acts::{Act, make_batch};
use huntlog_machine::{
    Batch, BatchResult, CommandResult, EncodedCommand, FIRST_LEVEL, LATEST_LEVEL, Limits, Machine,
    RejectReason, encode_batch, encode_raise_level, encode_reopen_session, history,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use state::Model;
use std::collections::BTreeSet;

pub fn limits() -> Limits {
    Limits {
        results_per_session: 5,
        ..Limits::default()
    }
}

/// Runs acts in entries of a few, and compares after each entry.
pub fn run(entries: Vec<(u64, Vec<Act>)>) -> Replica {
    let mut replica = Replica::with_limits(limits());
    let mut model = Model::default();
    model.level = FIRST_LEVEL;
    let mut sent: Vec<Batch> = Vec::new();
    let mut time_ms = 0;
    for (step_ms, acts) in entries {
        time_ms += step_ms;
        let entry = replica.log.len() as u64;
        let clock = model.clock(time_ms, entry);
        // What is in an entry was taken at the level before it.
        let level = model.level;
        let mut commands: Vec<EncodedCommand> = Vec::new();
        let mut expected = Vec::new();
        for act in acts {
            let batch = match act {
                Act::Open {
                    session,
                    nonce,
                    from,
                } => {
                    let from = from.map_or(0, |back| model.epoch(session, back));
                    commands.push(encode_reopen_session(session, &[nonce; 8], from));
                    expected.push(vec![model.open(session, nonce, from, entry)]);
                    continue;
                }
                Act::Batch {
                    session,
                    epoch,
                    sequence,
                    expected,
                    events,
                } => make_batch(&model, level, session, epoch, &sequence, &expected, events),
                Act::RaiseLevel => {
                    commands.push(encode_raise_level(LATEST_LEVEL));
                    model.level = LATEST_LEVEL;
                    expected.push(vec![format!("level {LATEST_LEVEL}")]);
                    continue;
                }
                Act::Resend(index) if !sent.is_empty() => index.get(&sent).clone(),
                Act::Resend(_) => continue,
            };
            commands.push(encode_batch(&batch));
            expected.push(model.batch(&batch, entry));
            sent.push(batch);
        }
        let applied = replica.apply(time_ms, &commands);
        let decided: Vec<_> = applied.results.iter().map(text::result).collect();
        assert_eq!(decided, expected);
        for (command, result) in commands.iter().zip(&applied.results) {
            let recorded = replica.recorded(applied.log_id.index, command);
            if let CommandResult::Batch(BatchResult::Applied(outcome)) = result {
                let recorded = recorded.expect("it was applied");
                assert_eq!(text::outcomes(&recorded), text::outcomes(outcome));
            }
        }
        replica.decided.extend(decided.into_iter().flatten());
        let logged = replica.log.last().expect("just applied");
        let read = history::events(logged.entry.as_ref().unwrap(), &logged.record).unwrap();
        let read: Vec<_> = read.map(|event| event.unwrap()).collect();
        let fired = read
            .iter()
            .take_while(|e| e.origin == history::Origin::Clock);
        let fired: Vec<_> = fired
            .map(|event| {
                let effects: Vec<_> = event.effects.map(|e| text::effect(&e)).collect();
                format!(
                    "@{} r{} {}",
                    event.offset,
                    event.revision,
                    effects.join(", ")
                )
            })
            .collect();
        assert_eq!(fired, clock);
        assert_eq!(read.len() as u64, applied.accepted, "I5");
        model.compare(&replica.machine);
    }
    replica
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_machine_decides_as_the_model_does(entries in any_entries()) {
        let replica = run(entries);
        let mut again = Machine::new(0, limits());
        replica.replay_into(&mut again);
        prop_assert_eq!(again.state_hash(), replica.machine.state_hash(), "I7");
    }

    /// At every prefix: a machine restored there decides the rest alike, down to
    /// its records, and ends in the same state.
    #[test]
    fn a_snapshot_at_every_prefix_equals_straight_replay(entries in any_entries()) {
        let replica = run(entries.into_iter().take(25).collect());
        let end = replica.machine.state_hash();
        let mut machine = Machine::new(0, limits());
        for logged in &replica.log {
            let entry = logged.entry.as_ref().expect("no blanks here");
            machine.apply(logged.log_id, entry).expect("a sound log");
            let mut snapshot = Vec::new();
            let hash = machine.view().write_to(&mut snapshot).expect("a Vec takes all");
            let mut restored = Machine::restore(snapshot.as_slice(), limits()).expect("sound");
            prop_assert_eq!(restored.state_hash(), hash);
            prop_assert_eq!(restored.digest(), machine.digest());
            prop_assert_eq!(restored.next_due_ms(), machine.next_due_ms());
            replica.replay_into(&mut restored);
            prop_assert_eq!(restored.state_hash(), end, "I7");
        }
    }
}

/// The logs above would prove little if they did not get anywhere.
#[test]
fn the_random_logs_reach_every_decision() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..200 {
        let entries = any_entries()
            .new_tree(&mut runner)
            .expect("no filters")
            .current();
        for line in run(entries).decided {
            reached.extend(line.split([' ', ',']).map(str::to_owned));
        }
    }
    // A hundred thousand hunts have a test of their own.
    let mut wanted: Vec<String> = RejectReason::ALL
        .into_iter()
        .filter(|reason| *reason != RejectReason::HuntsFull)
        .map(|reason| reason.name().to_owned())
        .collect();
    for word in [
        "Fenced",
        "SequenceGap",
        "PayloadMismatch",
        "RevisionMismatch",
        "SessionUnknown",
        "Contended",
        "duplicate",
        "kept",
        "wrong",
        "solved",
        "unlocked",
        "gold",
        "tin",
        "hunt",
        "#2",
        "#3",
        "revealed",
        "fresh=true",
        "fresh=false",
        "level",
        "RUNNING->FINISHED",
    ] {
        wanted.push(word.to_owned());
    }
    wanted.retain(|word| !reached.contains(word));
    assert!(wanted.is_empty(), "never reached: {wanted:?}");
}
