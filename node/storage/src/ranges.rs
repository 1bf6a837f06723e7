//! A set of numbers as ascending, disjoint ranges.

use std::ops::Range;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    pub(crate) fn to_vec(&self) -> Vec<Range<u64>> {
        self.0.clone()
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|range| range.contains(&number))
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|other| other.end < range.start);
        let last = self.0.partition_point(|other| other.start <= range.end);
        let merged = match self.0.get(first..last) {
            Some([head, .., tail]) => head.start.min(range.start)..tail.end.max(range.end),
            Some([only]) => only.start.min(range.start)..only.end.max(range.end),
            _ => range,
        };
        self.0.splice(first..last, [merged]);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before_and_after = |kept: Range<u64>| {
            [
                kept.start..kept.end.min(range.start),
                kept.start.max(range.end)..kept.end,
            ]
        };
        let parts = std::mem::take(&mut self.0)
            .into_iter()
            .flat_map(before_and_after);
        self.0 = parts.filter(|part| !part.is_empty()).collect();
    }

    /// Takes out everything below `start`.
    pub(crate) fn cut_below(&mut self, start: u64) {
        self.remove(0..start);
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        for kept in &self.0 {
            let gap = at..kept.start.min(range.end);
            if !gap.is_empty() {
                missing.push(gap);
            }
            at = at.max(kept.end);
        }
        if at < range.end {
            missing.push(at..range.end);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ranges in prop::collection::vec((0u64..60, 0u64..12), 0..24), cut in 0u64..70, hole in (0u64..70, 0u64..20)) {
            let mut set = RangeSet::default();
            let mut plain = BTreeSet::new();
            for (start, length) in ranges {
                set.insert(start..start + length);
                plain.extend(start..start + length);
            }
            let check = |set: &RangeSet, plain: &BTreeSet<u64>| {
                for n in 0..80 {
                    assert_eq!(set.contains(n), plain.contains(&n));
                }
                assert!(set.0.windows(2).all(|pair| pair[0].end < pair[1].start), "{set:?}");
                let missing: BTreeSet<u64> = set.missing(5..65).into_iter().flatten().collect();
                assert_eq!(missing, (5..65).filter(|n| !plain.contains(n)).collect());
            };
            check(&set, &plain);
            set.cut_below(cut);
            plain.retain(|n| *n >= cut);
            check(&set, &plain);
            let hole = hole.0..hole.0 + hole.1;
            set.remove(hole.clone());
            plain.retain(|n| !hole.contains(n));
            check(&set, &plain);
        }
    }
}
