//! Every message of the peer protocol, as bytes that no huntlog node would send:
//! an error, never a panic, and no more memory than the bytes are worth.
//! `PROPTEST_CASES` makes the run longer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use huntlog_machine::{Event, EventKind, Machine};
use huntlog_proto::peer;
use openraft::raft::AppendEntriesRequest;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::entry::{decode_payload, encode_payload};
use super::network::stream_result_from_proto;
use super::peer_wire::{
    append_from_proto, append_to_proto, membership_from_proto, optional_log_id,
    snapshot_from_proto, snapshot_meta_from_proto, vote_from_proto, vote_request_from_proto,
    vote_response_from_proto,
};
use super::{EntryData, MemberNode, Membership, Payload, TypeConfig};

/// Far below what a length that is believed would ask for.
const MEMORY_MAX: u64 = 512 << 20;

/// What the process has ever had reserved at once.
fn reserved_bytes_max() -> u64 {
    let status = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .expect("a process can see itself");
    status.vmpeak.expect("every process has one") * 1024
}

/// Some of the bytes replaced, some cut off, some added.
fn damaged(mut bytes: Vec<u8>, edits: &[(Index, u8)], cut: Option<Index>, more: &[u8]) -> Bytes {
    for (place, byte) in edits {
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
    bytes.extend_from_slice(more);
    bytes.into()
}

prop_compose! {
    fn damage()(
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<Index>()),
        more in prop::collection::vec(any::<u8>(), 0..16),
    ) -> (Vec<(Index, u8)>, Option<Index>, Vec<u8>) {
        (edits, cut, more)
    }
}

fn membership() -> Membership {
    let node = |n: u64| MemberNode {
        uuid: format!("{n:032x}"),
        peer_address: format!("127.0.0.1:{n}"),
        client_address: format!("127.0.0.1:{n}"),
        retired_ids: BTreeSet::from([7]),
    };
    Membership::new(
        vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3])],
        (1..=3).map(|n| (n, node(n))).collect::<BTreeMap<_, _>>(),
    )
    .expect("every voter is a node")
}

/// An entry as a leader proposes it.
fn entry() -> Bytes {
    let batch = huntlog_machine::Batch {
        session: "s".to_owned(),
        epoch: 1,
        sequence: 1,
        expected: vec![("h".to_owned(), huntlog_machine::ExpectedRevision::None)],
        events: (0..3)
            .map(|n| Event {
                hunt: format!("h{n}"),
                player: "p".to_owned(),
                occurred_at: None,
                kind: EventKind::ClueAttempted {
                    clue: "c".to_owned(),
                    answer: "a".to_owned(),
                },
            })
            .collect(),
    };
    let mut builder = huntlog_machine::EntryBuilder::new(1_000, None);
    builder.push(&huntlog_machine::encode_open_session("s", b"8 bytes."));
    builder.push(&huntlog_machine::encode_batch(&batch));
    builder.finish()
}

fn log_id(index: u64) -> peer::LogId {
    peer::LogId {
        leader_id: Some(peer::LeaderId {
            term: 3,
            node_id: 1,
        }),
        index,
    }
}

fn append() -> peer::AppendEntriesRequest {
    let payloads = [
        Payload::Blank,
        Payload::Membership(membership()),
        Payload::Normal(EntryData(entry())),
    ];
    peer::AppendEntriesRequest {
        header: Some(peer::Header::default()),
        partition: 0,
        vote: Some(peer::BallotVote {
            leader_id: log_id(0).leader_id,
            committed: true,
        }),
        prev_log_id: Some(log_id(6)),
        entries: (7..)
            .zip(&payloads)
            .map(|(index, payload)| peer::Entry {
                log_id: Some(log_id(index)),
                payload: encode_payload(payload),
            })
            .collect(),
        leader_commit: Some(log_id(5)),
    }
}

