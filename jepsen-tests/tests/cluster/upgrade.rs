//! A data directory that an older release wrote is opened by this one, with
//! everything in it, and one that this release wrote by the release before, until
//! it is finalized: `data/v1` was written when the format was laid down.
//!
//! A release that changes the data version, which is the feature level, adds a
//! directory there and keeps the old ones. This one's is written anew by
//! `cargo test -p huntlog-jepsen --test cluster -- --ignored write_the_fixture`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use huntlog_client::proto::TakeSnapshotRequest;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_jepsen::{Cluster, channel};
use huntlog_machine::LATEST_LEVEL;
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{huntctl, read_node, succeed};

fn fixture(version: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/data/v{version}"))
        .join(name)
}

fn tar(arguments: &[&str], archive: &Path, dir: &Path) {
    let mut tar = Command::new("tar");
    tar.args(arguments).arg(archive).arg("-C").arg(dir);
    if arguments.contains(&"-cf") {
        tar.arg("data");
    }
    let status = tar.status().expect("tar runs");
    assert!(status.success(), "{tar:?} ended with {status}");
}

/// Creates a hunt that is not over.
async fn create_hunt(cluster: &Cluster) {
    let created = r#"{"hunt":"told","hunt_created":{"definition":{"title":"Told","clues":[{"id":"well","answers":["water"]}]}}}"#;
    let mut command = huntctl(&cluster.endpoints());
    command.args(["event", "append", created]);
    succeed(command).await;
}

/// Appends to it what no log of level 1 may hold.
async fn announce(cluster: &Cluster) -> Output {
    let event = r#"{"hunt":"told","announced":{"clue":"well","text":"It is not the well"}}"#;
    let mut command = huntctl(&cluster.endpoints());
    command.args(["event", "append", event]);
    command.output().await.expect("huntctl runs")
}

