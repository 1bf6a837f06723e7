//! Appending, with or without subscribers and readers beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::try_join;
use huntlog_client::{Client, Producer};

use super::Target;
use super::args::LoadArguments;
use super::check::Acknowledged;
use super::figures::Figures;
use super::load::{Load, LoadRun};
use super::observe::{Observation, Usages};
use super::payload::Payloads;
use super::readers::read_over_and_over;
use super::recorder::{Interval, Recorder, Window};
use super::report::{Report, RunReport};
use super::subscribers::Subscribers;
use crate::failure::Failure;
use crate::progress;

/// Between two steps of the progress bar, and of the timeline.
const STEP: Duration = Duration::from_secs(1);

pub async fn run(
    target: &Target,
    runs: u16,
    arguments: &LoadArguments,
    subscribers: u16,
    readers: u16,
) -> Result<Report, Failure> {
    let (hunts, from_offset) = target
        .create_hunts(arguments.hunts, arguments.players)
        .await?;
    let load = Load::open(&target.client()?, &target.name, arguments).await?;
    let names = load
        .producers
        .iter()
        .map(|p: &Producer| p.session().to_owned());
    let mut acknowledged = Acknowledged::new(names, arguments.batch, from_offset);
    let bench = UnderLoad {
        target,
        arguments,
        hunts,
        load,
        subscribers,
        readers,
    };
    let mut report = Report::default();
    for number in 1..=runs {
        let run = bench.run(number, &mut acknowledged).await?;
        report.runs.push(run);
    }
    if arguments.verify {
        let found = acknowledged.compare(&target.client()?).await?;
        report.verified = Some(found);
    }
    Ok(report)
}

struct UnderLoad<'a> {
    target: &'a Target,
    arguments: &'a LoadArguments,
    hunts: Vec<String>,
    load: Load,
    subscribers: u16,
    readers: u16,
}

impl UnderLoad<'_> {
    async fn run(
        &self,
        number: u16,
        acknowledged: &mut Acknowledged,
    ) -> Result<RunReport, Failure> {
        let stamp = rand::random();
        let stamped = (self.subscribers > 0).then_some(stamp);
        let (batch, bytes) = (self.arguments.batch, self.arguments.event_bytes);
        let players = self.arguments.players;
        let payloads = Payloads::new(self.hunts.clone(), players, batch, bytes, stamped);
        let following = self.target.client()?;
        // Subscribers are in place before the first event is due.
        let origin = Instant::now() + self.subscribing_time();
        let start = origin + self.arguments.warm_up;
        let window = Window {
            start,
            end: start + self.arguments.duration,
        };
        let subscribers =
            Subscribers::start(self.subscribers, &following, stamp, origin, window).await?;
        sleep_until(origin).await;

        let recorder = Arc::new(Recorder::new(window, self.arguments.verify));
        let load = self.load.run(LoadRun {
            origin,
            window,
            payloads: Arc::new(payloads),
            recorder: Arc::clone(&recorder),
        });
        let clients = (0..self.readers).map(|_| self.target.client());
        let clients: Vec<Client> = clients.collect::<Result<_, _>>()?;
        let reading = clients
            .into_iter()
            .map(|client| read_over_and_over(client, window));
        let ((), (before, after, timeline), read) = try_join!(
            load,
            self.observe(number, window, &recorder),
            try_join_all(reading)
        )?;

        let recorder = Arc::into_inner(recorder).expect("all callers have ended");
        let mut tally = recorder.finish();
        let mut figures = Figures::new();
        tally.add_to(&mut figures, &window);
        if self.subscribers > 0 {
            subscribers
                .finish(tally.end_offset, &window, &mut figures)
                .await?;
        }
        if self.readers > 0 {
            let rate = read.iter().sum::<u64>() as f64 / window.duration().as_secs_f64();
            figures.insert("read", rate);
        }
        let usages = Usages {
            before: &before,
            after: &after,
            events: tally.events,
        };
        usages.add_to(&mut figures);
        let batches = tally.acknowledged.take().unwrap_or_default();
        acknowledged.add(batches, tally.end_offset);
        Ok(RunReport {
            figures,
            errors: tally.errors,
            nodes: usages.nodes(&self.target.observer),
            timeline,
        })
    }

    /// A subscription begins with a node's first sign of life, which comes at
    /// least every second.
    fn subscribing_time(&self) -> Duration {
        if self.subscribers > 0 {
            Duration::from_secs(2)
        } else {
            Duration::ZERO
        }
    }

    async fn observe(
        &self,
        number: u16,
        window: Window,
        recorder: &Recorder,
    ) -> Result<(Observation, Observation, Vec<Interval>), Failure> {
        sleep_until(window.start).await;
        let before = self.target.observer.observe().await;
        let bar = progress::bar(window.duration().as_secs(), "bench");
        let mut timeline = Vec::new();
        let mut since = Instant::now();
        recorder.end_interval(since);
        let mut next = window.start + STEP;
        while next < window.end + STEP {
            sleep_until(next.min(window.end)).await;
            next += STEP;
            bar.set_position(window.start.elapsed().as_secs());
            bar.set_message(format!("run {number}, {} events", recorder.events()));
            if self.arguments.timeline {
                timeline.push(recorder.end_interval(since));
                since = Instant::now();
            }
        }
        bar.finish_and_clear();
        let after = self.target.observer.observe().await;
        Ok((before, after, timeline))
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}
