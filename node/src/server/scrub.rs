//! Reading the sealed segments again, in the background: damage is to be known
//! before what it took is needed, and while another node still has it.

use std::sync::Arc;
use std::time::Duration;

use huntlog_storage::Storage;

use super::NodeError;
use crate::admin_http::{Health, Warning};
use crate::limits;
use crate::telemetry::Metrics;

/// How often readiness is told what is damaged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Makes one pass after the other, at its own slow pace, and ends when the
/// storage does. A runtime of one thread has none to spare: there is no scrub in
/// the simulation, whose disks do not rot.
pub(super) async fn scrub(storage: Storage, metrics: Arc<Metrics>) -> Result<(), NodeError> {
    if crate::blocking::alone() {
        return Ok(());
    }
    tokio::time::sleep(limits::SCRUB_START_DELAY).await;
    loop {
        if !pass(&storage, &metrics).await {
            return Ok(());
        }
        tokio::time::sleep(limits::SCRUB_PAUSE).await;
    }
}

/// Whether the pass came to its end.
async fn pass(storage: &Storage, metrics: &Metrics) -> bool {
    let mut scrub = storage.scrub();
    loop {
        let step = crate::blocking::spawn_blocking(move || (scrub.step(), scrub)).await;
        let Ok((Ok(step), rest)) = step else {
            // Storage that fails says so itself.
            return false;
        };
        scrub = rest;
        metrics.storage.scrubbed_bytes.inc_by(step.bytes);
        if step.ended {
            metrics.storage.scrub_passes.inc();
            tracing::info!("every sealed segment was read again");
            return true;
        }
        tokio::time::sleep(pace(step.bytes)).await;
    }
}

/// How long so many bytes may take.
fn pace(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / limits::SCRUB_BYTES_PER_SECOND)
}

/// Warns while there are damaged segments, whoever found them: readers do too.
pub(super) async fn watch_segments(
    storage: Storage,
    health: Health,
    metrics: Arc<Metrics>,
) -> Result<(), NodeError> {
    let mut rounds = tokio::time::interval(REPORT_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let damaged = storage.damaged_segments();
        metrics.storage.damaged_segments.set(damaged.len() as u64);
        match damaged.first_key_value() {
            None => health.calm(Warning::SegmentDamaged),
            Some((_, first)) if damaged.len() == 1 => {
                health.warn(Warning::SegmentDamaged, first.as_str());
            }
            Some((_, first)) => {
                let others = damaged.len() - 1;
                let message = format!("{first}; and {others} more segments are damaged");
                health.warn(Warning::SegmentDamaged, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_limit_s() {
        assert_eq!(pace(limits::SCRUB_BYTES_PER_SECOND), Duration::from_secs(1));
        assert_eq!(pace(0), Duration::ZERO);
    }
}
