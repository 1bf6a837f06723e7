//! Disks that are full, fail, hang or are slow, under one node of a cluster with
//! load on it: what was acknowledged stays, and the others go on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use huntlog_client::proto::TakeSnapshotRequest;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_jepsen::{Cluster, ClusterError, Injection, LoopDisk, NodeProcess, Throttle, channel};
use tokio::time::Instant;

use crate::failover::Load;
use crate::support::{check_all_nodes, ended, get, no_node_panicked};

/// The status of a node that failed while running; a supervisor starts it again.
const FAILED: i32 = 1;

#[expect(clippy::print_stdout, reason = "a test that is skipped says why")]
fn is_possible(reason: Option<&str>) -> bool {
    if let Some(reason) = reason {
        println!("skipped: {reason}");
    }
    reason.is_none()
}

/// The newest segment in a data directory: the one that is written to.
fn open_segment(data_dir: &Path) -> String {
    fs::read_dir(data_dir.join("segments"))
        .expect("there are segments")
        .map(|entry| entry.expect("readable").path())
        .max()
        .expect("there is one")
        .display()
        .to_string()
}

/// Three nodes, each with a disk of its own of `bytes`.
async fn cluster_on_disks(bytes: u64) -> Cluster {
    let mut cluster = Cluster::prepare(3, "").expect("files");
    for id in 1..=3 {
        cluster.add_disk(id, bytes).expect("a disk");
    }
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("a cluster");
    cluster
}

async fn nothing_is_lost(cluster: &Cluster, load: Load) {
    let acknowledged = load.finish().await;
    check_all_nodes(cluster, &acknowledged).await;
    no_node_panicked(cluster);
}

