//! The index: what is looked up, and can be rebuilt from the segments or derived again.
//!
//! [`Index`] knows the keys; a [`KeyValue`] keeps them: sled in production, a map that can lose its last batches in the
//! simulation. A lookup that does not find what must be there is damage, never "absent".

pub(crate) mod keys;
#[cfg(feature = "simulation")]
mod sim_store;
mod sled_store;
mod writer;

pub(crate) use keys::entry::Location;
#[cfg(feature = "simulation")]
pub use sim_store::SimIndex;
pub(crate) use sled_store::SledStore;
pub(crate) use writer::IndexWriter;

use crate::entry::LogId;
use crate::ranges::RangeSet;
use crate::segment::Position;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What went wrong in the index; the log is unharmed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexFault {
    /// It lost or mixed up keys, or cannot be read: it is built anew.
    Damage(String),
    /// The disk refused.
    Disk {
        /// What was attempted.
        operation: &'static str,
        kind: io::ErrorKind,
        reason: String,
    },
}

impl IndexFault {
    pub(crate) fn reason(self) -> String {
        match self {
            IndexFault::Damage(reason) | IndexFault::Disk { reason, .. } => reason,
        }
    }

    fn malformed(what: &str) -> Self {
        IndexFault::Damage(format!("{what} is malformed"))
    }
}

/// A key with its new value; `None` removes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Changes(pub Vec<Change>);

impl Changes {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.push((key.to_vec(), Some(value.to_vec())));
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.0.push((key.to_vec(), None));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A sorted map of bytes with atomic batches.
pub(crate) trait KeyValue: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexFault>;
    /// Calls `visit` for the keys of a range, ascending, until it answers `false`.
    fn scan(
        &self,
        range: Range<Vec<u8>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexFault>;
    fn apply(&self, changes: Changes) -> Result<(), IndexFault>;
    /// Makes everything applied so far durable.
    fn sync(&self) -> Result<(), IndexFault>;
    /// The disk has failed: closing asks nothing of it any more.
    fn forget(&self) {}
}

/// The typed keys over a [`KeyValue`].
#[derive(Clone)]
pub(crate) struct Index {
    store: Arc<dyn KeyValue>,
}

impl Index {
    pub(crate) fn new(store: Arc<dyn KeyValue>) -> Self {
        Self { store }
    }

    pub(crate) fn apply(&self, changes: Changes) -> Result<(), IndexFault> {
        self.store.apply(changes)
    }

    pub(crate) fn sync(&self) -> Result<(), IndexFault> {
        self.store.sync()
    }

    pub(crate) fn forget(&self) {
        self.store.forget();
    }

    pub(crate) fn cursor(&self) -> Result<Option<Position>, IndexFault> {
        let Some(value) = self.store.get(&keys::cursor::KEY)? else {
            return Ok(None);
        };
        keys::cursor::decode(&value)
            .map(Some)
            .ok_or_else(|| IndexFault::malformed("the cursor"))
    }

    pub(crate) fn committed(&self, partition: u32) -> Result<Option<LogId>, IndexFault> {
        let Some(value) = self.store.get(&keys::committed::key(partition))? else {
            return Ok(None);
        };
        keys::committed::decode(&value)
            .map(Some)
            .ok_or_else(|| IndexFault::malformed("a committed id"))
    }

    pub(crate) fn claims(&self, partition: u32) -> Result<RangeSet, IndexFault> {
        let Some(value) = self.store.get(&keys::claims::key(partition))? else {
            return Ok(RangeSet::default());
        };
        keys::claims::decode(&value).ok_or_else(|| IndexFault::malformed("a claim of records"))
    }

    pub(crate) fn segment_entries(&self, segment: u64) -> Result<u64, IndexFault> {
        let Some(value) = self.store.get(&keys::segment::key(segment))? else {
            return Ok(0);
        };
        keys::segment::decode(&value).ok_or_else(|| IndexFault::malformed("a segment's count"))
    }

