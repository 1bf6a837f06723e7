//! From submitted commands to log entries: group commit.
//!
//! The proposer drains whatever waits into one entry and never waits for more
//! when it is idle; the entries then grow with the load by themselves, because
//! only a few are in flight at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use huntlog_machine::{BatchResult, CommandResult, EncodedCommand, EntryBuilder};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::clock::LogClock;
use super::recorded::tell_from_the_log;
use super::replica::Replica;
use crate::limits;
use crate::raft::{EntryData, LogId, MemberNode, NodeId, Raft, Response, TypeConfig};
use crate::telemetry::{PartitionMetrics, ProposalResult};

/// All places among the entries in flight.
#[expect(clippy::cast_possible_truncation, reason = "a small number")]
const ALL_PLACES: u32 = limits::ENTRIES_IN_FLIGHT_MAX as u32;

/// A command that is committed and applied.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What the machine answered.
    pub result: CommandResult,
    /// The log entry that carries it.
    pub log_index: u64,
    /// The log's time of that entry, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Another node leads.
    #[error("node {leader} leads; this node did not append the request")]
    NotLeader {
        /// Who leads.
        leader: NodeId,
        /// Where it is, when known.
        node: Option<MemberNode>,
    },
    /// Nobody is known to lead.
    #[error("no leader is known; the request was not appended")]
    NoLeader,
    /// The node's budget for appends in flight is used up.
    #[error(
        "this node has {in_flight_bytes} bytes of appends in flight, its limit; the request was not appended"
    )]
    Overloaded {
        /// The limit that was reached.
        in_flight_bytes: usize,
    },
    /// The node is shutting down.
    #[error("this node is shutting down; the request was not appended")]
    Draining,
    /// The log may not hold it yet.
    #[error(
        "the request needs feature level {need}, and level {have} is in force; it was not appended"
    )]
    FeatureLevel {
        /// The level in force.
        have: u32,
        /// The level that it needs.
        need: u32,
    },
    /// The entry was appended, and this node can not tell what became of it.
    #[error("leadership was lost while the request was in flight; it may or may not be applied")]
    LeadershipLost,
    /// This node's Raft has stopped.
    #[error("this node failed while the request was in flight; it may or may not be applied")]
    NodeFailed,
}

impl WriteError {
    /// Whether it is certain that the command is not and will not be applied.
    pub fn not_applied(&self) -> bool {
        !matches!(self, Self::LeadershipLost | Self::NodeFailed)
    }
}

/// What a waiting caller gets.
pub type WriteResult = Result<Committed, WriteError>;

struct Submission {
    command: EncodedCommand,
    answer: oneshot::Sender<WriteResult>,
    /// Held until the answer is given.
    budget: OwnedSemaphorePermit,
    submitted: Instant,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// A place for each entry that is proposed and not applied yet.
    in_flight: Arc<Semaphore>,
    /// Turns true once closed, empty, and answered.
    drained: watch::Sender<bool>,
    /// Units of [`limits::IN_FLIGHT_BYTES_PER_APPEND_MIN`].
    budget: Arc<Semaphore>,
    metrics: PartitionMetrics,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    closed: bool,
}

/// Nothing is in flight, and nothing is proposed until this is dropped.
pub(crate) struct HeldAppends {
    _places: OwnedSemaphorePermit,
}

/// Takes commands; cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    shared: Arc<Shared>,
}

/// What the proposer needs of its partition.
pub(super) struct ProposerParts {
    pub raft: Raft,
    pub replica: Arc<Replica>,
    pub clock: Arc<LogClock>,
}

