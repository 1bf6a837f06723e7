//! Results as text, for golden scripts and for comparing with the model.

use huntlog_machine::history::{CommittedEvent, Origin};
use huntlog_machine::{
    BatchOutcome, BatchResult, CommandResult, Effect, EventKind, EventOutcome, EventRef,
};

pub fn effect(effect: &Effect<'_>) -> String {
    match effect {
        Effect::AnswerWrong { clue } => format!("{clue} wrong"),
        Effect::ClueSolved { clue, rank, points } => {
            format!("{clue} solved #{rank} +{points}")
        }
        Effect::ClueUnlocked { clue } => format!("{clue} unlocked"),
        Effect::TreasureWon {
            treasure,
            rank,
            points,
        } => format!("{treasure} won #{rank} +{points}"),
        Effect::HuntWon { rank } => format!("hunt won #{rank}"),
        Effect::HuntStateChanged { from, to } => format!("{}->{}", from.name(), to.name()),
        Effect::HintRevealed { clue, hint, cost } => format!("{clue}/{hint} revealed -{cost}"),
    }
}

pub fn outcome(outcome: &EventOutcome<'_>) -> String {
    match outcome {
        EventOutcome::Rejected(reason) => format!("rejected {}", reason.name()),
        EventOutcome::Accepted {
            offset,
            revision,
            effects,
        } => {
            let effects: Vec<_> = effects.map(|e| effect(&e)).collect();
            format!("@{offset} r{revision} {}", effects.join(", "))
                .trim_end()
                .to_owned()
        }
    }
}

pub fn outcomes(batch: &BatchOutcome) -> Vec<String> {
    let lines: Vec<_> = batch.iter().map(|o| outcome(&o)).collect();
    let accepted = lines.iter().filter(|line| line.starts_with('@')).count();
    assert_eq!(batch.accepted(), accepted as u64);
    lines
}

/// What became of a command: a line, and one for each event.
pub fn result(result: &CommandResult) -> Vec<String> {
    match result {
        CommandResult::SessionOpened {
            epoch,
            last_sequence,
            fresh,
        } => vec![format!(
            "opened epoch={epoch} last_sequence={last_sequence} fresh={fresh}"
        )],
        CommandResult::SessionRefused(refusal) => vec![format!("refused {refusal:?}")],
        CommandResult::Level(level) => vec![format!("level {level}")],
        CommandResult::Batch(BatchResult::Refused(refusal)) => vec![format!("refused {refusal:?}")],
        CommandResult::Batch(BatchResult::DuplicateDropped { .. }) => {
            vec!["duplicate, outcome not kept".into()]
        }
        CommandResult::Batch(BatchResult::Applied(batch)) => with_events("applied".into(), batch),
        CommandResult::Batch(BatchResult::Duplicate(batch)) => {
            let line = format!(
                "duplicate of entry {} at {}",
                batch.log_index, batch.time_ms
            );
            with_events(line, batch)
        }
    }
}

fn with_events(line: String, batch: &BatchOutcome) -> Vec<String> {
    let mut lines = vec![line];
    lines.extend(outcomes(batch).into_iter().map(|line| format!("  {line}")));
    lines
}

pub fn event(event: &EventRef<'_>) -> String {
    let owned = event.to_owned().expect("it was applied");
    let content = match &owned.kind {
        EventKind::HuntCreated(definition) => format!(" {:?}", definition.title),
        EventKind::HuntCancelled { reason } | EventKind::PlayerDisqualified { reason } => {
            format!(" {reason:?}")
        }
        EventKind::PlayerRegistered { display_name } => format!(" {display_name:?}"),
        EventKind::ClueAttempted { clue, answer } => format!(" {clue} {answer:?}"),
        EventKind::TreasureClaimed { treasure } => format!(" {treasure}"),
        EventKind::HintTaken { clue, hint } => format!(" {clue} {hint}"),
        EventKind::Custom { type_name, payload } => format!(" {type_name} {payload:?}"),
        EventKind::Announced { clue, text } => format!(" {clue:?} {text:?}"),
        _ => String::new(),
    };
    let player = if owned.player.is_empty() {
        String::new()
    } else {
        format!(" {}", owned.player)
    };
    let name = owned.kind.event_type().name();
    format!("{} {name}{player}{content}", owned.hunt)
}

pub fn committed(committed: &CommittedEvent<'_>) -> String {
    let origin = match committed.origin {
        Origin::Clock => "clock".to_owned(),
        Origin::Client { session, sequence } => format!("{session}/{sequence}"),
    };
    let effects: Vec<_> = committed.effects.map(|e| effect(&e)).collect();
    format!(
        "@{} r{} t{} {origin} {}: {}",
        committed.offset,
        committed.revision,
        committed.time_ms,
        event(&committed.event),
        effects.join(", ")
    )
    .trim_end_matches([' ', ':'])
    .to_owned()
}
