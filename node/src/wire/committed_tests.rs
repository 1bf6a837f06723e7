//! Whole round trips: requests through the machine to what readers see.

use bytes::Bytes;
use huntlog_machine::history::events;
use huntlog_machine::{
    BatchResult, CommandResult, EntryBuilder, LATEST_LEVEL, Limits, LogId, Machine,
    encode_open_session, encode_raise_level,
};
use huntlog_proto::encoded::Page;
use prost::Message as _;

use super::*;
use crate::wire::{append_response, batch_command, hunt_to_proto, player_to_proto};

const START_MS: u64 = 1_700_000_000_000;

/// A machine and its log of two entries: a session's opening and one batch.
struct Played {
    machine: Machine,
    entry: Bytes,
    record: Bytes,
    response: v1::AppendResponse,
}

fn play(events: Vec<v1::Event>) -> Played {
    let mut machine = Machine::new(0, Limits::default());
    let log_id = |index| LogId {
        term: 1,
        node_id: 1,
        index,
    };
    let mut opening = EntryBuilder::new(START_MS, None);
    opening.push(&encode_raise_level(LATEST_LEVEL));
    opening.push(&encode_open_session("s", b"12345678"));
    machine
        .apply(log_id(1), &opening.finish())
        .expect("the entry is whole");
    let named = batch_command(v1::Batch {
        session: "s".to_owned(),
        epoch: 1,
        sequence: 1,
        events,
        expected_revisions: Vec::new(),
    })
    .expect("the batch is valid");
    let mut builder = EntryBuilder::new(START_MS + 1_500, None);
    builder.push(&named.command);
    let entry = builder.finish();
    let applied = machine
        .apply(log_id(2), &entry)
        .expect("the entry is whole");
    let [CommandResult::Batch(BatchResult::Applied(outcome))] = &applied.results[..] else {
        panic!("one batch, applied: {:?}", applied.results);
    };
    Played {
        response: append_response(0, named.session, named.sequence, false, Some(outcome)),
        record: applied.record.clone(),
        entry,
        machine,
    }
}

fn event(player: &str, kind: v1::event::Kind) -> v1::Event {
    v1::Event {
        hunt: "h".to_owned(),
        player: player.to_owned(),
        occurred_at: Some(prost_types::Timestamp {
            seconds: 5,
            nanos: 7,
        }),
        kind: Some(kind),
    }
}

/// A hunt from its creation to a player who has solved and won everything.
fn whole_hunt() -> Vec<v1::Event> {
    use v1::event::Kind;
    let text = str::to_owned;
    let clue = |id: &str, requires: &[&str]| v1::Clue {
        id: text(id),
        requires: requires.iter().copied().map(text).collect(),
        points: 10,
        answers: vec![text("right")],
        hints: vec![v1::Hint {
            id: text("h1"),
            cost: 3,
        }],
        ..v1::Clue::default()
    };
    let definition = v1::HuntDefinition {
        title: text("Spring"),
        clues: vec![clue("c1", &[]), clue("c2", &["c1"])],
        treasures: vec![v1::Treasure {
            id: text("t"),
            limit: 1,
            points: 5,
            requires: vec![text("c1")],
            ..v1::Treasure::default()
        }],
        ..v1::HuntDefinition::default()
    };
    let attempt = |clue: &str, answer: &str| {
        Kind::ClueAttempted(v1::ClueAttempted {
            clue: text(clue),
            answer: text(answer),
        })
    };
    let claim = || {
        Kind::TreasureClaimed(v1::TreasureClaimed {
            treasure: text("t"),
        })
    };
    vec![
        event(
            "",
            Kind::HuntCreated(v1::HuntCreated {
                definition: Some(definition),
            }),
        ),
        event("", Kind::HuntOpened(v1::HuntOpened {})),
        event(
            "p",
            Kind::PlayerRegistered(v1::PlayerRegistered {
                display_name: text("Foxes"),
            }),
        ),
        event("", Kind::HuntStarted(v1::HuntStarted {})),
        event("p", attempt("c1", "wrong")),
        event("p", attempt("c2", "right")),
        event("p", attempt("c1", "Right!")),
        event(
            "p",
            Kind::HintTaken(v1::HintTaken {
                clue: text("c2"),
                hint: text("h1"),
            }),
        ),
        event("p", claim()),
        event("p", claim()),
        event(
            "p",
            Kind::Custom(v1::Custom {
                r#type: text("position"),
                payload: Bytes::from_static(b"48.1,11.5"),
            }),
        ),
        event("p", attempt("c2", "right")),
    ]
}