impl Proposer {
    /// A proposer; [`Self::run`] serves it.
    pub(super) fn new(budget: Arc<Semaphore>, metrics: PartitionMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                wake: Notify::new(),
                in_flight: Arc::new(Semaphore::new(limits::ENTRIES_IN_FLIGHT_MAX)),
                drained: watch::Sender::new(false),
                budget,
                metrics,
            }),
        }
    }

    /// Queues `command`; the receiver answers once it is applied, or can not
    /// be. Commands are proposed in the order of these calls.
    ///
    /// # Errors
    /// [`WriteError::Overloaded`] and [`WriteError::Draining`]: not queued.
    pub fn submit(
        &self,
        command: EncodedCommand,
    ) -> Result<oneshot::Receiver<WriteResult>, WriteError> {
        let units = budget_units(command.bytes().len());
        let budget = self
            .shared
            .budget
            .clone()
            .try_acquire_many_owned(units)
            .map_err(|_| {
                self.shared
                    .metrics
                    .proposal(ProposalResult::Overloaded)
                    .inc();
                WriteError::Overloaded {
                    in_flight_bytes: limits::IN_FLIGHT_BYTES_MAX,
                }
            })?;
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Err(WriteError::Draining);
        }
        queue.waiting.push_back(Submission {
            command,
            answer,
            budget,
            submitted: Instant::now(),
        });
        drop(queue);
        self.shared.wake.notify_one();
        Ok(receiver)
    }

    /// Refuses further commands; those queued are still proposed.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }

    /// Waits until what was queued before [`Self::close`] is answered.
    pub async fn drained(&self) {
        let mut drained = self.shared.drained.subscribe();
        // The sender lives as long as this proposer.
        let _ = drained.wait_for(|drained| *drained).await;
    }

    /// See [`super::Partition::hold_appends`].
    pub(super) async fn hold(&self) -> Option<HeldAppends> {
        let applied = self.shared.in_flight.clone().acquire_many_owned(ALL_PLACES);
        let held = tokio::time::timeout(limits::HELD_APPENDS_WAIT_MAX, applied).await;
        let places = held.ok()?.expect("this semaphore is never closed");
        Some(HeldAppends { _places: places })
    }

    /// Refuses what is still queued, as not appended: nothing proposes any more.
    pub(super) fn refuse_queued(&self) {
        let waiting = std::mem::take(&mut self.shared.queue.lock().waiting);
        refuse(waiting, &WriteError::Draining, &self.shared.metrics);
    }

    /// Proposes until [`Self::close`] is called and the queue is empty.
    pub(super) async fn run(self, parts: ProposerParts) {
        while self.something_waits().await {
            // Whoever holds all places must not wait for an idle proposer.
            let slot = self.next_slot(&parts.raft).await;
            let batch = self.next_batch();
            if !batch.is_empty() {
                self.propose(&parts, batch, slot).await;
            }
        }
        let _ = self.shared.in_flight.acquire_many(ALL_PLACES).await;
        self.shared.drained.send_replace(true);
    }

    /// Waits for a place among the entries in flight.
    ///
    /// A leader that is cut off with all places taken gets none back: openraft
    /// answers those entries once it hears of another leader. Meanwhile what is
    /// queued is refused as not appended, so that callers can go elsewhere.
    async fn next_slot(&self, raft: &Raft) -> OwnedSemaphorePermit {
        loop {
            let slot = self.shared.in_flight.clone().acquire_owned();
            match tokio::time::timeout(limits::QUORUM_CHECK_INTERVAL, slot).await {
                Ok(slot) => return slot.expect("this semaphore is never closed"),
                Err(_) if has_quorum(raft) => {}
                Err(_) => {
                    let waiting = std::mem::take(&mut self.shared.queue.lock().waiting);
                    refuse(waiting, &WriteError::NoLeader, &self.shared.metrics);
                }
            }
        }
    }

    /// Waits for a command; `false` once closed and empty.
    async fn something_waits(&self) -> bool {
        loop {
            let wake = self.shared.wake.notified();
            {
                let queue = self.shared.queue.lock();
                if !queue.waiting.is_empty() || queue.closed {
                    return !queue.waiting.is_empty();
                }
            }
            wake.await;
        }
    }

    /// As many waiting commands as fit into one entry; none when they were
    /// refused meanwhile.
    fn next_batch(&self) -> Vec<Submission> {
        let mut queue = self.shared.queue.lock();
        let count = entry_fill(&queue.waiting);
        let batch = queue.waiting.drain(..count).collect();
        self.shared
            .metrics
            .proposer
            .queue_batches
            .set(queue.waiting.len() as u64);
        batch
    }

    async fn propose(
        &self,
        parts: &ProposerParts,
        batch: Vec<Submission>,
        slot: OwnedSemaphorePermit,
    ) {
        let mut builder = EntryBuilder::new(parts.clock.stamp_ms(), parts.replica.digest_check());
        for submission in &batch {
            builder.push(&submission.command);
        }
        let metrics = &self.shared.metrics.proposer;
        if let Some(oldest) = batch.first() {
            metrics.queue_seconds.observe(oldest.submitted.elapsed());
        }
        metrics.entry_bytes.observe(builder.len_bytes());
        metrics
            .entry_events
            .observe(usize::try_from(builder.events()).unwrap_or(usize::MAX));
        metrics.entry_batches.observe(batch.len());
        let (responder, committed, applied) = ProgressResponder::<TypeConfig, _>::new();
        let proposed = Instant::now();
        let written = parts
            .raft
            .client_write_ff(EntryData(builder.finish()), Some(responder))
            .await;
        if let Err(fatal) = written {
            tracing::debug!(%fatal, "a proposal met a stopped Raft");
            refuse(batch, &WriteError::NodeFailed, &self.shared.metrics);
            return;
        }
        let metrics = self.shared.metrics.clone();
        let replica = parts.replica.clone();
        tokio::spawn(async move {
            if committed.await.is_ok() {
                metrics.proposer.commit_seconds.observe(proposed.elapsed());
            }
            let result = applied.await;
            drop(slot);
            match result {
                Ok(Ok(response)) => {
                    answer(batch, &response.log_id, response.data, &replica, &metrics).await;
                }
                Ok(Err(error)) => refuse(batch, &write_error(error), &metrics),
                // Raft dropped the responder: it is gone.
                Err(_) => refuse(batch, &WriteError::NodeFailed, &metrics),
            }
        });
    }
}

