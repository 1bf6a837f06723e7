//! Events as readers and subscribers see them.
//!
//! They are encoded out of the log without becoming messages before, which would make
//! and drop several strings for each event. Field numbers are those of
//! `huntlog/v1/event.proto`; the tests read with the generated messages what is
//! written here.

use huntlog_machine::history::{CommittedEvent, Origin};
use huntlog_machine::{DecodeError, EventRef, KindRef};
use huntlog_proto::encoded::{Events, put_message};
use huntlog_proto::v1;
use prost::encoding::{WireType, encode_key, encode_varint, message, uint64};

use super::definition::definition_to_proto;
use super::outcome::effect_to_proto;
use super::time::{timestamp_of_ms, timestamp_to_proto};

/// Adds to `events` what a [`v1::CommittedEvent`] is on the wire, for an accepted
/// event that the entry `log_index` carries.
///
/// # Errors
/// When the definition of a created hunt does not decode: the log is damaged. Then
/// nothing is added.
pub fn encode_committed(
    partition: u32,
    log_index: u64,
    committed: &CommittedEvent<'_>,
    events: &mut Events,
) -> Result<(), DecodeError> {
    let created = match committed.event.kind {
        KindRef::HuntCreated(definition) => Some(v1::HuntCreated {
            definition: Some(definition_to_proto(&definition.decode()?)),
        }),
        _ => None,
    };
    let (origin, session, sequence) = match committed.origin {
        Origin::Client { session, sequence } => (v1::Origin::Client, session, sequence),
        Origin::Clock => (v1::Origin::Clock, "", 0),
    };
    events.add(|out| {
        put_number(1, partition.into(), out);
        put_number(2, committed.offset, out);
        put_number(3, committed.revision, out);
        put_number(4, log_index, out);
        message::encode(5, &timestamp_of_ms(committed.time_ms), out);
        put_number(6, origin as u64, out);
        put_bytes(7, session.as_bytes(), out);
        put_number(8, sequence, out);
        put_message(9, out, |out| put_event(&committed.event, created, out));
        for effect in committed.effects {
            message::encode(10, &effect_to_proto(effect), out);
        }
    });
    Ok(())
}

/// The fields of a [`v1::Event`]; `created` is the kind of one that creates a hunt.
fn put_event(event: &EventRef<'_>, created: Option<v1::HuntCreated>, out: &mut Vec<u8>) {
    put_bytes(1, event.hunt.as_bytes(), out);
    put_bytes(2, event.player.as_bytes(), out);
    if let Some(occurred_at) = event.occurred_at {
        message::encode(3, &timestamp_to_proto(occurred_at), out);
    }
    // No kind has fields beyond these two.
    let (tag, first, second): (u32, &str, &[u8]) = match event.kind {
        KindRef::HuntCreated(_) => return message::encode(10, &created.unwrap_or_default(), out),
        KindRef::HuntOpened => (11, "", b""),
        KindRef::HuntStarted => (12, "", b""),
        KindRef::HuntPaused => (13, "", b""),
        KindRef::HuntResumed => (14, "", b""),
        KindRef::HuntFinished => (15, "", b""),
        KindRef::HuntCancelled { reason } => (16, reason, b""),
        KindRef::PlayerRegistered { display_name } => (20, display_name, b""),
        KindRef::PlayerWithdrawn => (21, "", b""),
        KindRef::PlayerDisqualified { reason } => (22, reason, b""),
        KindRef::ClueAttempted { clue, answer, .. } => (23, clue, answer.as_bytes()),
        KindRef::TreasureClaimed { treasure } => (24, treasure, b""),
        KindRef::HintTaken { clue, hint } => (25, clue, hint.as_bytes()),
        KindRef::Custom { type_name, payload } => (30, type_name, payload),
        KindRef::Announced { clue, text } => (31, clue, text.as_bytes()),
    };
    put_message(tag, out, |out| {
        put_bytes(1, first.as_bytes(), out);
        put_bytes(2, second, out);
    });
}

/// A number, unless it is 0, as proto3 has it.
fn put_number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        uint64::encode(tag, &value, out);
    }
}

/// A string or bytes, unless they are empty.
fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
#[path = "committed_tests.rs"]
mod tests;
