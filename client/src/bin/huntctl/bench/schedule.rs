//! When the requests of an open loop are due, whatever the answers do.
//!
//! Times of an open loop count from when a request was due, not from when it
//! was handed over: a stall that holds the next requests back shows in each of
//! them, where a closed loop would just ask less (coordinated omission).

use std::time::{Duration, Instant};

/// Requests that are due at equal distances.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Instant,
    events_per_second: u64,
    batch: u16,
}

/// A thread wakes up no more exactly than this; what is due earlier goes
/// without sleep.
const GRANULARITY: Duration = Duration::from_micros(50);

impl Schedule {
    pub fn new(start: Instant, events_per_second: u64, batch: u16) -> Self {
        Self {
            start,
            events_per_second,
            batch,
        }
    }

    /// When request number `request`, from 0, is due. Computed from the start,
    /// so that no rounding adds up.
    pub fn due(&self, request: u64) -> Instant {
        let events = u128::from(request) * u128::from(self.batch);
        let nanos = events * 1_000_000_000 / u128::from(self.events_per_second);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Blocks the thread until that time, by the operating system's clock: the
    /// runtime's timers are a millisecond apart.
    pub fn wait(due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.max(GRANULARITY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_exactly_over_hours() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 99_999, 128);
        assert_eq!(schedule.due(0), start);
        let hour = Duration::from_hours(1);
        // 99,999 x 3,600 events are 2,812,471.875 requests of 128.
        assert!(schedule.due(2_812_471) < start + hour);
        assert!(schedule.due(2_812_472) >= start + hour);
    }

    #[test]
    fn a_request_is_never_early() {
        let due = Instant::now() + Duration::from_millis(2);
        Schedule::wait(due);
        assert!(Instant::now() >= due);
        Schedule::wait(due);
    }
}
