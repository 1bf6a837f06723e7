//! Giving up old history, when the operator says so; otherwise it is kept for
//! ever.
//!
//! What goes are whole segments, oldest first, whose entries a snapshot covers:
//! first openraft's log ends behind them (a follower that needs them is sent
//! the snapshot from then on), then readers' history does, and then storage
//! deletes the files.

use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::RecordHeader;
use huntlog_storage::ClosedSegment;
use tokio::sync::oneshot;

use super::clock::LogClock;
use super::replica::Replica;
use crate::limits;
use crate::raft::Raft;

/// How much history is kept; `None` means any amount. A segment goes as soon as
/// one of them says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events older than this, by the log's time, may go.
    pub max_age: Option<Duration>,
    /// The oldest segments go while all of them together are larger.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Whether nothing ever goes.
    pub fn is_for_ever(&self) -> bool {
        *self == Self::default()
    }

    /// The last log index of what is to go, if anything is. `time_of` gives the
    /// log's time of an entry, if it is known.
    fn last_to_go(
        &self,
        segments: &[ClosedSegment],
        open_bytes: u64,
        now_ms: u64,
        time_of: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        let closed: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut bytes = closed + open_bytes;
        let mut last_to_go = None;
        for segment in segments {
            let too_large = self.max_bytes.is_some_and(|max| bytes > max);
            let Some(last) = segment.last_index else {
                // Nothing of this partition: it goes with those around it.
                bytes -= segment.bytes;
                continue;
            };
            let too_old = || {
                let max_age_ms = u64::try_from(self.max_age?.as_millis()).ok()?;
                Some(time_of(last)?.saturating_add(max_age_ms) < now_ms)
            };
            if !too_large && !too_old().unwrap_or(false) {
                break;
            }
            bytes -= segment.bytes;
            last_to_go = Some(last);
        }
        last_to_go
    }
}

/// What the task that applies a [`Retention`] works on.
pub(super) struct Keeper {
    pub(super) raft: Raft,
    pub(super) replica: Arc<Replica>,
    pub(super) clock: Arc<LogClock>,
    pub(super) retention: Retention,
}

impl Keeper {
    /// Gives up what the retention says, again and again.
    pub(super) async fn run(self) {
        if self.retention.is_for_ever() {
            return;
        }
        let mut rounds = tokio::time::interval(limits::RETENTION_CHECK_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Some(last) = self.last_to_go().await else {
                continue;
            };
            // Storage that fails ends the node by itself, and so does Raft.
            if self.give_up(last).await.is_none() {
                return;
            }
        }
    }

    async fn last_to_go(&self) -> Option<u64> {
        let now_ms = self.clock.stamp_ms();
        let replica = self.replica.clone();
        let retention = self.retention;
        let found = tokio::task::spawn_blocking(move || {
            let log = replica.log();
            let (segments, open_bytes) = log.segments();
            let time_of = |index| {
                let record = log.record(index).ok()??;
                Some(RecordHeader::decode(&record).ok()?.time_ms)
            };
            let kept: Vec<_> = segments
                .into_iter()
                .filter(|segment| {
                    let gone = |last| last < log.history_start();
                    !segment.last_index.is_some_and(gone)
                })
                .collect();
            retention.last_to_go(&kept, open_bytes, now_ms, time_of)
        });
        found.await.ok().flatten()
    }

    /// Gives up the log through `last`, once a snapshot covers it; `None` when
    /// the partition is ending.
    async fn give_up(&self, last: u64) -> Option<()> {
        use openraft::async_runtime::WatchReceiver as _;
        let mut metrics = self.raft.metrics();
        let covered = metrics.borrow_watched().snapshot.map(|id| id.index);
        if covered < Some(last) {
            // The next round finds it.
            return self.raft.trigger().snapshot().await.ok();
        }
        let log = self.replica.log();
        let purged = |log: &huntlog_storage::PartitionLog| log.last_purged().map(|id| id.index);
        if purged(log) < Some(last) {
            self.raft.trigger().purge_log(last).await.ok()?;
            while metrics.borrow_watched().purged.map(|id| id.index) < Some(last) {
                metrics.changed().await.ok()?;
            }
        }
        let first_kept = last + 1;
        let (done, released) = oneshot::channel();
        log.release_history(
            first_kept,
            Box::new(move |result| {
                // The receiver is gone only when the partition is ending.
                let _ = done.send(result);
            }),
        );
        released.await.ok()?.ok()?;
        tracing::info!(
            partition = log.id(),
            first_kept,
            "history before this log index is given up, as the retention says"
        );
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of 100 bytes that end with log index 10, 20, ... at as many
    /// seconds; the third has nothing of the partition.
    fn segments() -> Vec<ClosedSegment> {
        [Some(10), Some(20), None, Some(40), Some(50)]
            .into_iter()
            .zip(1..)
            .map(|(last_index, number)| ClosedSegment {
                number,
                bytes: 100,
                last_index,
            })
            .collect()
    }

    fn last_to_go(max_age_seconds: Option<u64>, max_bytes: Option<u64>) -> Option<u64> {
        let retention = Retention {
            max_age: max_age_seconds.map(Duration::from_secs),
            max_bytes,
        };
        retention.last_to_go(&segments(), 50, 60_000, |index| Some(index * 1_000))
    }

    #[test]
    fn without_limits_everything_stays() {
        assert!(Retention::default().is_for_ever());
        assert_eq!(last_to_go(None, None), None);
    }

    #[test]
    fn the_oldest_segments_go_while_there_is_too_much() {
        assert_eq!(last_to_go(None, Some(550)), None);
        assert_eq!(last_to_go(None, Some(549)), Some(10));
        assert_eq!(last_to_go(None, Some(350)), Some(20));
        // The one without entries counts for nothing once those before it go.
        assert_eq!(last_to_go(None, Some(249)), Some(40));
        // The segment being written never goes.
        assert_eq!(last_to_go(None, Some(0)), Some(50));
    }

    #[test]
    fn segments_go_once_their_last_entry_is_too_old() {
        assert_eq!(last_to_go(Some(50), None), None);
        assert_eq!(last_to_go(Some(49), None), Some(10));
        assert_eq!(last_to_go(Some(15), None), Some(40));
    }

    #[test]
    fn either_limit_is_enough() {
        assert_eq!(last_to_go(Some(49), Some(350)), Some(20));
        assert_eq!(last_to_go(Some(15), Some(549)), Some(40));
    }

    #[test]
    fn what_has_no_known_time_stays() {
        let retention = Retention {
            max_age: Some(Duration::from_secs(1)),
            max_bytes: None,
        };
        let found = retention.last_to_go(&segments(), 0, 60_000, |_| None);
        assert_eq!(found, None);
    }
}