    /// Locations of consecutive entries from the start of `range`; stops at its end, at `max_bytes` of payload (after at
    /// least one), or at the first that is missing.
    pub(crate) fn locate(
        &self,
        partition: u32,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Location)>, IndexFault> {
        let mut found: Vec<(u64, Location)> = Vec::new();
        let mut fault = None;
        let mut bytes = 0;
        let mut expected = range.start;
        let keys = keys::entry::key(partition, range.start).to_vec()
            ..keys::entry::key(partition, range.end).to_vec();
        self.store.scan(keys, &mut |key, value| {
            let (Some(index), Some(location)) =
                (keys::entry::index_of(key), keys::entry::decode(value))
            else {
                fault = Some(IndexFault::malformed("an entry's location"));
                return false;
            };
            bytes += location.length as usize;
            if index != expected || (bytes > max_bytes && !found.is_empty()) {
                return false;
            }
            expected += 1;
            found.push((index, location));
            bytes < max_bytes
        })?;
        fault.map_or(Ok(found), Err)
    }

    /// Records of a range, those that are there, ascending, until `max_bytes` (after at least one).
    pub(crate) fn records(
        &self,
        partition: u32,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, IndexFault> {
        let mut found: Vec<(u64, Bytes)> = Vec::new();
        let mut bytes = 0;
        let mut open: Option<(u64, u16, keys::record::Assembly)> = None;
        let mut fault = None;
        let keys = keys::record::key(partition, range.start, 0).to_vec()
            ..keys::record::key(partition, range.end, 0).to_vec();
        self.store.scan(keys, &mut |key, value| {
            let Some((index, chunk)) = keys::record::place_of(key) else {
                fault = Some(IndexFault::malformed("a record's key"));
                return false;
            };
            match &mut open {
                Some((of, next, assembly))
                    if *of == index && *next == chunk && !assembly.is_whole() =>
                {
                    assembly.push(value);
                    *next += 1;
                }
                // Chunks of a longer record that stood here before.
                Some((of, _, assembly)) if *of == index && assembly.is_whole() => return true,
                _ if chunk == 0 => {
                    if let Err(error) = close(open.take(), &mut found, &mut bytes) {
                        fault = Some(error);
                        return false;
                    }
                    if bytes >= max_bytes && !found.is_empty() {
                        return false;
                    }
                    let Some(assembly) = keys::record::Assembly::begin(value) else {
                        fault = Some(IndexFault::malformed("a record"));
                        return false;
                    };
                    open = Some((index, 1, assembly));
                }
                _ => {
                    fault = Some(IndexFault::Damage(format!(
                        "chunk {chunk} of the record of entry {index} has no predecessor"
                    )));
                    return false;
                }
            }
            true
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        close(open, &mut found, &mut bytes)?;
        Ok(found)
    }

    /// Removes the entries and records of an index range, in steps that keep readers waiting only briefly.
    pub(crate) fn remove_range(&self, partition: u32, range: Range<u64>) -> Result<(), IndexFault> {
        for (from, to) in [
            (
                keys::entry::key(partition, range.start).to_vec(),
                keys::entry::key(partition, range.end).to_vec(),
            ),
            (
                keys::record::key(partition, range.start, 0).to_vec(),
                keys::record::key(partition, range.end, 0).to_vec(),
            ),
        ] {
            loop {
                let mut changes = Changes::default();
                self.store.scan(from.clone()..to.clone(), &mut |key, _| {
                    changes.remove(key);
                    changes.len() < crate::limits::INDEX_BATCH_KEYS_MAX
                })?;
                if changes.len() == 0 {
                    break;
                }
                self.store.apply(changes)?;
            }
        }
        Ok(())
    }
}

fn close(
    open: Option<(u64, u16, keys::record::Assembly)>,
    found: &mut Vec<(u64, Bytes)>,
    bytes: &mut usize,
) -> Result<(), IndexFault> {
    let Some((index, _, assembly)) = open else {
        return Ok(());
    };
    let record = assembly
        .finish()
        .ok_or_else(|| IndexFault::Damage(format!("the record of entry {index} is incomplete")))?;
    *bytes += record.len();
    found.push((index, record));
    Ok(())
}

/// Entries of one step, gathered for the index.
#[derive(Debug, Default)]
pub(crate) struct IndexUpdates {
    pub operations: Vec<IndexOperation>,
    /// Everything before this place is then indexed.
    pub cursor: Position,
    /// Entries taken in per segment up to the cursor.
    pub segment_entries: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexOperation {
    Put {
        partition: u32,
        index: u64,
        location: Location,
    },
    /// Entries that were truncated.
    Remove { partition: u32, range: Range<u64> },
    /// History that was given up, with its records.
    Release { partition: u32, before: u64 },
}
