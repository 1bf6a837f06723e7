//! A node that has less than the log of the others begins with a snapshot.

use std::collections::BTreeSet;

use huntlog_proto::v1;
use huntlog_proto::v1::event_service_client::EventServiceClient;
use huntlog_proto::v1::subscribe_request::Start;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

const HUNT: &str = "h";

/// Writes batches of position reports with some payload, `events` each.
struct Producer {
    epoch: u64,
    sequence: u64,
}

impl Producer {
    async fn open(nodes: &Nodes) -> Self {
        let opened = nodes.write(opening("s")).await.expect("it is committed");
        let CommandResult::SessionOpened { epoch, .. } = opened else {
            panic!("{opened:?}");
        };
        let mut producer = Self { epoch, sequence: 0 };
        let clue = huntlog_machine::Clue {
            id: "c".to_owned(),
            title: "a clue".to_owned(),
            answer_salt: bytes::Bytes::from_static(b"salt"),
            answer_hashes: vec![huntlog_machine::answer_hash(b"salt", "answer")],
            ..Default::default()
        };
        let definition = huntlog_machine::HuntDefinition {
            title: "a hunt".to_owned(),
            clues: vec![clue],
            ..Default::default()
        };
        producer
            .append(nodes, vec![EventKind::HuntCreated(Box::new(definition))])
            .await;
        producer
            .append(nodes, vec![EventKind::HuntOpened, EventKind::HuntStarted])
            .await;
        producer
    }

    async fn append(&mut self, nodes: &Nodes, kinds: Vec<EventKind>) {
        self.sequence += 1;
        let events = kinds.into_iter().map(|kind| Event {
            hunt: HUNT.to_owned(),
            player: String::new(),
            occurred_at: None,
            kind,
        });
        let command = encode_batch(&huntlog_machine::Batch {
            session: "s".to_owned(),
            epoch: self.epoch,
            sequence: self.sequence,
            expected: Vec::new(),
            events: events.collect(),
        });
        let result = nodes.write(command).await.expect("it is committed");
        let CommandResult::Batch(huntlog_machine::BatchResult::Applied(outcome)) = result else {
            panic!("{result:?}");
        };
        let accepted = |outcome| matches!(outcome, huntlog_machine::EventOutcome::Accepted { .. });
        assert!(outcome.iter().all(accepted), "{outcome:?}");
    }

    async fn reports(&mut self, nodes: &Nodes, batches: usize, payload_bytes: usize) {
        for _ in 0..batches {
            let kind = EventKind::Custom {
                type_name: "position".to_owned(),
                payload: vec![7; payload_bytes].into(),
            };
            self.append(nodes, vec![kind; 4]).await;
        }
    }
}

fn digest(nodes: &Nodes, id: NodeId) -> huntlog_machine::DigestCheck {
    let digest = nodes.partition(id).replica().digest_check();
    digest.expect("something is applied")
}

/// Has `id` take a snapshot and give up the log that it covers.
async fn purge(nodes: &Nodes, id: NodeId) {
    let partition = nodes.partition(id);
    let taken = partition.take_snapshot(PATIENCE).await.expect("taken");
    partition
        .raft()
        .trigger()
        .purge_log(taken.log_index)
        .await
        .expect("Raft runs");
    let purged = async {
        while partition.replica().log().last_purged().map(|id| id.index) != Some(taken.log_index) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, purged)
        .await
        .expect("the log is purged");
}

fn client(id: NodeId, nodes: &Nodes) -> EventServiceClient<tonic::transport::Channel> {
    let address = address(id, &nodes.dir);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}:7650"));
    EventServiceClient::new(endpoint.expect("an address").connect_lazy())
}

/// The offsets that `id` gives from `from_offset` on. It may not know yet who
/// keeps what it lacks, and says so: then it is asked again.
async fn read(nodes: &Nodes, id: NodeId, from_offset: u64) -> Result<Vec<u64>, tonic::Status> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = read_once(nodes, id, from_offset).await;
        match &answer {
            Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => return answer,
        }
    }
}

async fn read_once(nodes: &Nodes, id: NodeId, from_offset: u64) -> Result<Vec<u64>, tonic::Status> {
    let request = v1::ReadRequest {
        from_offset,
        ..Default::default()
    };
    let mut messages = client(id, nodes).read(request).await?.into_inner();
    let mut offsets = Vec::new();
    while let Some(message) = messages.message().await? {
        offsets.extend(message.events.iter().map(|event| event.offset));
    }
    Ok(offsets)
}

