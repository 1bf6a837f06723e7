//! What random clients do.

use super::state::Model;
use crate::support::{
    announce, attempt, batch, claim, clue, create, custom, event, register, treasure,
};
use huntlog_machine::{Batch, Event, EventKind, ExpectedRevision, Hint, HuntDefinition, Timestamp};
use proptest::prelude::*;
use proptest::sample::{Index, select};

const SESSIONS: [&str; 3] = ["s", "t", "u"];
const HUNTS: [&str; 2] = ["g", "h"];
const PLAYERS: [&str; 4] = ["p", "q", "r", "x"];
const CLUES: [&str; 5] = ["a", "b", "c", "d", "nowhere"];

pub fn definition() -> HuntDefinition {
    let mut clues = vec![
        clue("a", &[]),
        clue("b", &["a"]),
        clue("c", &["a"]),
        clue("d", &["b", "c"]),
    ];
    clues[0].hints = vec![Hint {
        id: "look".into(),
        cost: 4,
    }];
    clues[2].max_attempts = 2;
    HuntDefinition {
        clues,
        treasures: vec![treasure("gold", 2, &["a"]), treasure("tin", 1, &[])],
        starts_at: Some(Timestamp {
            seconds: 40,
            nanos: 0,
        }),
        ends_at: Some(Timestamp {
            seconds: 90,
            nanos: 0,
        }),
        max_players: 3,
        ..HuntDefinition::default()
    }
}

