//! Appends go on while leaders die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::proto::{Clue, EventOutcome, HuntDefinition};
use huntlog_client::{Client, ClientOptions, event};
use huntlog_jepsen::Cluster;
use tokio::task::JoinSet;

use crate::support::check_all_nodes;

pub const HUNT: &str = "pier";

pub type Acknowledged = BTreeMap<(String, u64), Vec<u64>>;

/// Several sessions that append until told to stop.
pub struct Load {
    tasks: JoinSet<Acknowledged>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    pub async fn start(cluster: &Cluster, sessions: u32) -> Self {
        let options = ClientOptions {
            timeout: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        let client = Client::connect(cluster.endpoints(), options).expect("addresses");
        open_hunt(&client).await;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..sessions {
            let client = client.clone();
            let stop = stop.clone();
            let acknowledged = acknowledged.clone();
            tasks.spawn(async move {
                let name = format!("server-{number}");
                let producer = client.session(&name).await.expect("a session");
                let mut batches = Acknowledged::new();
                while !stop.load(Ordering::Relaxed) {
                    let position = event::custom(HUNT, "", "position", vec![7; 64]);
                    let appended = producer
                        .append_batch(vec![position.clone(), position])
                        .await
                        .expect("room")
                        .await
                        .expect("acknowledged within a minute, whoever dies");
                    let outcomes = appended.outcomes.expect("a fresh outcome is kept");
                    let offsets = outcomes.iter().map(accepted_offset).collect();
                    batches.insert((name.clone(), appended.sequence), offsets);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                batches
            });
        }
        Self {
            tasks,
            stop,
            acknowledged,
        }
    }

    /// Waits until `more` further batches are acknowledged.
    pub async fn progress(&self, cluster: &Cluster, more: u64) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        cluster
            .wait_for("further acknowledged batches", async || {
                (self.acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())
            })
            .await
            .expect("appends go on");
    }

    pub async fn finish(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::new();
        while let Some(batches) = self.tasks.join_next().await {
            all.extend(batches.expect("no producer panicked"));
        }
        all
    }
}

/// Creates the hunt that all appends are for, if it is not there.
pub async fn open_hunt(client: &Client) {
    let setup = client.session("setup").await.expect("a session");
    setup
        .append_batch(vec![
            event::hunt_created(HUNT, definition()),
            event::hunt_opened(HUNT),
        ])
        .await
        .expect("room")
        .await
        .expect("the hunt is created");
    setup.close().await.expect("nothing is open");
}

pub fn accepted_offset(outcome: &EventOutcome) -> u64 {
    match &outcome.outcome {
        Some(Outcome::Accepted(accepted)) => accepted.offset,
        other => panic!("position reports are accepted, not {other:?}"),
    }
}

fn definition() -> HuntDefinition {
    HuntDefinition {
        title: "Along the pier".into(),
        clues: vec![Clue {
            id: "bollard".into(),
            answers: vec!["seven".into()],
            points: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_lose_and_repeat_nothing() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    for _ in 0..3 {
        load.progress(&cluster, 200).await;
        let leader = cluster.leader().await.expect("a leader");
        cluster.node(leader).kill().await.expect("killed");
        load.progress(&cluster, 200).await;
        let next = cluster.leader().await.expect("another leader");
        assert_ne!(leader, next);
        cluster.node(leader).start().expect("started again");
        cluster.wait_ready().await.expect("it catches up");
    }
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// By its timer alone no follower asks for votes before the lease and the shortest
/// election time have passed in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_ends_the_wait_for_a_killed_leader() {
    const HEARTBEAT: Duration = Duration::from_millis(100);
    const ELECTION_MIN: Duration = Duration::from_millis(3000);
    const LEASE: Duration = Duration::from_millis(3001);
    let timers = format!(
        "[raft]\nheartbeat_ms = {}\nelection_min_ms = {}\nelection_max_ms = {}\n",
        HEARTBEAT.as_millis(),
        ELECTION_MIN.as_millis(),
        LEASE.as_millis(),
    );
    let mut cluster = Cluster::prepare(3, &timers).expect("files");
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("a cluster");
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 10).await;
    let leader = cluster.leader().await.expect("a leader");
    let killed = Instant::now();
    cluster.node(leader).kill().await.expect("killed");
    load.progress(&cluster, 10).await;
    let took = killed.elapsed();
    // The silence began with the last heartbeat before the kill, or with one of a few
    // before it if that was late.
    let by_timer = LEASE + ELECTION_MIN - 5 * HEARTBEAT;
    assert!(took < by_timer, "{took:?} after the kill");
    let next = cluster.leader().await.expect("another leader");
    let log = cluster.node(next).log();
    assert!(log.contains("asking for votes"), "{log}");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_that_is_killed_comes_back_with_everything() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    for _ in 0..2 {
        load.progress(&cluster, 200).await;
        for id in 1..=3 {
            cluster.node(id).kill().await.expect("killed");
        }
        cluster.start_all().expect("started again");
        cluster.wait_ready().await.expect("all come back");
    }
    load.progress(&cluster, 200).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// Kills whom the seed says, one node or two, and starts them again, for
/// HUNTLOG_KILL_SECONDS (10 when not set). HUNTLOG_KILL_SEED repeats a choice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_lose_and_repeat_nothing() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seconds = setting("HUNTLOG_KILL_SECONDS", 10);
    let mut random = setting("HUNTLOG_KILL_SEED", u64::from(std::process::id()));
    println!("repeat with HUNTLOG_KILL_SEED={random}");
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while tokio::time::Instant::now() < end || rounds == 0 {
        // xorshift64: any sequence that a seed repeats will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let first = random % 3 + 1;
        cluster.node(first).kill().await.expect("killed");
        if random & 8 == 0 {
            cluster.node(first % 3 + 1).kill().await.expect("killed");
        } else {
            load.progress(&cluster, random % 200).await;
        }
        cluster.start_all().expect("started again");
        load.progress(&cluster, random % 100 + 1).await;
        rounds += 1;
    }
    cluster.wait_ready().await.expect("all come back");
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_first() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 100).await;
    let leader = cluster.leader().await.expect("a leader");
    let status = cluster.node(leader).stop().await.expect("stopped");
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let log = cluster.node(leader).log();
    assert!(log.contains("leadership handed over"), "{log}");
    load.progress(&cluster, 100).await;
    cluster.node(leader).start().expect("started again");
    cluster.wait_ready().await.expect("it catches up");
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}
