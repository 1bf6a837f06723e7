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

/// What one of the two slots says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nothing was ever written to it.
    Blank,
    Valid(HighWater),
    Damaged,
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots([Slot; 2]);

impl Slots {
    pub(crate) fn valid(&self) -> impl Iterator<Item = HighWater> {
        self.0.iter().filter_map(|slot| match slot {
            Slot::Valid(high_water) => Some(*high_water),
            _ => None,
        })
    }

    /// The higher of the valid slots.
    pub(crate) fn best(&self) -> Option<HighWater> {
        self.valid().max()
    }

    /// Whether a slot does not verify. The next write goes there, if the other one does.
    pub(crate) fn damaged(&self) -> bool {
        self.0.contains(&Slot::Damaged)
    }
}

impl Mark {
    /// What the slots say, and nothing is created; `None` if there is no mark.
    pub(crate) fn load(files: &dyn Files, salt: &[u8; 16]) -> io::Result<Option<Slots>> {
        match files.open(NAME).and_then(|file| slots(&*file, salt)) {
            Ok(slots) => Ok(Some(slots)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(explain(error)),
        }
    }

    /// Opens the mark, creating it if it is absent, and returns what its slots say.
    pub(crate) fn open(files: &dyn Files, salt: &[u8; 16]) -> io::Result<(Self, Slots)> {
        let file = match files.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = files.create(NAME)?;
                file.set_size(2 * SLOT_BYTES as u64)?;
                file.sync()?;
                files.sync_dir("")?;
                file
            }
            Err(error) => return Err(explain(error)),
        };
        let slots = slots(&*file, salt)?;
        let best = slots.best();
        let next_slot = u64::from(best.is_some_and(|best| slots.0[0] == Slot::Valid(best)));
        Ok((Self { file, next_slot }, slots))
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

/// What the operating system says of a directory in the mark's place leaves open what to do.
fn explain(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::IsADirectory {
        return error;
    }
    let what = "a directory is where the high-water mark's file belongs; move it away, and the next start writes the mark anew";
    io::Error::new(error.kind(), what)
}

fn slots(file: &dyn File, salt: &[u8; 16]) -> io::Result<Slots> {
    let bytes = read_up_to(file, 0, 2 * SLOT_BYTES)?;
    let (first, second) = bytes.split_at(bytes.len().min(SLOT_BYTES));
    let slot = |bytes: &[u8]| match decode(bytes, salt) {
        Some(high_water) => Slot::Valid(high_water),
        None if bytes.iter().all(|byte| *byte == 0) => Slot::Blank,
        None => Slot::Damaged,
    };
    Ok(Slots([slot(first), slot(second)]))
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
        assert_eq!((found.best(), found.damaged()), (None, false));
        for offset in [100, 200, 300] {
            mark.write(at(offset), &salt).unwrap();
            let (_, found) = Mark::open(&files, &salt).unwrap();
            assert_eq!((found.best(), found.damaged()), (Some(at(offset)), false));
        }
        // The write after a reopen must not replace the slot that is still the best.
        let (mut mark, _) = Mark::open(&files, &salt).unwrap();
        mark.write(at(400), &salt).unwrap();
        let file = files.open(NAME).unwrap();
        let newest_slot = mark.next_slot ^ 1;
        file.write_at(&[0xff], newest_slot * SLOT_BYTES as u64 + 20)
            .unwrap();
        let (_, found) = Mark::open(&files, &salt).unwrap();
        assert_eq!((found.best(), found.damaged()), (Some(at(300)), true));
        assert_eq!(
            Mark::open(&files, &[4; 16]).unwrap().1.best(),
            None,
            "another directory's mark"
        );
    }

    #[test]
    fn a_directory_in_its_place_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let files = OsFiles::new(dir.path());
        std::fs::create_dir(dir.path().join(NAME)).unwrap();
        for error in [
            Mark::load(&files, &[3; 16]).unwrap_err(),
            Mark::open(&files, &[3; 16]).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains("move it away"), "{error}");
        }
    }
}
