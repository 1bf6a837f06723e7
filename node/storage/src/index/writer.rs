//! Writing to the index in atomic steps.

use super::{Changes, Index, IndexFault, IndexOperation, IndexUpdates, keys};
use crate::limits::INDEX_BATCH_KEYS_MAX;
use crate::segment::Position;
use std::collections::BTreeMap;
use std::ops::Range;

/// Gathers changes into atomic steps of limited size.
pub(crate) struct IndexWriter<'a> {
    index: &'a Index,
    pub(crate) changes: Changes,
    /// The cursor and counts that hold once `changes` are written.
    reached: Option<(Position, BTreeMap<u64, u64>)>,
    claims: BTreeMap<u32, Vec<u8>>,
    pub(crate) written: usize,
}

impl<'a> IndexWriter<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        Self {
            index,
            changes: Changes::default(),
            reached: None,
            claims: BTreeMap::new(),
            written: 0,
        }
    }

    pub(crate) fn updates(&mut self, updates: &IndexUpdates) -> Result<(), IndexFault> {
        for operation in &updates.operations {
            match operation {
                IndexOperation::Put {
                    partition,
                    index,
                    location,
                } => {
                    self.changes.put(
                        &keys::entry::key(*partition, *index),
                        &keys::entry::value(location),
                    );
                }
                IndexOperation::Remove { partition, range } => {
                    self.remove(*partition, range.clone())?
                }
                IndexOperation::Release { partition, before } => {
                    self.remove(*partition, 0..*before)?
                }
            }
            self.flush_if_full()?;
        }
        let counts = self
            .reached
            .take()
            .map(|(_, counts)| counts)
            .unwrap_or_default();
        let counts = counts
            .into_iter()
            .chain(updates.segment_entries.clone())
            .collect();
        self.reached = Some((updates.cursor, counts));
        Ok(())
    }

    /// Not in one step with the cursor, which therefore stays behind: what is interrupted is done again.
    fn remove(&mut self, partition: u32, range: Range<u64>) -> Result<(), IndexFault> {
        self.flush()?;
        self.index.remove_range(partition, range.clone())?;
        let mut kept = self.index.claims(partition)?;
        kept.remove(range);
        self.changes
            .put(&keys::claims::key(partition), &keys::claims::value(&kept));
        Ok(())
    }

    pub(crate) fn at_boundary(&mut self) {
        if let Some((position, counts)) = self.reached.take() {
            self.changes
                .put(&keys::cursor::KEY, &keys::cursor::value(position));
            for (number, entries) in counts {
                self.changes
                    .put(&keys::segment::key(number), &keys::segment::value(entries));
            }
        }
    }

    pub(crate) fn claim(&mut self, partition: u32, value: Vec<u8>) {
        self.claims.insert(partition, value);
    }

    pub(crate) fn flush_if_full(&mut self) -> Result<(), IndexFault> {
        if self.changes.len() < INDEX_BATCH_KEYS_MAX {
            return Ok(());
        }
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), IndexFault> {
        self.at_boundary();
        for (partition, value) in std::mem::take(&mut self.claims) {
            self.changes.put(&keys::claims::key(partition), &value);
        }
        let changes = std::mem::take(&mut self.changes);
        if changes.len() == 0 {
            return Ok(());
        }
        self.written += changes.len();
        self.index.apply(changes)
    }
}
