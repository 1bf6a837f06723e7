//! I7: replicas that differ stop, and say where they parted.

use super::*;

/// Three nodes that have applied something, `wrong` of which hold another state
/// than the log tells.
async fn with_diverged(wrong: impl FnOnce(&Nodes) -> Vec<NodeId>) -> Nodes {
    let nodes = Nodes::start(3).await;
    let opened = nodes.write(opening("s")).await.expect("it is committed");
    let CommandResult::SessionOpened { epoch, .. } = opened else {
        panic!("{opened:?}");
    };
    nodes
        .write(batch("s", epoch, 1))
        .await
        .expect("it is committed");
    for id in 1..=3 {
        nodes.ready(id).await;
    }
    for id in wrong(&nodes) {
        let partition = nodes.partition(id);
        partition.replica().replace_machine(diverged);
    }
    nodes
}

fn is_mismatch(error: &NodeError) -> bool {
    use huntlog_machine::ApplyError::DigestMismatch;
    matches!(
        error,
        NodeError::Apply {
            source: DigestMismatch { .. },
            ..
        } | NodeError::Differs(_)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_differs_stops_and_the_others_go_on() {
    let mut follower = 0;
    let mut nodes = with_diverged(|nodes| {
        follower = nodes.followers()[0];
        vec![follower]
    })
    .await;
    nodes.write(opening("t")).await.expect("a quorum is there");
    let error = nodes.failure(follower).await;
    assert!(is_mismatch(&error), "{error}");
    assert!(error.to_string().contains("log index"), "{error}");
    nodes.write(opening("u")).await.expect("a quorum is left");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_idle_cluster_too() {
    let mut follower = 0;
    let mut nodes = with_diverged(|nodes| {
        follower = nodes.followers()[0];
        vec![follower]
    })
    .await;
    let error = nodes.failure(follower).await;
    assert!(matches!(error, NodeError::Differs(_)), "{error}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_a_quorum_contradicts_stops() {
    let mut leader = 0;
    let mut nodes = with_diverged(|nodes| {
        leader = nodes.leader();
        vec![leader]
    })
    .await;
    // Its next entry carries its digest: committed or not, it is the last.
    let _ = nodes.write(opening("t")).await;
    let followers: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    for follower in &followers {
        let error = nodes.failure(*follower).await;
        assert!(is_mismatch(&error), "{error}");
    }
    let error = nodes.failure(leader).await;
    let NodeError::Contradicted(contradicted) = &error else {
        panic!("{error}");
    };
    assert_eq!(contradicted.voters, followers);

    // The wrong digest is in the log. The operator says so, and everything is
    // there again: what was damaged was memory.
    for id in 1..=3 {
        nodes.stop(id).await;
    }
    nodes.adjust = |config| config.raft.ignore_digests_through = 1_000;
    for id in 1..=3 {
        nodes.start_node(id, 3).await;
    }
    for id in 1..=3 {
        nodes.ready(id).await;
    }
    nodes.write(opening("u")).await.expect("a quorum is there");
    for id in 1..=3 {
        nodes.ready(id).await;
        let partition = nodes.partition(id);
        assert!(partition.replica().machine().session("s").is_some(), "I2");
        let digest = |id| nodes.partition(id).replica().digest_check();
        assert_eq!(digest(id), digest(nodes.leader()), "I7");
    }
    nodes.stop_all().await;
}