/// What a reader makes of the accepted events of an entry.
fn read_back(
    partition: u32,
    log_index: u64,
    entry: &[u8],
    record: &[u8],
) -> Vec<v1::CommittedEvent> {
    let mut page = Page::default();
    for event in events(entry, record).expect("whole") {
        let event = event.expect("whole");
        encode_committed(partition, log_index, &event, &mut page.events).expect("whole");
    }
    let wire = page.encode_to_vec();
    let read = v1::ReadResponse::decode(&wire[..]).expect("it is one");
    assert_eq!(
        read.encode_to_vec(),
        wire,
        "as the generated messages encode it"
    );
    read.events
}

fn effects_of(outcome: &v1::EventOutcome) -> Vec<v1::effect::Effect> {
    match &outcome.outcome {
        Some(v1::event_outcome::Outcome::Accepted(accepted)) => accepted
            .effects
            .iter()
            .map(|effect| effect.effect.clone().expect("every effect is one of them"))
            .collect(),
        other => panic!("accepted, not {other:?}"),
    }
}

fn reason_of(outcome: &v1::EventOutcome) -> v1::RejectReason {
    match &outcome.outcome {
        Some(v1::event_outcome::Outcome::Rejected(rejected)) => rejected.reason(),
        other => panic!("rejected, not {other:?}"),
    }
}

#[test]
fn outcomes_name_every_effect_and_reason() {
    use v1::effect::Effect;
    let response = play(whole_hunt()).response;
    assert_eq!((response.log_index, response.outcomes_dropped), (2, false));
    assert_eq!(
        response.committed_at,
        Some(prost_types::Timestamp {
            seconds: 1_700_000_001,
            nanos: 500_000_000
        })
    );
    let outcomes = &response.outcomes;
    assert_eq!(outcomes.len(), 12);
    let text = str::to_owned;
    assert_eq!(
        effects_of(&outcomes[1]),
        [Effect::HuntStateChanged(v1::HuntStateChanged {
            from_state: v1::HuntState::Draft.into(),
            to_state: v1::HuntState::Open.into(),
        })]
    );
    assert_eq!(
        effects_of(&outcomes[4]),
        [Effect::AnswerWrong(v1::AnswerWrong { clue: text("c1") })]
    );
    assert_eq!(reason_of(&outcomes[5]), v1::RejectReason::ClueLocked);
    assert_eq!(
        effects_of(&outcomes[6]),
        [
            Effect::ClueSolved(v1::ClueSolved {
                clue: text("c1"),
                rank: 1,
                points: 10
            }),
            Effect::ClueUnlocked(v1::ClueUnlocked { clue: text("c2") }),
        ]
    );
    assert_eq!(
        effects_of(&outcomes[7]),
        [Effect::HintRevealed(v1::HintRevealed {
            clue: text("c2"),
            hint: text("h1"),
            cost: 3
        })]
    );
    assert_eq!(
        effects_of(&outcomes[8]),
        [Effect::TreasureWon(v1::TreasureWon {
            treasure: text("t"),
            rank: 1,
            points: 5
        })]
    );
    assert_eq!(
        reason_of(&outcomes[9]),
        v1::RejectReason::TreasureAlreadyWon
    );
    assert_eq!(effects_of(&outcomes[10]), []);
    assert_eq!(
        effects_of(&outcomes[11]).last(),
        Some(&Effect::HuntWon(v1::HuntWon { rank: 1 }))
    );
}

/// What a page had before stays what it is when an event can not be read.
#[test]
fn a_damaged_definition_adds_nothing() {
    let played = play(whole_hunt());
    let mut entry = played.entry.to_vec();
    let title = entry.windows(6).position(|bytes| bytes == b"Spring");
    // No text in UTF-8 begins with it.
    entry[title.expect("the title stands in the log as it is")] = 0xFF;
    let mut page = Page::default();
    page.events.add(|out| out.push(7));
    let mut results = Vec::new();
    for event in events(&entry, &played.record).expect("the entry's frame is whole") {
        let event = event.expect("the events around the title are whole");
        let before = page.events.clone();
        let result = encode_committed(0, 2, &event, &mut page.events);
        assert_eq!(result.is_err(), page.events == before);
        results.push(result.is_ok());
    }
    assert_eq!(results[..2], [false, true]);
}

/// I5: what readers see is what was sent, at the offsets that were answered.
#[test]
fn readers_see_the_accepted_events_as_they_were_sent() {
    use v1::event_outcome::Outcome;
    let sent = whole_hunt();
    let played = play(sent.clone());
    let read = read_back(3, 2, &played.entry, &played.record);
    let accepted: Vec<_> = sent
        .into_iter()
        .zip(&played.response.outcomes)
        .filter_map(|(event, outcome)| match &outcome.outcome {
            Some(Outcome::Accepted(accepted)) => Some((event, accepted)),
            _ => None,
        })
        .collect();
    assert_eq!(read.len(), accepted.len());
    for (read, (sent, accepted)) in read.iter().zip(accepted) {
        assert_eq!((read.partition, read.log_index), (3, 2));
        assert_eq!(read.offset, accepted.offset);
        assert_eq!(read.revision, accepted.revision);
        assert_eq!(read.effects, accepted.effects);
        assert_eq!(read.committed_at, played.response.committed_at);
        assert_eq!(read.origin(), v1::Origin::Client);
        assert_eq!((read.session.as_str(), read.sequence), ("s", 1));
        let read = read.event.as_ref().expect("every event is there");
        match (&read.kind, &sent.kind) {
            // Answers come back as hashes only.
            (Some(v1::event::Kind::HuntCreated(read)), Some(v1::event::Kind::HuntCreated(_))) => {
                let clues = &read.definition.as_ref().expect("kept").clues;
                assert!(clues.iter().all(|clue| clue.answers.is_empty()));
                assert!(clues.iter().all(|clue| clue.answer_hashes.len() == 1));
            }
            _ => assert_eq!(read, &sent),
        }
    }
}

