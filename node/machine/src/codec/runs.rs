//! The outcomes of a batch's events, run-length encoded.
//!
//! ```text
//! runs     = [run]
//! run      = count*4+0                   accepted, nothing followed
//!          | count*4+1 reason:u8         rejected
//!          | count*4+2 effects:bytes     accepted, each with these effects
//! outcomes = first-offset base-revisions:[revision] runs
//! ```
//! Offsets and revisions are not written for each event: they follow from those
//! before the batch, by counting.

use super::{DecodeError, Put, Reader};
use crate::RejectReason;

const PLAIN: u64 = 0;
const REJECTED: u64 = 1;
const EFFECTS: u64 = 2;

/// What became of one event, without its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run<'a> {
    Plain,
    Rejected(RejectReason),
    Effects(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Plain,
    Rejected(RejectReason),
    Effects,
}

/// Gathers the outcomes of one batch after the other.
#[derive(Debug, Default)]
pub(crate) struct RunWriter {
    closed: Vec<u8>,
    closed_runs: usize,
    open: Option<Open>,
    count: u64,
    /// Of the open run.
    effects: Vec<u8>,
}

impl RunWriter {
    pub(crate) fn clear(&mut self) {
        self.closed.clear();
        self.closed_runs = 0;
        self.open = None;
    }

    #[inline]
    pub(crate) fn plain(&mut self) {
        if self.open == Some(Open::Plain) {
            self.count += 1;
        } else {
            self.start(Open::Plain);
        }
    }

    pub(crate) fn rejected(&mut self, reason: RejectReason) {
        if self.open == Some(Open::Rejected(reason)) {
            self.count += 1;
        } else {
            self.start(Open::Rejected(reason));
        }
    }

    pub(crate) fn accepted(&mut self, effects: &[u8]) {
        if effects.is_empty() {
            self.plain();
        } else if self.open == Some(Open::Effects) && self.effects == effects {
            self.count += 1;
        } else {
            self.start(Open::Effects);
            self.effects.clear();
            self.effects.extend_from_slice(effects);
        }
    }

    fn start(&mut self, open: Open) {
        self.close();
        self.open = Some(open);
        self.count = 1;
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.closed_runs += 1;
        match open {
            Open::Plain => self.closed.put_varint(self.count << 2 | PLAIN),
            Open::Rejected(reason) => {
                self.closed.put_varint(self.count << 2 | REJECTED);
                self.closed.put_u8(reason.number());
            }
            Open::Effects => {
                self.closed.put_varint(self.count << 2 | EFFECTS);
                self.closed.put_bytes(&self.effects);
            }
        }
    }

    /// The number of events, if all were accepted without effects.
    pub(crate) fn all_plain(&self) -> Option<u64> {
        match self.open {
            None if self.closed_runs == 0 => Some(0),
            Some(Open::Plain) if self.closed_runs == 0 => Some(self.count),
            _ => None,
        }
    }

    /// Appends the runs. No events may follow.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>) {
        self.close();
        out.put_len(self.closed_runs);
        out.put_raw(&self.closed);
    }

    /// The runs as [`Positioned`]: `base_revisions` are those of the batch's
    /// hunts. No events may follow.
    pub(crate) fn positioned(&mut self, first_offset: u64, base_revisions: &[u64]) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(32);
        encoded.put_varint(first_offset);
        encoded.put_len(base_revisions.len());
        for &base in base_revisions {
            encoded.put_varint(base);
        }
        self.put(&mut encoded);
        encoded
    }
}

/// Gives back outcomes in order, one event at a time.
#[derive(Debug, Clone)]
pub(crate) struct RunReader<'a> {
    reader: Reader<'a>,
    runs: usize,
    run: Run<'a>,
    left: u64,
}

/// Outcomes with their positions, as a session keeps them.
#[derive(Debug, Clone)]
pub(crate) struct Positioned<'a> {
    pub(crate) first_offset: u64,
    /// Of each of the batch's hunts.
    pub(crate) base_revisions: Vec<u64>,
    pub(crate) runs: RunReader<'a>,
    /// How many the runs tell of.
    pub(crate) events: u64,
}

impl<'a> Positioned<'a> {
    pub(crate) fn decode(encoded: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(encoded);
        let first_offset = reader.varint("first offset")?;
        let mut base_revisions = Vec::new();
        for _ in 0..reader.count("base revisions")? {
            base_revisions.push(reader.varint("base revision")?);
        }
        let (runs, _, events) = RunReader::take(&mut reader)?;
        reader.finish("outcomes")?;
        Ok(Self {
            first_offset,
            base_revisions,
            runs,
            events,
        })
    }
}

