//! (partition, index) -> where the entry's frame stands.

use super::{TAG_ENTRY, be_u32, be_u64};
use crate::segment::Position;

/// Where an entry's frame stands, and what it must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub position: Position,
    /// Length of the payload.
    pub length: u32,
    pub term: u64,
    pub node_id: u64,
}

pub(crate) fn key(partition: u32, index: u64) -> [u8; 13] {
    let mut key = [TAG_ENTRY; 13];
    key[1..5].copy_from_slice(&partition.to_be_bytes());
    key[5..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    (key.len() == 13).then(|| be_u64(key, 5)).flatten()
}

pub(crate) fn value(location: &Location) -> [u8; 36] {
    let mut value = [0; 36];
    value[..8].copy_from_slice(&location.position.segment.to_be_bytes());
    value[8..16].copy_from_slice(&location.position.offset.to_be_bytes());
    value[16..20].copy_from_slice(&location.length.to_be_bytes());
    value[20..28].copy_from_slice(&location.term.to_be_bytes());
    value[28..].copy_from_slice(&location.node_id.to_be_bytes());
    value
}

pub(crate) fn decode(value: &[u8]) -> Option<Location> {
    if value.len() != 36 {
        return None;
    }
    Some(Location {
        position: Position {
            segment: be_u64(value, 0)?,
            offset: be_u64(value, 8)?,
        },
        length: be_u32(value, 16)?,
        term: be_u64(value, 20)?,
        node_id: be_u64(value, 28)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip_and_sorts_by_index() {
        let position = Position {
            segment: 3,
            offset: 65_536,
        };
        let location = Location {
            position,
            length: 9,
            term: 2,
            node_id: 1,
        };
        assert_eq!(decode(&value(&location)), Some(location));
        assert_eq!(index_of(&key(7, 300)), Some(300));
        assert!(key(7, 255) < key(7, 256) && key(7, u64::MAX) < key(8, 0));
        assert_eq!(key(1, 2)[..6], [1, 0, 0, 0, 1, 0]);
    }
}
