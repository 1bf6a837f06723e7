//! Reading the end of the log, from the newest checkpoint below the floor.

use super::chain::{Chain, Head};
use super::{Context, States};
use crate::error::OpenError;
use crate::options::{OpenStep, TailCut};
use crate::segment::{Frame, Link, Next, Position};

pub(super) struct Scan {
    /// The partitions at the floor.
    pub base: States,
    /// What is valid above the floor.
    pub above: Vec<Frame>,
    /// Where what is kept in place ends; segment 0: nothing is.
    pub kept_end: Position,
    /// The last batch kept in place.
    pub link: Link,
    pub cut: Option<TailCut>,
}

/// The link before a segment's first batch.
fn link_before(head: &Head) -> Link {
    Link {
        number: head.first_number - 1,
        crc: head.first_previous_crc,
    }
}

pub(super) fn scan(
    context: &Context<'_>,
    chain: &Chain,
    floor: Position,
) -> Result<Scan, OpenError> {
    let from = chain
        .heads
        .iter()
        .rposition(|head| head.first_end <= floor)
        .unwrap_or(0);
    let head = &chain.heads[from];
    let mut scan = Scan {
        base: head.states.clone(),
        above: Vec::new(),
        kept_end: head.previous,
        link: link_before(head),
        cut: None,
    };
    let all = chain.segments();
    for (at, (number, end)) in all.iter().enumerate().skip(from) {
        context.progress(
            OpenStep::Verify,
            (at - from) as u64,
            (all.len() - from) as u64,
        );
        let head = &chain.heads[at];
        if head.first_end > floor {
            // Its checkpoint is the state at the floor with what was rewritten before it; nothing older is above.
            scan.base.clone_from(&head.states);
            scan.above.clear();
            scan.kept_end = head.previous;
            scan.link = link_before(head);
        }
        scan.segment(context, *number, *end, floor)?;
    }
    // A segment that holds nothing but its checkpoint is not worth keeping.
    let newest = &chain.heads[chain.heads.len() - 1];
    if scan.kept_end == newest.first_end && !newest.has_operations {
        scan.kept_end = newest.previous;
        scan.link = link_before(newest);
    }
    context.progress(
        OpenStep::Verify,
        (all.len() - from) as u64,
        (all.len() - from) as u64,
    );
    Ok(scan)
}

impl Scan {
    fn segment(
        &mut self,
        context: &Context<'_>,
        number: u64,
        end: Option<u64>,
        floor: Position,
    ) -> Result<(), OpenError> {
        let mut reader = context.reader(number)?;
        loop {
            let start = reader.position();
            if end.is_some_and(|end| start.offset == end) {
                return Ok(());
            }
            let durable = |position: Position| end.is_some() || position < floor;
            match reader.next_batch().map_err(context.io("read", number))? {
                Next::Stop { reason, blank } => {
                    if durable(start) {
                        return Err(self.lost(context, start, reason, floor));
                    }
                    if !blank {
                        self.cut_at(context, start, reason);
                    }
                    return Ok(());
                }
                Next::Batch(batch) => {
                    let batch_end = batch.header.end();
                    let overshoots = end.is_some_and(|end| batch_end.offset > end);
                    if overshoots || (start < floor && floor < batch_end) {
                        return Err(self.lost(
                            context,
                            start,
                            "the batch is not the one that was synced here",
                            floor,
                        ));
                    }
                    for (offset, frame) in batch.frames {
                        let position = Position {
                            segment: number,
                            offset,
                        };
                        if frame.is_operation() {
                            self.take(context, frame, position, batch_end <= floor, floor)?;
                        }
                    }
                    if let Some((offset, reason)) = batch.fault {
                        let position = Position {
                            segment: number,
                            offset,
                        };
                        if durable(start) {
                            return Err(self.lost(context, position, reason, floor));
                        }
                        self.cut_at(context, position, reason);
                        return Ok(());
                    }
                    if batch_end <= floor {
                        self.kept_end = batch_end;
                        self.link = Link {
                            number: batch.header.number,
                            crc: batch.header.crc,
                        };
                    }
                }
            }
        }
    }

    fn take(
        &mut self,
        context: &Context<'_>,
        frame: Frame,
        position: Position,
        synced: bool,
        floor: Position,
    ) -> Result<(), OpenError> {
        if !synced {
            self.above.push(frame);
            return Ok(());
        }
        let state = self.base.entry(frame.partition).or_default();
        match state.check(&frame.kind) {
            Ok(()) => {
                state.apply(&frame.kind);
                Ok(())
            }
            Err(reason) => Err(self.lost(context, position, &reason, floor)),
        }
    }

    fn cut_at(&mut self, context: &Context<'_>, position: Position, reason: &str) {
        self.cut = Some(TailCut {
            file: context.path(position.segment),
            position: position.offset,
            reason: reason.to_owned(),
        });
    }

    fn lost(
        &self,
        context: &Context<'_>,
        position: Position,
        reason: &str,
        floor: Position,
    ) -> OpenError {
        let last: Vec<String> = self
            .base
            .iter()
            .filter_map(|(partition, state)| {
                Some(format!("{} of partition {partition}", state.last?))
            })
            .collect();
        let last = if last.is_empty() {
            "all entries".to_owned()
        } else {
            format!("what follows {}", last.join(", "))
        };
        context.damaged(
            position,
            format!("{reason}, and the log was synced through {floor}; {last} is missing"),
        )
    }
}
