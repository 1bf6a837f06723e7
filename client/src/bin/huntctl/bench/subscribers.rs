//! Subscribers of a run, and when they had each event.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use hdrhistogram::Histogram;
use huntlog_client::{Client, Start, Subscription};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::figures::{Figures, add_latencies};
use super::payload::due_of;
use super::recorder::{Window, new_histogram, record};
use crate::failure::Failure;

/// How long after the last acknowledgement a subscriber may still lack events.
const PATIENCE: Duration = Duration::from_secs(10);

/// Subscribers that receive everything from before the run on.
pub struct Subscribers {
    /// The offset that each is to reach; 0 until it is known.
    target: watch::Sender<u64>,
    tasks: Vec<JoinHandle<Result<Received, Failure>>>,
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Received {
    times_us: Histogram<u64>,
    /// Received within the window.
    events: u64,
    undelivered: u64,
}

impl Subscribers {
    /// Starts so many, and returns once each is known to receive what comes.
    pub async fn start(
        count: u16,
        client: &Client,
        run: u64,
        origin: Instant,
        window: Window,
    ) -> Result<Self, Failure> {
        let (target, _) = watch::channel(0);
        let starting = (0..count).map(async |_| {
            let mut subscription = client.subscribe(Start::End, None);
            subscription.next_page().await?;
            Ok::<_, Failure>(subscription)
        });
        let tasks = try_join_all(starting).await?.into_iter();
        let tasks = tasks.map(|subscription| {
            let target = target.subscribe();
            tokio::spawn(receive(subscription, run, origin, window, target))
        });
        Ok(Self {
            tasks: tasks.collect(),
            target,
        })
    }

    /// Waits until each has everything below `end_offset`, and sums up.
    pub async fn finish(
        mut self,
        end_offset: u64,
        window: &Window,
        figures: &mut Figures,
    ) -> Result<u64, Failure> {
        self.target.send_replace(end_offset);
        let mut times_us = new_histogram();
        let (mut events, mut undelivered) = (0, 0);
        for task in std::mem::take(&mut self.tasks) {
            let received = task
                .await
                .map_err(|error| Failure::Other(format!("a subscriber failed: {error}")))??;
            times_us
                .add(received.times_us)
                .expect("it grows with what is added");
            events += received.events;
            undelivered += received.undelivered;
        }
        let rate = events as f64 / window.duration().as_secs_f64();
        figures.extend([("delivered", rate), ("undelivered", undelivered as f64)]);
        let names = [
            "delivery_mean",
            "delivery_p50",
            "delivery_p90",
            "delivery_p99",
            "delivery_p99.9",
            "delivery_max",
        ];
        add_latencies(figures, names, &times_us);
        Ok(events)
    }
}

async fn receive(
    mut subscription: Subscription,
    run: u64,
    origin: Instant,
    window: Window,
    mut target: watch::Receiver<u64>,
) -> Result<Received, Failure> {
    let mut received = Received {
        times_us: new_histogram(),
        events: 0,
        undelivered: 0,
    };
    let mut deadline = None;
    loop {
        let reached = subscription.next_offset().unwrap_or_default();
        let wanted = *target.borrow_and_update();
        if wanted > 0 {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if reached >= wanted || Instant::now() >= deadline {
                received.undelivered = wanted.saturating_sub(reached);
                return Ok(received);
            }
        }
        let page = tokio::select! {
            page = subscription.next_page() => page?,
            Ok(()) = target.changed() => continue,
        };
        let now = Instant::now();
        if window.contains(now) {
            received.events += page.len() as u64;
        }
        for event in &page {
            let due = due_of(run, event).map(|due| origin + due);
            if let Some(due) = due.filter(|due| window.contains(*due)) {
                record(&mut received.times_us, now.saturating_duration_since(due));
            }
        }
    }
}
