//! Clients that misbehave cost bounded memory, are told what is wrong where
//! they can be, and harm nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use huntlog_client::event;
use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_client::proto::{
    AppendRequest, AppendStreamResponse, Batch, Clue, HuntDefinition, OpenSessionRequest,
    OpenSessionResponse, ReadRequest, SubscribeRequest, append_stream_response::Result as Answer,
    event_outcome::Outcome, subscribe_request::Start,
};
use huntlog_jepsen::{Cluster, NodeProcess};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::support::{check_all_nodes, get};

const HUNT: &str = "cove";
const MIB: u64 = 1 << 20;
/// A new connection has five seconds to begin.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(15);

/// A connection that is no other's.
async fn connect(address: &str) -> EventServiceClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("it listens");
    EventServiceClient::new(channel).max_decoding_message_size(16 << 20)
}

async fn open(client: &mut EventServiceClient<Channel>, session: &str) -> OpenSessionResponse {
    let nonce = format!("a nonce {}", std::process::id())
        .into_bytes()
        .into();
    let request = OpenSessionRequest {
        partition: 0,
        session: session.to_owned(),
        nonce,
        epoch: 0,
    };
    client
        .open_session(request)
        .await
        .expect("opened")
        .into_inner()
}

/// Makes the hunt that all requests are about, at offset 0.
async fn create_hunt(client: &mut EventServiceClient<Channel>) {
    let opened = open(client, "organiser").await;
    let mut created = request("organiser", opened.epoch, 1, 0);
    let definition = HuntDefinition {
        clues: vec![Clue {
            id: "a".to_owned(),
            answers: vec!["b".to_owned()],
            ..Clue::default()
        }],
        ..HuntDefinition::default()
    };
    let batch = created.batch.as_mut().expect("it has one");
    batch.events = vec![event::hunt_created(HUNT, definition)];
    client.append(created).await.expect("created");
}

fn request(session: &str, epoch: u64, sequence: u64, payload_bytes: usize) -> AppendRequest {
    AppendRequest {
        partition: 0,
        batch: Some(Batch {
            session: session.to_owned(),
            epoch,
            sequence,
            events: vec![event::custom(HUNT, "", "chat", vec![7; payload_bytes])],
            expected_revisions: Vec::new(),
        }),
    }
}

