//! How many batches a client has under way: what the cluster has room for is found
//! out as TCP finds it, by slow start, additive increase and multiplicative
//! decrease (RFC 5681).
//!
//! Without it the clients of an overloaded cluster send all that they have, the
//! cluster's room is always full, and which session gets the place that becomes
//! free is luck: most work is refused, sent again, and refused again.
//!
//! The lanes of a client have one window, which each of them may fill: with windows
//! of their own, the sessions of one lane would wait for longer than another's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits;

/// What is left of the window after a refusal.
const DECREASE: f64 = 0.5;

/// The window of a client's lanes.
#[derive(Debug)]
pub(crate) struct CongestionWindow {
    lanes: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of each lane.
    batches: f64,
    slow_start: bool,
    decreases: u64,
}

impl CongestionWindow {
    /// Of so many lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            lanes: lanes as f64,
            state: Mutex::new(State {
                batches: limits::INITIAL_WINDOW_BATCHES as f64,
                slow_start: true,
                decreases: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane's view of its client's window.
#[derive(Debug)]
pub(super) struct LaneWindow {
    shared: Arc<CongestionWindow>,
    /// Decreases that this lane knows of.
    decreases: u64,
    /// Answers to come of what was sent before the last of them: refusals among
    /// them are of the window before.
    answers_of_last: usize,
}

impl LaneWindow {
    pub(super) fn new(shared: Arc<CongestionWindow>) -> Self {
        Self {
            shared,
            decreases: 0,
            answers_of_last: 0,
        }
    }

    /// Batches that this lane may have under way, one at least.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no more than there are batches"
    )]
    pub(super) fn limit(&self) -> usize {
        self.shared.state().batches as usize
    }

    /// A batch was taken, so long after it had been sent; so many others of this
    /// lane are under way.
    pub(super) fn acknowledged(&mut self, others: usize, round_trip: Duration) {
        self.answered();
        let mut state = self.shared.state();
        state.slow_start &= round_trip < limits::SLOW_START_ROUND_TRIP_MAX;
        // A window that is not used tells nothing of the room beyond it (RFC 7661).
        if ((others + 1) as f64) < state.batches / 2.0 {
            return;
        }
        let growth = if state.slow_start {
            1.0
        } else {
            // One in a round trip: slow where answers take long, since much is under
            // way then, and fast where they are soon back.
            state.batches.recip()
        };
        state.batches += growth / self.shared.lanes;
    }

    /// A batch was refused for want of room; so many others of this lane are under
    /// way.
    pub(super) fn refused(&mut self, others: usize) {
        let mut state = self.shared.state();
        if self.decreases == state.decreases && self.answers_of_last == 0 {
            state.slow_start = false;
            state.batches = (state.batches * DECREASE).max(1.0);
            state.decreases += 1;
        }
        if self.decreases == state.decreases {
            self.answers_of_last -= 1;
        } else {
            self.decreases = state.decreases;
            self.answers_of_last = others;
        }
    }

    /// A batch was answered, in a way that tells nothing of the cluster's room.
    pub(super) fn answered(&mut self) {
        self.answers_of_last = self.answers_of_last.saturating_sub(1);
    }

    /// What was under way will not be answered.
    pub(super) fn stream_lost(&mut self) {
        self.answers_of_last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(1);

    fn lanes(count: usize) -> Vec<LaneWindow> {
        let shared = Arc::new(CongestionWindow::new(count));
        (0..count)
            .map(|_| LaneWindow::new(Arc::clone(&shared)))
            .collect()
    }

    /// All that may be is under way, and taken.
    fn full_round_trip(lanes: &mut [LaneWindow], time: Duration) {
        let under_way = lanes[0].limit();
        for lane in lanes {
            for _ in 0..under_way {
                lane.acknowledged(under_way - 1, time);
            }
        }
    }

    #[test]
    fn it_doubles_until_answers_take_long_or_something_is_refused() {
        for refused in [false, true] {
            let mut lanes = lanes(4);
            full_round_trip(&mut lanes, SHORT);
            assert_eq!(lanes[0].limit(), 512);
            full_round_trip(&mut lanes, SHORT);
            assert_eq!(lanes[3].limit(), 1024);
            let mut rest = 1024;
            if refused {
                lanes[0].refused(1023);
                rest = 512;
            } else {
                lanes[0].acknowledged(1023, LONG);
            }
            for _ in 0..10 {
                full_round_trip(&mut lanes, SHORT);
            }
            let limit = lanes[0].limit();
            assert!((rest + 9..=rest + 10).contains(&limit), "{limit}");
        }
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut lanes = lanes(1);
        for _ in 0..10_000 {
            lanes[0].acknowledged(100, SHORT);
        }
        assert_eq!(lanes[0].limit(), 256);
    }

    #[test]
    fn a_refusal_halves_it_once_for_all_that_was_sent_before() {
        let mut lanes = lanes(2);
        lanes[0].refused(200);
        assert_eq!(lanes[0].limit(), 128);
        // The other lane's are of the same window.
        for others in (0..200).rev() {
            lanes[1].refused(others);
            lanes[0].refused(128);
        }
        assert_eq!(lanes[1].limit(), 128);
        lanes[1].refused(127);
        assert_eq!(lanes[0].limit(), 64);
        lanes[0].stream_lost();
        lanes[0].refused(0);
        assert_eq!(lanes[0].limit(), 64, "sent before the other lane's");
        lanes[0].refused(0);
        assert_eq!(lanes[1].limit(), 32);
    }

    #[test]
    fn one_batch_may_always_be_under_way_and_soon_more() {
        let mut lanes = lanes(3);
        for _ in 0..20 {
            lanes[0].refused(0);
        }
        assert_eq!(lanes[0].limit(), 1);
        for _ in 0..10 {
            full_round_trip(&mut lanes, SHORT);
        }
        assert!(lanes[0].limit() > 5, "{}", lanes[0].limit());
    }

    #[test]
    fn clients_share_the_room_and_few_batches_are_refused() {
        const ROOM: usize = 3200;
        const ROUND_TRIPS: usize = 5000;
        // All send as much as they may; the first half came first.
        let mut clients: Vec<_> = (0..8).map(|_| lanes(4)).collect();
        for client in &mut clients[..4] {
            full_round_trip(client, SHORT);
        }
        let (mut taken, mut refused) = (vec![0; clients.len()], 0);
        for round in 0..ROUND_TRIPS {
            let mut free = ROOM;
            for turn in 0..clients.len() * 4 {
                // Whoever finds no room changes.
                let lane = (round * 7 + turn) % (clients.len() * 4);
                let client = lane % clients.len();
                let lane = &mut clients[client][lane / 8];
                let under_way = lane.limit();
                for batch in 0..under_way {
                    if free > 0 {
                        free -= 1;
                        taken[client] += 1;
                        lane.acknowledged(under_way - 1, LONG);
                    } else {
                        refused += 1;
                        lane.refused(under_way - batch - 1);
                    }
                }
            }
        }
        let all: usize = taken.iter().sum();
        assert!(refused * 50 < all, "{refused} refused, {all} taken");
        assert!(all * 2 > ROUND_TRIPS * ROOM, "{all} taken");
        let least = taken.iter().min().expect("there are clients");
        let most = taken.iter().max().expect("there are clients");
        assert!(most * 2 < least * 3, "{taken:?}");
    }
}
