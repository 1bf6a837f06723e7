//! Nodes that are stopped in their tracks and go on later, not knowing what has
//! happened meanwhile.

use std::time::Duration;

use huntlog_client::proto::ReadRequest;
use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_jepsen::{Cluster, channel};
use tonic::Code;

use crate::failover::Load;
use crate::support::{check_all_nodes, end_offset};

/// I6: what was acknowledged before a read was sent is in its answer, whichever
/// node is asked. The read waits at the paused node's door, so that it is the
/// first thing the node sees when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_answers_no_read_from_its_past() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    for _ in 0..3 {
        load.progress(&cluster, 50).await;
        let paused = cluster.leader().await.expect("a leader");
        let address = cluster.node(paused).spec().client_address();
        let channel = channel(&address).await.expect("it listens");
        let mut client = EventServiceClient::new(channel);
        // Connected, and its routes warm.
        let before = read_end(&mut client).await.expect("it leads");
        cluster.node(paused).pause().expect("paused");
        load.progress(&cluster, 50).await;

        // The others have elected a leader, which has acknowledged more.
        let acknowledged = running_end(&cluster, paused).await;
        assert!(acknowledged > before);
        let mut asking = client.clone();
        let asked = tokio::spawn(async move { read_end(&mut asking).await });
        // Enough for the request to be in the paused node's socket; if it is
        // not, the read is only an easier one.
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.node(paused).resume().expect("goes on");
        let fresh = |end: u64| {
            assert!(
                end >= acknowledged,
                "I6: {end} is older than {acknowledged}, acknowledged before the read"
            );
        };
        match asked.await.expect("no panic") {
            Ok(end) => fresh(end),
            Err(status) => assert!(
                matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
                "{status}"
            ),
        }
        let end = cluster
            .wait_for("an answer of the node that was paused", async || {
                read_end(&mut client).await.ok()
            })
            .await
            .expect("it follows the new leader");
        fresh(end);
        cluster.wait_ready().await.expect("it catches up");
    }
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
    assert!(end_offset(&cluster).await > 0);
}

/// Raft dissertation, section 9.6: whoever was cut off has stood for election in
/// vain meanwhile, and must not depose a working leader with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_comes_back_does_not_depose_the_leader() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    let term = term_on(&cluster, leader).await;
    let away = leader % 3 + 1;
    for _ in 0..3 {
        cluster.node(away).pause().expect("paused");
        // Longer than it waits for a leader: the first thing it does when it
        // goes on is to stand for election.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.node(away).resume().expect("goes on");
        load.progress(&cluster, 100).await;
        cluster.wait_ready().await.expect("it catches up");
    }
    assert_eq!(term_on(&cluster, leader).await, term);
    assert_eq!(cluster.leader().await.expect("a leader"), leader);
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

async fn term_on(cluster: &Cluster, id: u64) -> u64 {
    let status = cluster.status(id).await.expect("it answers");
    status.partitions[0].term
}

/// The end of the log as a linearizable read sees it.
async fn read_end(
    client: &mut EventServiceClient<tonic::transport::Channel>,
) -> Result<u64, tonic::Status> {
    let request = ReadRequest {
        max_events: 1,
        ..ReadRequest::default()
    };
    let mut answers = client.read(request).await?.into_inner();
    let mut end = 0;
    while let Some(answer) = answers.message().await? {
        end = answer.end_offset;
    }
    Ok(end)
}

/// The end of the log as one of the nodes beside `paused` reads it.
async fn running_end(cluster: &Cluster, paused: u64) -> u64 {
    let node = cluster
        .nodes()
        .iter()
        .find(|node| node.spec().id != paused)
        .expect("there are three");
    let channel = channel(&node.spec().client_address())
        .await
        .expect("it listens");
    read_end(&mut EventServiceClient::new(channel))
        .await
        .expect("a quorum is there")
}
