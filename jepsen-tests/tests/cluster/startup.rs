//! What keeps a node from starting is said, and nothing is harmed by it.

use std::fs;

use huntlog_jepsen::{Cluster, ClusterError};

use crate::support::{copy_dir, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let mut cluster = Cluster::prepare(1, "").expect("files");
    let address = cluster.nodes()[0].spec().client_address();
    let _holder = std::net::TcpListener::bind(&address).expect("a free address");
    cluster.node(1).start().expect("started");
    assert_eq!(ended(cluster.node(1)).await, 3);
    let log = cluster.node(1).log();
    assert!(
        log.contains(&address) && log.contains("listen.client"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_key_is_named_with_a_suggestion() {
    let mut cluster = Cluster::prepare(1, "[raft]\nheartbeet_ms = 50\n").expect("files");
    cluster.start_all().expect("started");
    assert_eq!(ended(cluster.node(1)).await, 2);
    let log = cluster.node(1).log();
    assert!(
        log.contains("heartbeet_ms") && log.contains("heartbeat_ms"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_at_once_is_not_waited_for() {
    let mut cluster = Cluster::prepare(1, "[raft]\nheartbeet_ms = 50\n").expect("files");
    cluster.start_all().expect("started");
    let error = cluster.wait_ready().await.expect_err("it ends");
    assert!(
        matches!(&error, ClusterError::Ended { node: 1, log } if log.contains("heartbeat_ms")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_data_directory_is_named() {
    let mut cluster = Cluster::prepare(1, "").expect("files");
    let data_dir = cluster.nodes()[0].spec().data_dir();
    fs::write(&data_dir, "not a directory").expect("written");
    cluster.start_all().expect("started");
    assert_eq!(ended(cluster.node(1)).await, 3);
    let log = cluster.node(1).log();
    assert!(log.contains(&data_dir.display().to_string()), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_node_is_refused_under_its_old_id() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let victim = cluster.leader().await.expect("a leader");
    cluster.node(victim).kill().await.expect("killed");
    let data_dir = cluster.node(victim).spec().data_dir();
    fs::remove_dir_all(&data_dir).expect("emptied");
    cluster.leader().await.expect("another leader");
    cluster.node(victim).start().expect("started");
    assert_eq!(ended(cluster.node(victim)).await, 4);
    let log = cluster.node(victim).log();
    assert!(log.contains("an id never used before"), "{log}");
    assert!(
        cluster.status(victim % 3 + 1).await.is_some(),
        "the others go on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_data_is_refused_where_a_peer_remembers() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    let victim = leader % 3 + 1;
    cluster.node(victim).stop().await.expect("stopped");
    let data_dir = cluster.node(victim).spec().data_dir();
    let copy = cluster.dir().join("copy");
    copy_dir(&data_dir, &copy);
    cluster.node(victim).start().expect("started");
    cluster.wait_ready().await.expect("it is back");
    // The victim votes in a higher term, and acknowledges what follows.
    let leader = cluster.leader().await.expect("a leader");
    if leader != victim {
        cluster.node(leader).kill().await.expect("killed");
        cluster.leader().await.expect("another leader");
        cluster.node(leader).start().expect("started");
        cluster.wait_ready().await.expect("it is back");
    }
    cluster.node(victim).kill().await.expect("killed");
    let leader = cluster.leader().await.expect("a leader");
    assert_ne!(leader, victim);
    fs::remove_dir_all(&data_dir).expect("removed");
    copy_dir(&copy, &data_dir);
    cluster.node(victim).start().expect("started");
    assert_eq!(ended(cluster.node(victim)).await, 4);
    let log = cluster.node(victim).log();
    assert!(log.contains("older copy"), "{log}");
}
