//! A node of another cluster among the endpoints: nothing is written to it, and
//! nothing of it is taken for an answer.

use std::time::Duration;

use huntlog_client::{CallError, Client, ClientOptions, proto};
use huntlog_jepsen::Cluster;

use crate::members::ask;
use crate::support::end_offset;

fn event(text: &str) -> proto::Event {
    proto::Event {
        hunt: "pier".to_owned(),
        kind: Some(proto::event::Kind::Custom(proto::Custom {
            r#type: "position".to_owned(),
            payload: text.as_bytes().to_vec().into(),
        })),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_keeps_to_the_cluster_that_answered_first() {
    let mut own = Cluster::start(1).await.expect("a cluster");
    let other = Cluster::start(1).await.expect("another");
    let foreign = other.endpoints()[0].clone();
    let endpoints = [own.endpoints(), other.endpoints()].concat();
    let options = ClientOptions {
        timeout: Duration::from_secs(3),
        ..ClientOptions::default()
    };
    let client = Client::connect(&endpoints, options).expect("addresses");
    let producer = client.session("s").await.expect("opened");
    let batch = producer.append_batch(vec![event("a")]).await;
    batch.expect("taken").await.expect("acknowledged");
    let before = end_offset(&other).await;

    // Its own cluster is away, and the other one would take everything.
    own.node(1).kill().await.expect("killed");
    let batch = producer.append_batch(vec![event("b")]).await;
    batch.expect("taken").await.expect_err("nobody is there");
    let refused = client.session("t").await.expect_err("nobody is there");
    let CallError::Unavailable { .. } = &refused else {
        panic!("{refused}");
    };
    let words = refused.to_string();
    assert!(words.contains("belong to another cluster"), "{words}");
    assert!(words.contains(&foreign), "{words}");
    let listed = client.hunts(proto::ListHuntsRequest::default()).await;
    let words = listed.expect_err("nobody is there").to_string();
    assert!(words.contains(&foreign), "{words}");
    assert_eq!(
        end_offset(&other).await,
        before,
        "nothing was written there"
    );
    let sessions = ask(&other.endpoints(), &["session", "list"]).await.done();
    assert!(!sessions.to_string().contains("\"s\""), "{sessions:#}");

    // Once it is back, the client goes on with it.
    own.node(1).start().expect("started again");
    own.wait_ready().await.expect("it serves");
    let producer = client.session("t").await.expect("opened");
    let batch = producer.append_batch(vec![event("c")]).await;
    batch.expect("taken").await.expect("acknowledged");
    assert_eq!(end_offset(&other).await, before);

    // Whoever asks how the cluster is learns of both.
    let health = ask(&endpoints, &["cluster", "health"]).await;
    let ids = [&own, &other].map(async |cluster| {
        let status = cluster.status(1).await.expect("it answers");
        status.cluster_id
    });
    let faults = health.json()["faults"].to_string();
    for id in ids {
        let id = id.await;
        assert!(faults.contains(&id), "{id} is not in {faults}");
    }
    assert!(faults.contains(&foreign), "{faults}");
    assert!(faults.contains("belongs to another cluster"), "{faults}");
}
