//! Feature levels: below a level, a log is applied as the releases before that
//! level applied it, and a release that does not read a level says so.
//!
//! `tests/data/level-N.logs` was written by the first release that reads level N.
//! A release that brings a level adds its file, and keeps the old ones:
//! `cargo test -p huntlog-machine -- --ignored write_the_fixture`.

use crate::model;
use crate::support::{Replica, announce, batch, create, custom, small_definition};
use bytes::Bytes;
use huntlog_machine::{
    ApplyError, CommandRef, CommandResult, EncodedCommand, EntryRef, FIRST_LEVEL, LATEST_LEVEL,
    LevelRange, Limits, LogId, Machine, RestoreError, encode_batch, encode_raise_level,
    encode_reopen_session, release_of,
};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use std::fs;

fn fixture(level: u32) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/tests/data/level-{level}.logs")
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = take_number(rest);
    let (taken, after) = rest.split_at(len);
    *rest = after;
    taken
}

fn take_number(rest: &mut &[u8]) -> usize {
    let (number, after) = rest.split_first_chunk::<4>().expect("a number");
    *rest = after;
    u32::from_le_bytes(*number) as usize
}

fn snapshot(machine: &Machine) -> Vec<u8> {
    let mut snapshot = Vec::new();
    let written = machine.view().write_to(&mut snapshot);
    assert_eq!(written.expect("a Vec takes all"), machine.state_hash());
    snapshot
}

/// Random logs of this release, each with its records and its last snapshot.
#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    let mut runner = TestRunner::deterministic();
    let mut out = Vec::new();
    for _ in 0..8 {
        let raised = loop {
            let entries = model::any_entries().new_tree(&mut runner).expect("one");
            let replica = model::run(entries.current());
            if replica.log.len() >= 12 && replica.machine.level() == LATEST_LEVEL {
                break replica;
            }
        };
        let mut replica = raised;
        replica.blank();
        let tick = replica.entry(10_000_000, &[]);
        replica.apply_entry(tick).expect("sound");
        out.extend_from_slice(&(replica.log.len() as u32).to_le_bytes());
        for logged in &replica.log {
            put(&mut out, logged.entry.as_deref().unwrap_or_default());
            put(&mut out, &logged.record);
        }
        put(&mut out, &snapshot(&replica.machine));
    }
    fs::write(fixture(LATEST_LEVEL), out).expect("written");
}

/// The same commands, encoded by this release.
fn encode_again(command: &CommandRef<'_>) -> EncodedCommand {
    match *command {
        CommandRef::Batch(batch) => encode_batch(&batch.to_owned().expect("sound")),
        CommandRef::OpenSession { name, nonce, epoch } => encode_reopen_session(name, nonce, epoch),
        CommandRef::RaiseLevel { level, release } => {
            assert_eq!(release_of(level), Some(release));
            encode_raise_level(level)
        }
    }
}

#[test]
fn logs_of_every_level_are_applied_as_they_were_at_first() {
    for level in FIRST_LEVEL..=LATEST_LEVEL {
        let bytes = fs::read(fixture(level)).expect("the release that brought it wrote it");
        let mut rest = bytes.as_slice();
        let mut logs = 0;
        while !rest.is_empty() {
            let mut machine = Machine::new(0, model::limits());
            for index in 0..take_number(&mut rest) as u64 {
                let entry = Bytes::copy_from_slice(take(&mut rest));
                let record = take(&mut rest);
                let log_id = LogId {
                    term: 1,
                    node_id: 1,
                    index,
                };
                let applied = match entry.is_empty() {
                    true => machine.apply_blank(log_id),
                    false => machine.apply(log_id, &entry),
                };
                assert_eq!(
                    applied.expect("sound").record,
                    record,
                    "log {logs}, {index}"
                );
                if entry.is_empty() {
                    continue;
                }
                for command in EntryRef::decode(&entry).expect("sound").commands() {
                    let again = encode_again(&command.decode().expect("sound"));
                    assert_eq!(again.bytes(), command.bytes());
                    assert!(again.level() <= level);
                }
            }
            assert_eq!(machine.level(), level);
            let written = take(&mut rest);
            assert!(snapshot(&machine) == written, "log {logs}");
            let restored = Machine::restore(written, model::limits()).expect("sound");
            assert_eq!(restored.state_hash(), machine.state_hash());
            assert_eq!(restored.level(), level);
            logs += 1;
        }
        assert_eq!(logs, 8);
    }
}

/// A replica with a hunt, at the first level.
fn replica() -> (Replica, u64) {
    let mut replica = Replica::new();
    let epoch = replica.epoch("s", "nonce");
    let created = vec![create("h", small_definition())];
    replica.append(5, &batch("s", epoch, 1, created));
    (replica, epoch)
}

