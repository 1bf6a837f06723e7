//! Nodes that do not belong: each is refused with the reason, and the cluster
//! does not notice.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use huntlog_jepsen::{Cluster, NodeProcess, NodeSpec, channel};
use huntlog_proto::peer::peer_service_client::PeerServiceClient;
use huntlog_proto::peer::{
    AdoptRequest, AppendEntriesRequest, BallotVote, CompareDigestRequest, Entry, Header,
    HelloRequest, InstallSnapshotRequest, LeaderId, LogId, MemberNode, Membership,
    ReadIndexRequest, SnapshotMeta, SnapshotStart, StoredMembership, TransferLeaderRequest,
    VoteRequest, install_snapshot_request::Part,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::failover::Load;
use crate::support::{check_all_nodes, ended};

/// Thousands of questions are answered well within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node whose configuration is that of `like`, changed by `change`, with a
/// directory and addresses of its own.
fn stranger(cluster: &Cluster, like: &NodeSpec, change: impl Fn(String) -> String) -> NodeProcess {
    let spec = NodeSpec {
        id: like.id,
        namespace: None,
        ip: of_its_own(&like.ip),
        dir: cluster.dir().join("stranger"),
    };
    fs::create_dir_all(&spec.dir).expect("made");
    let text = fs::read_to_string(like.config_file()).expect("it has a configuration");
    let text = text.replace(
        &like.data_dir().display().to_string(),
        &spec.data_dir().display().to_string(),
    );
    // Only what it listens on: the member list stays.
    let (listen, members) = text.split_once("[cluster]").expect("a section");
    let text = format!("{}[cluster]{members}", listen.replace(&like.ip, &spec.ip));
    fs::write(spec.config_file(), change(text)).expect("written");
    NodeProcess::new(spec)
}

/// The harness gives out addresses of 127.64.0.0/10; this is one of
/// 127.128.0.0/10.
fn of_its_own(ip: &str) -> String {
    let mut bytes: Vec<u8> = ip
        .split('.')
        .map(|byte| byte.parse().expect("an address"))
        .collect();
    bytes[1] += 64;
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    bytes.join(".")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_an_id_is_refused() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let like = cluster.nodes()[1].spec().clone();
    let mut second = stranger(&cluster, &like, |text| text);
    second.start().expect("started");
    assert_eq!(ended(&mut second).await, 4, "{}", second.log());
    let log = second.log();
    assert!(log.contains("an id never used before"), "{log}");
    cluster.wait_ready().await.expect("the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let like = cluster.nodes()[1].spec().clone();
    let mut other = stranger(&cluster, &like, |text| {
        text.replace("name = \"test\"", "name = \"other\"")
    });
    other.start().expect("started");
    assert_eq!(ended(&mut other).await, 4, "{}", other.log());
    let log = other.log();
    assert!(
        log.contains("belongs to cluster `test`, not `other`"),
        "{log}"
    );
    cluster.wait_ready().await.expect("the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_uses_another_s_address_can_not_listen() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let (taken, own) = (
        cluster.nodes()[0].spec().clone(),
        cluster.nodes()[1].spec().clone(),
    );
    cluster.node(2).stop().await.expect("stopped");
    let mut second = stranger(&cluster, &own, |text| {
        let (listen, members) = text.split_once("[cluster]").expect("a section");
        let listen: String = listen
            .lines()
            .map(|line| match line.split_once(" = \"127.") {
                Some(("peer", _)) => {
                    format!("peer = \"{}\"\n", taken.peer_address())
                }
                _ => format!("{line}\n"),
            })
            .collect();
        format!("{listen}[cluster]{members}")
    });
    second.start().expect("started");
    assert_eq!(ended(&mut second).await, 3, "{}", second.log());
    let log = second.log();
    assert!(
        log.contains(&taken.peer_address()) && log.contains("listen.peer"),
        "{log}"
    );
}

fn refused(status: Result<(), Status>, words: &str) {
    let status = status.expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

/// Every request of the peer protocol says for whom it is; what is not for this
/// node, or not of its protocol, changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_protocol_cluster_or_node_are_refused() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    let id = leader % 3 + 1;
    let status = cluster.status(id).await.expect("it answers");
    let term = status.partitions[0].term;
    let address = cluster.node(id).spec().peer_address();
    let channel = channel(&address).await.expect("it listens");
    let mut peer = PeerServiceClient::new(channel);

    let hello = peer
        .hello(HelloRequest {
            protocol_version: 99,
            cluster_name: "other".to_owned(),
            ..HelloRequest::default()
        })
        .await
        .expect("who is there is always told")
        .into_inner();
    assert_eq!((hello.node_id, hello.cluster_name.as_str()), (id, "test"));
    assert!(hello.remembered.is_empty());

    let good = Header {
        protocol_version: hello.protocol_version,
        cluster_id: hello.cluster_id.clone(),
        from_node_id: leader,
        from_node_uuid: "0".repeat(32),
        to_node_id: id,
        to_node_uuid: hello.node_uuid.clone(),
        feature_level_max: u32::MAX,
    };
    let vote = Some(BallotVote {
        leader_id: Some(LeaderId {
            term: term + 1_000,
            node_id: leader,
        }),
        committed: true,
    });
    let wrong = [
        (
            Header {
                protocol_version: 99,
                ..good.clone()
            },
            "peer protocol 99",
        ),
        (
            Header {
                cluster_id: "f".repeat(32),
                ..good.clone()
            },
            "of cluster",
        ),
        (
            Header {
                to_node_id: 77,
                ..good.clone()
            },
            "for node 77",
        ),
        (
            Header {
                to_node_uuid: "e".repeat(32),
                ..good.clone()
            },
            "for node",
        ),
        // One that poses as the leader, from another directory.
        (good.clone(), "is known with data directory"),
    ];
    for (header, words) in wrong {
        let header = Some(header);
        let ask = VoteRequest {
            header: header.clone(),
            vote,
            leadership_transfer: true,
            ..VoteRequest::default()
        };
        refused(peer.vote(ask.clone()).await.map(drop), words);
        refused(peer.pre_vote(ask).await.map(drop), words);
        let append = AppendEntriesRequest {
            header: header.clone(),
            vote,
            ..AppendEntriesRequest::default()
        };
        refused(peer.append_entries(append.clone()).await.map(drop), words);
        let mut answers = peer
            .append_stream(tokio_stream::once(append))
            .await
            .expect("the stream opens")
            .into_inner();
        refused(answers.message().await.map(drop), words);
        let start = SnapshotStart {
            header: header.clone(),
            vote,
            ..SnapshotStart::default()
        };
        let part = InstallSnapshotRequest {
            part: Some(Part::Start(start)),
        };
        let installed = peer.install_snapshot(tokio_stream::once(part)).await;
        refused(installed.map(drop), words);
        let transfer = TransferLeaderRequest {
            header: header.clone(),
            from_leader: vote,
            to_node_id: id,
            ..TransferLeaderRequest::default()
        };
        refused(peer.transfer_leader(transfer).await.map(drop), words);
        let read = ReadIndexRequest {
            header,
            ..ReadIndexRequest::default()
        };
        refused(peer.read_index(read).await.map(drop), words);
    }
    let missing = peer
        .vote(VoteRequest::default())
        .await
        .expect_err("no header");
    assert_eq!(missing.code(), Code::InvalidArgument);

    #[allow(clippy::needless_update, reason = "the message may grow")]
    let adopt = AdoptRequest {
        protocol_version: hello.protocol_version,
        cluster_name: "test".to_owned(),
        cluster_id: "d".repeat(32),
        members: vec![MemberNode {
            node_id: id,
            node_uuid: hello.node_uuid.clone(),
            ..MemberNode::default()
        }],
        ..AdoptRequest::default()
    };
    refused(peer.adopt(adopt).await.map(drop), "");

    let status = cluster.status(id).await.expect("it answers");
    assert_eq!(status.cluster_id, hello.cluster_id);
    assert_eq!(status.partitions[0].term, term, "nobody was impressed");
    assert_eq!(cluster.leader().await.expect("a leader"), leader);
}

/// A message that is whole, from a member as far as its header says, and can not
/// be true: a wrong term would be kept for ever, and a gap in the log ends a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_numbers_of_a_member_change_nothing() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 20).await;
    let leader = cluster.leader().await.expect("a leader");
    let (id, absent) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let absent_uuid = cluster.status(absent).await.expect("it answers").node_uuid;
    cluster.node(absent).kill().await.expect("killed");
    let status = cluster.status(id).await.expect("it answers");
    let term = status.partitions[0].term;
    let address = cluster.node(id).spec().peer_address();
    let mut peer = PeerServiceClient::new(channel(&address).await.expect("it listens"));
    let hello = peer.hello(HelloRequest::default()).await.expect("answered");
    let header = Some(Header {
        protocol_version: hello.get_ref().protocol_version,
        cluster_id: status.cluster_id.clone(),
        from_node_id: absent,
        from_node_uuid: absent_uuid,
        to_node_id: id,
        to_node_uuid: status.node_uuid.clone(),
        feature_level_max: u32::MAX,
    });
    let ballot = |term, committed| {
        Some(BallotVote {
            leader_id: Some(LeaderId {
                term,
                node_id: absent,
            }),
            committed,
        })
    };
    let log_id = |term, index| LogId {
        leader_id: Some(LeaderId {
            term,
            node_id: absent,
        }),
        index,
    };
    let impossible = |answer: Result<(), Status>| {
        let status = answer.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("impossible"), "{status:?}");
    };

    for far in [u64::MAX, u64::MAX - 1, 1 << 62, term + (1 << 33)] {
        let ask = VoteRequest {
            header: header.clone(),
            vote: ballot(far, false),
            leadership_transfer: true,
            ..VoteRequest::default()
        };
        impossible(peer.vote(ask.clone()).await.map(drop));
        impossible(peer.pre_vote(ask).await.map(drop));
        let transfer = TransferLeaderRequest {
            header: header.clone(),
            from_leader: ballot(far, true),
            to_node_id: id,
            ..TransferLeaderRequest::default()
        };
        impossible(peer.transfer_leader(transfer).await.map(drop));
        let start = SnapshotStart {
            header: header.clone(),
            vote: ballot(far, true),
            meta: Some(SnapshotMeta {
                last_membership: Some(StoredMembership {
                    membership: Some(Membership::default()),
                    ..StoredMembership::default()
                }),
                ..SnapshotMeta::default()
            }),
            ..SnapshotStart::default()
        };
        let part = InstallSnapshotRequest {
            part: Some(Part::Start(start)),
        };
        let installed = peer.install_snapshot(tokio_stream::once(part)).await;
        impossible(installed.map(drop));
    }

    let next = term + 1;
    let entry = |id| Entry {
        log_id: Some(id),
        payload: Bytes::new(),
    };
    let of = |vote, prev: Option<LogId>, ids: &[LogId]| AppendEntriesRequest {
        header: header.clone(),
        vote,
        prev_log_id: prev,
        entries: ids.iter().copied().map(entry).collect(),
        ..AppendEntriesRequest::default()
    };
    let appends = [
        of(ballot(u64::MAX, true), None, &[]),
        of(ballot(term + (1 << 33), true), None, &[]),
        of(ballot(next, false), None, &[]),
        of(ballot(next, true), Some(log_id(1, u64::MAX)), &[]),
        of(ballot(next, true), Some(log_id(1, 18)), &[log_id(1, 23)]),
        of(ballot(next, true), None, &[log_id(1, 1)]),
        of(
            ballot(next, true),
            Some(log_id(1, 4)),
            &[log_id(1, 5), log_id(1, 5)],
        ),
        of(ballot(next, true), Some(log_id(2, 4)), &[log_id(1, 5)]),
        of(
            ballot(next, true),
            Some(log_id(1, 4)),
            &[log_id(next + 1, 5)],
        ),
    ];
    for append in appends {
        impossible(peer.append_entries(append).await.map(drop));
    }

    let status = cluster.status(id).await.expect("it answers");
    assert_eq!(status.partitions[0].term, term, "nobody was impressed");
    assert_eq!(cluster.leader().await.expect("a leader"), leader);
    cluster.node(absent).start().expect("started");
    load.progress(&cluster, 20).await;
    cluster.wait_ready().await.expect("all is well");
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// A node that is no member, any more or yet, asks on and on while the members
/// work: each of its requests has to be looked up among members that change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_is_no_member_can_not_bring_a_node_to_a_stop() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 8).await;
    let leader = cluster.leader().await.expect("a leader");
    let status = cluster.status(leader).await.expect("it answers");
    let address = cluster.node(leader).spec().peer_address();
    let channel = channel(&address).await.expect("it listens");
    let peer = PeerServiceClient::new(channel);
    let hello = peer.clone().hello(HelloRequest::default()).await;
    let question = CompareDigestRequest {
        header: Some(Header {
            protocol_version: hello
                .expect("who is there is told")
                .get_ref()
                .protocol_version,
            cluster_id: status.cluster_id,
            from_node_id: 9,
            from_node_uuid: "9".repeat(32),
            to_node_id: leader,
            to_node_uuid: status.node_uuid,
            feature_level_max: u32::MAX,
        }),
        // Further than anybody is.
        log_index: u64::MAX,
        digest: vec![9; 16].into(),
        ..CompareDigestRequest::default()
    };
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (mut peer, question) = (peer.clone(), question.clone());
        asking.spawn(async move {
            for _ in 0..1_500 {
                let answer = peer.compare_digest(question.clone()).await;
                answer.expect("it is answered");
            }
        });
    }
    let asked = tokio::time::timeout(PATIENCE, asking.join_all()).await;
    asked.expect("the node answers every question");
    load.progress(&cluster, 20).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}
