use bytes::Bytes;
use huntlog_machine::{CommandRef, EventType, Timestamp};
use v1::event::Kind;
use v1::expected_revision::Expected;

use super::*;

fn event(player: &str, kind: Kind) -> v1::Event {
    v1::Event {
        hunt: "h".to_owned(),
        player: player.to_owned(),
        occurred_at: None,
        kind: Some(kind),
    }
}

fn custom(payload_bytes: usize) -> v1::Event {
    let custom = v1::Custom {
        r#type: "position".to_owned(),
        payload: vec![1; payload_bytes].into(),
    };
    event("", Kind::Custom(custom))
}

fn batch(events: Vec<v1::Event>) -> v1::Batch {
    v1::Batch {
        session: "s".to_owned(),
        epoch: 4,
        sequence: 7,
        events,
        expected_revisions: Vec::new(),
    }
}

fn paths(batch: v1::Batch) -> Vec<String> {
    match batch_from_proto(batch) {
        Ok(_) => Vec::new(),
        Err(error) => error.0.into_iter().map(|fault| fault.path).collect(),
    }
}

fn definition() -> v1::HuntDefinition {
    v1::HuntDefinition {
        clues: vec![v1::Clue {
            id: "c".to_owned(),
            answers: vec!["x".to_owned()],
            ..v1::Clue::default()
        }],
        ..v1::HuntDefinition::default()
    }
}

/// One event of each kind, as a client may send it.
fn every_kind() -> Vec<v1::Event> {
    let text = str::to_owned;
    vec![
        event(
            "",
            Kind::HuntCreated(v1::HuntCreated {
                definition: Some(definition()),
            }),
        ),
        event("", Kind::HuntOpened(v1::HuntOpened {})),
        event("", Kind::HuntStarted(v1::HuntStarted {})),
        event("", Kind::HuntPaused(v1::HuntPaused {})),
        event("", Kind::HuntResumed(v1::HuntResumed {})),
        event("", Kind::HuntFinished(v1::HuntFinished {})),
        event(
            "",
            Kind::HuntCancelled(v1::HuntCancelled {
                reason: text("rain"),
            }),
        ),
        event(
            "p",
            Kind::PlayerRegistered(v1::PlayerRegistered {
                display_name: text("The\tFoxes"),
            }),
        ),
        event("p", Kind::PlayerWithdrawn(v1::PlayerWithdrawn {})),
        event(
            "p",
            Kind::PlayerDisqualified(v1::PlayerDisqualified {
                reason: text("a map"),
            }),
        ),
        event(
            "p",
            Kind::ClueAttempted(v1::ClueAttempted {
                clue: text("c"),
                answer: String::new(),
            }),
        ),
        event(
            "p",
            Kind::TreasureClaimed(v1::TreasureClaimed {
                treasure: text("t"),
            }),
        ),
        event(
            "p",
            Kind::HintTaken(v1::HintTaken {
                clue: text("c"),
                hint: text("1"),
            }),
        ),
        custom(3),
        announced("c", "the well is dry"),
    ]
}

fn announced(clue: &str, text: &str) -> v1::Event {
    let (clue, text) = (clue.to_owned(), text.to_owned());
    event("", Kind::Announced(v1::Announced { clue, text }))
}

#[test]
fn every_kind_of_event_is_taken_and_has_its_number() {
    let converted = batch_from_proto(batch(every_kind())).expect("all are valid");
    let types: Vec<_> = converted
        .events
        .iter()
        .map(|event| event.kind.event_type())
        .collect();
    assert_eq!(types, EventType::ALL);
}

#[test]
fn an_announcement_has_a_text_of_some_length_and_a_level_of_its_own() {
    let text = "batch.events[0].announced.text";
    for (long, fault) in [(0, true), (1, false), (4_096, false), (4_097, true)] {
        let found = paths(batch(vec![announced("", &"x".repeat(long))]));
        let expected = if fault { &[text][..] } else { &[] };
        assert_eq!(found, expected, "{long}");
    }
    let found = paths(batch(vec![announced("c\n", "x")]));
    assert_eq!(found, ["batch.events[0].announced.clue"]);

    let level = |events| batch_command(batch(events)).expect("valid").command.level();
    assert_eq!(level(vec![custom(3)]), 1);
    assert_eq!(level(vec![custom(3), announced("", "x")]), 2);
    for events in [vec![custom(3)], every_kind()] {
        assert_eq!(level_needed(&batch(events.clone())), level(events));
    }
}

#[test]
fn a_player_is_given_exactly_where_the_kind_has_one() {
    for (position, mut one) in every_kind().into_iter().enumerate() {
        let needed = EventType::ALL[position].needs_player();
        let optional = EventType::ALL[position] == EventType::Custom;
        one.player.clear();
        let without = paths(batch(vec![one.clone()]));
        assert_eq!(without.is_empty(), !needed, "{position}: {without:?}");
        one.player = "p".to_owned();
        let with = paths(batch(vec![one]));
        assert_eq!(with.is_empty(), needed || optional, "{position}: {with:?}");
    }
}

