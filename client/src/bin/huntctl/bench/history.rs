//! Benchmarks of what is there already: reading it, and starting with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use huntlog_client::{Client, proto};

use super::Target;
use super::args::{HistoryArguments, ReadArguments, RestartArguments, most_in_a_batch};
use super::figures::{Figures, median};
use super::observe::Usages;
use super::payload::Payloads;
use super::readers::{Range, read_all};
use super::report::{Report, RunReport};
use crate::failure::Failure;
use crate::progress;

/// How a cluster is filled: large batches, many under way.
const FILL_BATCH: u16 = 512;
const FILL_SESSIONS: usize = 2;
const FILL_IN_FLIGHT: usize = 8;

/// Reads a cluster's history, after filling a spawned one.
pub async fn read(target: &Target, bench: &ReadArguments) -> Result<Report, Failure> {
    let from = if target.spawned.is_some() {
        fill(target, &bench.history).await?;
        0
    } else {
        bench.from
    };
    let range = Range {
        from,
        events: bench.history.events,
        stale: bench.stale,
    };
    let clients = (0..bench.readers).map(|_| target.client());
    let clients: Vec<Client> = clients.collect::<Result<_, _>>()?;
    must_hold(&clients[0], range).await?;
    let mut report = Report::default();
    for _ in 0..bench.common.runs {
        let before = target.observer.observe().await;
        let total = range.events * u64::from(bench.readers);
        let bar = progress::bar(total, "read");
        let began = Instant::now();
        let events = read_all(&clients, range, &bar).await?;
        let took = began.elapsed();
        bar.finish_and_clear();
        let after = target.observer.observe().await;
        let mut figures = Figures::from([("read", events as f64 / took.as_secs_f64())]);
        let usages = Usages {
            before: &before,
            after: &after,
            events,
        };
        usages.add_to(&mut figures);
        report.runs.push(RunReport {
            figures,
            nodes: usages.nodes(&target.observer),
            ..RunReport::default()
        });
    }
    Ok(report)
}

/// Refuses to read more than there is.
async fn must_hold(client: &Client, range: Range) -> Result<(), Failure> {
    let mut reader = client.read(proto::ReadRequest {
        from_offset: range.from,
        max_events: 1,
        ..Default::default()
    });
    reader.next_page().await?;
    let end = reader.end_offset().unwrap_or_default();
    if end < range.from + range.events {
        return Err(Failure::Usage(format!(
            "the log ends at offset {end}; read fewer --events, or append some first"
        )));
    }
    Ok(())
}

/// Kills filled nodes and waits until each is ready again.
pub async fn restart(target: &mut Target, bench: &RestartArguments) -> Result<Report, Failure> {
    let began = Instant::now();
    let filled = fill(target, &bench.history).await?;
    let rate = filled as f64 / began.elapsed().as_secs_f64();
    let before = target.observer.observe().await;
    let cluster = target.spawned.as_mut().expect("restart needs --spawn");
    let nodes = cluster.len();
    let bar = progress::bar(bench.common.runs.into(), "restart");
    let mut times_ms = Vec::new();
    for number in 0..usize::from(bench.common.runs) {
        let position = number % nodes;
        cluster.kill(position)?;
        cluster.restart(position)?;
        times_ms.push(cluster.wait_ready().await?.as_secs_f64() * 1e3);
        bar.inc(1);
    }
    bar.finish_and_clear();
    times_ms.sort_by(f64::total_cmp);
    let mut figures = Figures::from([
        ("filled", rate),
        ("ready_median", median(&times_ms)),
        ("ready_max", times_ms[times_ms.len() - 1]),
    ]);
    figures.extend(before.largest_log().map(|bytes| ("log", bytes)));
    figures.extend(before.largest_memory().map(|bytes| ("memory", bytes)));
    Ok(Report {
        runs: vec![RunReport {
            figures,
            ..RunReport::default()
        }],
        verified: None,
    })
}

/// Appends at least so many events, as fast as possible. The number.
async fn fill(target: &Target, history: &HistoryArguments) -> Result<u64, Failure> {
    let (hunts, _) = target.create_hunts(1, 0).await?;
    let client = target.client()?;
    let batch = most_in_a_batch(history.event_bytes).min(FILL_BATCH);
    let payloads = Payloads::new(hunts, 0, batch, history.event_bytes, None);
    let requests = history.events.div_ceil(batch.into());
    let next = AtomicU64::new(0);
    let bar = progress::bar(requests * u64::from(batch), "fill");
    let mut producers = Vec::new();
    for session in 0..FILL_SESSIONS {
        let name = format!("{}-fill-{session}", target.name);
        producers.push(Arc::new(client.session(&name).await?));
    }
    let callers = (0..FILL_SESSIONS * FILL_IN_FLIGHT).map(async |caller| {
        let session = caller % FILL_SESSIONS;
        loop {
            let request = next.fetch_add(1, Ordering::Relaxed);
            if request >= requests {
                return Ok::<_, Failure>(());
            }
            let events = payloads.batch(request, session, Duration::ZERO);
            producers[session].append_batch(events).await?.await?;
            bar.inc(batch.into());
        }
    });
    try_join_all(callers).await?;
    bar.finish_and_clear();
    Ok(requests * u64::from(batch))
}
