//! The services of a cluster of one: a real partition on a real disk, asked over
//! a real connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use huntlog_proto::encoded::event_service_server::EventServiceServer;
use huntlog_proto::v1;
use huntlog_proto::v1::admin_service_client::AdminServiceClient;
use huntlog_proto::v1::admin_service_server::AdminServiceServer;
use huntlog_proto::v1::append_stream_response::Result as StreamResult;
use huntlog_proto::v1::event_service_client::EventServiceClient;
use huntlog_proto::v1::hunt_service_client::HuntServiceClient;
use huntlog_proto::v1::hunt_service_server::HuntServiceServer;
use huntlog_storage::{Options, Storage};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

use super::*;
use crate::admin_http::{Health, TroubleKind};
use crate::connections::{Acceptor, http2_connections};
use crate::limits;
use crate::partition::{LogClock, Partition, PartitionParts, SnapshotEvery};
use crate::raft::{LocalIdentity, MachineRules, MemberNode, Peers, RaftTimings};
use crate::telemetry::Metrics;

#[path = "read_budget_tests.rs"]
mod read_budget;

struct Cluster {
    context: Arc<NodeContext>,
    partition: Arc<Partition>,
    metrics: Arc<Metrics>,
    channel: Channel,
    _dir: TempDir,
}

