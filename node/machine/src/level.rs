//! Feature levels: what a log may hold, and what apply makes of it.
//!
//! The level in force is part of the replicated state. A log begins at level 1,
//! and only a command in it raises the level, so that every replica changes over
//! at the same entry, whatever release it runs. Below a level the log is applied
//! as the releases before that level applied it, byte for byte.
//!
//! | level | since release | brings |
//! |---|---|---|
//! | 1 | 0.1.0 | everything that has no other level |
//! | 2 | 0.2.0 | raising the level; kinds of events from 15 on, the first of them `Announced`; the level in force under each digest; snapshots of version 2 |
//!
//! A change of what apply decides, writes or digests gets the next number, a row
//! here, and an entry in [`RELEASES`].

use std::fmt;

/// The first release that reads each level, from level 1 on.
const RELEASES: [&str; 2] = ["0.1.0", "0.2.0"];

/// The level of an empty log.
pub const FIRST_LEVEL: u32 = 1;

/// The highest level that this release reads.
pub const LATEST_LEVEL: u32 = 2;

const _: () = assert!(RELEASES.len() == LATEST_LEVEL as usize);

/// Raising the level: what is in the log of releases that know levels.
pub(crate) const LEVELS: u32 = 2;

/// The first release that reads `level`; `None` when this one does not know it.
#[must_use]
pub fn release_of(level: u32) -> Option<&'static str> {
    let position = usize::try_from(level.checked_sub(FIRST_LEVEL)?).ok()?;
    RELEASES.get(position).copied()
}

/// The levels that a release reads, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRange {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl LevelRange {
    /// Those of this release.
    pub const SUPPORTED: Self = Self {
        min: FIRST_LEVEL,
        max: LATEST_LEVEL,
    };

    /// Those of a release that does not tell: the one before levels were told.
    pub const UNTOLD: Self = Self {
        min: FIRST_LEVEL,
        max: FIRST_LEVEL,
    };

    /// Whether a log at `level` can be read.
    #[must_use]
    pub fn contains(self, level: u32) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl Default for LevelRange {
    fn default() -> Self {
        Self::SUPPORTED
    }
}

/// As `1 to 2`, or `1` where there is only one.
impl fmt::Display for LevelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        match min == max {
            true => write!(f, "{min}"),
            false => write!(f, "{min} to {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_level_names_its_release() {
        for level in LevelRange::SUPPORTED.min..=LevelRange::SUPPORTED.max {
            assert!(release_of(level).is_some(), "{level}");
        }
        assert_eq!(release_of(0), None);
        assert_eq!(release_of(LATEST_LEVEL + 1), None);
        // The newest level came with this very release, or with one before it.
        let parts = |release: &str| -> Vec<u32> {
            let parts = release
                .split('.')
                .map(|part| part.parse().expect("a number"));
            parts.collect()
        };
        let newest = release_of(LATEST_LEVEL).expect("known");
        assert!(parts(newest) <= parts(env!("CARGO_PKG_VERSION")));
    }

    /// Numbers are given out in one place.
    #[test]
    fn the_architecture_lists_every_level() {
        let document = include_str!("../../ARCHITECTURE.md");
        let rows = document.lines();
        let row = rows
            .into_iter()
            .find(|row| row.starts_with("| feature level,"));
        let row = row.expect("the table of numbers has a row of levels");
        for level in FIRST_LEVEL..=LATEST_LEVEL {
            let release = release_of(level).expect("known");
            assert!(row.contains(&format!("{level} since {release}")), "{row}");
        }
    }

    #[test]
    fn ranges_are_told_in_words() {
        assert_eq!(LevelRange { min: 1, max: 3 }.to_string(), "1 to 3");
        assert_eq!(LevelRange::UNTOLD.to_string(), "1");
    }
}
