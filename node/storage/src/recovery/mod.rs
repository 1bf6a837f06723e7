//! Opening the log: what is durable is kept, what is torn is cut off, what is damaged is refused.
//!
//! 1. The *floor* is the highest end of a synced batch that the mark or any batch header knows of.
//! 2. Segments are followed backwards from the newest whose first batch is whole; what is not on that chain is a start
//!    that was never synced, or was superseded.
//! 3. From the newest checkpoint below the floor everything is read. A fault below the floor is damage: refused. The
//!    first fault above it is the torn end.
//! 4. What is valid above the floor is written to a fresh segment and synced before anybody sees it: after a kill or a
//!    failed sync the page cache may show what the disk does not have. That segment's first batch holds all of it, so
//!    that it takes the old place whole or not at all.

mod chain;
mod replay;
mod scan;

use chain::Chain;
pub(crate) use chain::floor;
pub(crate) use replay::{ReplayError, bring_up_to_date, frames};

use crate::engine::{ClosedSegment, Engine, Start, write_footer};
use crate::error::OpenError;
use crate::files::Files;
use crate::index::IndexUpdates;
use crate::mark::Mark;
use crate::options::{OpenStep, Options, TailCut};
use crate::ranges::RangeSet;
use crate::segment::{
    DIR, Footer, Frame, FrameKind, Link, Position, Seed, SegmentReader, file_name, number_of,
};
use crate::state::PartitionState;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The log, ready to be continued.
pub(crate) struct Recovered {
    pub engine: Engine,
    /// What the engine's first batch holds, for the index.
    pub first_batch: IndexUpdates,
    pub cut: Option<TailCut>,
    pub frames_rewritten: usize,
    pub fresh: bool,
    pub log_bytes: u64,
}

/// The log as it stands on the disk, before anything is written.
pub(crate) struct Survey {
    chain: Chain,
    /// What is synced.
    pub base: States,
    /// What is valid above that.
    pub above: Vec<Frame>,
    /// With both.
    pub full: States,
    /// Where what is kept in place ends; segment 0: nothing is.
    pub kept_end: Position,
    /// The last batch kept in place.
    link: Link,
    pub cut: Option<TailCut>,
    /// The segments kept in place.
    pub closed: VecDeque<ClosedSegment>,
    /// Those of them that have no footer.
    pub unsealed: Vec<u64>,
}

impl Survey {
    /// The segments of the log with their ends, oldest first; the newest one's is open.
    pub(crate) fn segments(&self) -> Vec<(u64, Option<u64>)> {
        self.chain.segments()
    }
}

/// What opening needs everywhere.
pub(crate) struct Context<'a> {
    pub files: &'a Arc<dyn Files>,
    pub salt: [u8; 16],
    pub options: &'a Options,
}

impl Context<'_> {
    pub(crate) fn path(&self, segment: u64) -> String {
        self.files.path(&file_name(segment)).display().to_string()
    }

    pub(crate) fn io(
        &self,
        operation: &'static str,
        segment: u64,
    ) -> impl Fn(std::io::Error) -> OpenError {
        let file = self.path(segment);
        move |error| OpenError::io(operation, &file, error)
    }

    fn damaged(&self, position: Position, what: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            file: self.path(position.segment),
            position: position.offset,
            what: what.into(),
        }
    }

    pub(crate) fn reader(&self, segment: u64) -> Result<SegmentReader, OpenError> {
        let file = self
            .files
            .open(&file_name(segment))
            .map_err(self.io("open", segment))?;
        SegmentReader::new(file, Seed::new(&self.salt, segment), segment)
            .map_err(self.io("read", segment))
    }

    fn progress(&self, step: OpenStep, done: u64, all: u64) {
        if let Some(hook) = &self.options.on_progress {
            hook(step, done, all);
        }
    }
}

/// What is known of a directory beside its log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The log was in use before, so that its absence is a loss.
    pub in_use: bool,
    /// It is known whose it is.
    pub identified: bool,
}

