//! From a client's batch to the command that goes into the log.

use std::collections::BTreeSet;
use std::fmt;

use huntlog_machine::{
    Batch, EncodedCommand, Event, EventKind, EventType, ExpectedRevision, FIRST_LEVEL,
    HuntDefinition, encode_batch,
};
use huntlog_proto::v1;
use prost::Message as _;

use super::definition::definition_from_proto;
use super::faults::{Faults, InvalidRequest};
use super::time::timestamp_from_proto;
use crate::limits;

/// A batch ready to be proposed, with the name it is answered under.
#[derive(Debug)]
pub struct NamedCommand {
    /// The session that sent it.
    pub session: String,
    /// The session's epoch.
    pub epoch: u64,
    /// The batch's number in the session.
    pub sequence: u64,
    /// The batch, encoded for the log.
    pub command: EncodedCommand,
}

/// Checks a request's batch and encodes it.
///
/// # Errors
/// With every fault, each at its field.
pub fn batch_command(batch: v1::Batch) -> Result<NamedCommand, InvalidRequest> {
    let batch = batch_from_proto(batch)?;
    let command = encode_batch(&batch);
    let mut faults = Faults::default();
    if command.bytes().len() > limits::COMMAND_BYTES_MAX {
        faults.add(
            "batch",
            format!(
                "its answers, once hashed, take {} bytes, at most {} are possible; send smaller batches",
                command.bytes().len(),
                limits::COMMAND_BYTES_MAX
            ),
        );
    }
    faults.finish(NamedCommand {
        session: batch.session,
        epoch: batch.epoch,
        sequence: batch.sequence,
        command,
    })
}

/// The feature level that a log has to be at to hold the batch.
pub fn level_needed(batch: &v1::Batch) -> u32 {
    let announces = |event: &v1::Event| matches!(event.kind, Some(v1::event::Kind::Announced(_)));
    match batch.events.iter().any(announces) {
        true => EventType::Announced.level(),
        false => FIRST_LEVEL,
    }
}

/// Checks a request's batch. Strings and payloads are moved, not copied.
///
/// # Errors
/// With every fault, each at its field.
pub fn batch_from_proto(batch: v1::Batch) -> Result<Batch, InvalidRequest> {
    let mut faults = Faults::default();
    faults.id(&batch.session, "batch.session");
    if batch.sequence == 0 {
        faults.add("batch.sequence", "sequences are counted from 1");
    }
    let expected = expected_from_proto(batch.expected_revisions, &mut faults);
    let count = batch.events.len();
    if count == 0 {
        faults.add("batch.events", "at least one event is needed");
    }
    if count > limits::BATCH_EVENTS_MAX {
        faults.add(
            "batch.events",
            format!(
                "{count} events are too many, at most {} are possible",
                limits::BATCH_EVENTS_MAX
            ),
        );
    }
    let mut bytes = 0;
    let mut events = Vec::with_capacity(count.min(limits::BATCH_EVENTS_MAX));
    // Those beyond the limit are not looked at.
    for (position, event) in batch
        .events
        .into_iter()
        .take(limits::BATCH_EVENTS_MAX)
        .enumerate()
    {
        let event_bytes = event.encoded_len();
        bytes += event_bytes;
        if event_bytes > limits::EVENT_BYTES_MAX {
            faults.add(
                format_args!("batch.events[{position}]"),
                format!(
                    "{event_bytes} bytes are too many for one event, at most {} are possible",
                    limits::EVENT_BYTES_MAX
                ),
            );
        }
        events.extend(event_from_proto(
            event,
            format_args!("batch.events[{position}]"),
            &mut faults,
        ));
    }
    if bytes > limits::BATCH_BYTES_MAX {
        faults.add(
            "batch.events",
            format!(
                "together they have {bytes} bytes, at most {} are possible",
                limits::BATCH_BYTES_MAX
            ),
        );
    }
    faults.finish(Batch {
        session: batch.session,
        epoch: batch.epoch,
        sequence: batch.sequence,
        expected,
        events,
    })
}

fn expected_from_proto(
    expected: Vec<v1::ExpectedRevision>,
    faults: &mut Faults,
) -> Vec<(String, ExpectedRevision)> {
    if expected.is_empty() {
        return Vec::new();
    }
    let count = expected.len();
    if count > limits::BATCH_EXPECTED_REVISIONS_MAX {
        faults.add(
            "batch.expected_revisions",
            format!(
                "{count} are too many, at most {} are possible",
                limits::BATCH_EXPECTED_REVISIONS_MAX
            ),
        );
        return Vec::new();
    }
    let mut hunts = BTreeSet::new();
    for (position, one) in expected.iter().enumerate() {
        let path = format_args!("batch.expected_revisions[{position}].hunt").to_string();
        faults.id(&one.hunt, &path);
        if !hunts.insert(one.hunt.as_str()) {
            faults.add(path, format!("`{}` is named already", one.hunt));
        }
    }
    let mut revisions = Vec::with_capacity(count);
    for (position, one) in expected.into_iter().enumerate() {
        use v1::expected_revision::Expected;
        match one.expected {
            Some(Expected::None(())) => revisions.push((one.hunt, ExpectedRevision::None)),
            Some(Expected::Exactly(revision)) => {
                revisions.push((one.hunt, ExpectedRevision::Exactly(revision)));
            }
            None => faults.add(
                format_args!("batch.expected_revisions[{position}].expected"),
                "one of `none` and `exactly` is needed",
            ),
        }
    }
    revisions
}

