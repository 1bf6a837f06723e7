//! I10: what failed was not applied, and nothing is shown that nobody sent.
//!
//! Source: DESIGN I10; Elle's aborted reads (G1a) and garbage reads (Alvaro and
//! Kingsbury, 2020).

use super::index::{Index, Key, Operation, Seen, violation};
use super::{Invariant, Violation};

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        for seen in &key.seen {
            for &(offset, value) in seen.entries {
                sent(name, key, seen, offset, value, violations);
            }
        }
        refused_and_acknowledged(name, key, violations);
    }
}

/// Nothing that was said not to be applied is acknowledged when it is sent again.
fn refused_and_acknowledged(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    for answer in key.acknowledgements() {
        let failed = key.append_of(answer.op.v).and_then(Operation::failed);
        if let Some(failed) = failed {
            let what = format!(
                "value {} of {name} was said not to be applied, and then to be at {}",
                answer.op.v, answer.offset
            );
            violations.push(violation(Invariant::I10, [failed, answer.ok], what));
        }
    }
}

fn sent(
    name: &str,
    key: &Key<'_>,
    seen: &Seen<'_>,
    offset: u64,
    value: u64,
    violations: &mut Vec<Violation>,
) {
    let Some(append) = key.append_of(value) else {
        let what = format!("value {value} at offset {offset} of {name} was appended by nobody");
        violations.push(violation(Invariant::I10, [seen.event], what));
        return;
    };
    if append.invoked > seen.event {
        let what = format!("value {value} of {name} was seen before it was sent");
        violations.push(violation(
            Invariant::I10,
            [seen.event, append.invoked],
            what,
        ));
    }
    if let Some(failed) = append.failed() {
        let what =
            format!("value {value} of {name} was said not to be applied, and is at {offset}");
        let events = [append.invoked, failed, seen.event];
        violations.push(violation(Invariant::I10, events, what));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I10;
    use super::super::script::assert_violates;

    #[test]
    fn what_failed_and_is_there() {
        assert_violates(
            I10,
            "0 > append h p0 1 17
             0 fail append h p0 1 17
             1 > read h 0
             1 ok read h 0 = 0:17",
        );
        assert_violates(
            I10,
            "0 > append h p0 1 17
             0 fail append h p0 1 17
             1 > poll h s
             1 ok poll h s = 0:17",
        );
        assert_violates(
            I10,
            "0 > append h p0 1 17
             0 fail append h p0 1 17
             0 > resend h p0 1 17
             0 ok resend h p0 1 17 @0",
        );
    }

    #[test]
    fn what_nobody_sent() {
        assert_violates(
            I10,
            "1 > read h 0
             1 ok read h 0 = 0:17",
        );
        // Another key's.
        assert_violates(
            I10,
            "0 > append g p0 1 17
             0 ok append g p0 1 17 @0
             1 > read h 0
             1 ok read h 0 = 0:17",
        );
    }

    #[test]
    fn what_is_seen_before_it_is_sent() {
        assert_violates(
            I10,
            "1 > read h 0
             1 ok read h 0 = 0:17
             0 > append h p0 1 17
             0 ok append h p0 1 17 @0",
        );
    }
}
