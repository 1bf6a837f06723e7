//! I4: once a session is reopened with a higher epoch, the lower epoch's appends
//! are rejected.
//!
//! Source: DESIGN I4; the shape is that of a fencing token (Kleppmann, "How to
//! do distributed locking"): in the log's order a session's epochs only rise.
//! What an opening says of the session it found is checked here as well.

use std::collections::BTreeMap;

use super::index::{Acknowledgement, Index, Operation, violation};
use super::{Invariant, Violation};
use crate::history::{Append, Open};

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    let mut appends: BTreeMap<&str, Vec<&Operation<'_, Append>>> = BTreeMap::new();
    let mut acknowledged: BTreeMap<&str, Vec<Acknowledgement<'_>>> = BTreeMap::new();
    for key in index.keys.values() {
        for append in &key.appends {
            appends.entry(&append.op.producer).or_default().push(append);
        }
        for answer in key.acknowledgements() {
            let of_producer = acknowledged.entry(&answer.op.producer).or_default();
            of_producer.push(answer);
        }
    }
    for (producer, opens) in &index.opens {
        let opens: Vec<Opening<'_>> = opens.iter().filter_map(Opening::new).collect();
        let appends = appends.remove(producer).unwrap_or_default();
        let acknowledged = acknowledged.remove(producer).unwrap_or_default();
        rising(producer, &opens, violations);
        for open in &opens {
            fenced(producer, open, &appends, violations);
            remembered(producer, open, &acknowledged, violations);
            invented(producer, open, &appends, violations);
        }
    }
    in_log(index, violations);
}

/// An opening that was answered.
struct Opening<'a> {
    operation: &'a Operation<'a, Open>,
    ok: u64,
    epoch: u64,
    last: u64,
    fresh: bool,
}

impl<'a> Opening<'a> {
    fn new(operation: &'a Operation<'a, Open>) -> Option<Self> {
        Some(Self {
            operation,
            ok: operation.ok()?,
            epoch: operation.op.epoch?,
            last: operation.op.last?,
            fresh: operation.op.fresh?,
        })
    }
}

