//! The whole state as bytes, and back.
//!
//! ```text
//! snapshot = "huntlog machine" version:u8 frame...
//! frame    = length:varint kind:u8 content
//! ```
//! Frames come in the order of [`Frame`]. The last one carries a hash over
//! everything before it: the full-state hash, equal on all replicas that have
//! applied the same entries. Nothing in a snapshot depends on how its machine
//! came to its state, by replay or from another snapshot.

mod restore;
mod write;

use crate::codec::{DecodeError, Put, Reader};
use crate::outcome::Kept;
use crate::sessions::StoredResult;
use crate::{Digest, Limits};
use std::io;
use thiserror::Error;

const MAGIC: &[u8; 15] = b"huntlog machine";
const VERSION: u8 = 1;

/// The kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Frame {
    /// Limits, position, time, counts.
    Head = 1,
    /// A hunt, in the order of creation.
    Hunt = 2,
    /// A player of the hunt before, by id.
    Player = 3,
    /// A session, by name.
    Session = 4,
    /// A result, oldest first.
    Result = 5,
    /// The digests kept.
    Digests = 6,
    /// The hash of all bytes before this frame.
    End = 7,
}

impl Frame {
    fn from_tag(tag: u8) -> Result<Self, DecodeError> {
        [
            Self::Head,
            Self::Hunt,
            Self::Player,
            Self::Session,
            Self::Result,
            Self::Digests,
            Self::End,
        ]
        .into_iter()
        .find(|frame| *frame as u8 == tag)
        .ok_or(DecodeError::UnknownTag {
            what: "snapshot frame",
            tag,
        })
    }
}

/// Why a snapshot could not be restored. There is no machine then; another
/// snapshot, or the log from its beginning, can give one.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// It could not be read.
    #[error("the snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else, or of another version.
    #[error("this is not a machine snapshot of version {VERSION}")]
    NotASnapshot,
    /// Part of it is damaged.
    #[error("the snapshot is damaged: {0}")]
    Decode(#[from] DecodeError),
    /// It has been altered.
    #[error("the snapshot is damaged: its hash is {ours}, it says {theirs}")]
    HashMismatch {
        /// The hash of what was read.
        ours: Digest,
        /// The hash it ends with.
        theirs: Digest,
    },
    /// It was made under other limits, which would decide differently.
    #[error("the snapshot was made under other limits than this release has; they must not differ")]
    LimitsDiffer,
}

fn put_limits(out: &mut Vec<u8>, limits: &Limits) {
    let Limits {
        max_sessions,
        session_idle_ms,
        evictable_idle_ms,
        idle_step_ms_max,
        forgotten_per_entry_max,
        result_budget_bytes,
        results_per_session,
        last_result_bytes_max,
        // Not the machine's to decide.
        max_in_flight: _,
        digests_kept,
        hunts_max,
        players_per_hunt_max,
    } = limits;
    out.put_varint((*max_sessions).into());
    out.put_varint(*session_idle_ms);
    out.put_varint(*evictable_idle_ms);
    out.put_varint(*idle_step_ms_max);
    out.put_varint((*forgotten_per_entry_max).into());
    out.put_varint(*result_budget_bytes);
    out.put_varint((*results_per_session).into());
    out.put_len(*last_result_bytes_max);
    out.put_varint((*digests_kept).into());
    out.put_varint((*hunts_max).into());
    out.put_varint((*players_per_hunt_max).into());
}

const DROPPED: u8 = 0;
const PLAIN: u8 = 1;
const OUTCOMES: u8 = 2;
const REVISION_MISMATCH: u8 = 3;

fn put_result(out: &mut Vec<u8>, result: &StoredResult) {
    out.put_raw(&result.payload_hash.to_le_bytes());
    out.put_varint(result.log_index);
    out.put_varint(result.time_ms);
    match &result.kept {
        Kept::Dropped => out.put_u8(DROPPED),
        Kept::Plain {
            first_offset,
            base_revision,
            events,
        } => {
            out.put_u8(PLAIN);
            out.put_varint(*first_offset);
            out.put_varint(*base_revision);
            out.put_varint((*events).into());
        }
        Kept::Outcomes(encoded) => {
            out.put_u8(OUTCOMES);
            out.put_bytes(encoded);
        }
        Kept::RevisionMismatch {
            expectation,
            actual,
        } => {
            out.put_u8(REVISION_MISMATCH);
            out.put_varint((*expectation).into());
            out.put_varint(*actual);
        }
    }
}

fn read_result(reader: &mut Reader<'_>) -> Result<StoredResult, DecodeError> {
    Ok(StoredResult {
        payload_hash: u64::from_le_bytes(reader.array("payload hash")?),
        log_index: reader.varint("log index")?,
        time_ms: reader.varint("time")?,
        kept: match reader.u8("result")? {
            DROPPED => Kept::Dropped,
            PLAIN => Kept::Plain {
                first_offset: reader.varint("first offset")?,
                base_revision: reader.varint("base revision")?,
                events: reader.varint_u32("events")?,
            },
            OUTCOMES => Kept::Outcomes(reader.bytes("outcomes")?.into()),
            REVISION_MISMATCH => Kept::RevisionMismatch {
                expectation: reader.varint_u32("expectation")?,
                actual: reader.varint("revision")?,
            },
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "result",
                    tag,
                });
            }
        },
    })
}
