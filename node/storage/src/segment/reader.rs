//! Reading a segment from its start, and looking for batches behind damage.

use super::batch::{Fault, MAGIC, Placed, frames_of};
use super::{ALIGNMENT, BatchHeader, Frame, FrameKind, HEADER_BYTES, Position, Seed};
use crate::files::{File, read_up_to};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// What the next batch's header must continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub number: u64,
    pub crc: u32,
}

/// A batch as read: its frames with their offsets, and the first fault among them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub header: BatchHeader,
    pub frames: Vec<Placed>,
    pub fault: Option<Fault>,
}

#[derive(Debug)]
pub(crate) enum Next {
    Batch(Batch),
    /// No batch starts here. `blank`: nothing was ever written here, as far as can be seen.
    Stop {
        reason: &'static str,
        blank: bool,
    },
}

/// Reads the batches of one segment, in order.
pub(crate) struct SegmentReader {
    file: Arc<dyn File>,
    seed: Seed,
    size: u64,
    position: Position,
    link: Option<Link>,
}

impl SegmentReader {
    pub(crate) fn new(file: Arc<dyn File>, seed: Seed, segment: u64) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self {
            file,
            seed,
            size,
            position: Position { segment, offset: 0 },
            link: None,
        })
    }

    /// Where the next batch is expected.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The header that the next batch must continue; `None` before the first.
    pub(crate) fn link(&self) -> Option<Link> {
        self.link
    }

    pub(crate) fn next_batch(&mut self) -> io::Result<Next> {
        let bytes = read_up_to(&*self.file, self.position.offset, HEADER_BYTES)?;
        let header = match BatchHeader::decode(&bytes, self.seed, self.position) {
            Ok(header) => header,
            Err(reason) => {
                return Ok(Next::Stop {
                    reason,
                    blank: bytes.iter().all(|byte| *byte == 0),
                });
            }
        };
        if let Some(link) = self.link
            && (header.number != link.number + 1 || header.previous_crc != link.crc)
        {
            return Ok(Next::Stop {
                reason: "the batch does not continue the one before it",
                blank: false,
            });
        }
        let body_start = self.position.offset + HEADER_BYTES as u64;
        let available = self.size.saturating_sub(body_start);
        let length = u64::from(header.body_bytes).min(available);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let body = Bytes::from(read_up_to(&*self.file, body_start, length)?);
        let (frames, fault) = frames_of(&header, &body, self.seed);
        if let [
            (
                _,
                Frame {
                    kind: FrameKind::Footer { .. },
                    ..
                },
            ),
        ] = frames.as_slice()
        {
            return Ok(Next::Stop {
                reason: "the segment was sealed here",
                blank: true,
            });
        }
        if fault.is_none() {
            self.position = header.end();
            self.link = Some(Link {
                number: header.number,
                crc: header.crc,
            });
        }
        Ok(Next::Batch(Batch {
            header,
            frames,
            fault,
        }))
    }

    /// The footer at the reader's position, if there is one.
    pub(crate) fn footer(&mut self) -> io::Result<Option<Bytes>> {
        let bytes = read_up_to(&*self.file, self.position.offset, HEADER_BYTES)?;
        let Ok(header) = BatchHeader::decode(&bytes, self.seed, self.position) else {
            return Ok(None);
        };
        let body_start = self.position.offset + HEADER_BYTES as u64;
        let body = Bytes::from(read_up_to(
            &*self.file,
            body_start,
            header.body_bytes as usize,
        )?);
        let (frames, _) = frames_of(&header, &body, self.seed);
        Ok(match frames.into_iter().next() {
            Some((
                _,
                Frame {
                    kind: FrameKind::Footer { counts },
                    ..
                },
            )) => Some(counts),
            _ => None,
        })
    }

    /// Goes on reading at `offset`, without a link to what stands before it.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.position.offset = offset;
        self.link = None;
    }
}

/// Every valid batch header of a segment, wherever it stands: pages reach the disk in any order, so whole batches may
/// follow a torn one.
pub(crate) fn find_headers(
    file: &dyn File,
    seed: Seed,
    segment: u64,
) -> io::Result<Vec<BatchHeader>> {
    const WINDOW_BYTES: usize = 1 << 20;
    let size = file.size()?;
    let mut headers = Vec::new();
    let mut start = 0;
    while start < size {
        // Windows overlap by one header, so that none is missed at their seam.
        let window = read_up_to(file, start, WINDOW_BYTES + HEADER_BYTES)?;
        let mut at = 0;
        while at + HEADER_BYTES <= window.len() && at < WINDOW_BYTES {
            if window[at..at + MAGIC.len()] == MAGIC {
                let position = Position {
                    segment,
                    offset: start + at as u64,
                };
                if let Ok(header) = BatchHeader::decode(&window[at..], seed, position) {
                    headers.push(header);
                }
            }
            at += usize::try_from(ALIGNMENT).expect("eight");
        }
        start += WINDOW_BYTES as u64;
    }
    Ok(headers)
}
