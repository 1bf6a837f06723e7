//! partition -> the last entry known to be committed, and durable here.

use super::{TAG_COMMITTED, be_u64};
use crate::entry::LogId;

pub(crate) fn key(partition: u32) -> [u8; 5] {
    let mut key = [TAG_COMMITTED; 5];
    key[1..].copy_from_slice(&partition.to_be_bytes());
    key
}

pub(crate) fn value(id: LogId) -> [u8; 24] {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&id.term.to_be_bytes());
    value[8..16].copy_from_slice(&id.node_id.to_be_bytes());
    value[16..].copy_from_slice(&id.index.to_be_bytes());
    value
}

pub(crate) fn decode(value: &[u8]) -> Option<LogId> {
    if value.len() != 24 {
        return None;
    }
    Some(LogId {
        term: be_u64(value, 0)?,
        node_id: be_u64(value, 8)?,
        index: be_u64(value, 16)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip() {
        let id = LogId {
            term: 1,
            node_id: 2,
            index: 3,
        };
        assert_eq!(decode(&value(id)), Some(id));
        assert_ne!(key(1), key(2));
    }
}
