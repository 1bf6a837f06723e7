//! I5: one order for all readers, offsets without gaps, a session's batches in
//! sequence order.
//!
//! Source: Raft, section 5.3 (log matching): two logs that agree on an index
//! agree on everything before it. For subscriptions: DESIGN I5, after etcd's
//! promise for watches (ordered, no gaps, resumable).

use std::collections::BTreeMap;

use super::index::{Index, Key, violation};
use super::{Invariant, Violation};

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        one_order(name, key, violations);
        no_gaps(name, key, violations);
        subscriptions(name, key, violations);
        sequences(name, key, violations);
    }
}

/// An offset has one value, whoever looks.
fn one_order(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    let mut order: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let seen = key.seen.iter().flat_map(|seen| {
        let event = seen.event;
        seen.entries
            .iter()
            .map(move |&(offset, value)| (offset, value, event))
    });
    let acknowledged = key
        .acknowledgements()
        .map(|answer| (answer.offset, answer.op.v, answer.ok));
    for (offset, value, event) in seen.chain(acknowledged) {
        let (first, first_event) = *order.entry(offset).or_insert((value, event));
        if first != value {
            let what = format!("offset {offset} of {name} is value {first} and value {value}");
            violations.push(violation(Invariant::I5, [first_event, event], what));
        }
    }
}

/// A read shows every offset from where it starts to its end.
fn no_gaps(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    let reads = key
        .reads
        .iter()
        .map(|read| (read.ok(), read.op.from, &read.op.entries, read.op.end));
    let stale = key
        .stale_reads
        .iter()
        .map(|read| (read.ok(), read.op.from, &read.op.entries, read.op.end));
    for (ok, from, entries, end) in reads.chain(stale) {
        let (Some(ok), Some(entries), Some(end)) = (ok, entries, end) else {
            continue;
        };
        let shown = entries.iter().map(|&(offset, _)| offset);
        // A node that is behind the start of a stale read shows nothing.
        if !shown.eq(from..end.max(from)) {
            let what = format!(
                "a read of {name} from {from} to {end} shows other offsets: {}",
                ranges(entries)
            );
            violations.push(violation(Invariant::I5, [ok], what));
        }
    }
}

/// What a subscription is given begins at the first offset, where none has been
/// given up, and goes on where it stopped before.
fn subscriptions(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    for (sub, polls) in &key.subscriptions {
        let begins = polls.first().filter(|_| key.first_kept() == 0);
        let mut next: Option<(u64, u64)> = begins.map(|poll| (0, poll.event));
        for poll in polls {
            for &(offset, _) in poll.entries {
                if let Some((expected, event)) = next.filter(|(expected, _)| *expected != offset) {
                    let what = format!(
                        "subscription {sub} to {name} was given offset {offset} where {expected} was next"
                    );
                    violations.push(violation(Invariant::I5, [event, poll.event], what));
                }
                next = Some((offset + 1, poll.event));
            }
        }
    }
}

/// A session's sequences rise with the offsets.
fn sequences(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    let mut by_offset: Vec<(u64, u64, u64)> = key
        .offsets()
        .into_iter()
        .map(|(value, (offset, event))| (offset, value, event))
        .collect();
    by_offset.sort_unstable();
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (offset, value, event) in by_offset {
        let Some(append) = key.append_of(value) else {
            continue;
        };
        let seq = append.op.seq;
        let before = last.insert(&append.op.producer, (seq, event));
        // The same again is I3's.
        if let Some((earlier, earlier_event)) = before.filter(|(earlier, _)| *earlier > seq) {
            let what = format!(
                "offset {offset} of {name} is {} {seq}, after {earlier}",
                append.op.producer
            );
            violations.push(violation(Invariant::I5, [earlier_event, event], what));
        }
    }
}

/// The offsets, as runs.
fn ranges(entries: &[(u64, u64)]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &(offset, _) in entries {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => runs.push((offset, offset)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(first, last)| format!("{first}..={last}"))
        .collect();
    if runs.is_empty() {
        "none".to_owned()
    } else {
        runs.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I5;
    use super::super::script::assert_violates;

    #[test]
    fn readers_that_disagree() {
        assert_violates(
            I5,
            "0 > append h p0 1 17
             1 > append h p1 1 18
             2 > read h 0
             2 ok read h 0 = 0:17
             2 > stale h 0 0
             2 ok stale h 0 0 = 0:18",
        );
    }

    #[test]
    fn two_acknowledged_at_one_offset() {
        assert_violates(
            I5,
            "0 > append h p0 1 17
             1 > append h p1 1 18
             0 ok append h p0 1 17 @0
             1 ok append h p1 1 18 @0",
        );
    }

    #[test]
    fn a_read_with_a_gap() {
        for entries in ["0:17 2:19 end=3", "0:17 1:18 end=3", "1:18 2:19 end=3"] {
            assert_violates(
                I5,
                &format!(
                    "0 > append h p0 1 17
                     1 > append h p1 1 18
                     2 > append h p2 1 19
                     3 > read h 0
                     3 ok read h 0 = {entries}"
                ),
            );
        }
    }

    #[test]
    fn a_subscription_that_skips_or_repeats() {
        for second in ["2:19", "0:17", "1:18 1:18"] {
            assert_violates(
                I5,
                &format!(
                    "0 > append h p0 1 17
                     1 > append h p1 1 18
                     2 > append h p2 1 19
                     3 > poll h s
                     3 ok poll h s = 0:17
                     3 > poll h s
                     3 ok poll h s = {second}"
                ),
            );
        }
    }

    #[test]
    fn a_subscription_that_begins_too_late() {
        assert_violates(
            I5,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > append h p1 1 18
             1 ok append h p1 1 18 @1
             2 > read h 0
             2 ok read h 0 = 0:17 1:18
             3 > poll h s
             3 ok poll h s = 1:18",
        );
    }

    #[test]
    fn a_session_out_of_order() {
        assert_violates(
            I5,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > append h p0 2 18
             1 ok append h p0 2 18 @0
             2 > read h 0
             2 ok read h 0 = 0:18 1:17",
        );
    }
}