/// Whatever these bytes are taken for.
fn take_as_anything(bytes: &Bytes) {
    let membership = peer::Membership::decode(bytes.clone());
    let _ = membership.map(membership_from_proto);
    let _ = peer::SnapshotMeta::decode(bytes.clone()).map(snapshot_meta_from_proto);
    let _ = peer::VoteRequest::decode(bytes.clone()).map(vote_request_from_proto);
    let _ = peer::VoteResponse::decode(bytes.clone()).map(vote_response_from_proto);
    if let Ok(request) = peer::InstallSnapshotRequest::decode(bytes.clone())
        && let Some(peer::install_snapshot_request::Part::Start(start)) = request.part
    {
        let _ = snapshot_from_proto(start.meta, start.vote);
    }
    if let Ok(request) = peer::TransferLeaderRequest::decode(bytes.clone()) {
        let _ = vote_from_proto(request.from_leader);
        let _ = optional_log_id(request.last_log_id);
    }
    let _ = peer::ReadIndexRequest::decode(bytes.clone());
    if let Ok(response) = peer::ReadIndexResponse::decode(bytes.clone()) {
        let _ = optional_log_id(response.read_log_id);
    }
    if let Ok(response) = peer::AppendEntriesResponse::decode(bytes.clone()) {
        let _ = stream_result_from_proto(response);
    }
    let _ = peer::HelloRequest::decode(bytes.clone());
    let _ = peer::HelloResponse::decode(bytes.clone());
    let _ = peer::AdoptRequest::decode(bytes.clone());
    let _ = peer::CompareDigestRequest::decode(bytes.clone());
    if let Ok(request) = peer::AppendEntriesRequest::decode(bytes.clone())
        && let Ok(request) = append_from_proto(request)
    {
        assert_taken_for_granted(&request);
        for entry in &request.entries {
            if let Payload::Normal(EntryData(data)) = &entry.payload {
                apply(data);
            }
        }
        let _ = append_to_proto(&request, None, 0);
    }
}

/// What openraft takes for granted of entries.
fn assert_taken_for_granted(request: &AppendEntriesRequest<TypeConfig>) {
    let mut last = request.prev_log_id;
    for entry in &request.entries {
        let id = entry.log_id;
        assert_eq!(
            id.index,
            last.map_or(0, |last| last.index + 1),
            "{request:?}"
        );
        assert!(
            last.map(|last| last.leader_id) <= Some(id.leader_id),
            "{request:?}"
        );
        last = Some(id);
    }
    let leader = request.vote.leader_id;
    assert!(
        last.is_none_or(|last| last.leader_id <= leader),
        "{request:?}"
    );
    assert!(leader.term.checked_add(1 << 60).is_some(), "{request:?}");
}

/// What a replica does with an entry that has been committed: it is applied, or
/// the replica stops with an error.
fn apply(data: &Bytes) {
    let mut machine = Machine::new(0, huntlog_machine::Limits::default());
    let id = huntlog_machine::LogId {
        term: 3,
        node_id: 1,
        index: 0,
    };
    let _ = machine.apply(id, data);
}

#[test]
fn the_whole_messages_are_taken() {
    let request = append_from_proto(append()).expect("it is whole");
    assert_eq!(request.entries.len(), 3);
    let mut machine = Machine::new(0, huntlog_machine::Limits::default());
    let id = huntlog_machine::LogId {
        term: 3,
        node_id: 1,
        index: 0,
    };
    machine.apply(id, &entry()).expect("it is whole");
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..2_048),
    ) {
        let before = reserved_bytes_max();
        let bytes = Bytes::from(bytes);
        take_as_anything(&bytes);
        let _ = decode_payload(bytes.clone());
        apply(&bytes);
        prop_assert!(reserved_bytes_max() - before < MEMORY_MAX);
    }

    #[test]
    fn damaged_messages_are_taken_or_refused((edits, cut, more) in damage()) {
        let before = reserved_bytes_max();
        take_as_anything(&damaged(append().encode_to_vec(), &edits, cut, &more));
        prop_assert!(reserved_bytes_max() - before < MEMORY_MAX);
    }

    #[test]
    fn damaged_entries_are_applied_or_refused((edits, cut, more) in damage()) {
        let before = reserved_bytes_max();
        for payload in [entry(), encode_payload(&Payload::Membership(membership()))] {
            let bytes = damaged(payload.to_vec(), &edits, cut, &more);
            let _ = decode_payload(bytes.clone());
            apply(&bytes);
        }
        prop_assert!(reserved_bytes_max() - before < MEMORY_MAX);
    }
}
