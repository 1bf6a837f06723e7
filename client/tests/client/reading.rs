//! Reads, subscriptions and queries.

use std::time::Duration;

use huntlog_client::{CallError, Client, ClientOptions, Reason, Start, event, proto};

use crate::peer::Peers;

fn client(peers: &Peers) -> Client {
    let options = ClientOptions {
        timeout: Duration::from_secs(20),
        answer_timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    };
    Client::connect(peers.addresses(), options).expect("valid")
}

async fn fill(client: &Client, hunt: &str, count: u64) {
    let producer = client
        .session(&format!("fill-{hunt}"))
        .await
        .expect("opens");
    let events = (0..count).map(|n| event::custom(hunt, "", "m", n.to_le_bytes().to_vec()));
    let ticket = producer
        .append_batch(events.collect())
        .await
        .expect("valid");
    ticket.await.expect("acknowledged");
}

async fn read(client: &Client, request: proto::ReadRequest) -> Result<Vec<u64>, CallError> {
    let mut reader = client.read(request);
    let mut offsets = Vec::new();
    while let Some(event) = reader.next().await? {
        offsets.push(event.offset);
    }
    Ok(offsets)
}

/// I5
#[tokio::test]
async fn a_read_goes_on_where_it_broke_off() {
    let peers = Peers::start(3);
    let client = client(&peers);
    fill(&client, "h", 100).await;
    peers.state().break_reads_after = Some(10);
    let all = read(&client, proto::ReadRequest::default()).await;
    assert_eq!(all, Ok((0..100).collect()));
    let some = proto::ReadRequest {
        from_offset: 40,
        max_events: 25,
        ..Default::default()
    };
    assert_eq!(read(&client, some).await, Ok((40..65).collect()));
}

#[tokio::test]
async fn a_filtered_read_leaves_out_the_rest() {
    let peers = Peers::start(1);
    let client = client(&peers);
    fill(&client, "a", 10).await;
    fill(&client, "b", 10).await;
    fill(&client, "a2", 10).await;
    let request = proto::ReadRequest {
        filter: Some(proto::Filter {
            hunts: vec!["b".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(read(&client, request).await, Ok((10..20).collect()));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_at_once() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let beyond = proto::ReadRequest {
        from_offset: 1,
        ..Default::default()
    };
    let Err(CallError::Refused(refusal)) = read(&client, beyond).await else {
        panic!("there is nothing");
    };
    assert_eq!(refusal.reason, Reason::OutOfRange);
    let request = proto::GetHuntRequest {
        partition: 0,
        hunt: "none".to_owned(),
        consistency: None,
    };
    let error = client.hunt(request).await.expect_err("unknown");
    assert!(matches!(error, CallError::Refused(r) if r.reason == Reason::NotFound));
}

/// I5
#[tokio::test]
async fn a_subscription_survives_its_nodes_without_gap_or_duplicate() {
    let mut peers = Peers::start(3);
    let client = client(&peers);
    fill(&client, "h", 50).await;
    peers.state().break_reads_after = Some(8);
    let mut subscription = client.subscribe(Start::Offset(0), None);
    let mut seen = Vec::new();
    while seen.len() < 50 {
        seen.push(subscription.next().await.expect("delivered").offset);
    }
    peers.state().break_reads_after = None;
    // One node after the other goes, and something happens each time.
    for (node, hunt) in [(0, "x"), (1, "y")] {
        peers.elect(Some(node + 1));
        peers.kill(node);
        fill(&client, hunt, 50).await;
        for _ in 0..50 {
            seen.push(subscription.next().await.expect("delivered").offset);
        }
    }
    assert_eq!(seen, (0..150).collect::<Vec<_>>());
    assert_eq!(subscription.next_offset(), Some(150));
}

#[tokio::test]
async fn a_subscription_from_the_end_has_all_that_follows_its_first_answer() {
    let peers = Peers::start(1);
    let client = client(&peers);
    fill(&client, "h", 20).await;
    let mut subscription = client.subscribe(Start::End, None);
    assert_eq!(subscription.next_page().await, Ok(Vec::new()));
    assert_eq!(subscription.next_offset(), Some(20));
    fill(&client, "x", 30).await;
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.push(subscription.next().await.expect("delivered").offset);
    }
    assert_eq!(seen, (20..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn administration_reaches_the_cluster() {
    let peers = Peers::start(3);
    let client = client(&peers);
    let status = client.status().await.expect("answers");
    assert_eq!(status.partitions[0].members.len(), 3);
    let transferred = client.transfer_leader(2).await.expect("answers");
    assert_eq!(transferred.leader_id, 2);
    client.take_snapshot().await.expect("answers");
    client.session("s").await.expect("opens");
    let sessions = client.sessions(proto::ListSessionsRequest::default()).await;
    assert_eq!(sessions.expect("answers").sessions[0].session, "s");
}

/// A client that is asked for nothing learns from whoever answers who the members
/// are, before none is left of those it was given.
#[tokio::test]
async fn members_are_learned_past_a_node_that_is_gone() {
    let mut peers = Peers::start(3);
    let given = peers.addresses();
    peers.kill(0);
    let client = Client::connect(given.iter().take(2), ClientOptions::default()).expect("valid");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while client.known_nodes().len() < 3 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            client.known_nodes()
        );
        // Nobody says when the client has learned.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
