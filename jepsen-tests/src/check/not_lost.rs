//! I2: whatever was acknowledged is in every later read.
//!
//! Source: Raft, section 5.4 (leader completeness); the checker is the "set
//! full" idea of Jepsen: every acknowledged element is in the final read. Loss
//! seen earlier, by a read that does not show what was acknowledged before it
//! began, is I6.

use std::collections::BTreeSet;

use super::index::{Index, Key, violation};
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
    let there: BTreeSet<u64> = read.op.entries.iter().flatten().map(|&(_, v)| v).collect();
    for append in key.appends.iter().filter(|append| append.ok().is_some()) {
        let kept = append.op.offset.is_none_or(|offset| offset >= read.op.from);
        if kept && !there.contains(&append.op.v) {
            let what = format!(
                "value {} of {name}, acknowledged at offset {}, is not in the final read",
                append.op.v,
                append.op.offset.unwrap_or_default()
            );
            let events = append.events().into_iter().chain(read.ok());
            violations.push(violation(Invariant::I2, events, what));
        }
    }
}

fn in_drained_subscription(
    name: &str,
    key: &Key<'_>,
    violations: &mut Vec<Violation>,
    insufficient: &mut Vec<String>,
) {
    let delivered = key.subscriptions.iter().map(|(sub, polls)| {
        let values: BTreeSet<u64> = polls
            .iter()
            .flat_map(|poll| poll.entries)
            .map(|&(_, v)| v)
            .collect();
        (sub, polls, values)
    });
    let Some((sub, polls, values)) = delivered.max_by_key(|(_, _, values)| values.len()) else {
        insufficient.push(format!("no subscription to {name} is drained"));
        return;
    };
    let last = polls.last().map(|poll| poll.event);
    // A subscription that was behind what was given up could not have it.
    let first_kept = key.first_kept();
    for append in key.appends.iter().filter(|append| append.ok().is_some()) {
        let kept = append.op.offset.is_none_or(|offset| offset >= first_kept);
        if kept && !values.contains(&append.op.v) {
            let what = format!(
                "value {} of {name}, acknowledged, was never delivered to subscription {sub}, which was given most",
                append.op.v
            );
            let events = append.events().into_iter().chain(last);
            violations.push(violation(Invariant::I2, events, what));
        }
    }
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
