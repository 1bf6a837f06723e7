//! Comparing the index with the segments. sled changes its files even when it only reads, so a copy is opened.

use super::report::{Finding, IndexInspection, RecordsInspection, Severity};
use crate::error::OpenError;
use crate::index::{Index, IndexFault, KeyValue, Location, SledStore};
use crate::recovery::{Context, ReplayError, Survey, frames};
use crate::segment::{Frame, FrameKind, Position};
use crate::segment_files::{EntryFault, SegmentFiles};
use crate::shared::{INDEX_DIR, REBUILD_INDEX};
use crate::state::PartitionState;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Entries and records compared at a time, in bytes.
const STEP_BYTES: usize = 4 << 20;
const CACHE_BYTES: u64 = 16 << 20;
const REBUILT: &str = "nothing: the node builds the index anew from the segments, when it starts or when a lookup meets this, and derives the records again";

/// What can be said without opening it.
pub(super) fn look_at(dir: &Path) -> io::Result<IndexInspection> {
    let index = dir.join(INDEX_DIR);
    Ok(IndexInspection {
        present: index.is_dir(),
        size_bytes: if index.is_dir() { size_of(&index)? } else { 0 },
        rebuild_marked: dir.join(REBUILD_INDEX).exists(),
        ..IndexInspection::default()
    })
}

fn size_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size_of(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Compares a copy of the index in `dir` with the log.
pub(super) fn compare(
    context: &Context<'_>,
    dir: &Path,
    found: &Survey,
    inspection: &mut IndexInspection,
    findings: &mut Vec<Finding>,
    read: &mut dyn FnMut(u64),
) {
    let path = dir.join(INDEX_DIR);
    let mut say = |severity, what: String, what_to_do: &str| {
        findings.push(Finding {
            severity,
            file: path.display().to_string(),
            position: None,
            what,
            what_to_do: what_to_do.to_owned(),
        });
    };
    let copied = tempfile::Builder::new()
        .prefix("huntlog-inspect-")
        .tempdir()
        .and_then(|scratch| copy(&path, scratch.path()).map(|()| scratch));
    let scratch = match copied {
        Ok(scratch) => scratch,
        Err(error) => {
            return say(
                Severity::Note,
                format!(
                    "the index was not checked, since it could not be copied to a temporary directory: {error}"
                ),
                "make room for a copy in the directory that TMPDIR names, and inspect again",
            );
        }
    };
    let index = match SledStore::open(scratch.path(), CACHE_BYTES) {
        Ok(store) => Index::new(Arc::new(store) as Arc<dyn KeyValue>),
        Err(fault) => return say(Severity::Repaired, fault.reason(), REBUILT),
    };
    let mut comparison = Comparison {
        context,
        segments: SegmentFiles::new(context.files.clone(), context.salt),
        index,
        found,
        read,
    };
    match comparison.compare(inspection) {
        Err(ReplayError::Index(fault)) => say(Severity::Repaired, fault.reason(), REBUILT),
        Ok(true) => say(
            Severity::Note,
            "the index has not followed the log to its end, as after a crash".to_owned(),
            "nothing: the next start brings it up to date",
        ),
        // A log that cannot be read was found before, and said.
        Ok(false) | Err(ReplayError::Log(_)) => {}
    }
}

struct Comparison<'a> {
    context: &'a Context<'a>,
    segments: SegmentFiles,
    index: Index,
    found: &'a Survey,
    read: &'a mut dyn FnMut(u64),
}

