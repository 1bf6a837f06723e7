//! I9: all of a batch or none of it is in the log.
//!
//! Source: DESIGN I9. A batch is one part of one entry, and a node applies an
//! entry in one step: no reader sees a part of it, and what it appends to a key
//! stands together, in the order in which it was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Key, Operation, violation};
use super::{Invariant, Violation};
use crate::history::Append;

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        let offsets = key.offsets();
        for batch in batches(key) {
            batch.one_answer(name, violations);
            let Some(first) = batch.in_one_piece(name, &offsets, violations) else {
                continue;
            };
            batch.never_in_part(name, key, first, violations);
            batch.wholly_there(name, key, violations);
        }
    }
}

/// One batch, as it says of itself.
struct Batch<'a> {
    /// How many values it has.
    size: u64,
    /// Their appends, in the order in which they were sent.
    appends: Vec<&'a Operation<'a, Append>>,
}

/// What one key was sent together. A number under another epoch is another
/// batch: of two of them at most one is applied, which is I3's.
fn batches<'a>(key: &'a Key<'a>) -> Vec<Batch<'a>> {
    let mut batches: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for append in &key.appends {
        let op = append.op;
        if let Some(size) = op.batch {
            let batch = (op.producer.as_str(), op.seq, op.epoch, size);
            batches.entry(batch).or_default().push(append);
        }
    }
    batches
        .into_iter()
        .map(|((.., size), appends)| Batch { size, appends })
        .collect()
}

impl Batch<'_> {
    fn name(&self) -> String {
        let op = self.appends[0].op;
        format!("{} {}", op.producer, op.seq)
    }

    fn events(&self) -> impl Iterator<Item = u64> {
        self.appends.iter().flat_map(|append| append.events())
    }

    fn values(&self) -> BTreeSet<u64> {
        self.appends.iter().map(|append| append.op.v).collect()
    }

    /// What is said of one of it holds for all.
    fn one_answer(&self, key: &str, violations: &mut Vec<Violation>) {
        let ok = self.appends.iter().any(|append| append.ok().is_some());
        let failed = self.appends.iter().any(|append| append.failed().is_some());
        if ok && failed {
            let what = format!(
                "a part of {} of {key} was acknowledged, a part refused",
                self.name()
            );
            violations.push(violation(Invariant::I9, self.events(), what));
        }
    }

    /// The offset of its first value, where any of it is known to be.
    fn in_one_piece(
        &self,
        name: &str,
        offsets: &BTreeMap<u64, (u64, u64)>,
        violations: &mut Vec<Violation>,
    ) -> Option<u64> {
        let mut start: Option<(u64, u64)> = None;
        for (position, append) in (0_u64..).zip(&self.appends) {
            let Some(&(offset, event)) = offsets.get(&append.op.v) else {
                continue;
            };
            let begins = offset.checked_sub(position);
            let (expected, seen) = *start.get_or_insert((begins.unwrap_or(u64::MAX), event));
            if begins != Some(expected) {
                let what = format!(
                    "value {} of {name} is at offset {offset}, apart from the batch {} that it was sent in",
                    append.op.v,
                    self.name()
                );
                violations.push(violation(Invariant::I9, [seen, event], what));
                return None;
            }
        }
        start.map(|(offset, _)| offset)
    }

    /// No read ends within it.
    fn never_in_part(
        &self,
        name: &str,
        key: &Key<'_>,
        first: u64,
        violations: &mut Vec<Violation>,
    ) {
        let within = first + 1..first + self.size;
        let reads = key.reads.iter().map(|read| (read.ok(), read.op.end));
        let stale = key.stale_reads.iter().map(|read| (read.ok(), read.op.end));
        for (ok, end) in reads.chain(stale) {
            if let (Some(ok), Some(end)) = (ok, end)
                && within.contains(&end)
            {
                let what = format!(
                    "a read of {name} ends at {end}, within the batch {}",
                    self.name()
                );
                violations.push(violation(Invariant::I9, self.events().chain([ok]), what));
            }
        }
    }

    /// The last whole read has all of it or nothing.
    fn wholly_there(&self, name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
        let Some(read) = key.final_read() else {
            return;
        };
        let values = self.values();
        let entries = read.op.entries.iter().flatten();
        let there: BTreeSet<u64> = entries
            .map(|&(_, value)| value)
            .filter(|value| values.contains(value))
            .collect();
        if !there.is_empty() && there.len() as u64 != self.size {
            let what = format!(
                "{} of {} values of the batch {} of {name} are in the final read",
                there.len(),
                self.size,
                self.name()
            );
            let events = self.events().chain(read.ok());
            violations.push(violation(Invariant::I9, events, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I9;
    use super::super::script::{assert_violates, judged};

    const SENT: &str = "0 > append h p0 1 17 b2
                        1 > append h p0 1 18 b2";

    #[test]
    fn a_batch_of_which_a_part_is_refused() {
        assert_violates(
            I9,
            &format!(
                "{SENT}
                 0 ok append h p0 1 17 b2 @0
                 1 fail append h p0 1 18 b2"
            ),
        );
    }

    #[test]
    fn a_batch_of_which_a_part_is_there() {
        for entries in ["0:18 1:30", "0:17"] {
            assert_violates(
                I9,
                &format!(
                    "{SENT}
                     0 info append h p0 1 17 b2
                     1 info append h p0 1 18 b2
                     2 > read h 0
                     2 ok read h 0 = {entries}"
                ),
            );
        }
    }

    #[test]
    fn a_batch_that_something_came_between() {
        for entries in ["0:17 1:30 2:18", "0:18 1:17"] {
            assert_violates(
                I9,
                &format!(
                    "{SENT}
                     3 > append h p1 1 30
                     2 > read h 0
                     2 ok read h 0 = {entries}"
                ),
            );
        }
    }

    #[test]
    fn a_node_that_shows_a_part() {
        assert_violates(
            I9,
            &format!(
                "{SENT}
                 2 > stale h 0 0
                 2 ok stale h 0 0 = 0:17
                 0 ok append h p0 1 17 b2 @0
                 1 ok append h p0 1 18 b2 @1"
            ),
        );
    }

    #[test]
    fn a_batch_in_one_piece_is_no_violation() {
        let judgement = judged(&format!(
            "{SENT}
             2 > append h p0 1 40 e2
             2 info append h p0 1 40 e2
             3 > read h 0
             3 ok read h 0 = end=0
             0 ok append h p0 1 17 b2 @0
             1 ok append h p0 1 18 b2 @1
             4 > stale h 0 0
             4 ok stale h 0 0 = 0:17 1:18
             4 > read h 0
             4 ok read h 0 = 0:17 1:18
             5 > poll h s
             5 ok poll h s = 0:17 1:18"
        ));
        assert_eq!(judgement.violations, []);
    }
}
