//! A snapshot file: a header with the meta, blocks of state, and an end that counts them.
//!
//! | part | bytes |
//! |---|---|
//! | header | magic (8), partition (4), meta length (4), term (8), node id (8), index (8), CRC-32C (4), meta |
//! | block | length (4, not 0), CRC-32C (4), state |
//! | end | 0 (4), CRC-32C (4), length of the state (8) |
//!
//! Each checksum continues the one before it, so that no part can be missing, repeated or of another snapshot.

use crate::entry::LogId;
use crate::limits::{SNAPSHOT_BLOCK_BYTES, SNAPSHOT_META_BYTES_MAX};
use crate::segment::{u32_at, u64_at};
use bytes::{Buf, Bytes, BytesMut};

const MAGIC: [u8; 8] = *b"hl-snap\x01";
pub(super) const HEADER_BYTES: usize = 44;
pub(super) const BLOCK_HEADER_BYTES: usize = 8;
const END_BYTES: usize = 16;

/// Encodes the parts of a file, in order.
pub(super) struct Encoder {
    crc: u32,
    state_bytes: u64,
}

impl Encoder {
    pub(super) fn begin(partition: u32, log_id: LogId, meta: &[u8]) -> (Self, Vec<u8>) {
        let mut out = Vec::with_capacity(HEADER_BYTES + meta.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&partition.to_le_bytes());
        let meta_bytes = u32::try_from(meta.len()).expect("limited to SNAPSHOT_META_BYTES_MAX");
        out.extend_from_slice(&meta_bytes.to_le_bytes());
        out.extend_from_slice(&log_id.term.to_le_bytes());
        out.extend_from_slice(&log_id.node_id.to_le_bytes());
        out.extend_from_slice(&log_id.index.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), meta);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(meta);
        (
            Self {
                crc,
                state_bytes: 0,
            },
            out,
        )
    }

    /// The header of a block; the state follows it.
    pub(super) fn block(&mut self, state: &[u8]) -> [u8; BLOCK_HEADER_BYTES] {
        let length = u32::try_from(state.len())
            .expect("limited to SNAPSHOT_BLOCK_BYTES")
            .to_le_bytes();
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &length), state);
        self.state_bytes += state.len() as u64;
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[..4].copy_from_slice(&length);
        header[4..].copy_from_slice(&self.crc.to_le_bytes());
        header
    }

    pub(super) fn end(self) -> [u8; END_BYTES] {
        let mut end = [0; END_BYTES];
        let length = self.state_bytes.to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &[0; 4]), &length);
        end[4..8].copy_from_slice(&crc.to_le_bytes());
        end[8..].copy_from_slice(&length);
        end
    }
}

/// The header as decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub partition: u32,
    pub log_id: LogId,
    pub meta: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Header(Header),
    Block(Bytes),
    End,
}

