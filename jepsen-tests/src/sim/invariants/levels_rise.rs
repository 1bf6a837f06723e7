//! I7: the feature level is a function of the log: at one log index every node is
//! at the same level, at a later one at no lower one, and what a level brings is
//! in no log before it.

use std::collections::BTreeMap;

use super::Said;

/// Between which log indexes nodes have said to be at each level.
#[derive(Debug, Default)]
pub(in crate::sim) struct LevelsRise {
    /// By level: the lowest and the highest index, and who said the latter.
    seen: BTreeMap<u32, (u64, u64, u64)>,
    /// By level: the lowest index that needs it.
    needed: BTreeMap<u32, u64>,
}

impl LevelsRise {
    pub(in crate::sim) fn see(&mut self, said: &Said) -> Result<(), String> {
        if said.applied == 0 {
            return Ok(());
        }
        let at = (said.applied, said.applied, said.node);
        let (lowest, highest, node) = self.seen.entry(said.level).or_insert(at);
        *lowest = said.applied.min(*lowest);
        if said.applied > *highest {
            (*highest, *node) = (said.applied, said.node);
        }
        let mut below = self.seen.iter().zip(self.seen.iter().skip(1));
        if let Some(((low, (_, last, node)), (high, (first, _, _)))) =
            below.find(|((_, (_, last, _)), (_, (first, _, _)))| last >= first)
        {
            return Err(format!(
                "I7: node {node} is at level {low} at log index {last}, and level {high} was in force at {first}"
            ));
        }
        self.judge()
    }

    /// Something that level `level` brings is at log index `index`.
    pub(in crate::sim) fn needed(&mut self, level: u32, index: u64) -> Result<(), String> {
        let lowest = self.needed.entry(level).or_insert(index);
        *lowest = index.min(*lowest);
        self.judge()
    }

    fn judge(&self) -> Result<(), String> {
        for (level, index) in &self.needed {
            for (lower, (_, last, node)) in self.seen.range(..level) {
                if last >= index {
                    return Err(format!(
                        "I7: node {node} is at level {lower} at log index {last}, and {index} has what level {level} brings"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(node: u64, applied: u64, level: u32) -> Said {
        Said {
            node,
            applied,
            level,
            ..Said::default()
        }
    }

    #[test]
    fn levels_that_rise_with_the_log_are_sound() {
        let mut levels = LevelsRise::default();
        for (node, applied, level) in [(1, 0, 0), (1, 5, 1), (2, 9, 2), (3, 4, 1), (3, 8, 1)] {
            assert_eq!(levels.see(&said(node, applied, level)), Ok(()));
        }
        assert_eq!(levels.needed(2, 9), Ok(()));
        assert!(levels.needed(2, 8).is_err(), "node 3 was at level 1 there");
    }

    #[test]
    fn a_level_that_is_not_the_logs_is_seen() {
        for (applied, level) in [(9, 1), (5, 2), (4, 2)] {
            let mut levels = LevelsRise::default();
            assert_eq!(levels.see(&said(1, 5, 1)), Ok(()));
            assert_eq!(levels.see(&said(1, 9, 2)), Ok(()));
            assert!(levels.see(&said(2, applied, level)).is_err(), "{applied}");
        }
    }
}
