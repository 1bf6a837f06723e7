//! I3: a session is forgotten only when it has been idle for so long, by the
//! log's time (DESIGN I3; 5, "Forgetting").
//!
//! The moment it was forgotten is not seen. It is between the last use that was
//! acknowledged and the opening that was told of it, and that time must have been
//! long enough.

use std::collections::{BTreeMap, BTreeSet};

/// What has been seen of sessions that can be forgotten.
#[derive(Debug, Default)]
pub(in crate::sim) struct Remembered {
    /// The log's time at log indexes, in milliseconds.
    times: BTreeMap<u64, u64>,
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Default)]
struct Session {
    /// Entries with batches of it.
    applied: BTreeSet<u64>,
    /// Those, and its openings.
    used: BTreeSet<u64>,
    /// Openings that were told that it is new, and it was not.
    anew: BTreeSet<u64>,
}

impl Remembered {
    /// At the log index `index` the log's time was `ms`.
    pub(in crate::sim) fn time(&mut self, index: u64, ms: u64) {
        self.times.insert(index, ms);
    }

    /// The entry at `index` has a batch of the session.
    pub(in crate::sim) fn applied(&mut self, session: &str, index: u64) {
        let session = self.sessions.entry(session.to_owned()).or_default();
        session.applied.insert(index);
        session.used.insert(index);
    }

    /// The entry at `index` opens the session; `anew` if it begins anew there.
    pub(in crate::sim) fn opened(&mut self, session: &str, index: u64, anew: bool) {
        let session = self.sessions.entry(session.to_owned()).or_default();
        session.used.insert(index);
        if anew {
            session.anew.insert(index);
        }
    }

    /// Which were forgotten before they had been idle for `idle_ms`; and how many
    /// could be judged.
    pub(in crate::sim) fn judge(&self, idle_ms: u64) -> (u64, Vec<String>) {
        let mut judged = 0;
        let mut violations = Vec::new();
        for (name, session) in &self.sessions {
            for anew in &session.anew {
                let Some(most) = self.idle_at_most(session, *anew) else {
                    continue;
                };
                judged += 1;
                if most < idle_ms {
                    violations.push(format!(
                        "I3: session {name} was forgotten before log index {anew}, after {most} ms of the log's time at most; it is kept for {idle_ms} ms"
                    ));
                }
            }
        }
        (judged, violations)
    }

    /// How long the session can have been idle before the opening at `anew`, if
    /// something is known to have been applied in the life before.
    fn idle_at_most(&self, session: &Session, anew: u64) -> Option<u64> {
        let began = session.anew.range(..anew).next_back().copied();
        let life = began.unwrap_or(0)..anew;
        session.applied.range(life.clone()).next()?;
        let last_used = session.used.range(life).next_back()?;
        let (_, before) = self.times.range(..=last_used).next_back()?;
        let (_, after) = self.times.range(anew..).next()?;
        Some(after.saturating_sub(*before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Remembered {
        let mut seen = Remembered::default();
        for (index, ms) in [(10, 1_000), (20, 2_000), (30, 5_000), (42, 9_000)] {
            seen.time(index, ms);
        }
        seen.opened("a", 11, false);
        seen.applied("a", 20);
        seen
    }

    #[test]
    fn a_session_that_was_used_lately_is_not_forgotten() {
        let mut seen = seen();
        seen.opened("a", 40, true);
        assert_eq!(seen.judge(7_000), (1, Vec::new()));
        assert_eq!(seen.judge(7_001).1.len(), 1);
        // It was opened meanwhile, and that is a use.
        seen.opened("a", 30, false);
        assert_eq!(seen.judge(7_000).1.len(), 1);
        assert_eq!(seen.judge(4_000), (1, Vec::new()));
    }

    #[test]
    fn each_life_is_judged_by_its_own_uses() {
        let mut seen = seen();
        seen.opened("a", 30, true);
        seen.opened("a", 40, true);
        // Nothing is known to have been applied in the second.
        assert_eq!(seen.judge(3_000), (1, Vec::new()));
        seen.applied("a", 31);
        assert_eq!(seen.judge(3_000), (2, Vec::new()));
        assert_eq!(seen.judge(4_000).1.len(), 1);
    }
}
