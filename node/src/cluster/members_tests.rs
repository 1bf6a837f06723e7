use super::*;

fn node(n: NodeId) -> MemberNode {
    MemberNode {
        uuid: format!("{n:032x}"),
        peer_address: format!("host{n}:7651"),
        client_address: format!("host{n}:7650"),
        ..MemberNode::default()
    }
}

fn members(voters: &[NodeId], learners: &[NodeId]) -> Members {
    let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
    Members {
        log_id: None,
        nodes: voters
            .iter()
            .chain(learners)
            .map(|id| (*id, node(*id)))
            .collect(),
        voters_to_be: voters.clone(),
        voters,
        retired: BTreeSet::new(),
        joint: false,
    }
}

/// The members after `id` has been removed, by openraft's own rules.
fn without(before: &Members, id: NodeId) -> Members {
    let mut after = before.clone();
    let MembersChange::Batch(steps) = removal(before, id) else {
        panic!("somebody stays to keep the id");
    };
    for step in steps {
        match step {
            MembersChange::SetNodes(nodes) => after.nodes.extend(nodes),
            MembersChange::RemoveVoters(ids) => {
                assert!(ids.is_subset(&after.voters));
                after.voters = after.voters.difference(&ids).copied().collect();
                after.nodes.retain(|id, _| !ids.contains(id));
            }
            MembersChange::RemoveNodes(ids) => {
                assert!(ids.is_disjoint(&after.voters));
                after.nodes.retain(|id, _| !ids.contains(id));
            }
            other => panic!("a removal does not do {other:?}"),
        }
    }
    after.retired = crate::raft::retired_ids(after.nodes.values());
    after
}

#[test]
fn removed_ids_outlive_whoever_keeps_them() {
    let mut now = members(&[1, 2, 3, 4, 5], &[6]);
    let mut gone = BTreeSet::new();
    // Whoever keeps the ids is removed next, as often as somebody is left.
    for _ in 0..5 {
        let next = now
            .nodes
            .iter()
            .max_by_key(|(_, node)| node.retired_ids.len())
            .map(|(id, _)| *id)
            .expect("somebody is left");
        now = without(&now, next);
        gone.insert(next);
        assert_eq!(now.retired, gone);
        assert!(now.has_removed(next) && is_retired(&now, next));
        let keepers = now.nodes.values().filter(|n| !n.retired_ids.is_empty());
        assert_eq!(keepers.count(), 1, "one keeps them for all");
    }
    assert_eq!(now.nodes.len(), 1);
    assert!(!is_retired(&now, 7));
}

#[test]
fn of_very_many_removed_ids_all_lower_ones_count_as_used() {
    let mut now = members(&[1, 2], &[]);
    for id in 10..10 + limits::RETIRED_IDS_MAX as NodeId + 3 {
        now.nodes.insert(id, node(id));
        now = without(&now, id);
    }
    assert_eq!(now.retired.len(), limits::RETIRED_IDS_MAX);
    assert!(!now.retired.contains(&10));
    assert!(is_retired(&now, 10) && is_retired(&now, 12));
    assert!(!is_retired(
        &now,
        10 + limits::RETIRED_IDS_MAX as NodeId + 3
    ));
}

#[test]
fn ids_and_addresses_are_new() {
    let mut now = members(&[1, 2, 3], &[4]);
    assert!(check_new(&now, 5, &node(5)).is_ok());
    let at_client_port = MemberNode {
        peer_address: node(4).client_address,
        ..node(5)
    };
    let taken = check_new(&now, 5, &at_client_port);
    assert!(matches!(
        taken,
        Err(MemberError::AddressTaken { by: 4, .. })
    ));
    now = without(&now, 4);
    let retired = check_new(&now, 4, &node(4));
    assert!(matches!(retired, Err(MemberError::IdRetired(4))));
    // The address of a removed member is free.
    let moved_in = MemberNode {
        uuid: String::new(),
        ..node(4)
    };
    assert!(check_new(&now, 5, &moved_in).is_ok());
    let learners: Vec<NodeId> = (4..4 + limits::MEMBERS_MAX as NodeId - 3).collect();
    let full = members(&[1, 2, 3], &learners);
    let refused = check_new(&full, 99, &node(99));
    assert!(matches!(refused, Err(MemberError::TooMany { .. })));
}

#[test]
fn only_a_fresh_node_of_this_cluster_is_taken() {
    let own = LocalIdentity {
        cluster_name: "harbour".to_owned(),
        cluster_id: "c".repeat(32),
        node_id: 1,
        node_uuid: node(1).uuid,
        levels: huntlog_machine::LevelRange::SUPPORTED,
    };
    let now = members(&[1, 2, 3], &[]);
    let fresh = || peer::HelloResponse {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: "harbour".to_owned(),
        node_id: 4,
        node_uuid: node(4).uuid,
        ..peer::HelloResponse::default()
    };
    let check = |answer: &peer::HelloResponse| check_newcomer(&own, &now, 4, "host4:7651", answer);
    assert!(check(&fresh()).is_ok());
    // What was given the cluster before the leader died is taken up again.
    let given = peer::HelloResponse {
        cluster_id: own.cluster_id.clone(),
        ..fresh()
    };
    assert!(check(&given).is_ok());
    let wrong: [(peer::HelloResponse, &str); 4] = [
        (
            peer::HelloResponse {
                protocol_version: PROTOCOL_VERSION + 1,
                ..fresh()
            },
            "speaks peer protocol 2",
        ),
        (
            peer::HelloResponse {
                cluster_name: "quay".to_owned(),
                ..fresh()
            },
            "configured for cluster `quay`",
        ),
        (
            peer::HelloResponse {
                node_id: 5,
                ..fresh()
            },
            "is node 5, not node 4",
        ),
        (
            peer::HelloResponse {
                cluster_id: "d".repeat(32),
                ..fresh()
            },
            "belongs to cluster dddd",
        ),
    ];
    for (answer, words) in wrong {
        let error = check(&answer).expect_err(words);
        assert!(matches!(error, MemberError::WrongNode { .. }));
        assert!(error.to_string().contains(words), "{error}");
    }
    let copied = peer::HelloResponse {
        node_uuid: node(2).uuid,
        ..fresh()
    };
    let error = check(&copied).expect_err("a copy");
    assert!(matches!(error, MemberError::DirectoryTaken { by: 2, .. }));
}
