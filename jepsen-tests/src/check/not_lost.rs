//! I2: whatever was acknowledged, and whatever anybody was shown, is in every
//! later read.
//!
//! Source: Raft, section 5.4 (leader completeness); the checker is the "set
//! full" idea of Jepsen: every acknowledged element is in the final read. Loss
//! seen earlier, by a linearizable read that does not show what was acknowledged
//! before it began, is I6.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Key, Seen, violation};
use super::{Invariant, Violation};

pub(super) fn check(
    index: &Index<'_>,
    violations: &mut Vec<Violation>,
    insufficient: &mut Vec<String>,
) {
    for (name, key) in &index.keys {
        if key.appends.is_empty() {
            continue;
        }
        in_final_read(name, key, violations, insufficient);
        in_drained_subscription(name, key, violations, insufficient);
    }
}

fn in_final_read(
    name: &str,
    key: &Key<'_>,
    violations: &mut Vec<Violation>,
    insufficient: &mut Vec<String>,
) {
    let Some(read) = key.final_read() else {
        insufficient.push(format!(
            "{name} is not read whole after its last acknowledged append"
        ));
        return;
    };
    let entries = read.op.entries.iter().flatten();
    let there: BTreeMap<u64, u64> = entries.map(|&(offset, value)| (value, offset)).collect();
    for answer in key.acknowledgements() {
        if answer.offset >= read.op.from && !there.contains_key(&answer.op.v) {
            let what = format!(
                "value {} of {name}, acknowledged at offset {}, is not in the final read",
                answer.op.v, answer.offset
            );
            let events = [answer.invoked, answer.ok].into_iter().chain(read.ok());
            violations.push(violation(Invariant::I2, events, what));
        }
    }
    // What a node shows is committed, whoever was told of it.
    let mut missed = BTreeSet::new();
    for seen in key.seen.iter().filter(|seen| seen.event < read.invoked) {
        for &(offset, value) in seen.entries {
            let kept = offset >= read.op.from;
            if kept && !there.contains_key(&value) && missed.insert(value) {
                let what = format!(
                    "value {value} of {name}, shown at offset {offset}, is not in the final read"
                );
                let events = [seen.event].into_iter().chain(read.ok());
                violations.push(violation(Invariant::I2, events, what));
            }
        }
    }
}

fn in_drained_subscription(
    name: &str,
    key: &Key<'_>,
    violations: &mut Vec<Violation>,
    insufficient: &mut Vec<String>,
) {
    // Where nothing is known to have been applied, there is nothing to deliver.
    let shown = key.seen.iter().any(|seen| !seen.entries.is_empty());
    if !shown && key.acknowledgements().next().is_none() {
        return;
    }
    let Some((sub, polls)) = furthest_subscription(key) else {
        insufficient.push(format!("no subscription to {name} is drained"));
        return;
    };
    let entries = || polls.iter().flat_map(|poll| poll.entries);
    let delivered: BTreeSet<u64> = entries().map(|&(_, value)| value).collect();
    let last = polls.last().map(|poll| poll.event);
    // A subscription that was behind what was given up could not have it.
    let first_kept = key.first_kept();
    for answer in key.acknowledgements() {
        if answer.offset >= first_kept && !delivered.contains(&answer.op.v) {
            let what = format!(
                "value {} of {name}, acknowledged, was never delivered to subscription {sub}, which came furthest",
                answer.op.v
            );
            let events = [answer.invoked, answer.ok].into_iter().chain(last);
            violations.push(violation(Invariant::I2, events, what));
        }
    }
}

