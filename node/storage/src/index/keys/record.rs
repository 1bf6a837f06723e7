//! (partition, index, chunk) -> part of a derived record; the first chunk starts with the record's whole length.

use super::{TAG_RECORD, be_u32, be_u64};
use crate::limits::RECORD_CHUNK_BYTES;
use bytes::{Bytes, BytesMut};

pub(crate) fn key(partition: u32, index: u64, chunk: u16) -> [u8; 15] {
    let mut key = [TAG_RECORD; 15];
    key[1..5].copy_from_slice(&partition.to_be_bytes());
    key[5..13].copy_from_slice(&index.to_be_bytes());
    key[13..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The index and the chunk's number.
pub(crate) fn place_of(key: &[u8]) -> Option<(u64, u16)> {
    if key.len() != 15 {
        return None;
    }
    Some((be_u64(key, 5)?, u16::from_be_bytes([key[13], key[14]])))
}

/// The values of a record's chunks, in order; never none.
pub(crate) fn values(record: &[u8]) -> Vec<Vec<u8>> {
    let length = u32::try_from(record.len()).expect("records are limited to RECORD_BYTES_MAX");
    let (first, rest) = record.split_at(record.len().min(RECORD_CHUNK_BYTES));
    let mut head = Vec::with_capacity(4 + first.len());
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(first);
    let mut values = vec![head];
    values.extend(rest.chunks(RECORD_CHUNK_BYTES).map(<[u8]>::to_vec));
    values
}

/// Puts a record together from its chunks as they come.
#[derive(Debug)]
pub(crate) struct Assembly {
    length: usize,
    bytes: BytesMut,
}

impl Assembly {
    pub(crate) fn begin(first: &[u8]) -> Option<Self> {
        let length = usize::try_from(be_u32(first, 0)?).ok()?;
        Some(Self {
            length,
            bytes: BytesMut::from(&first[4..]),
        })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() >= self.length
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    pub(crate) fn finish(self) -> Option<Bytes> {
        (self.bytes.len() == self.length).then(|| self.bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_length_survive_the_round_trip() {
        for length in [
            0,
            1,
            RECORD_CHUNK_BYTES - 1,
            RECORD_CHUNK_BYTES,
            RECORD_CHUNK_BYTES + 1,
            100_000,
        ] {
            let record: Vec<u8> = (0..=250).cycle().take(length).collect();
            let values = values(&record);
            assert!(
                values
                    .iter()
                    .all(|value| value.len() <= RECORD_CHUNK_BYTES + 4)
            );
            let mut assembly = Assembly::begin(&values[0]).unwrap();
            for value in &values[1..] {
                assert!(!assembly.is_whole());
                assembly.push(value);
            }
            assert!(assembly.is_whole());
            assert_eq!(assembly.finish().unwrap(), record);
        }
        assert_eq!(place_of(&key(1, 77, 5)), Some((77, 5)));
        assert!(key(1, 77, 9) < key(1, 78, 0));
    }

    #[test]
    fn a_lost_chunk_is_noticed() {
        let values = values(&[7; 40_000]);
        let mut assembly = Assembly::begin(&values[0]).unwrap();
        assembly.push(&values[1]);
        assert!(!assembly.is_whole());
        assert_eq!(assembly.finish(), None);
    }
}