/// What the only node of the cluster holds.
async fn content(cluster: &Cluster) -> Value {
    let status = cluster.status(1).await.expect("it answers");
    let partition = &status.partitions[0];
    let events = read_node(cluster, 1, partition.end_offset).await;
    let mut hash = Sha256::new();
    for event in &events {
        hash.update(event.encode_length_delimited_to_vec());
    }
    json!({
        "cluster_id": status.cluster_id,
        "node_uuid": status.node_uuid,
        "end_offset": partition.end_offset,
        "events": events.len(),
        "events_sha256": hex::encode(hash.finalize()),
        // Through the entry with which the node begins to lead, in the next term.
        "digest_log_index": partition.digest_log_index,
        "digest": hex::encode(&partition.digest),
        "hunts": partition.hunts,
        "sessions": partition.sessions,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture"]
async fn write_the_fixture() {
    let mut cluster = Cluster::start(1).await.expect("a cluster");
    for (hunt, seed) in [("before", "1"), ("after", "2")] {
        let mut play = huntctl(&cluster.endpoints());
        play.args(["play", "--hunt", hunt, "--seed", seed, "--sessions", "3"]);
        play.args([
            "--teams",
            "6",
            "--clues",
            "8",
            "--treasures",
            "2",
            "--events",
            "400",
        ]);
        succeed(play).await;
        if hunt == "before" {
            let channel = channel(&cluster.endpoints()[0]).await;
            AdminServiceClient::new(channel.expect("it listens"))
                .take_snapshot(TakeSnapshotRequest::default())
                .await
                .expect("a snapshot");
        }
    }
    create_hunt(&cluster).await;
    assert!(announce(&cluster).await.status.success());
    cluster.node(1).stop().await.expect("stopped");
    let dir = cluster.node(1).spec().dir.clone();
    fs::create_dir_all(fixture(LATEST_LEVEL, "")).expect("made");
    let left_out = ["--exclude=lock", "--exclude=reserve"];
    let mode = ["--sparse", "--gzip", "-cf"];
    tar(
        &[&left_out[..], &mode[..]].concat(),
        &fixture(LATEST_LEVEL, "data.tar.gz"),
        &dir,
    );
    cluster.node(1).start().expect("started");
    cluster.wait_ready().await.expect("it is back");
    let content = content(&cluster).await;
    fs::write(
        fixture(LATEST_LEVEL, "content.json"),
        format!("{content:#}\n"),
    )
    .expect("written");
}

/// A cluster of one node on the fixture's directory, not started.
fn on_fixture(version: u32) -> Cluster {
    let mut cluster = Cluster::prepare(1, "").expect("files");
    let dir = cluster.node(1).spec().dir.clone();
    tar(&["-xf"], &fixture(version, "data.tar.gz"), &dir);
    cluster
}

async fn data_version(cluster: &mut Cluster) -> Value {
    let found = cluster.node(1).inspect().await.expect("readable");
    assert_eq!(found["findings"], json!([]), "it is sound");
    found["data_version"].clone()
}

/// Starts the node on what is there, and answers the level in force.
async fn start(cluster: &mut Cluster) -> u32 {
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("it runs");
    let status = cluster.status(1).await.expect("it answers");
    status.partitions[0].feature_level
}

async fn finalize(cluster: &Cluster) {
    let mut command = huntctl(&cluster.endpoints());
    command.args(["cluster", "finalize"]);
    succeed(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_each_data_version_opens_with_everything_in_it() {
    for version in [1, 2] {
        let mut cluster = on_fixture(version);
        assert_eq!(data_version(&mut cluster).await, version);
        assert_eq!(
            start(&mut cluster).await,
            version,
            "the level is the version"
        );
        let text = fs::read_to_string(fixture(version, "content.json")).expect("there");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(content(&cluster).await, expected);
        let log = cluster.node(1).log();
        assert!(log.contains(r#""index":"Replayed"#), "not rebuilt: {log}");
    }
}

/// What only the new level knows is refused before it is in force, and taken after
/// it; the directory says which it is, and keeps what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_goes_to_the_next_version_when_it_is_finalized() {
    let mut cluster = on_fixture(1);
    assert_eq!(start(&mut cluster).await, 1);
    create_hunt(&cluster).await;
    let refused = announce(&cluster).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    for part in ["FEATURE_LEVEL", "nothing was applied", "level 2", "level 1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let before = content(&cluster).await;
    cluster.node(1).stop().await.expect("stopped");
    assert_eq!(data_version(&mut cluster).await, 1, "nothing new is in it");

    start(&mut cluster).await;
    finalize(&cluster).await;
    finalize(&cluster).await;
    let taken = announce(&cluster).await;
    assert!(taken.status.success(), "{taken:?}");
    let channel = channel(&cluster.endpoints()[0]).await.expect("it listens");
    AdminServiceClient::new(channel)
        .take_snapshot(TakeSnapshotRequest::default())
        .await
        .expect("a snapshot of the new level");
    cluster.node(1).kill().await.expect("killed");
    assert_eq!(data_version(&mut cluster).await, 2);
    assert_eq!(start(&mut cluster).await, 2);
    let after = content(&cluster).await;
    assert_eq!(
        after["events"].as_u64(),
        before["events"].as_u64().map(|n| n + 1)
    );
}

/// The binary of v0.1.0, where `scripts/upgrade v0.1.0` has built it.
fn old_release() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("this test");
    let target = own.ancestors().find(|dir| dir.join("upgrade").is_dir())?;
    let node = target.join("upgrade/v0.1.0/target/release/huntlog-node");
    node.is_file().then_some(node)
}

/// The release before reads what this one wrote before finalize, and refuses what it
/// wrote after it, in its own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_release_before_reads_a_directory_until_it_is_finalized() {
    let Some(old) = old_release() else {
        eprintln!("skipped: no binary of v0.1.0, which scripts/upgrade v0.1.0 builds");
        return;
    };
    let mut cluster = on_fixture(1);
    start(&mut cluster).await;
    // Everything that a node writes: entries, records, snapshots, the identity.
    let mut play = huntctl(&cluster.endpoints());
    play.args(["play", "--hunt", "mixed", "--seed", "3", "--events", "400"]);
    succeed(play).await;
    let listening = channel(&cluster.endpoints()[0]).await.expect("it listens");
    AdminServiceClient::new(listening)
        .take_snapshot(TakeSnapshotRequest::default())
        .await
        .expect("a snapshot");
    let written = content(&cluster).await;
    cluster.node(1).stop().await.expect("stopped");

    cluster.node(1).set_program(&old);
    cluster.node(1).start().expect("started");
    cluster.wait_ready().await.expect("it reads all of it");
    let read = content(&cluster).await;
    for key in ["events", "events_sha256", "hunts", "sessions", "end_offset"] {
        assert_eq!(read[key], written[key], "{key}");
    }
    cluster.node(1).stop().await.expect("stopped");

    let new = huntlog_jepsen::binary("huntlog-node").expect("built");
    cluster.node(1).set_program(&new);
    start(&mut cluster).await;
    finalize(&cluster).await;
    cluster.node(1).stop().await.expect("stopped");
    cluster.node(1).set_program(&old);
    cluster.node(1).start().expect("started");
    let status = cluster.node(1).wait().await.expect("it ends");
    assert_eq!(status.and_then(|status| status.code()), Some(4));
    let log = cluster.node(1).log();
    assert!(
        log.contains("has data version 2, this release reads 1"),
        "{log}"
    );
}
