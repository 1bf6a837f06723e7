//! Submitting planned batches under fixed numbers, with everything that is
//! observed and written down about it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::{AppendError, Appended, Client, Disposition, Producer, proto};
use serde_json::Value;

use crate::args::RunArguments;
use crate::failure::Failure;
use crate::ledger::{AcknowledgedBatch, LedgerWriter, Record, fingerprint};
use crate::monitor::{Acknowledgement, Monitor};
use crate::pace::Pace;

/// Batches handed to the client library and not answered yet, for each
/// session: more than it sends at once, so that it never runs dry.
const OUTSTANDING: usize = 64;

/// A batch to be submitted, and what its planner wants to know it by.
#[derive(Debug)]
pub struct Batch<T> {
    /// Its fixed number.
    pub sequence: u64,
    /// What it says.
    pub events: Vec<proto::Event>,
    /// On which condition.
    pub expected: Vec<proto::ExpectedRevision>,
    /// The planner's own.
    pub tag: T,
}

/// A batch on its way.
struct Submitted<T> {
    sequence: u64,
    events: usize,
    fingerprints: Vec<String>,
    submitted: Instant,
    tag: T,
}

/// One run of `replay` or `play`.
pub struct Run {
    hunt: String,
    monitor: Mutex<Monitor>,
    ledger: Option<Mutex<LedgerWriter>>,
    pace: Pace,
}

impl Run {
    /// A run of so many events.
    pub fn new(
        client: &Client,
        hunt: &str,
        total_events: u64,
        arguments: &RunArguments,
        what: &'static str,
    ) -> Result<Self, Failure> {
        let ledger = arguments
            .ledger
            .as_deref()
            .map(|path| LedgerWriter::create(path, hunt, client.partition()))
            .transpose()?;
        Ok(Self {
            hunt: hunt.to_owned(),
            monitor: Mutex::new(Monitor::new(total_events, arguments, what)),
            ledger: ledger.map(Mutex::new),
            pace: Pace::new(arguments),
        })
    }

    /// Submits `batches` in order and calls `done` with each acknowledgement.
    /// Ends at the first batch that fails, after waiting for those before it.
    pub async fn drive<T>(
        &self,
        producer: &Producer,
        batches: impl IntoIterator<Item = Batch<T>>,
        mut done: impl FnMut(&T, &Appended) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut batches = batches.into_iter().peekable();
        let mut next = batches.next();
        let mut outstanding = FuturesOrdered::new();
        let mut failure = None;
        loop {
            let may_submit = failure.is_none() && outstanding.len() < OUTSTANDING;
            let next_events = match &next {
                Some(batch) if may_submit => batch.events.len(),
                _ => 0,
            };
            if next_events == 0 && outstanding.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            let is_last = batches.peek().is_none();
            tokio::select! {
                Some((batch, result)) = outstanding.next(), if !outstanding.is_empty() => {
                    let judged = self.settle(producer, &batch, result, &mut done);
                    if let Err(error) = judged {
                        failure.get_or_insert(error);
                    }
                }
                () = self.pace.turn(next_events, is_last), if next_events > 0 => {
                    let batch = next.take().expect("it has events");
                    next = batches.next();
                    let (batch, ticket) = self.submit(producer, batch).await?;
                    outstanding.push_back(async move { (batch, ticket.await) });
                }
            }
        }
    }

    async fn submit<T>(
        &self,
        producer: &Producer,
        batch: Batch<T>,
    ) -> Result<(Submitted<T>, huntlog_client::Ticket<Appended>), Failure> {
        let submitted = Submitted {
            sequence: batch.sequence,
            events: batch.events.len(),
            fingerprints: self.fingerprints(&batch.events),
            submitted: Instant::now(),
            tag: batch.tag,
        };
        lock(&self.monitor).sent(submitted.events as u64);
        let ticket = producer
            .append_at(batch.sequence, batch.events, batch.expected)
            .await?;
        Ok((submitted, ticket))
    }

    fn fingerprints(&self, events: &[proto::Event]) -> Vec<String> {
        match &self.ledger {
            Some(_) => events.iter().map(fingerprint).collect(),
            None => Vec::new(),
        }
    }