/// Opens the log.
pub(crate) fn recover(context: &Context<'_>, known: Known) -> Result<Recovered, OpenError> {
    let in_use = known.in_use;
    let files = &**context.files;
    let Listing { numbers, strays } = list_segments(context)?;
    for stray in strays {
        tracing::warn!(
            file = %files.path(DIR).join(stray).display(),
            "this file is no segment and is ignored; move it away"
        );
    }
    let (mark, slots) = Mark::open(files, &context.salt)
        .map_err(|error| OpenError::io("open", files.path(crate::mark::NAME).display(), error))?;
    let high_water = slots.best();
    if high_water.is_some() && slots.damaged() {
        tracing::warn!(
            file = %files.path(crate::mark::NAME).display(),
            "one of the two slots of the high-water mark is damaged; the other one counts, and it is written anew"
        );
    }
    if in_use && high_water.is_none() {
        tracing::warn!(
            file = %files.path(crate::mark::NAME).display(),
            "the high-water mark is missing or damaged, as after a power cut; it is written anew"
        );
    }
    let marked = high_water
        .map(|high_water| high_water.position)
        .unwrap_or_default();
    let floor = floor(context, &numbers, marked)?;
    let Some(found) = survey(context, &numbers, floor, in_use)? else {
        let start = Start {
            salt: context.salt,
            segment: numbers.last().map_or(1, |last| last + 1),
            previous: Position::default(),
            link: Link { number: 0, crc: 0 },
            states: BTreeMap::new(),
            closed: VecDeque::new(),
            mark,
        };
        let mut recovered = begin(context, start, &[])?;
        remove_strays(context, &numbers, &[])?;
        recovered.fresh = true;
        return Ok(recovered);
    };

    check_identity(context, &found.full, known.identified)?;
    if let Some(cut) = &found.cut {
        tracing::warn!(
            file = cut.file,
            position = cut.position,
            reason = cut.reason,
            "cut a torn tail, which nobody was told is durable"
        );
    }

    let kept: Vec<u64> = found.closed.iter().map(|segment| segment.number).collect();
    let newest = numbers.last().copied().unwrap_or(0).max(floor.segment);
    let start = Start {
        salt: context.salt,
        segment: newest + 1,
        previous: found.kept_end,
        link: found.link,
        states: found.base,
        closed: found.closed,
        mark,
    };
    let mut recovered = begin(context, start, &found.above)?;
    recovered.cut = found.cut;

    // The new segment is synced, so the old end is needed no more: tidy it up.
    for number in found.unsealed {
        seal(context, number, recovered.engine.closed())?;
    }
    remove_strays(context, &numbers, &kept)?;
    // At once: a disk that is full needs the space for what the start writes.
    let released = recovered.engine.take_released();
    remove_segments(context, &released)?;
    recovered.log_bytes = recovered
        .engine
        .closed()
        .iter()
        .map(|segment| segment.end)
        .sum::<u64>()
        + recovered.engine.position().offset;
    Ok(recovered)
}

/// A node writes down who it is before its first vote and its first entry: a log that has either, and no identity, has
/// lost it. Under a new one it could vote twice, or serve what is another cluster's.
pub(crate) fn check_identity(
    context: &Context<'_>,
    states: &States,
    identified: bool,
) -> Result<(), OpenError> {
    let used = |state: &PartitionState| state.vote.is_some() || state.last.is_some();
    if identified || !states.values().any(used) {
        return Ok(());
    }
    let files = &**context.files;
    Err(OpenError::Damaged {
        file: files.path(crate::identity::NAME).display().to_string(),
        position: 0,
        what: "the node's identity is missing, though the log is in use".to_owned(),
    })
}

/// What is in the segments' directory.
pub(crate) struct Listing {
    /// The numbers of the segments, ascending.
    pub numbers: Vec<u64>,
    /// The names of files that are none.
    pub strays: Vec<String>,
}

pub(crate) fn list_segments(context: &Context<'_>) -> Result<Listing, OpenError> {
    let listed = context.files.list(DIR).map_err(|error| {
        OpenError::io("list", context.files.path(DIR).display().to_string(), error)
    })?;
    let (segments, strays): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|name| number_of(name).is_some());
    let mut numbers: Vec<u64> = segments.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(Listing { numbers, strays })
}

/// Finds out what the log is and writes nothing; `None` if there is no log yet.
pub(crate) fn survey(
    context: &Context<'_>,
    numbers: &[u64],
    floor: Position,
    in_use: bool,
) -> Result<Option<Survey>, OpenError> {
    let Some(chain) = chain::follow(context, numbers, floor)? else {
        if in_use {
            return Err(context.damaged(
                Position {
                    segment: numbers.last().copied().unwrap_or(1),
                    offset: 0,
                },
                "the log was in use, and none of its segments can be read",
            ));
        }
        return Ok(None);
    };
    let scan::Scan {
        base,
        above,
        kept_end,
        link,
        cut,
    } = scan::scan(context, &chain, floor)?;
    let mut closed = VecDeque::new();
    let mut unsealed = Vec::new();
    for (number, end) in chain.up_to(kept_end) {
        let (footer, sealed) = load_footer(context, number, end)?;
        closed.push_back(ClosedSegment {
            number,
            end,
            footer,
        });
        if !sealed {
            unsealed.push(number);
        }
    }
    let mut full = base.clone();
    for frame in &above {
        full.entry(frame.partition).or_default().apply(&frame.kind);
    }
    check_history(context, &chain, &closed, &above, &full)?;
    Ok(Some(Survey {
        chain,
        base,
        above,
        full,
        kept_end,
        link,
        cut,
        closed,
        unsealed,
    }))
}

impl Context<'_> {
    fn fatal(&self, error: crate::error::FatalError) -> OpenError {
        match error {
            crate::error::FatalError::Io {
                operation,
                file,
                source,
            } => OpenError::Io {
                operation,
                file,
                source: std::io::Error::new(source.kind(), source),
            },
            other => OpenError::Io {
                operation: "open",
                file: self.files.path(DIR).display().to_string(),
                source: std::io::Error::other(other.to_string()),
            },
        }
    }
}

