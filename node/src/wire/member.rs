//! Nodes and where they are reached, as an operator names them.

use std::collections::BTreeMap;

use huntlog_proto::v1;

use super::faults::{Faults, InvalidRequest};
use crate::config::Address;
use crate::limits;
use crate::raft::{MemberNode, NodeId};

/// The node to be added.
///
/// # Errors
/// Every fault of it.
pub fn node_from_proto(
    node: Option<v1::NodeAddress>,
) -> Result<(NodeId, MemberNode), InvalidRequest> {
    let mut faults = Faults::default();
    let node = node.unwrap_or_default();
    let read = read(&mut faults, "node", node);
    faults.finish(read)
}

/// The nodes to form a cluster of; none when the list is empty.
///
/// # Errors
/// Every fault of the list.
pub fn members_from_proto(
    nodes: Vec<v1::NodeAddress>,
) -> Result<BTreeMap<NodeId, MemberNode>, InvalidRequest> {
    let mut faults = Faults::default();
    if nodes.len() > limits::VOTERS_MAX {
        let message = format!(
            "{} nodes are too many, at most {} form a cluster",
            nodes.len(),
            limits::VOTERS_MAX
        );
        faults.add("members", message);
    }
    let mut members: BTreeMap<NodeId, MemberNode> = BTreeMap::new();
    let mut seen: Vec<String> = Vec::new();
    for (position, node) in nodes.into_iter().enumerate() {
        let path = format!("members[{position}]");
        let (id, member) = read(&mut faults, &path, node);
        for (field, address) in [
            ("peer_address", &member.peer_address),
            ("client_address", &member.client_address),
        ] {
            if seen.contains(address) {
                faults.add(format!("{path}.{field}"), "each address is given once");
            }
            seen.push(address.clone());
        }
        if members.insert(id, member).is_some() {
            faults.add(format!("{path}.node_id"), "each id is given once");
        }
    }
    faults.finish(members)
}

fn read(faults: &mut Faults, path: &str, node: v1::NodeAddress) -> (NodeId, MemberNode) {
    if node.node_id == 0 || i64::try_from(node.node_id).is_err() {
        let message = format!("must be from 1 to {}", i64::MAX);
        faults.add(format!("{path}.node_id"), message);
    }
    let mut address = |field: &str, text: &str| match text.parse::<Address>() {
        Ok(address) => address.to_string(),
        Err(reason) => {
            let message = format!("must be host:port, where the node is reached: {reason}");
            faults.add(format!("{path}.{field}"), message);
            text.to_owned()
        }
    };
    let member = MemberNode {
        peer_address: address("peer_address", &node.peer_address),
        client_address: address("client_address", &node.client_address),
        ..MemberNode::default()
    };
    if member.peer_address == member.client_address {
        faults.add(
            format!("{path}.client_address"),
            "is the peer address as well; each service has its own port",
        );
    }
    (node.node_id, member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: u64, peer: &str, client: &str) -> v1::NodeAddress {
        v1::NodeAddress {
            node_id,
            peer_address: peer.to_owned(),
            client_address: client.to_owned(),
        }
    }

    fn paths(error: InvalidRequest) -> Vec<String> {
        error.0.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn a_node_has_an_id_and_two_addresses() {
        let (id, member) = node_from_proto(Some(node(4, "A:1", "[::1]:2"))).expect("sound");
        assert_eq!(id, 4);
        assert_eq!(
            (&*member.peer_address, &*member.client_address),
            ("a:1", "[::1]:2")
        );
        let faults = paths(node_from_proto(None).expect_err("nothing is there"));
        assert_eq!(
            faults[..3],
            ["node.node_id", "node.peer_address", "node.client_address"]
        );
        let faults = paths(node_from_proto(Some(node(1, "a:1", "a:1"))).expect_err("one port"));
        assert_eq!(faults, ["node.client_address"]);
    }

    #[test]
    fn ids_and_addresses_of_a_list_differ() {
        let list = vec![node(1, "a:1", "a:2"), node(1, "b:1", "a:2")];
        let faults = paths(members_from_proto(list).expect_err("twice"));
        assert_eq!(faults, ["members[1].client_address", "members[1].node_id"]);
        let many = (1..=8)
            .map(|id| node(id, &format!("a{id}:1"), &format!("a{id}:2")))
            .collect();
        assert_eq!(paths(members_from_proto(many).expect_err("8")), ["members"]);
        assert_eq!(members_from_proto(Vec::new()), Ok(BTreeMap::new()));
    }
}
