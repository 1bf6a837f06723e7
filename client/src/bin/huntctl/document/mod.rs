//! Events and definitions as documents: the JSON that is read and printed, and
//! the TOML or JSON of a hunt's definition. Field names are the wire's.

mod definition;
mod event;

use huntlog_client::proto;
use huntlog_client::proto::event::Kind;
use serde_json::{Value, json};

use crate::time::{format_time, parse_time};
pub use definition::Definition;
pub use event::Event;

/// A part of a document that means nothing the wire can carry.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A time that is not one.
    #[error("{field}: {text:?} is not an RFC 3339 time: {source}")]
    Time {
        /// Where it stands.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: jiff::Error,
    },
    /// Bytes that are not hexadecimal.
    #[error("{field}: {source}")]
    Hex {
        /// Where they stand.
        field: &'static str,
        /// What is wrong with them.
        source: hex::FromHexError,
    },
    /// An event of no kind, or of several.
    #[error("an event needs exactly one kind, such as \"clue_attempted\"; this one has {0}")]
    Kinds(usize),
    /// A payload given twice.
    #[error("custom: give the payload as \"text\" or as \"hex\", not both")]
    Payload,
}

fn time(
    field: &'static str,
    text: Option<String>,
) -> Result<Option<prost_types::Timestamp>, DocumentError> {
    text.map(|text| {
        parse_time(&text).map_err(|source| DocumentError::Time {
            field,
            text,
            source,
        })
    })
    .transpose()
}

fn bytes(field: &'static str, text: &str) -> Result<Vec<u8>, DocumentError> {
    hex::decode(text).map_err(|source| DocumentError::Hex { field, source })
}

/// The kind's name on the wire.
pub fn kind_name(event: &proto::Event) -> &'static str {
    match &event.kind {
        Some(Kind::HuntCreated(_)) => "hunt_created",
        Some(Kind::HuntOpened(_)) => "hunt_opened",
        Some(Kind::HuntStarted(_)) => "hunt_started",
        Some(Kind::HuntPaused(_)) => "hunt_paused",
        Some(Kind::HuntResumed(_)) => "hunt_resumed",
        Some(Kind::HuntFinished(_)) => "hunt_finished",
        Some(Kind::HuntCancelled(_)) => "hunt_cancelled",
        Some(Kind::PlayerRegistered(_)) => "player_registered",
        Some(Kind::PlayerWithdrawn(_)) => "player_withdrawn",
        Some(Kind::PlayerDisqualified(_)) => "player_disqualified",
        Some(Kind::ClueAttempted(_)) => "clue_attempted",
        Some(Kind::TreasureClaimed(_)) => "treasure_claimed",
        Some(Kind::HintTaken(_)) => "hint_taken",
        Some(Kind::Custom(_)) => "custom",
        Some(Kind::Announced(_)) => "announced",
        None => "unknown",
    }
}

/// What followed from an event.
pub fn effect(effect: &proto::Effect) -> Value {
    use proto::effect::Effect;
    match &effect.effect {
        Some(Effect::AnswerWrong(e)) => json!({"answer_wrong": {"clue": e.clue}}),
        Some(Effect::ClueSolved(e)) => {
            json!({"clue_solved": {"clue": e.clue, "rank": e.rank, "points": e.points}})
        }
        Some(Effect::ClueUnlocked(e)) => json!({"clue_unlocked": {"clue": e.clue}}),
        Some(Effect::TreasureWon(e)) => {
            json!({"treasure_won": {"treasure": e.treasure, "rank": e.rank, "points": e.points}})
        }
        Some(Effect::HuntWon(e)) => json!({"hunt_won": {"rank": e.rank}}),
        Some(Effect::HuntStateChanged(e)) => json!({"hunt_state_changed": {
            "from_state": hunt_state(e.from_state), "to_state": hunt_state(e.to_state)}}),
        Some(Effect::HintRevealed(e)) => {
            json!({"hint_revealed": {"clue": e.clue, "hint": e.hint, "cost": e.cost}})
        }
        None => json!({"unknown": {}}),
    }
}

/// An event as readers see it.
pub fn committed(event: &proto::CommittedEvent) -> Value {
    let origin = match event.origin() {
        proto::Origin::Client => "client",
        proto::Origin::Clock => "clock",
        proto::Origin::Unspecified => "unknown",
    };
    json!({
        "offset": event.offset,
        "revision": event.revision,
        "log_index": event.log_index,
        "committed_at": event.committed_at.as_ref().map(format_time),
        "origin": origin,
        "session": event.session,
        "sequence": event.sequence,
        "event": event.event.as_ref().map(Event::from),
        "effects": event.effects.iter().map(effect).collect::<Vec<_>>(),
    })
}

/// What was decided about an event.
pub fn outcome(outcome: Option<&proto::EventOutcome>) -> Value {
    use proto::event_outcome::Outcome;
    match outcome.and_then(|outcome| outcome.outcome.as_ref()) {
        Some(Outcome::Accepted(accepted)) => json!({"accepted": {
            "offset": accepted.offset,
            "revision": accepted.revision,
            "effects": accepted.effects.iter().map(effect).collect::<Vec<_>>(),
        }}),
        Some(Outcome::Rejected(rejected)) => json!({"rejected": {
            "reason": reject_reason(rejected.reason()),
        }}),
        None => Value::Null,
    }
}

/// A reason without its prefix, in lower case.
pub fn reject_reason(reason: proto::RejectReason) -> String {
    short_name(reason.as_str_name(), "REJECT_REASON_")
}

/// A state without its prefix, in lower case.
pub fn hunt_state(state: i32) -> String {
    let state = proto::HuntState::try_from(state).unwrap_or_default();
    short_name(state.as_str_name(), "HUNT_STATE_")
}

/// An enum's name on the wire without its prefix, in lower case.
pub fn short_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}
