//! One frame: a fixed header of 40 bytes and a payload.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | CRC-32C over the rest of the header and the payload |
//! | 4..8 | length of the payload |
//! | 8 | kind |
//! | 9 | flag, by kind |
//! | 10..12 | zero |
//! | 12..16 | partition |
//! | 16..24 | term |
//! | 24..32 | node id |
//! | 32..40 | index |

use super::{Seed, u32_at, u64_at};
use crate::entry::{LogId, Vote};
use bytes::{Bytes, BytesMut};

pub(crate) const FRAME_HEADER_BYTES: usize = 40;

/// What a frame says. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An entry of the log.
    Entry { id: LogId, payload: Bytes },
    /// The node's vote.
    Vote(Vote),
    /// Everything after this entry is gone; `None`: every live entry.
    Truncate { after: Option<LogId> },
    /// The live log starts after `upto`. If the log does not contain `upto`, history ends before `committed_end`.
    Purge { upto: LogId, committed_end: u64 },
    /// History below `first_kept` was given up.
    Release { first_kept: u64 },
    /// The partition's state where the segment starts.
    Checkpoint { state: Bytes },
    /// First frame of a segment: the one before it, and where that one ends. Segment 0: there is none.
    SegmentStart { previous: u64, previous_end: u64 },
    /// Counts of a sealed segment.
    Footer { counts: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub partition: u32,
    pub kind: FrameKind,
}

struct Fields<'a> {
    kind: u8,
    flag: u8,
    id: LogId,
    payload: &'a [u8],
}

impl Frame {
    pub(crate) fn encoded_bytes(&self) -> usize {
        FRAME_HEADER_BYTES
            + match &self.kind {
                FrameKind::Entry { payload, .. } => payload.len(),
                FrameKind::Checkpoint { state: bytes } | FrameKind::Footer { counts: bytes } => {
                    bytes.len()
                }
                FrameKind::Purge { .. } => 8,
                _ => 0,
            }
    }

    /// Whether the frame changes a partition, as opposed to describing a segment.
    pub(crate) fn is_operation(&self) -> bool {
        !matches!(
            self.kind,
            FrameKind::Checkpoint { .. }
                | FrameKind::SegmentStart { .. }
                | FrameKind::Footer { .. }
        )
    }

    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, seed: Seed, out: &mut BytesMut) {
        let number = |index| LogId {
            term: 0,
            node_id: 0,
            index,
        };
        let committed_end;
        let fields = match &self.kind {
            FrameKind::Entry { id, payload } => Fields {
                kind: 1,
                flag: 0,
                id: *id,
                payload,
            },
            FrameKind::Vote(vote) => Fields {
                kind: 2,
                flag: u8::from(vote.committed),
                id: LogId {
                    term: vote.term,
                    node_id: vote.node_id,
                    index: 0,
                },
                payload: &[],
            },
            FrameKind::Truncate { after } => Fields {
                kind: 3,
                flag: u8::from(after.is_some()),
                id: after.unwrap_or(number(0)),
                payload: &[],
            },
            FrameKind::Purge {
                upto,
                committed_end: end,
            } => {
                committed_end = end.to_le_bytes();
                Fields {
                    kind: 4,
                    flag: 0,
                    id: *upto,
                    payload: &committed_end,
                }
            }
            FrameKind::Release { first_kept } => Fields {
                kind: 5,
                flag: 0,
                id: number(*first_kept),
                payload: &[],
            },
            FrameKind::Checkpoint { state } => Fields {
                kind: 6,
                flag: 0,
                id: number(0),
                payload: state,
            },
            FrameKind::SegmentStart {
                previous,
                previous_end,
            } => Fields {
                kind: 7,
                flag: 0,
                id: LogId {
                    term: *previous,
                    node_id: *previous_end,
                    index: 0,
                },
                payload: &[],
            },
            FrameKind::Footer { counts } => Fields {
                kind: 8,
                flag: 0,
                id: number(0),
                payload: counts,
            },
        };
        let length =
            u32::try_from(fields.payload.len()).expect("payloads are limited to ENTRY_BYTES_MAX");
        let mut header = [0; FRAME_HEADER_BYTES];
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8] = fields.kind;
        header[9] = fields.flag;
        header[12..16].copy_from_slice(&self.partition.to_le_bytes());
        header[16..24].copy_from_slice(&fields.id.term.to_le_bytes());
        header[24..32].copy_from_slice(&fields.id.node_id.to_le_bytes());
        header[32..40].copy_from_slice(&fields.id.index.to_le_bytes());
        let checksum = seed.checksum(&[&header[4..], fields.payload]);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(fields.payload);
    }
}

