//! The high-water mark: the end of the last synced batch, as far as this unsynced file knows.
//!
//! Two slots in sectors of their own are written in turn, so that one torn write leaves the other. After a kill the mark
//! is exact; after a power cut it may be old, never too high. A slot that does not verify counts as absent.

use crate::files::{File, Files, read_up_to};
use crate::segment::{Position, u32_at, u64_at};
use std::io;
use std::sync::Arc;

pub(crate) const NAME: &str = "mark";
const SLOT_BYTES: usize = 512;
const USED_BYTES: usize = 36;
const MAGIC: [u8; 8] = *b"hl-mark\x01";

/// Where everything is synced, and the number of the batch that ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HighWater {
    pub position: Position,
    pub batch: u64,
}

pub(crate) struct Mark {
    file: Arc<dyn File>,
    next_slot: u64,
}

impl Mark {
    /// What each of the two slots says, and nothing is created; `None` if there is no mark.
    pub(crate) fn load(
        files: &dyn Files,
        salt: &[u8; 16],
    ) -> io::Result<Option<[Option<HighWater>; 2]>> {
        match files.open(NAME) {
            Ok(file) => slots(&*file, salt).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the mark, creating it if it is absent, and returns the higher of its valid slots.
    pub(crate) fn open(
        files: &dyn Files,
        salt: &[u8; 16],
    ) -> io::Result<(Self, Option<HighWater>)> {
        let file = match files.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = files.create(NAME)?;
                file.set_size(2 * SLOT_BYTES as u64)?;
                file.sync()?;
                files.sync_dir("")?;
                file
            }
            Err(error) => return Err(error),
        };
        let slots = slots(&*file, salt)?;
        let best = slots.iter().flatten().max().copied();
        let next_slot = u64::from(slots[0] == best && best.is_some());
        Ok((Self { file, next_slot }, best))
    }

    /// Raises the mark. Not synced: the next power cut may take it back, which opening allows for.
    pub(crate) fn write(&mut self, high_water: HighWater, salt: &[u8; 16]) -> io::Result<()> {
        self.file.write_at(
            &encode(high_water, salt),
            self.next_slot * SLOT_BYTES as u64,
        )?;
        self.next_slot ^= 1;
        Ok(())
    }
}

fn slots(file: &dyn File, salt: &[u8; 16]) -> io::Result<[Option<HighWater>; 2]> {
    let bytes = read_up_to(file, 0, 2 * SLOT_BYTES)?;
    let (first, second) = bytes.split_at(bytes.len().min(SLOT_BYTES));
    Ok([decode(first, salt), decode(second, salt)])
}

fn encode(high_water: HighWater, salt: &[u8; 16]) -> [u8; USED_BYTES] {
    let mut bytes = [0; USED_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&high_water.batch.to_le_bytes());
    bytes[16..24].copy_from_slice(&high_water.position.segment.to_le_bytes());
    bytes[24..32].copy_from_slice(&high_water.position.offset.to_le_bytes());
    let crc = checksum(&bytes[..32], salt);
    bytes[32..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], salt: &[u8; 16]) -> Option<HighWater> {
    if bytes.len() < USED_BYTES
        || bytes[..8] != MAGIC
        || checksum(&bytes[..32], salt) != u32_at(bytes, 32)
    {
        return None;
    }
    let position = Position {
        segment: u64_at(bytes, 16),
        offset: u64_at(bytes, 24),
    };
    Some(HighWater {
        position,
        batch: u64_at(bytes, 8),
    })
}

fn checksum(bytes: &[u8], salt: &[u8; 16]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(salt), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::OsFiles;

    fn at(offset: u64) -> HighWater {
        HighWater {
            position: Position { segment: 2, offset },
            batch: offset / 10,
        }
    }

    #[test]
    fn the_higher_slot_counts_and_a_torn_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = OsFiles::new(dir.path());
        let salt = [3; 16];
        let (mut mark, found) = Mark::open(&files, &salt).unwrap();
        assert_eq!(found, None);
        for offset in [100, 200, 300] {
            mark.write(at(offset), &salt).unwrap();
            assert_eq!(Mark::open(&files, &salt).unwrap().1, Some(at(offset)));
        }
        // The write after a reopen must not replace the slot that is still the best.
        let (mut mark, _) = Mark::open(&files, &salt).unwrap();
        mark.write(at(400), &salt).unwrap();
        let file = files.open(NAME).unwrap();
        let newest_slot = mark.next_slot ^ 1;
        file.write_at(&[0xff], newest_slot * SLOT_BYTES as u64 + 20)
            .unwrap();
        assert_eq!(Mark::open(&files, &salt).unwrap().1, Some(at(300)));
        assert_eq!(
            Mark::open(&files, &[4; 16]).unwrap().1,
            None,
            "another directory's mark"
        );
    }
}
