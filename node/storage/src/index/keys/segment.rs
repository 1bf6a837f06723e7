//! segment -> how many of its entries the index has taken in; compared with the segment's footer when opening.

use super::{TAG_SEGMENT, be_u64};

pub(crate) fn key(segment: u64) -> [u8; 9] {
    let mut key = [TAG_SEGMENT; 9];
    key[1..].copy_from_slice(&segment.to_be_bytes());
    key
}

pub(crate) fn value(entries: u64) -> [u8; 8] {
    entries.to_be_bytes()
}

pub(crate) fn decode(value: &[u8]) -> Option<u64> {
    (value.len() == 8).then(|| be_u64(value, 0)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip() {
        assert_eq!(decode(&value(812)), Some(812));
        assert_ne!(key(1), key(256));
    }
}