/// Whether a kind of event is about a player.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlayerUse {
    Required,
    Optional,
    None,
}

fn event_from_proto(
    event: v1::Event,
    path: fmt::Arguments<'_>,
    faults: &mut Faults,
) -> Option<Event> {
    use v1::event::Kind;
    faults.id(&event.hunt, format_args!("{path}.hunt"));
    let occurred_at = event
        .occurred_at
        .and_then(|time| timestamp_from_proto(time, format_args!("{path}.occurred_at"), faults));
    let mut player_use = PlayerUse::None;
    let kind = match event.kind {
        None => {
            faults.add(
                format_args!("{path}.kind"),
                "one of the kinds of events is needed, and this node knows none of what was sent",
            );
            return None;
        }
        Some(Kind::HuntCreated(created)) => {
            let path = format_args!("{path}.hunt_created.definition");
            let definition = match created.definition {
                Some(definition) => definition_from_proto(&event.hunt, definition, path, faults),
                None => {
                    faults.add(path, "a definition is needed");
                    HuntDefinition::default()
                }
            };
            EventKind::HuntCreated(Box::new(definition))
        }
        Some(Kind::HuntOpened(v1::HuntOpened {})) => EventKind::HuntOpened,
        Some(Kind::HuntStarted(v1::HuntStarted {})) => EventKind::HuntStarted,
        Some(Kind::HuntPaused(v1::HuntPaused {})) => EventKind::HuntPaused,
        Some(Kind::HuntResumed(v1::HuntResumed {})) => EventKind::HuntResumed,
        Some(Kind::HuntFinished(v1::HuntFinished {})) => EventKind::HuntFinished,
        Some(Kind::HuntCancelled(v1::HuntCancelled { reason })) => {
            EventKind::HuntCancelled { reason }
        }
        Some(Kind::PlayerRegistered(v1::PlayerRegistered { display_name })) => {
            player_use = PlayerUse::Required;
            EventKind::PlayerRegistered { display_name }
        }
        Some(Kind::PlayerWithdrawn(v1::PlayerWithdrawn {})) => {
            player_use = PlayerUse::Required;
            EventKind::PlayerWithdrawn
        }
        Some(Kind::PlayerDisqualified(v1::PlayerDisqualified { reason })) => {
            player_use = PlayerUse::Required;
            EventKind::PlayerDisqualified { reason }
        }
        Some(Kind::ClueAttempted(v1::ClueAttempted { clue, answer })) => {
            player_use = PlayerUse::Required;
            faults.id(&clue, format_args!("{path}.clue_attempted.clue"));
            EventKind::ClueAttempted { clue, answer }
        }
        Some(Kind::TreasureClaimed(v1::TreasureClaimed { treasure })) => {
            player_use = PlayerUse::Required;
            faults.id(&treasure, format_args!("{path}.treasure_claimed.treasure"));
            EventKind::TreasureClaimed { treasure }
        }
        Some(Kind::HintTaken(v1::HintTaken { clue, hint })) => {
            player_use = PlayerUse::Required;
            faults.id(&clue, format_args!("{path}.hint_taken.clue"));
            faults.id(&hint, format_args!("{path}.hint_taken.hint"));
            EventKind::HintTaken { clue, hint }
        }
        Some(Kind::Custom(v1::Custom { r#type, payload })) => {
            player_use = PlayerUse::Optional;
            faults.id(&r#type, format_args!("{path}.custom.type"));
            EventKind::Custom {
                type_name: r#type,
                payload,
            }
        }
        Some(Kind::Announced(v1::Announced { clue, text })) => {
            faults.optional_id(&clue, format_args!("{path}.announced.clue"));
            if text.is_empty() || text.len() > limits::ANNOUNCEMENT_BYTES_MAX {
                faults.add(
                    format_args!("{path}.announced.text"),
                    format!(
                        "it has {} bytes, 1 to {} are possible",
                        text.len(),
                        limits::ANNOUNCEMENT_BYTES_MAX
                    ),
                );
            }
            EventKind::Announced { clue, text }
        }
    };
    match player_use {
        PlayerUse::Required => faults.id(&event.player, format_args!("{path}.player")),
        PlayerUse::Optional => faults.optional_id(&event.player, format_args!("{path}.player")),
        PlayerUse::None if event.player.is_empty() => {}
        PlayerUse::None => faults.add(
            format_args!("{path}.player"),
            "this kind of event concerns no player, leave it empty",
        ),
    }
    Some(Event {
        hunt: event.hunt,
        player: event.player,
        occurred_at,
        kind,
    })
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
