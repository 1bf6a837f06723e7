//! Histograms that know their unit.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric,
        histogram::{Histogram, exponential_buckets},
    },
};

/// A histogram of durations, in seconds: 18 buckets from 50 us to 6.5 s, each
/// twice the one before. A sync takes 0.2 ms on a quiet disk, an election half
/// a second.
#[derive(Clone, Debug)]
pub struct Seconds(Histogram);

impl Seconds {
    /// Adds one observation.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(50e-6, 2.0, 18)))
    }
}

/// A histogram of sizes, in bytes or in a count of things: 13 buckets from 1 to
/// 16 Mi, each four times the one before.
#[derive(Clone, Debug)]
pub struct Sizes(Histogram);

impl Sizes {
    /// Adds one observation.
    pub fn observe(&self, size: usize) {
        self.0.observe(size as f64);
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(1.0, 4.0, 13)))
    }
}

macro_rules! encode_as_histogram {
    ($measure:ty) => {
        impl TypedMetric for $measure {
            const TYPE: MetricType = Histogram::TYPE;
        }

        impl EncodeMetric for $measure {
            fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
                self.0.encode(encoder)
            }

            fn metric_type(&self) -> MetricType {
                Self::TYPE
            }
        }
    };
}

encode_as_histogram!(Seconds);
encode_as_histogram!(Sizes);
