//! What a replication stream has brought and its log has not on the disk yet.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room that the requests of one stream have until they are answered.
///
/// openraft bounds their number, and a request can be as large as the largest
/// entry: a disk that is slower than the network would have hundreds of MiB
/// wait for it in memory.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    room_bytes: u32,
    room: Arc<Semaphore>,
    /// One for each request that is not answered, oldest first.
    taken: Arc<Mutex<VecDeque<OwnedSemaphorePermit>>>,
}

impl InFlight {
    /// A stream with so much room.
    pub(super) fn new(room_bytes: u32) -> Self {
        Self {
            room_bytes,
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            taken: Arc::default(),
        }
    }

    /// Waits for room for a request of `bytes`; one that is larger than all the
    /// room waits until it is alone. `None` once nobody waits for answers any
    /// more.
    pub(super) async fn take(&self, bytes: usize) -> Option<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone();
        let permit = room.acquire_many_owned(bytes.min(self.room_bytes)).await;
        self.taken.lock().push_back(permit.ok()?);
        Some(())
    }

    /// The answers, which come in the order of the requests, and give back what
    /// these have taken.
    pub(super) fn answers(self) -> InFlightAnswers {
        InFlightAnswers(self)
    }
}

/// The end of a stream that answers. Once it is dropped nothing more is taken.
#[derive(Debug)]
pub(super) struct InFlightAnswers(InFlight);

impl InFlightAnswers {
    /// The oldest request is answered.
    pub(super) fn answered(&self) {
        self.0.taken.lock().pop_front();
    }
}

impl Drop for InFlightAnswers {
    fn drop(&mut self) {
        self.0.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn requests_wait_until_those_before_them_are_answered() {
        let requests = InFlight::new(100);
        let answers = requests.clone().answers();
        let takes = |bytes| requests.take(bytes).now_or_never();
        assert_eq!(takes(60), Some(Some(())));
        assert_eq!(takes(0), Some(Some(())));
        assert_eq!(takes(40), Some(Some(())));
        assert_eq!(takes(1), None);
        answers.answered();
        assert_eq!(takes(61), None);
        assert_eq!(takes(60), Some(Some(())));
        // The one of no bytes has given back nothing.
        answers.answered();
        assert_eq!(takes(1), None);
    }

    #[test]
    fn one_that_is_larger_than_the_room_goes_alone() {
        let requests = InFlight::new(100);
        let answers = requests.clone().answers();
        assert_eq!(requests.take(1).now_or_never(), Some(Some(())));
        assert_eq!(requests.take(1_000).now_or_never(), None);
        answers.answered();
        assert_eq!(requests.take(1_000).now_or_never(), Some(Some(())));
        assert_eq!(requests.take(1).now_or_never(), None);
    }

    #[test]
    fn nobody_waits_for_answers_that_do_not_come() {
        let requests = InFlight::new(100);
        let answers = requests.clone().answers();
        assert_eq!(requests.take(100).now_or_never(), Some(Some(())));
        let mut waiting = Box::pin(requests.take(1));
        assert_eq!((&mut waiting).now_or_never(), None);
        drop(answers);
        assert_eq!(waiting.now_or_never(), Some(None));
    }
}
