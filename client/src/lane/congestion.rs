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

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits;
use crate::sequencer::Moment;

/// What is left of the window after a refusal.
const DECREASE: f64 = 0.5;

/// The window of a client's lanes.
#[derive(Debug)]
pub(crate) struct CongestionWindow {
    lanes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of each lane.
    batches: f64,
    slow_start: bool,
    /// The shortest time that a batch has taken.
    round_trip_min: Duration,
    /// The time of the last one that was taken.
    round_trip: Duration,
    /// Refusals of what was sent before then are of the window before the last
    /// decrease.
    decreased_until: Moment,
}

impl CongestionWindow {
    /// Of so many lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            lanes,
            state: Mutex::new(State {
                batches: limits::INITIAL_WINDOW_BATCHES as f64,
                slow_start: true,
                round_trip_min: Duration::MAX,
                round_trip: Duration::ZERO,
                decreased_until: Moment::ZERO,
            }),
        }
    }

    /// Batches that each lane may have under way, one at least.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no more than there are batches"
    )]
    pub(super) fn limit(&self) -> usize {
        self.state().batches as usize
    }

    /// A batch was taken, so long after it had been sent; so many others of its lane
    /// are under way.
    pub(super) fn acknowledged(&self, others: usize, round_trip: Duration) {
        let mut state = self.state();
        state.round_trip = round_trip;
        state.round_trip_min = state.round_trip_min.min(round_trip);
        // A window that is not used tells nothing of the room beyond it (RFC 7661), and a
        // slow answer then does not say that the cluster is full.
        if ((others + 1) as f64) < state.batches / 2.0 {
            return;
        }
        state.slow_start &= round_trip - state.round_trip_min < limits::SLOW_START_DELAY_MAX;
        let growth = if state.slow_start {
            1.0
        } else {
            // One in a round trip of all lanes: slow where answers take long, since
            // much is under way then, and fast where they are soon back.
            state.batches.recip()
        };
        state.batches += growth / self.lanes as f64;
    }

    /// A batch that was sent then was refused for want of room.
    pub(super) fn refused(&self, sent: Moment, now: Moment) {
        let mut state = self.state();
        if sent < state.decreased_until {
            return;
        }
        state.slow_start = false;
        state.batches = (state.batches * DECREASE).max(1.0);
        // Once in a round trip: what the others have under way ends only then.
        state.decreased_until = now + state.round_trip;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(1);

    /// All that may be is under way, and taken.
    fn full_round_trip(window: &CongestionWindow, time: Duration) {
        let under_way = window.limit();
        for _ in 0..under_way * window.lanes {
            window.acknowledged(under_way - 1, time);
        }
    }

    #[test]
    fn it_doubles_until_answers_take_long_or_something_is_refused() {
        for refused in [false, true] {
            let window = CongestionWindow::new(4);
            full_round_trip(&window, LONG);
            assert_eq!(window.limit(), 512, "a long way, and nothing waits");
            full_round_trip(&window, LONG);
            assert_eq!(window.limit(), 1024);
            let mut rest = 1024;
            if refused {
                window.refused(SHORT, LONG);
                rest = 512;
            } else {
                window.acknowledged(1023, LONG + limits::SLOW_START_DELAY_MAX);
            }
            for _ in 0..10 {
                full_round_trip(&window, LONG);
            }
            let limit = window.limit();
            assert!((rest + 9..=rest + 10).contains(&limit), "{limit}");
        }
    }

    #[test]
    fn a_window_that_is_not_used_tells_nothing() {
        let window = CongestionWindow::new(1);
        for _ in 0..10_000 {
            window.acknowledged(100, SHORT);
        }
        assert_eq!(window.limit(), 256);
        // One slow answer is no full cluster.
        window.acknowledged(0, LONG);
        full_round_trip(&window, SHORT);
        assert_eq!(window.limit(), 512);
    }

    #[test]
    fn it_is_halved_once_in_a_round_trip() {
        let window = CongestionWindow::new(2);
        window.acknowledged(0, LONG);
        let at = |milliseconds| Duration::from_millis(milliseconds);
        window.refused(at(500), at(1_000));
        assert_eq!(window.limit(), 128);
        for sent in [500, 999, 1_000, 1_999] {
            window.refused(at(sent), at(sent + 1_000));
        }
        assert_eq!(window.limit(), 128);
        window.refused(at(2_000), at(3_000));
        assert_eq!(window.limit(), 64);
    }

    #[test]
    fn one_batch_may_always_be_under_way_and_soon_more() {
        let window = CongestionWindow::new(3);
        for second in 0..20 {
            let sent = Duration::from_secs(second);
            window.refused(sent, sent);
        }
        assert_eq!(window.limit(), 1);
        for _ in 0..10 {
            full_round_trip(&window, SHORT);
        }
        assert!(window.limit() > 5, "{}", window.limit());
    }

    #[test]
    fn clients_share_the_room_and_few_batches_are_refused() {
        const ROOM: usize = 3200;
        const ROUND_TRIPS: u32 = 5000;
        // All send as much as they may; the first half came first.
        let clients: Vec<_> = (0..8).map(|_| CongestionWindow::new(4)).collect();
        for client in &clients[..4] {
            full_round_trip(client, SHORT);
        }
        let (mut taken, mut refused) = (vec![0; clients.len()], 0);
        for round in 0..ROUND_TRIPS {
            let mut free = ROOM;
            let sent = LONG * round;
            for turn in 0..clients.len() * 4 {
                // Whoever finds no room changes.
                let client = (round as usize * 7 + turn) % clients.len();
                let window = &clients[client];
                let under_way = window.limit();
                for _ in 0..under_way {
                    if free > 0 {
                        free -= 1;
                        taken[client] += 1;
                        window.acknowledged(under_way - 1, LONG);
                    } else {
                        refused += 1;
                        window.refused(sent, sent + LONG);
                    }
                }
            }
        }
        let all: usize = taken.iter().sum();
        assert!(refused * 50 < all, "{refused} refused, {all} taken");
        assert!(all * 2 > ROUND_TRIPS as usize * ROOM, "{all} taken");
        let least = taken.iter().min().expect("there are clients");
        let most = taken.iter().max().expect("there are clients");
        assert!(most * 2 < least * 3, "{taken:?}");
    }
}