#[test]
fn a_level_is_raised_once_and_never_lowered() {
    let (mut replica, _) = replica();
    assert_eq!(replica.machine.level(), FIRST_LEVEL);
    for level in [LATEST_LEVEL, LATEST_LEVEL, FIRST_LEVEL] {
        let applied = replica.apply(6, &[encode_raise_level(level)]);
        assert!(matches!(
            applied.results[..],
            [CommandResult::Level(LATEST_LEVEL)]
        ));
        assert_eq!(replica.machine.level(), LATEST_LEVEL);
    }
    let mut again = Machine::new(0, Limits::default());
    replica.replay_into(&mut again);
    assert_eq!(again.state_hash(), replica.machine.state_hash(), "I7");
}

#[test]
fn what_a_level_brings_is_not_applied_below_it() {
    let (mut replica, epoch) = replica();
    let announced = encode_batch(&batch("s", epoch, 2, vec![announce("h", "a", "left!")]));
    assert_eq!(announced.level(), 2);
    let state = replica.machine.state_hash();
    let log_id = replica.next_log_id();
    for commands in [
        &[announced.clone()][..],
        // The level that counts is the one before the entry.
        &[encode_raise_level(2), announced.clone()],
    ] {
        let entry = replica.entry(6, commands);
        let error = replica.apply_entry(entry).expect_err("above the level");
        let (need, have) = (2, 1);
        assert_eq!(error, ApplyError::AboveLevel { log_id, need, have });
        assert_eq!(replica.machine.state_hash(), state, "nothing was applied");
    }
    replica.apply(6, &[encode_raise_level(2)]);
    replica.apply(6, &[announced]);
    assert_eq!(replica.machine.hunt("h").expect("created").revision(), 2);
}

/// The command as a later release writes it.
fn raise_to(level: u8, release: &str) -> EncodedCommand {
    let mut bytes = vec![3, level, release.len() as u8];
    bytes.extend_from_slice(release.as_bytes());
    EncodedCommand::decode(bytes.into()).expect("every release reads it")
}

#[test]
fn a_release_that_is_too_old_names_the_one_that_is_not() {
    let (mut replica, _) = replica();
    let state = replica.machine.state_hash();
    let entry = replica.entry(6, &[raise_to(9, "7.8.9")]);
    let error = replica.apply_entry(entry).expect_err("not known");
    let told = error.to_string();
    assert!(
        told.contains("level 9") && told.contains("release 7.8.9"),
        "{told}"
    );
    assert!(told.contains("level 1 to 2"), "{told}");
    assert_eq!(replica.machine.state_hash(), state, "nothing was applied");

    // As the release before this one would be, if it knew levels.
    replica.machine.accept_levels(LevelRange::UNTOLD);
    let entry = replica.entry(6, &[encode_raise_level(2)]);
    let error = replica.apply_entry(entry).expect_err("not known");
    assert!(error.to_string().contains("release 0.2.0"), "{error}");
}

#[test]
fn snapshots_of_later_releases_are_named_as_such() {
    let (mut replica, _) = replica();
    replica.apply(6, &[encode_raise_level(2)]);
    let sound = snapshot(&replica.machine);
    // Magic, version, length of the head, its kind, level, release.
    let (version, level) = (15, 18);
    assert_eq!((sound[version], sound[level]), (2, 2));
    let restore = |position: usize, byte: u8| {
        let mut other = sound.clone();
        other[position] = byte;
        Machine::restore(other.as_slice(), Limits::default()).expect_err("another")
    };
    assert!(matches!(
        restore(version, 3),
        RestoreError::VersionUnknown(3)
    ));
    let error = restore(level, 3);
    assert!(
        matches!(&error, RestoreError::LevelUnknown { level: 3, release, .. } if release == "0.2.0"),
        "{error}"
    );
    assert!(matches!(restore(level, 1), RestoreError::Decode(_)));
    assert!(matches!(restore(level + 2, b'9'), RestoreError::Decode(_)));
}

/// Version 1 begins with each limit, version 2 with those that are not at their
/// defaults; both are held against the limits of the machine that is to go on.
#[test]
fn limits_in_snapshots_are_those_of_the_machine() {
    let limits = Limits {
        hunts_max: 7,
        results_per_session: 33,
        ..Limits::default()
    };
    for level in [1, 2] {
        for (theirs, ours) in [
            (limits.clone(), Limits::default()),
            (Limits::default(), limits.clone()),
        ] {
            let mut replica = Replica::with_limits(theirs.clone());
            replica.apply(1, &[encode_raise_level(level)]);
            let epoch = replica.epoch("s", "nonce");
            replica.append(2, &batch("s", epoch, 1, vec![custom("h", b"x")]));
            let snapshot = snapshot(&replica.machine);
            assert_eq!(u32::from(snapshot[15]), level);
            let error = Machine::restore(snapshot.as_slice(), ours.clone()).expect_err("differ");
            assert!(
                matches!(
                    error,
                    RestoreError::LimitsDiffer { number: 7, ours: o, theirs: t }
                        if o == u64::from(ours.results_per_session)
                            && t == u64::from(theirs.results_per_session)
                ),
                "{error}"
            );
            Machine::restore(snapshot.as_slice(), theirs).expect("the same limits");
        }
    }
}
