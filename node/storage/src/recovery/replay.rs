//! Bringing the index up to date from the segments.

use super::Context;
use crate::engine::put_of;
use crate::error::OpenError;
use crate::index::{Index, IndexFault, IndexOperation, IndexUpdates, IndexWriter};
use crate::options::OpenStep;
use crate::segment::{Footer, Frame, FrameKind, Link, Next, Position};
use crate::state::PartitionState;
use std::collections::BTreeMap;

/// Calls `visit` with every frame of a segment up to `end`: its batch's end, its own offset, the frame. A fault is damage.
pub(crate) fn frames(
    context: &Context<'_>,
    number: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(Position, u64, &Frame),
) -> Result<Option<Link>, OpenError> {
    let mut reader = context.reader(number)?;
    loop {
        let start = reader.position();
        if end.is_some_and(|end| start.offset >= end) {
            return Ok(reader.link());
        }
        let fault = match reader.next_batch().map_err(context.io("read", number))? {
            Next::Batch(batch) => {
                for (offset, frame) in &batch.frames {
                    visit(batch.header.end(), *offset, frame);
                }
                match batch.fault {
                    None => continue,
                    Some((offset, reason)) => (
                        Position {
                            segment: number,
                            offset,
                        },
                        reason,
                    ),
                }
            }
            Next::Stop { reason, .. } => (start, reason),
        };
        let (position, reason) = fault;
        return Err(context.damaged(
            position,
            format!("{reason}; synced entries of this segment cannot be read"),
        ));
    }
}

/// The last batch before `end`.
pub(super) fn link_at(context: &Context<'_>, number: u64, end: u64) -> Result<Link, OpenError> {
    let link = frames(context, number, Some(end), &mut |_, _, _| {})?;
    Ok(link.unwrap_or(Link { number: 0, crc: 0 }))
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub frames: usize,
}

/// Why the index was not brought up to date.
pub(crate) enum ReplayError {
    /// The log cannot be read.
    Log(OpenError),
    /// The index is at fault: build it anew.
    Index(IndexFault),
}

impl From<IndexFault> for ReplayError {
    fn from(fault: IndexFault) -> Self {
        ReplayError::Index(fault)
    }
}

impl From<OpenError> for ReplayError {
    fn from(error: OpenError) -> Self {
        ReplayError::Log(error)
    }
}

/// Replays everything after the index's cursor, then `first_batch`, and compares counts with the footers.
pub(crate) fn bring_up_to_date(
    context: &Context<'_>,
    index: &Index,
    closed: &[(u64, u64, u64)],
    first_batch: &IndexUpdates,
    step: OpenStep,
) -> Result<Replayed, ReplayError> {
    let cursor = index.cursor()?.unwrap_or_default();
    let mut replayed = Replayed {
        frames: first_batch.operations.len(),
    };
    let todo: Vec<_> = closed
        .iter()
        .filter(|(number, end, _)| {
            *number > cursor.segment || (*number == cursor.segment && *end > cursor.offset)
        })
        .collect();
    let all: u64 = todo.iter().map(|(_, end, _)| end).sum();
    let mut done = 0;
    let mut writer = IndexWriter::new(index);
    // The end of the segment at the cursor was rewritten to the next one: it was counted further than it is kept.
    let cut = closed
        .iter()
        .find(|(number, end, _)| *number == cursor.segment && *end < cursor.offset);
    if let Some((number, end, entries)) = cut {
        writer.updates(&IndexUpdates {
            operations: Vec::new(),
            cursor: Position {
                segment: *number,
                offset: *end,
            },
            segment_entries: BTreeMap::from([(*number, *entries)]),
        })?;
    }
    for (number, end, _) in todo {
        context.progress(step, done, all);
        let updates = updates_of(context, *number, *end, cursor, &mut replayed)?;
        writer.updates(&updates)?;
        done += end;
    }
    writer.updates(first_batch)?;
    writer.flush()?;
    context.progress(step, all, all);
    for (number, _, entries) in closed {
        let indexed = index.segment_entries(*number)?;
        if indexed != *entries {
            let reason = format!("it has {indexed} of the {entries} entries in segment {number}");
            return Err(ReplayError::Index(IndexFault::Damage(reason)));
        }
    }
    Ok(replayed)
}

/// The changes of one segment after the cursor.
fn updates_of(
    context: &Context<'_>,
    number: u64,
    end: u64,
    cursor: Position,
    replayed: &mut Replayed,
) -> Result<IndexUpdates, OpenError> {
    let mut operations = Vec::new();
    let mut counts = Footer::default();
    let mut states: BTreeMap<u32, PartitionState> = BTreeMap::new();
    frames(
        context,
        number,
        Some(end),
        &mut |batch_end, offset, frame| {
            let position = Position {
                segment: number,
                offset,
            };
            let put = put_of(frame, position, &mut counts);
            let state = states.entry(frame.partition).or_default();
            if let FrameKind::Checkpoint { state: checkpoint } = &frame.kind {
                // Verified when the segment's head was read.
                *state = PartitionState::from_checkpoint(checkpoint.clone()).unwrap_or_default();
            }
            let removed = state.apply(&frame.kind);
            if batch_end <= cursor {
                return;
            }
            replayed.frames += 1;
            if !removed.is_empty() {
                operations.push(IndexOperation::Remove {
                    partition: frame.partition,
                    range: removed,
                });
            }
            if let FrameKind::Release { .. } = frame.kind {
                let before = state
                    .history
                    .first()
                    .map_or(state.live().start, |range| range.start);
                operations.push(IndexOperation::Release {
                    partition: frame.partition,
                    before,
                });
            }
            operations.extend(put);
        },
    )?;
    Ok(IndexUpdates {
        operations,
        cursor: Position {
            segment: number,
            offset: end,
        },
        segment_entries: BTreeMap::from([(number, counts.entries())]),
    })
}
