//! From a command's result to the answer of an append.

use huntlog_machine::{BatchResult, CommandResult};
use huntlog_proto::v1;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::call::Call;
use super::error::ApiError;
use crate::partition::{Committed, WriteError, WriteResult};
use crate::wire::{FieldFault, InvalidRequest, append_response};

/// Waits for a command's result until the deadline; past it, nobody here knows
/// what becomes of the command.
pub(super) async fn committed(
    receiver: oneshot::Receiver<WriteResult>,
    call: &Call,
) -> Result<Committed, ApiError> {
    match timeout_at(call.deadline, receiver).await {
        Ok(received) => received_result(received),
        Err(_) => Err(ApiError::Deadline),
    }
}

/// What the proposer answered. One that went away without an answer has failed
/// with everything it held.
pub(super) fn received_result(
    received: Result<WriteResult, oneshot::error::RecvError>,
) -> Result<Committed, ApiError> {
    received
        .unwrap_or(Err(WriteError::NodeFailed))
        .map_err(ApiError::from)
}

/// The answer to a batch that the machine has seen.
pub(super) fn batch_answer(
    partition: u32,
    session: String,
    sequence: u64,
    committed: Committed,
) -> Result<v1::AppendResponse, ApiError> {
    let CommandResult::Batch(result) = committed.result else {
        unreachable!("a batch is answered as a batch");
    };
    let (duplicate, outcome) = match result {
        BatchResult::Applied(outcome) => (false, Some(outcome)),
        BatchResult::Duplicate(outcome) => (true, Some(outcome)),
        BatchResult::DuplicateDropped { .. } => (true, None),
        BatchResult::Refused(refusal) => return Err(refusal.into()),
    };
    Ok(append_response(
        partition,
        session,
        sequence,
        duplicate,
        outcome.as_ref(),
    ))
}

/// What a request without a batch is told.
pub(super) fn missing_batch() -> InvalidRequest {
    InvalidRequest(vec![FieldFault {
        path: "batch".to_owned(),
        message: "a batch is needed".to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;
    use crate::limits;

    /// I10: what was proposed and not answered in time may still be applied.
    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_told_as_such() {
        let call = Call::new(&MetadataMap::new());
        let started = tokio::time::Instant::now();
        let (_sender, receiver) = oneshot::channel();
        let error = committed(receiver, &call).await.expect_err("no answer");
        assert!(matches!(error, ApiError::Deadline), "{error:?}");
        assert_eq!(started.elapsed(), limits::REQUEST_DEADLINE_DEFAULT);
    }

    #[tokio::test]
    async fn a_proposer_that_is_gone_has_failed() {
        let call = Call::new(&MetadataMap::new());
        let (sender, receiver) = oneshot::channel();
        drop(sender);
        let error = committed(receiver, &call).await.expect_err("no answer");
        assert!(matches!(error, ApiError::Write(WriteError::NodeFailed)));
    }
}
