//! A log entry: the leader's stamp, and the commands it gathered.
//!
//! ```text
//! entry     = version:u8 stamp_ms check hunts:[str] directory:[item] command...
//! check     = 0 | 1 index digest:16
//! item      = command-length hunts:[hunt-index]
//! ```
//! The directory tells which hunts a command concerns (in the order the command
//! itself names them), so that a reader of one hunt's history skips the others
//! undecoded.

use super::batch::{Body, CommandRef, EncodedCommand, check_distinct};
use super::{DecodeError, Put, Reader};
use crate::level::FIRST_LEVEL;
use crate::{Digest, DigestCheck};
use bytes::Bytes;
use std::collections::HashMap;

const VERSION: u8 = 1;

/// Gathers commands into one entry.
#[derive(Debug)]
pub struct EntryBuilder {
    head: Vec<u8>,
    hunts: Vec<u8>,
    /// Looked up, never iterated: the order in the entry is that of first
    /// mention.
    hunt_indexes: HashMap<Box<str>, usize>,
    directory: Vec<u8>,
    commands: Vec<Bytes>,
    commands_bytes: usize,
    events: u64,
}

impl EntryBuilder {
    /// Starts an entry with the proposer's time (milliseconds since 1970) and
    /// what the leader's own machine has come to.
    #[must_use]
    pub fn new(stamp_ms: u64, check: Option<DigestCheck>) -> Self {
        let mut head = Vec::with_capacity(64);
        head.put_u8(VERSION);
        head.put_varint(stamp_ms);
        head.put_u8(check.is_some().into());
        if let Some(check) = check {
            head.put_varint(check.index);
            head.put_raw(&check.digest.0);
        }
        Self {
            head,
            hunts: Vec::new(),
            hunt_indexes: HashMap::new(),
            directory: Vec::new(),
            commands: Vec::new(),
            commands_bytes: 0,
            events: 0,
        }
    }

    /// Adds a command.
    ///
    /// # Panics
    /// Never: an [`EncodedCommand`] is whole.
    pub fn push(&mut self, command: &EncodedCommand) {
        let bytes = command.bytes();
        self.directory.put_len(bytes.len());
        match CommandRef::decode(bytes).expect("encoded by this crate") {
            CommandRef::OpenSession { .. } | CommandRef::RaiseLevel { .. } => {
                self.directory.put_len(0);
            }
            CommandRef::Batch(batch) => {
                let body = Body::decode(batch.body).expect("encoded by this crate");
                self.directory.put_len(body.hunts.len());
                for index in 0..body.hunts.len() {
                    let global = self.hunt_index(body.hunts.name(index));
                    self.directory.put_len(global);
                }
            }
        }
        self.commands.push(bytes.clone());
        self.commands_bytes += bytes.len();
        self.events += u64::from(command.events());
    }

    fn hunt_index(&mut self, name: &str) -> usize {
        if let Some(&index) = self.hunt_indexes.get(name) {
            return index;
        }
        let index = self.hunt_indexes.len();
        self.hunts.put_str(name);
        self.hunt_indexes.insert(name.into(), index);
        index
    }

    /// The entry's size so far; it ends up at most 20 bytes larger.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.head.len() + self.hunts.len() + self.directory.len() + self.commands_bytes
    }

    /// How many events it carries so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many commands it carries so far.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// The entry. Without commands it is a tick: it moves time, and fires what
    /// is due.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let mut out = Vec::with_capacity(self.len_bytes() + 20);
        out.put_raw(&self.head);
        out.put_len(self.hunt_indexes.len());
        out.put_raw(&self.hunts);
        out.put_len(self.commands.len());
        out.put_raw(&self.directory);
        for command in &self.commands {
            out.put_raw(command);
        }
        out.into()
    }
}

