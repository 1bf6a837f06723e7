//! A new node is sent everything there is, by log and by snapshot, while load
//! goes on, and no node ever has more than a part of it in memory.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use huntlog_client::proto::Event;
use huntlog_client::{Appended, Client, ClientOptions, Producer, Ticket, event};
use huntlog_jepsen::{Cluster, Injection, binary, memory};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::failover::{Acknowledged, HUNT, Load, accepted_offset, open_hunt};
use crate::members::{ask, start_waiting, start_waiting_with, with_node};
use crate::support::{check_all_nodes, check_all_nodes_from, end_offset};

const MIB: u64 = 1 << 20;

// The bounds. None of them depends on how long the log is.

/// What a node may have in memory while its state is small.
const RESIDENT_BYTES_MAX: u64 = 300_000_000;
/// What sending a log or a snapshot may add to what a leader has in memory.
const SENDING_BYTES_MAX: u64 = 64 * MIB;
/// What who receives one may have in memory beyond what the leader has: as much
/// as a follower takes ahead of its disk.
const RECEIVING_BYTES_MAX: u64 = 32 * MIB;
/// What `inspect --verify` may have in memory.
const INSPECT_BYTES_MAX: u64 = 300_000_000;
/// From a node's start to its being ready, of a release build.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// The variable that says how much log is written.
const LOG_MIB: &str = "HUNTLOG_CATCH_UP_MIB";
/// Enough for a sender or a receiver without bounds to be found out.
const LOG_MIB_DEFAULT: u64 = 192;
/// The state that the snapshot is of, for each MiB of log: 4 GiB come with
/// almost as many players as a hunt can have.
const PLAYERS_PER_MIB: u64 = 240;
const SESSIONS_PER_MIB: u64 = 25;
/// What each node keeps when there is a snapshot to be sent: the least it can.
const RETENTION_BYTES: u64 = 128 * MIB;

/// No step takes longer, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(600);

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn say(line: &str) {
    println!("{line}");
}

/// How long something took that moved `bytes`.
fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
    let per_second = bytes as f64 / 1e6 / seconds;
    format!(
        "{} in {seconds:.1} s, {per_second:.0} MB/s",
        megabytes(bytes)
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style = "{prefix} {bar:40} {pos}/{len}, {eta} to go";
    ProgressBar::new(total)
        .with_style(ProgressStyle::with_template(style).expect("a template"))
        .with_prefix(what)
}

/// The size of the log in a data directory.
fn log_bytes(data_dir: &Path) -> u64 {
    fs::read_dir(data_dir.join("segments"))
        .expect("readable")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("readable"))
        .map(|segment| segment.len())
        .sum()
}

/// Says, and checks, what the nodes `ids` have had in memory at most.
fn check_peaks(cluster: &mut Cluster, ids: &[u64], when: &str) {
    for id in ids {
        let peak = cluster.node(*id).peak_bytes().expect("it runs");
        say(&format!("  node {id} {when}: {} at most", megabytes(peak)));
        assert!(peak <= RESIDENT_BYTES_MAX, "node {id} had {peak} bytes");
    }
}

fn client(cluster: &Cluster) -> Client {
    let options = ClientOptions {
        timeout: Duration::from_secs(120),
        ..ClientOptions::default()
    };
    Client::connect(cluster.endpoints(), options).expect("addresses")
}

fn positions(events: usize, payload_bytes: usize) -> Vec<Event> {
    vec![event::custom(HUNT, "", "position", vec![7; payload_bytes]); events]
}

/// A MiB: a few large events, or as many as a batch can have.
fn mebibyte(number: u64) -> Vec<Event> {
    match number % 8 {
        0 => positions(4096, 256),
        _ => positions(4, 256 << 10),
    }
}

/// Appends batches with one session, several on their way at a time.
struct Filler {
    producer: Producer,
    sent: VecDeque<Ticket<Appended>>,
    acknowledged: Acknowledged,
}

impl Filler {
    const WINDOW: usize = 4;

