//! Reading a benchmark's events back: what was acknowledged is there, in
//! order, once.

use std::collections::HashMap;

use huntlog_client::{Client, proto};

use crate::failure::Failure;
use crate::progress;

/// What was acknowledged.
#[derive(Debug)]
pub struct Acknowledged {
    /// Positions of the sessions, by name.
    sessions: HashMap<String, usize>,
    /// Of each, the sequences of its acknowledged batches, ascending.
    sequences: Vec<Vec<u64>>,
    /// Events of each batch.
    batch: u64,
    /// Where the log stood before the first.
    from_offset: u64,
    end_offset: u64,
}

/// What was found instead.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Events of these sessions that are there.
    pub events: u64,
    /// Events acknowledged that are not.
    pub lost: u64,
    /// Events that are there twice, or behind a later batch.
    pub duplicated: u64,
}

impl Acknowledged {
    /// Nothing yet, of batches of so many events.
    pub fn new(sessions: impl IntoIterator<Item = String>, batch: u16, from_offset: u64) -> Self {
        let sessions: HashMap<String, usize> = sessions.into_iter().zip(0..).collect();
        Self {
            sequences: vec![Vec::new(); sessions.len()],
            sessions,
            batch: batch.into(),
            from_offset,
            end_offset: from_offset,
        }
    }

    /// Adds batches, by session and sequence, and the end of the log after them.
    pub fn add(&mut self, batches: impl IntoIterator<Item = (usize, u64)>, end_offset: u64) {
        for (session, sequence) in batches {
            self.sequences[session].push(sequence);
        }
        self.end_offset = self.end_offset.max(end_offset);
    }

    /// Compares them with what `client` reads, which is what a node has when
    /// the client is of that node alone.
    pub async fn compare(&mut self, client: &Client) -> Result<Findings, Failure> {
        let stale = proto::Stale {
            min_offset: self.end_offset,
        };
        let mut reader = client.read(proto::ReadRequest {
            from_offset: self.from_offset,
            consistency: Some(proto::Consistency {
                level: Some(proto::consistency::Level::Stale(stale)),
            }),
            ..Default::default()
        });
        self.sequences.iter_mut().for_each(|s| s.sort_unstable());
        let mut comparison = Comparison::new(self);
        let bar = progress::bar(self.end_offset - self.from_offset, "verify");
        while let Some(page) = reader.next_page().await? {
            bar.inc(page.len() as u64);
            page.iter().for_each(|event| comparison.take(event));
        }
        bar.finish_and_clear();
        Ok(comparison.finish())
    }
}

/// A session as it is read.
#[derive(Debug, Clone, Default)]
struct Place {
    sequence: u64,
    log_index: u64,
    events: u64,
    /// Acknowledged batches met or passed.
    passed: usize,
}

struct Comparison<'a> {
    acknowledged: &'a Acknowledged,
    places: Vec<Place>,
    findings: Findings,
}

impl<'a> Comparison<'a> {
    fn new(acknowledged: &'a Acknowledged) -> Self {
        Self {
            places: vec![Place::default(); acknowledged.sequences.len()],
            acknowledged,
            findings: Findings::default(),
        }
    }

    fn take(&mut self, event: &proto::CommittedEvent) {
        let Some(&session) = self.acknowledged.sessions.get(&event.session) else {
            return;
        };
        self.findings.events += 1;
        let place = &mut self.places[session];
        if (event.sequence, event.log_index) == (place.sequence, place.log_index) {
            place.events += 1;
            // One more than the batch had.
            self.findings.duplicated += u64::from(place.events > self.acknowledged.batch);
            return;
        }
        if event.sequence <= place.sequence {
            self.findings.duplicated += 1;
            return;
        }
        self.leave(session, event.sequence);
        let place = &mut self.places[session];
        place.sequence = event.sequence;
        place.log_index = event.log_index;
        place.events = 1;
    }

    /// Settles the acknowledged batches of a session below `next`.
    fn leave(&mut self, session: usize, next: u64) {
        let place = &mut self.places[session];
        let sequences = &self.acknowledged.sequences[session];
        while let Some(&sequence) = sequences.get(place.passed).filter(|s| **s < next) {
            let there = if sequence == place.sequence {
                place.events
            } else {
                0
            };
            self.findings.lost += self.acknowledged.batch.saturating_sub(there);
            place.passed += 1;
        }
    }

    fn finish(mut self) -> Findings {
        for session in 0..self.places.len() {
            self.leave(session, u64::MAX);
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the log, as (session, sequence, log index), with what was
    /// acknowledged, as (session, sequence), in batches of two.
    fn findings(acknowledged: &[(usize, u64)], log: &[(&str, u64, u64)]) -> Findings {
        let names = ["a", "b"].map(str::to_owned);
        let mut all = Acknowledged::new(names, 2, 0);
        all.add(acknowledged.iter().copied(), 100);
        let mut comparison = Comparison::new(&all);
        for (session, sequence, log_index) in log {
            comparison.take(&proto::CommittedEvent {
                session: (*session).to_owned(),
                sequence: *sequence,
                log_index: *log_index,
                ..Default::default()
            });
        }
        comparison.finish()
    }

    fn found(events: u64, lost: u64, duplicated: u64) -> Findings {
        Findings {
            events,
            lost,
            duplicated,
        }
    }

    const TWO: [(usize, u64); 2] = [(0, 1), (0, 2)];

    #[test]
    fn all_of_it_once_is_right_whoever_else_writes() {
        let log = [
            ("a", 1, 7),
            ("a", 1, 7),
            ("stranger", 1, 7),
            ("b", 1, 8),
            ("b", 1, 8),
            ("a", 2, 9),
            ("a", 2, 9),
        ];
        assert_eq!(findings(&TWO, &log), found(6, 0, 0));
    }

    #[test]
    fn what_is_missing_is_counted_at_the_front_in_the_middle_and_at_the_end() {
        assert_eq!(findings(&TWO, &[]), found(0, 4, 0));
        assert_eq!(findings(&TWO, &[("a", 2, 1), ("a", 2, 1)]), found(2, 2, 0));
        let half = [("a", 1, 1), ("a", 1, 1), ("a", 2, 2)];
        assert_eq!(findings(&TWO, &half), found(3, 1, 0));
        assert_eq!(findings(&[(1, 5)], &half), found(3, 2, 0));
    }

    #[test]
    fn what_is_there_twice_is_counted() {
        let again = [("a", 1, 1), ("a", 1, 1), ("a", 1, 2), ("a", 1, 2)];
        assert_eq!(findings(&[(0, 1)], &again), found(4, 0, 2));
        let too_many = [("a", 1, 1), ("a", 1, 1), ("a", 1, 1)];
        assert_eq!(findings(&[(0, 1)], &too_many), found(3, 0, 1));
        let disorder = [("a", 2, 1), ("a", 2, 1), ("a", 1, 2), ("a", 1, 2)];
        assert_eq!(findings(&TWO, &disorder), found(4, 2, 2));
    }
}
