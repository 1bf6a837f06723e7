//! Giving up old history, when the operator says so; otherwise it is kept for
//! ever.
//!
//! What goes are the entries that a snapshot covers, the newest one among those
//! that are over the limit altogether, and never the newest of all: the state at
//! any moment of what stays can be made from that snapshot, so that the newest
//! one may turn out damaged and nothing is lost. Both are read through before
//! anything goes. First openraft's log ends behind it (a
//! follower that needs more is sent a snapshot from then on), then readers'
//! history does, and then storage deletes the segments that hold nothing else.

use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::EntryRef;
use huntlog_storage::{ClosedSegment, PartitionLog, SnapshotInfo, SnapshotStore};
use tokio::sync::oneshot;

use super::clock::LogClock;
use super::rederive;
use super::replica::Replica;
use crate::limits;
use crate::raft::{Raft, entry_data};

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
            let goes = if too_large { Some(true) } else { too_old() };
            match goes {
                Some(true) => last_to_go = Some(last),
                Some(false) => break,
                // One that ends with an entry of Raft's own has no time: it goes with
                // what comes after it, once that is too old.
                None => {}
            }
            bytes -= segment.bytes;
        }
        last_to_go
    }
}

/// What the task that applies a [`Retention`] works on.
pub(super) struct Keeper {
    pub(super) raft: Raft,
    pub(super) replica: Arc<Replica>,
    pub(super) clock: Arc<LogClock>,
    pub(super) snapshots: SnapshotStore,
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
            if let Err(Ending) = self.round().await {
                // Storage that fails, and Raft that ends, say so themselves.
                tracing::debug!("the retention ends with its partition");
                return;
            }
        }
    }

    async fn round(&self) -> Result<(), Ending> {
        let Some(last) = self.last_to_go().await? else {
            return Ok(());
        };
        let log = self.replica.log();
        let snapshots = self.snapshots.list(log.id());
        let indexes: Vec<u64> = snapshots.iter().map(|info| info.log_id.index).collect();
        let history_start = log.history_start();
        let applied = self.replica.machine().last_applied().map(|id| id.index);
        match next_base(&indexes, last, history_start, applied) {
            Base::At(base) => {
                let resting_on: Vec<_> = snapshots
                    .into_iter()
                    .filter(|info| {
                        info.log_id.index == base || Some(&info.log_id.index) == indexes.last()
                    })
                    .collect();
                if self.all_whole(resting_on).await? {
                    self.give_up(base).await?;
                }
                Ok(())
            }
            // It covers more than may go: one of the next rounds may use it.
            Base::Later => Ok(()),
            Base::Missing => self.raft.trigger().snapshot().await.map_err(|_| Ending),
        }
    }

    /// Whether every byte of the snapshots is as it was written. One that is not is
    /// set aside, and another round chooses anew.
    async fn all_whole(&self, snapshots: Vec<SnapshotInfo>) -> Result<bool, Ending> {
        let store = self.snapshots.clone();
        let read = crate::blocking::spawn_blocking(move || {
            for info in snapshots {
                if !rederive::verify(&store, &info)? {
                    return Ok(false);
                }
            }
            Ok::<_, rederive::RederiveError>(true)
        });
        match read.await.map_err(|_| Ending)? {
            Ok(whole) => Ok(whole),
            Err(error) => {
                tracing::warn!(%error, "the snapshots that history is to rest on can not be read; nothing is given up for now");
                Ok(false)
            }
        }
    }

    async fn last_to_go(&self) -> Result<Option<u64>, Ending> {
        let now_ms = self.clock.stamp_ms();
        let replica = self.replica.clone();
        let retention = self.retention;
        let found = crate::blocking::spawn_blocking(move || {
            let log = replica.log();
            let (segments, open_bytes) = log.segments();
            let history_start = log.history_start();
            let kept: Vec<_> = segments
                .into_iter()
                .skip_while(|segment| segment.last_index.is_some_and(|last| last < history_start))
                .collect();
            retention.last_to_go(&kept, open_bytes, now_ms, |index| stamp_of(log, index))
        });
        found.await.map_err(|_| Ending)
    }

    /// Gives up the log through `base`, the index of a snapshot.
    async fn give_up(&self, base: u64) -> Result<(), Ending> {
        use openraft::async_runtime::WatchReceiver as _;
        let log = self.replica.log();
        if log.last_purged().map(|id| id.index) < Some(base) {
            let mut metrics = self.raft.metrics();
            let purging = self.raft.trigger().purge_log(base).await;
            purging.map_err(|_| Ending)?;
            while metrics.borrow_watched().purged.map(|id| id.index) < Some(base) {
                metrics.changed().await.map_err(|_| Ending)?;
            }
        }
        let first_kept = base + 1;
        let (done, released) = oneshot::channel();
        log.release_history(
            first_kept,
            Box::new(move |result| {
                // The receiver is gone only when the partition is ending.
                let _ = done.send(result);
            }),
        );
        match released.await {
            Ok(Ok(())) => {}
            _ => return Err(Ending),
        }
        tracing::info!(
            partition = log.id(),
            first_kept,
            "history before this log index is given up, as the retention says"
        );
        Ok(())
    }
}