impl Comparison<'_> {
    /// Answers whether the index is behind the log.
    fn compare(&mut self, inspection: &mut IndexInspection) -> Result<bool, ReplayError> {
        let cursor = self.index.cursor()?;
        inspection.cursor = cursor.map(Into::into);
        if cursor.is_none() && !self.found.closed.is_empty() {
            return Err(IndexFault::Damage("it is empty, and the log is not".to_owned()).into());
        }
        let cursor = cursor.unwrap_or_default();
        for segment in &self.found.closed {
            // Of the segment at the cursor a part was taken in, of later ones nothing.
            if segment.number < cursor.segment {
                let indexed = self.index.segment_entries(segment.number)?;
                let entries = segment.footer.entries();
                if indexed != entries {
                    let reason = format!(
                        "it has {indexed} of the {entries} entries in segment {}",
                        segment.number
                    );
                    return Err(IndexFault::Damage(reason).into());
                }
            }
        }
        let touched = self.touched_after(cursor)?;
        let mut entries = 0;
        for (partition, state) in &self.found.full {
            let known = touched.get(partition).copied().unwrap_or(u64::MAX);
            entries += self.entries(*partition, state, known)?;
            inspection.records.push(self.records(*partition, state)?);
        }
        inspection.entries = Some(entries);
        Ok(!touched.is_empty())
    }

    /// The lowest log index, by partition, of which the log says something that the index has not seen.
    fn touched_after(&self, cursor: Position) -> Result<BTreeMap<u32, u64>, OpenError> {
        let mut touched = BTreeMap::new();
        let mut touch = |frame: &Frame| {
            let first = match &frame.kind {
                FrameKind::Entry { id, .. } => id.index,
                FrameKind::Truncate { after } => after.map_or(0, |after| after.index + 1),
                FrameKind::Purge { committed_end, .. } => *committed_end,
                _ => return,
            };
            touched
                .entry(frame.partition)
                .and_modify(|lowest: &mut u64| *lowest = first.min(*lowest))
                .or_insert(first);
        };
        for segment in &self.found.closed {
            let end = Position {
                segment: segment.number,
                offset: segment.end,
            };
            if end > cursor {
                let mut visit = |batch_end: Position, _, frame: &Frame| {
                    if batch_end > cursor {
                        touch(frame);
                    }
                };
                frames(self.context, segment.number, Some(segment.end), &mut visit)?;
            }
        }
        self.found.above.iter().for_each(touch);
        Ok(touched)
    }

    /// Follows the index to every entry that is kept below `known`, and counts them.
    fn entries(
        &mut self,
        partition: u32,
        state: &PartitionState,
        known: u64,
    ) -> Result<u64, IndexFault> {
        let mut entries = 0;
        for range in &state.history {
            let end = range.end.min(known);
            let mut at = range.start;
            while at < end {
                let places = self.index.locate(partition, at..end, STEP_BYTES)?;
                if places.is_empty() {
                    let reason = format!("entry {at} of partition {partition} is missing");
                    return Err(IndexFault::Damage(reason));
                }
                self.follow(partition, state, &places)?;
                at += places.len() as u64;
                entries += places.len() as u64;
            }
        }
        Ok(entries)
    }

    /// Reads the entries at these places, which verifies that they are the ones that are looked for.
    fn follow(
        &mut self,
        partition: u32,
        state: &PartitionState,
        places: &[(u64, Location)],
    ) -> Result<(), IndexFault> {
        let read = match self.segments.read(partition, places) {
            Ok(read) => read,
            Err(EntryFault::Index(fault)) => return Err(fault),
            // The damaged frame was found with the segments; those beside it are still to be checked.
            Err(EntryFault::Segment(_)) if places.len() > 1 => {
                let (left, right) = places.split_at(places.len() / 2);
                self.follow(partition, state, left)?;
                return self.follow(partition, state, right);
            }
            Err(EntryFault::Segment(_)) => return Ok(()),
        };
        let bytes = read.iter().map(|entry| entry.payload.len() as u64).sum();
        (self.read)(bytes);
        let stale = read
            .iter()
            .find(|entry| state.id_at(entry.id.index).is_some_and(|id| id != entry.id));
        match stale {
            Some(stale) => Err(IndexFault::Damage(format!(
                "it still has entry {} of partition {partition}, which was truncated",
                stale.id
            ))),
            None => Ok(()),
        }
    }

    /// Reads every record that is claimed.
    fn records(
        &self,
        partition: u32,
        state: &PartitionState,
    ) -> Result<RecordsInspection, IndexFault> {
        let mut claims = self.index.claims(partition)?;
        claims.cut_below(state.history.first().map_or(0, |range| range.start));
        for range in claims.iter() {
            let mut at = range.start;
            while at < range.end {
                let found = self.index.records(partition, at..range.end, STEP_BYTES)?;
                let gap = found.iter().zip(at..).find(|((index, _), at)| index != at);
                let missing = gap.map(|(_, at)| at).or(found.is_empty().then_some(at));
                if let Some(missing) = missing {
                    return Err(IndexFault::Damage(format!(
                        "the record of entry {missing} of partition {partition} is missing"
                    )));
                }
                at += found.len() as u64;
            }
        }
        Ok(RecordsInspection {
            partition,
            records: claims.to_vec(),
            committed: self.index.committed(partition)?,
        })
    }
}
