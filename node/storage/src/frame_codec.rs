//! The codec of frames as the log writer and recovery use it, for the benches.

use bytes::{Bytes, BytesMut};

use crate::entry::LogEntry;
use crate::segment::{BatchBuilder, Frame, FrameKind, HEADER_BYTES, Position, Seed, decode_frame};

fn seed() -> Seed {
    Seed::new(&[7; 16], 1)
}

/// Encodes entries into a batch as it is written; `buffer` is reused.
#[must_use]
pub fn encode(entries: &[LogEntry], buffer: BytesMut) -> BytesMut {
    let mut builder = BatchBuilder::new(buffer, seed(), Position::default());
    for entry in entries {
        builder.push(&Frame {
            partition: 0,
            kind: FrameKind::Entry {
                id: entry.id,
                payload: entry.payload.clone(),
            },
        });
    }
    builder.finish(1, Position::default(), 0).1
}

/// Decodes so many frames of a batch, and returns the bytes of their payloads.
///
/// # Panics
/// When the batch is not one that [`encode`] made of so many entries.
#[must_use]
pub fn decode(batch: &Bytes, frames: usize) -> usize {
    let mut rest = batch.slice(HEADER_BYTES..);
    let mut payload_bytes = 0;
    for _ in 0..frames {
        let (frame, length) = decode_frame(&rest, seed()).expect("encoded above");
        if let FrameKind::Entry { payload, .. } = &frame.kind {
            payload_bytes += payload.len();
        }
        rest = rest.slice(length..);
    }
    payload_bytes
}
