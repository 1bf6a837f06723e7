//! The table of answers, over the wire: what is wrong is said by code,
//! reason and disposition, and harms nothing.

use huntlog_client::event;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_client::proto::hunt_service_client::HuntServiceClient;
use huntlog_client::proto::{
    AppendRequest, AppendResponse, Batch, Clue, Event, EventType, ExpectedRevision, Filter,
    GetHuntRequest, GetPlayerRequest, GetStatusRequest, HuntDefinition, OpenSessionRequest,
    PlayerRegistered, ReadRequest, RejectReason, event::Kind, expected_revision::Expected,
};
use huntlog_jepsen::{Cluster, channel};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const HUNT: &str = "quay";

struct Wire {
    events: EventServiceClient<Channel>,
    hunts: HuntServiceClient<Channel>,
    epoch: u64,
    sequence: u64,
}

impl Wire {
    /// Opens a session on the node `id` and creates a running hunt.
    async fn open(cluster: &Cluster, id: u64, session: &str) -> Self {
        let address = cluster
            .nodes()
            .iter()
            .find(|node| node.spec().id == id)
            .expect("a node")
            .spec()
            .client_address();
        let channel = channel(&address).await.expect("it listens");
        let mut events = EventServiceClient::new(channel.clone());
        let opened = events
            .open_session(OpenSessionRequest {
                partition: 0,
                session: session.to_owned(),
                nonce: vec![1; 16].into(),
                epoch: 0,
            })
            .await
            .expect("opened")
            .into_inner();
        assert!(opened.fresh && opened.last_sequence == 0, "{opened:?}");
        Self {
            events,
            hunts: HuntServiceClient::new(channel),
            epoch: opened.epoch,
            sequence: 0,
        }
    }

    fn batch(&self, session: &str, sequence: u64, events: Vec<Event>) -> Batch {
        Batch {
            session: session.to_owned(),
            epoch: self.epoch,
            sequence,
            events,
            expected_revisions: Vec::new(),
        }
    }

    async fn send(&mut self, batch: Batch) -> Result<AppendResponse, Status> {
        let request = AppendRequest {
            partition: 0,
            batch: Some(batch),
        };
        Ok(self.events.append(request).await?.into_inner())
    }

    async fn append(&mut self, session: &str, events: Vec<Event>) -> AppendResponse {
        self.sequence += 1;
        let batch = self.batch(session, self.sequence, events);
        self.send(batch).await.expect("appended")
    }
}

fn definition() -> HuntDefinition {
    HuntDefinition {
        title: "The quay".into(),
        clues: vec![
            Clue {
                id: "crane".into(),
                answers: vec!["forty tons".into()],
                points: 2,
                ..Clue::default()
            },
            Clue {
                id: "rail".into(),
                answers: vec!["gauge".into()],
                requires: vec!["crane".into()],
                points: 3,
                ..Clue::default()
            },
        ],
        ..HuntDefinition::default()
    }
}

fn reasons(response: &AppendResponse) -> Vec<Option<RejectReason>> {
    response
        .outcomes
        .iter()
        .map(
            |outcome| match outcome.outcome.as_ref().expect("an outcome") {
                Outcome::Accepted(_) => None,
                Outcome::Rejected(rejected) => Some(rejected.reason()),
            },
        )
        .collect()
}

/// Checks code, reason and disposition, and answers the reason's metadata.
fn expect(
    status: &Status,
    code: Code,
    reason: &str,
    disposition: Option<&str>,
) -> std::collections::HashMap<String, String> {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "huntlog");
    assert_eq!(info.reason, reason, "{}", status.message());
    assert_eq!(
        info.metadata.get("disposition").map(String::as_str),
        disposition,
        "{}",
        status.message()
    );
    info.metadata
}

