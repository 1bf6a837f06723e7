//! Outcomes that the machine no longer keeps, read again from the log.

use std::sync::Arc;

use bytes::Bytes;
use huntlog_machine::{BatchOutcome, BatchResult, DecodeError, EncodedCommand, history};
use huntlog_storage::ReadError;

use super::replica::Replica;
use super::tail::TailLookup;
use crate::raft::{EntryFormatError, entry_data};

/// Fills in the outcome of a session's last batch when it is too large for the
/// machine to keep for ever.
pub(super) async fn tell_from_the_log(
    result: &mut BatchResult,
    command: &EncodedCommand,
    replica: &Arc<Replica>,
) {
    let BatchResult::DuplicateDropped {
        log_index: Some(log_index),
    } = *result
    else {
        return;
    };
    match recorded_outcome(replica, log_index, command.clone()).await {
        Ok(outcome) => *result = BatchResult::Duplicate(outcome),
        // The caller still hears that it was applied.
        Err(error) => {
            tracing::warn!(log_index, %error, "the outcome of a repeated batch can not be read again");
        }
    }
}

/// Why an outcome can not be read again.
#[derive(Debug, thiserror::Error)]
enum RecordedOutcomeError {
    /// The log could not be read, or does not reach that far back here.
    #[error(transparent)]
    Storage(#[from] ReadError),
    /// The entry is there, and what was decided about it is not.
    #[error("what was decided about the entry is not kept here")]
    NoRecord,
    /// The entry or its record does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The entry is of a kind this release does not know.
    #[error(transparent)]
    Format(#[from] EntryFormatError),
    /// The entry did not apply the batch.
    #[error("the entry did not apply the batch")]
    Elsewhere,
    /// The read was interrupted.
    #[error("the read was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What came of the batch that `command` repeats, from the entry at `log_index`
/// that applied it. Fails when this node does not have it: the log there is
/// purged, or came to this node as a snapshot.
async fn recorded_outcome(
    replica: &Arc<Replica>,
    log_index: u64,
    command: EncodedCommand,
) -> Result<BatchOutcome, RecordedOutcomeError> {
    let (data, record) = match replica.tail().get(log_index) {
        TailLookup::Entry(entry) => (entry.data.clone(), entry.record.clone()),
        TailLookup::Older | TailLookup::NotYet => {
            let replica = replica.clone();
            crate::blocking::spawn_blocking(move || on_disk(&replica, log_index)).await??
        }
    };
    history::batch_outcome(log_index, &data, &record, &command)?
        .ok_or(RecordedOutcomeError::Elsewhere)
}

fn on_disk(replica: &Replica, log_index: u64) -> Result<(Bytes, Bytes), RecordedOutcomeError> {
    let log = replica.log();
    let entry = log
        .read_history(log_index..log_index + 1, usize::MAX)?
        .pop()
        .ok_or(RecordedOutcomeError::Elsewhere)?;
    let record = log
        .record(log_index)?
        .ok_or(RecordedOutcomeError::NoRecord)?;
    let data = entry_data(&entry.payload)?.cloned().unwrap_or_default();
    Ok((data, record))
}

#[cfg(test)]
mod tests {
    use huntlog_machine::{
        Applied, Batch, CommandResult, EntryBuilder, Event, EventKind, Limits, LogId, Machine,
        encode_batch, encode_open_session,
    };
    use huntlog_storage::{LogEntry, Options, PartitionLog, Storage};
    use parking_lot::RwLock;
    use tempfile::TempDir;

    use super::super::clock::LogClock;
    use super::*;
    use crate::telemetry::Metrics;

    /// A replica with a log on disk, and nothing in the tail.
    struct OnDisk {
        replica: Arc<Replica>,
        log: PartitionLog,
        machine: Machine,
        _dir: TempDir,
    }

    impl OnDisk {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let (storage, _) = Storage::open(dir.path(), Options::default()).expect("it is fresh");
            let log = storage.partition(0);
            let shown = Arc::new(RwLock::new(Machine::new(0, Limits::default())));
            let metrics = Metrics::new("test", 1, "test").partition(0);
            let clock = Arc::new(LogClock::new(1));
            Self {
                replica: Arc::new(Replica::new(shown, log.clone(), clock, metrics)),
                log,
                machine: Machine::new(0, Limits::default()),
                _dir: dir,
            }
        }

        fn apply(&mut self, commands: &[EncodedCommand]) -> Applied {
            let mut entry = EntryBuilder::new(0, self.machine.digest());
            commands.iter().for_each(|command| entry.push(command));
            let payload = entry.finish();
            let index = self.machine.last_applied().map_or(0, |last| last.index + 1);
            let (term, node_id) = (1, 1);
            let id = LogId {
                term,
                node_id,
                index,
            };
            let applied = self.machine.apply(id, &payload).expect("the next entry");
            let id = huntlog_storage::LogId {
                term,
                node_id,
                index,
            };
            self.log
                .append(vec![LogEntry { id, payload }], Box::new(|_| {}));
            self.log.wait_durable(index).expect("the disk works");
            self.log
                .put_records(vec![(index, applied.record.clone())])
                .expect("the disk works");
            applied
        }
    }

    fn batch(epoch: u64) -> EncodedCommand {
        let event = |hunt: &str, kind| Event {
            hunt: hunt.to_owned(),
            player: String::new(),
            occurred_at: None,
            kind,
        };
        encode_batch(&Batch {
            session: "s".to_owned(),
            epoch,
            sequence: 1,
            expected: Vec::new(),
            events: vec![
                event("nowhere", EventKind::HuntOpened),
                event("elsewhere", EventKind::HuntStarted),
            ],
        })
    }

    async fn told(disk: &OnDisk, log_index: u64, command: &EncodedCommand) -> BatchResult {
        let log_index = Some(log_index);
        let mut result = BatchResult::DuplicateDropped { log_index };
        tell_from_the_log(&mut result, command, &disk.replica).await;
        result
    }

    /// DESIGN 5: of a session's recent results the last one is always kept.
    #[tokio::test]
    async fn an_outcome_that_memory_dropped_is_told_from_the_disk() {
        let mut disk = OnDisk::new();
        disk.apply(&[encode_open_session("s", b"a nonce")]);
        let command = batch(0);
        let applied = disk.apply(std::slice::from_ref(&command));
        let [CommandResult::Batch(BatchResult::Applied(first))] = &applied.results[..] else {
            panic!("{:?}", applied.results);
        };
        let BatchResult::Duplicate(again) = told(&disk, 1, &command).await else {
            panic!("it is on disk");
        };
        assert!(again.iter().eq(first.iter()));
        assert_eq!((again.log_index, again.time_ms), (1, first.time_ms));
    }

    /// The caller then hears that it was applied, and not what came of it.
    #[tokio::test]
    async fn one_that_is_not_there_stays_dropped() {
        let mut disk = OnDisk::new();
        disk.apply(&[encode_open_session("s", b"a nonce")]);
        for elsewhere in [0, 7] {
            let result = told(&disk, elsewhere, &batch(0)).await;
            assert!(matches!(result, BatchResult::DuplicateDropped { .. }));
        }
    }
}
