//! Writing a snapshot.

use super::{Frame, MAGIC, VERSION_1, VERSION_2, put_limit_list, put_limits, put_result};
use crate::codec::Put;
use crate::codec::definition::put_definition;
use crate::codec::event::put_timestamp;
use crate::hunt::{Hunt, Player};
use crate::level::{LEVELS, release_of};
use crate::sessions::Session;
use crate::{Digest, View};
use huntlog_planted::{Bug, is_planted};
use std::io::{self, Write};
use xxhash_rust::xxh3::Xxh3;

impl View {
    /// Writes the state as a snapshot, and returns its full-state hash. Memory
    /// is needed for one hunt or player at a time.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<Digest> {
        let version = match self.level < LEVELS {
            true => VERSION_1,
            false => VERSION_2,
        };
        let mut frames = FrameWriter::start(out, version)?;
        frames.frame(Frame::Head, |frame| self.put_head(frame))?;
        for hunt in self.hunts.iter() {
            frames.frame(Frame::Hunt, |frame| put_hunt(frame, hunt))?;
            for player in hunt.players.values() {
                frames.frame(Frame::Player, |frame| put_player(frame, player))?;
            }
        }
        for session in self.sessions.iter() {
            if is_planted(Bug::SnapshotWithoutSessions) {
                break;
            }
            frames.frame(Frame::Session, |frame| put_session(frame, session))?;
        }
        for queued in self.sessions.results().iter() {
            frames.frame(Frame::Result, |frame| {
                put_result(frame, &queued.result);
                frame.put_varint(queued.previous);
            })?;
        }
        frames.frame(Frame::Digests, |frame| {
            frame.put_varint(self.digests.first);
            frame.put_len(self.digests.list.len());
            for digest in &self.digests.list {
                frame.put_raw(&digest.0);
            }
        })?;
        frames.end()
    }

    /// The full-state hash: what a snapshot of this state ends with.
    ///
    /// # Panics
    /// Never: nothing is written anywhere.
    #[must_use]
    pub fn state_hash(&self) -> Digest {
        self.write_to(&mut io::sink()).expect("a sink takes all")
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        if self.level < LEVELS {
            put_limits(out, &self.limits);
        } else {
            out.put_varint(self.level.into());
            out.put_str(release_of(self.level).expect("only known levels are applied"));
            put_limit_list(out, &self.limits);
        }
        out.put_varint(self.partition.into());
        out.put_u8(self.last_applied.is_some().into());
        if let Some(last) = self.last_applied {
            out.put_varint(last.term);
            out.put_varint(last.node_id);
            out.put_varint(last.index);
        }
        out.put_varint(self.time_ms);
        out.put_varint(self.end_offset);
        out.put_varint(self.sessions.idle_clock_ms());
        out.put_varint(self.sessions.uses());
        out.put_varint(self.sessions.results().first());
    }
}

fn put_hunt(out: &mut Vec<u8>, hunt: &Hunt) {
    out.put_str(&hunt.id);
    let mut definition = Vec::new();
    put_definition(&mut definition, &hunt.rules.definition);
    out.put_bytes(&definition);
    out.put_u8(hunt.state.number());
    out.put_varint(hunt.revision);
    out.put_varint(hunt.finishers.into());
    for (attempts, solves) in &hunt.clues {
        out.put_varint(*attempts);
        out.put_varint(*solves);
    }
    for winners in &hunt.winners {
        out.put_len(winners.len());
        for winner in winners {
            out.put_str(winner);
        }
    }
    out.put_len(hunt.entries.block_count());
    for (block, bitmap) in hunt.entries.encoded_blocks() {
        out.put_varint(block);
        out.put_bytes(&bitmap);
    }
}

fn put_player(out: &mut Vec<u8>, player: &Player) {
    out.put_str(&player.id);
    out.put_str(&player.display_name);
    out.put_u8(player.status as u8);
    out.put_varint(player.registration);
    out.put_varint(player.points);
    out.put_u8(player.last_solve.is_some().into());
    if let Some(solve) = player.last_solve {
        out.put_varint(solve.offset);
        out.put_varint(solve.time_ms);
        out.put_u8(solve.occurred_at.is_some().into());
        if let Some(time) = solve.occurred_at {
            put_timestamp(out, time);
        }
    }
    out.put_len(player.solved.len());
    for &clue in &player.solved {
        out.put_len(clue);
    }
    out.put_len(player.attempts.len());
    for &(clue, attempts) in &player.attempts {
        out.put_len(clue);
        out.put_varint(attempts.into());
    }
    out.put_len(player.hints.len());
    for &(clue, hint) in &player.hints {
        out.put_len(clue);
        out.put_len(hint);
    }
    out.put_len(player.treasures.len());
    for &treasure in &player.treasures {
        out.put_len(treasure);
    }
}

fn put_session(out: &mut Vec<u8>, session: &Session) {
    out.put_str(&session.name);
    out.put_raw(&session.nonce);
    out.put_varint(session.epoch);
    out.put_varint(session.last_sequence);
    out.put_varint(session.used_ms);
    out.put_varint(session.used);
    out.put_u8(session.fresh.into());
    out.put_varint(session.newest);
    put_result(out, &session.last);
}

/// Gathers frames into larger writes, and hashes them.
struct FrameWriter<'w, W> {
    out: &'w mut W,
    hasher: Xxh3,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

const BUFFER_BYTES: usize = 64 << 10;

impl<'w, W: Write> FrameWriter<'w, W> {
    fn start(out: &'w mut W, version: u8) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hasher: Xxh3::new(),
            frame: Vec::new(),
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
        };
        writer.buffer.put_raw(MAGIC);
        writer.buffer.put_u8(version);
        writer.flush()?;
        Ok(writer)
    }

    fn frame(&mut self, kind: Frame, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.frame.clear();
        self.frame.put_u8(kind as u8);
        put(&mut self.frame);
        self.buffer.put_bytes(&self.frame);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<Digest> {
        self.flush()?;
        let hash = Digest(self.hasher.digest128().to_le_bytes());
        self.frame(Frame::End, |frame| frame.put_raw(&hash.0))?;
        self.flush()?;
        self.out.flush()?;
        Ok(hash)
    }
}
