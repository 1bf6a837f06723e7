//! Reading a snapshot. It may be damaged: nothing is believed, and nothing
//! larger than what was read is reserved.

use super::{
    Frame, MAGIC, RestoreError, VERSION_1, VERSION_2, check_limit_list, check_limits, read_result,
};
use crate::codec::definition::EncodedDefinition;
use crate::codec::event::read_timestamp;
use crate::codec::{DecodeError, Reader};
use crate::hunt::{ClueIndex, EntryIndex, Hunt, LastSolve, Player, PlayerStatus, Rules};
use crate::level::{FIRST_LEVEL, LEVELS, LevelRange, release_of};
use crate::limits::NUMBERED;
use crate::sessions::{Queued, ResultQueue, Session, Sessions};
use crate::view::{Digests, Hunts};
use crate::{Digest, HuntState, Limits, LogId, Machine, View};
use huntlog_planted::{Bug, is_planted};
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

impl Machine {
    /// Reads a snapshot back into a machine that goes on where the one it was
    /// taken from stood.
    ///
    /// # Errors
    /// When it is damaged, of a level that this release does not read, or was
    /// made under other limits.
    pub fn restore(snapshot: impl Read, limits: Limits) -> Result<Self, RestoreError> {
        let mut frames = FrameReader::start(snapshot)?;
        let version = frames.version;
        let mut parts = Parts::head(version, frames.next()?, &limits)?;
        loop {
            let (kind, content) = frames.next()?;
            if kind == Frame::End {
                let mut reader = Reader::new(content);
                let theirs = Digest(reader.array("hash")?);
                reader.finish("hash")?;
                frames.check(theirs)?;
                return parts.assemble();
            }
            parts.add(kind, Reader::new(content))?;
        }
    }
}

fn contradiction<T>(what: &'static str) -> Result<T, DecodeError> {
    Err(DecodeError::Contradiction { what })
}

/// What has been read so far.
struct Parts {
    view: View,
    /// The hunt whose players are being read.
    hunt: Option<Hunt>,
    hunts: Hunts,
    sessions: Vec<Session>,
    results: ResultQueue,
    idle_clock_ms: u64,
    uses: u64,
    /// Frames come in the order of their tags.
    stage: Frame,
}

impl Parts {
    fn head(
        version: u8,
        (kind, content): (Frame, &[u8]),
        limits: &Limits,
    ) -> Result<Self, RestoreError> {
        if kind != Frame::Head {
            return Err(DecodeError::Contradiction { what: "snapshot" }.into());
        }
        let mut reader = Reader::new(content);
        let level = match version {
            VERSION_1 => {
                let mut theirs = [0; NUMBERED];
                for value in &mut theirs {
                    *value = reader.varint("limit")?;
                }
                check_limits(theirs, limits)?;
                FIRST_LEVEL
            }
            _ => {
                let level = read_level(&mut reader)?;
                check_limit_list(&mut reader, limits)?;
                level
            }
        };
        let mut view = View::new(reader.varint_u32("partition")?, limits.clone());
        view.level = level;
        if flag(&mut reader)? {
            view.last_applied = Some(LogId {
                term: reader.varint("term")?,
                node_id: reader.varint("node id")?,
                index: reader.varint("log index")?,
            });
        }
        view.time_ms = reader.varint("time")?;
        view.end_offset = reader.varint("end offset")?;
        let parts = Self {
            view,
            hunt: None,
            hunts: Hunts::default(),
            sessions: Vec::new(),
            idle_clock_ms: reader.varint("idle clock")?,
            uses: reader.varint("uses")?,
            results: ResultQueue::starting_at(first_result(&mut reader)?),
            stage: Frame::Head,
        };
        reader.finish("head")?;
        Ok(parts)
    }

    fn add(&mut self, kind: Frame, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let in_order = match kind {
            Frame::Head | Frame::End => false,
            Frame::Hunt => matches!(self.stage, Frame::Head | Frame::Hunt | Frame::Player),
            Frame::Player => self.hunt.is_some(),
            Frame::Session | Frame::Result => self.stage as u8 <= kind as u8,
            Frame::Digests => (self.stage as u8) < kind as u8,
        };
        if !in_order {
            return contradiction("order of frames");
        }
        if kind != Frame::Player {
            self.close_hunt()?;
        }
        self.stage = kind;
        match kind {
            Frame::Hunt => self.hunt = Some(read_hunt(&mut reader)?),
            Frame::Player => {
                let hunt = self.hunt.as_mut().expect("checked above");
                add_player(hunt, &mut reader)?;
            }
            Frame::Session => {
                let session = read_session(&mut reader)?;
                let ordered = self
                    .sessions
                    .last()
                    .is_none_or(|last| last.name < session.name);
                if !ordered || session.used_ms > self.idle_clock_ms || session.used >= self.uses {
                    return contradiction("session");
                }
                self.sessions.push(session);
            }
            Frame::Result => {
                let result = read_result(&mut reader)?;
                let previous = reader.varint("previous result")?;
                self.results.push(Queued {
                    result,
                    previous,
                    slot: u32::MAX,
                });
            }
            Frame::Digests => {
                let mut digests = Digests::default();
                let first = reader.varint("first digest")?;
                let count = reader.count("digests")? as u64;
                if first.checked_add(count).is_none() {
                    return contradiction("digests");
                }
                for index in first..first + count {
                    digests.push(index, Digest(reader.array("digest")?), u32::MAX);
                }
                digests.first = first;
                self.view.digests = digests;
            }
            Frame::Head | Frame::End => unreachable!("refused above"),
        }
        reader.finish("snapshot frame")
    }

