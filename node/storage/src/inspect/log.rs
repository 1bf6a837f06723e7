//! The log of a directory: what opening would make of it, and what is in its segments.

use super::report::{
    MarkInspection, PartitionInspection, SegmentEntries, SegmentInspection, Severity, TermRun,
};
use super::{Inspector, REJOIN, index, segments};
use crate::data_version::DataVersion;
use crate::error::OpenError;
use crate::mark::{self, Mark, Slots};
use crate::options::Options;
use crate::recovery::{
    Context, Listing, States, Survey, check_identity, floor, list_segments, survey,
};
use crate::segment::{DIR, Footer, Position, file_name};
use crate::state::PartitionState;
use std::io;

impl Inspector<'_> {
    /// Answers what the log leads to, as far as it can be read.
    pub(super) fn log(&mut self, version: DataVersion) -> io::Result<States> {
        let slots = match Mark::load(&*self.files, &version.salt) {
            Ok(slots) => slots,
            Err(error) => {
                let file = self.files.path(mark::NAME).display().to_string();
                self.refused(OpenError::io("read", file, error));
                None
            }
        };
        let marked = slots.as_ref().and_then(Slots::best);
        self.inspection.mark = slots.as_ref().map(|slots| MarkInspection {
            synced_to: marked.map(|mark| mark.position.into()),
            batch: marked.map(|mark| mark.batch),
            valid_slots: slots.valid().count(),
        });
        if marked.is_some() && slots.is_some_and(|slots| slots.damaged()) {
            let what = "one of the two slots of the high-water mark is damaged; the other one counts, so that damage to the very last batch may look like a torn tail";
            let what_to_do = "nothing: the node writes it anew";
            self.say_path(Severity::Repaired, mark::NAME, what, what_to_do);
        }
        if version.in_use && marked.is_none() {
            let what = "the high-water mark is missing or damaged, as after a power cut, so that damage to the very last batch would look like a torn tail";
            let what_to_do = "nothing: the next start writes it anew";
            self.say_path(Severity::Note, mark::NAME, what, what_to_do);
        }
        let files = self.files.clone();
        let options = Options::default();
        let context = Context {
            files: &files,
            salt: version.salt,
            options: &options,
        };
        let in_use = version.in_use || self.inspection.identity.is_some();
        let marked = marked.map(|mark| mark.position).unwrap_or_default();
        let Listing { numbers, strays } = match list_segments(&context) {
            Ok(listing) => listing,
            Err(error) => {
                self.refused(error);
                return Ok(States::new());
            }
        };
        for stray in strays {
            let name = format!("{DIR}/{stray}");
            let what = "the file is no segment, and ignored";
            self.say_path(Severity::Note, &name, what, "move it away");
        }
        let surveyed = floor(&context, &numbers, marked).and_then(|floor| {
            self.inspection.synced_to = (floor.segment > 0).then(|| floor.into());
            survey(&context, &numbers, floor, in_use).map(|found| (floor, found))
        });
        let (floor, found) = match surveyed {
            Ok((floor, found)) => (floor, found),
            Err(error) => {
                self.refused(error);
                let floor = self.inspection.synced_to.map_or(marked, |place| Position {
                    segment: place.segment,
                    offset: place.offset,
                });
                (floor, None)
            }
        };
        if let Some(cut) = found.as_ref().and_then(|found| found.cut.as_ref()) {
            self.say(
                Severity::Note,
                &cut.file,
                Some(cut.position),
                format!("torn tail: {}", cut.reason),
                "nothing: the next start cuts it off, and nobody was told that it is durable",
            );
        }
        let states = self.segments(&context, &numbers, found.as_ref(), floor)?;
        let states = found.as_ref().map_or(states, |found| found.full.clone());
        // A damaged one is named already.
        let identified = !self.identity_missing;
        if let Err(error) = check_identity(&context, &states, identified) {
            self.refused(error);
        }
        self.inspection.partitions = states
            .iter()
            .map(|(partition, state)| partition_of(*partition, state))
            .collect();
        if let Some(found) = &found
            && self.options.verify
            && self.inspection.index.present
        {
            let mut inspection = std::mem::take(&mut self.inspection.index);
            let mut findings = Vec::new();
            let dir = self.dir;
            index::compare(
                &context,
                dir,
                found,
                &mut inspection,
                &mut findings,
                &mut |bytes| self.read(bytes),
            );
            self.inspection.index = inspection;
            self.inspection.findings.append(&mut findings);
        }
        Ok(states)
    }

    /// Reads the segments: those without a footer, or all of them. Answers what the frames lead to, as far as they can
    /// be read.
    fn segments(
        &mut self,
        context: &Context<'_>,
        numbers: &[u64],
        found: Option<&Survey>,
        floor: Position,
    ) -> io::Result<States> {
        let chain = found.map(Survey::segments).unwrap_or_default();
        let mut states = States::new();
        let mut follows = false;
        for number in numbers {
            let name = file_name(*number);
            let size_bytes = self.files.open(&name)?.size()?;
            let in_chain = chain.iter().find(|(other, _)| other == number);
            let mut segment = SegmentInspection {
                number: *number,
                file: self.files.path(&name).display().to_string(),
                size_bytes,
                used_bytes: 0,
                sealed: false,
                in_log: found.is_none() || in_chain.is_some(),
                entries: Vec::new(),
                frames: None,
            };
            if !segment.in_log {
                let what = "the segment holds nothing of the log: its start was never synced, or its content was written again";
                let what_to_do = "nothing: the next start removes it";
                self.say(Severity::Note, &segment.file, None, what, what_to_do);
                self.inspection.segments.push(segment);
                continue;
            }
            let closed = found.and_then(|found| {
                let closed = found.closed.iter().find(|closed| closed.number == *number);
                closed.map(|closed| (closed, !found.unsealed.contains(number)))
            });
            if let Some((closed, true)) = closed
                && !self.reads_all_segments()
            {
                segment.used_bytes = closed.end;
                segment.sealed = true;
                segment.entries = entries_of(&closed.footer);
                self.inspection.segments.push(segment);
                follows = false;
                continue;
            }
            let end = in_chain.and_then(|(_, end)| *end);
            let walked =
                segments::walk(context, *number, end, &mut states, follows, &mut |bytes| {
                    self.read(bytes)
                });
            match walked {
                Ok(walk) => {
                    segment.used_bytes = walk.end;
                    segment.sealed = walk.sealed;
                    segment.entries = entries_of(&walk.counts);
                    segment.frames = Some(walk.frames);
                    follows = walk.faults.is_empty() && end.is_some();
                    let newest = numbers.last() == Some(number);
                    for (offset, reason) in walk.faults {
                        let lost = match end {
                            Some(end) => offset < end,
                            None if found.is_some() => {
                                let position = Position {
                                    segment: *number,
                                    offset,
                                };
                                position < floor
                            }
                            None => !newest || *number < floor.segment || offset < floor.offset,
                        };
                        self.segment_fault(&segment.file, offset, reason, lost);
                    }
                    if end.is_some() && !segment.sealed {
                        let what = "the segment has no footer, as after a crash";
                        let what_to_do = "nothing: the next start writes it";
                        self.say(Severity::Note, &segment.file, end, what, what_to_do);
                    }
                }
                Err(error) => self.refused(error),
            }
            self.inspection.segments.push(segment);
        }
        Ok(states)
    }

    fn segment_fault(&mut self, file: &str, offset: u64, reason: &str, lost: bool) {
        let said = self
            .inspection
            .findings
            .iter()
            .any(|finding| finding.file == file && finding.position == Some(offset));
        if said {
            return;
        }
        if lost {
            let what = format!("{reason}; synced entries of this segment cannot be read");
            self.say(Severity::Refused, file, Some(offset), what, REJOIN);
        } else {
            let what_to_do =
                "nothing: the next start cuts it off, and nobody was told that it is durable";
            let what = format!("torn tail: {reason}");
            self.say(Severity::Note, file, Some(offset), what, what_to_do);
        }
    }
}

fn entries_of(footer: &Footer) -> Vec<SegmentEntries> {
    let rows = footer.0.iter().map(|(partition, counts)| SegmentEntries {
        partition: *partition,
        entries: counts.entries,
        first_index: counts.first,
        last_index: counts.last,
    });
    rows.collect()
}

fn partition_of(partition: u32, state: &PartitionState) -> PartitionInspection {
    PartitionInspection {
        partition,
        vote: state.vote,
        purged: state.purged,
        last: state.last,
        live: state.live(),
        history: state.history.clone(),
        terms: state
            .runs()
            .iter()
            .map(|run| TermRun {
                first_index: run.first,
                term: run.term,
                node_id: run.node_id,
            })
            .collect(),
    }
}