impl Cluster {
    /// A node that leads its cluster of one.
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (storage, _) = Storage::open(dir.path(), Options::default()).expect("it is fresh");
        let peers = Arc::new(Peers::new(
            LocalIdentity {
                cluster_name: "test".to_owned(),
                cluster_id: "c".repeat(32),
                node_id: 1,
                node_uuid: "1".repeat(32),
                levels: huntlog_machine::LevelRange::SUPPORTED,
            },
            None,
        ));
        let metrics = Arc::new(Metrics::new("test", 1, "test"));
        let health = Health::starting();
        let context = Arc::new(NodeContext::new(
            NodeInfo {
                version: "test".to_owned(),
            },
            peers.clone(),
            metrics.clone(),
            health.clone(),
        ));
        let partition = Partition::start(PartitionParts {
            id: 0,
            node_id: 1,
            cluster_name: "test".to_owned(),
            timings: RaftTimings {
                heartbeat_ms: 50,
                election_min_ms: 150,
                election_max_ms: 300,
            },
            snapshot_every: SnapshotEvery {
                bytes: 1 << 30,
                interval: Duration::from_secs(3_600),
            },
            retention: Default::default(),
            rules: MachineRules {
                limits: huntlog_machine::Limits::default(),
                ignore_digests_through: 0,
                levels: huntlog_machine::LevelRange::SUPPORTED,
            },
            storage,
            peers,
            append_budget: context.append_budget().clone(),
            clock: Arc::new(LogClock::new(1)),
            metrics: metrics.clone(),
        })
        .await
        .expect("it starts");
        let own = MemberNode {
            uuid: "1".repeat(32),
            peer_address: "127.0.0.1:1".to_owned(),
            client_address: "127.0.0.1:2".to_owned(),
            ..MemberNode::default()
        };
        partition
            .initialize(BTreeMap::from([(1, own)]))
            .await
            .expect("the first membership");
        let deadline = std::time::Instant::now() + limits::REQUEST_DEADLINE_DEFAULT;
        while partition.linearizable(deadline).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "it leads itself");
            tokio::task::yield_now().await;
        }
        context.serve(BTreeMap::from([(0, partition.clone())]));
        health.resolve(TroubleKind::Starting, None);
        let channel = serve(&context).await;
        Self {
            context,
            partition,
            metrics,
            channel,
            _dir: dir,
        }
    }

    fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
            .max_encoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX)
    }

    fn hunts(&self) -> HuntServiceClient<Channel> {
        HuntServiceClient::new(self.channel.clone())
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    async fn open(&self, session: &str, nonce: u8) -> v1::OpenSessionResponse {
        self.events()
            .open_session(v1::OpenSessionRequest {
                partition: 0,
                session: session.to_owned(),
                nonce: vec![nonce; 8].into(),
                epoch: 0,
            })
            .await
            .expect("it opens")
            .into_inner()
    }

    async fn append(&self, batch: v1::Batch) -> Result<v1::AppendResponse, Status> {
        let request = v1::AppendRequest {
            partition: 0,
            batch: Some(batch),
        };
        self.events()
            .append(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// A session with a hunt `h` that takes custom events; its next sequence is
    /// 2, its first offset 1.
    async fn with_hunt(&self) -> u64 {
        let epoch = self.open("s", 1).await.epoch;
        let answer = self
            .append(batch(epoch, 1, vec![created("h")]))
            .await
            .expect("applied");
        assert!(is_accepted(&answer.outcomes[0]));
        epoch
    }

    async fn read(&self, request: v1::ReadRequest) -> Result<Vec<v1::ReadResponse>, Status> {
        let stream = self.events().read(request).await?.into_inner();
        futures::TryStreamExt::try_collect(stream).await
    }
}

async fn serve(context: &Arc<NodeContext>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = Server::builder()
        .layer(RpcLayer::new(context.clone()))
        .add_service(
            EventServiceServer::new(EventApi::new(context.clone()))
                .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX),
        )
        .add_service(HuntServiceServer::new(HuntApi::new(context.clone())))
        .add_service(AdminServiceServer::new(AdminApi::new(context.clone())));
    let acceptor = Acceptor::new(Box::new(listener), limits::CLIENT_CONNECTIONS_MAX)
        .for_clients(context.metrics().clone());
    let connections = http2_connections(acceptor);
    tokio::spawn(server.serve_with_incoming(connections));
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect_lazy()
}

fn batch(epoch: u64, sequence: u64, events: Vec<v1::Event>) -> v1::Batch {
    v1::Batch {
        session: "s".to_owned(),
        epoch,
        sequence,
        events,
        expected_revisions: Vec::new(),
    }
}

fn event(hunt: &str, player: &str, kind: v1::event::Kind) -> v1::Event {
    v1::Event {
        hunt: hunt.to_owned(),
        player: player.to_owned(),
        occurred_at: None,
        kind: Some(kind),
    }
}

fn created(hunt: &str) -> v1::Event {
    let clue = v1::Clue {
        id: "c".to_owned(),
        answers: vec!["x".to_owned()],
        ..v1::Clue::default()
    };
    let definition = v1::HuntDefinition {
        title: format!("The {hunt}"),
        clues: vec![clue],
        ..v1::HuntDefinition::default()
    };
    event(
        hunt,
        "",
        v1::event::Kind::HuntCreated(v1::HuntCreated {
            definition: Some(definition),
        }),
    )
}

fn custom(hunt: &str, player: &str, payload_bytes: usize) -> v1::Event {
    let custom = v1::Custom {
        r#type: "position".to_owned(),
        payload: vec![7; payload_bytes].into(),
    };
    event(hunt, player, v1::event::Kind::Custom(custom))
}

fn is_accepted(outcome: &v1::EventOutcome) -> bool {
    matches!(
        outcome.outcome,
        Some(v1::event_outcome::Outcome::Accepted(_))
    )
}

fn offset_of(outcome: &v1::EventOutcome) -> u64 {
    match &outcome.outcome {
        Some(v1::event_outcome::Outcome::Accepted(accepted)) => accepted.offset,
        other => panic!("accepted, not {other:?}"),
    }
}

fn info(status: &Status) -> ErrorInfo {
    status.get_details_error_info().expect("details")
}

fn from_offset(offset: u64) -> v1::ReadRequest {
    v1::ReadRequest {
        from_offset: offset,
        ..v1::ReadRequest::default()
    }
}

fn subscription(start: v1::subscribe_request::Start) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        partition: 0,
        start: Some(start),
        filter: None,
    }
}

