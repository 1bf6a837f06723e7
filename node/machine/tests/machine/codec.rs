//! Entries survive encoding, and nothing that is read can make it panic.

use crate::support::{Replica, small_definition};
use bytes::Bytes;
use huntlog_machine::{
    Batch, Clue, CommandRef, Digest, DigestCheck, EncodedCommand, EntryBuilder, EntryRef, Event,
    EventKind, ExpectedRevision, Hint, HuntDefinition, KindRef, LATEST_LEVEL, Limits, LogId,
    Machine, Timestamp, Treasure, encode_batch, encode_open_session, encode_raise_level, normalise,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "\\PC{0,12}"]
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

prop_compose! {
    fn any_clue()(
        (id, title) in (any_name(), any_name()),
        requires in vec(any_name(), 0..3),
        points: u32,
        answer_salt in any_bytes(),
        answer_hashes in vec(any::<[u8; 32]>(), 0..3),
        max_attempts: u32,
        hints in vec((any_name(), any::<u32>()).prop_map(|(id, cost)| Hint { id, cost }), 0..3),
    ) -> Clue {
        Clue { id, title, requires, points, answer_salt, answer_hashes, max_attempts, hints }
    }
}

prop_compose! {
    fn any_treasure()(
        (id, title) in (any_name(), any_name()),
        (limit, points) in any::<(u32, u32)>(),
        requires in vec(any_name(), 0..3),
    ) -> Treasure {
        Treasure { id, title, limit, points, requires }
    }
}

prop_compose! {
    fn any_definition()(
        title in any_name(),
        clues in vec(any_clue(), 0..4),
        treasures in vec(any_treasure(), 0..3),
        (starts_at, ends_at) in (option::of(any_timestamp()), option::of(any_timestamp())),
        max_players: u32,
    ) -> HuntDefinition {
        HuntDefinition { title, clues, treasures, starts_at, ends_at, max_players }
    }
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    use EventKind::*;
    prop_oneof![
        any_definition().prop_map(|definition| HuntCreated(Box::new(definition))),
        Just(HuntOpened),
        Just(HuntStarted),
        Just(HuntPaused),
        Just(HuntResumed),
        Just(HuntFinished),
        any_name().prop_map(|reason| HuntCancelled { reason }),
        any_name().prop_map(|display_name| PlayerRegistered { display_name }),
        Just(PlayerWithdrawn),
        any_name().prop_map(|reason| PlayerDisqualified { reason }),
        (any_name(), any_name()).prop_map(|(clue, answer)| ClueAttempted { clue, answer }),
        any_name().prop_map(|treasure| TreasureClaimed { treasure }),
        (any_name(), any_name()).prop_map(|(clue, hint)| HintTaken { clue, hint }),
        (any_name(), any_bytes()).prop_map(|(type_name, payload)| Custom { type_name, payload }),
        (any_name(), any_name()).prop_map(|(clue, text)| Announced { clue, text }),
    ]
}

prop_compose! {
    fn any_event()(
        (hunt, player) in (any_name(), any_name()),
        occurred_at in option::of(any_timestamp()),
        kind in any_kind(),
    ) -> Event {
        Event { hunt, player, occurred_at, kind }
    }
}

prop_compose! {
    fn any_batch()(
        session in any_name(),
        (epoch, sequence) in any::<(u64, u64)>(),
        expected in vec((any_name(), prop_oneof![
            Just(ExpectedRevision::None),
            any::<u64>().prop_map(ExpectedRevision::Exactly),
        ]), 0..3),
        events in vec(any_event(), 0..6),
    ) -> Batch {
        Batch { session, epoch, sequence, expected, events }
    }
}

#[derive(Debug, Clone)]
enum Command {
    Batch(Batch),
    Open(String, Vec<u8>),
    RaiseLevel,
}

