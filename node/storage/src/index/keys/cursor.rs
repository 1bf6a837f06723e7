//! How far the index has followed the segments.

use super::{TAG_CURSOR, be_u64};
use crate::segment::Position;

pub(crate) const KEY: [u8; 1] = [TAG_CURSOR];

pub(crate) fn value(cursor: Position) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&cursor.segment.to_be_bytes());
    value[8..].copy_from_slice(&cursor.offset.to_be_bytes());
    value
}

pub(crate) fn decode(value: &[u8]) -> Option<Position> {
    if value.len() != 16 {
        return None;
    }
    Some(Position {
        segment: be_u64(value, 0)?,
        offset: be_u64(value, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip() {
        let cursor = Position {
            segment: 4,
            offset: 123_456,
        };
        assert_eq!(decode(&value(cursor)), Some(cursor));
        assert_eq!(decode(&[0; 15]), None);
    }
}