/// What the process has in memory.
fn resident_bytes(node: &NodeProcess) -> u64 {
    let pid = node.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("every process has one");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Sends `bytes`, and answers what comes back until the node closes.
async fn say(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = timeout(GIVEN_UP_WITHIN, stream.read_to_end(&mut answer))
        .await
        .unwrap_or_else(|_| panic!("{address} does not close on {bytes:?}"));
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_and_slow_ones_are_given_up_on_every_port() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let spec = cluster.nodes()[0].spec().clone();
    let (client, peer) = (spec.client_address(), spec.peer_address());
    let admin = spec.admin_address();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    // Those that drag on, while the others are talked to.
    let mut slow = Vec::new();
    for address in [&client, &peer, &admin] {
        for beginning in [&b""[..], b"P", b"GET /livez HT", &preface[..20]] {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(beginning).await.expect("sent");
            slow.push(stream);
        }
    }

    for address in [&client, &peer] {
        let http1 = say(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let http1 = String::from_utf8(http1).expect("text");
        assert!(
            http1.starts_with("HTTP/1.1 505 ") && http1.contains("gRPC"),
            "{http1}"
        );
        let tls = say(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
        assert_eq!(tls[..3], [0x15, 0x03, 0x01], "a TLS alert: {tls:?}");
        assert!(say(address, &[0xff; 4096]).await.is_empty());
        // HTTP/2, and then frames that make no sense: a GOAWAY.
        let garbage = [&preface[..], b"\0\0\0\x04\0\0\0\0\0", &[0xff; 4096]].concat();
        let answer = say(address, &garbage).await;
        assert!(!answer.is_empty());
    }
    let answer = say(&admin, &[0xff; 4096]).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    let answer = say(&admin, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");

    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = timeout(GIVEN_UP_WITHIN, stream.read_to_end(&mut rest))
            .await
            .expect("who does not begin is given up");
    }
    let log = cluster.nodes()[0].log();
    assert!(
        log.contains("began as HTTP/1, not as HTTP/2 without TLS"),
        "{log}"
    );

    // Headers past their limit are refused, and the connection goes on.
    let mut events = connect(&client).await;
    let mut large = tonic::Request::new(OpenSessionRequest::default());
    large.metadata_mut().insert(
        "x-large",
        "x".repeat(20_000).parse().expect("a header value"),
    );
    let refused = events.open_session(large).await.expect_err("too large");
    // The transport's answer: HTTP status 431.
    assert!(refused.message().contains("431"), "{refused:?}");
    let opened = open(&mut events, "after all").await;
    let answer = events
        .append(request("after all", opened.epoch, 1, 10))
        .await
        .expect("it serves");
    assert_eq!(answer.into_inner().sequence, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_abandoned_streams_leave_nothing_behind() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let spec = cluster.nodes()[0].spec().clone();
    let address = spec.client_address();
    let mut warm = connect(&address).await;
    create_hunt(&mut warm).await;
    let opened = open(&mut warm, "before").await;
    warm.append(request("before", opened.epoch, 1, 10))
        .await
        .expect("it serves");

    let before = resident_bytes(&cluster.nodes()[0]);
    let mut most = before;
    for _ in 0..5 {
        // One connection each time, cut with its 2,000 streams open.
        let client = connect(&address).await;
        let mut streams = Vec::new();
        for number in 0..2_000 {
            let mut client = client.clone();
            streams.push(tokio::spawn(async move {
                if number % 2 == 0 {
                    let (sender, receiver) = tokio::sync::mpsc::channel::<AppendRequest>(1);
                    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
                    let answers = client.append_stream(receiver).await.expect("opened");
                    (Some((sender, answers)), None)
                } else {
                    let request = SubscribeRequest {
                        start: Some(Start::FromOffset(0)),
                        ..SubscribeRequest::default()
                    };
                    let answers = client.subscribe(request).await.expect("opened");
                    (None, Some(answers))
                }
            }));
        }
        let mut open = Vec::new();
        for stream in streams {
            open.push(stream.await.expect("no panic"));
        }
        let metrics = get(&spec.admin_address(), "/metrics").await;
        assert!(metrics.contains("huntlog_subscribers 1000"), "{metrics}");
        most = most.max(resident_bytes(&cluster.nodes()[0]));
    }
    cluster
        .wait_for("every abandoned stream being gone", async || {
            let metrics = get(&spec.admin_address(), "/metrics").await;
            let gone = metrics.contains("huntlog_subscribers 0\n")
                && metrics.contains("huntlog_client_connections 1\n");
            gone.then_some(())
        })
        .await
        .expect("they are noticed");
    let after = resident_bytes(&cluster.nodes()[0]);
    eprintln!(
        "resident: {} MiB before, {} with 2,000 streams, {} after 10,000",
        before / MIB,
        most / MIB,
        after / MIB
    );
    assert!(
        most - before < 128 * MIB,
        "2,000 streams cost {}",
        most - before
    );
    assert!(after.saturating_sub(before) < 64 * MIB);
    warm.append(request("before", opened.epoch, 2, 10))
        .await
        .expect("it still serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_cost_bounded_memory_and_stall_nobody() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let address = cluster.nodes()[0].spec().client_address();
    let mut writer = connect(&address).await;
    create_hunt(&mut writer).await;
    let opened = open(&mut writer, "writer").await;
    for sequence in 1..=32 {
        writer
            .append(request("writer", opened.epoch, sequence, 900_000))
            .await
            .expect("appended");
    }
    let before = resident_bytes(&cluster.nodes()[0]);
    // Each has a connection of its own, whose windows fill up; none ever reads.
    let mut held = Vec::new();
    for number in 0..100 {
        let mut client = connect(&address).await;
        if number % 2 == 0 {
            let request = SubscribeRequest {
                start: Some(Start::FromOffset(0)),
                ..SubscribeRequest::default()
            };
            let answers = client.subscribe(request).await.expect("opened");
            held.push((Some(answers.into_inner()), None));
        } else {
            let answers = client.read(ReadRequest::default()).await.expect("opened");
            held.push((None, Some(answers.into_inner())));
        }
    }
    // Meanwhile others are served.
    for sequence in 33..=132 {
        let append = writer.append(request("writer", opened.epoch, sequence, 10_000));
        timeout(Duration::from_secs(5), append)
            .await
            .expect("nobody waits for those who do not read")
            .expect("appended");
    }
    let grown = resident_bytes(&cluster.nodes()[0]).saturating_sub(before);
    eprintln!("100 clients that do not read hold {} MiB", grown / MIB);
    // 2 messages of at most a megabyte and the transport's buffers for each.
    assert!(grown < 100 * 4 * MIB, "{grown} bytes");
    drop(held);
    let acknowledged = (1..=132)
        .map(|sequence| (("writer".to_owned(), sequence), vec![sequence]))
        .collect();
    check_all_nodes(&cluster, &acknowledged).await;
}

/// I3: what a client has sent and not heard of is there once, whether it had
/// arrived or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_in_mid_stream_goes_on_where_it_was() {
    // As many as the cluster keeps the results of.
    const BATCHES: u64 = 60;
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    // Through a follower: its link to the leader outlives the client's stream.
    let address = cluster.node(leader % 3 + 1).spec().client_address();
    let mut acknowledged: BTreeMap<(String, u64), Vec<u64>> = BTreeMap::new();
    let mut note = |answer: AppendStreamResponse| {
        let Some(Answer::Appended(appended)) = answer.result else {
            panic!("{answer:?}");
        };
        let Some(Outcome::Accepted(accepted)) = appended.outcomes[0].outcome.clone() else {
            panic!("{appended:?}");
        };
        let before =
            acknowledged.insert((appended.session, appended.sequence), vec![accepted.offset]);
        assert!(before.is_none_or(|before| before == [accepted.offset]));
    };
    let mut client = connect(&address).await;
    create_hunt(&mut client).await;
    let epoch = open(&mut client, "torn").await.epoch;
    for heard in [0, 1, 17] {
        let mut client = connect(&address).await;
        let requests: Vec<_> = (1..=BATCHES)
            .map(|sequence| request("torn", epoch, sequence, 100))
            .collect();
        let mut answers = client
            .append_stream(tokio_stream::iter(requests))
            .await
            .expect("opened")
            .into_inner();
        for _ in 0..heard {
            note(answers.message().await.expect("an answer").expect("one"));
        }
        // Cut here, with the rest under way.
    }
    let requests: Vec<_> = (1..=BATCHES)
        .map(|sequence| request("torn", epoch, sequence, 100))
        .collect();
    let mut answers = client
        .append_stream(tokio_stream::iter(requests))
        .await
        .expect("opened")
        .into_inner();
    while let Some(answer) = answers.message().await.expect("it goes on") {
        note(answer);
    }
    assert_eq!(acknowledged.len() as u64, BATCHES);
    check_all_nodes(&cluster, &acknowledged).await;
}
