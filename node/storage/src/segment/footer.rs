//! The footer of a sealed segment: what it holds, by partition.

use super::{u32_at, u64_at};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Entries of one partition in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub entries: u64,
    /// Lowest and highest index among them.
    pub first: u64,
    pub last: u64,
}

/// Entries of one segment, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Footer(pub BTreeMap<u32, Counts>);

const ROW_BYTES: usize = 28;

impl Footer {
    pub(crate) fn count(&mut self, partition: u32, index: u64) {
        self.0
            .entry(partition)
            .and_modify(|counts| {
                counts.entries += 1;
                counts.first = counts.first.min(index);
                counts.last = counts.last.max(index);
            })
            .or_insert(Counts {
                entries: 1,
                first: index,
                last: index,
            });
    }

    pub(crate) fn entries(&self) -> u64 {
        self.0.values().map(|counts| counts.entries).sum()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.0.len() * ROW_BYTES);
        for (partition, counts) in &self.0 {
            out.put_u32_le(*partition);
            out.put_u64_le(counts.entries);
            out.put_u64_le(counts.first);
            out.put_u64_le(counts.last);
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(ROW_BYTES) {
            return None;
        }
        let rows = bytes.chunks_exact(ROW_BYTES).map(|row| {
            let counts = Counts {
                entries: u64_at(row, 4),
                first: u64_at(row, 12),
                last: u64_at(row, 20),
            };
            (u32_at(row, 0), counts)
        });
        Some(Self(rows.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_the_round_trip() {
        let mut footer = Footer::default();
        for (partition, index) in [(0, 5), (0, 6), (3, 1), (0, 4)] {
            footer.count(partition, index);
        }
        assert_eq!(
            footer.0[&0],
            Counts {
                entries: 3,
                first: 4,
                last: 6
            }
        );
        assert_eq!(Footer::decode(&footer.encode()), Some(footer));
        assert_eq!(Footer::decode(&[0; 27]), None);
    }
}