/// Decodes the frame at the start of `bytes` and verifies it; the payload shares `bytes`. Returns the frame's length.
pub(crate) fn decode_frame(bytes: &Bytes, seed: Seed) -> Result<(Frame, usize), &'static str> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err("the frame's header is cut off");
    }
    let length = u32_at(bytes, 4) as usize;
    let Some(end) = length
        .checked_add(FRAME_HEADER_BYTES)
        .filter(|end| *end <= bytes.len())
    else {
        return Err("the frame reaches beyond its batch");
    };
    if seed.checksum(&[&bytes[4..end]]) != u32_at(bytes, 0) {
        return Err("the frame's checksum does not match");
    }
    let payload = bytes.slice(FRAME_HEADER_BYTES..end);
    let flag = bytes[9] != 0;
    let id = LogId {
        term: u64_at(bytes, 16),
        node_id: u64_at(bytes, 24),
        index: u64_at(bytes, 32),
    };
    let kind = match bytes[8] {
        1 => FrameKind::Entry { id, payload },
        2 => FrameKind::Vote(Vote {
            term: id.term,
            node_id: id.node_id,
            committed: flag,
        }),
        3 => FrameKind::Truncate {
            after: flag.then_some(id),
        },
        4 if length == 8 => FrameKind::Purge {
            upto: id,
            committed_end: u64_at(&payload, 0),
        },
        5 => FrameKind::Release {
            first_kept: id.index,
        },
        6 => FrameKind::Checkpoint { state: payload },
        7 => FrameKind::SegmentStart {
            previous: id.term,
            previous_end: id.node_id,
        },
        8 => FrameKind::Footer { counts: payload },
        _ => return Err("the frame is of a kind this release does not know"),
    };
    Ok((
        Frame {
            partition: u32_at(bytes, 12),
            kind,
        },
        end,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::new(&[7; 16], 3)
    }

    fn samples() -> Vec<Frame> {
        let id = LogId {
            term: 5,
            node_id: 2,
            index: 77,
        };
        let vote = Vote {
            term: 9,
            node_id: 1,
            committed: true,
        };
        let kinds = vec![
            FrameKind::Entry {
                id,
                payload: Bytes::from_static(b"found it"),
            },
            FrameKind::Entry {
                id,
                payload: Bytes::new(),
            },
            FrameKind::Vote(vote),
            FrameKind::Vote(Vote {
                committed: false,
                ..vote
            }),
            FrameKind::Truncate { after: Some(id) },
            FrameKind::Truncate { after: None },
            FrameKind::Purge {
                upto: id,
                committed_end: 70,
            },
            FrameKind::Release { first_kept: 12 },
            FrameKind::Checkpoint {
                state: Bytes::from_static(b"state"),
            },
            FrameKind::SegmentStart {
                previous: 4,
                previous_end: 4096,
            },
            FrameKind::Footer {
                counts: Bytes::from_static(b"counts"),
            },
        ];
        kinds
            .into_iter()
            .map(|kind| Frame {
                partition: 11,
                kind,
            })
            .collect()
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        for frame in samples() {
            let mut out = BytesMut::new();
            frame.encode(seed(), &mut out);
            assert_eq!(out.len(), frame.encoded_bytes());
            let length = out.len();
            assert_eq!(decode_frame(&out.freeze(), seed()), Ok((frame, length)));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for frame in samples() {
            let mut out = BytesMut::new();
            frame.encode(seed(), &mut out);
            for bit in 0..out.len() * 8 {
                let mut bytes = out.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    decode_frame(&bytes.into(), seed()).is_err(),
                    "bit {bit} of {frame:?}"
                );
            }
        }
    }

    #[test]
    fn a_frame_of_another_segment_is_not_taken_for_one_of_this() {
        let mut out = BytesMut::new();
        samples()[0].encode(seed(), &mut out);
        assert!(decode_frame(&out.freeze(), Seed::new(&[7; 16], 4)).is_err());
    }

    #[test]
    fn the_bytes_of_a_frame_do_not_change() {
        let mut out = BytesMut::new();
        samples()[0].encode(Seed::new(&[0; 16], 1), &mut out);
        let expected: &[u8] = &[
            8, 0, 0, 0, 1, 0, 0, 0, 11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2,
        ];
        assert_eq!(&out[4..25], expected);
        assert_eq!(out[32], 77);
        assert_eq!(&out[40..], b"found it");
    }
}