/// An opening that began after another had ended has the higher epoch.
fn rising(producer: &str, opens: &[Opening<'_>], violations: &mut Vec<Violation>) {
    let mut ended: Vec<&Opening<'_>> = opens.iter().collect();
    ended.sort_by_key(|open| open.ok);
    // Openings are in the order of their invocations.
    let mut highest: Option<&Opening<'_>> = None;
    let mut before = ended.into_iter().peekable();
    for open in opens {
        while let Some(earlier) = before.next_if(|earlier| earlier.ok < open.operation.invoked) {
            if highest.is_none_or(|highest| earlier.epoch > highest.epoch) {
                highest = Some(earlier);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.epoch >= open.epoch) {
            let what = format!(
                "{producer} was opened with epoch {} after epoch {}",
                open.epoch, earlier.epoch
            );
            violations.push(violation(Invariant::I4, [earlier.ok, open.ok], what));
        }
    }
}

/// Nothing is acknowledged to a lower epoch that was sent after the opening.
fn fenced(
    producer: &str,
    open: &Opening<'_>,
    appends: &[&Operation<'_, Append>],
    violations: &mut Vec<Violation>,
) {
    for append in appends {
        let (Some(ok), Some(epoch)) = (append.ok(), append.op.epoch) else {
            continue;
        };
        if epoch < open.epoch && append.invoked > open.ok {
            let what = format!(
                "{producer} {} was acknowledged under epoch {epoch}, which epoch {} had fenced",
                append.op.seq, open.epoch
            );
            violations.push(violation(
                Invariant::I4,
                [open.ok, append.invoked, ok],
                what,
            ));
        }
    }
}

/// An opening knows every sequence that was acknowledged before it began.
fn remembered(
    producer: &str,
    open: &Opening<'_>,
    acknowledged: &[Acknowledgement<'_>],
    violations: &mut Vec<Violation>,
) {
    let acknowledged = acknowledged
        .iter()
        .filter(|answer| answer.ok < open.operation.invoked)
        .max_by_key(|answer| answer.op.seq);
    if let Some(answer) = acknowledged.filter(|answer| answer.op.seq > open.last || open.fresh) {
        let what = format!(
            "{producer} was opened with last sequence {}{}, after {} was acknowledged",
            open.last,
            if open.fresh { " as a new session" } else { "" },
            answer.op.seq
        );
        let events = [answer.invoked, answer.ok, open.ok];
        violations.push(violation(Invariant::I2, events, what));
    }
}

/// An opening knows no sequence that had not been sent when it ended.
fn invented(
    producer: &str,
    open: &Opening<'_>,
    appends: &[&Operation<'_, Append>],
    violations: &mut Vec<Violation>,
) {
    let sent = appends
        .iter()
        .filter(|append| append.invoked < open.ok)
        .map(|append| append.op.seq)
        .max();
    if open.last > sent.unwrap_or_default() {
        let what = format!(
            "{producer} was opened with last sequence {}, which nobody had sent",
            open.last
        );
        violations.push(violation(Invariant::I10, [open.ok], what));
    }
}

/// In the log's order a session's epochs rise, and what a later opening did not
/// know of is not there under an earlier epoch.
fn in_log(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        let mut by_offset: Vec<(u64, u64, &Operation<'_, Append>)> = key
            .offsets()
            .into_iter()
            .filter_map(|(value, (offset, event))| Some((offset, event, key.append_of(value)?)))
            .collect();
        by_offset.sort_by_key(|(offset, ..)| *offset);
        let mut highest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (offset, event, append) in by_offset {
            let Some(epoch) = append.op.epoch else {
                continue;
            };
            let producer = append.op.producer.as_str();
            let (above, above_event) = *highest.get(producer).unwrap_or(&(epoch, event));
            if above > epoch {
                let what = format!(
                    "offset {offset} of {name} is {producer}'s of epoch {epoch}, after one of epoch {above}"
                );
                violations.push(violation(Invariant::I4, [above_event, event], what));
            } else {
                highest.insert(producer, (epoch, event));
            }
            let opens = index.opens.get(producer).into_iter().flatten();
            for open in opens.filter_map(Opening::new) {
                if open.epoch > epoch && append.op.seq > open.last {
                    let what = format!(
                        "{producer} {} of epoch {epoch} was applied, though epoch {} began at last sequence {}",
                        append.op.seq, open.epoch, open.last
                    );
                    violations.push(violation(Invariant::I4, [open.ok, event], what));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::{I2, I4, I10};
    use super::super::script::assert_violates;

    #[test]
    fn a_fenced_epoch_that_is_acknowledged() {
        assert_violates(
            I4,
            "0 > open p
             0 ok open p 5 0 fresh
             1 > open p
             1 ok open p 9 0
             0 > append h p 1 17 e5
             0 ok append h p 1 17 e5 @0",
        );
    }

    #[test]
    fn an_epoch_that_falls() {
        assert_violates(
            I4,
            "0 > open p
             0 ok open p 9 0 fresh
             1 > open p
             1 ok open p 5 0",
        );
    }

    #[test]
    fn a_lower_epoch_after_a_higher_in_the_log() {
        assert_violates(
            I4,
            "0 > append h p 1 17 e5
             1 > append h p 2 18 e9
             1 ok append h p 2 18 e9 @0
             2 > read h 0
             2 ok read h 0 = 0:18 1:17",
        );
    }

    #[test]
    fn a_batch_that_lands_after_its_fence() {
        assert_violates(
            I4,
            "0 > open p
             0 ok open p 5 0 fresh
             0 > append h p 1 17 e5
             1 > open p
             1 ok open p 9 0
             2 > read h 0
             2 ok read h 0 = 0:17",
        );
    }

    #[test]
    fn an_opening_that_has_forgotten() {
        assert_violates(
            I2,
            "0 > open p
             0 ok open p 5 0 fresh
             0 > append h p 1 17 e5
             0 ok append h p 1 17 e5 @0
             1 > open p
             1 ok open p 9 0 fresh",
        );
    }

    #[test]
    fn an_opening_that_knows_what_was_never_sent() {
        assert_violates(
            I10,
            "0 > open p
             0 ok open p 5 3",
        );
    }
}