/// What a client does, before it is known what the log holds by then.
#[derive(Debug, Clone)]
pub enum Act {
    Open {
        session: &'static str,
        nonce: u8,
        /// Of the epochs the session had, newest first, the one it goes on from.
        from: Option<usize>,
    },
    Batch {
        session: &'static str,
        /// Of the epochs the session had, newest first; past them: made up.
        epoch: usize,
        sequence: Sequence,
        expected: Vec<(&'static str, i64)>,
        events: Vec<Event>,
    },
    /// Sends again what was sent before, byte for byte.
    Resend(Index),
    /// Raises the feature level.
    RaiseLevel,
}

#[derive(Debug, Clone)]
pub enum Sequence {
    Next,
    Ahead(u64),
    Behind(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let hunt = || select(&HUNTS[..]);
    let player = || select(&PLAYERS[..]);
    let clue = || select(&CLUES[..]);
    let hunt_kind = select(vec![
        EventKind::HuntOpened,
        EventKind::HuntStarted,
        EventKind::HuntPaused,
        EventKind::HuntResumed,
        EventKind::HuntResumed,
        EventKind::HuntFinished,
        EventKind::HuntCancelled {
            reason: "rain".into(),
        },
    ]);
    let player_kind = select(vec![
        EventKind::PlayerWithdrawn,
        EventKind::PlayerDisqualified {
            reason: "cheating".into(),
        },
    ]);
    let hint = |hunt: &str, player: &str, clue: &str, hint: &str| {
        let (clue, hint) = (clue.into(), hint.into());
        event(hunt, player, EventKind::HintTaken { clue, hint })
    };
    prop_oneof![
        2 => hunt().prop_map(|hunt| create(hunt, definition())),
        1 => hunt().prop_map(|hunt| create(hunt, HuntDefinition::default())),
        2 => (hunt(), hunt_kind).prop_map(|(hunt, kind)| event(hunt, "", kind)),
        3 => (hunt(), player()).prop_map(|(hunt, player)| register(hunt, player)),
        1 => (hunt(), player(), player_kind).prop_map(|(h, player, kind)| event(h, player, kind)),
        12 => (hunt(), player(), clue(), clue())
            .prop_map(|(hunt, player, clue, answer)| attempt(hunt, player, clue, answer)),
        12 => (hunt(), player(), clue())
            .prop_map(|(hunt, player, clue)| attempt(hunt, player, clue, clue)),
        4 => (hunt(), player(), select(vec!["gold", "tin", "lead"]))
            .prop_map(|(hunt, player, treasure)| claim(hunt, player, treasure)),
        2 => (hunt(), player(), clue(), select(vec!["look", "sniff"]))
            .prop_map(move |(hunt, player, clue, id)| hint(hunt, player, clue, id)),
        6 => (hunt(), any::<u8>()).prop_map(|(hunt, byte)| custom(hunt, &[byte])),
        2 => (hunt(), select(vec!["", "a", "nowhere"]))
            .prop_map(|(hunt, clue)| announce(hunt, clue, "the well is dry")),
    ]
}

/// Events that mean something after each other.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let place = || (select(&HUNTS[..]), select(&PLAYERS[..]));
    prop_oneof![
        12 => any_event().prop_map(|event| vec![event]),
        1 => place().prop_map(|(hunt, player)| {
            ["a", "x", "y", "c"].map(|answer| {
                let clue = if answer == "a" { "a" } else { "c" };
                attempt(hunt, player, clue, answer)
            }).into()
        }),
        1 => place().prop_map(|(hunt, player)| {
            ["a", "b", "c", "d"].map(|clue| attempt(hunt, player, clue, clue)).into()
        }),
        1 => place().prop_map(|(hunt, player)| {
            let (clue, hint) = ("a".into(), "look".into());
            vec![event(hunt, player, EventKind::HintTaken { clue, hint }); 2]
        }),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let session = || select(&SESSIONS[..]);
    let sequence = prop_oneof![
        20 => Just(Sequence::Next),
        2 => (0_u64..3).prop_map(Sequence::Ahead),
        2 => (0_u64..9).prop_map(Sequence::Behind),
    ];
    let expected = prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec((select(&HUNTS[..]), -1_i64..2), 1..3),
    ];
    prop_oneof![
        2 => (session(), 0_u8..3, prop::option::of(0_usize..3))
            .prop_map(|(session, nonce, from)| Act::Open { session, nonce, from }),
        10 => (
            session(),
            prop_oneof![10 => Just(0_usize), 1 => 1_usize..4],
            sequence,
            expected,
            prop::collection::vec(any_events(), 1..6),
        )
            .prop_map(|(session, epoch, sequence, expected, events)| Act::Batch {
                session,
                epoch,
                sequence,
                expected,
                events: events.concat(),
            }),
        3 => any::<Index>().prop_map(Act::Resend),
        1 => Just(Act::RaiseLevel),
    ]
}

/// A batch as a node takes it while `level` is in force: what that does not know
/// becomes something else.
pub fn make_batch(
    model: &Model,
    level: u32,
    session: &'static str,
    epoch: usize,
    sequence: &Sequence,
    expected: &[(&'static str, i64)],
    mut events: Vec<Event>,
) -> Batch {
    for event in &mut events {
        if event.kind.event_type().level() > level {
            *event = custom(&event.hunt, b"instead");
        }
    }
    let known = model.sessions.get(session).cloned().unwrap_or_default();
    let epochs: Vec<u64> = known.epochs.iter().rev().copied().collect();
    let last = known.batches.len() as u64;
    let mut made = batch(
        session,
        epochs.get(epoch).copied().unwrap_or(1_000_000),
        match sequence {
            Sequence::Next => last + 1,
            Sequence::Ahead(by) => last + 2 + by,
            Sequence::Behind(by) => last.saturating_sub(*by),
        },
        events,
    );
    for &(hunt, off_by) in expected {
        let revision = model.hunts.get(hunt).map_or(0, |hunt| hunt.revision);
        let revision = match revision.saturating_add_signed(off_by) {
            0 => ExpectedRevision::None,
            exactly => ExpectedRevision::Exactly(exactly),
        };
        made.expected.push((hunt.into(), revision));
    }
    made
}

/// With sessions and hunts set up or not, so that most random acts mean
/// something, and those before the set-up are tried too.
pub fn any_entries() -> impl Strategy<Value = Vec<(u64, Vec<Act>)>> {
    let act = |session, sequence, events| Act::Batch {
        session,
        epoch: 0,
        sequence,
        expected: Vec::new(),
        events,
    };
    let mut setup = Vec::new();
    for (session, hunt) in [("s", "g"), ("t", "h")] {
        let mut events = vec![create(hunt, definition())];
        events.push(event(hunt, "", EventKind::HuntOpened));
        events.extend(["p", "q"].map(|player| register(hunt, player)));
        events.push(event(hunt, "", EventKind::HuntStarted));
        setup.push((
            1,
            vec![Act::Open {
                session,
                nonce: 0,
                from: None,
            }],
        ));
        setup.push((1, vec![act(session, Sequence::Next, events)]));
    }
    let entry = (
        prop_oneof![5 => 0_u64..500, 1 => 0_u64..20_000],
        prop::collection::vec(any_act(), 0..6),
    );
    (any::<bool>(), prop::collection::vec(entry, 1..40)).prop_map(move |(prepared, entries)| {
        let mut all = if prepared { setup.clone() } else { Vec::new() };
        all.extend(entries);
        all
    })
}
