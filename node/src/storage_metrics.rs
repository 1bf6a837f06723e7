//! What the storage engine does, told to the metrics.

use std::sync::Arc;

use huntlog_storage::BatchStats;

use crate::telemetry::Metrics;

/// Feeds the metrics from the log writer's thread.
pub struct StorageObserver {
    metrics: Arc<Metrics>,
}

impl StorageObserver {
    /// Feeds `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl huntlog_storage::Metrics for StorageObserver {
    fn batch_synced(&self, stats: &BatchStats) {
        let storage = &self.metrics.storage;
        storage.sync_seconds.observe(stats.sync);
        storage
            .sync_bytes
            .observe(usize::try_from(stats.bytes).unwrap_or(usize::MAX));
        storage.sync_writes.observe(stats.frames);
        storage.queue_writes.set(stats.queued as u64);
        storage.segment_bytes.inc_by(stats.bytes);
    }

    fn segment_begun(&self, _segment: u64, _took: std::time::Duration) {
        self.metrics.storage.segments.inc();
    }
}