/// The disk of the leader is full: of what the segments need, or, where a whole
/// segment was set aside, of what the index needs.
async fn a_full_disk(disk_bytes: u64, free_bytes: u64) {
    if !is_possible(LoopDisk::unavailable()) {
        return;
    }
    let mut cluster = cluster_on_disks(disk_bytes).await;
    let load = Load::start(&cluster, 8).await;
    load.progress(&cluster, 50).await;
    let victim = cluster.leader().await.expect("a leader");
    let ballast = cluster.disk(victim).fill(free_bytes).expect("filled");
    assert_eq!(ended(cluster.node(victim)).await, FAILED);
    let log = cluster.node(victim).log();
    let stops = log
        .lines()
        .find(|line| line.contains(r#""message":"the node stops""#));
    let stops = stops.expect("it says why it stops");
    for said in [
        "No space left on device",
        "make room on the disk, then restart the node",
    ] {
        assert!(stops.contains(said), "{stops}");
    }
    load.progress(&cluster, 50).await;

    // Full to the last block, the node starts again, with what is set aside for that.
    cluster.disk(victim).fill(0).expect("filled");
    let known = cluster.node(victim).log().len();
    cluster.node(victim).start().expect("started");
    match cluster.wait_ready().await {
        Ok(()) => {}
        // The load goes on, and may have filled the disk again before it was asked.
        Err(ClusterError::Ended { node, .. }) if node == victim => {
            let log = cluster.node(victim).log().split_off(known);
            for said in ["the data directory is open", "No space left on device"] {
                assert!(log.contains(said), "{log}");
            }
        }
        Err(error) => panic!("it is back: {error}"),
    }
    cluster.node(victim).kill().await.expect("killed");
    fs::remove_file(ballast).expect("room");
    cluster.node(victim).start().expect("started");
    load.progress(&cluster, 50).await;
    cluster.wait_ready().await.expect("it is back");
    nothing_is_lost(&cluster, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_full_of_segments_is_named_and_room_brings_the_node_back() {
    a_full_disk(60 << 20, 128 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_with_no_room_for_the_index_is_named_and_room_brings_the_node_back() {
    a_full_disk(400 << 20, 64 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_ends_the_node_and_a_failed_sync_is_not_tried_again() {
    if !is_possible(Injection::unavailable()) {
        return;
    }
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    for (fault, of, said) in [
        ("fdatasync:error=EIO:when=3", "log", "fdatasync failed on"),
        (
            "fdatasync:error=ENOSPC:when=3",
            "log",
            "fdatasync failed on",
        ),
        ("pwrite64:error=EIO:when=7", "log", "write failed on"),
        ("pwrite64:error=ENOSPC:when=7", "log", "write failed on"),
        ("pwrite64:error=EIO:when=1+", "index", "update failed on"),
        ("pwrite64:error=ENOSPC:when=1+", "index", "update failed on"),
        ("fsync,fdatasync:error=EIO:when=1+", "index", " failed on"),
    ] {
        load.progress(&cluster, 50).await;
        let victim = cluster.leader().await.expect("a leader");
        let node = cluster.node(victim);
        let data_dir = node.spec().data_dir();
        let (file, named) = match of {
            "log" => (open_segment(&data_dir), open_segment(&data_dir)),
            _ => {
                let index = data_dir.join("index");
                (
                    index.join("db").display().to_string(),
                    index.display().to_string(),
                )
            }
        };
        let known = node.log().len();
        let injection = Injection::attach(node, fault, &[&file]).await;
        injection.as_ref().expect("attached");
        if fault.starts_with("fsync") {
            // The index is synced for a snapshot, which then is not taken.
            let channel = channel(&node.spec().client_address()).await;
            let mut admin = AdminServiceClient::new(channel.expect("it listens"));
            let snapshot = admin.take_snapshot(TakeSnapshotRequest::default()).await;
            snapshot.expect_err("its index can not be synced");
        }
        assert_eq!(ended(node).await, FAILED, "{fault}");
        let log = node.log().split_off(known);
        assert!(log.contains(said) && log.contains(&named), "{log}");
        load.progress(&cluster, 50).await;
        cluster.node(victim).start().expect("started again");
        cluster.wait_ready().await.expect("it catches up");
    }
    nothing_is_lost(&cluster, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_stops_neither_the_cluster_nor_its_node() {
    if !is_possible(LoopDisk::unavailable()) {
        return;
    }
    let cluster = cluster_on_disks(1 << 30).await;
    let load = Load::start(&cluster, 8).await;
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    for victim in [leader % 3 + 1, leader] {
        cluster.disk(victim).freeze().expect("frozen");
        let thaw = Instant::now() + Duration::from_secs(10);
        load.progress(&cluster, 300).await;
        assert!(Instant::now() < thaw, "the others do not wait for the disk");
        // This is how long the disk hangs; nothing is awaited.
        tokio::time::sleep_until(thaw).await;
        cluster.disk(victim).thaw().expect("thawed");
        load.progress(&cluster, 50).await;
        cluster.wait_ready().await.expect("it catches up");
    }
    nothing_is_lost(&cluster, load).await;
    for node in cluster.nodes() {
        let starts = node.log().matches(r#""message":"starting""#).count();
        assert_eq!(starts, 1, "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_slows_its_node_alone() {
    if !is_possible(Injection::unavailable()) {
        return;
    }
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    for victim in [leader % 3 + 1, leader] {
        let slow = "fdatasync:delay_enter=200000";
        let injection = Injection::attach(cluster.node(victim), slow, &[]).await;
        injection.as_ref().expect("attached");
        load.progress(&cluster, 300).await;
        drop(injection);
        load.progress(&cluster, 50).await;
        cluster.wait_ready().await.expect("it catches up");
    }
    nothing_is_lost(&cluster, load).await;
}

/// How often the node has synced its log, and for how long altogether.
async fn syncs(node: &NodeProcess) -> (f64, f64) {
    let text = get(&node.spec().admin_address(), "/metrics").await;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.rsplit(' ').next());
        value
            .and_then(|value| value.parse().ok())
            .expect("a number")
    };
    (
        value("huntlog_storage_sync_seconds_count"),
        value("huntlog_storage_sync_seconds_sum"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_few_writes_a_second_slows_its_node_alone() {
    if !is_possible(Throttle::unavailable()) {
        return;
    }
    let mut cluster = cluster_on_disks(1 << 30).await;
    let load = Load::start(&cluster, 8).await;
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    for victim in [leader % 3 + 1, leader] {
        let pid = cluster.node(victim).pid().expect("it runs");
        let throttle = Throttle::apply(cluster.disk(victim), pid, 20);
        throttle.as_ref().expect("throttled");
        load.progress(&cluster, 300).await;
        // Others acknowledge that many before the first slow sync has ended.
        let deadline = Instant::now() + Duration::from_secs(20);
        let (mut count, mut seconds) = syncs(cluster.node(victim)).await;
        loop {
            load.progress(&cluster, 50).await;
            let (more, longer) = syncs(cluster.node(victim)).await;
            if longer - seconds > 0.02 * (more - count) {
                break;
            }
            (count, seconds) = (more, longer);
            assert!(Instant::now() < deadline, "its disk is not slow");
        }
        drop(throttle);
        load.progress(&cluster, 50).await;
        cluster.wait_ready().await.expect("it catches up");
    }
    nothing_is_lost(&cluster, load).await;
}
