//! I6: reads and appends are linearizable; a stale read is only what was asked
//! for.
//!
//! Source: Herlihy and Wing, "Linearizability" (1990). Here no search is needed:
//! an answer says where its operation belongs. An append at offset o comes
//! between the length o and o + 1, a read that saw the length e after e entries
//! and before the next. An order of that kind exists if and only if it never
//! contradicts real time: no operation that began after another had ended comes
//! before it.

use std::collections::BTreeMap;

use super::index::{Index, Key, violation};
use super::{Invariant, Violation};

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (name, key) in &index.keys {
        real_time(name, key, violations);
        stale(name, key, violations);
    }
}

/// Twice the length at which it happened; an append, which is between two
/// lengths, has the odd number.
type Place = u64;

struct Placed {
    place: Place,
    invoked: u64,
    /// When it was over, for those whose end is known.
    ended: Option<u64>,
    what: String,
}

fn real_time(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    let placed = placed(key);
    let mut ends: Vec<&Placed> = placed.iter().filter(|op| op.ended.is_some()).collect();
    ends.sort_by_key(|op| op.ended);
    let mut ends = ends.into_iter().peekable();
    let mut furthest: Option<&Placed> = None;
    for op in &placed {
        while let Some(ended) = ends.next_if(|ended| ended.ended < Some(op.invoked)) {
            if furthest.is_none_or(|furthest| ended.place > furthest.place) {
                furthest = Some(ended);
            }
        }
        if let Some(before) = furthest.filter(|before| before.place > op.place) {
            let what = format!(
                "{} of {name} is older than {}, which was over before it began",
                op.what, before.what
            );
            let events = [before.ended, Some(op.invoked), op.ended];
            violations.push(violation(Invariant::I6, events.into_iter().flatten(), what));
        }
    }
}

/// Everything with a place, in the order of invocations.
fn placed(key: &Key<'_>) -> Vec<Placed> {
    let offsets: BTreeMap<u64, (u64, u64)> = key.offsets();
    let mut ended: BTreeMap<u64, u64> = BTreeMap::new();
    for answer in key.acknowledgements() {
        let first = ended.entry(answer.op.v).or_insert(answer.ok);
        *first = answer.ok.min(*first);
    }
    let appends = key.appends.iter().filter_map(|append| {
        let &(offset, _) = offsets.get(&append.op.v)?;
        Some(Placed {
            place: 2 * offset + 1,
            invoked: append.invoked,
            ended: ended.get(&append.op.v).copied(),
            what: format!("the append of offset {offset}"),
        })
    });
    let reads = key.reads.iter().filter_map(|read| {
        let end = read.op.end?;
        Some(Placed {
            place: 2 * end,
            invoked: read.invoked,
            ended: Some(read.ok()?),
            what: match read.op.node {
                Some(node) => format!("a read up to {end} on node {node}"),
                None => format!("a read up to {end}"),
            },
        })
    });
    let mut placed: Vec<Placed> = appends.chain(reads).collect();
    placed.sort_by_key(|op| op.invoked);
    placed
}

fn stale(name: &str, key: &Key<'_>, violations: &mut Vec<Violation>) {
    for read in &key.stale_reads {
        let (Some(ok), Some(end)) = (read.ok(), read.op.end) else {
            continue;
        };
        if end < read.op.min_offset {
            let what = format!(
                "a stale read of {name} that asked for everything below {} shows {end} entries",
                read.op.min_offset
            );
            violations.push(violation(Invariant::I6, [read.invoked, ok], what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::I6;
    use super::super::script::{assert_valid, assert_violates};

    #[test]
    fn a_read_that_misses_what_was_acknowledged_before_it() {
        assert_violates(
            I6,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @0
             1 > read h 0
             1 ok read h 0 =",
        );
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_when_it_was_sent_again() {
        assert_violates(
            I6,
            "0 > append h p0 1 17
             0 info append h p0 1 17
             1 > resend h p0 1 17
             1 ok resend h p0 1 17 @0
             2 > read h 0
             2 ok read h 0 =",
        );
    }

    #[test]
    fn a_read_that_goes_back_behind_another() {
        assert_violates(
            I6,
            "0 > append h p0 1 17
             1 > read h 0
             1 ok read h 0 = 0:17
             2 > read h 0
             2 ok read h 0 =",
        );
    }

    #[test]
    fn an_append_before_one_that_was_acknowledged_earlier() {
        assert_violates(
            I6,
            "0 > append h p0 1 17
             0 ok append h p0 1 17 @1
             1 > append h p1 1 18
             1 ok append h p1 1 18 @0",
        );
    }

    #[test]
    fn an_append_before_a_read_that_was_over() {
        // Its own fate is unknown, but where it is tells.
        assert_violates(
            I6,
            "0 > append h p0 1 17
             1 > read h 0
             1 ok read h 0 = 0:17
             2 > append h p1 1 18
             2 info append h p1 1 18
             3 > read h 0
             3 ok read h 0 = 0:18 1:17",
        );
    }

    #[test]
    fn a_stale_read_below_its_minimum() {
        assert_violates(
            I6,
            "0 > stale h 0 1
             0 ok stale h 0 1 =",
        );
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        assert_valid(
            "0 > append h p0 1 17
             1 > append h p1 1 18
             2 > read h 0
             3 > read h 0
             2 ok read h 0 = 0:18
             0 ok append h p0 1 17 @1
             3 ok read h 0 =
             1 ok append h p1 1 18 @0
             2 > read h 0
             2 ok read h 0 = 0:18 1:17
             2 > poll h s
             2 ok poll h s = 0:18 1:17
             2 > stale h 0 0
             2 ok stale h 0 0 =",
        );
    }
}
