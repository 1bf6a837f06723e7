//! The whole state as bytes, and back.
//!
//! ```text
//! snapshot = "huntlog machine" version:u8 frame...
//! frame    = length:varint kind:u8 content
//! ```
//! Version 1 is written at feature level 1, and version 2 from level 2 on. They
//! differ in how the head begins: with every limit in turn, or with the level, the
//! first release that reads it, and the limits as a list.
//!
//! Frames come in the order of [`Frame`]. The last one carries a hash over
//! everything before it: the full-state hash, equal on all replicas that have
//! applied the same entries. Nothing in a snapshot depends on how its machine
//! came to its state, by replay or from another snapshot.

mod restore;
mod write;

use crate::codec::{DecodeError, Put, Reader};
use crate::outcome::Kept;
use crate::sessions::StoredResult;
use crate::{Digest, LevelRange, Limits, limits};
use std::io;
use thiserror::Error;

const MAGIC: &[u8; 15] = b"huntlog machine";
/// The version at feature level 1.
const VERSION_1: u8 = 1;
/// The version from [`LEVELS`](crate::level::LEVELS) on.
const VERSION_2: u8 = 2;

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
    /// It is something else.
    #[error("this is not a machine snapshot")]
    NotASnapshot,
    /// A later release wrote it.
    #[error(
        "the snapshot has version {0}, and this release reads versions {VERSION_1} and {VERSION_2}; run the release that wrote it, or a newer one"
    )]
    VersionUnknown(u8),
    /// The state in it is of a level that this release does not read.
    #[error(
        "the snapshot is of feature level {level}, and this release reads level {supported}; run release {release} or a newer one on this node"
    )]
    LevelUnknown {
        /// The level in force in it.
        level: u32,
        /// The first release that reads that level.
        release: String,
        /// The levels that this release reads.
        supported: LevelRange,
    },
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
    #[error(
        "the snapshot was made under other limits than this release has: limit {number} is {theirs} there and {ours} here; they must not differ"
    )]
    LimitsDiffer {
        /// The limit's number.
        number: u64,
        /// Its value in this release; 0 when this release has no such limit.
        ours: u64,
        /// Its value in the snapshot.
        theirs: u64,
    },
}

/// The limits that decide outcomes, each at its number less 1; the numbers are on
/// disk.
fn numbered(limits: &Limits) -> [u64; limits::NUMBERED] {
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
    [
        (*max_sessions).into(),
        *session_idle_ms,
        *evictable_idle_ms,
        *idle_step_ms_max,
        (*forgotten_per_entry_max).into(),
        *result_budget_bytes,
        (*results_per_session).into(),
        *last_result_bytes_max as u64,
        (*digests_kept).into(),
        (*hunts_max).into(),
        (*players_per_hunt_max).into(),
    ]
}

/// In a list of limits, the value of one that it leaves out: as it was when
/// version 2 was laid down. A limit that is added later has that value here under
/// which the machine decides as if there were no such limit.
const DEFAULTS: [u64; limits::NUMBERED] = [
    1_000_000,
    604_800_000,
    3_600_000,
    10_000,
    1_024,
    67_108_864,
    64,
    64,
    65_536,
    100_000,
    1_000_000,
];

/// Every limit in turn, as version 1 begins.
fn put_limits(out: &mut Vec<u8>, limits: &Limits) {
    for value in numbered(limits) {
        out.put_varint(value);
    }
}

/// The limits that are not at their defaults, as number and value, by number.
fn put_limit_list(out: &mut Vec<u8>, limits: &Limits) {
    let values = numbered(limits).into_iter().zip(DEFAULTS);
    let listed: Vec<(u64, u64)> = (1..)
        .zip(values)
        .filter(|(_, (value, default))| value != default)
        .map(|(number, (value, _))| (number, value))
        .collect();
    out.put_len(listed.len());
    for (number, value) in listed {
        out.put_varint(number);
        out.put_varint(value);
    }
}

/// Compares a list of limits, and what it leaves out, with `limits`.
fn check_limit_list(reader: &mut Reader<'_>, limits: &Limits) -> Result<(), RestoreError> {
    let mut theirs = DEFAULTS;
    for _ in 0..reader.count("limits")? {
        let number = reader.varint("limit")?;
        let value = reader.varint("limit")?;
        let position = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        let Some(listed) = position.and_then(|position| theirs.get_mut(position)) else {
            let ours = 0;
            let theirs = value;
            return Err(RestoreError::LimitsDiffer {
                number,
                ours,
                theirs,
            });
        };
        *listed = value;
    }
    check_limits(theirs, limits)
}

fn check_limits(theirs: [u64; limits::NUMBERED], limits: &Limits) -> Result<(), RestoreError> {
    let both = (1..).zip(numbered(limits).into_iter().zip(theirs));
    match both.into_iter().find(|(_, (ours, theirs))| ours != theirs) {
        None => Ok(()),
        Some((number, (ours, theirs))) => Err(RestoreError::LimitsDiffer {
            number,
            ours,
            theirs,
        }),
    }
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