/// I3, I4: one name, one batch; one session, one producer.
#[tokio::test]
async fn appends_are_applied_once_and_fenced() {
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let second = batch(
        epoch,
        2,
        vec![custom("h", "p", 10), custom("unknown", "", 1)],
    );
    let first = cluster.append(second.clone()).await.expect("applied");
    assert!(!first.duplicate);
    assert_eq!(first.sequence, 2);
    assert_eq!(offset_of(&first.outcomes[0]), 1);
    assert!(!is_accepted(&first.outcomes[1]));
    let again = cluster.append(second).await.expect("applied before");
    assert!(again.duplicate);
    assert_eq!(again.outcomes, first.outcomes);
    assert_eq!(again.log_index, first.log_index);
    assert_eq!(again.committed_at, first.committed_at);

    let gap = cluster
        .append(batch(epoch, 4, vec![custom("h", "", 1)]))
        .await
        .expect_err("3 is missing");
    assert_eq!(gap.code(), Code::FailedPrecondition);
    let details = info(&gap);
    assert_eq!(details.reason, "SEQUENCE_GAP");
    assert_eq!(details.metadata["expected"], "3");
    assert_eq!(details.metadata["sequence"], "4");
    assert_eq!(details.metadata["disposition"], "NOT_APPLIED");

    let same = cluster.open("s", 1).await;
    assert_eq!((same.epoch, same.last_sequence), (epoch, 2));
    let reopened = cluster.open("s", 2).await;
    assert!(reopened.epoch > epoch && !reopened.fresh);
    let fenced = cluster
        .append(batch(epoch, 3, vec![custom("h", "", 1)]))
        .await
        .expect_err("fenced");
    assert_eq!(info(&fenced).reason, "FENCED");
    assert_eq!(info(&fenced).metadata["actual"], reopened.epoch.to_string());
}

#[tokio::test]
async fn requests_with_faults_are_refused_whole() {
    let cluster = Cluster::start().await;
    let status = cluster
        .append(batch(1, 0, vec![custom("", "", 1)]))
        .await
        .expect_err("two faults");
    assert_eq!(status.code(), Code::InvalidArgument);
    let bad = status.get_details_bad_request().expect("the fields");
    let fields: Vec<_> = bad
        .field_violations
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(fields, ["batch.sequence", "batch.events[0].hunt"]);
    let status = cluster
        .events()
        .append(v1::AppendRequest {
            partition: 9,
            batch: None,
        })
        .await
        .expect_err("no such partition");
    assert_eq!(info(&status).reason, "UNKNOWN_PARTITION");
    let status = cluster
        .events()
        .append(v1::AppendRequest::default())
        .await
        .expect_err("no batch");
    let bad = status.get_details_bad_request().expect("the fields");
    assert_eq!(bad.field_violations[0].field, "batch");
}

/// I5: the answers come in the order of the requests, the events too.
#[tokio::test]
async fn a_stream_carries_many_sessions_and_their_failures_in_order() {
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let other = cluster.open("other", 1).await.epoch;
    let mut requests = Vec::new();
    for sequence in 2..=300 {
        requests.push(batch(epoch, sequence, vec![custom("h", "", 20); 3]));
        let mut others = batch(other, sequence - 1, vec![custom("h", "", 20)]);
        others.session = "other".to_owned();
        requests.push(others);
        if sequence == 150 {
            requests.push(batch(epoch, 0, Vec::new()));
        }
    }
    let sent: Vec<_> = requests
        .iter()
        .map(|batch| (batch.session.clone(), batch.sequence))
        .collect();
    let stream = futures::stream::iter(requests.into_iter().map(|batch| v1::AppendRequest {
        partition: 0,
        batch: Some(batch),
    }));
    let answers: Vec<_> = cluster
        .events()
        .append_stream(stream)
        .await
        .expect("it opens")
        .into_inner()
        .map(|answer| answer.expect("in band"))
        .collect()
        .await;
    let answered: Vec<_> = answers
        .iter()
        .map(|answer| (answer.session.clone(), answer.sequence))
        .collect();
    assert_eq!(answered, sent);
    let mut next_offset = 1;
    for answer in answers {
        match answer.result.expect("answered") {
            StreamResult::Appended(appended) => {
                assert!(!appended.duplicate);
                for outcome in &appended.outcomes {
                    assert_eq!(offset_of(outcome), next_offset);
                    next_offset += 1;
                }
            }
            StreamResult::Failure(failure) => {
                assert_eq!((answer.sequence, failure.reason.as_str()), (0, "INVALID"));
                assert_eq!(failure.disposition(), v1::Disposition::NotApplied);
            }
        }
    }
    assert_eq!(next_offset, 1 + 299 * 4);
}