/// An entry, borrowed. Decoding reads the head and the directory; commands are
/// decoded when asked for.
#[derive(Debug, Clone)]
pub struct EntryRef<'a> {
    stamp_ms: u64,
    check: Option<DigestCheck>,
    hunts: Vec<&'a str>,
    commands: Commands<'a>,
}

impl<'a> EntryRef<'a> {
    /// Reads the head and checks the directory.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later release.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("entry")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion {
                what: "entry",
                version,
                supported: VERSION,
            });
        }
        let stamp_ms = reader.varint("stamp")?;
        let check = match reader.u8("digest check")? {
            0 => None,
            1 => Some(DigestCheck {
                index: reader.varint("digest index")?,
                digest: Digest(reader.array("digest")?),
            }),
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "digest check",
                    tag,
                });
            }
        };
        let mut hunts = Vec::new();
        for _ in 0..reader.count("hunts")? {
            hunts.push(reader.str("hunt")?);
        }
        let remaining = reader.count("commands")?;
        let directory = reader;
        let mut commands_bytes = 0_usize;
        for _ in 0..remaining {
            let item = DirectoryItem::read(&mut reader)?;
            commands_bytes = commands_bytes.saturating_add(item.bytes);
            let mut indexes = item.hunts;
            while let Some(index) = indexes.next()? {
                if index >= hunts.len() {
                    return Err(DecodeError::OutOfRange { what: "hunt index" });
                }
            }
        }
        let bodies = Reader::new(reader.raw(commands_bytes, "commands")?);
        reader.finish("entry")?;
        Ok(Self {
            stamp_ms,
            check,
            hunts,
            commands: Commands {
                remaining,
                directory,
                bodies,
            },
        })
    }

    /// The proposer's time, milliseconds since 1970.
    #[must_use]
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// What the leader's machine had come to.
    #[must_use]
    pub fn check(&self) -> Option<DigestCheck> {
        self.check
    }

    /// The hunts its commands concern, in order of first mention.
    #[must_use]
    pub fn hunts(&self) -> &[&'a str] {
        &self.hunts
    }

    /// Its commands, undecoded, in order.
    #[must_use]
    pub fn commands(&self) -> Commands<'a> {
        self.commands.clone()
    }

    /// Reads all of it, so that a second reading cannot fail.
    ///
    /// # Errors
    /// When anything is damaged, or the directory does not tell what the
    /// commands say.
    pub fn validate(&self) -> Result<Needs<'a>, DecodeError> {
        let mut needs = Needs {
            level: FIRST_LEVEL,
            raises: None,
        };
        if self.hunts.len() > 1 {
            check_distinct(&self.hunts)?;
        }
        // Of each hunt the last command that names it: the entry's names are distinct,
        // so a command's are if none of them is listed twice.
        let mut named_by = vec![None; self.hunts.len()];
        for (number, item) in self.commands().enumerate() {
            let mut listed = item.hunts;
            let command = item.decode()?;
            if let CommandRef::RaiseLevel { level, release } = command
                && needs.raises.is_none_or(|(highest, _)| highest < level)
            {
                needs.raises = Some((level, release));
            }
            if let CommandRef::Batch(batch) = command {
                let body = Body::decode(batch.body)?;
                for index in 0..body.hunts.len() {
                    let Some(global) = listed.next()? else {
                        return Err(DecodeError::Contradiction { what: "directory" });
                    };
                    if self.hunts[global] != body.hunts.name(index) {
                        return Err(DecodeError::Contradiction { what: "directory" });
                    }
                    if named_by[global].replace(number) == Some(number) {
                        return Err(DecodeError::Contradiction { what: "hunts" });
                    }
                }
                needs.level = needs.level.max(body.validate_events()?);
            }
            if listed.next()?.is_some() {
                return Err(DecodeError::Contradiction { what: "directory" });
            }
        }
        Ok(needs)
    }
}

/// What an entry asks of the machine that is to apply it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs<'a> {
    /// The feature level that has to be in force before it.
    pub level: u32,
    /// The highest level that it raises to, and the first release that reads
    /// that.
    pub raises: Option<(u32, &'a str)>,
}

