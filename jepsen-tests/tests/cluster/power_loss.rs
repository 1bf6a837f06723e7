//! The power goes, and with it everything that was not synced: of one node, of
//! two, of all three at once.

use std::collections::BTreeMap;
use std::time::Duration;

use huntlog_jepsen::{Cluster, Injection, LoopDisk};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failover::{Acknowledged, Load};
use crate::support::{check_all_nodes, end_offset, no_node_panicked};

/// Room for a few segments of 64 MiB, the index and snapshots; sparse.
const DISK_BYTES: u64 = 1 << 30;
/// Rounds before the cluster is replaced by a fresh one: what every node holds is
/// read whole after each.
const ROUNDS_PER_CLUSTER: u64 = 10;

/// The variable that says how many rounds to run.
const ROUNDS: &str = "HUNTLOG_POWER_ROUNDS";

/// Any sequence that a seed repeats will do: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A cluster whose nodes have disks of their own; `None`, with the reason printed,
/// where there are none.
///
/// # Panics
/// Where there are none and rounds were asked for by number.
#[expect(clippy::print_stdout, reason = "a test that is skipped says why")]
async fn cluster_on_disks() -> Option<Cluster> {
    if let Some(reason) = LoopDisk::unavailable() {
        assert!(
            std::env::var_os(ROUNDS).is_none(),
            "no loop disks here: {reason}"
        );
        println!("skipped: no loop disks here: {reason}");
        return None;
    }
    let mut cluster = Cluster::prepare(3, "").expect("files");
    for id in 1..=3 {
        cluster.add_disk(id, DISK_BYTES).expect("a disk");
    }
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("a cluster");
    Some(cluster)
}

/// What is known of the nodes' votes.
#[derive(Default)]
struct Votes {
    /// The terms the nodes were last seen in, under a leader they follow: they
    /// have voted in them, durably.
    terms: BTreeMap<u64, u64>,
    /// By node: the term and whom it voted for, as last found on its disk.
    found: BTreeMap<u64, (u64, u64)>,
}

impl Votes {
    /// Looks at the running nodes.
    async fn observe(&mut self, cluster: &Cluster) {
        for node in cluster.nodes() {
            let id = node.spec().id;
            let Some(status) = cluster.status(id).await else {
                continue;
            };
            for partition in status.partitions {
                let seen = self.terms.entry(id).or_default();
                assert!(
                    partition.term >= *seen,
                    "the vote of node {id} went back from term {seen} to {}",
                    partition.term
                );
                // Where nobody leads, the term may not be on the disk yet.
                if partition.leader_id != 0 {
                    *seen = partition.term;
                }
            }
        }
    }

    /// Looks at the disks of nodes whose power was cut: they are sound, except
    /// that the index, which is not synced, may have to be rebuilt; and the votes
    /// on them are not behind.
    async fn find(&mut self, cluster: &mut Cluster, victims: &[u64]) {
        for id in victims {
            let disk = cluster.node(*id).inspect().await.expect("readable");
            for finding in disk["findings"].as_array().expect("a list") {
                let file = finding["file"].as_str().expect("a path");
                let expected = match finding["severity"].as_str() {
                    Some("note") => true,
                    Some("repaired") => file.ends_with("/index"),
                    _ => false,
                };
                assert!(expected, "node {id}: {finding}");
            }
            let Some(partition) = disk["partitions"].get(0) else {
                continue;
            };
            let of = |key: &str| partition["vote"][key].as_u64().expect("it voted");
            let vote = (of("term"), of("node_id"));
            let seen = self.terms.get(id).copied().unwrap_or_default();
            assert!(vote.0 >= seen, "node {id}: {vote:?} after term {seen}");
            if let Some(before) = self.found.insert(*id, vote) {
                assert!(
                    vote.0 > before.0 || vote == before,
                    "node {id} voted {vote:?} after {before:?}"
                );
            }
        }
    }
}