impl Command {
    fn encode(&self) -> EncodedCommand {
        match self {
            Self::Batch(batch) => encode_batch(batch),
            Self::Open(name, nonce) => encode_open_session(name, nonce),
            Self::RaiseLevel => encode_raise_level(LATEST_LEVEL),
        }
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => any_batch().prop_map(Command::Batch),
        1 => (any_name(), vec(any::<u8>(), 0..20)).prop_map(|(name, nonce)| Command::Open(name, nonce)),
        1 => Just(Command::RaiseLevel),
    ]
}

fn any_check() -> impl Strategy<Value = Option<DigestCheck>> {
    option::of(
        (any::<u64>(), any::<[u8; 16]>()).prop_map(|(index, digest)| DigestCheck {
            index,
            digest: Digest(digest),
        }),
    )
}

fn build(stamp_ms: u64, check: Option<DigestCheck>, commands: &[Command]) -> Bytes {
    let mut builder = EntryBuilder::new(stamp_ms, check);
    let mut events = 0;
    for command in commands {
        let command = command.encode();
        events += u64::from(command.events());
        builder.push(&command);
    }
    assert_eq!(
        (builder.events(), builder.commands()),
        (events, commands.len())
    );
    let announced = builder.len_bytes();
    let entry = builder.finish();
    assert!((announced..=announced + 20).contains(&entry.len()));
    entry
}

proptest! {
    #[test]
    fn entries_survive(
        stamp_ms: u64,
        check in any_check(),
        commands in vec(any_command(), 0..6),
    ) {
        let entry = build(stamp_ms, check, &commands);
        let decoded = EntryRef::decode(&entry).unwrap();
        decoded.validate().unwrap();
        prop_assert_eq!(decoded.stamp_ms(), stamp_ms);
        prop_assert_eq!(decoded.check(), check);
        prop_assert_eq!(decoded.commands().len(), commands.len());
        for (decoded, command) in decoded.commands().zip(&commands) {
            let encoded = command.encode();
            prop_assert_eq!(decoded.bytes(), encoded.bytes());
            prop_assert_eq!(&EncodedCommand::decode(encoded.bytes().clone()).unwrap(), &encoded);
            match (decoded.decode().unwrap(), command) {
                (CommandRef::Batch(decoded), Command::Batch(batch)) => {
                    prop_assert_eq!(&decoded.to_owned().unwrap(), batch);
                    for event in decoded.events().unwrap() {
                        if let KindRef::ClueAttempted { answer, normalised, .. } = event.unwrap().kind {
                            prop_assert_eq!(normalised, normalise(answer));
                        }
                    }
                }
                (CommandRef::OpenSession { name, nonce, .. }, Command::Open(expected, bytes)) => {
                    prop_assert_eq!((name, nonce), (expected.as_str(), bytes.as_slice()));
                }
                (CommandRef::RaiseLevel { level, .. }, Command::RaiseLevel) => {
                    prop_assert_eq!(level, LATEST_LEVEL);
                }
                (decoded, command) => panic!("{command:?} became {decoded:?}"),
            }
        }
    }

    /// Damage is an error and leaves the machine as it was, or happens to be a
    /// sound entry; it is never a panic.
    #[test]
    fn damaged_entries_never_panic(
        commands in vec(any_command(), 0..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..60),
    ) {
        let entry = build(5, None, &commands);
        for (position, byte, how) in damage {
            let mut damaged = entry.to_vec();
            let at = position.index(damaged.len());
            match how {
                0 => damaged[at] ^= byte,
                1 => damaged.truncate(at),
                _ => damaged.insert(at, byte),
            }
            apply_anything(damaged);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), known_version: bool) {
        if let (true, Some(first)) = (known_version, bytes.first_mut()) {
            *first = 1;
        }
        let _ = EncodedCommand::decode(bytes.clone().into());
        apply_anything(bytes);
    }

    #[test]
    fn damaged_snapshots_are_refused(
        damage in vec((any::<prop::sample::Index>(), 1..=u8::MAX, 0..3), 1..60),
    ) {
        let snapshot = a_snapshot();
        for (position, byte, how) in damage {
            let mut damaged = snapshot.clone();
            let at = position.index(damaged.len());
            match how {
                0 => damaged[at] ^= byte,
                1 => damaged.truncate(at),
                _ => damaged.insert(at, byte),
            }
            prop_assume!(damaged != snapshot);
            prop_assert!(Machine::restore(damaged.as_slice(), Limits::default()).is_err(), "I12");
        }
    }
}