/// I2, I5: what was acknowledged is read, in order, whatever the message size.
#[tokio::test]
async fn history_is_read_in_bounded_messages() {
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let players = ["a", "b"];
    for sequence in 2..=5 {
        let events = (0..100)
            .map(|number| custom("h", players[number % 2], 4_000))
            .collect();
        cluster
            .append(batch(epoch, sequence, events))
            .await
            .expect("applied");
    }
    let messages = cluster.read(from_offset(0)).await.expect("read");
    assert!(messages.len() > 4, "1.6 MB in messages of 256 KiB");
    let mut next = 0;
    for message in &messages {
        let bytes = prost::Message::encoded_len(message);
        assert!(
            bytes <= limits::READ_MESSAGE_BYTES_TARGET + 5_000,
            "{bytes}"
        );
        for event in &message.events {
            assert_eq!(event.offset, next);
            next += 1;
        }
        assert_eq!((message.next_offset, message.end_offset), (next, 401));
        assert_eq!(message.staleness, None);
    }
    assert_eq!(next, 401);

    let limited = v1::ReadRequest {
        max_events: 7,
        ..from_offset(390)
    };
    let messages = cluster.read(limited).await.expect("read");
    let offsets: Vec<_> = messages[0]
        .events
        .iter()
        .map(|event| event.offset)
        .collect();
    assert_eq!(offsets, (390..397).collect::<Vec<_>>());
    assert_eq!((messages.len(), messages[0].next_offset), (1, 397));

    let filtered = v1::ReadRequest {
        filter: Some(v1::Filter {
            players: vec!["b".to_owned()],
            types: vec![v1::EventType::Custom.into()],
            ..v1::Filter::default()
        }),
        ..from_offset(0)
    };
    let messages = cluster.read(filtered).await.expect("read");
    let matched: Vec<_> = messages
        .iter()
        .flat_map(|message| &message.events)
        .collect();
    assert_eq!(matched.len(), 200);
    assert!(matched.iter().all(|event| event.offset % 2 == 0));
    assert_eq!(messages.last().expect("one").next_offset, 401);
}

#[tokio::test]
async fn a_read_says_where_it_ends_and_how_old_it_can_be() {
    let cluster = Cluster::start().await;
    cluster.with_hunt().await;
    let at_end = cluster.read(from_offset(1)).await.expect("read");
    assert_eq!(at_end.len(), 1);
    assert!(at_end[0].events.is_empty());
    assert_eq!((at_end[0].next_offset, at_end[0].end_offset), (1, 1));
    let beyond = cluster.read(from_offset(2)).await.expect_err("beyond");
    assert_eq!(beyond.code(), Code::OutOfRange);
    assert_eq!(info(&beyond).metadata["end"], "1");

    let stale = |min_offset| v1::ReadRequest {
        consistency: Some(v1::Consistency {
            level: Some(v1::consistency::Level::Stale(v1::Stale { min_offset })),
        }),
        ..from_offset(0)
    };
    let read = cluster.read(stale(1)).await.expect("read");
    let staleness = read[0].staleness.expect("a stale read says so");
    assert_eq!(
        staleness.since_leader_contact,
        Some(prost_types::Duration::default())
    );
    let mut late = tonic::Request::new(stale(99));
    late.set_timeout(Duration::from_secs(1));
    let status = cluster.events().read(late).await.expect_err("never there");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(info(&status).metadata["actual"], "1");
}