    async fn open(client: &Client, session: &str) -> Self {
        Self {
            producer: client.session(session).await.expect("a session"),
            sent: VecDeque::new(),
            acknowledged: Acknowledged::new(),
        }
    }

    async fn append(&mut self, events: Vec<Event>) {
        if self.sent.len() == Self::WINDOW {
            self.take_answer().await;
        }
        let ticket = self.producer.append_batch(events).await.expect("room");
        self.sent.push_back(ticket);
    }

    async fn take_answer(&mut self) {
        let ticket = self.sent.pop_front().expect("one was sent");
        let appended = ticket.await.expect("acknowledged");
        let outcomes = appended.outcomes.expect("a fresh outcome is kept");
        let offsets = outcomes.iter().map(accepted_offset).collect();
        let batch = (self.producer.session().to_owned(), appended.sequence);
        self.acknowledged.insert(batch, offsets);
    }

    async fn finish(mut self) -> Acknowledged {
        while !self.sent.is_empty() {
            self.take_answer().await;
        }
        self.acknowledged
    }
}

/// Appends so many batches, each made of its number.
async fn fill(cluster: &Cluster, batches: u64, make: fn(u64) -> Vec<Event>) -> Acknowledged {
    const FILLERS: u64 = 4;
    let client = client(cluster);
    open_hunt(&client).await;
    let progress = bar(batches, "batches written");
    let mut tasks = JoinSet::new();
    for number in 0..FILLERS {
        let mut filler = Filler::open(&client, &format!("filler-{number}")).await;
        let progress = progress.clone();
        tasks.spawn(async move {
            for batch in (0..batches).filter(|batch| batch % FILLERS == number) {
                filler.append(make(batch / FILLERS)).await;
                progress.inc(1);
            }
            filler.finish().await
        });
    }
    let mut all = Acknowledged::new();
    while let Some(acknowledged) = tasks.join_next().await {
        all.extend(acknowledged.expect("no producer panicked"));
    }
    progress.finish_and_clear();
    all
}

/// Makes the state large: players and sessions.
async fn populate(cluster: &Cluster, players: u64, sessions: u64) {
    const BATCH: usize = 4096;
    let client = client(cluster);
    let progress = bar(players + sessions, "players and sessions");
    let mut filler = Filler::open(&client, "registrar").await;
    for first in (0..players).step_by(BATCH) {
        let count = (players - first).min(BATCH as u64);
        let register = |number| {
            let (id, name) = (format!("player-{number:08}"), format!("Player {number}"));
            event::player_registered(HUNT, &id, &name)
        };
        filler
            .append((first..first + count).map(register).collect())
            .await;
        progress.inc(count);
    }
    let mut opening = JoinSet::new();
    for number in 0..sessions {
        if opening.len() == 64 {
            opening.join_next().await;
        }
        let (client, progress) = (client.clone(), progress.clone());
        opening.spawn(async move {
            let name = format!("game-server-{number:08}");
            client.session(&name).await.expect("a session");
            progress.inc(1);
        });
    }
    opening.join_all().await;
    filler.finish().await;
    progress.finish_and_clear();
}

/// Adds `id`, which waits, as a learner, and waits until it has applied what the
/// leader had then.
async fn add_and_catch_up(cluster: &Cluster, leader: u64, id: u64) -> Duration {
    let last_log_index = async |id| {
        let status = cluster.status(id).await?;
        Some(status.partitions.first()?.last_log_index)
    };
    let wanted = last_log_index(leader).await.expect("it leads");
    let node = cluster.nodes().last().expect("the new node").spec().clone();
    assert_eq!(node.id, id);
    let endpoints = [leader_address(cluster, leader)];
    let started = Instant::now();
    with_node(&endpoints, &["member", "add"], &node)
        .await
        .done();
    let progress = bar(wanted, "entries caught up");
    let caught_up = cluster.wait_within(PATIENCE, "catching up", async || {
        let status = cluster.status(id).await?;
        let applied = status.partitions.first()?.applied_log_index;
        progress.set_position(applied);
        (applied >= wanted).then_some(())
    });
    caught_up.await.expect("it catches up");
    progress.finish_and_clear();
    started.elapsed()
}

