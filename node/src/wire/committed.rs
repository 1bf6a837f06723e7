//! Events as readers and subscribers see them.

use bytes::Bytes;
use huntlog_machine::history::{CommittedEvent, Origin};
use huntlog_machine::{DecodeError, KindRef};
use huntlog_proto::v1;

use super::definition::definition_to_proto;
use super::outcome::effect_to_proto;
use super::time::{timestamp_of_ms, timestamp_to_proto};

/// An accepted event, carried by the entry `log_index`.
///
/// # Errors
/// When the definition of a created hunt does not decode: the log is damaged.
pub fn committed_to_proto(
    partition: u32,
    log_index: u64,
    committed: &CommittedEvent<'_>,
) -> Result<v1::CommittedEvent, DecodeError> {
    let (origin, session, sequence) = match committed.origin {
        Origin::Client { session, sequence } => (v1::Origin::Client, session.to_owned(), sequence),
        Origin::Clock => (v1::Origin::Clock, String::new(), 0),
    };
    let event = &committed.event;
    Ok(v1::CommittedEvent {
        partition,
        offset: committed.offset,
        revision: committed.revision,
        log_index,
        committed_at: Some(timestamp_of_ms(committed.time_ms)),
        origin: origin.into(),
        session,
        sequence,
        event: Some(v1::Event {
            hunt: event.hunt.to_owned(),
            player: event.player.to_owned(),
            occurred_at: event.occurred_at.map(timestamp_to_proto),
            kind: Some(kind_to_proto(&event.kind)?),
        }),
        effects: committed.effects.map(effect_to_proto).collect(),
    })
}

fn kind_to_proto(kind: &KindRef<'_>) -> Result<v1::event::Kind, DecodeError> {
    use v1::event::Kind;
    Ok(match *kind {
        KindRef::HuntCreated(definition) => Kind::HuntCreated(v1::HuntCreated {
            definition: Some(definition_to_proto(&definition.decode()?)),
        }),
        KindRef::HuntOpened => Kind::HuntOpened(v1::HuntOpened {}),
        KindRef::HuntStarted => Kind::HuntStarted(v1::HuntStarted {}),
        KindRef::HuntPaused => Kind::HuntPaused(v1::HuntPaused {}),
        KindRef::HuntResumed => Kind::HuntResumed(v1::HuntResumed {}),
        KindRef::HuntFinished => Kind::HuntFinished(v1::HuntFinished {}),
        KindRef::HuntCancelled { reason } => Kind::HuntCancelled(v1::HuntCancelled {
            reason: reason.to_owned(),
        }),
        KindRef::PlayerRegistered { display_name } => {
            Kind::PlayerRegistered(v1::PlayerRegistered {
                display_name: display_name.to_owned(),
            })
        }
        KindRef::PlayerWithdrawn => Kind::PlayerWithdrawn(v1::PlayerWithdrawn {}),
        KindRef::PlayerDisqualified { reason } => {
            Kind::PlayerDisqualified(v1::PlayerDisqualified {
                reason: reason.to_owned(),
            })
        }
        KindRef::ClueAttempted { clue, answer, .. } => Kind::ClueAttempted(v1::ClueAttempted {
            clue: clue.to_owned(),
            answer: answer.to_owned(),
        }),
        KindRef::TreasureClaimed { treasure } => Kind::TreasureClaimed(v1::TreasureClaimed {
            treasure: treasure.to_owned(),
        }),
        KindRef::HintTaken { clue, hint } => Kind::HintTaken(v1::HintTaken {
            clue: clue.to_owned(),
            hint: hint.to_owned(),
        }),
        KindRef::Custom { type_name, payload } => Kind::Custom(v1::Custom {
            r#type: type_name.to_owned(),
            payload: Bytes::copy_from_slice(payload),
        }),
    })
}

#[cfg(test)]
#[path = "committed_tests.rs"]
mod tests;
