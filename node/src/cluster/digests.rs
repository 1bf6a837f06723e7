//! Followers compare their digests with the leader's (I7).
//!
//! Entries carry the leader's digests, so under load a difference shows with
//! the next entry. This comparison finds it in an idle cluster too, and it is
//! how the leader hears that it is the one that differs.

use std::sync::Arc;

use huntlog_machine::{Digest, DigestCheck};
use huntlog_proto::peer;
use tonic::Status;

use crate::limits;
use crate::partition::{Contradiction, Leadership, Partition};
use crate::raft::{NodeId, Peers, Purpose};

/// This node's state differs from its leader's.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "this node's state of partition {partition} differs from that of its leader, node {leader}, at or before log index {index} (digest {ours} here, {theirs} there); see what the other nodes have at this index: if they have {theirs}, this node is wrong: add it again under a new node id; if they have {ours}, the leader is wrong, and stops once a quorum has told it", index = .at.log_index, ours = .at.ours, theirs = .at.theirs
)]
pub struct DiffersFromLeader {
    /// The partition.
    pub partition: u32,
    /// Who leads.
    pub leader: NodeId,
    /// Where they differ.
    pub at: Contradiction,
}

/// While another node leads, compares this node's digest with the leader's,
/// again and again; ends when they differ.
pub async fn compare_digests(peers: Arc<Peers>, partition: Arc<Partition>) -> DiffersFromLeader {
    let mut rounds = tokio::time::interval(limits::DIGEST_COMPARISON_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match compare_with_leader(&peers, &partition).await {
            Ok(None) => {}
            Ok(Some(differs)) => return differs,
            // The next round tries again.
            Err(status) => {
                tracing::debug!(%status, "the digest could not be compared with the leader's");
            }
        }
    }
}

/// Tells the leader, if another node leads, what this one has come to, and
/// whether they differ.
///
/// # Errors
/// When the leader does not answer.
pub async fn compare_with_leader(
    peers: &Peers,
    partition: &Partition,
) -> Result<Option<DiffersFromLeader>, Status> {
    let Leadership::Remote { id, node } = partition.leadership() else {
        return Ok(None);
    };
    let Some(DigestCheck { index, digest }) = partition.replica().digest_check() else {
        return Ok(None);
    };
    let mut client = peers
        .client(&node.peer_address, Purpose::Control)
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = peer::CompareDigestRequest {
        header: Some(peers.header(id, &node)),
        partition: partition.id(),
        log_index: index,
        digest: digest.0.to_vec().into(),
    };
    let response = tokio::time::timeout(limits::HELLO_TIMEOUT, client.compare_digest(request))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer"))??;
    let theirs = response.into_inner().digest;
    let Ok(theirs) = <[u8; 16]>::try_from(&*theirs) else {
        // It has not applied that far yet.
        return Ok(None);
    };
    let at = Contradiction {
        log_index: index,
        ours: digest,
        theirs: Digest(theirs),
    };
    Ok((at.ours != at.theirs).then(|| DiffersFromLeader {
        partition: partition.id(),
        leader: id,
        at,
    }))
}

/// Answers a replica that compares.
///
/// # Errors
/// INVALID_ARGUMENT for a digest of another length.
pub(super) fn answer_comparison(
    partition: &Partition,
    from: NodeId,
    request: &peer::CompareDigestRequest,
) -> Result<peer::CompareDigestResponse, Status> {
    let digest = <[u8; 16]>::try_from(&*request.digest).map_err(|_| {
        Status::invalid_argument(format!(
            "a digest has 16 bytes, this one {}",
            request.digest.len()
        ))
    })?;
    let theirs = DigestCheck {
        index: request.log_index,
        digest: Digest(digest),
    };
    let ours = partition.compare_digest(from, theirs);
    Ok(peer::CompareDigestResponse {
        digest: ours.map_or_else(Default::default, |digest| digest.0.to_vec().into()),
    })
}
