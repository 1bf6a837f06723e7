//! The keys of the index, one file each. Tags are on disk: never reuse one.

pub(crate) mod claims;
pub(crate) mod committed;
pub(crate) mod cursor;
pub(crate) mod entry;
pub(crate) mod record;
pub(crate) mod segment;

pub(crate) const TAG_ENTRY: u8 = 1;
pub(crate) const TAG_RECORD: u8 = 2;
pub(crate) const TAG_CURSOR: u8 = 3;
pub(crate) const TAG_COMMITTED: u8 = 4;
pub(crate) const TAG_CLAIMS: u8 = 5;
pub(crate) const TAG_SEGMENT: u8 = 6;

/// Big-endian, so that keys sort as numbers do.
fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
