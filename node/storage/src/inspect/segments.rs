//! Reading segments whole, past whatever is damaged in them.

use super::report::FrameCounts;
use crate::error::OpenError;
use crate::recovery::{Context, States};
use crate::segment::{
    Footer, Frame, FrameKind, Next, Seed, SegmentReader, file_name, find_headers,
};
use crate::state::PartitionState;

/// What is in one segment.
#[derive(Default)]
pub(super) struct Walk {
    pub frames: FrameCounts,
    pub counts: Footer,
    /// Where the last whole batch ends.
    pub end: u64,
    pub sealed: bool,
    /// Where something is wrong, and what, ascending.
    pub faults: Vec<(u64, &'static str)>,
}

/// Reads every batch up to `end`, going on behind damage at the next header that is whole. The frames are folded into
/// `states`; with `follows` these are what the segment's checkpoints must say.
pub(super) fn walk(
    context: &Context<'_>,
    number: u64,
    end: Option<u64>,
    states: &mut States,
    follows: bool,
    read: &mut dyn FnMut(u64),
) -> Result<Walk, OpenError> {
    let file = context
        .files
        .open(&file_name(number))
        .map_err(context.io("open", number))?;
    let seed = Seed::new(&context.salt, number);
    let failed = context.io("read", number);
    let mut reader = SegmentReader::new(file.clone(), seed, number).map_err(&failed)?;
    let mut headers: Option<Vec<u64>> = None;
    let mut walk = Walk::default();
    loop {
        let start = reader.position().offset;
        if end.is_some_and(|end| start >= end) {
            walk.sealed = reader.footer().map_err(&failed)?.is_some();
            return Ok(walk);
        }
        let (fault, blank) = match reader.next_batch().map_err(&failed)? {
            Next::Batch(batch) => {
                for (offset, frame) in &batch.frames {
                    walk.take(*offset, frame, states, follows);
                }
                match batch.fault {
                    None => {
                        walk.frames.batches += 1;
                        walk.end = batch.header.end().offset;
                        read(walk.end - start);
                        continue;
                    }
                    Some(fault) => (fault, false),
                }
            }
            Next::Stop { reason, blank } => {
                if reader.footer().map_err(&failed)?.is_some() {
                    walk.sealed = true;
                    return Ok(walk);
                }
                ((start, reason), blank)
            }
        };
        let found = match headers.take() {
            Some(found) => found,
            None => find_headers(&*file, seed, number)
                .map_err(&failed)?
                .into_iter()
                .map(|header| header.position.offset)
                .collect(),
        };
        let next = found.iter().copied().find(|offset| *offset > start);
        headers = Some(found);
        // Where nothing follows, zeros are what was set aside, unless the segment is known to be longer.
        if next.is_some() || !blank || end.is_some() {
            walk.faults.push(fault);
        }
        let Some(next) = next else {
            return Ok(walk);
        };
        read(next - start);
        reader.seek(next);
    }
}

impl Walk {
    fn take(&mut self, offset: u64, frame: &Frame, states: &mut States, follows: bool) {
        match &frame.kind {
            FrameKind::Entry { id, .. } => {
                self.frames.entries += 1;
                self.counts.count(frame.partition, id.index);
            }
            FrameKind::Vote(_) => self.frames.votes += 1,
            FrameKind::Truncate { .. } => self.frames.truncations += 1,
            FrameKind::Purge { .. } => self.frames.purges += 1,
            FrameKind::Release { .. } => self.frames.releases += 1,
            FrameKind::Checkpoint { state } => {
                self.frames.checkpoints += 1;
                match PartitionState::from_checkpoint(state.clone()) {
                    Ok(state) => {
                        let folded = states.insert(frame.partition, state);
                        if follows && folded.as_ref() != states.get(&frame.partition) {
                            self.faults.push((
                                offset,
                                "the checkpoint does not follow from the segment before",
                            ));
                        }
                    }
                    Err(_) => self
                        .faults
                        .push((offset, "the checkpoint cannot be decoded")),
                }
                return;
            }
            FrameKind::SegmentStart { .. } | FrameKind::Footer { .. } => return,
        }
        states
            .entry(frame.partition)
            .or_default()
            .apply(&frame.kind);
    }
}
