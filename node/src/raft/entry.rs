//! How an entry's payload is laid out in the log.
//!
//! | payload | bytes |
//! |---|---|
//! | blank | none |
//! | normal | the machine's entry encoding, whose first byte is its version (1 to 127) |
//! | membership | 0xF1, then a `huntlog.peer.v1.Membership` |
//!
//! A normal payload is stored and replicated as it is: no byte is copied to tag
//! it.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use huntlog_proto::peer;
use prost::Message as _;

use super::peer_wire::{PeerWireError, membership_from_proto, membership_to_proto};
use super::{Membership, Payload};

const MEMBERSHIP_TAG: u8 = 0xF1;
const HIGHEST_ENTRY_VERSION: u8 = 0x7F;

/// A normal entry's payload, in the machine's encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryData(pub Bytes);

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answered; `None` for Raft's own entries.
#[derive(Debug, Clone)]
pub struct Response(pub Option<huntlog_machine::Applied>);

/// Bytes in the log that are no payload this release knows.
#[derive(Debug, thiserror::Error)]
pub enum EntryFormatError {
    /// The first byte names no known payload.
    #[error(
        "a log entry has the unknown payload tag {0:#04x}; it was written by a newer release: run that release, or one that reads its data version"
    )]
    UnknownTag(u8),
    /// A membership does not decode.
    #[error(
        "a membership entry does not decode: {0}; the log is damaged although its checksum holds"
    )]
    Membership(#[from] prost::DecodeError),
    /// A membership decodes to something impossible.
    #[error("a membership entry is not valid: {0}")]
    Wire(#[from] PeerWireError),
}

/// The stored bytes of `payload`.
pub(super) fn encode_payload(payload: &Payload) -> Bytes {
    match payload {
        Payload::Blank => Bytes::new(),
        Payload::Normal(EntryData(bytes)) => bytes.clone(),
        Payload::Membership(membership) => encode_membership(membership),
    }
}

fn encode_membership(membership: &Membership) -> Bytes {
    let message = membership_to_proto(membership);
    let mut bytes = BytesMut::with_capacity(1 + message.encoded_len());
    bytes.put_u8(MEMBERSHIP_TAG);
    message
        .encode(&mut bytes)
        .expect("BytesMut grows as needed");
    bytes.freeze()
}

/// The payload stored as `bytes`.
pub(super) fn decode_payload(bytes: Bytes) -> Result<Payload, EntryFormatError> {
    match bytes.first() {
        None => Ok(Payload::Blank),
        Some(&MEMBERSHIP_TAG) => {
            let message = peer::Membership::decode(bytes.slice(1..))?;
            Ok(Payload::Membership(membership_from_proto(message)?))
        }
        Some(&version) if (1..=HIGHEST_ENTRY_VERSION).contains(&version) => {
            Ok(Payload::Normal(EntryData(bytes)))
        }
        Some(&tag) => Err(EntryFormatError::UnknownTag(tag)),
    }
}

/// The machine's encoding in a stored payload; `None` for Raft's own entries.
///
/// # Errors
/// When the payload is of a kind this release does not know.
pub fn entry_data(payload: &Bytes) -> Result<Option<&Bytes>, EntryFormatError> {
    match payload.first() {
        None | Some(&MEMBERSHIP_TAG) => Ok(None),
        Some(&version) if (1..=HIGHEST_ENTRY_VERSION).contains(&version) => Ok(Some(payload)),
        Some(&tag) => Err(EntryFormatError::UnknownTag(tag)),
    }
}

/// The membership in a stored payload; `None` if it holds something else.
///
/// # Errors
/// When it does not decode.
pub fn membership_in(payload: &Bytes) -> Result<Option<Membership>, EntryFormatError> {
    match payload.first() {
        Some(&MEMBERSHIP_TAG) => match decode_payload(payload.clone())? {
            Payload::Membership(membership) => Ok(Some(membership)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::MemberNode;
    use super::*;

    #[test]
    fn payloads_survive_the_round_trip() {
        let node = |n: u64| MemberNode {
            uuid: format!("{n:032x}"),
            peer_address: format!("127.0.0.1:{}", 7651 + n),
            client_address: format!("127.0.0.1:{}", 7650 + n),
            retired_ids: (100..100 + n).collect(),
        };
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])],
            (1..=5).map(|n| (n, node(n))).collect::<BTreeMap<_, _>>(),
        )
        .expect("every voter is a node");
        for payload in [
            Payload::Blank,
            Payload::Normal(EntryData(Bytes::from_static(&[1, 2, 3]))),
            Payload::Membership(membership),
        ] {
            let bytes = encode_payload(&payload);
            let back = decode_payload(bytes).expect("what was encoded decodes");
            assert!(back == payload, "{back:?} is not {payload:?}");
        }
    }

    #[test]
    fn unknown_tags_and_damaged_memberships_are_named() {
        let unknown = decode_payload(Bytes::from_static(&[0x80, 1]));
        assert!(matches!(unknown, Err(EntryFormatError::UnknownTag(0x80))));
        let damaged = decode_payload(Bytes::from_static(&[MEMBERSHIP_TAG, 0xFF, 0xFF]));
        assert!(matches!(damaged, Err(EntryFormatError::Membership(_))));
    }
}