    fn close_hunt(&mut self) -> Result<(), DecodeError> {
        if let Some(hunt) = self.hunt.take() {
            if self.hunts.slot(&hunt.id).is_some() {
                return contradiction("hunts");
            }
            self.hunts.add(hunt);
        }
        Ok(())
    }

    fn assemble(mut self) -> Result<Machine, RestoreError> {
        self.close_hunt()?;
        let last_digest = self.view.digests.first + self.view.digests.list.len() as u64;
        let complete = self.stage == Frame::Digests
            && self
                .view
                .last_applied
                .is_none_or(|last| last.index.checked_add(1) == Some(last_digest));
        if !complete {
            return Err(DecodeError::Contradiction { what: "digests" }.into());
        }
        self.view.hunts = self.hunts;
        if is_planted(Bug::DedupWipedByRestart) {
            self.sessions.clear();
        }
        let (sessions, session_index) =
            Sessions::restore(self.sessions, self.results, self.idle_clock_ms, self.uses);
        self.view.sessions = sessions;
        Ok(Machine::from_parts(self.view, session_index))
    }
}

/// The level in force, which this release has to know.
fn read_level(reader: &mut Reader<'_>) -> Result<u32, RestoreError> {
    let level = reader.varint_u32("level")?;
    let release = reader.str("release")?;
    if level < LEVELS {
        return Err(DecodeError::OutOfRange { what: "level" }.into());
    }
    match release_of(level) {
        Some(known) if known == release => Ok(level),
        Some(_) => Err(DecodeError::Contradiction { what: "release" }.into()),
        None => Err(RestoreError::LevelUnknown {
            level,
            release: release.to_owned(),
            supported: LevelRange::SUPPORTED,
        }),
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        tag => Err(DecodeError::UnknownTag { what: "flag", tag }),
    }
}

/// Numbers start at 1, and one a nanosecond would not reach 2^63.
fn first_result(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let what = "first result";
    match reader.varint(what)? {
        first @ 1..0x8000_0000_0000_0000 => Ok(first),
        _ => Err(DecodeError::OutOfRange { what }),
    }
}

/// An index into a list of `len`.
fn index(reader: &mut Reader<'_>, what: &'static str, len: usize) -> Result<usize, DecodeError> {
    usize::try_from(reader.varint(what)?)
        .ok()
        .filter(|&index| index < len)
        .ok_or(DecodeError::OutOfRange { what })
}

fn read_hunt(reader: &mut Reader<'_>) -> Result<Hunt, DecodeError> {
    let id = reader.str("hunt")?;
    let definition = EncodedDefinition(reader.bytes("definition")?).decode()?;
    let Ok(rules) = Rules::new(definition) else {
        return contradiction("definition");
    };
    let mut hunt = Hunt::new(id.into(), rules);
    hunt.state = HuntState::read(reader)?;
    hunt.revision = reader.varint("revision")?;
    hunt.finishers = reader.varint_u32("finishers")?;
    for stats in &mut hunt.clues {
        *stats = (reader.varint("attempts")?, reader.varint("solves")?);
    }
    for winners in &mut hunt.winners {
        for _ in 0..reader.count("winners")? {
            winners.push_back(reader.str("winner")?.into());
        }
    }
    let mut blocks = Vec::new();
    for _ in 0..reader.count("entry index")? {
        blocks.push((reader.varint("block")?, reader.bytes("bitmap")?));
    }
    hunt.entries = EntryIndex::from_blocks(&blocks)?;
    Ok(hunt)
}