struct DirectoryItem<'a> {
    bytes: usize,
    hunts: HuntIndexes<'a>,
}

impl<'a> DirectoryItem<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = usize::try_from(reader.varint("command length")?).map_err(|_| {
            DecodeError::OutOfRange {
                what: "command length",
            }
        })?;
        let remaining = reader.count("hunts")?;
        let hunts = HuntIndexes {
            remaining,
            reader: *reader,
        };
        for _ in 0..remaining {
            reader.varint("hunt index")?;
        }
        Ok(Self { bytes, hunts })
    }
}

/// The hunts of one command, as indexes into the entry's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HuntIndexes<'a> {
    remaining: usize,
    reader: Reader<'a>,
}

impl HuntIndexes<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<usize>, DecodeError> {
        let Some(remaining) = self.remaining.checked_sub(1) else {
            return Ok(None);
        };
        self.remaining = remaining;
        let index = self.reader.varint("hunt index")?;
        usize::try_from(index)
            .map(Some)
            .map_err(|_| DecodeError::OutOfRange { what: "hunt index" })
    }
}

/// The commands of an entry, undecoded, in order.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    remaining: usize,
    directory: Reader<'a>,
    bodies: Reader<'a>,
}

impl<'a> Iterator for Commands<'a> {
    type Item = EncodedCommandRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let item = DirectoryItem::read(&mut self.directory).expect("checked by decode");
        let bytes = self
            .bodies
            .raw(item.bytes, "command")
            .expect("checked by decode");
        Some(EncodedCommandRef {
            bytes,
            hunts: item.hunts,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Commands<'_> {}

/// One command of an entry, undecoded.
#[derive(Debug, Clone, Copy)]
pub struct EncodedCommandRef<'a> {
    bytes: &'a [u8],
    pub(crate) hunts: HuntIndexes<'a>,
}

impl<'a> EncodedCommandRef<'a> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads its head.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode(&self) -> Result<CommandRef<'a>, DecodeError> {
        CommandRef::decode(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of one hunt with one batch, which names `named` and is listed with
    /// these indexes.
    fn entry(named: &[&str], listed: &[u64]) -> Vec<u8> {
        let mut command = vec![1];
        command.put_str("session");
        command.put_varint(7);
        command.put_varint(1);
        command.put_len(named.len());
        named.iter().for_each(|name| command.put_str(name));
        // No expectations, no events.
        command.put_raw(&[0, 0]);

        let mut entry = vec![VERSION, 0, 0, 1];
        entry.put_str("hunt");
        entry.put_len(1);
        entry.put_len(command.len());
        entry.put_len(listed.len());
        listed.iter().for_each(|index| entry.put_varint(*index));
        entry.put_raw(&command);
        entry
    }

    #[test]
    fn a_directory_lists_each_hunt_of_a_command_once() {
        let validated = |named: &[&str], listed: &[u64]| {
            let entry = entry(named, listed);
            EntryRef::decode(&entry).and_then(|entry| entry.validate().map(drop))
        };
        let contradiction = |what| Err(DecodeError::Contradiction { what });
        assert_eq!(validated(&["hunt"], &[0]), Ok(()));
        assert_eq!(validated(&[], &[]), Ok(()));
        assert_eq!(
            validated(&["hunt", "hunt"], &[0, 0]),
            contradiction("hunts")
        );
        for (named, listed) in [
            (&["hunt", "hunt"][..], &[0][..]),
            (&["hunt"], &[0, 0]),
            (&["hunt"], &[]),
            (&["other"], &[0]),
        ] {
            assert_eq!(validated(named, listed), contradiction("directory"));
        }
        let out_of_range = DecodeError::OutOfRange { what: "hunt index" };
        assert_eq!(validated(&["hunt"], &[1]), Err(out_of_range));
    }
}
