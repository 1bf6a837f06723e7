//! The encodings of the log: hand-written, versioned, compact.
//!
//! Numbers are LEB128 varints, strings and byte strings carry their length
//! first. Everything that is read may be damaged, so decoding returns a
//! [`DecodeError`], never panics, and never allocates more than the input is
//! long.
//!
//! The bytes decide digests, so an encoding never changes: a new one gets a new
//! version number, and both stay readable.

pub(crate) mod batch;
pub(crate) mod definition;
pub(crate) mod entry;
pub(crate) mod event;
pub(crate) mod record;
pub(crate) mod runs;

use thiserror::Error;

/// Why bytes are not what they should be. The entry or record they come from is
/// damaged, or was written by a later release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends too early.
    #[error("{what} is cut short")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A number is larger than its type.
    #[error("{what} is out of range")]
    OutOfRange {
        /// What was being read.
        what: &'static str,
    },
    /// A string is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// What was being read.
        what: &'static str,
    },
    /// A version this release does not read.
    #[error("{what} has version {version}, this release reads version {supported}")]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// The version found.
        version: u8,
        /// The version known.
        supported: u8,
    },
    /// A tag that means nothing.
    #[error("{what} has the unknown tag {tag}")]
    UnknownTag {
        /// What was being read.
        what: &'static str,
        /// The tag found.
        tag: u8,
    },
    /// Bytes are left over.
    #[error("{what} is followed by {bytes} bytes too many")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How many are left.
        bytes: usize,
    },
    /// Two parts contradict each other.
    #[error("{what} contradicts the rest")]
    Contradiction {
        /// The part at fault.
        what: &'static str,
    },
}

/// Appends the parts of an encoding to a buffer.
pub(crate) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_raw(&mut self, bytes: &[u8]);

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8((value & 0x7f) as u8);
    }

    fn put_len(&mut self, len: usize) {
        self.put_varint(len as u64);
    }

    /// Signed numbers, small for small magnitudes.
    fn put_zigzag(&mut self, value: i64) {
        self.put_varint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_len(bytes.len());
        self.put_raw(bytes);
    }

    fn put_str(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes the parts of an encoding from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn raw(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::OutOfRange { what });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::OutOfRange { what })
    }

    pub(crate) fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint(what)?).map_err(|_| DecodeError::OutOfRange { what })
    }

    pub(crate) fn zigzag(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let value = self.varint(what)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of items that follow. Each takes at least one byte, so a count
    /// above what is left is damage, found before anything is reserved for it.
    pub(crate) fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(DecodeError::Truncated { what }),
        }
    }

    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(what)?;
        self.raw(len, what)
    }

    pub(crate) fn str(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| DecodeError::NotUtf8 { what })
    }

    /// Refuses what is left over.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing {
                what,
                bytes: self.rest.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(unsigned: u64, signed: i64) {
            let mut bytes = Vec::new();
            bytes.put_varint(unsigned);
            bytes.put_zigzag(signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("n"), Ok(unsigned));
            prop_assert_eq!(reader.zigzag("n"), Ok(signed));
            prop_assert_eq!(reader.finish("n"), Ok(()));
        }

        #[test]
        fn no_number_is_longer_than_ten_bytes(bytes in proptest::collection::vec(0x80_u8.., 10..20)) {
            prop_assert!(Reader::new(&bytes).varint("n").is_err());
        }
    }

    #[test]
    fn extremes_survive() {
        for value in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Reader::new(&bytes).varint("n"), Ok(value));
        }
        for value in [0, -1, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_zigzag(value);
            assert_eq!(Reader::new(&bytes).zigzag("n"), Ok(value));
        }
    }
}