/// A fault: where it is in the file, and what it is.
pub(super) type Fault = (u64, &'static str);

/// Verifies the bytes of a file as they come.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: BytesMut,
    position: u64,
    crc: Option<u32>,
    state_bytes: u64,
    ended: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            position: 0,
            crc: None,
            state_bytes: 0,
            ended: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes of the parts handed out so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next part; `None` when more bytes are needed.
    pub(super) fn next_part(&mut self) -> Result<Option<Part>, Fault> {
        if self.ended {
            return match self.buffer.is_empty() {
                true => Ok(None),
                false => Err((self.position, "there are bytes after the end")),
            };
        }
        match self.crc {
            None => self.header(),
            Some(crc) => self.block(crc),
        }
    }

    fn header(&mut self) -> Result<Option<Part>, Fault> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return Err((0, "this is not a snapshot that this release can read"));
        }
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let meta_bytes = u32_at(&self.buffer, 12) as usize;
        if meta_bytes > SNAPSHOT_META_BYTES_MAX {
            return Err((12, "the meta's length is impossible"));
        }
        if self.buffer.len() < HEADER_BYTES + meta_bytes {
            return Ok(None);
        }
        let (partition, crc) = (u32_at(&self.buffer, 8), u32_at(&self.buffer, 40));
        let log_id = LogId {
            term: u64_at(&self.buffer, 16),
            node_id: u64_at(&self.buffer, 24),
            index: u64_at(&self.buffer, 32),
        };
        let header = self.buffer.split_to(HEADER_BYTES);
        let meta = self.buffer.split_to(meta_bytes).freeze();
        if crc32c::crc32c_append(crc32c::crc32c(&header[..40]), &meta) != crc {
            return Err((0, "the header's checksum does not match"));
        }
        self.crc = Some(crc);
        self.position += (HEADER_BYTES + meta_bytes) as u64;
        Ok(Some(Part::Header(Header {
            partition,
            log_id,
            meta,
        })))
    }

    fn block(&mut self, crc: u32) -> Result<Option<Part>, Fault> {
        if self.buffer.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        let length = u32_at(&self.buffer, 0) as usize;
        let found = u32_at(&self.buffer, 4);
        if length > SNAPSHOT_BLOCK_BYTES {
            return Err((self.position, "the block's length is impossible"));
        }
        let size = if length == 0 {
            END_BYTES
        } else {
            BLOCK_HEADER_BYTES + length
        };
        if self.buffer.len() < size {
            return Ok(None);
        }
        let part = self.buffer.split_to(size).freeze();
        let expected = crc32c::crc32c_append(
            crc32c::crc32c_append(crc, &part[..4]),
            &part[BLOCK_HEADER_BYTES..],
        );
        if expected != found {
            return Err((self.position, "the block's checksum does not match"));
        }
        self.crc = Some(found);
        if length == 0 {
            if u64_at(&part, 8) != self.state_bytes {
                return Err((
                    self.position,
                    "the state has another length than the end says",
                ));
            }
            self.position += size as u64;
            self.ended = true;
            return Ok(Some(Part::End));
        }
        self.position += size as u64;
        self.state_bytes += length as u64;
        let mut state = part;
        state.advance(BLOCK_HEADER_BYTES);
        Ok(Some(Part::Block(state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(blocks: &[&[u8]]) -> Vec<u8> {
        let log_id = LogId {
            term: 3,
            node_id: 1,
            index: 99,
        };
        let (mut encoder, mut bytes) = Encoder::begin(5, log_id, b"members");
        for block in blocks {
            bytes.extend_from_slice(&encoder.block(block));
            bytes.extend_from_slice(block);
        }
        bytes.extend_from_slice(&encoder.end());
        bytes
    }

    fn decode(bytes: &[u8], piece: usize) -> Result<(Option<Header>, Vec<u8>, bool), Fault> {
        let mut decoder = Decoder::new();
        let mut header = None;
        let mut state = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            decoder.push(piece);
            while let Some(part) = decoder.next_part()? {
                match part {
                    Part::Header(found) => header = Some(found),
                    Part::Block(block) => state.extend_from_slice(&block),
                    Part::End => {}
                }
            }
        }
        Ok((header, state, decoder.ended()))
    }

    #[test]
    fn any_cut_into_pieces_gives_the_same_snapshot() {
        let bytes = file(&[b"one", b"two and a half"]);
        for piece in 1..bytes.len() {
            let (header, state, ended) = decode(&bytes, piece).unwrap();
            let header = header.unwrap();
            assert_eq!(
                (header.partition, header.log_id.index, &header.meta[..]),
                (5, 99, &b"members"[..])
            );
            assert_eq!(state, b"onetwo and a half");
            assert!(ended);
        }
        assert!(
            !decode(&bytes[..bytes.len() - 1], 7).unwrap().2,
            "a missing end is noticed"
        );
        assert!(
            decode(&[&bytes[..], b"x"].concat(), 7).is_err(),
            "so is one byte too many"
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = file(&[b"one", b"two"]);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let whole = decode(&changed, 1000).is_ok_and(|(_, _, ended)| ended);
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn a_missing_or_exchanged_block_is_noticed() {
        let bytes = file(&[b"aaa", b"bbb", b"ccc"]);
        let start = HEADER_BYTES + b"members".len();
        let block = BLOCK_HEADER_BYTES + 3;
        let mut missing = bytes.clone();
        missing.drain(start + block..start + 2 * block);
        assert!(decode(&missing, 1000).is_err());
        let mut exchanged = bytes[..start].to_vec();
        exchanged.extend_from_slice(&bytes[start + block..start + 2 * block]);
        exchanged.extend_from_slice(&bytes[start..start + block]);
        exchanged.extend_from_slice(&bytes[start + 2 * block..]);
        assert!(decode(&exchanged, 1000).is_err());
    }
}
