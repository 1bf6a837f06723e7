//! What the tests of real clusters share.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_client::proto::{CommittedEvent, Consistency, ReadRequest, Stale, consistency::Level};
use huntlog_jepsen::{Cluster, NodeProcess, OPENRAFT_CORE_ENDED, binary, channel};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tonic::Status;

/// A huntctl process, not started.
pub fn huntctl(endpoints: &[String]) -> Command {
    let mut command = Command::new(binary("huntctl").expect("huntctl is built"));
    command
        .arg("--endpoints")
        .arg(endpoints.join(","))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end and expects success.
pub async fn succeed(mut command: Command) -> Output {
    let output = command.output().await.expect("huntctl starts");
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits until `file` is there, while `process` runs.
pub async fn wait_for_file(file: &Path, process: &mut Child) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !file.exists() {
        if let Some(status) = process.try_wait().expect("a child of ours") {
            panic!(
                "the process ended with {status} before {} was there",
                file.display()
            );
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} is not there after two minutes",
            file.display()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for the process's own end and answers its exit status.
pub async fn ended(node: &mut NodeProcess) -> i32 {
    let status = tokio::time::timeout(Duration::from_secs(20), node.wait())
        .await
        .expect("it ends by itself")
        .expect("a child of ours")
        .expect("it was started");
    status.code().expect("not killed by a signal")
}

/// Copies a directory with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The whole answer to a GET on an admin port.
pub async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is taken");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is text");
    answer
}

/// Every event that the node `id` itself has up to `end_offset`, by offset.
pub async fn read_node(cluster: &Cluster, id: u64, end_offset: u64) -> Vec<CommittedEvent> {
    let read = try_read_node(cluster, id, end_offset).await;
    read.unwrap_or_else(|status| panic!("node {id} answers {status:?}"))
}

/// As [`read_node`], or what the node answers instead.
pub async fn try_read_node(
    cluster: &Cluster,
    id: u64,
    end_offset: u64,
) -> Result<Vec<CommittedEvent>, Status> {
    let mut events = Vec::new();
    each_event(cluster, id, 0..end_offset, |event| events.push(event)).await?;
    Ok(events)
}

/// Takes the events that the node `id` itself has, once it has those of
/// `offsets`: from the first of these to its end.
async fn each_event(
    cluster: &Cluster,
    id: u64,
    offsets: Range<u64>,
    mut take: impl FnMut(CommittedEvent),
) -> Result<(), Status> {
    let address = cluster
        .nodes()
        .iter()
        .find(|node| node.spec().id == id)
        .expect("a node of the cluster")
        .spec()
        .client_address();
    let channel = channel(&address).await.expect("the node listens");
    let mut client = EventServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let request = ReadRequest {
        from_offset: offsets.start,
        consistency: Some(Consistency {
            level: Some(Level::Stale(Stale {
                min_offset: offsets.end,
            })),
        }),
        ..ReadRequest::default()
    };
    let mut stream = client.read(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        response.events.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// The end of the log as the leader knows it.
pub async fn end_offset(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await.expect("a leader");
    let status = cluster.status(leader).await.expect("the leader answers");
    status.partitions[0].end_offset
}

/// Checks what every node has against what was acknowledged: (session,
/// sequence) -> the offsets of its events.
///
/// # Panics
/// When an acknowledged event is missing or elsewhere (I2), a batch occurs
/// twice (I3), offsets have gaps (I5), or nodes differ (I7).
pub async fn check_all_nodes(cluster: &Cluster, acknowledged: &BTreeMap<(String, u64), Vec<u64>>) {
    check_all_nodes_from(cluster, 0, acknowledged).await;
}

/// A panic is one that nobody expected: what can be expected of a library that
/// panics is caught, and said otherwise. But for openraft's, where a disk has failed.
pub fn no_node_panicked(cluster: &Cluster) {
    for node in cluster.nodes() {
        let log = node.log();
        let mut panics = log.lines().filter(|line| line.contains("panicked at"));
        let line = panics.find(|line| !line.contains(OPENRAFT_CORE_ENDED));
        assert_eq!(line, None, "node {}", node.spec().id);
    }
}

/// As [`check_all_nodes`], where nodes keep events only from `from_offset` on:
/// what was acknowledged is there.
pub async fn check_all_nodes_from(
    cluster: &Cluster,
    from_offset: u64,
    acknowledged: &BTreeMap<(String, u64), Vec<u64>>,
) {
    let end = end_offset(cluster).await;
    let mut first: Option<Held> = None;
    for node in cluster.nodes().iter().filter(|node| node.runs()) {
        let id = node.spec().id;
        let held = held_by(cluster, id, from_offset..end).await;
        for (batch, offsets) in acknowledged {
            assert_eq!(
                held.batches.get(batch),
                Some(offsets),
                "I2/I3: {batch:?} on node {id} is not where it was acknowledged"
            );
        }
        let first = first.get_or_insert_with(|| held.clone());
        assert_eq!(first.events, held.events, "I7: node {id} differs");
        assert!(first.hash == held.hash, "I7: node {id} has other events");
    }
    let (index, digests) = cluster.settled_digests().await.expect("nodes settle");
    assert!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "I7: digests differ at log index {index}"
    );
}

/// What a node holds, without the events themselves: they can be gigabytes.
#[derive(Clone, Default)]
struct Held {
    /// The offsets of each batch's events.
    batches: BTreeMap<(String, u64), Vec<u64>>,
    events: u64,
    /// Of every event, in order.
    hash: u64,
}

async fn held_by(cluster: &Cluster, id: u64, offsets: Range<u64>) -> Held {
    let mut held = Held::default();
    let mut hash = DefaultHasher::new();
    let read = each_event(cluster, id, offsets.clone(), |event| {
        let expected = offsets.start + held.events;
        assert_eq!(event.offset, expected, "I5: a gap on node {id}");
        hash.write(&event.encode_to_vec());
        held.events += 1;
        if !event.session.is_empty() {
            held.batches
                .entry((event.session, event.sequence))
                .or_default()
                .push(event.offset);
        }
    });
    read.await
        .unwrap_or_else(|status| panic!("node {id} answers {status:?}"));
    held.hash = hash.finish();
    held
}

/// The recorded hunt, where it is there.
pub fn recorded_hunt() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/gph2018-guesses.csv");
    path.is_file().then_some(path)
}
