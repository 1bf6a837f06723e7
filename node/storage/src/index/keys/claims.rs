//! partition -> the ranges of log indexes for which records are kept. What it claims and a lookup does not find is lost.

use super::{TAG_CLAIMS, be_u64};
use crate::ranges::RangeSet;

pub(crate) fn key(partition: u32) -> [u8; 5] {
    let mut key = [TAG_CLAIMS; 5];
    key[1..].copy_from_slice(&partition.to_be_bytes());
    key
}

pub(crate) fn value(claims: &RangeSet) -> Vec<u8> {
    let numbers = claims.iter().flat_map(|range| [range.start, range.end]);
    numbers.flat_map(u64::to_be_bytes).collect()
}

pub(crate) fn decode(value: &[u8]) -> Option<RangeSet> {
    let mut claims = RangeSet::default();
    for pair in value.chunks(16) {
        claims.insert(be_u64(pair, 0)?..be_u64(pair, 8)?);
    }
    Some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip() {
        let mut claims = RangeSet::default();
        claims.insert(3..9);
        claims.insert(20..21);
        assert_eq!(decode(&value(&claims)), Some(claims));
        assert_eq!(decode(&[1; 17]), None);
    }
}