/// Under load: the power of one node, of two, of all three. Then everything that
/// was acknowledged is compared with every node.
async fn round(
    cluster: &mut Cluster,
    random: &mut Random,
    votes: &mut Votes,
    acknowledged: &mut Acknowledged,
) {
    let load = Load::start(cluster, 8).await;
    for count in 1..=3 {
        load.progress(cluster, 20 + random.below(150)).await;
        votes.observe(cluster).await;
        load.progress(cluster, random.below(20)).await;
        let first = random.below(3);
        let victims: Vec<u64> = (0..count).map(|next| (first + next) % 3 + 1).collect();
        cluster.cut_power(&victims).await.expect("power cut");
        votes.find(cluster, &victims).await;
        if random.below(3) == 0 {
            // And once more while they come back.
            cluster.start_all().expect("started again");
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            cluster.cut_power(&victims).await.expect("power cut");
            votes.find(cluster, &victims).await;
        } else if count == 1 {
            load.progress(cluster, random.below(100)).await;
        }
        cluster.start_all().expect("started again");
        load.progress(cluster, 1).await;
        cluster.wait_ready().await.expect("all come back");
        votes.observe(cluster).await;
    }
    acknowledged.extend(load.finish().await);
    check_all_nodes(cluster, acknowledged).await;
    no_node_panicked(cluster);
}

/// HUNTLOG_POWER_ROUNDS rounds (2 when not set) of three cuts each;
/// HUNTLOG_POWER_SEED repeats the choices. `scripts/power-loss` runs many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_and_repeat_nothing() {
    let rounds = setting(ROUNDS, 2);
    let seed = setting("HUNTLOG_POWER_SEED", u64::from(std::process::id()));
    println!("repeat with HUNTLOG_POWER_SEED={seed}");
    let mut random = Random(seed);
    let style =
        "{bar:40} {pos}/{len} rounds of three power cuts, {msg} events checked, {eta} to go";
    let progress = ProgressBar::new(rounds)
        .with_style(ProgressStyle::with_template(style).expect("a template"));
    let mut checked = 0;
    for first in (0..rounds).step_by(usize::try_from(ROUNDS_PER_CLUSTER).expect("ten")) {
        let Some(mut cluster) = cluster_on_disks().await else {
            return;
        };
        let mut votes = Votes::default();
        let mut acknowledged = Acknowledged::new();
        for _ in first..rounds.min(first + ROUNDS_PER_CLUSTER) {
            round(&mut cluster, &mut random, &mut votes, &mut acknowledged).await;
            progress.inc(1);
            let events: usize = acknowledged.values().map(Vec::len).sum();
            progress.set_message((checked + events).to_string());
        }
        checked += acknowledged.values().map(Vec::len).sum::<usize>();
    }
    progress.finish();
    println!(
        "{rounds} rounds, {} power cuts, {checked} acknowledged events, none lost, none twice",
        rounds * 3
    );
}

/// The test above can fail: over disks that lie, where syncs return at once and
/// do nothing, what was acknowledged is gone after the cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_lie_are_found_out() {
    if let Some(reason) = Injection::unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let Some(mut cluster) = cluster_on_disks().await else {
        return;
    };
    let mut lies = Vec::new();
    for node in cluster.nodes() {
        let fault = "fdatasync,fsync:retval=0";
        lies.push(Injection::attach(node, fault, &[]).await.expect("attached"));
    }
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 100).await;
    let acknowledged = load.finish().await;
    let last = acknowledged.values().flatten().max().expect("some");
    cluster.cut_power(&[1, 2, 3]).await.expect("power cut");
    drop(lies);
    cluster.start_all().expect("started again");
    cluster.wait_ready().await.expect("all come back");
    let end = end_offset(&cluster).await;
    assert!(
        end <= *last,
        "nothing was synced, and {end} events are there, {last} among them"
    );
}
