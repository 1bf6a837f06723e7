//! The outcome of one batch, read again from the log.
//!
//! Sessions keep the results that their producers may still ask for in memory,
//! within a budget. Of a session's last batch they always keep where it was
//! applied, and what came of it is in that entry's record.

use crate::codec::batch::{BatchRef, Body, CommandRef};
use crate::codec::entry::EntryRef;
use crate::codec::record::{RecordRef, RecordedResult};
use crate::codec::runs::{Run, RunReader, RunWriter};
use crate::outcome::Kept;
use crate::{BatchOutcome, DecodeError, EncodedCommand};
use bytes::Bytes;

/// What came of the batch that `command` repeats, from the entry at `log_index`
/// and the record of applying it; `None` when it was not applied there.
///
/// # Errors
/// When the entry or the record is damaged, or they are not of one another.
pub fn batch_outcome(
    log_index: u64,
    entry: &Bytes,
    record: &[u8],
    command: &EncodedCommand,
) -> Result<Option<BatchOutcome>, DecodeError> {
    let CommandRef::Batch(asked) = CommandRef::decode(command.bytes())? else {
        return Ok(None);
    };
    let decoded = EntryRef::decode(entry)?;
    let mut record = RecordRef::decode(record)?;
    let mut revisions = record.base_revisions;
    if revisions.len() != decoded.hunts().len() {
        return Err(DecodeError::Contradiction { what: "record" });
    }
    let mut offset = record.header.first_offset;
    while record.clock.next()?.is_some() {
        add(&mut offset, 1)?;
    }
    let mut hunts = Vec::new();
    for command in decoded.commands() {
        let RecordedResult::Applied { runs, accepted } = record.results.next()? else {
            continue;
        };
        hunts.clear();
        let mut indexes = command.hunts;
        while let Some(index) = indexes.next()? {
            hunts.push(index);
        }
        let CommandRef::Batch(batch) = command.decode()? else {
            return Err(DecodeError::Contradiction { what: "record" });
        };
        let body = Body::decode(batch.body)?;
        if body.hunts.len() != hunts.len() {
            return Err(DecodeError::Contradiction { what: "directory" });
        }
        if is_same(&batch, &asked) {
            let bases: Vec<u64> = hunts.iter().map(|&hunt| revisions[hunt]).collect();
            let mut again = again(body, runs)?;
            return Ok(Some(BatchOutcome {
                log_index,
                time_ms: record.header.time_ms,
                kept: Kept::Outcomes(again.positioned(offset, &bases).into()),
                body: entry.slice_ref(batch.body),
            }));
        }
        pass(body, runs, &hunts, &mut revisions)?;
        add(&mut offset, accepted)?;
    }
    Ok(None)
}

/// A session's sequence names one batch for ever, under any epoch.
fn is_same(batch: &BatchRef<'_>, asked: &BatchRef<'_>) -> bool {
    (batch.session, batch.sequence) == (asked.session, asked.sequence) && batch.body == asked.body
}

/// The outcomes of the events of `body`, gathered as they were at first.
fn again(body: Body<'_>, mut runs: RunReader<'_>) -> Result<RunWriter, DecodeError> {
    let mut again = RunWriter::default();
    for event in body.events {
        event?;
        match runs.next()? {
            Run::Plain => again.plain(),
            Run::Rejected(reason) => again.rejected(reason),
            Run::Effects(effects) => again.accepted(effects),
        }
    }
    runs.finish()?;
    Ok(again)
}

/// Counts the revisions on over the events of another batch.
fn pass(
    body: Body<'_>,
    mut runs: RunReader<'_>,
    hunts: &[usize],
    revisions: &mut [u64],
) -> Result<(), DecodeError> {
    for event in body.events {
        let hunt = hunts[event?.hunt_index];
        if !matches!(runs.next()?, Run::Rejected(_)) {
            add(&mut revisions[hunt], 1)?;
        }
    }
    runs.finish()
}

/// Counts on; a damaged record may start anywhere.
fn add(position: &mut u64, by: u64) -> Result<(), DecodeError> {
    *position = position
        .checked_add(by)
        .ok_or(DecodeError::OutOfRange { what: "position" })?;
    Ok(())
}