fn add_player(hunt: &mut Hunt, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let definition = &hunt.rules.definition;
    let clues = definition.clues.len();
    let id: Arc<str> = reader.str("player")?.into();
    let display_name = reader.str("display name")?;
    let tag = reader.u8("player status")?;
    let status = [
        PlayerStatus::Active,
        PlayerStatus::Withdrawn,
        PlayerStatus::Disqualified,
    ]
    .into_iter()
    .find(|status| *status as u8 == tag)
    .ok_or(DecodeError::UnknownTag {
        what: "player status",
        tag,
    })?;
    let mut player = Player::new(
        Arc::clone(&id),
        display_name,
        reader.varint("registration")?,
    );
    player.status = status;
    player.points = reader.varint("points")?;
    if flag(reader)? {
        player.last_solve = Some(LastSolve {
            offset: reader.varint("offset")?,
            time_ms: reader.varint("time")?,
            occurred_at: if flag(reader)? {
                Some(read_timestamp(reader)?)
            } else {
                None
            },
        });
    }
    for _ in 0..reader.count("solved clues")? {
        player.add_solved(index(reader, "clue", clues)?);
    }
    for _ in 0..reader.count("attempts")? {
        let clue: ClueIndex = index(reader, "clue", clues)?;
        player.attempts.push((clue, reader.varint_u32("attempts")?));
    }
    for _ in 0..reader.count("hints")? {
        let clue = index(reader, "clue", clues)?;
        let hint = index(reader, "hint", definition.clues[clue].hints.len())?;
        player.hints.push((clue, hint));
    }
    for _ in 0..reader.count("treasures")? {
        let treasure = index(reader, "treasure", definition.treasures.len())?;
        player.treasures.push(treasure);
    }
    if status == PlayerStatus::Active {
        hunt.ranking.insert(player.standing());
    }
    if hunt.players.insert(id, Arc::new(player)).is_some() {
        return contradiction("players");
    }
    Ok(())
}

fn read_session(reader: &mut Reader<'_>) -> Result<Session, DecodeError> {
    Ok(Session {
        name: reader.str("session")?.into(),
        nonce: reader.array("nonce")?,
        epoch: reader.varint("epoch")?,
        last_sequence: reader.varint("sequence")?,
        used_ms: reader.varint("idle clock")?,
        used: reader.varint("uses")?,
        fresh: flag(reader)?,
        newest: reader.varint("newest result")?,
        last: read_result(reader)?,
    })
}

/// Reads frame by frame, and hashes what it reads.
struct FrameReader<R> {
    version: u8,
    input: BufReader<R>,
    hasher: Xxh3,
    /// Length and content of the latest frame: part of the hash once another
    /// follows.
    frame: Vec<u8>,
    content_at: usize,
}

const BUFFER_BYTES: usize = 64 << 10;

impl<R: Read> FrameReader<R> {
    fn start(input: R) -> Result<Self, RestoreError> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
        let mut head = [0; MAGIC.len() + 1];
        input.read_exact(&mut head).map_err(cut_short)?;
        if head[..MAGIC.len()] != MAGIC[..] {
            return Err(RestoreError::NotASnapshot);
        }
        let version = head[MAGIC.len()];
        if ![VERSION_1, VERSION_2].contains(&version) {
            return Err(RestoreError::VersionUnknown(version));
        }
        Ok(Self {
            version,
            input,
            hasher: Xxh3::new(),
            content_at: head.len(),
            frame: head.to_vec(),
        })
    }

    fn next(&mut self) -> Result<(Frame, &[u8]), RestoreError> {
        self.hasher.update(&self.frame);
        self.frame.clear();
        let mut byte = [0];
        loop {
            self.input.read_exact(&mut byte).map_err(cut_short)?;
            self.frame.push(byte[0]);
            if byte[0] & 0x80 == 0 || self.frame.len() == 10 {
                break;
            }
        }
        let len = Reader::new(&self.frame).varint("frame length")?;
        self.content_at = self.frame.len();
        let read = (&mut self.input).take(len).read_to_end(&mut self.frame)?;
        if read as u64 != len {
            return Err(DecodeError::Truncated { what: "snapshot" }.into());
        }
        let (&tag, content) = self.frame[self.content_at..]
            .split_first()
            .ok_or(DecodeError::Truncated { what: "frame" })?;
        Ok((Frame::from_tag(tag)?, content))
    }

    /// Compares the hash of everything before the latest frame.
    fn check(&mut self, theirs: Digest) -> Result<(), RestoreError> {
        let ours = Digest(self.hasher.digest128().to_le_bytes());
        if ours != theirs {
            return Err(RestoreError::HashMismatch { ours, theirs });
        }
        let mut rest = [0];
        match self.input.read(&mut rest)? {
            0 => Ok(()),
            _ => Err(DecodeError::Trailing {
                what: "snapshot",
                bytes: 1,
            }
            .into()),
        }
    }
}

/// An early end is damage, not a failing disk.
fn cut_short(error: io::Error) -> RestoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Truncated { what: "snapshot" }.into(),
        _ => error.into(),
    }
}