/// A cluster of which one follower was away until the others' logs no longer
/// reached back to what it has: which one.
async fn with_a_snapshot_sent(payload_bytes: usize) -> (Nodes, Producer, NodeId) {
    let mut nodes = Nodes::start(3).await;
    let mut producer = Producer::open(&nodes).await;
    producer.reports(&nodes, 5, 100).await;
    let away = nodes.followers()[0];
    nodes.ready(away).await;
    nodes.stop(away).await;
    producer.reports(&nodes, 50, payload_bytes).await;
    for id in nodes.running.keys().copied().collect::<Vec<_>>() {
        nodes.ready(id).await;
        purge(&nodes, id).await;
    }
    nodes.start_node(away, 3).await;
    nodes.ready(away).await;
    (nodes, producer, away)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_long_is_sent_a_snapshot() {
    let (nodes, mut producer, away) = with_a_snapshot_sent(100).await;
    let log = nodes.partition(away).replica().log().clone();
    let leader = nodes.partition(nodes.leader());
    let purged = leader.replica().log().last_purged();
    assert!(purged.is_some());
    // openraft purges what the snapshot covers after it has installed it.
    let began = async {
        while log.last_purged() != purged {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, began)
        .await
        .expect("it began with the snapshot");

    // It takes part: it applies what comes, and can lead.
    producer.reports(&nodes, 3, 100).await;
    nodes.ready(away).await;
    for id in 1..=3 {
        nodes.ready(id).await;
    }
    let expected = digest(&nodes, nodes.leader());
    for id in 1..=3 {
        assert_eq!(digest(&nodes, id), expected, "node {id}, I7");
    }
    leader
        .transfer_leader(&BTreeSet::from([away]))
        .await
        .expect("it has everything");
    nodes.ready(away).await;
    // I3: the session came with the snapshot.
    producer.reports(&nodes, 1, 100).await;
    nodes.stop_all().await;
}

/// What a node has only as a snapshot it reads from one that has the events.
#[tokio::test(flavor = "multi_thread")]
async fn events_before_the_snapshot_come_from_another_node() {
    let (nodes, mut producer, away) = with_a_snapshot_sent(10_000).await;
    producer.reports(&nodes, 3, 100).await;
    let end = nodes
        .partition(nodes.leader())
        .replica()
        .tail()
        .mark()
        .end_offset;
    nodes.ready(away).await;
    let own = nodes.partition(away).earliest_offset().await.expect("read");
    assert!(own > 0, "it does not have them itself");

    let all: Vec<u64> = (0..end).collect();
    assert_eq!(read(&nodes, away, 0).await.expect("forwarded"), all);
    assert_eq!(
        read(&nodes, away, own).await.expect("its own"),
        all[usize::try_from(own).expect("small")..]
    );

    // A stale read is this node's own copy, which lacks them.
    let stale = v1::ReadRequest {
        consistency: Some(v1::Consistency {
            level: Some(v1::consistency::Level::Stale(v1::Stale::default())),
        }),
        ..Default::default()
    };
    let refused = client(away, &nodes).read(stale).await;
    let refused = refused.expect_err("it goes nowhere");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    let request = v1::SubscribeRequest {
        start: Some(Start::FromOffset(0)),
        ..Default::default()
    };
    let mut messages = client(away, &nodes)
        .subscribe(request)
        .await
        .expect("forwarded")
        .into_inner();
    let mut offsets = Vec::new();
    while offsets.len() < all.len() {
        let message = tokio::time::timeout(PATIENCE, messages.message()).await;
        let message = message.expect("in time").expect("it goes on");
        let events = message.expect("it does not end").events;
        offsets.extend(events.iter().map(|event| event.offset));
    }
    assert_eq!(offsets, all);
    drop(messages);
    nodes.stop_all().await;
}

/// The oldest segments go once a snapshot covers them, on each node by itself;
/// one that was away meanwhile is sent that snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn retention_gives_up_the_oldest_segments() {
    const KEPT_BYTES: u64 = 70 << 20;
    let mut nodes = Nodes::start_with(3, |config| {
        config.retention.max_bytes = Some(KEPT_BYTES);
    })
    .await;
    let mut producer = Producer::open(&nodes).await;
    let away = nodes.followers()[0];
    nodes.ready(away).await;
    nodes.stop(away).await;
    let staying: Vec<NodeId> = nodes.running.keys().copied().collect();
    // Too much with the first segment of 64 MiB: a snapshot for what stays to
    // rest on.
    producer.reports(&nodes, 76, 256 << 10).await;
    for id in &staying {
        let based = async {
            while nodes.running[id].storage.snapshots().newest(0).is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, based)
            .await
            .expect("a snapshot is taken");
    }
    // And once the second is closed, the first goes.
    producer.reports(&nodes, 74, 256 << 10).await;
    let mut earliest = u64::MAX;
    for id in staying {
        let given_up = async {
            loop {
                // What can not be read any more is deleted a moment later.
                let offset = nodes.partition(id).earliest_offset().await.expect("read");
                let (segments, _) = nodes.partition(id).replica().log().segments();
                let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
                if offset > 0 && bytes < KEPT_BYTES {
                    return offset;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let offset = tokio::time::timeout(PATIENCE, given_up)
            .await
            .expect("the retention is applied");
        earliest = earliest.min(offset);
    }
    nodes.start_node(away, 3).await;
    nodes.ready(away).await;
    producer.reports(&nodes, 1, 100).await;
    for id in 1..=3 {
        nodes.ready(id).await;
        assert_eq!(
            digest(&nodes, id),
            digest(&nodes, nodes.leader()),
            "node {id}, I7"
        );
    }
    let refused = read(&nodes, away, 0).await.expect_err("it is gone");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let offsets = read(&nodes, away, earliest).await.expect("forwarded");
    assert_eq!(offsets.first(), Some(&earliest));
    assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "I5");
    nodes.stop_all().await;
}

/// Flips a bit in the middle of the newest snapshot of `id`, which does not run.
fn damage_newest_snapshot(nodes: &Nodes, id: NodeId) {
    let dir = nodes.dir.path().join(format!("node{id}/data/snapshots"));
    let entries = std::fs::read_dir(dir).expect("there are snapshots");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let snapshots = paths.filter(|path| path.extension().is_some_and(|e| e == "snapshot"));
    let newest = snapshots.max().expect("there is one");
    let mut bytes = std::fs::read(&newest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
}

/// What was purged is still there to bring an older state forward from.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_newest_snapshot_a_node_starts_from_the_history_it_keeps() {
    let mut nodes = Nodes::start(1).await;
    let mut producer = Producer::open(&nodes).await;
    // Once with nothing before it, once with an older snapshot.
    for _ in 0..2 {
        producer.reports(&nodes, 5, 100).await;
        purge(&nodes, 1).await;
        let before = digest(&nodes, 1);
        let members = nodes.partition(1).members();
        nodes.stop(1).await;
        damage_newest_snapshot(&nodes, 1);
        nodes.start_node(1, 1).await;
        nodes.ready(1).await;
        let snapshots = nodes.running[&1].storage.snapshots().list(0);
        let log = nodes.partition(1).replica().log().clone();
        let newest = snapshots.last().map(|info| info.log_id);
        assert_eq!(newest, log.last_purged(), "made anew");
        let digests = nodes.partition(1);
        let digests = digests.replica().machine().digest_at(before.index);
        assert_eq!(digests, Some(before.digest), "I7");
        assert_eq!(nodes.partition(1).members(), members);
    }
    producer.reports(&nodes, 1, 100).await;
    nodes.stop_all().await;
}

/// I12: nothing that the node has leads to its state.
#[tokio::test(flavor = "multi_thread")]
async fn without_snapshot_and_history_a_node_refuses_its_directory() {
    let mut nodes = Nodes::start(1).await;
    let mut producer = Producer::open(&nodes).await;
    producer.reports(&nodes, 5, 100).await;
    purge(&nodes, 1).await;
    let log = nodes.partition(1).replica().log().clone();
    let purged = log.last_purged().expect("it is purged").index;
    let (done, released) = tokio::sync::oneshot::channel();
    log.release_history(purged + 1, Box::new(move |result| drop(done.send(result))));
    released.await.expect("an answer").expect("released");
    drop(log);
    nodes.stop(1).await;
    damage_newest_snapshot(&nodes, 1);
    // And it stays refused when the file is set aside.
    for _ in 0..2 {
        nodes.start_node(1, 1).await;
        let error = nodes.failure(1).await;
        nodes.stop(1).await;
        assert!(
            matches!(&error, NodeError::Partition(error) if error.is_lasting()),
            "{error}"
        );
        for said in [
            ".snapshot",
            &format!("entries 0 to {purged} of partition 0 are missing"),
            "rejoin the cluster under a new node id",
        ] {
            assert!(error.to_string().contains(said), "{said:?}: {error}");
        }
    }
}

/// DESIGN 8: nobody has it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_keeps_is_out_of_range_everywhere() {
    let (nodes, mut producer, away) = with_a_snapshot_sent(100).await;
    producer.reports(&nodes, 3, 100).await;
    for id in 1..=3 {
        nodes.ready(id).await;
        let log = nodes.partition(id).replica().log().clone();
        let purging = async {
            while log.last_purged().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, purging)
            .await
            .expect("openraft purges what the snapshot covers");
        let purged = log.last_purged().expect("it is purged").index;
        let (done, released) = tokio::sync::oneshot::channel();
        log.release_history(
            purged + 1,
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        released.await.expect("an answer").expect("released");
    }
    let own = nodes.partition(away).earliest_offset().await.expect("read");
    for id in 1..=3 {
        let refused = read(&nodes, id, own - 1).await.expect_err("it is gone");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let info = refused.get_details_error_info().expect("details");
        assert_eq!(info.metadata["earliest"], own.to_string());
        read(&nodes, id, own).await.expect("it is there");
    }
    nodes.stop_all().await;
}
