//! Appending in a closed or an open loop, over any number of sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use huntlog_client::{Appended, Client, Producer, Ticket};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::LoadArguments;
use super::payload::Payloads;
use super::recorder::{Recorder, Window};
use super::schedule::Schedule;
use crate::failure::Failure;

/// Sessions opened at once.
const OPENINGS: usize = 256;

/// After a failure the library has already waited and tried again; this keeps
/// callers whose session is beyond help from spinning.
pub const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How long after its end an open loop may go on handing over what was due
/// before: what a cluster that stalled at the end took in later than it should.
const OVERTIME: Duration = Duration::from_secs(10);

/// The sessions of a load.
#[derive(Debug)]
pub struct Load {
    pub producers: Arc<[Producer]>,
    arguments: LoadArguments,
}

/// One run of a load.
pub struct LoadRun {
    pub origin: Instant,
    pub window: Window,
    pub payloads: Arc<Payloads>,
    pub recorder: Arc<Recorder>,
}

impl Load {
    /// Opens the sessions, named after `name`.
    pub async fn open(
        client: &Client,
        name: &str,
        arguments: &LoadArguments,
    ) -> Result<Self, Failure> {
        let openings = (0..arguments.sessions).map(|session| {
            let name = format!("{name}-{session}");
            async move { client.session(&name).await }
        });
        let producers: Vec<Producer> = futures::stream::iter(openings)
            .buffered(OPENINGS)
            .try_collect()
            .await?;
        Ok(Self {
            producers: producers.into(),
            arguments: arguments.clone(),
        })
    }

    /// Appends from the run's origin to the end of its window, and waits for
    /// the last answers.
    pub async fn run(&self, run: LoadRun) -> Result<(), Failure> {
        match self.arguments.rate {
            Some(rate) => {
                let schedule = Schedule::new(run.origin, rate, self.arguments.batch);
                self.run_open(Arc::new(run), schedule).await
            }
            None => self.run_closed(Arc::new(run)).await,
        }
    }

    async fn run_closed(&self, run: Arc<LoadRun>) -> Result<(), Failure> {
        let mut callers = JoinSet::new();
        for session in 0..self.producers.len() {
            for _ in 0..self.arguments.in_flight() {
                let caller = call_in_turn(Arc::clone(&self.producers), session, Arc::clone(&run));
                callers.spawn(caller);
            }
        }
        join_all(callers).await
    }

    async fn run_open(&self, run: Arc<LoadRun>, schedule: Schedule) -> Result<(), Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        // The thread ends with this call, also when it is interrupted.
        let _stop = StopOnDrop(Arc::clone(&stop));
        let producers = Arc::clone(&self.producers);
        let runtime = Handle::current();
        let submitting = tokio::task::spawn_blocking(move || {
            submit_on_time(&runtime, &producers, &run, schedule, &stop)
        });
        let answers = submitting.await.map_err(panicked)?;
        join_all(answers).await
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn panicked(error: tokio::task::JoinError) -> Failure {
    Failure::Other(format!("a part of the benchmark failed: {error}"))
}

async fn join_all(mut tasks: JoinSet<()>) -> Result<(), Failure> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(panicked)?;
    }
    Ok(())
}

/// One caller of a closed loop: the next request when the last is answered.
async fn call_in_turn(producers: Arc<[Producer]>, session: usize, run: Arc<LoadRun>) {
    let producer = &producers[session];
    let mut request = session as u64;
    loop {
        let began = Instant::now();
        if began >= run.window.end {
            return;
        }
        let events = run.payloads.batch(request, session, began - run.origin);
        request += 1;
        let result = match producer.append_batch(events).await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        run.recorder.answered(session, began, &result);
        if result.is_err() {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// A request that is submitted, and when it was due.
type Submitted = (Instant, Ticket<Appended>);

/// The thread of an open loop: hands each request over when it is due, to the
/// sessions in turn, and leaves the waiting to a task of each session.
fn submit_on_time(
    runtime: &Handle,
    producers: &Arc<[Producer]>,
    run: &Arc<LoadRun>,
    schedule: Schedule,
    stop: &AtomicBool,
) -> JoinSet<()> {
    let mut waiting = JoinSet::new();
    let submitted: Vec<_> = (0..producers.len())
        .map(|session| {
            let (sender, submitted) = mpsc::unbounded_channel();
            waiting.spawn_on(await_in_turn(submitted, session, Arc::clone(run)), runtime);
            sender
        })
        .collect();
    for request in 0.. {
        let due = schedule.due(request);
        if due >= run.window.end || stop.load(Ordering::Relaxed) {
            break;
        }
        Schedule::wait(due);
        if Instant::now() > run.window.end + OVERTIME {
            let left = (request..).take_while(|r| schedule.due(*r) < run.window.end);
            run.recorder.unsent(left.count() as u64);
            break;
        }
        let session = usize::try_from(request % producers.len() as u64).expect("below a length");
        let events = run.payloads.batch(request, session, due - run.origin);
        // Waits while the library's buffer is full; the next are then late, and
        // their times say so.
        match runtime.block_on(producers[session].append_batch(events)) {
            // The task only ends after this, unless it has failed, which shows when
            // it is joined.
            Ok(ticket) => drop(submitted[session].send((due, ticket))),
            Err(error) => run.recorder.answered(session, due, &Err(error)),
        }
    }
    waiting
}

/// Waits for the answers of a session in the order of its requests, in which they
/// come: a task for each request would cost more than the request.
async fn await_in_turn(
    mut submitted: mpsc::UnboundedReceiver<Submitted>,
    session: usize,
    run: Arc<LoadRun>,
) {
    while let Some((due, ticket)) = submitted.recv().await {
        run.recorder.answered(session, due, &ticket.await);
    }
}