/// What the hunt of the other tests has none of.
#[test]
fn readers_see_hunts_that_pause_and_end() {
    use v1::event::Kind;
    let reason = || "storm".to_owned();
    let begun = || {
        let mut begun = whole_hunt();
        begun.truncate(4);
        begun
    };
    let other = v1::PlayerRegistered {
        display_name: "Owls".to_owned(),
    };
    for (after, more) in [
        (
            begun(),
            vec![
                event(
                    "",
                    Kind::Announced(v1::Announced {
                        clue: "c1".to_owned(),
                        text: "It is not the well".to_owned(),
                    }),
                ),
                event("", Kind::HuntFinished(v1::HuntFinished {})),
            ],
        ),
        (
            begun(),
            vec![
                event("q", Kind::PlayerRegistered(other)),
                event("", Kind::HuntPaused(v1::HuntPaused {})),
                event("", Kind::HuntResumed(v1::HuntResumed {})),
                event("p", Kind::PlayerWithdrawn(v1::PlayerWithdrawn {})),
                event(
                    "q",
                    Kind::PlayerDisqualified(v1::PlayerDisqualified { reason: reason() }),
                ),
                event(
                    "",
                    Kind::HuntCancelled(v1::HuntCancelled { reason: reason() }),
                ),
            ],
        ),
    ] {
        let begun = after.len();
        let sent = [after, more].concat();
        let played = play(sent.clone());
        let read = read_back(0, 2, &played.entry, &played.record);
        let read: Vec<_> = read.into_iter().filter_map(|read| read.event).collect();
        assert_eq!(read[begun..], sent[begun..]);
    }
}

#[test]
fn what_the_clock_does_has_no_session() {
    let mut scheduled = whole_hunt();
    scheduled.truncate(1);
    if let Some(v1::event::Kind::HuntCreated(created)) = &mut scheduled[0].kind
        && let Some(definition) = &mut created.definition
    {
        definition.starts_at = Some(prost_types::Timestamp {
            seconds: 1_700_000_010,
            nanos: 0,
        });
    }
    let mut machine = play(scheduled).machine;
    let tick = EntryBuilder::new(START_MS + 10_000, None).finish();
    let log_id = LogId {
        term: 1,
        node_id: 1,
        index: 3,
    };
    let applied = machine.apply(log_id, &tick).expect("whole");
    let read = read_back(0, 3, &tick, &applied.record);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].origin(), v1::Origin::Clock);
    assert_eq!((read[0].session.as_str(), read[0].sequence), ("", 0));
    assert_eq!(
        read[0].event.as_ref().and_then(|event| event.kind.clone()),
        Some(v1::event::Kind::HuntStarted(v1::HuntStarted {}))
    );
}

#[test]
fn the_state_is_answered_as_it_is() {
    let machine = play(whole_hunt()).machine;
    let hunt = hunt_to_proto(machine.hunt("h").expect("created"));
    assert_eq!(hunt.state(), v1::HuntState::Running);
    assert_eq!((hunt.revision, hunt.players), (10, 1));
    assert_eq!(
        hunt.clues,
        [("c1", 2, 1), ("c2", 1, 1)].map(|(clue, attempts, solves)| v1::ClueStats {
            clue: clue.to_owned(),
            attempts,
            solves,
        })
    );
    assert_eq!(hunt.treasures[0].winners, ["p"]);
    let player = player_to_proto(machine.player("h", "p").expect("registered"));
    assert_eq!(player.display_name, "Foxes");
    assert_eq!(player.status(), v1::PlayerStatus::Active);
    assert_eq!(player.solved_clues, ["c1", "c2"]);
    assert_eq!(player.treasures, ["t"]);
    assert!(player.open_clues.is_empty());
    let row = player.row.expect("on the scoreboard");
    assert_eq!((row.rank, row.points, row.solved), (1, 22, 2));
    assert_eq!(row.last_solve_offset, Some(9));
    assert_eq!(
        row.last_solve_occurred_at,
        Some(prost_types::Timestamp {
            seconds: 5,
            nanos: 7
        })
    );
}
