//! A data directory that an older release wrote is opened by this one, with
//! everything in it: `data/v1` was written when the format was laid down.
//!
//! A release that changes the data version adds a directory there and keeps the
//! old ones. This one's is written anew by
//! `cargo test -p huntlog-jepsen --test cluster -- --ignored write_the_fixture`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use huntlog_client::proto::TakeSnapshotRequest;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_jepsen::{Cluster, channel};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{huntctl, read_node, succeed};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/v1")
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
    cluster.node(1).stop().await.expect("stopped");
    let dir = cluster.node(1).spec().dir.clone();
    fs::create_dir_all(fixture("")).expect("made");
    let left_out = ["--exclude=lock", "--exclude=reserve"];
    let mode = ["--sparse", "--gzip", "-cf"];
    tar(
        &[&left_out[..], &mode[..]].concat(),
        &fixture("data.tar.gz"),
        &dir,
    );
    cluster.node(1).start().expect("started");
    cluster.wait_ready().await.expect("it is back");
    let content = content(&cluster).await;
    fs::write(fixture("content.json"), format!("{content:#}\n")).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_data_version_1_opens_with_everything_in_it() {
    let mut cluster = Cluster::prepare(1, "").expect("files");
    let dir = cluster.node(1).spec().dir.clone();
    tar(&["-xf"], &fixture("data.tar.gz"), &dir);
    let found = cluster.node(1).inspect().await.expect("readable");
    assert_eq!(found["data_version"], 1);
    assert_eq!(found["findings"], json!([]), "it is sound");
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("it runs");
    let text = fs::read_to_string(fixture("content.json")).expect("there");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(content(&cluster).await, expected);
    let log = cluster.node(1).log();
    assert!(log.contains(r#""index":"Replayed"#), "not rebuilt: {log}");
}