#[test]
fn what_was_sent_is_what_is_logged() {
    let mut sent = custom(300);
    sent.player = "p".to_owned();
    sent.occurred_at = Some(prost_types::Timestamp {
        seconds: -1,
        nanos: 5,
    });
    let mut request = batch(vec![sent]);
    request.expected_revisions = vec![
        v1::ExpectedRevision {
            hunt: "h".to_owned(),
            expected: Some(Expected::Exactly(9)),
        },
        v1::ExpectedRevision {
            hunt: "new".to_owned(),
            expected: Some(Expected::None(())),
        },
    ];
    let named = batch_command(request).expect("valid");
    assert_eq!(
        (named.session.as_str(), named.epoch, named.sequence),
        ("s", 4, 7)
    );
    assert_eq!(named.command.events(), 1);
    let Ok(CommandRef::Batch(logged)) = CommandRef::decode(named.command.bytes()) else {
        panic!("a batch");
    };
    let logged = logged.to_owned().expect("decodes");
    assert_eq!(
        logged.expected,
        [
            ("h".to_owned(), ExpectedRevision::Exactly(9)),
            ("new".to_owned(), ExpectedRevision::None)
        ]
    );
    assert_eq!(
        logged.events,
        [Event {
            hunt: "h".to_owned(),
            player: "p".to_owned(),
            occurred_at: Some(Timestamp {
                seconds: -1,
                nanos: 5
            }),
            kind: EventKind::Custom {
                type_name: "position".to_owned(),
                payload: Bytes::from(vec![1; 300]),
            },
        }]
    );
}

#[test]
fn every_fault_of_a_batch_is_named() {
    let mut bad_time = custom(0);
    bad_time.occurred_at = Some(prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    let mut bad_hunt = custom(0);
    bad_hunt.hunt = "a\nb".to_owned();
    let mut no_kind = custom(0);
    no_kind.kind = None;
    let attempt = event(
        "",
        Kind::ClueAttempted(v1::ClueAttempted {
            clue: String::new(),
            answer: "x".to_owned(),
        }),
    );
    let hint = event(
        "p",
        Kind::HintTaken(v1::HintTaken {
            clue: "c".repeat(129),
            hint: String::new(),
        }),
    );
    let untyped = event("", Kind::Custom(v1::Custom::default()));
    let opened = event("p", Kind::HuntOpened(v1::HuntOpened {}));
    let undefined = event("", Kind::HuntCreated(v1::HuntCreated { definition: None }));
    let no_clues = event(
        "",
        Kind::HuntCreated(v1::HuntCreated {
            definition: Some(v1::HuntDefinition::default()),
        }),
    );
    let mut request = batch(vec![
        bad_time, bad_hunt, no_kind, attempt, hint, untyped, opened, undefined, no_clues,
    ]);
    request.session = String::new();
    request.sequence = 0;
    let expected = |hunt: &str, expected| v1::ExpectedRevision {
        hunt: hunt.to_owned(),
        expected,
    };
    request.expected_revisions = vec![
        expected("h", Some(Expected::None(()))),
        expected("h", Some(Expected::Exactly(1))),
        expected("", None),
    ];
    assert_eq!(
        paths(request),
        [
            "batch.session",
            "batch.sequence",
            "batch.expected_revisions[1].hunt",
            "batch.expected_revisions[2].hunt",
            "batch.expected_revisions[2].expected",
            "batch.events[0].occurred_at.seconds",
            "batch.events[1].hunt",
            "batch.events[2].kind",
            "batch.events[3].clue_attempted.clue",
            "batch.events[3].player",
            "batch.events[4].hint_taken.clue",
            "batch.events[4].hint_taken.hint",
            "batch.events[5].custom.type",
            "batch.events[6].player",
            "batch.events[7].hunt_created.definition",
            "batch.events[8].hunt_created.definition.clues",
        ]
    );
}

#[test]
fn sizes_are_bounded() {
    assert_eq!(paths(batch(Vec::new())), ["batch.events"]);
    assert!(paths(batch(vec![custom(0); limits::BATCH_EVENTS_MAX])).is_empty());
    assert_eq!(
        paths(batch(vec![custom(0); limits::BATCH_EVENTS_MAX + 1])),
        ["batch.events"]
    );
    let framing =
        custom(limits::EVENT_BYTES_MAX - 100).encoded_len() - (limits::EVENT_BYTES_MAX - 100);
    let largest = custom(limits::EVENT_BYTES_MAX - framing);
    assert_eq!(largest.encoded_len(), limits::EVENT_BYTES_MAX);
    assert!(paths(batch(vec![largest.clone(); 4])).is_empty());
    assert_eq!(
        paths(batch(vec![custom(limits::EVENT_BYTES_MAX - framing + 1)])),
        ["batch.events[0]"]
    );
    assert_eq!(
        paths(batch(vec![
            largest.clone(),
            largest.clone(),
            largest.clone(),
            largest,
            custom(0)
        ])),
        ["batch.events"]
    );
}

/// The hash of a one-letter answer is larger than the answer.
#[test]
fn what_grows_beyond_the_logs_limit_is_refused() {
    let clues = (0..2_200)
        .map(|number| v1::Clue {
            id: format!("c{number}"),
            answers: vec!["x".to_owned(); 80],
            ..v1::Clue::default()
        })
        .collect();
    let created = event(
        "",
        Kind::HuntCreated(v1::HuntCreated {
            definition: Some(v1::HuntDefinition {
                clues,
                ..v1::HuntDefinition::default()
            }),
        }),
    );
    assert!(created.encoded_len() <= limits::EVENT_BYTES_MAX);
    let error = batch_command(batch(vec![created])).expect_err("too large once hashed");
    assert_eq!(error.0.len(), 1);
    assert_eq!(error.0[0].path, "batch");
}