/// I5: history, then what is committed, without a gap and without a repetition.
#[tokio::test]
async fn a_subscription_goes_on_from_history_into_the_present() {
    use v1::subscribe_request::Start;
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let mut stream = cluster
        .events()
        .subscribe(subscription(Start::FromOffset(0)))
        .await
        .expect("subscribed")
        .into_inner();
    let mut offsets = Vec::new();
    for sequence in 2..=20 {
        cluster
            .append(batch(epoch, sequence, vec![custom("h", "", 9); 5]))
            .await
            .expect("applied");
    }
    while offsets.len() < 96 {
        let message = stream.next().await.expect("more").expect("no failure");
        offsets.extend(message.events.iter().map(|event| event.offset));
        assert_eq!(message.next_offset, offsets.len() as u64);
    }
    assert_eq!(offsets, (0..96).collect::<Vec<_>>());

    let mut tail = cluster
        .events()
        .subscribe(subscription(Start::FromEnd(())))
        .await
        .expect("subscribed")
        .into_inner();
    let first = tail.next().await.expect("progress").expect("no failure");
    assert!(first.events.is_empty());
    assert_eq!(first.next_offset, 96);
    let progress = tail.next().await.expect("progress").expect("no failure");
    assert!(progress.events.is_empty());
    cluster
        .append(batch(epoch, 21, vec![custom("h", "", 9)]))
        .await
        .expect("applied");
    let message = loop {
        let message = tail.next().await.expect("more").expect("no failure");
        if !message.events.is_empty() {
            break message;
        }
    };
    assert_eq!(message.events[0].offset, 96);

    let status = cluster
        .events()
        .subscribe(subscription(Start::FromOffset(98)))
        .await
        .expect_err("beyond the end");
    assert_eq!(status.code(), Code::OutOfRange);
    let status = cluster
        .events()
        .subscribe(v1::SubscribeRequest::default())
        .await
        .expect_err("no start");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_filtered_subscription_hears_of_its_progress() {
    use v1::subscribe_request::Start;
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let mut request = subscription(Start::FromOffset(0));
    request.filter = Some(v1::Filter {
        hunts: vec!["another".to_owned()],
        ..v1::Filter::default()
    });
    let mut stream = cluster
        .events()
        .subscribe(request)
        .await
        .expect("subscribed")
        .into_inner();
    cluster
        .append(batch(epoch, 2, vec![custom("h", "", 9); 5]))
        .await
        .expect("applied");
    loop {
        let message = stream.next().await.expect("more").expect("no failure");
        assert!(message.events.is_empty());
        if message.next_offset == 6 {
            break;
        }
    }
}

#[tokio::test]
async fn hunts_are_answered_and_what_is_missing_is_named() {
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let registered = event(
        "h",
        "p",
        v1::event::Kind::PlayerRegistered(v1::PlayerRegistered {
            display_name: "Foxes".to_owned(),
        }),
    );
    let opened = event("h", "", v1::event::Kind::HuntOpened(v1::HuntOpened {}));
    cluster
        .append(batch(
            epoch,
            2,
            vec![opened, registered, created("i"), created("j")],
        ))
        .await
        .expect("applied");
    let mut hunts = cluster.hunts();
    let answer = hunts
        .get_hunt(v1::GetHuntRequest {
            partition: 0,
            hunt: "h".to_owned(),
            consistency: None,
        })
        .await
        .expect("found")
        .into_inner();
    let hunt = answer.hunt.expect("it");
    assert_eq!((hunt.id.as_str(), hunt.revision), ("h", 3));
    assert_eq!(hunt.state(), v1::HuntState::Open);
    let as_of = answer.as_of.expect("a moment");
    assert_eq!((as_of.offset, as_of.staleness), (5, None));

    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = hunts
            .list_hunts(v1::ListHuntsRequest {
                partition: 0,
                page_size: 2,
                page_token,
                consistency: None,
            })
            .await
            .expect("listed")
            .into_inner();
        assert!(page.hunts.len() <= 2);
        listed.extend(page.hunts.into_iter().map(|hunt| hunt.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ["h", "i", "j"]);

    let mut player = async |hunt: &str, player: &str| {
        hunts
            .get_player(v1::GetPlayerRequest {
                partition: 0,
                hunt: hunt.to_owned(),
                player: player.to_owned(),
                consistency: None,
            })
            .await
            .map(|answer| answer.into_inner().player.expect("it"))
    };
    assert_eq!(player("h", "p").await.expect("found").display_name, "Foxes");
    for (hunt, id, missing) in [("h", "q", "player"), ("x", "p", "hunt")] {
        let status = player(hunt, id).await.expect_err("missing");
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(info(&status).metadata["missing"], missing);
    }
    let scoreboard = cluster
        .hunts()
        .get_scoreboard(v1::GetScoreboardRequest {
            hunt: "h".to_owned(),
            ..v1::GetScoreboardRequest::default()
        })
        .await
        .expect("found")
        .into_inner();
    assert_eq!(
        (scoreboard.total, scoreboard.rows[0].player.as_str()),
        (1, "p")
    );
}

#[tokio::test]
async fn an_operator_sees_the_node_and_its_sessions() {
    let cluster = Cluster::start().await;
    cluster.with_hunt().await;
    for number in 0..3 {
        cluster.open(&format!("t{number}"), 1).await;
    }
    let status = cluster
        .admin()
        .get_status(v1::GetStatusRequest {})
        .await
        .expect("answered")
        .into_inner();
    assert_eq!((status.node_id, status.version.as_str()), (1, "test"));
    assert_eq!(status.cluster_name, "test");
    let partition = &status.partitions[0];
    assert_eq!(partition.role(), v1::Role::Leader);
    assert!(partition.ready);
    assert_eq!((partition.leader_id, partition.end_offset), (1, 1));
    assert_eq!((partition.sessions, partition.hunts), (4, 1));
    assert_eq!(partition.members.len(), 1);
    assert!(partition.members[0].voter);
    assert_eq!(partition.digest.len(), 16);
    assert_eq!(partition.digest_log_index, partition.applied_log_index);
    assert_eq!(partition.since_leader_contact, None);
    assert!(partition.durable_log_index >= partition.applied_log_index);

    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = cluster
            .admin()
            .list_sessions(v1::ListSessionsRequest {
                partition: 0,
                page_size: 3,
                page_token,
            })
            .await
            .expect("listed")
            .into_inner();
        names.extend(page.sessions.into_iter().map(|session| session.session));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["s", "t0", "t1", "t2"]);

    let snapshot = cluster
        .admin()
        .take_snapshot(v1::TakeSnapshotRequest { partition: 0 })
        .await
        .expect("taken")
        .into_inner();
    assert!(snapshot.log_index >= partition.applied_log_index);
    assert!(snapshot.size_bytes > 0);
    let refused = cluster
        .admin()
        .transfer_leader(v1::TransferLeaderRequest {
            partition: 0,
            to_node_id: 9,
        })
        .await
        .expect_err("no voter");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_draining_node_refuses_writes_and_ends_subscriptions() {
    use v1::subscribe_request::Start;
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    let mut stream = cluster
        .events()
        .subscribe(subscription(Start::FromEnd(())))
        .await
        .expect("subscribed")
        .into_inner();
    cluster.context.drain();
    let status = loop {
        match stream.next().await.expect("a status") {
            Ok(message) => assert!(message.events.is_empty()),
            Err(status) => break status,
        }
    };
    assert_eq!(info(&status).reason, "DRAINING");
    let status = cluster
        .append(batch(epoch, 2, vec![custom("h", "", 1)]))
        .await
        .expect_err("draining");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(info(&status).reason, "DRAINING");
    assert_eq!(info(&status).metadata["disposition"], "NOT_APPLIED");
    assert!(status.get_details_retry_info().is_some());
    cluster.partition.shutdown().await;
}

#[tokio::test]
async fn requests_are_counted_by_method_and_code() {
    let cluster = Cluster::start().await;
    cluster.with_hunt().await;
    cluster
        .append(v1::Batch::default())
        .await
        .expect_err("invalid");
    let text = cluster.metrics.encode();
    let counted = |method: &str, code: &str| {
        text.lines().any(|line| {
            line.starts_with("huntlog_rpc_total") && line.contains(method) && line.contains(code)
        })
    };
    assert!(counted("EventService/Append", "OK"));
    assert!(counted("EventService/Append", "INVALID_ARGUMENT"));
    assert!(counted("EventService/OpenSession", "OK"));
}

/// Sends bytes as they are, and takes no answer for one.
#[derive(Clone, Copy, Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let bytes = bytes::Buf::remaining(from);
        bytes::Buf::advance(from, bytes);
        Ok(Some(()))
    }
}