/// The partition is ending: nothing more is to be given up.
#[derive(Debug)]
struct Ending;

/// The snapshot that what stays will rest on.
#[derive(Debug, PartialEq, Eq)]
enum Base {
    /// There is one, and a newer one beside it; what it covers may go.
    At(u64),
    /// There is one for later.
    Later,
    /// One is needed, and there is something new to take it of.
    Missing,
}

/// The base when everything through `last` may go, of the snapshots at `indexes`
/// (ascending), a history that begins with `history_start`, and a state that
/// has come to `applied`.
fn next_base(indexes: &[u64], last: u64, history_start: u64, applied: Option<u64>) -> Base {
    let Some((newest, older)) = indexes.split_last() else {
        // A node that has just started need not know yet what is committed.
        return applied.map_or(Base::Later, |_| Base::Missing);
    };
    let mut usable = older.iter().filter(|index| **index >= history_start);
    if let Some(base) = usable.clone().rfind(|index| **index <= last) {
        return Base::At(*base);
    }
    if usable.next().is_some() || *newest > last || applied <= Some(*newest) {
        return Base::Later;
    }
    Base::Missing
}

/// The log's time that the proposer stamped on the entry at `index`, if it is
/// one of the machine's.
fn stamp_of(log: &PartitionLog, index: u64) -> Option<u64> {
    let entries = log.read_history(index..index + 1, usize::MAX).ok()?;
    let data = entry_data(&entries.first()?.payload).ok()??.clone();
    Some(EntryRef::decode(&data).ok()?.stamp_ms())
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
    fn what_stays_rests_on_a_snapshot_that_is_not_the_only_one() {
        let applied = Some(200);
        assert_eq!(next_base(&[], 100, 0, applied), Base::Missing);
        // There is nothing to take it of.
        assert_eq!(next_base(&[], 100, 0, None), Base::Later);
        assert_eq!(next_base(&[40, 90, 130], 100, 0, applied), Base::At(90));
        assert_eq!(next_base(&[40, 90], 100, 0, applied), Base::At(40));
        assert_eq!(next_base(&[130], 100, 0, applied), Base::Later);
        assert_eq!(next_base(&[120, 130], 100, 0, applied), Base::Later);
        // The only one would be all there is.
        assert_eq!(next_base(&[90], 100, 0, applied), Base::Missing);
        // Of the same state another would be the same.
        assert_eq!(next_base(&[90], 100, 0, Some(90)), Base::Later);
        // What the history rests on already does not count.
        assert_eq!(next_base(&[40], 100, 41, applied), Base::Missing);
        assert_eq!(next_base(&[40, 90], 100, 41, applied), Base::Missing);
        assert_eq!(next_base(&[40, 90, 95], 100, 41, applied), Base::At(90));
        assert_eq!(next_base(&[40, 130], 100, 41, applied), Base::Later);
    }

    #[test]
    fn what_has_no_known_time_stays() {
        let retention = Retention {
            max_age: Some(Duration::from_secs(1)),
            max_bytes: None,
        };
        let found = retention.last_to_go(&segments(), 0, 60_000, |_| None);
        assert_eq!(found, None);
        // What follows it says how old it is at least.
        for (known, expected) in [(20, Some(20)), (50, Some(50))] {
            let found = retention.last_to_go(&segments(), 0, 60_000, |index| {
                (index == known).then_some(index * 1_000)
            });
            assert_eq!(found, expected);
        }
    }
}
