//! Killing leaders under a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use huntlog_client::{ClientOptions, Producer};
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Target;
use super::args::FailoverArguments;
use super::check::{Acknowledged, Findings};
use super::figures::{Figures, median};
use super::load::AFTER_FAILURE;
use super::payload::Payloads;
use super::recorder::{Recorder, Window};
use super::report::{Report, RunReport};
use crate::command::cluster::only;
use crate::failure::Failure;
use crate::progress;

/// How long the next acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between all being well and the next kill: long enough to write some, and of
/// no fixed length, so that kills meet the heartbeats at any phase.
const BETWEEN_MS: std::ops::Range<u64> = 200..700;

/// A day: the writer has no window.
const WINDOW: Duration = Duration::from_hours(24);

/// Waits for the first acknowledgement of something sent after a kill: what
/// was sent before may have been answered already.
#[derive(Default)]
struct Watch(Mutex<Option<(Instant, oneshot::Sender<Instant>)>>);

impl Watch {
    fn arm(&self, killed: Instant) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((killed, sender));
        receiver
    }

    fn acknowledged(&self, sent: Instant) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, done)) = armed.take_if(|(killed, _)| sent > *killed) {
            let _ = done.send(Instant::now());
        }
    }
}

struct Writer {
    producer: Producer,
    payloads: Payloads,
    recorder: Recorder,
    watch: Watch,
    stop: AtomicBool,
}

impl Writer {
    /// One after the other, until told to stop.
    async fn write(self: Arc<Self>) {
        let mut request = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let events = self.payloads.batch(request, 0, Duration::ZERO);
            request += 1;
            let result = match self.producer.append_batch(events).await {
                Ok(ticket) => ticket.await,
                Err(error) => Err(error),
            };
            self.recorder.answered(0, began, &result);
            match result {
                Ok(appended) => self.watch.acknowledged(appended.sent_at),
                Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
    }
}

pub async fn run(target: &mut Target, bench: &FailoverArguments) -> Result<Report, Failure> {
    let (hunts, from_offset) = target.create_hunts(1, 0).await?;
    let producer = target.client()?.session(&target.name).await?;
    let start = Instant::now();
    let window = Window {
        start,
        end: start + WINDOW,
    };
    let session = producer.session().to_owned();
    let writer = Arc::new(Writer {
        producer,
        payloads: Payloads::new(hunts, 0, bench.batch, bench.event_bytes, None),
        recorder: Recorder::new(window, true),
        watch: Watch::default(),
        stop: AtomicBool::new(false),
    });
    let mut writers = JoinSet::new();
    for _ in 0..bench.in_flight {
        writers.spawn(Arc::clone(&writer).write());
    }
    let bar = progress::bar(bench.kills.into(), "failover");
    let mut times_ms = Vec::new();
    for _ in 0..bench.kills {
        times_ms.push(fail_over(target, &writer.watch).await?.as_secs_f64() * 1e3);
        bar.inc(1);
    }
    bar.finish_and_clear();
    writer.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.map_err(|error| Failure::Other(format!("a writer failed: {error}")))?;
    }
    let writer = Arc::into_inner(writer).expect("all writers have ended");
    let mut tally = writer.recorder.finish();
    let mut acknowledged = Acknowledged::new([session], bench.batch, from_offset);
    let batches = tally.acknowledged.take().unwrap_or_default();
    acknowledged.add(batches, tally.end_offset);
    let found = compare_all(target, &mut acknowledged).await?;

    let mut figures = Figures::new();
    tally.add_to(&mut figures, &window);
    times_ms.sort_by(f64::total_cmp);
    figures.extend([
        ("kills", f64::from(bench.kills)),
        ("acknowledged", tally.events as f64),
        ("recovery_median", median(&times_ms)),
        ("recovery_max", times_ms[times_ms.len() - 1]),
        ("lost", found.lost as f64),
        ("duplicated", found.duplicated as f64),
    ]);
    Ok(Report {
        runs: vec![RunReport {
            figures,
            errors: tally.errors,
            ..RunReport::default()
        }],
        verified: None,
    })
}

/// Kills the leader, and starts it again once the others go on without it.
/// The time from the kill to the next acknowledgement.
async fn fail_over(target: &mut Target, watch: &Watch) -> Result<Duration, Failure> {
    let options = ClientOptions::clone(&target.options);
    let cluster = target.spawned.as_mut().expect("failover needs --spawn");
    cluster.wait_ready().await?;
    let leader = cluster.leader(&options).await?;
    let pause = rand::rng().random_range(BETWEEN_MS);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let before = Instant::now();
    cluster.kill(leader)?;
    let next = watch.arm(Instant::now());
    let acknowledged = tokio::time::timeout(PATIENCE, next).await;
    let Ok(Ok(acknowledged)) = acknowledged else {
        let words = "nothing was acknowledged within 30 s after the leader was killed";
        return Err(Failure::Unavailable(words.to_owned()));
    };
    cluster.restart(leader)?;
    Ok(acknowledged - before)
}

/// What the nodes, each on its own, have of what was acknowledged.
async fn compare_all(
    target: &mut Target,
    acknowledged: &mut Acknowledged,
) -> Result<Findings, Failure> {
    let cluster = target.spawned.as_mut().expect("failover needs --spawn");
    cluster.wait_ready().await?;
    let mut all = Findings::default();
    for endpoint in cluster.endpoints() {
        let node = only(&endpoint, &target.options)?;
        let found = acknowledged.compare(&node).await?;
        all.events += found.events;
        all.lost += found.lost;
        all.duplicated += found.duplicated;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_after_the_kill_ends_the_outage() {
        let watch = Watch::default();
        let killed = Instant::now();
        let mut next = watch.arm(killed);
        watch.acknowledged(killed - Duration::from_millis(1));
        assert!(
            next.try_recv().is_err(),
            "it was on its way before the kill"
        );
        watch.acknowledged(killed + Duration::from_millis(1));
        assert!(next.try_recv().expect("answered") >= killed);
    }
}
