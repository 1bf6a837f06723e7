//! Subscribers see every event once and in order, whichever nodes die under
//! them.

use std::time::Duration;

use huntlog_client::{Client, ClientOptions, Start};
use huntlog_jepsen::Cluster;

use crate::failover::Load;
use crate::support::{check_all_nodes, end_offset};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_goes_on_when_its_node_dies() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    let options = ClientOptions {
        timeout: Duration::from_secs(60),
        ..ClientOptions::default()
    };
    let client = Client::connect(cluster.endpoints(), options).expect("addresses");
    let (seen, mut progress) = tokio::sync::watch::channel(0);
    let subscriber = tokio::spawn(async move {
        let mut subscription = client.subscribe(Start::Offset(0), None);
        loop {
            let event = subscription.next().await.expect("it goes on");
            assert_eq!(event.offset, *seen.borrow(), "I5: a gap, or one twice");
            seen.send_replace(event.offset + 1);
        }
    });
    // Whichever node it hangs on is among them.
    for id in 1..=3 {
        load.progress(&cluster, 100).await;
        cluster.node(id).kill().await.expect("killed");
        let before = *progress.borrow_and_update();
        load.progress(&cluster, 100).await;
        progress
            .wait_for(|next| *next > before)
            .await
            .expect("the subscriber goes on");
        cluster.node(id).start().expect("started again");
        cluster.wait_ready().await.expect("it catches up");
    }
    let acknowledged = load.finish().await;
    let end = end_offset(&cluster).await;
    let all = progress.wait_for(|next| *next >= end);
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .expect("it hears of everything")
        .expect("the subscriber goes on");
    subscriber.abort();
    check_all_nodes(&cluster, &acknowledged).await;
}
