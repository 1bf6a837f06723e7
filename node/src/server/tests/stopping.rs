//! A node that is told to stop does, and does not wait for its peers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_does_not_wait_for_its_leader_s_streams() {
    let mut nodes = Nodes::start(3).await;
    nodes.write(opening("s")).await.expect("it is committed");
    let follower = nodes.followers()[0];
    nodes.ready(follower).await;
    let node = nodes.running.remove(&follower).expect("it runs");
    // Not how fast, but whether it had to give up on somebody.
    tokio::time::timeout(limits::DRAIN_TIMEOUT, node.shutdown())
        .await
        .expect("it ends by itself");
    nodes.stop_all().await;
}
