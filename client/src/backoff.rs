//! Exponential backoff with full jitter: each delay is drawn evenly between
//! nothing and a bound that doubles, which spreads the retries of many clients
//! best (AWS Architecture Blog, "Exponential Backoff And Jitter").

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Delays between the attempts of one thing.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    bounds: ExponentialBackoff,
    rng: StdRng,
}

impl Backoff {
    /// Bounds from `min` to `max`, jitter drawn from `seed`.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_factor(2.0)
            .without_max_times();
        Self {
            builder,
            bounds: builder.build(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The delay before the next attempt: what the node asked for, and a
    /// jittered part on top.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let bound = self
            .bounds
            .next()
            .expect("the builder sets no maximum of attempts");
        let jitter = self.rng.random_range(Duration::ZERO..=bound);
        retry_after.unwrap_or_default() + jitter
    }

    /// Starts over from the smallest bound, after a success.
    pub fn reset(&mut self) {
        self.bounds = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_bounds_that_double() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
        for seed in 0..200 {
            let mut backoff = Backoff::new(min, max, seed);
            for bound in [10, 20, 40, 80, 100, 100, 100] {
                assert!(backoff.next(None) <= Duration::from_millis(bound));
            }
            backoff.reset();
            assert!(backoff.next(None) <= min);
        }
    }

    #[test]
    fn what_the_node_asks_for_is_a_floor() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1), 3);
        let asked = Duration::from_millis(50);
        let delay = backoff.next(Some(asked));
        assert!(delay >= asked && delay <= asked + Duration::from_millis(1));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let delays = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1), seed);
            (0..20).map(|_| backoff.next(None)).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }
}