/// The one that came furthest, of these the one that was given most.
fn furthest_subscription<'k>(key: &'k Key<'_>) -> Option<(&'k str, &'k [Seen<'k>])> {
    let subscriptions = key.subscriptions.iter();
    let furthest = subscriptions.max_by_key(|(_, polls)| {
        let entries = || polls.iter().flat_map(|poll| poll.entries);
        (
            entries().map(|&(offset, _)| offset).max(),
            entries().count(),
        )
    });
    furthest.map(|(sub, polls)| (*sub, polls.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I2;
    use super::super::script::{assert_insufficient, assert_violates, judged};

    #[test]
    fn an_acknowledged_value_that_the_final_read_lacks() {
        assert_violates(
            I2,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > poll h s
             1 ok poll h s = 0:17
             1 > read h 0
             1 ok read h 0 =",
        );
    }

    #[test]
    fn an_acknowledged_value_that_the_subscription_lacks() {
        assert_violates(
            I2,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > poll h s
             1 ok poll h s =
             1 > read h 0
             1 ok read h 0 = 0:17",
        );
    }

    #[test]
    fn a_value_that_was_acknowledged_when_it_was_sent_again() {
        assert_violates(
            I2,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > resend h p0 1 17
             1 ok resend h p0 1 17 @0
             2 > poll h s
             2 ok poll h s = 0:17
             2 > read h 0
             2 ok read h 0 =",
        );
    }

    #[test]
    fn a_value_that_was_shown_and_is_gone() {
        for shown in [
            "2 > poll h s
             2 ok poll h s = 0:17",
            "2 > stale h 0 0
             2 ok stale h 0 0 = 0:17",
        ] {
            assert_violates(
                I2,
                &format!(
                    "0 > append h p0 1 17
                     0 info append h p0 1 17
                     {shown}
                     2 > read h 0
                     2 ok read h 0 ="
                ),
            );
        }
    }

    #[test]
    fn a_subscription_that_was_left_for_another_is_not_judged() {
        let judgement = judged(
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             0 > append h p0 2 18
             0 ok append h p0 2 18 @1
             0 > append h p0 3 19
             0 ok append h p0 3 19 @2
             0 > append h p0 4 20
             0 ok append h p0 4 20 @3
             1 > poll h s.0
             1 ok poll h s.0 = 0:17 1:18
             2 > read h 3 given-up
             2 ok read h 3 given-up = 3:20
             1 > poll h s.1
             1 ok poll h s.1 = 3:20",
        );
        assert_eq!(judgement.violations, []);
    }

    #[test]
    fn what_is_not_read_to_the_end_has_no_verdict() {
        assert_insufficient(
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > poll h s
             1 ok poll h s = 0:17",
            "h is not read whole",
        );
        assert_insufficient(
            "1 > read h 0
             0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 ok read h 0 = 0:17
             1 > poll h s
             1 ok poll h s = 0:17",
            "h is not read whole",
        );
        assert_insufficient(
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > read h 0
             1 ok read h 0 = 0:17",
            "no subscription to h",
        );
    }

    #[test]
    fn a_key_whose_appends_were_all_refused_needs_no_subscription() {
        let judgement = judged(
            "0 > append h p0 1 17
             0 fail append h p0 1 17
             1 > read h 0
             1 ok read h 0 =",
        );
        assert!(
            !judgement
                .insufficient
                .iter()
                .any(|what| what.contains("subscription")),
            "{:?}",
            judgement.insufficient
        );
    }

    #[test]
    fn what_is_shown_needs_a_subscription_whoever_was_told_of_it() {
        assert_insufficient(
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > read h 0
             1 ok read h 0 = 0:17",
            "no subscription to h",
        );
    }

    #[test]
    fn what_was_given_up_is_not_lost_and_the_rest_has_to_be_there() {
        let script = |late: &str| {
            format!(
                "0 > append h p0 1 17
                 0 ok append h p0 1 17 @0
                 0 > append h p0 2 18
                 0 ok append h p0 2 18 @1
                 0 > append h p0 3 19
                 0 ok append h p0 3 19 @2
                 1 > read h 1 given-up
                 1 ok read h 1 given-up = {late}
                 2 > poll h s.1
                 2 ok poll h s.1 = 1:18 2:19"
            )
        };
        assert_eq!(judged(&script("1:18 2:19")).violations, []);
        assert_violates(I2, &script("1:18"));
        assert_violates(I2, &script("2:19"));
    }
}