/// Whether a quorum has acknowledged this leader lately.
fn has_quorum(raft: &Raft) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics
        .last_quorum_acked
        .is_some_and(|at| at.elapsed() < limits::QUORUM_SILENCE_MAX)
}

fn budget_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(limits::IN_FLIGHT_BYTES_PER_APPEND_MIN) + 1)
        .expect("a command is at most a few MiB")
}

/// How many of the waiting commands, from the front, make the next entry: an
/// over-large one goes alone.
fn entry_fill(waiting: &VecDeque<Submission>) -> usize {
    let mut bytes = 0;
    let mut events = 0;
    let mut count = 0;
    for submission in waiting {
        bytes += submission.command.bytes().len();
        events += u64::from(submission.command.events());
        if count > 0
            && (bytes > limits::ENTRY_BYTES_TARGET || events > limits::ENTRY_EVENTS_TARGET as u64)
        {
            break;
        }
        count += 1;
    }
    count
}

async fn answer(
    batch: Vec<Submission>,
    log_id: &LogId,
    response: Response,
    replica: &Arc<Replica>,
    metrics: &PartitionMetrics,
) {
    let Response(Some(applied)) = response else {
        unreachable!("a normal entry is answered by the machine");
    };
    debug_assert_eq!(batch.len(), applied.results.len());
    let time_ms = applied.time_ms;
    let tell = |submission: Submission, result| {
        metrics
            .proposer
            .append_seconds
            .observe(submission.submitted.elapsed());
        let committed = Committed {
            result,
            log_index: log_id.index,
            time_ms,
        };
        // A caller that went away does not want to know.
        let _ = submission.answer.send(Ok(committed));
        drop(submission.budget);
    };
    let mut to_look_up = Vec::new();
    for (submission, result) in batch.into_iter().zip(applied.results) {
        metrics.proposal(kind_of(&result)).inc();
        match result {
            CommandResult::Batch(dropped @ BatchResult::DuplicateDropped { .. }) => {
                to_look_up.push((submission, dropped));
            }
            result => tell(submission, result),
        }
    }
    // What has to be read from the disk keeps nobody else waiting.
    for (submission, mut dropped) in to_look_up {
        tell_from_the_log(&mut dropped, &submission.command, replica).await;
        tell(submission, CommandResult::Batch(dropped));
    }
}

fn kind_of(result: &CommandResult) -> ProposalResult {
    match result {
        CommandResult::Batch(BatchResult::Applied(_))
        | CommandResult::SessionOpened { .. }
        | CommandResult::Level(_) => ProposalResult::Applied,
        CommandResult::Batch(BatchResult::Duplicate(_) | BatchResult::DuplicateDropped { .. }) => {
            ProposalResult::Duplicate
        }
        CommandResult::Batch(BatchResult::Refused(_)) | CommandResult::SessionRefused(_) => {
            ProposalResult::Refused
        }
    }
}

fn refuse(
    batch: impl IntoIterator<Item = Submission>,
    error: &WriteError,
    metrics: &PartitionMetrics,
) {
    let result = if error.not_applied() {
        ProposalResult::NotLeader
    } else {
        ProposalResult::Unknown
    };
    for submission in batch {
        metrics.proposal(result).inc();
        let _ = submission.answer.send(Err(error.clone()));
    }
}

fn write_error(error: ClientWriteError<TypeConfig>) -> WriteError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => match forward.leader_id {
            Some(leader) => WriteError::NotLeader {
                leader,
                node: forward.leader_node,
            },
            None => WriteError::NoLeader,
        },
        // The entry may have reached others before it was discarded here.
        _ => WriteError::LeadershipLost,
    }
}