fn leader_address(cluster: &Cluster, leader: u64) -> String {
    let mut nodes = cluster.nodes().iter();
    let node = nodes.find(|node| node.spec().id == leader);
    node.expect("a member").spec().client_address()
}

/// Has `leader` add the node `id`, which waits, under light load, and says what
/// it took. Answers what the load had acknowledged.
async fn add_under_load(
    cluster: &mut Cluster,
    leader: u64,
    id: u64,
    sent_bytes: u64,
) -> Acknowledged {
    let load = Load::start(cluster, 2).await;
    load.progress(cluster, 100).await;
    cluster.node(leader).forget_peak().expect("it runs");
    let before = cluster.node(leader).peak_bytes().expect("it runs");
    let took = add_and_catch_up(cluster, leader, id).await;
    load.progress(cluster, 100).await;
    assert_eq!(cluster.leader().await.expect("a leader"), leader);
    let peak = cluster.node(leader).peak_bytes().expect("it runs");
    let learner = cluster.node(id).peak_bytes().expect("it runs");
    say(&format!(
        "node {id} caught up: {}\n  the leader had {} before, {} at most meanwhile; the learner {} at most",
        rate(sent_bytes, took),
        megabytes(before),
        megabytes(peak),
        megabytes(learner),
    ));
    assert!(
        peak <= before + SENDING_BYTES_MAX,
        "the leader had {before} bytes and then {peak}"
    );
    // It ends with the same state and as long a tail as the leader's.
    assert!(
        learner <= peak + RECEIVING_BYTES_MAX,
        "the learner had {learner} bytes, the leader {peak}"
    );
    load.finish().await
}

