//! A batch: what is written and synced at once.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..16 | number of the batch, counting all segments |
//! | 16..32 | the header's own place: segment, offset |
//! | 32..48 | end of the last batch that was synced when this one was written: segment, offset |
//! | 48..52 | length of the frames |
//! | 52..56 | number of frames |
//! | 56..60 | CRC of the header before this one |
//! | 60..64 | CRC-32C over bytes 0..60 |

use super::{Frame, Position, Seed, align, u32_at, u64_at};
use bytes::{Bytes, BytesMut};

pub(crate) const HEADER_BYTES: usize = 64;
pub(super) const MAGIC: [u8; 8] = *b"huntlog\x01";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub number: u64,
    pub position: Position,
    pub synced_to: Position,
    pub body_bytes: u32,
    pub frames: u32,
    pub previous_crc: u32,
    pub crc: u32,
}

impl BatchHeader {
    /// Where the next batch starts.
    pub(crate) fn end(&self) -> Position {
        let offset = self.position.offset + HEADER_BYTES as u64 + align(u64::from(self.body_bytes));
        Position {
            segment: self.position.segment,
            offset,
        }
    }

    fn encode(&self, seed: Seed) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.position.offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced_to.segment.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_to.offset.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.frames.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.previous_crc.to_le_bytes());
        let crc = seed.checksum(&[&bytes[..60]]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header at `position`, if these bytes are one that was written there.
    pub(crate) fn decode(
        bytes: &[u8],
        seed: Seed,
        position: Position,
    ) -> Result<Self, &'static str> {
        if bytes.len() < HEADER_BYTES {
            return Err("the batch header is cut off");
        }
        if bytes[..8] != MAGIC {
            return Err("there is no batch header");
        }
        let crc = u32_at(bytes, 60);
        if seed.checksum(&[&bytes[..60]]) != crc {
            return Err("the batch header's checksum does not match");
        }
        let header = Self {
            number: u64_at(bytes, 8),
            position: Position {
                segment: u64_at(bytes, 16),
                offset: u64_at(bytes, 24),
            },
            synced_to: Position {
                segment: u64_at(bytes, 32),
                offset: u64_at(bytes, 40),
            },
            body_bytes: u32_at(bytes, 48),
            frames: u32_at(bytes, 52),
            previous_crc: u32_at(bytes, 56),
            crc,
        };
        if header.position != position {
            return Err("the batch header was written for another place");
        }
        Ok(header)
    }
}

/// Encodes a batch: frames first, the header last, into one buffer for one write.
pub(crate) struct BatchBuilder {
    buffer: BytesMut,
    seed: Seed,
    position: Position,
    frames: u32,
}

impl BatchBuilder {
    /// `buffer` is emptied and reused.
    pub(crate) fn new(mut buffer: BytesMut, seed: Seed, position: Position) -> Self {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        Self {
            buffer,
            seed,
            position,
            frames: 0,
        }
    }

    /// Adds a frame and returns where it will stand.
    pub(crate) fn push(&mut self, frame: &Frame) -> Position {
        let offset = self.position.offset + self.buffer.len() as u64;
        frame.encode(self.seed, &mut self.buffer);
        self.frames += 1;
        Position {
            segment: self.position.segment,
            offset,
        }
    }

    /// The header and all bytes to be written at its position.
    pub(crate) fn finish(
        mut self,
        number: u64,
        synced_to: Position,
        previous_crc: u32,
    ) -> (BatchHeader, BytesMut) {
        let body_bytes = u32::try_from(self.buffer.len() - HEADER_BYTES)
            .expect("batches are limited to BATCH_BYTES_MAX");
        let mut header = BatchHeader {
            number,
            position: self.position,
            synced_to,
            body_bytes,
            frames: self.frames,
            previous_crc,
            crc: 0,
        };
        let (bytes, crc) = header.encode(self.seed);
        header.crc = crc;
        self.buffer[..HEADER_BYTES].copy_from_slice(&bytes);
        let padded =
            usize::try_from(align(self.buffer.len() as u64)).expect("a batch fits in memory");
        self.buffer.resize(padded, 0);
        (header, self.buffer)
    }
}

/// A frame and its offset in the segment.
pub(super) type Placed = (u64, Frame);
/// Where something is wrong, and what.
pub(super) type Fault = (u64, &'static str);

/// Splits a batch's body into its frames with their offsets; stops at the first one that is not whole.
pub(super) fn frames_of(
    header: &BatchHeader,
    body: &Bytes,
    seed: Seed,
) -> (Vec<Placed>, Option<Fault>) {
    let mut frames = Vec::new();
    let mut rest = body.clone();
    let mut offset = header.position.offset + HEADER_BYTES as u64;
    for _ in 0..header.frames {
        match super::decode_frame(&rest, seed) {
            Ok((frame, length)) => {
                frames.push((offset, frame));
                rest = rest.slice(length..);
                offset += length as u64;
            }
            Err(reason) => return (frames, Some((offset, reason))),
        }
    }
    if !rest.is_empty() {
        return (
            frames,
            Some((offset, "the batch is longer than its frames")),
        );
    }
    (frames, None)
}
