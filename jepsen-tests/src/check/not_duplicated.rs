//! I3: a batch (session, sequence) is applied at most once.
//!
//! Source: the Raft dissertation, section 6.3 (linearizable semantics by
//! sessions), without its forgetting: there is no window after which a repeated
//! batch counts as new.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Key, violation};
use super::{Invariant, Violation};
use crate::history::Append;

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        values(name, key, violations);
    }
    sequences(index, violations);
}

/// A value has one offset, whoever looks, and however often its batch is sent.
fn values(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    let offsets = key.offsets();
    for seen in &key.seen {
        let mut within = BTreeSet::new();
        for &(offset, value) in seen.entries {
            let (first, event) = offsets[&value];
            if offset != first {
                let what = format!("value {value} of {name} is at offset {offset} and at {first}");
                violations.push(violation(Invariant::I3, [event, seen.event], what));
            } else if !within.insert(value) {
                let what = format!("value {value} of {name} is shown twice at offset {offset}");
                violations.push(violation(Invariant::I3, [seen.event], what));
            }
        }
    }
    for answer in key.acknowledgements() {
        let (first, event) = offsets[&answer.op.v];
        if answer.offset != first {
            let what = format!(
                "value {} of {name} was acknowledged at offset {} and is at {first}",
                answer.op.v, answer.offset
            );
            violations.push(violation(Invariant::I3, [answer.ok, event], what));
        }
    }
}

/// A number of a session is on one value, or on those of one batch. A producer
/// that was fenced before it got an answer leaves its number to another value,
/// and only one of the two is ever applied.
fn sequences(index: &Index<'_>, violations: &mut Vec<Violation>) {
    let mut applied: BTreeMap<(&str, u64), (&str, u64, u64)> = BTreeMap::new();
    for (name, key) in &index.keys {
        for (value, (_, event)) in key.offsets() {
            let Some(append) = key.append_of(value) else {
                continue;
            };
            let number = (append.op.producer.as_str(), append.op.seq);
            let Some((other_key, other, other_event)) =
                applied.insert(number, (name, value, event))
            else {
                continue;
            };
            let sent_with = |other: &Append| {
                let op = append.op;
                op.batch.is_some() && (op.batch, op.epoch) == (other.batch, other.epoch)
            };
            let together = other_key == *name
                && key
                    .append_of(other)
                    .is_some_and(|append| sent_with(append.op));
            if (other_key, other) != (*name, value) && !together {
                let what = format!(
                    "{} {} was applied as value {other} of {other_key} and as {value} of {name}",
                    number.0, number.1
                );
                violations.push(violation(Invariant::I3, [other_event, event], what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I3;
    use super::super::script::assert_violates;

    #[test]
    fn a_value_that_is_there_twice() {
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > read h 0
             1 ok read h 0 = 0:17 1:17",
        );
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > poll h s
             1 ok poll h s = 0:17 0:17",
        );
    }

    #[test]
    fn an_acknowledgement_of_another_offset_than_readers_see() {
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @1
             1 > read h 0
             1 ok read h 0 = 0:17",
        );
    }

    #[test]
    fn a_resend_that_is_applied_anew() {
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             0 > resend h p0 1 17
             0 ok resend h p0 1 17 @1",
        );
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > resend h p0 1 17
             1 ok resend h p0 1 17 @9
             2 > read h 0
             2 ok read h 0 = 0:17",
        );
    }

    #[test]
    fn a_sequence_on_two_values() {
        assert_violates(
            I3,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > append h p0 1 18
             1 ok append h p0 1 18 @1
             1 > read h 0
             1 ok read h 0 = 0:17 1:18",
        );
    }

    #[test]
    fn a_sequence_on_two_batches() {
        assert_violates(
            I3,
            "0 > append h p0 1 17 e1 b2
             1 > append h p0 1 18 e1 b2
             2 > append h p0 1 19 e2 b2
             3 > append h p0 1 20 e2 b2
             4 > read h 0
             4 ok read h 0 = 0:17 1:18 2:19 3:20",
        );
    }
}
