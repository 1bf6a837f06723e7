//! Reading entries from segments: open files, frames verified on every read.

use crate::entry::{LogEntry, LogId};
use crate::error::{FatalError, ReadError};
use crate::files::{File, Files, read_up_to};
use crate::index::{IndexFault, Location};
use crate::limits::{OPEN_SEGMENTS_MAX, READ_AHEAD_BYTES};
use crate::segment::{
    DIR, FRAME_HEADER_BYTES, Frame, FrameKind, Next, Seed, SegmentReader, decode_frame, file_name,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Frames this far apart are still read in one go.
const GAP_BYTES_MAX: u64 = 4096;

/// Why an entry could not be read at the place the index names.
#[derive(Debug)]
pub(crate) enum EntryFault {
    /// The segment is damaged, or could not be read.
    Segment(ReadError),
    /// The segment is whole, the index is wrong about it.
    Index(IndexFault),
}

pub(crate) struct SegmentFiles {
    files: Arc<dyn Files>,
    salt: [u8; 16],
    /// Recently used first.
    open: Mutex<VecDeque<(u64, Arc<dyn File>)>>,
    /// Segments found damaged, with what is to be said of them: each is logged once, however often it is read.
    damaged: Mutex<BTreeMap<u64, String>>,
}

impl SegmentFiles {
    pub(crate) fn new(files: Arc<dyn Files>, salt: [u8; 16]) -> Self {
        Self {
            files,
            salt,
            open: Mutex::new(VecDeque::new()),
            damaged: Mutex::default(),
        }
    }

    fn file(&self, segment: u64) -> std::io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        if let Some(at) = open.iter().position(|(number, _)| *number == segment)
            && let Some(found) = open.remove(at)
        {
            open.push_front(found.clone());
            return Ok(found.1);
        }
        let file = self.files.open(&file_name(segment))?;
        open.push_front((segment, file.clone()));
        open.truncate(OPEN_SEGMENTS_MAX);
        Ok(file)
    }

    /// Closes and removes the files of segments that are no part of the log any more, in this order.
    pub(crate) fn remove(&self, segments: &[u64]) -> Result<(), FatalError> {
        let failed = |operation, name: &str| {
            let path = self.files.path(name);
            move |error| FatalError::io(operation, path.display(), error)
        };
        for segment in segments {
            let name = file_name(*segment);
            // Nobody opens it again between the two.
            let mut open = self.open.lock();
            open.retain(|(number, _)| number != segment);
            self.files
                .remove_gradually(&name)
                .map_err(failed("remove", &name))?;
        }
        if !segments.is_empty() {
            self.files.sync_dir(DIR).map_err(failed("sync", DIR))?;
        }
        self.damaged
            .lock()
            .retain(|number, _| !segments.contains(number));
        Ok(())
    }

    /// What the checksums of a segment start from.
    pub(crate) fn seed(&self, segment: u64) -> Seed {
        Seed::new(&self.salt, segment)
    }

    /// The segments found damaged.
    pub(crate) fn damaged(&self) -> BTreeMap<u64, String> {
        self.damaged.lock().clone()
    }

    /// Takes note of damage, and logs it if it is the first of its segment.
    pub(crate) fn found_damaged(&self, segment: u64, found: String) {
        if let Entry::Vacant(vacant) = self.damaged.lock().entry(segment) {
            tracing::error!(
                error = found,
                "a segment is damaged; what it holds is read from other nodes only"
            );
            vacant.insert(found);
        }
    }

    /// Reads the entries at these places, which are consecutive entries of one partition.
    pub(crate) fn read(
        &self,
        partition: u32,
        places: &[(u64, Location)],
    ) -> Result<Vec<LogEntry>, EntryFault> {
        let mut entries = Vec::with_capacity(places.len());
        let mut rest = places;
        while let Some((_, first)) = rest.first() {
            let start = first.position.offset;
            let mut end = end_of(first);
            let mut count = 1;
            for (_, next) in &rest[1..] {
                let near = next.position.segment == first.position.segment
                    && (end..=end + GAP_BYTES_MAX).contains(&next.position.offset);
                if !near || end_of(next) - start > READ_AHEAD_BYTES as u64 {
                    break;
                }
                end = end_of(next);
                count += 1;
            }
            let (group, after) = rest.split_at(count);
            self.read_group(partition, group, start..end, &mut entries)?;
            rest = after;
        }
        Ok(entries)
    }

    fn read_group(
        &self,
        partition: u32,
        group: &[(u64, Location)],
        span: std::ops::Range<u64>,
        entries: &mut Vec<LogEntry>,
    ) -> Result<(), EntryFault> {
        let segment = group[0].1.position.segment;
        let file = match self.file(segment) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = format!("it names segment {segment}, which is not there");
                return Err(EntryFault::Index(IndexFault::Damage(reason)));
            }
            Err(error) => return Err(self.io(segment, error)),
        };
        let length = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        let bytes = Bytes::from(
            read_up_to(&*file, span.start, length).map_err(|error| self.io(segment, error))?,
        );
        let seed = self.seed(segment);
        for (index, location) in group {
            let from = usize::try_from(location.position.offset - span.start).unwrap_or(usize::MAX);
            let to = from + FRAME_HEADER_BYTES + location.length as usize;
            let decoded = match bytes.get(from..to) {
                Some(_) => decode_frame(&bytes.slice(from..to), seed),
                None => Err("the file ends before the frame"),
            };
            let id = LogId {
                term: location.term,
                node_id: location.node_id,
                index: *index,
            };
            match decoded {
                Ok((
                    Frame {
                        partition: found,
                        kind:
                            FrameKind::Entry {
                                id: found_id,
                                payload,
                            },
                    },
                    _,
                )) if found == partition && found_id == id => {
                    entries.push(LogEntry { id, payload });
                }
                Ok(_) => {
                    let reason = format!(
                        "{} does not hold entry {id} of partition {partition}",
                        location.position
                    );
                    return Err(EntryFault::Index(IndexFault::Damage(reason)));
                }
                Err(reason) => return Err(self.blame(partition, id, location, reason)),
            }
        }
        Ok(())
    }

    /// A place that does not verify: either the segment is damaged there, or the index names a place in between frames.
    fn blame(&self, partition: u32, id: LogId, location: &Location, reason: &str) -> EntryFault {
        let segment = location.position.segment;
        let wrong_place = || {
            let reason = format!(
                "no frame starts at {}, where it has entry {id}",
                location.position
            );
            EntryFault::Index(IndexFault::Damage(reason))
        };
        let reader = self
            .file(segment)
            .and_then(|file| SegmentReader::new(file, self.seed(segment), segment));
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) => return self.io(segment, error),
        };
        loop {
            match reader.next_batch() {
                Ok(Next::Batch(batch)) => {
                    if batch.fault.is_some() {
                        break;
                    }
                    if batch.header.end().offset > location.position.offset {
                        return wrong_place();
                    }
                }
                Ok(Next::Stop { blank: true, .. }) => return wrong_place(),
                Ok(Next::Stop { .. }) => break,
                Err(error) => return self.io(segment, error),
            }
        }
        let error = ReadError::Damaged {
            file: self.files.path(&file_name(segment)).display().to_string(),
            position: location.position.offset,
            what: format!("{reason}; entry {id} of partition {partition} cannot be read"),
        };
        self.found_damaged(segment, error.to_string());
        EntryFault::Segment(error)
    }

    fn io(&self, segment: u64, error: std::io::Error) -> EntryFault {
        EntryFault::Segment(ReadError::Io {
            file: self.files.path(&file_name(segment)).display().to_string(),
            source: Arc::new(error),
        })
    }
}

fn end_of(location: &Location) -> u64 {
    location.position.offset + FRAME_HEADER_BYTES as u64 + u64::from(location.length)
}
