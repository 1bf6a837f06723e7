//! Events and expectations, made without spelling out the wire's messages.

use bytes::Bytes;
use huntlog_proto::v1;
use huntlog_proto::v1::event::Kind;

fn event(hunt: &str, player: &str, kind: Kind) -> v1::Event {
    v1::Event {
        hunt: hunt.to_owned(),
        player: player.to_owned(),
        occurred_at: None,
        kind: Some(kind),
    }
}

/// Creates the hunt, in state draft.
#[must_use]
pub fn hunt_created(hunt: &str, definition: v1::HuntDefinition) -> v1::Event {
    let definition = Some(definition);
    event(hunt, "", Kind::HuntCreated(v1::HuntCreated { definition }))
}

/// Opens registration.
#[must_use]
pub fn hunt_opened(hunt: &str) -> v1::Event {
    event(hunt, "", Kind::HuntOpened(v1::HuntOpened {}))
}

/// Starts the hunt.
#[must_use]
pub fn hunt_started(hunt: &str) -> v1::Event {
    event(hunt, "", Kind::HuntStarted(v1::HuntStarted {}))
}

/// Pauses the hunt.
#[must_use]
pub fn hunt_paused(hunt: &str) -> v1::Event {
    event(hunt, "", Kind::HuntPaused(v1::HuntPaused {}))
}

/// Resumes the hunt.
#[must_use]
pub fn hunt_resumed(hunt: &str) -> v1::Event {
    event(hunt, "", Kind::HuntResumed(v1::HuntResumed {}))
}

/// Finishes the hunt.
#[must_use]
pub fn hunt_finished(hunt: &str) -> v1::Event {
    event(hunt, "", Kind::HuntFinished(v1::HuntFinished {}))
}

/// Cancels the hunt.
#[must_use]
pub fn hunt_cancelled(hunt: &str, reason: &str) -> v1::Event {
    let reason = reason.to_owned();
    event(hunt, "", Kind::HuntCancelled(v1::HuntCancelled { reason }))
}

/// Registers a player.
#[must_use]
pub fn player_registered(hunt: &str, player: &str, display_name: &str) -> v1::Event {
    let display_name = display_name.to_owned();
    let kind = Kind::PlayerRegistered(v1::PlayerRegistered { display_name });
    event(hunt, player, kind)
}

/// Withdraws a player.
#[must_use]
pub fn player_withdrawn(hunt: &str, player: &str) -> v1::Event {
    event(hunt, player, Kind::PlayerWithdrawn(v1::PlayerWithdrawn {}))
}

/// Disqualifies a player.
#[must_use]
pub fn player_disqualified(hunt: &str, player: &str, reason: &str) -> v1::Event {
    let reason = reason.to_owned();
    let kind = Kind::PlayerDisqualified(v1::PlayerDisqualified { reason });
    event(hunt, player, kind)
}

/// A player answers a clue.
#[must_use]
pub fn clue_attempted(hunt: &str, player: &str, clue: &str, answer: &str) -> v1::Event {
    let kind = Kind::ClueAttempted(v1::ClueAttempted {
        clue: clue.to_owned(),
        answer: answer.to_owned(),
    });
    event(hunt, player, kind)
}

/// A player claims a treasure.
#[must_use]
pub fn treasure_claimed(hunt: &str, player: &str, treasure: &str) -> v1::Event {
    let treasure = treasure.to_owned();
    let kind = Kind::TreasureClaimed(v1::TreasureClaimed { treasure });
    event(hunt, player, kind)
}

/// A player takes a hint.
#[must_use]
pub fn hint_taken(hunt: &str, player: &str, clue: &str, hint: &str) -> v1::Event {
    let kind = Kind::HintTaken(v1::HintTaken {
        clue: clue.to_owned(),
        hint: hint.to_owned(),
    });
    event(hunt, player, kind)
}

/// An opaque event. `player` may be empty.
#[must_use]
pub fn custom(hunt: &str, player: &str, r#type: &str, payload: impl Into<Bytes>) -> v1::Event {
    let kind = Kind::Custom(v1::Custom {
        r#type: r#type.to_owned(),
        payload: payload.into(),
    });
    event(hunt, player, kind)
}

/// The organisers tell all players something about a clue, or with an empty
/// `clue` about the hunt.
#[must_use]
pub fn announced(hunt: &str, clue: &str, text: &str) -> v1::Event {
    let kind = Kind::Announced(v1::Announced {
        clue: clue.to_owned(),
        text: text.to_owned(),
    });
    event(hunt, "", kind)
}

/// Expects that the hunt has no event yet.
#[must_use]
pub fn expect_no_event(hunt: &str) -> v1::ExpectedRevision {
    v1::ExpectedRevision {
        hunt: hunt.to_owned(),
        expected: Some(v1::expected_revision::Expected::None(())),
    }
}

/// Expects that the hunt's latest event has this revision.
#[must_use]
pub fn expect_revision(hunt: &str, revision: u64) -> v1::ExpectedRevision {
    v1::ExpectedRevision {
        hunt: hunt.to_owned(),
        expected: Some(v1::expected_revision::Expected::Exactly(revision)),
    }
}