fn apply_anything(bytes: Vec<u8>) {
    let mut machine = Machine::new(0, Limits::default());
    let before = machine.state_hash();
    let log_id = LogId {
        term: 1,
        node_id: 1,
        index: 0,
    };
    if machine.apply(log_id, &bytes.into()).is_err() {
        assert_eq!(machine.state_hash(), before, "nothing was applied");
    } else {
        assert_eq!(machine.last_applied(), Some(log_id));
    }
}

fn a_snapshot() -> Vec<u8> {
    use crate::support::{attempt, batch, claim, create, custom, event, register};
    let mut replica = Replica::new();
    let epoch = replica.epoch("s", "nonce");
    replica.epoch("t", "nonce");
    let events = vec![
        create("h", small_definition()),
        event("h", "", EventKind::HuntStarted),
        register("h", "p"),
        register("h", "q"),
        attempt("h", "p", "a", "a"),
        attempt("h", "q", "a", "b"),
        claim("h", "p", "gold"),
        event("h", "q", EventKind::PlayerWithdrawn),
    ];
    replica.append(7, &batch("s", epoch, 1, events));
    replica.append(
        8,
        &batch("s", epoch, 2, vec![custom("h", b"x"), custom("g", b"y")]),
    );
    let mut snapshot = Vec::new();
    replica
        .machine
        .view()
        .write_to(&mut snapshot)
        .expect("a Vec takes all");
    snapshot
}

/// A snapshot of other limits would go on differently.
#[test]
fn other_limits_are_refused() {
    let limits = Limits {
        results_per_session: 65,
        ..Limits::default()
    };
    let error = Machine::restore(a_snapshot().as_slice(), limits).expect_err("other limits");
    assert!(error.to_string().contains("limits"), "{error}");
    let error = Machine::restore(&b"something else entirely"[..], Limits::default())
        .expect_err("not a snapshot");
    assert!(
        error.to_string().contains("not a machine snapshot"),
        "{error}"
    );
}

/// What version 1 of the log looks like: a change of these bytes is a new
/// version, for replicas of two releases must agree (I7).
#[test]
fn the_encoding_is_what_it_was() {
    let batch = Batch {
        session: "s".into(),
        epoch: 300,
        sequence: 1,
        expected: vec![("h".into(), ExpectedRevision::Exactly(2))],
        events: vec![
            Event {
                hunt: "h".into(),
                player: "p".into(),
                occurred_at: Some(Timestamp {
                    seconds: -1,
                    nanos: 5,
                }),
                kind: EventKind::ClueAttempted {
                    clue: "c".into(),
                    answer: "Ab".into(),
                },
            },
            Event {
                hunt: "h".into(),
                player: String::new(),
                occurred_at: None,
                kind: EventKind::Custom {
                    type_name: "t".into(),
                    payload: Bytes::from_static(&[9, 8]),
                },
            },
        ],
    };
    let mut builder = EntryBuilder::new(1_000, None);
    builder.push(&encode_batch(&batch));
    builder.push(&encode_open_session("s", b"n"));
    let mut expected = vec![1, 0xe8, 7, 0, 1, 1, b'h', 2, 35, 1, 0, 5, 0];
    expected.extend([1, 1, b's', 0xac, 2, 1, 1, 1, b'h', 1, 0, 1, 2, 2]);
    expected.extend([
        0x7b, 0, 1, b'p', 1, 5, 1, b'c', 2, b'A', b'b', 2, b'A', b'B',
    ]);
    expected.extend([14, 0, 1, b't', 2, 9, 8]);
    expected.extend([2, 1, b's', 1, b'n']);
    assert_eq!(builder.finish(), expected);
}
