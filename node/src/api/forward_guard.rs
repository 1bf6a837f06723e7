//! Whether a forwarded request is meant for this node.
//!
//! The peer port serves the public services for what other nodes forward. An
//! address can come to belong to another node, or to one of another cluster: a
//! write that it took would be acknowledged and not be there.

use std::sync::Arc;

use huntlog_proto::{CLUSTER_ID_HEADER, ERROR_DOMAIN};
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::call::FORWARDED_TO;
use crate::limits;
use crate::raft::Peers;

/// Refuses, on the peer port, requests that are meant for another node.
#[derive(Clone)]
pub struct ForwardGuard {
    peers: Arc<Peers>,
}

impl ForwardGuard {
    /// Lets through what is meant for the node `peers` speaks for.
    pub fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

impl Interceptor for ForwardGuard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let identity = self.peers.identity();
        let header = |name| request.metadata().get(name).map(|value| value.as_bytes());
        let meant = header(CLUSTER_ID_HEADER) == Some(identity.cluster_id.as_bytes())
            && header(FORWARDED_TO) == Some(identity.node_uuid.as_bytes());
        if meant {
            return Ok(request);
        }
        let mut details = ErrorDetails::with_error_info(
            "WRONG_NODE",
            ERROR_DOMAIN,
            [("disposition".to_owned(), "NOT_APPLIED".to_owned())],
        );
        details.set_retry_info(Some(limits::RETRY_DELAY_UNAVAILABLE));
        Err(Status::with_error_details(
            Code::Unavailable,
            format!(
                "the request was forwarded to another node than this one (node {} of cluster {}); nothing was applied; retry",
                identity.node_id, identity.cluster_id
            ),
            details,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LocalIdentity;

    #[test]
    fn only_what_is_meant_for_this_node_passes() {
        let identity = LocalIdentity {
            cluster_name: "c".into(),
            cluster_id: "1234".into(),
            node_id: 2,
            node_uuid: "abcd".into(),
            levels: huntlog_machine::LevelRange::SUPPORTED,
        };
        let mut guard = ForwardGuard::new(Arc::new(Peers::new(identity, None)));
        for (cluster, uuid, passes) in [
            ("1234", "abcd", true),
            ("1234", "other", false),
            ("9999", "abcd", false),
        ] {
            let mut request = Request::new(());
            let headers = request.metadata_mut();
            headers.insert(CLUSTER_ID_HEADER, cluster.parse().expect("ASCII"));
            headers.insert(FORWARDED_TO, uuid.parse().expect("ASCII"));
            let answer = guard.call(request);
            assert_eq!(answer.is_ok(), passes, "{cluster} {uuid}");
        }
        let refused = guard.call(Request::new(())).expect_err("no headers");
        let info = refused.get_details_error_info().expect("details");
        assert_eq!(info.metadata["disposition"], "NOT_APPLIED");
    }
}
