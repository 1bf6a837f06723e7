//! A hunt's definition, as it stands in the log and in snapshots.

use super::event::{put_timestamp, read_timestamp};
use super::{DecodeError, Put, Reader};
use crate::{Clue, Hint, HuntDefinition, Timestamp, Treasure};
use bytes::Bytes;

/// A definition, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedDefinition<'a>(pub(crate) &'a [u8]);

impl EncodedDefinition<'_> {
    /// Decodes it.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode(&self) -> Result<HuntDefinition, DecodeError> {
        let mut reader = Reader::new(self.0);
        let definition = HuntDefinition {
            title: string(&mut reader, "title")?,
            clues: list(&mut reader, "clues", read_clue)?,
            treasures: list(&mut reader, "treasures", read_treasure)?,
            starts_at: optional_timestamp(&mut reader)?,
            ends_at: optional_timestamp(&mut reader)?,
            max_players: reader.varint_u32("most players")?,
        };
        reader.finish("definition")?;
        Ok(definition)
    }
}

pub(crate) fn put_definition(out: &mut Vec<u8>, definition: &HuntDefinition) {
    out.put_str(&definition.title);
    out.put_len(definition.clues.len());
    for clue in &definition.clues {
        put_clue(out, clue);
    }
    out.put_len(definition.treasures.len());
    for treasure in &definition.treasures {
        out.put_str(&treasure.id);
        out.put_str(&treasure.title);
        out.put_varint(treasure.limit.into());
        out.put_varint(treasure.points.into());
        put_strings(out, &treasure.requires);
    }
    for time in [definition.starts_at, definition.ends_at] {
        out.put_u8(time.is_some().into());
        if let Some(time) = time {
            put_timestamp(out, time);
        }
    }
    out.put_varint(definition.max_players.into());
}

fn put_clue(out: &mut Vec<u8>, clue: &Clue) {
    out.put_str(&clue.id);
    out.put_str(&clue.title);
    put_strings(out, &clue.requires);
    out.put_varint(clue.points.into());
    out.put_bytes(&clue.answer_salt);
    out.put_len(clue.answer_hashes.len());
    for hash in &clue.answer_hashes {
        out.put_raw(hash);
    }
    out.put_varint(clue.max_attempts.into());
    out.put_len(clue.hints.len());
    for hint in &clue.hints {
        out.put_str(&hint.id);
        out.put_varint(hint.cost.into());
    }
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    out.put_len(strings.len());
    for string in strings {
        out.put_str(string);
    }
}

fn read_clue(reader: &mut Reader<'_>) -> Result<Clue, DecodeError> {
    Ok(Clue {
        id: string(reader, "clue")?,
        title: string(reader, "title")?,
        requires: list(reader, "requirements", |r| string(r, "clue"))?,
        points: reader.varint_u32("points")?,
        answer_salt: Bytes::copy_from_slice(reader.bytes("answer salt")?),
        answer_hashes: list(reader, "answer hashes", |r| r.array("answer hash"))?,
        max_attempts: reader.varint_u32("most attempts")?,
        hints: list(reader, "hints", |r| {
            Ok(Hint {
                id: string(r, "hint")?,
                cost: r.varint_u32("cost")?,
            })
        })?,
    })
}

fn read_treasure(reader: &mut Reader<'_>) -> Result<Treasure, DecodeError> {
    Ok(Treasure {
        id: string(reader, "treasure")?,
        title: string(reader, "title")?,
        limit: reader.varint_u32("limit")?,
        points: reader.varint_u32("points")?,
        requires: list(reader, "requirements", |r| string(r, "clue"))?,
    })
}

fn string(reader: &mut Reader<'_>, what: &'static str) -> Result<String, DecodeError> {
    reader.str(what).map(str::to_owned)
}

fn optional_timestamp(reader: &mut Reader<'_>) -> Result<Option<Timestamp>, DecodeError> {
    match reader.u8("time")? {
        0 => Ok(None),
        1 => read_timestamp(reader).map(Some),
        tag => Err(DecodeError::UnknownTag { what: "time", tag }),
    }
}

/// Grows with what is read, so that a damaged count reserves nothing.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    what: &'static str,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
