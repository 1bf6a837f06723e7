//! Derived records: what applying an entry came to, kept beside the log and derived again if it is lost.

use super::PartitionLog;
use crate::error::{FatalError, ReadError};
use crate::index::IndexFault;
use crate::limits::RECORD_BYTES_MAX;
use bytes::Bytes;
use std::ops::Range;

impl PartitionLog {
    /// Keeps one derived record for each applied entry: consecutive indexes, ascending; a record may be empty.
    ///
    /// Readable at once, durable after [`Self::sync_records`]; overwrites what is there. Blocks only while
    /// [`crate::limits::UNINDEXED_BYTES_MAX`] bytes wait for the index.
    ///
    /// # Errors
    /// Only when the storage has failed or was closed.
    pub fn put_records(&self, records: Vec<(u64, Bytes)>) -> Result<(), ReadError> {
        self.shared().alive()?;
        debug_assert!(
            records.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
            "consecutive indexes"
        );
        debug_assert!(
            records
                .iter()
                .all(|(_, record)| record.len() <= RECORD_BYTES_MAX)
        );
        self.shared()
            .index_queue
            .push_records(self.shared(), self.partition.id, &records);
        let mut live = self.partition.live.write();
        for (index, _) in &records {
            live.claims.insert(*index..index + 1);
        }
        drop(live);
        self.woken();
        Ok(())
    }

    /// The record of one entry; `None` when none is kept.
    pub fn record(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        let found = self.records(index..index + 1, usize::MAX)?;
        Ok(found.into_iter().next().map(|(_, record)| record))
    }

    /// The records kept from the start of `range`, without a gap, until its end or `max_bytes`; at least one if the
    /// first is kept.
    pub fn records(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let index = self.shared().index()?;
        let claims = self.partition.live.read().claims.clone();
        let Some(claimed) = claims.iter().find(|claimed| claimed.contains(&range.start)) else {
            return Ok(Vec::new());
        };
        let range = range.start..range.end.min(claimed.end);
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut at = range.start;
        while at < range.end && (bytes < max_bytes || found.is_empty()) {
            let pending = self
                .shared()
                .index_queue
                .pending_records(self.partition.id, at..range.end);
            let disk_end = pending.first().map_or(range.end, |(index, _)| *index);
            if at < disk_end {
                let read = index
                    .records(
                        self.partition.id,
                        at..disk_end,
                        max_bytes.saturating_sub(bytes),
                    )
                    .map_err(|fault| self.shared().fail_index(fault))?;
                if read.first().is_none_or(|(first, _)| *first != at) {
                    if !self.partition.live.read().claims.contains(at) {
                        return Ok(found);
                    }
                    let fault = format!(
                        "the record of entry {at} of partition {} is missing",
                        self.partition.id
                    );
                    return Err(self.shared().fail_index(IndexFault::Damage(fault)).into());
                }
                for (index, record) in read {
                    if index != at {
                        break;
                    }
                    at += 1;
                    bytes += record.len();
                    found.push((index, record));
                }
                continue;
            }
            for (index, record) in pending {
                if index != at || (bytes >= max_bytes && !found.is_empty()) {
                    break;
                }
                at += 1;
                bytes += record.len();
                found.push((index, record));
            }
        }
        Ok(found)
    }

    /// Makes every record put so far durable. Blocks.
    pub fn sync_records(&self) -> Result<(), FatalError> {
        self.shared().sync_index()
    }

    /// Which parts of `range` have no record: to be derived again, by replay, before they are read.
    pub fn missing_records(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.partition.live.read().claims.missing(range)
    }
}
