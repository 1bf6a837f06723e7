//! What a removed member is told, whatever it asks.

use std::collections::BTreeSet;

use huntlog_proto::peer;
use huntlog_proto::peer::peer_service_client::PeerServiceClient;

use super::*;
use crate::partition::MembersChange;
use crate::raft::PROTOCOL_VERSION;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_refused_and_told() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.partition(1);
    let own = nodes.running[&1].context.peers().identity();
    let leaver = MemberNode {
        uuid: "2".repeat(32),
        // Nobody listens there.
        peer_address: format!("{}:7651", address(9, &nodes.dir)),
        client_address: format!("{}:7650", address(9, &nodes.dir)),
        ..MemberNode::default()
    };
    let server = format!("http://{}:7651", address(1, &nodes.dir));
    let mut client = PeerServiceClient::connect(server)
        .await
        .expect("it listens");
    let vote = peer::VoteRequest {
        header: Some(peer::Header {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: own.cluster_id.clone(),
            from_node_id: 2,
            from_node_uuid: leaver.uuid.clone(),
            to_node_id: 1,
            to_node_uuid: own.node_uuid.clone(),
            feature_level_max: own.levels.max,
        }),
        partition: 0,
        vote: Some(peer::BallotVote {
            leader_id: Some(peer::LeaderId {
                term: 99,
                node_id: 2,
            }),
            committed: false,
        }),
        ..peer::VoteRequest::default()
    };
    let hello = peer::HelloRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: own.cluster_name.clone(),
        cluster_id: own.cluster_id.clone(),
        node_id: 2,
        node_uuid: leaver.uuid.clone(),
        ..peer::HelloRequest::default()
    };

    let based_on = partition.effective_members().log_id;
    let added = MembersChange::AddNodes(BTreeMap::from([(2, leaver)]));
    partition
        .propose_members(added, based_on)
        .await
        .expect("a learner needs no answer");
    let answer = client.hello(hello.clone()).await.expect("an answer");
    assert!(!answer.into_inner().asker_removed);
    let answer = client.pre_vote(vote.clone()).await.expect("an answer");
    assert!(!answer.into_inner().granted, "a learner is not elected");

    // What was decided on another membership is not written.
    let late = MembersChange::RemoveNodes(BTreeSet::from([2]));
    let refused = partition.propose_members(late, based_on).await;
    assert!(refused.is_err(), "it was based on an older membership");

    let members = partition.effective_members();
    let keeper = MemberNode {
        retired_ids: BTreeSet::from([2]),
        ..members.nodes[&1].clone()
    };
    let removal = MembersChange::Batch(vec![
        MembersChange::SetNodes(BTreeMap::from([(1, keeper)])),
        MembersChange::RemoveNodes(BTreeSet::from([2])),
    ]);
    partition
        .propose_members(removal, members.log_id)
        .await
        .expect("the only voter agrees");
    let answer = client.hello(hello).await.expect("an answer");
    assert!(answer.into_inner().asker_removed);
    for refused in [client.pre_vote(vote.clone()).await, client.vote(vote).await] {
        let refused = refused.expect_err("it was removed");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(
            refused.message().contains("node 2 was removed"),
            "{refused}"
        );
    }
    // The directory's own list has followed.
    let written = async {
        let identity = nodes.running[&1].context.changer().expect("it is set");
        while identity
            .state()
            .identity()
            .members()
            .expect("they decode")
            .len()
            != 1
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("the identity follows the membership");
    nodes.stop_all().await;
}