/// `huntlog-node inspect --verify` of a stopped node.
async fn inspect(cluster: &mut Cluster, id: u64) {
    let data_dir = cluster.node(id).spec().data_dir();
    let bytes = log_bytes(&data_dir);
    let started = Instant::now();
    let mut process = Command::new(binary("huntlog-node").expect("built"))
        .args(["inspect", "--verify"])
        .arg(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let pid = process.id().expect("it was not waited for");
    let mut peak = 0;
    let status = loop {
        // Only a process that runs tells its peak.
        peak = memory::peak_bytes(pid).unwrap_or(peak);
        match tokio::time::timeout(Duration::from_millis(5), process.wait()).await {
            Ok(ended) => break ended.expect("a child of ours"),
            Err(_) => continue,
        }
    };
    assert!(status.success(), "the directory of node {id}: {status}");
    say(&format!(
        "inspect --verify: {}, {} of memory at most",
        rate(bytes, started.elapsed()),
        megabytes(peak)
    ));
    assert!(peak <= INSPECT_BYTES_MAX, "inspect had {peak} bytes");
}

/// Restarts the nodes with a retention, and waits until their logs are short.
async fn purge(cluster: &mut Cluster, ids: &[u64]) {
    for id in ids {
        cluster.node(*id).stop().await.expect("stopped");
        let bytes = RETENTION_BYTES.to_string();
        cluster
            .node(*id)
            .set_env("HUNTLOG_RETENTION__MAX_BYTES", &bytes);
    }
    cluster.start_all().expect("started again");
    cluster.wait_ready().await.expect("all come back");
    for id in ids {
        let purged = cluster.wait_within(PATIENCE, "a purged log", async || {
            let status = cluster.status(*id).await?;
            (status.partitions.first()?.first_log_index > 1).then_some(())
        });
        purged.await.expect("the retention purges");
    }
}

/// HUNTLOG_CATCH_UP_MIB (192 when not set) of log, then a state to go with it.
/// `scripts/catch-up` runs it with 4 GiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_nodes_catch_up_in_bounded_memory() {
    let mib =
        std::env::var(LOG_MIB).map_or(LOG_MIB_DEFAULT, |text| text.parse().expect("a number"));
    // A short log too has snapshots to purge up to.
    let snapshots = format!(
        "[snapshot]\nevery_bytes = {}\n",
        (mib * MIB / 8).min(256 * MIB)
    );
    let mut cluster = Cluster::prepare(3, &snapshots).expect("files");
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("a cluster");

    let started = Instant::now();
    let mut acknowledged = fill(&cluster, mib, mebibyte).await;
    say(&format!("written: {}", rate(mib * MIB, started.elapsed())));
    check_peaks(&mut cluster, &[1, 2, 3], "while it was written");

    let leader = cluster.leader().await.expect("a leader");
    start_waiting_with(&mut cluster, 4, &snapshots).await;
    acknowledged.extend(add_under_load(&mut cluster, leader, 4, mib * MIB).await);
    check_peaks(&mut cluster, &[4], "while it caught up");
    ask(&cluster.endpoints(), &["member", "promote", "4"])
        .await
        .done();
    let started = Instant::now();
    check_all_nodes(&cluster, &acknowledged).await;
    say(&format!(
        "read from four nodes and compared: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    check_peaks(&mut cluster, &[1, 2, 3, 4], "after all of it was read");

    let leader = cluster.leader().await.expect("a leader");
    let stopped = leader % 4 + 1;
    cluster.node(stopped).stop().await.expect("stopped");
    inspect(&mut cluster, stopped).await;
    let started = Instant::now();
    cluster.node(stopped).start().expect("started again");
    cluster.wait_ready().await.expect("it comes back");
    let took = started.elapsed();
    say(&format!("restarted and ready: {:.1} s", took.as_secs_f64()));
    assert!(cfg!(debug_assertions) || took <= RESTART_MAX, "{took:?}");
    check_peaks(&mut cluster, &[stopped], "since its restart");

    purge(&mut cluster, &[1, 2, 3, 4]).await;
    let (players, sessions) = (mib * PLAYERS_PER_MIB, mib * SESSIONS_PER_MIB);
    let started = Instant::now();
    populate(&cluster, players, sessions).await;
    say(&format!(
        "{players} players and {sessions} sessions: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let leader = cluster.leader().await.expect("a leader");
    let endpoints = [leader_address(&cluster, leader)];
    let snapshot = ask(&endpoints, &["snapshot"]).await.done();
    let size_bytes = snapshot["size_bytes"].as_u64().expect("a size");
    let before_snapshot = end_offset(&cluster).await;
    start_waiting(&mut cluster, 5).await;
    let acknowledged = add_under_load(&mut cluster, leader, 5, size_bytes).await;
    let added = cluster.status(5).await.expect("it answers");
    let first_log_index = added.partitions[0].first_log_index;
    assert!(first_log_index > 1, "it was sent the log, not a snapshot");
    check_all_nodes_from(&cluster, before_snapshot, &acknowledged).await;
}

/// A disk that is slower than the network: what has not reached it waits at the
/// leader, on its disk, and not in the learner's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_with_a_slow_disk_is_not_flooded() {
    // Almost as large as a batch can be: the number of entries bounds nothing.
    const BATCHES: u64 = 64;
    const EVENT_BYTES: usize = 1000 << 10;
    if let Some(reason) = Injection::unavailable() {
        say(&format!("skipped: {reason}"));
        return;
    }
    let mut cluster = Cluster::start(1).await.expect("a cluster");
    let mut acknowledged = fill(&cluster, BATCHES, |_| positions(4, EVENT_BYTES)).await;
    start_waiting(&mut cluster, 2).await;
    let slow = "fdatasync:delay_enter=300000";
    let slow_disk = Injection::attach(cluster.node(2), slow, &[])
        .await
        .expect("attached");
    let bytes = BATCHES * 4 * EVENT_BYTES as u64;
    acknowledged.extend(add_under_load(&mut cluster, 1, 2, bytes).await);
    drop(slow_disk);
    check_all_nodes(&cluster, &acknowledged).await;
}
