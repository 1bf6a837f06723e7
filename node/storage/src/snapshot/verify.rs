//! Reading a snapshot file for its soundness alone.

use super::format::{Decoder, Header, Part};
use crate::files::{Files, read_up_to};
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use std::io;

/// What a snapshot file turned out to be.
pub(crate) struct Verdict {
    /// The partition and the last entry it contains; `None` if the header is damaged.
    pub header: Option<(u32, crate::entry::LogId)>,
    pub size_bytes: u64,
    /// Where the first fault is, and what it is.
    pub fault: Option<(u64, String)>,
}

/// Reads the header, or with `whole` everything; calls `read` with the number of bytes of each piece.
pub(crate) fn verify(
    files: &dyn Files,
    name: &str,
    whole: bool,
    read: &mut dyn FnMut(u64),
) -> io::Result<Verdict> {
    let file = files.open(name)?;
    let mut verdict = Verdict {
        header: None,
        size_bytes: file.size()?,
        fault: None,
    };
    let mut decoder = Decoder::new();
    let mut position = 0;
    loop {
        match decoder.next_part() {
            Ok(Some(Part::Header(Header {
                partition, log_id, ..
            }))) => {
                verdict.header = Some((partition, log_id));
                if !whole {
                    return Ok(verdict);
                }
            }
            Ok(Some(Part::Block(_) | Part::End)) => {}
            Ok(None) => {
                let bytes = read_up_to(&*file, position, SNAPSHOT_BLOCK_BYTES)?;
                if bytes.is_empty() {
                    if !decoder.ended() {
                        verdict.fault = Some((position, "the file ends too early".to_owned()));
                    }
                    return Ok(verdict);
                }
                position += bytes.len() as u64;
                read(bytes.len() as u64);
                decoder.push(&bytes);
            }
            Err((at, what)) => {
                verdict.fault = Some((at, what.to_owned()));
                return Ok(verdict);
            }
        }
    }
}