impl<'a> RunReader<'a> {
    /// Takes runs from the front of a record, and returns how many events they
    /// accept, and how many they tell of.
    pub(crate) fn take(reader: &mut Reader<'a>) -> Result<(Self, u64, u64), DecodeError> {
        let runs = reader.count("runs")?;
        let taken = Self {
            reader: *reader,
            runs,
            run: Run::Plain,
            left: 0,
        };
        let (mut accepted, mut events) = (0_u64, 0_u64);
        for _ in 0..runs {
            let (run, count) = Self::read(reader)?;
            events = events
                .checked_add(count)
                .ok_or(DecodeError::OutOfRange { what: "run" })?;
            if !matches!(run, Run::Rejected(_)) {
                accepted += count;
            }
        }
        Ok((taken, accepted, events))
    }

    fn read(reader: &mut Reader<'a>) -> Result<(Run<'a>, u64), DecodeError> {
        let head = reader.varint("run")?;
        let run = match head & 3 {
            PLAIN => Run::Plain,
            REJECTED => {
                let number = reader.u8("reject reason")?;
                Run::Rejected(
                    RejectReason::from_number(number).ok_or(DecodeError::UnknownTag {
                        what: "reject reason",
                        tag: number,
                    })?,
                )
            }
            EFFECTS => Run::Effects(reader.bytes("effects")?),
            _ => {
                return Err(DecodeError::UnknownTag {
                    what: "run",
                    tag: 3,
                });
            }
        };
        match head >> 2 {
            0 => Err(DecodeError::OutOfRange { what: "run" }),
            count => Ok((run, count)),
        }
    }

    /// Refuses outcomes left over.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.left > 0 || self.runs > 0 {
            return Err(DecodeError::Contradiction { what: "runs" });
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Result<Run<'a>, DecodeError> {
        if self.left == 0 {
            self.runs = self
                .runs
                .checked_sub(1)
                .ok_or(DecodeError::Truncated { what: "runs" })?;
            (self.run, self.left) = Self::read(&mut self.reader)?;
        }
        self.left -= 1;
        Ok(self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run() -> impl Strategy<Value = Option<Result<Vec<u8>, RejectReason>>> {
        prop_oneof![
            Just(None),
            Just(Some(Err(RejectReason::ClueLocked))),
            Just(Some(Err(RejectReason::HuntOver))),
            Just(Some(Ok(vec![1]))),
            Just(Some(Ok(vec![5, 1]))),
        ]
    }

    proptest! {
        #[test]
        fn runs_survive(events in proptest::collection::vec((run(), 1_usize..5), 0..40)) {
            let events: Vec<_> = events
                .into_iter()
                .flat_map(|(run, count)| std::iter::repeat_n(run, count))
                .collect();
            let mut writer = RunWriter::default();
            for event in &events {
                match event {
                    None => writer.plain(),
                    Some(Err(reason)) => writer.rejected(*reason),
                    Some(Ok(effects)) => writer.accepted(effects),
                }
            }
            let mut encoded = Vec::new();
            writer.put(&mut encoded);
            let mut reader = Reader::new(&encoded);
            let (mut runs, accepted, all) = RunReader::take(&mut reader).unwrap();
            prop_assert_eq!(all, events.len() as u64);
            prop_assert!(reader.is_empty());
            let expected = events.iter().filter(|event| !matches!(event, Some(Err(_)))).count();
            prop_assert_eq!(accepted, expected as u64);
            for event in &events {
                let expected = match event {
                    None => Run::Plain,
                    Some(Err(reason)) => Run::Rejected(*reason),
                    Some(Ok(effects)) => Run::Effects(effects),
                };
                prop_assert_eq!(runs.next().unwrap(), expected);
            }
            prop_assert!(runs.finish().is_ok());
            prop_assert!(runs.next().is_err());
        }

        #[test]
        fn damage_never_panics(bytes: Vec<u8>) {
            if let Ok(Positioned { mut runs, .. }) = Positioned::decode(&bytes) {
                for _ in 0..100 {
                    if runs.next().is_err() {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_of_any_length_takes_a_few_bytes() {
        let mut writer = RunWriter::default();
        (0..4_096).for_each(|_| writer.plain());
        let mut encoded = Vec::new();
        writer.put(&mut encoded);
        assert!(encoded.len() <= 4, "{}", encoded.len());
    }
}
