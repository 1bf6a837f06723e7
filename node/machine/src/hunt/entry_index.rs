//! Which log entries concern a hunt.

use crate::codec::DecodeError;
use imbl::OrdMap;
use roaring::RoaringBitmap;
use std::sync::Arc;

/// The log indexes of the entries that added events to a hunt, ascending.
///
/// Roaring bitmaps of 65,536 indexes each, shared between clones: taking a view
/// of a hunt with millions of entries copies nothing, and adding to one copies
/// at most the last bitmap (8 KiB).
#[derive(Debug, Clone, Default)]
pub struct EntryIndex {
    sealed: OrdMap<u64, Arc<RoaringBitmap>>,
    /// The bitmap that grows, and the upper bits of its indexes.
    last_block: u64,
    last: Arc<RoaringBitmap>,
    len: u64,
}

const BLOCK_BITS: u32 = 16;

fn within_block(index: u64) -> u32 {
    u32::try_from(index & ((1 << BLOCK_BITS) - 1)).expect("16 bits fit")
}

impl EntryIndex {
    /// Adds an index above all others.
    pub(crate) fn push(&mut self, index: u64) {
        let block = index >> BLOCK_BITS;
        if block != self.last_block && !self.last.is_empty() {
            let mut full = std::mem::take(&mut self.last);
            Arc::make_mut(&mut full).optimize();
            self.sealed.insert(self.last_block, full);
        }
        self.last_block = block;
        if Arc::make_mut(&mut self.last).insert(within_block(index)) {
            self.len += 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The indexes from `first` on, ascending.
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = u64> + '_ {
        let first_block = first >> BLOCK_BITS;
        self.sealed
            .range(first_block..)
            .map(|(block, bitmap)| (*block, bitmap.as_ref()))
            .chain(
                (self.last_block >= first_block).then_some((self.last_block, self.last.as_ref())),
            )
            .flat_map(move |(block, bitmap)| {
                let from = if block == first_block {
                    within_block(first)
                } else {
                    0
                };
                bitmap
                    .range(from..)
                    .map(move |low| block << BLOCK_BITS | u64::from(low))
            })
    }

    fn blocks(&self) -> impl Iterator<Item = (u64, &RoaringBitmap)> {
        self.sealed
            .iter()
            .map(|(block, bitmap)| (*block, bitmap.as_ref()))
            .chain(std::iter::once((self.last_block, self.last.as_ref())))
    }

    pub(crate) fn block_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Block number and serialized bitmap of each block, for snapshots.
    pub(crate) fn encoded_blocks(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.blocks().map(|(block, bitmap)| {
            // Two replicas may hold the same set in different containers, when
            // one of them was restored; what a snapshot has is canonical.
            let mut bitmap = bitmap.clone();
            bitmap.remove_run_compression();
            bitmap.optimize();
            let mut bytes = Vec::with_capacity(bitmap.serialized_size());
            bitmap.serialize_into(&mut bytes).expect("a Vec takes all");
            (block, bytes)
        })
    }

    pub(crate) fn from_blocks(blocks: &[(u64, &[u8])]) -> Result<Self, DecodeError> {
        let damaged = DecodeError::Contradiction {
            what: "entry index",
        };
        let mut index = Self::default();
        for (position, &(block, bytes)) in blocks.iter().enumerate() {
            let mut rest = bytes;
            let bitmap = RoaringBitmap::deserialize_from(&mut rest).map_err(|_| damaged)?;
            let last = position + 1 == blocks.len();
            if !rest.is_empty()
                || bitmap.max().is_some_and(|max| max >> BLOCK_BITS != 0)
                || block > u64::MAX >> BLOCK_BITS
                || bitmap.is_empty() && !(last && position == 0)
                || position > 0 && block <= blocks[position - 1].0
            {
                return Err(damaged);
            }
            index.len += bitmap.len();
            if last {
                index.last_block = block;
                index.last = Arc::new(bitmap);
            } else {
                index.sealed.insert(block, Arc::new(bitmap));
            }
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_an_ascending_list(
            gaps in proptest::collection::vec(prop_oneof![Just(1), 1_u64..100_000], 0..300),
            more in 1_u64..5_000,
        ) {
            let mut index = EntryIndex::default();
            let mut model = Vec::new();
            let mut next = 0;
            for gap in gaps {
                next += gap;
                index.push(next);
                model.push(next);
            }
            prop_assert_eq!(index.len(), model.len() as u64);
            for first in [0, next / 3, next, next + 1] {
                let expected: Vec<_> = model.iter().copied().filter(|&i| i >= first).collect();
                prop_assert_eq!(index.iter_from(first).collect::<Vec<_>>(), expected);
            }
            let encoded: Vec<_> = index.encoded_blocks().collect();
            let blocks: Vec<_> = encoded.iter().map(|(block, bytes)| (*block, bytes.as_slice())).collect();
            let mut restored = EntryIndex::from_blocks(&blocks).unwrap();
            prop_assert!(restored.iter_from(0).eq(model));
            prop_assert!(restored.encoded_blocks().eq(encoded));
            // Whatever containers each has by now, the snapshots are the same.
            for step in 1..=more {
                index.push(next + step);
                restored.push(next + step);
            }
            prop_assert!(restored.encoded_blocks().eq(index.encoded_blocks()));
        }
    }

    #[test]
    fn consecutive_entries_take_next_to_nothing() {
        let mut index = EntryIndex::default();
        (0..1_000_000).for_each(|entry| index.push(entry));
        let bytes: usize = index.encoded_blocks().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 1_000, "{bytes}");
    }
}
