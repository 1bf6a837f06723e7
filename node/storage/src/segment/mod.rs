//! Segments: append-only files that hold the truth.
//!
//! A segment is a sequence of batches; a batch is a [`BatchHeader`] and the [`Frame`]s it announces, padded to
//! [`ALIGNMENT`]. The first batch of a segment starts with a [`FrameKind::SegmentStart`], which names the segment
//! before it and where that one ends, and one checkpoint for each partition. A sealed segment ends in a footer, a batch
//! that stands outside the chain of batch numbers. Every checksum is seeded with the store's salt and the segment's
//! number, so that a payload which happens to contain a copy of a frame or a batch is never taken for one.

mod batch;
mod footer;
mod frame;
#[cfg(test)]
mod fuzz;
mod reader;

pub(crate) use batch::{BatchBuilder, BatchHeader, HEADER_BYTES};
pub(crate) use footer::Footer;
pub(crate) use frame::{FRAME_HEADER_BYTES, Frame, FrameKind, decode_frame};
pub(crate) use reader::{Link, Next, SegmentReader, find_headers};

use std::fmt;

/// Batches start at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

pub(crate) const DIR: &str = "segments";

/// A place in the log's files, ordered as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub segment: u64,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} byte {}", self.segment, self.offset)
    }
}

/// The file of a segment.
pub(crate) fn file_name(segment: u64) -> String {
    format!("{DIR}/{segment:020}.segment")
}

/// The segment of a file in [`DIR`]; `None` if the file is a stray: its name is not the one that the engine gives.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".segment")?.parse().ok()?;
    let own = file_name(number);
    (own.strip_prefix(DIR)?.strip_prefix('/')? == name).then_some(number)
}

/// What every checksum in a segment starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(salt: &[u8; 16], segment: u64) -> Self {
        Seed(crc32c::crc32c_append(
            crc32c::crc32c(salt),
            &segment.to_le_bytes(),
        ))
    }

    pub(crate) fn checksum(self, parts: &[&[u8]]) -> u32 {
        parts
            .iter()
            .fold(self.0, |crc, part| crc32c::crc32c_append(crc, part))
    }
}

pub(crate) fn align(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}

/// Little-endian integers at fixed places; the caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engine_s_own_names_are_segments() {
        for number in [0, 1, 99, u64::MAX] {
            let name = file_name(number);
            let name = name.strip_prefix("segments/").expect("its directory");
            assert_eq!(number_of(name), Some(number));
        }
        for stray in [
            "1.segment",
            "99.segment",
            "+0000000000000000001.segment",
            "000000000000000000001.segment",
            "00000000000000000001.segment.bak",
            "notes.txt",
        ] {
            assert_eq!(number_of(stray), None, "{stray}");
        }
    }
}
