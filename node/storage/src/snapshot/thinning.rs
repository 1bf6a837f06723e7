//! Which snapshots to keep: the newest two, a series that thins out with age, and the bases of the history.

use crate::limits::SNAPSHOT_SERIES_MAX;
use std::ops::Range;

/// The snapshots to remove, by index, given all of them ascending and the history that is kept.
///
/// The base of a range of history is the oldest snapshot from which all the rest of that range can be replayed. Of the
/// others, the one goes first whose neighbours lie closest together in proportion to their age, which leaves a series
/// about exponentially spaced.
pub(super) fn surplus(indexes: &[u64], history: &[Range<u64>]) -> Vec<u64> {
    let Some((newest, older)) = indexes.split_last() else {
        return Vec::new();
    };
    let is_base = |index: u64| {
        history.iter().any(|range| {
            let replayable = |index: u64| index + 1 >= range.start && index + 1 < range.end;
            replayable(index)
                && !indexes
                    .iter()
                    .any(|other| *other < index && replayable(*other))
        })
    };
    let mut kept: Vec<u64> = older.to_vec();
    let mut surplus = Vec::new();
    // The newest two stand outside the series, and so do the bases.
    while kept
        .iter()
        .rev()
        .skip(1)
        .filter(|index| !is_base(**index))
        .count()
        > SNAPSHOT_SERIES_MAX
    {
        let candidate = (0..kept.len() - 1)
            .filter(|at| !is_base(kept[*at]))
            .min_by(|a, b| spread(&kept, *a, *newest).total_cmp(&spread(&kept, *b, *newest)));
        let Some(candidate) = candidate else { break };
        surplus.push(kept.remove(candidate));
    }
    surplus
}

/// How far apart the neighbours of a snapshot lie, in proportion to its age.
#[expect(clippy::cast_precision_loss, reason = "only compared")]
fn spread(kept: &[u64], at: usize, newest: u64) -> f64 {
    let before = if at == 0 { 0 } else { kept[at - 1] };
    (kept[at + 1] - before) as f64 / (newest - kept[at] + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a snapshot every `step` entries and prunes after each.
    fn run(count: u64, step: u64, history: &[Range<u64>]) -> Vec<u64> {
        let mut kept: Vec<u64> = Vec::new();
        for n in 1..=count {
            kept.push(n * step);
            let surplus = surplus(&kept, history);
            assert!(!surplus.contains(&(n * step)));
            kept.retain(|index| !surplus.contains(index));
        }
        kept
    }

    #[test]
    fn the_series_is_bounded_and_exponentially_spaced() {
        for count in [5, 18, 100, 5_000] {
            let history = 0..count * 10 + 1;
            let kept = run(count, 10, std::slice::from_ref(&history));
            let expected = usize::try_from(count).unwrap().min(SNAPSHOT_SERIES_MAX + 3);
            assert_eq!(kept.len(), expected, "{kept:?}");
            assert_eq!(kept[kept.len() - 2..], [count * 10 - 10, count * 10]);
        }
        let kept = run(5_000, 10, &[]);
        let ages: Vec<u64> = kept.iter().map(|index| 50_000 - index).collect();
        // Old ages fall by a factor of at most 4 from one kept snapshot to the next, however many were taken.
        for pair in ages.windows(2).filter(|pair| pair[1] >= 40) {
            assert!(pair[0] <= pair[1] * 4, "{ages:?}");
        }
        assert!(ages[0] > 10_000, "{ages:?}");
    }

    #[test]
    fn the_base_of_every_range_of_history_stays() {
        let kept = run(2_000, 10, &[301..620, 5_001..20_001]);
        assert!(kept.contains(&300), "{kept:?}");
        assert!(kept.contains(&5_000), "{kept:?}");
    }
}
