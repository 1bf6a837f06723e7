//! Whether clients reach a new member where they will be told to look for it.
//!
//! A node behind another address for clients may be out of the other nodes'
//! reach, so silence is worth a warning; another node there is a mistake.

use huntlog_proto::v1::GetStatusRequest;
use huntlog_proto::v1::admin_service_client::AdminServiceClient;

use crate::limits;
use crate::raft::{Peers, Purpose};

/// What answers at a client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientPort {
    /// The node that is meant.
    Itself,
    /// Another one, in words.
    Another(String),
    /// Nobody, and why.
    Silent(String),
}

/// Asks who serves clients at `address`, where the node with the data directory
/// `uuid` is expected.
pub(super) async fn ask_client_port(peers: &Peers, address: &str, uuid: &str) -> ClientPort {
    let channel = match peers.channel(address, Purpose::Control) {
        Ok(channel) => channel,
        Err(error) => return ClientPort::Silent(error.to_string()),
    };
    let mut client = AdminServiceClient::new(channel);
    let asked = client.get_status(GetStatusRequest {});
    match tokio::time::timeout(limits::HELLO_TIMEOUT, asked).await {
        Ok(Ok(answer)) => match answer.into_inner() {
            status if status.node_uuid == uuid => ClientPort::Itself,
            status => ClientPort::Another(format!(
                "node {} of cluster `{}`, with data directory {}",
                status.node_id, status.cluster_name, status.node_uuid
            )),
        },
        Ok(Err(status)) => ClientPort::Silent(status.message().to_owned()),
        Err(_) => ClientPort::Silent("no answer".to_owned()),
    }
}

/// What an operator is told of a client address where nobody answers.
pub(super) fn nobody_at(id: u64, address: &str, why: &str) -> String {
    format!(
        "no node answers at {address}, where clients are to reach node {id} ({why}): if that address is wrong, clients do not find it; remove the node and add it with the right one, under an id never used before"
    )
}