fn fields_at_fault(status: &Status) -> Vec<String> {
    status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("no BadRequest in {status:?}"))
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_sequences_and_epochs_are_answered_as_tabled() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    // A follower: everything is forwarded.
    let leader = cluster.leader().await.expect("a leader");
    let mut wire = Wire::open(&cluster, leader % 3 + 1, "s").await;
    let created = vec![
        event::hunt_created(HUNT, definition()),
        event::hunt_opened(HUNT),
    ];
    let first = wire.append("s", created.clone()).await;
    assert_eq!(reasons(&first), [None, None]);

    // A duplicate: OK, the first result.
    let again = wire.send(wire.batch("s", 1, created)).await.expect("OK");
    assert!(again.duplicate && !first.duplicate);
    assert_eq!(again.outcomes, first.outcomes);

    // The same sequence, another payload.
    let other = wire.batch("s", 1, vec![event::hunt_started(HUNT)]);
    let status = wire.send(other).await.expect_err("another payload");
    expect(
        &status,
        Code::FailedPrecondition,
        "PAYLOAD_MISMATCH",
        Some("NOT_APPLIED"),
    );

    // A gap.
    let gap = wire.batch("s", 5, vec![event::hunt_started(HUNT)]);
    let status = wire.send(gap).await.expect_err("a gap");
    let metadata = expect(
        &status,
        Code::FailedPrecondition,
        "SEQUENCE_GAP",
        Some("NOT_APPLIED"),
    );
    assert_eq!(metadata["expected"], "2");

    // An unknown session.
    let unknown = wire.batch("nobody", 1, vec![event::hunt_started(HUNT)]);
    let status = wire.send(unknown).await.expect_err("nobody opened it");
    expect(
        &status,
        Code::FailedPrecondition,
        "SESSION_UNKNOWN",
        Some("NOT_APPLIED"),
    );

    // Fenced by a later opening (I4); the same nonce gets the same epoch.
    let stale = wire.batch("s", 2, vec![event::hunt_started(HUNT)]);
    let mut request = OpenSessionRequest {
        partition: 0,
        session: "s".into(),
        nonce: vec![2; 16].into(),
        epoch: 0,
    };
    let reopened = wire
        .events
        .open_session(request.clone())
        .await
        .expect("opened")
        .into_inner();
    assert!(!reopened.fresh && reopened.last_sequence == 1 && reopened.epoch > wire.epoch);
    let same = wire
        .events
        .open_session(request.clone())
        .await
        .expect("opened")
        .into_inner();
    assert_eq!(same.epoch, reopened.epoch);
    let status = wire.send(stale).await.expect_err("fenced");
    expect(
        &status,
        Code::FailedPrecondition,
        "FENCED",
        Some("NOT_APPLIED"),
    );

    // Nor does opening it again give it back to whoever goes on from there.
    let mut back = request.clone();
    (back.nonce, back.epoch) = (vec![3; 16].into(), wire.epoch);
    let status = wire.events.open_session(back).await;
    expect(
        &status.expect_err("fenced"),
        Code::FailedPrecondition,
        "FENCED",
        Some("NOT_APPLIED"),
    );

    // A failed expectation uses its sequence up.
    wire.epoch = reopened.epoch;
    let mut wrong = wire.batch("s", 2, vec![event::hunt_started(HUNT)]);
    wrong.expected_revisions = vec![ExpectedRevision {
        hunt: HUNT.into(),
        expected: Some(Expected::Exactly(7)),
    }];
    let status = wire
        .send(wrong.clone())
        .await
        .expect_err("the revision is 2");
    let metadata = expect(
        &status,
        Code::FailedPrecondition,
        "REVISION_MISMATCH",
        Some("NOT_APPLIED"),
    );
    assert_eq!(
        (metadata["expected"].as_str(), metadata["actual"].as_str()),
        ("7", "2")
    );
    let mut right = wire.batch("s", 3, vec![event::hunt_started(HUNT)]);
    right.expected_revisions = vec![event::expect_revision(HUNT, 2)];
    let started = wire.send(right).await.expect("the revision is 2");
    assert_eq!(reasons(&started), [None]);

    request.session.clear();
    request.nonce = vec![1; 3].into();
    let status = wire
        .events
        .open_session(request)
        .await
        .expect_err("no name");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    assert_eq!(fields_at_fault(&status), ["session", "nonce"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_a_hunt_reject_and_malformed_batches_are_refused() {
    let cluster = Cluster::start(1).await.expect("a cluster of one");
    let mut wire = Wire::open(&cluster, 1, "s").await;
    let outcomes = wire
        .append(
            "s",
            vec![
                event::hunt_started(HUNT),
                event::hunt_created(HUNT, definition()),
                event::hunt_created(HUNT, definition()),
                event::hunt_opened(HUNT),
                event::player_registered(HUNT, "ada", "Ada"),
                event::clue_attempted(HUNT, "ada", "crane", "forty tons"),
                event::hunt_started(HUNT),
                event::clue_attempted(HUNT, "bob", "crane", "forty tons"),
                event::clue_attempted(HUNT, "ada", "rail", "gauge"),
                event::clue_attempted(HUNT, "ada", "anchor", "gauge"),
                event::clue_attempted(HUNT, "ada", "crane", "FORTY-tons!"),
                event::clue_attempted(HUNT, "ada", "crane", "forty tons"),
                event::treasure_claimed(HUNT, "ada", "chest"),
            ],
        )
        .await;
    use RejectReason as R;
    assert_eq!(
        reasons(&outcomes),
        [
            Some(R::HuntUnknown),
            None,
            Some(R::HuntExists),
            None,
            None,
            Some(R::HuntNotRunning),
            None,
            Some(R::PlayerUnknown),
            Some(R::ClueLocked),
            Some(R::ClueUnknown),
            None,
            Some(R::ClueSolved),
            Some(R::TreasureUnknown),
        ]
    );

    // Every fault of a batch, by field.
    let faulty = wire.batch(
        "s",
        2,
        vec![
            Event::default(),
            event::clue_attempted("", "ada", "crane", "x"),
            event::player_registered(HUNT, "a\u{7}b", ""),
            event::hunt_created(
                "h2",
                HuntDefinition {
                    clues: vec![
                        Clue {
                            id: "a".into(),
                            requires: vec!["b".into(), "gone".into()],
                            answers: vec!["x".into()],
                            ..Clue::default()
                        },
                        Clue {
                            id: "b".into(),
                            requires: vec!["a".into()],
                            answers: vec!["x".into()],
                            ..Clue::default()
                        },
                        Clue {
                            id: "a".into(),
                            answers: vec!["x".into()],
                            ..Clue::default()
                        },
                    ],
                    starts_at: Some(prost_timestamp(2_000)),
                    ends_at: Some(prost_timestamp(1_000)),
                    ..HuntDefinition::default()
                },
            ),
        ],
    );
    let status = wire.send(faulty).await.expect_err("faulty");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    let fields = fields_at_fault(&status);
    for field in [
        "batch.events[0].kind",
        "batch.events[1].hunt",
        "batch.events[2].player",
    ] {
        assert!(
            fields.iter().any(|f| f == field),
            "{field} is not among {fields:?}"
        );
    }
    let definition_faults = fields
        .iter()
        .filter(|f| f.starts_with("batch.events[3]"))
        .count();
    assert!(
        definition_faults >= 4,
        "unknown, cycle, duplicate, times: {fields:?}"
    );

    // Empty, too many, and no batch at all: nothing is used up.
    let status = wire
        .send(wire.batch("s", 2, Vec::new()))
        .await
        .expect_err("empty");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    let many = vec![event::hunt_opened(HUNT); 4_097];
    let status = wire
        .send(wire.batch("s", 2, many))
        .await
        .expect_err("too many");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    let status = wire
        .events
        .append(AppendRequest::default())
        .await
        .expect_err("no batch");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    let large = event::custom(HUNT, "", "chat", vec![0; (1 << 20) + 1]);
    let status = wire
        .send(wire.batch("s", 2, vec![large]))
        .await
        .expect_err("too large");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    // Larger than the transport takes: no handler sees it, the answer is the same.
    let huge = vec![event::custom(HUNT, "", "chat", vec![0; 1_000_000]); 7];
    let status = wire
        .send(wire.batch("s", 2, huge))
        .await
        .expect_err("too large");
    expect(
        &status,
        Code::InvalidArgument,
        "INVALID",
        Some("NOT_APPLIED"),
    );
    assert_eq!(fields_at_fault(&status), ["batch"]);
    let status = wire
        .events
        .append(AppendRequest {
            partition: 9,
            batch: None,
        })
        .await
        .expect_err("no such partition");
    assert!(
        matches!(status.code(), Code::InvalidArgument | Code::NotFound),
        "{status:?}"
    );

    // What it answers afterwards is what it answered before.
    let next = wire.append("s", vec![event::hunt_paused(HUNT)]).await;
    assert_eq!((next.sequence, reasons(&next)), (2, vec![None]));
}

fn prost_timestamp(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_answer_what_is_there_and_name_what_is_not() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let mut wire = Wire::open(&cluster, 2, "s").await;
    wire.append("s", vec![event::hunt_created(HUNT, definition())])
        .await;
    let mut registered = Vec::new();
    for player in ["ada", "bob"] {
        registered.push(Event {
            hunt: HUNT.into(),
            player: player.into(),
            occurred_at: None,
            kind: Some(Kind::PlayerRegistered(PlayerRegistered::default())),
        });
    }
    registered.insert(0, event::hunt_opened(HUNT));
    wire.append("s", registered).await;

    // Acknowledged through node 2: every node's linearizable read has it (I6).
    for node in cluster.nodes() {
        let channel = channel(&node.spec().client_address())
            .await
            .expect("it listens");
        let mut hunts = HuntServiceClient::new(channel.clone());
        let hunt = hunts
            .get_hunt(GetHuntRequest {
                partition: 0,
                hunt: HUNT.into(),
                consistency: None,
            })
            .await
            .expect("found")
            .into_inner();
        assert_eq!(
            hunt.hunt.as_ref().map(|hunt| (hunt.revision, hunt.players)),
            Some((4, 2))
        );
        let clue = &hunt
            .hunt
            .expect("a hunt")
            .definition
            .expect("its definition")
            .clues[0];
        assert!(
            clue.answers.is_empty() && clue.answer_hashes.len() == 1,
            "{clue:?}"
        );

        let mut events = EventServiceClient::new(channel.clone());
        let mut stream = events
            .read(ReadRequest {
                from_offset: 1,
                max_events: 2,
                filter: Some(Filter {
                    types: vec![EventType::PlayerRegistered.into()],
                    ..Filter::default()
                }),
                ..ReadRequest::default()
            })
            .await
            .expect("the read begins")
            .into_inner();
        let mut players = Vec::new();
        while let Some(message) = stream.message().await.expect("it goes on") {
            players.extend(
                message
                    .events
                    .into_iter()
                    .filter_map(|e| Some(e.event?.player)),
            );
        }
        assert_eq!(players, ["ada", "bob"]);

        let status = AdminServiceClient::new(channel)
            .get_status(GetStatusRequest {})
            .await
            .expect("a status")
            .into_inner();
        assert!(status.partitions[0].ready && !status.cluster_id.is_empty());
    }

    let status = wire
        .hunts
        .get_hunt(GetHuntRequest {
            partition: 0,
            hunt: "atlantis".into(),
            consistency: None,
        })
        .await
        .expect_err("no such hunt");
    expect(&status, Code::NotFound, "NOT_FOUND", None);
    let status = wire
        .hunts
        .get_player(GetPlayerRequest {
            partition: 0,
            hunt: HUNT.into(),
            player: "eve".into(),
            consistency: None,
        })
        .await
        .expect_err("no such player");
    expect(&status, Code::NotFound, "NOT_FOUND", None);
    let unknown_type = ReadRequest {
        filter: Some(Filter {
            types: vec![99],
            ..Filter::default()
        }),
        ..ReadRequest::default()
    };
    let status = wire
        .events
        .read(unknown_type)
        .await
        .expect_err("no such type");
    expect(&status, Code::InvalidArgument, "INVALID", None);
}