/// Everything that is kept must be in some segment: one before the oldest may be missing only if nobody keeps anything
/// of what was in it.
fn check_history(
    context: &Context<'_>,
    chain: &Chain,
    closed: &VecDeque<ClosedSegment>,
    above: &[Frame],
    states: &States,
) -> Result<(), OpenError> {
    for (partition, state) in states {
        let mut held = RangeSet::default();
        for counts in closed
            .iter()
            .filter_map(|segment| segment.footer.0.get(partition))
        {
            held.insert(counts.first..counts.last + 1);
        }
        for frame in above.iter().filter(|frame| frame.partition == *partition) {
            if let FrameKind::Entry { id, .. } = &frame.kind {
                held.insert(id.index..id.index + 1);
            }
        }
        if let Some(lost) = state
            .history
            .iter()
            .find_map(|range| held.missing(range.clone()).into_iter().next())
        {
            let what = format!(
                "the segment is missing, and with it entries {} to {} of partition {partition}",
                lost.start,
                lost.end - 1
            );
            let missing = chain.before_oldest();
            return Err(context.damaged(
                Position {
                    segment: missing.segment,
                    offset: 0,
                },
                what,
            ));
        }
    }
    Ok(())
}

/// Creates the fresh segment and writes its first batch.
fn begin(context: &Context<'_>, start: Start, above: &[Frame]) -> Result<Recovered, OpenError> {
    let metrics = context.options.metrics.clone();
    let mut engine = Engine::begin(
        context.files.clone(),
        metrics,
        context.options.segment_bytes,
        start,
    )
    .map_err(|error| context.fatal(error))?;
    let frames: Vec<_> = above.iter().collect();
    let (first_batch, _) = engine
        .write(&frames)
        .map_err(|error| context.fatal(error))?;
    let log_bytes = engine.position().offset;
    Ok(Recovered {
        engine,
        first_batch,
        cut: None,
        frames_rewritten: above.len(),
        fresh: false,
        log_bytes,
    })
}

/// The counts of a closed segment: from its footer, or by reading it. Says whether it is sealed.
fn load_footer(context: &Context<'_>, number: u64, end: u64) -> Result<(Footer, bool), OpenError> {
    let mut reader = context.reader(number)?;
    reader.seek(end);
    let found = reader.footer().map_err(context.io("read", number))?;
    if let Some(footer) = found.and_then(|bytes| Footer::decode(&bytes)) {
        return Ok((footer, true));
    }
    let mut footer = Footer::default();
    frames(context, number, Some(end), &mut |_, _, frame| {
        if let FrameKind::Entry { id, .. } = &frame.kind {
            footer.count(frame.partition, id.index);
        }
    })?;
    Ok((footer, false))
}

fn seal(
    context: &Context<'_>,
    number: u64,
    closed: &VecDeque<ClosedSegment>,
) -> Result<(), OpenError> {
    let Some(segment) = closed.iter().find(|segment| segment.number == number) else {
        return Ok(());
    };
    let end = segment.end;
    let link = replay::link_at(context, number, end)?;
    let file = context
        .files
        .open(&file_name(number))
        .map_err(context.io("open", number))?;
    let position = Position {
        segment: number,
        offset: end,
    };
    write_footer(
        &*file,
        Seed::new(&context.salt, number),
        position,
        link,
        &segment.footer,
    )
    .map_err(context.io("seal", number))
}

/// Removes segments that are not part of the log: starts that were never synced, or whose content was rewritten.
fn remove_strays(context: &Context<'_>, numbers: &[u64], kept: &[u64]) -> Result<(), OpenError> {
    let strays = numbers.iter().filter(|number| !kept.contains(number));
    let strays: Vec<u64> = strays.copied().collect();
    for number in &strays {
        tracing::info!(
            file = context.path(*number),
            "removing a segment that holds nothing of the log"
        );
    }
    remove_segments(context, &strays)
}

/// Removes the files of segments, in this order.
fn remove_segments(context: &Context<'_>, numbers: &[u64]) -> Result<(), OpenError> {
    for number in numbers {
        context
            .files
            .remove(&file_name(*number))
            .map_err(context.io("remove", *number))?;
    }
    if let Some(last) = numbers.last() {
        let synced = context.files.sync_dir(DIR);
        synced.map_err(context.io("sync the removal of", *last))?;
    }
    Ok(())
}

pub(crate) type States = BTreeMap<u32, PartitionState>;

impl Chain {
    /// The segments up to a place in the log, with their ends, oldest first.
    fn up_to(&self, end: Position) -> Vec<(u64, u64)> {
        let segments = self.segments();
        let upto = segments.iter().filter(|(number, _)| *number <= end.segment);
        upto.map(|(number, stop)| {
            (
                *number,
                if *number == end.segment {
                    end.offset
                } else {
                    stop.unwrap_or(0)
                },
            )
        })
        .collect()
    }
}