/// Bytes that are no message are the caller's fault, whatever the method.
#[tokio::test]
async fn garbage_is_refused_by_every_method() {
    use prost::Message as _;
    let cluster = Cluster::start().await;
    let set = prost_types::FileDescriptorSet::decode(huntlog_proto::FILE_DESCRIPTOR_SET);
    let files = set.expect("it was compiled").file;
    let mut asked = 0;
    for file in files.iter().filter(|file| file.package() == "huntlog.v1") {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/huntlog.v1.{}/{}", service.name(), method.name());
                let mut grpc = tonic::client::Grpc::new(cluster.channel.clone());
                grpc.ready().await.expect("connected");
                let garbage = futures::stream::iter([vec![0xff; 7]]);
                let to = path.parse().expect("a path");
                let answer = grpc.streaming(tonic::Request::new(garbage), to, Raw).await;
                let status = match answer {
                    Err(status) => status,
                    Ok(answers) => answers.into_inner().message().await.expect_err(&path),
                };
                assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
                assert_eq!(info(&status).reason, "INVALID", "{path}");
                assert_eq!(info(&status).metadata["disposition"], "NOT_APPLIED");
                asked += 1;
            }
        }
    }
    assert!(asked >= 19, "of {asked} methods");
    cluster.partition.shutdown().await;
}
