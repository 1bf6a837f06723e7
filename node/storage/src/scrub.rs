//! Reading sealed segments again, bit by bit: damage is to be known before what it took is needed.

use crate::error::ReadError;
use crate::files::File;
use crate::limits::SCRUB_STEP_BYTES;
use crate::segment::{Footer, FrameKind, Next, SegmentReader, file_name};
use crate::storage::{Owner, Storage};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// One pass over the sealed segments, oldest first; those sealed meanwhile are part of it.
///
/// What it finds is logged once, and told by [`Storage::damaged_segments`].
pub struct Scrub {
    owner: Arc<Owner>,
    /// The segments up to this one are done.
    done: u64,
    segment: Option<Segment>,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub")
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read.
    pub bytes: u64,
    /// Nothing is left of the pass.
    pub ended: bool,
}

/// The segment being read.
struct Segment {
    number: u64,
    end: u64,
    /// What the engine knows to be in it.
    expected: Footer,
    counts: Footer,
    reader: SegmentReader,
    file: Arc<dyn File>,
}

/// What became of a segment.
enum Verdict {
    Whole,
    Damaged { position: u64, what: &'static str },
    FooterDamaged,
}

impl Storage {
    /// Begins a pass over the sealed segments.
    pub fn scrub(&self) -> Scrub {
        Scrub {
            owner: self.owner.clone(),
            done: 0,
            segment: None,
        }
    }

    /// The segments that were found damaged since the storage was opened, by a scrub or when they were read: by number,
    /// with file, position, what is lost and what to do.
    pub fn damaged_segments(&self) -> BTreeMap<u64, String> {
        self.owner.shared.segments.damaged()
    }
}

impl Scrub {
    /// Reads on, for about [`SCRUB_STEP_BYTES`] or a batch that is larger. Blocks.
    ///
    /// # Errors
    /// When the storage has failed or is closed. What is wrong in a segment is no error here.
    pub fn step(&mut self) -> Result<ScrubStep, ReadError> {
        self.owner.shared.alive()?;
        let mut step = ScrubStep {
            bytes: 0,
            ended: false,
        };
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => match self.next_segment() {
                Ok(Some(segment)) => segment,
                Ok(None) => {
                    step.ended = true;
                    return Ok(step);
                }
                Err((number, error)) => {
                    self.finish(number, Err(error));
                    return Ok(step);
                }
            },
        };
        let verdict = loop {
            if step.bytes >= SCRUB_STEP_BYTES {
                self.segment = Some(segment);
                return Ok(step);
            }
            let before = segment.reader.position().offset;
            let verdict = segment.read_on();
            step.bytes += segment.reader.position().offset - before;
            match verdict {
                Ok(None) => {}
                Ok(Some(verdict)) => break Ok(verdict),
                Err(error) => break Err(error),
            }
        };
        segment.file.drop_cached();
        self.finish(segment.number, verdict);
        Ok(step)
    }

    fn next_segment(&self) -> Result<Option<Segment>, (u64, io::Error)> {
        let shared = &self.owner.shared;
        let next = {
            let engine = shared.engine.lock();
            let mut closed = engine.closed().iter();
            closed
                .find(|segment| segment.number > self.done)
                .map(|segment| (segment.number, segment.end, segment.footer.clone()))
        };
        let Some((number, end, expected)) = next else {
            return Ok(None);
        };
        let open = || {
            let file = shared.files.open(&file_name(number))?;
            // What the memory has says nothing of the disk.
            file.drop_cached();
            let seed = shared.segments.seed(number);
            Ok(Segment {
                number,
                end,
                expected,
                counts: Footer::default(),
                reader: SegmentReader::new(file.clone(), seed, number)?,
                file,
            })
        };
        open().map(Some).map_err(|error| (number, error))
    }

    fn finish(&mut self, number: u64, verdict: io::Result<Verdict>) {
        self.done = number;
        if matches!(verdict, Ok(Verdict::Whole)) {
            return;
        }
        let shared = &self.owner.shared;
        // Held, so that the segment is not released between the question and the note: the note of one that is released
        // goes with its file, and one that is gone is missed by nobody.
        let engine = shared.engine.lock();
        if !engine
            .closed()
            .iter()
            .any(|segment| segment.number == number)
        {
            return;
        }
        let file = shared.files.path(&file_name(number)).display().to_string();
        let found = match verdict {
            Ok(Verdict::Whole) => return,
            Ok(Verdict::Damaged { position, what }) => ReadError::Damaged {
                file,
                position,
                what: format!("{what}; synced entries of this segment cannot be read"),
            }
            .to_string(),
            Ok(Verdict::FooterDamaged) => format!(
                "the footer of {file} is damaged; no entry is lost: restart the node, which writes it anew"
            ),
            Err(error) => format!(
                "reading {file} failed: {error}; check the disk, or move this node's directory away and rejoin under a new node id"
            ),
        };
        shared.segments.found_damaged(number, found);
    }
}

impl Segment {
    /// Reads a batch, or the footer.
    fn read_on(&mut self) -> io::Result<Option<Verdict>> {
        if self.reader.position().offset >= self.end {
            let footer = self.reader.footer()?;
            let footer = footer.and_then(|bytes| Footer::decode(&bytes));
            let fits = footer.as_ref() == Some(&self.expected) && self.counts == self.expected;
            return Ok(Some(match fits {
                true => Verdict::Whole,
                false => Verdict::FooterDamaged,
            }));
        }
        let position = self.reader.position().offset;
        match self.reader.next_batch()? {
            Next::Batch(batch) => {
                if let Some((position, what)) = batch.fault {
                    return Ok(Some(Verdict::Damaged { position, what }));
                }
                for (_, frame) in &batch.frames {
                    if let FrameKind::Entry { id, .. } = &frame.kind {
                        self.counts.count(frame.partition, id.index);
                    }
                }
                Ok(None)
            }
            Next::Stop { reason, .. } => Ok(Some(Verdict::Damaged {
                position,
                what: reason,
            })),
        }
    }
}
