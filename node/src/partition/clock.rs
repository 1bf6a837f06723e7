//! The stamps that entries carry: the cluster's time.
//!
//! Apply sees no clock; a hunt's start and end go by the stamps of the log. A
//! leader's own clock may be wrong, so a stamp stays within a second of the
//! median of the voters' clocks. Without clocks of a quorum it advances by
//! monotonic time from where it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::limits;
use crate::raft::NodeId;

#[expect(clippy::cast_possible_truncation, reason = "a second")]
const CLOCK_SKEW_MAX_MS: i64 = limits::CLOCK_SKEW_MAX.as_millis() as i64;

/// This machine's wall clock, in milliseconds since 1970.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Where the stamps of this node's entries come from.
pub struct LogClock {
    state: Mutex<State>,
}

struct State {
    voters: Vec<NodeId>,
    own_id: NodeId,
    /// What each other voter's clock read, in milliseconds, and when. How far it
    /// is ahead of this one would be wrong once this one jumps.
    clocks_ms: BTreeMap<NodeId, (i64, Instant)>,
    /// The last stamp, and when it was given.
    last: Option<(u64, Instant)>,
}

/// A reading of the clocks, for metrics and readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// How far this node's clock is ahead of the voters' median.
    pub ahead_ms: i64,
    /// Whether clocks of a quorum are known.
    pub quorum: bool,
}

impl LogClock {
    /// A clock of the node `own_id`.
    pub fn new(own_id: NodeId) -> Self {
        Self {
            state: Mutex::new(State {
                voters: Vec::new(),
                own_id,
                clocks_ms: BTreeMap::new(),
                last: None,
            }),
        }
    }

    /// Sets whose clocks count.
    pub fn set_voters(&self, voters: Vec<NodeId>) {
        let mut state = self.state.lock();
        state.clocks_ms.retain(|peer, _| voters.contains(peer));
        state.voters = voters;
    }

    /// Notes a peer's clock: `clock_ms` was read while a question of
    /// `round_trip` was under way, answered just now.
    pub fn observe(&self, peer: NodeId, clock_ms: i64, round_trip: Duration) {
        let now_ms = clock_ms.saturating_add(whole_ms(round_trip / 2));
        let reading = (now_ms, Instant::now());
        self.state.lock().clocks_ms.insert(peer, reading);
    }

    /// Makes sure that stamps do not fall behind `time_ms`, the machine's time.
    pub fn note_applied(&self, time_ms: u64) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.extrapolated(now).is_none_or(|at| at < time_ms) {
            state.last = Some((time_ms, now));
        }
    }

    /// The stamp of an entry proposed now, in milliseconds since 1970.
    pub fn stamp_ms(&self) -> u64 {
        self.state.lock().stamp(Instant::now(), wall_clock_ms())
    }

    /// How this node's clock stands among the voters'.
    pub fn skew(&self) -> ClockSkew {
        let wall_ms = wall_clock_ms();
        let median = self.state.lock().median_ms(Instant::now(), wall_ms);
        ClockSkew {
            ahead_ms: median.map_or(0, |median| wall_ms.saturating_sub(median)),
            quorum: median.is_some(),
        }
    }
}

/// In milliseconds, rounded down.
fn whole_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl State {
    fn extrapolated(&self, now: Instant) -> Option<u64> {
        let (stamp, at) = self.last?;
        let elapsed = u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
        Some(stamp.saturating_add(elapsed))
    }

    fn stamp(&mut self, now: Instant, wall_ms: i64) -> u64 {
        let bounded = self.median_ms(now, wall_ms).map(|median| {
            wall_ms.clamp(
                median.saturating_sub(CLOCK_SKEW_MAX_MS),
                median.saturating_add(CLOCK_SKEW_MAX_MS),
            )
        });
        let stamp = match bounded {
            Some(bounded) => u64::try_from(bounded).unwrap_or(0),
            None => self
                .extrapolated(now)
                .unwrap_or_else(|| u64::try_from(wall_ms).unwrap_or(0)),
        };
        self.last = Some((stamp, now));
        stamp
    }

    /// What the voters' median clock reads; `None` without fresh clocks of a
    /// quorum.
    fn median_ms(&self, now: Instant, wall_ms: i64) -> Option<i64> {
        let fresh = limits::CLOCK_FRESH;
        let mut clocks: Vec<i64> = self
            .voters
            .iter()
            .filter_map(|voter| {
                if *voter == self.own_id {
                    return Some(wall_ms);
                }
                let (clock_ms, at) = self.clocks_ms.get(voter)?;
                let age = now.duration_since(*at);
                (age <= fresh).then(|| clock_ms.saturating_add(whole_ms(age)))
            })
            .collect();
        if clocks.len() <= self.voters.len() / 2 {
            return None;
        }
        clocks.sort_unstable();
        // Of an even number the lower middle: time never runs ahead by it.
        Some(clocks[(clocks.len() - 1) / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    const WALL_MS: i64 = 10 * HOUR_MS;

    /// The clocks of others, by how far they are ahead of [`WALL_MS`].
    fn state(own_id: NodeId, ahead: &[(NodeId, i64)]) -> (State, Instant) {
        let now = Instant::now();
        let clock = |(id, ahead): &(NodeId, i64)| (*id, (WALL_MS + ahead, now));
        let state = State {
            voters: vec![1, 2, 3],
            own_id,
            clocks_ms: ahead.iter().map(clock).collect(),
            last: None,
        };
        (state, now)
    }

    #[test]
    fn a_leader_an_hour_ahead_stamps_within_a_second_of_the_median() {
        let (mut state, now) = state(1, &[(2, -HOUR_MS), (3, -HOUR_MS)]);
        let stamp = state.stamp(now, WALL_MS);
        assert_eq!(stamp, 9 * HOUR_MS as u64 + 1_000);
    }

    #[test]
    fn a_leader_an_hour_behind_does_not_freeze_time() {
        let (mut state, now) = state(1, &[(2, HOUR_MS), (3, HOUR_MS)]);
        let stamp = state.stamp(now, WALL_MS);
        assert_eq!(stamp, 11 * HOUR_MS as u64 - 1_000);
    }

    #[test]
    fn one_wrong_peer_changes_nothing() {
        let (mut state, now) = state(1, &[(2, HOUR_MS), (3, 5)]);
        assert_eq!(state.stamp(now, WALL_MS), 10 * HOUR_MS as u64);
    }

    #[test]
    fn a_clock_that_jumps_between_two_readings_of_the_others_moves_a_stamp_by_a_second() {
        let (mut state, now) = state(1, &[(2, 0), (3, 0)]);
        let later = now + Duration::from_millis(250);
        for jump in [HOUR_MS, -HOUR_MS] {
            let stamp = state.stamp(later, WALL_MS + 250 + jump);
            let expected = WALL_MS + 250 + jump.clamp(-1_000, 1_000);
            assert_eq!(stamp, expected as u64);
        }
    }

    #[test]
    fn without_a_quorum_of_clocks_time_advances_by_what_has_passed() {
        let (mut state, now) = state(1, &[]);
        state.last = Some((5_000, now));
        let later = now + Duration::from_millis(250);
        assert_eq!(state.stamp(later, WALL_MS), 5_250);
    }

    #[test]
    fn old_readings_do_not_count() {
        let (mut state, now) = state(1, &[(2, -HOUR_MS), (3, -HOUR_MS)]);
        let later = now + limits::CLOCK_FRESH + Duration::from_millis(1);
        state.last = Some((7, later));
        assert_eq!(state.stamp(later, WALL_MS), 7);
    }
}
