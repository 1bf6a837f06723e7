//! openraft's messages <-> `huntlog.peer.v1`.
//!
//! openraft's own types never go onto the wire: their layout changes with its
//! releases, and a cluster is upgraded one node at a time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use huntlog_proto::peer;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};

use super::entry::{EntryFormatError, decode_payload, encode_payload};
use super::{
    Entry, LogId, MemberNode, Membership, NodeId, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
use crate::limits;

/// A peer's message that lacks something or says something impossible.
#[derive(Debug, thiserror::Error)]
pub enum PeerWireError {
    /// A field that the protocol requires is not set.
    #[error("the peer's message has no `{0}`; is the peer of another release?")]
    Missing(&'static str),
    /// The membership has no voters, or more than a joint one can have.
    #[error("the peer's membership is not valid: {0}")]
    Membership(String),
    /// What it says can not be, whoever leads.
    #[error("the peer's message is impossible: {0}")]
    Impossible(String),
    /// An entry's payload is not known to this release.
    #[error("entry {index}: {source}")]
    Entry {
        /// The entry's log index.
        index: u64,
        /// Why it does not decode.
        #[source]
        source: Box<EntryFormatError>,
    },
}

/// The wire form of a log id.
pub fn log_id_to_proto(id: &LogId) -> peer::LogId {
    peer::LogId {
        leader_id: Some(peer::LeaderId {
            term: id.leader_id.term,
            node_id: id.leader_id.node_id,
        }),
        index: id.index,
    }
}

pub(super) fn log_id_from_proto(id: peer::LogId) -> Result<LogId, PeerWireError> {
    Ok(LogId {
        leader_id: leader_id_from_proto(id.leader_id)?,
        index: possible("log index", id.index)?,
    })
}

pub(super) fn optional_log_id(id: Option<peer::LogId>) -> Result<Option<LogId>, PeerWireError> {
    id.map(log_id_from_proto).transpose()
}

fn leader_id_from_proto(id: Option<peer::LeaderId>) -> Result<LeaderId<u64, u64>, PeerWireError> {
    let id = id.ok_or(PeerWireError::Missing("leader_id"))?;
    Ok(LeaderId {
        term: possible("term", id.term)?,
        node_id: id.node_id,
    })
}

fn possible(what: &str, number: u64) -> Result<u64, PeerWireError> {
    if number > limits::PEER_NUMBER_MAX {
        return Err(PeerWireError::Impossible(format!(
            "{what} {number} is above {}",
            limits::PEER_NUMBER_MAX
        )));
    }
    Ok(number)
}

/// The wire form of a vote.
pub fn vote_to_proto(vote: &Vote) -> peer::BallotVote {
    peer::BallotVote {
        leader_id: Some(peer::LeaderId {
            term: vote.leader_id.term,
            node_id: vote.leader_id.node_id,
        }),
        committed: vote.committed,
    }
}

pub(super) fn vote_from_proto(vote: Option<peer::BallotVote>) -> Result<Vote, PeerWireError> {
    let vote = vote.ok_or(PeerWireError::Missing("vote"))?;
    Ok(Vote {
        leader_id: leader_id_from_proto(vote.leader_id)?,
        committed: vote.committed,
    })
}

fn entry_to_proto(entry: &Entry) -> peer::Entry {
    peer::Entry {
        log_id: Some(log_id_to_proto(&entry.log_id)),
        payload: encode_payload(&entry.payload),
    }
}

fn entry_from_proto(entry: peer::Entry) -> Result<Entry, PeerWireError> {
    let log_id = log_id_from_proto(entry.log_id.ok_or(PeerWireError::Missing("log_id"))?)?;
    // What was received lies in its stream's decode buffer, up to twice as large as
    // the messages in it. The tail of the log would keep it whole.
    let payload = Bytes::copy_from_slice(&entry.payload);
    let payload = decode_payload(payload).map_err(|source| PeerWireError::Entry {
        index: log_id.index,
        source: Box::new(source),
    })?;
    Ok(Entry { log_id, payload })
}

pub(super) fn append_to_proto(
    request: &AppendEntriesRequest<TypeConfig>,
    header: Option<peer::Header>,
    partition: u32,
) -> peer::AppendEntriesRequest {
    peer::AppendEntriesRequest {
        header,
        partition,
        vote: Some(vote_to_proto(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(entry_to_proto).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn append_from_proto(
    request: peer::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, PeerWireError> {
    let request = AppendEntriesRequest {
        vote: vote_from_proto(request.vote)?,
        prev_log_id: optional_log_id(request.prev_log_id)?,
        entries: request
            .entries
            .into_iter()
            .map(entry_from_proto)
            .collect::<Result<_, _>>()?,
        leader_commit: optional_log_id(request.leader_commit)?,
    };
    of_a_leader(&request.vote)?;
    let ids = request.entries.iter().map(|entry: &Entry| entry.log_id);
    in_sequence(request.prev_log_id, ids, &request.vote)?;
    Ok(request)
}

/// Only who was elected sends entries and snapshots.
fn of_a_leader(vote: &Vote) -> Result<(), PeerWireError> {
    if vote.committed {
        return Ok(());
    }
    Err(PeerWireError::Impossible(format!(
        "the vote {vote} is a candidate's, not a leader's"
    )))
}

/// Entries follow each other and the one before them, and are of leaders up to
/// the one who sends them (Raft, section 5.3: log matching). openraft takes that
/// for granted.
fn in_sequence(
    prev: Option<LogId>,
    ids: impl Iterator<Item = LogId>,
    vote: &Vote,
) -> Result<(), PeerWireError> {
    let mut before = prev;
    for id in ids {
        let index = before.map_or(0, |before| before.index + 1);
        let led_before = before.map(|before| before.leader_id);
        if id.index != index || led_before > Some(id.leader_id) {
            let before = before.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
            return Err(PeerWireError::Impossible(format!(
                "entry {id} does not follow {before}"
            )));
        }
        before = Some(id);
    }
    match before {
        Some(last) => not_after(&last, vote),
        None => Ok(()),
    }
}

fn not_after(last: &LogId, vote: &Vote) -> Result<(), PeerWireError> {
    if last.leader_id <= vote.leader_id {
        return Ok(());
    }
    Err(PeerWireError::Impossible(format!(
        "entry {last} is of a later leader than {vote}, who sends it"
    )))
}

pub(super) fn vote_request_to_proto(
    request: &VoteRequest<TypeConfig>,
    header: peer::Header,
    partition: u32,
) -> peer::VoteRequest {
    peer::VoteRequest {
        header: Some(header),
        partition,
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request_from_proto(
    request: peer::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, PeerWireError> {
    let vote = vote_from_proto(request.vote)?;
    let last_log_id = optional_log_id(request.last_log_id)?;
    if let Some(last) = &last_log_id {
        not_after(last, &vote)?;
    }
    let mut parsed = VoteRequest::new(vote, last_log_id);
    parsed.leadership_transfer = request.leadership_transfer;
    Ok(parsed)
}

pub(super) fn vote_response_to_proto(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(super) fn vote_response_from_proto(
    response: peer::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, PeerWireError> {
    Ok(VoteResponse::new(
        vote_from_proto(response.vote)?,
        optional_log_id(response.last_log_id)?,
        response.granted,
    ))
}

/// The wire form of a member.
pub fn member_to_proto(node_id: u64, node: &MemberNode) -> peer::MemberNode {
    peer::MemberNode {
        node_id,
        node_uuid: node.uuid.clone(),
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        retired_node_ids: node.retired_ids.iter().copied().collect(),
    }
}

/// A member as the wire tells of it.
pub fn member_from_proto(member: peer::MemberNode) -> (NodeId, MemberNode) {
    (
        member.node_id,
        MemberNode {
            uuid: member.node_uuid,
            peer_address: member.peer_address,
            client_address: member.client_address,
            retired_ids: member.retired_node_ids.into_iter().collect(),
        },
    )
}

pub(super) fn membership_to_proto(membership: &Membership) -> peer::Membership {
    peer::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| peer::MemberSet {
                node_ids: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| member_to_proto(*id, node))
            .collect(),
    }
}

pub(super) fn membership_from_proto(
    message: peer::Membership,
) -> Result<Membership, PeerWireError> {
    let configs: Vec<BTreeSet<u64>> = message
        .configs
        .into_iter()
        .map(|set| set.node_ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, MemberNode> =
        message.nodes.into_iter().map(member_from_proto).collect();
    Membership::new(configs, nodes).map_err(|error| PeerWireError::Membership(error.to_string()))
}

pub(super) fn stored_membership_to_proto(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

pub(super) fn stored_membership_from_proto(
    stored: peer::StoredMembership,
) -> Result<StoredMembership, PeerWireError> {
    let log_id = optional_log_id(stored.log_id)?;
    let membership = stored
        .membership
        .ok_or(PeerWireError::Missing("membership"))?;
    // Before the first membership is written, a snapshot has an empty one.
    if membership.configs.is_empty() {
        return Ok(StoredMembership::new(log_id, Membership::default()));
    }
    Ok(StoredMembership::new(
        log_id,
        membership_from_proto(membership)?,
    ))
}

pub(super) fn snapshot_meta_to_proto(meta: &SnapshotMeta) -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        last_membership: Some(stored_membership_to_proto(&meta.last_membership)),
        ..peer::SnapshotMeta::default()
    }
}

/// The description of the snapshot that the sender of `vote` sends.
pub(super) fn snapshot_from_proto(
    meta: Option<peer::SnapshotMeta>,
    vote: Option<peer::BallotVote>,
) -> Result<(SnapshotMeta, Vote), PeerWireError> {
    let vote = vote_from_proto(vote)?;
    let meta = snapshot_meta_from_proto(meta.ok_or(PeerWireError::Missing("meta"))?)?;
    of_a_leader(&vote)?;
    if let Some(last) = &meta.last_log_id {
        not_after(last, &vote)?;
    }
    if *meta.last_membership.log_id() > meta.last_log_id {
        return Err(PeerWireError::Impossible(
            "the snapshot's membership is later than the snapshot".to_owned(),
        ));
    }
    Ok((meta, vote))
}

pub(super) fn snapshot_meta_from_proto(
    meta: peer::SnapshotMeta,
) -> Result<SnapshotMeta, PeerWireError> {
    Ok(SnapshotMeta {
        last_log_id: optional_log_id(meta.last_log_id)?,
        last_membership: stored_membership_from_proto(
            meta.last_membership
                .ok_or(PeerWireError::Missing("last_membership"))?,
        )?,
    })
}
