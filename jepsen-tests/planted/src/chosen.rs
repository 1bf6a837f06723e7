//! The bug of this process.

use std::sync::OnceLock;
use std::time::SystemTime;

use crate::Bug;

static PLANTED: OnceLock<Bug> = OnceLock::new();

/// A process has one bug at most, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyPlanted {
    /// The one it has.
    pub planted: Bug,
}

impl std::error::Error for AlreadyPlanted {}

impl std::fmt::Display for AlreadyPlanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.planted.name();
        write!(f, "this process has the bug {name} already; start another")
    }
}

/// Plants `bug` in this process, for ever.
///
/// # Errors
/// When another one is planted.
pub fn plant(bug: Bug) -> Result<(), AlreadyPlanted> {
    let planted = *PLANTED.get_or_init(|| bug);
    if planted == bug {
        Ok(())
    } else {
        Err(AlreadyPlanted { planted })
    }
}

/// Whether `bug` is planted in this process.
#[must_use]
#[inline]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// The clock that [`Bug::ExpiryByWallClock`] looks at, since 1970.
#[must_use]
pub fn wall_clock_ms() -> u64 {
    let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_the_process() {
        assert!(!is_planted(Bug::NoDedup));
        assert_eq!(plant(Bug::NoDedup), Ok(()));
        assert!(is_planted(Bug::NoDedup));
        assert!(!is_planted(Bug::NoReadIndex));
        let refused = AlreadyPlanted {
            planted: Bug::NoDedup,
        };
        assert_eq!(plant(Bug::NoReadIndex), Err(refused));
        assert!(is_planted(Bug::NoDedup));
    }
}
