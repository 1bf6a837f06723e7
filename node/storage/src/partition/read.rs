//! Reading entries: from the tail in memory, and below it from the segments.

use super::PartitionLog;
use crate::entry::LogEntry;
use crate::error::ReadError;
use crate::index::IndexFault;
use crate::segment_files::EntryFault;
use crate::state::PartitionState;
use std::ops::Range;
use std::time::Instant;

impl PartitionLog {
    /// The live entries of `range`, if all of them are in memory; never waits for the disk.
    pub fn read_cached(&self, range: Range<u64>) -> Option<Vec<LogEntry>> {
        let live = self.partition.live.read();
        let bounds = live.state.live();
        if range.start < bounds.start {
            return None;
        }
        let range = range.start..range.end.min(bounds.end);
        if range.is_empty() {
            return Some(Vec::new());
        }
        live.tail
            .first_key_value()
            .filter(|(first, _)| **first <= range.start)?;
        let entries: Vec<LogEntry> = live
            .tail
            .range(range.clone())
            .map(|(_, tail)| tail.entry.clone())
            .collect();
        (entries.len() as u64 == range.end - range.start).then_some(entries)
    }

    /// Live entries from the start of `range`, until its end, the log's end, or `max_bytes` of payload; at least one if
    /// there is any. Blocks on the disk for what is not in memory.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, ReadError> {
        self.read_within(range, max_bytes, |state, _| Some(state.live()))
    }

    /// As [`Self::read`], also below the purge boundary; stops at a gap of the history.
    pub fn read_history(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        self.read_within(range, max_bytes, |state, start| {
            state
                .history
                .iter()
                .find(|range| range.contains(&start))
                .cloned()
        })
    }

    fn read_within(
        &self,
        range: Range<u64>,
        max_bytes: usize,
        bounds: impl Fn(&PartitionState, u64) -> Option<Range<u64>>,
    ) -> Result<Vec<LogEntry>, ReadError> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        let mut at = range.start;
        loop {
            self.shared().alive()?;
            let (from_disk, generation) = {
                let live = self.partition.live.read();
                let log_end = live.state.live().end;
                let end = range.end.min(log_end);
                if at >= end || (bytes >= max_bytes && !entries.is_empty()) {
                    return Ok(entries);
                }
                let Some(bounds) = bounds(&live.state, at).filter(|bounds| bounds.contains(&at))
                else {
                    if !entries.is_empty() {
                        return Ok(entries);
                    }
                    return Err(ReadError::NotKept {
                        partition: self.partition.id,
                        index: at,
                        kept: live.state.history.clone(),
                    });
                };
                let end = end.min(bounds.end);
                for (index, tail) in live.tail.range(at..end) {
                    let full = bytes + tail.entry.payload.len() > max_bytes && !entries.is_empty();
                    if *index != at {
                        break;
                    }
                    if full {
                        return Ok(entries);
                    }
                    bytes += tail.entry.payload.len();
                    entries.push(tail.entry.clone());
                    at += 1;
                }
                if at >= end {
                    continue;
                }
                let stop = live
                    .tail
                    .range(at..end)
                    .next()
                    .map_or(end, |(index, _)| *index);
                (at..stop, live.generation)
            };
            match self.read_disk(
                from_disk,
                max_bytes.saturating_sub(bytes),
                entries.is_empty(),
            ) {
                Ok(read) if read.is_empty() => return Ok(entries),
                Ok(read) => {
                    let live = self.partition.live.read();
                    if live.generation != generation {
                        continue;
                    }
                    let wrong = read.iter().find(|entry| {
                        live.state
                            .id_at(entry.id.index)
                            .is_some_and(|id| id != entry.id)
                    });
                    if let Some(wrong) = wrong {
                        let reason =
                            format!("it still has entry {}, which was truncated", wrong.id);
                        drop(live);
                        return Err(self.shared().fail_index(IndexFault::Damage(reason)).into());
                    }
                    at += read.len() as u64;
                    bytes += read.iter().map(|entry| entry.payload.len()).sum::<usize>();
                    entries.extend(read);
                }
                // A truncation or a deletion in between explains it: look again.
                Err(_) if self.partition.live.read().generation != generation => {}
                Err(EntryFault::Index(fault)) => {
                    return Err(self.shared().fail_index(fault).into());
                }
                Err(EntryFault::Segment(error)) => return Err(error),
            }
        }
    }

    /// Entries that are not in the tail, which means that they are in the index. Empty only if `max_bytes` are used up.
    fn read_disk(
        &self,
        range: Range<u64>,
        max_bytes: usize,
        first: bool,
    ) -> Result<Vec<LogEntry>, EntryFault> {
        let started = Instant::now();
        let index = self.shared().index().map_err(EntryFault::Segment)?;
        let mut places = index
            .locate(self.partition.id, range.clone(), max_bytes)
            .map_err(EntryFault::Index)?;
        let Some((_, place)) = places.first() else {
            let reason = format!(
                "entry {} of partition {} is missing",
                range.start, self.partition.id
            );
            return Err(EntryFault::Index(IndexFault::Damage(reason)));
        };
        if !first && place.length as usize > max_bytes {
            return Ok(Vec::new());
        }
        // What is read next is decided by the caller's next round; a hole in the places shows there.
        places.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        let entries = self.shared().segments.read(self.partition.id, &places)?;
        let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        self.shared()
            .options
            .metrics
            .disk_read(entries.len(), bytes, started.elapsed());
        Ok(entries)
    }
}