    fn settle<T>(
        &self,
        producer: &Producer,
        batch: &Submitted<T>,
        result: Result<Appended, AppendError>,
        done: &mut impl FnMut(&T, &Appended) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => return Err(self.failed(producer, batch.sequence, error)?),
        };
        let acked = Instant::now();
        let outcomes = appended.outcomes.as_deref().unwrap_or_default();
        let rejected = outcomes.iter().filter(|o| offset(o).is_none()).count();
        let mut monitor = lock(&self.monitor);
        let signalled = monitor.acknowledged(&Acknowledgement {
            events: batch.events as u64,
            rejected: rejected as u64,
            attempts: appended.attempts,
            duplicate: appended.duplicate,
            submitted: batch.submitted,
            sent: appended.sent_at,
            acked,
        })?;
        let (sent_ns, acked_ns) = (monitor.wall_ns(appended.sent_at), monitor.wall_ns(acked));
        drop(monitor);
        if signalled {
            self.pace.signalled();
        }
        self.record(|| {
            let prints = batch.fingerprints.iter();
            Record::Batch(AcknowledgedBatch {
                session: producer.session().to_owned(),
                sequence: batch.sequence,
                log_index: appended.log_index,
                events: batch.events,
                accepted: outcomes
                    .iter()
                    .zip(prints)
                    .filter_map(|(outcome, print)| Some((offset(outcome)?, print.clone())))
                    .collect(),
                outcomes_known: appended.outcomes.is_some(),
                duplicate: appended.duplicate,
                attempts: appended.attempts,
                sent_ns,
                acked_ns,
            })
        })?;
        done(&batch.tag, &appended)
    }

    fn failed(
        &self,
        producer: &Producer,
        sequence: u64,
        error: AppendError,
    ) -> Result<Failure, Failure> {
        let session = producer.session();
        self.record(|| Record::Failed {
            session: session.to_owned(),
            sequence,
            not_applied: error.disposition() == Disposition::NotApplied,
        })?;
        let context = format!("hunt {}, session {session}, batch {sequence}", self.hunt);
        Ok(Failure::from(error).during(&context))
    }

    /// Counts and writes down a batch that an earlier process got applied, of
    /// which so many events count.
    pub fn recovered(&self, counted: u64, batch: AcknowledgedBatch) -> Result<(), Failure> {
        if lock(&self.monitor).recovered(counted)? {
            self.pace.signalled();
        }
        self.record(|| Record::Batch(batch))
    }

    fn record(&self, record: impl FnOnce() -> Record) -> Result<(), Failure> {
        match &self.ledger {
            Some(ledger) => lock(ledger).write(&record()),
            None => Ok(()),
        }
    }

    /// Ends the run and sums it up.
    pub fn finish(self) -> Result<Value, Failure> {
        let monitor = self.monitor.into_inner();
        monitor.unwrap_or_else(PoisonError::into_inner).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an accepted event is.
pub fn offset(outcome: &proto::EventOutcome) -> Option<u64> {
    match outcome.outcome.as_ref()? {
        Outcome::Accepted(accepted) => Some(accepted.offset),
        Outcome::Rejected(_) => None,
    }
}

/// A session name that follows from what is to be submitted, so that the same
/// command finds its session again after a crash, and another never does.
pub fn session_name(what: &str, hunt: &str, fingerprint: &str, index: usize) -> String {
    let mut end = hunt.len().min(64);
    while !hunt.is_char_boundary(end) {
        end -= 1;
    }
    format!("{what}:{}:{fingerprint}:{index}", &hunt[..end])
}

/// The run's counts and times, for people.
pub fn summary_lines(summary: &Value) -> Vec<String> {
    let events = &summary["events"];
    let mut lines = vec![
        format!(
            "events: {} sent, {} acknowledged, {} retried, {} answered as duplicates, {} rejected by the rules",
            events["sent"],
            events["acknowledged"],
            events["retried"],
            events["duplicates"],
            events["rejected"],
        ),
        format!(
            "{} batches in {} ms, {} events/s; acknowledged after p50 {} us, p99 {} us, max {} us",
            summary["batches"],
            summary["elapsed_ms"],
            summary["events_per_second"],
            summary["ack_latency_us"]["p50"],
            summary["ack_latency_us"]["p99"],
            summary["ack_latency_us"]["max"],
        ),
    ];
    if events["recovered"] != 0 {
        let recovered = &events["recovered"];
        lines.push(format!(
            "{recovered} events were applied by an earlier run already"
        ));
    }
    if let Some(ms) = summary["longest_gap"]["ms"].as_u64() {
        lines.push(format!("longest time without an acknowledgement: {ms} ms"));
    }
    match summary["mark"]["to_next_ack_ms"].as_u64() {
        Some(ms) => lines.push(format!(
            "from the mark to the next acknowledged append: {ms} ms"
        )),
        None if summary["mark"].is_object() => {
            lines.push("nothing was acknowledged that was sent after the mark".to_owned());
        }
        None => {}
    }
    lines
}
