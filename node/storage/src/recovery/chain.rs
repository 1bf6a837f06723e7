//! The floor, and the segments that make up the log.

use super::{Context, States};
use crate::error::OpenError;
use crate::segment::{FrameKind, Next, Position, Seed, file_name, find_headers};
use crate::state::PartitionState;

/// The start of a segment: its first batch, verified whole.
#[derive(Debug)]
pub(crate) struct Head {
    pub number: u64,
    /// Where the segment before it ends; segment 0: there is none.
    pub previous: Position,
    /// Where the first batch ends.
    pub first_end: Position,
    pub first_number: u64,
    pub first_previous_crc: u32,
    /// The partitions where the segment starts.
    pub states: States,
    /// Whether the first batch holds more than the checkpoint.
    pub has_operations: bool,
}

/// The segments of the log, oldest first.
pub(crate) struct Chain {
    pub heads: Vec<Head>,
    /// The segment before the oldest, if there was one.
    missing: Option<Position>,
}

/// The end of the last batch that is known to be synced. Only the newest segment that has any valid header matters:
/// what it knows is newer than what an older one does.
pub(crate) fn floor(
    context: &Context<'_>,
    numbers: &[u64],
    marked: Position,
) -> Result<Position, OpenError> {
    for number in numbers.iter().rev() {
        let file = context
            .files
            .open(&file_name(*number))
            .map_err(context.io("open", *number))?;
        let headers = find_headers(&*file, Seed::new(&context.salt, *number), *number)
            .map_err(context.io("read", *number))?;
        if let Some(known) = headers.iter().map(|header| header.synced_to).max() {
            return Ok(marked.max(known));
        }
    }
    Ok(marked)
}

/// Follows the log backwards from its newest segment; `None` if no segment has a whole start.
pub(super) fn follow(
    context: &Context<'_>,
    numbers: &[u64],
    floor: Position,
) -> Result<Option<Chain>, OpenError> {
    let mut newest = None;
    for number in numbers.iter().rev() {
        match read_head(context, *number)? {
            Ok(head) => {
                newest = Some(head);
                break;
            }
            Err((position, reason)) if floor.segment == *number && floor.offset > 0 => {
                return Err(context.damaged(
                    position,
                    format!("{reason}, and the log was synced through {floor}; the segment's start and all after it is missing"),
                ));
            }
            Err(_) => {}
        }
    }
    let reached = newest.as_ref().map_or(0, |head| head.number);
    if floor.segment > reached {
        let what = format!(
            "the log was synced through {floor}, and this segment is missing or has no valid start"
        );
        return Err(context.damaged(
            Position {
                segment: floor.segment,
                offset: 0,
            },
            what,
        ));
    }
    let Some(newest) = newest else {
        return Ok(None);
    };

    let mut heads = vec![newest];
    let mut missing = None;
    while let Some(previous) = heads
        .last()
        .map(|head| head.previous)
        .filter(|previous| previous.segment > 0)
    {
        if numbers.binary_search(&previous.segment).is_err() {
            missing = Some(previous);
            break;
        }
        match read_head(context, previous.segment)? {
            Ok(head) => heads.push(head),
            Err((position, reason)) => {
                let what = format!("{reason}; the segment's first entries cannot be read");
                return Err(context.damaged(position, what));
            }
        }
    }
    heads.reverse();
    Ok(Some(Chain { heads, missing }))
}

type HeadFault = (Position, String);

/// Reads a segment's first batch; the inner error says why it is not whole.
fn read_head(context: &Context<'_>, number: u64) -> Result<Result<Head, HeadFault>, OpenError> {
    let mut reader = context.reader(number)?;
    let start = reader.position();
    let batch = match reader.next_batch().map_err(context.io("read", number))? {
        Next::Batch(batch) => batch,
        Next::Stop { reason, .. } => return Ok(Err((start, reason.to_owned()))),
    };
    if let Some((offset, reason)) = batch.fault {
        return Ok(Err((
            Position {
                segment: number,
                offset,
            },
            reason.to_owned(),
        )));
    }
    let Some((
        _,
        crate::segment::Frame {
            kind:
                FrameKind::SegmentStart {
                    previous,
                    previous_end,
                },
            ..
        },
    )) = batch.frames.first()
    else {
        return Ok(Err((
            start,
            "the segment does not begin with its start frame".to_owned(),
        )));
    };
    let mut states = States::new();
    for (offset, frame) in &batch.frames {
        if let FrameKind::Checkpoint { state } = &frame.kind {
            let Ok(state) = PartitionState::from_checkpoint(state.clone()) else {
                let position = Position {
                    segment: number,
                    offset: *offset,
                };
                return Ok(Err((
                    position,
                    "the checkpoint cannot be decoded".to_owned(),
                )));
            };
            states.insert(frame.partition, state);
        }
    }
    Ok(Ok(Head {
        number,
        previous: Position {
            segment: *previous,
            offset: *previous_end,
        },
        first_end: batch.header.end(),
        first_number: batch.header.number,
        first_previous_crc: batch.header.previous_crc,
        states,
        has_operations: batch.frames.iter().any(|(_, frame)| frame.is_operation()),
    }))
}

impl Chain {
    /// The segments with their ends; the newest one's is open.
    pub(crate) fn segments(&self) -> Vec<(u64, Option<u64>)> {
        let ends = self
            .heads
            .iter()
            .skip(1)
            .map(|next| Some(next.previous.offset))
            .chain([None]);
        self.heads
            .iter()
            .map(|head| head.number)
            .zip(ends)
            .collect()
    }

    /// The segment before the oldest, or the oldest if there never was one.
    pub(super) fn before_oldest(&self) -> Position {
        let oldest = self.heads.first().map_or(0, |head| head.number);
        self.missing.unwrap_or(Position {
            segment: oldest,
            offset: 0,
        })
    }
}
