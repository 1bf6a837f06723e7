//! Every message of a client, as bytes and as values that no well-meaning client
//! would send: refused with the fields at fault, or a command that the machine
//! takes. `PROPTEST_CASES` makes the run longer.

use bytes::Bytes;
use huntlog_machine::{EntryBuilder, LATEST_LEVEL, Limits, LogId, Machine, encode_raise_level};
use huntlog_proto::v1;
use huntlog_proto::v1::event::Kind;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::{
    InvalidRequest, batch_command, consistency_from_proto, filter_from_proto, hunt_id,
    members_from_proto, node_from_proto, open_session_command, page, page_size_within, player_id,
};
use crate::limits;

/// Ids, good and bad.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-c]",
        1 => Just(String::new()),
        1 => "\\PC{0,4}",
        1 => "[\\x00-\\x20]{1,3}",
        1 => (120..140_usize).prop_map(|length| "x".repeat(length)),
    ]
}

fn time() -> impl Strategy<Value = Option<prost_types::Timestamp>> {
    let seconds = prop_oneof![0..3_i64, any::<i64>()];
    let nanos = prop_oneof![Just(0), any::<i32>()];
    prop::option::of(
        (seconds, nanos).prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
    )
}

prop_compose! {
    fn clue()(
        id in id(),
        requires in prop::collection::vec(id(), 0..3),
        points in any::<u32>(),
        answers in prop::collection::vec(id(), 0..3),
        hash_bytes in prop::collection::vec(30..34_usize, 0..2),
        salt in prop::collection::vec(any::<u8>(), 0..4),
        max_attempts in 0..3_u32,
        hints in prop::collection::vec((id(), any::<u32>()), 0..3),
    ) -> v1::Clue {
        v1::Clue {
            id,
            title: String::new(),
            requires,
            points,
            answers,
            answer_hashes: hash_bytes.into_iter().map(|n| vec![7; n].into()).collect(),
            answer_salt: salt.into(),
            max_attempts,
            hints: hints.into_iter().map(|(id, cost)| v1::Hint { id, cost }).collect(),
        }
    }
}

prop_compose! {
    fn definition()(
        clues in prop::collection::vec(clue(), 0..4),
        treasures in prop::collection::vec((id(), 0..3_u32, prop::collection::vec(id(), 0..2)), 0..3),
        starts_at in time(),
        ends_at in time(),
        max_players in 0..3_u32,
    ) -> v1::HuntDefinition {
        let treasures = treasures.into_iter().map(|(id, limit, requires)| v1::Treasure {
            id,
            limit,
            requires,
            points: u32::MAX,
            ..v1::Treasure::default()
        });
        v1::HuntDefinition {
            title: "t".to_owned(),
            clues,
            treasures: treasures.collect(),
            starts_at,
            ends_at,
            max_players,
        }
    }
}

fn kind() -> impl Strategy<Value = Option<Kind>> {
    let text = String::new;
    prop_oneof![
        Just(None),
        prop::option::of(definition())
            .prop_map(|definition| Some(Kind::HuntCreated(v1::HuntCreated { definition }))),
        prop::sample::select(vec![
            Some(Kind::HuntOpened(v1::HuntOpened {})),
            Some(Kind::HuntStarted(v1::HuntStarted {})),
            Some(Kind::HuntPaused(v1::HuntPaused {})),
            Some(Kind::HuntResumed(v1::HuntResumed {})),
            Some(Kind::HuntFinished(v1::HuntFinished {})),
            Some(Kind::HuntCancelled(v1::HuntCancelled { reason: text() })),
            Some(Kind::PlayerRegistered(v1::PlayerRegistered {
                display_name: text(),
            })),
            Some(Kind::PlayerWithdrawn(v1::PlayerWithdrawn {})),
            Some(Kind::PlayerDisqualified(v1::PlayerDisqualified {
                reason: text(),
            })),
        ]),
        (id(), id()).prop_map(
            |(clue, answer)| Some(Kind::ClueAttempted(v1::ClueAttempted { clue, answer }))
        ),
        id().prop_map(|treasure| Some(Kind::TreasureClaimed(v1::TreasureClaimed { treasure }))),
        (id(), id()).prop_map(|(clue, hint)| Some(Kind::HintTaken(v1::HintTaken { clue, hint }))),
        (id(), prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(r#type, payload)| {
            Some(Kind::Custom(v1::Custom {
                r#type,
                payload: payload.into(),
            }))
        }),
        (id(), id()).prop_map(|(clue, text)| Some(Kind::Announced(v1::Announced { clue, text }))),
    ]
}

prop_compose! {
    fn request()(
        session in id(),
        epoch in 0..3_u64,
        sequence in prop_oneof![0..6_u64, any::<u64>()],
        events in prop::collection::vec((id(), id(), time(), kind()), 0..12),
        expected in prop::collection::vec((id(), prop::option::of(prop::option::of(0..4_u64))), 0..3),
    ) -> v1::AppendRequest {
        use v1::expected_revision::Expected;
        let events = events.into_iter().map(|(hunt, player, occurred_at, kind)| {
            v1::Event { hunt, player, occurred_at, kind }
        });
        let expected_revisions = expected.into_iter().map(|(hunt, expected)| v1::ExpectedRevision {
            hunt,
            expected: expected.map(|exactly| exactly.map_or(Expected::None(()), Expected::Exactly)),
        });
        v1::AppendRequest {
            partition: 0,
            batch: Some(v1::Batch {
                session,
                epoch,
                sequence,
                events: events.collect(),
                expected_revisions: expected_revisions.collect(),
            }),
        }
    }
}

fn consistency() -> impl Strategy<Value = Option<v1::Consistency>> {
    use v1::consistency::Level;
    let level = prop_oneof![
        Just(None),
        Just(Some(Level::Linearizable(()))),
        any::<u64>().prop_map(|min_offset| Some(Level::Stale(v1::Stale { min_offset }))),
    ];
    prop::option::of(level.prop_map(|level| v1::Consistency { level }))
}

/// Where a page begins and how long it is.
fn place() -> impl Strategy<Value = (u32, String)> {
    let size = prop_oneof![0..3_u32, 998..1_003_u32, any::<u32>()];
    let token = prop_oneof!["", "1[A-Za-z0-9_=-]{0,12}", "\\PC{0,6}"];
    (size, token)
}

/// Nodes as an operator might name them.
fn node() -> impl Strategy<Value = v1::NodeAddress> {
    let address = prop_oneof![
        4 => "[a-c]:[1-3]",
        1 => "\\[[0-9a-f:]{0,8}\\]:[0-9]{0,6}",
        1 => "[a-zA-Z._-]{0,10}:?[0-9]{0,6}",
        1 => "\\PC{0,8}",
        1 => (250..260_usize).prop_map(|length| format!("{}:1", "x".repeat(length))),
    ];
    let node_id = prop_oneof![0..4_u64, any::<u64>()];
    (node_id, address.clone(), address).prop_map(|(node_id, peer_address, client_address)| {
        v1::NodeAddress {
            node_id,
            peer_address,
            client_address,
        }
    })
}

/// A message of `HuntService` or `AdminService` in its bytes.
fn question() -> impl Strategy<Value = Vec<u8>> {
    let hunts = prop_oneof![
        (id(), consistency()).prop_map(|(hunt, consistency)| {
            let request = v1::GetHuntRequest {
                hunt,
                consistency,
                ..Default::default()
            };
            request.encode_to_vec()
        }),
        (place(), consistency()).prop_map(|((page_size, page_token), consistency)| {
            let request = v1::ListHuntsRequest {
                page_size,
                page_token,
                consistency,
                ..Default::default()
            };
            request.encode_to_vec()
        }),
        (id(), place(), any::<u64>(), consistency()).prop_map(
            |(hunt, (page_size, _), skip, consistency)| {
                let request = v1::GetScoreboardRequest {
                    hunt,
                    page_size,
                    skip,
                    consistency,
                    ..Default::default()
                };
                request.encode_to_vec()
            }
        ),
        (id(), id(), consistency()).prop_map(|(hunt, player, consistency)| {
            let request = v1::GetPlayerRequest {
                hunt,
                player,
                consistency,
                ..Default::default()
            };
            request.encode_to_vec()
        }),
    ];
    let admin = prop_oneof![
        place().prop_map(|(page_size, page_token)| {
            let request = v1::ListSessionsRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            request.encode_to_vec()
        }),
        prop::collection::vec(node(), 0..9)
            .prop_map(|members| v1::InitClusterRequest { members }.encode_to_vec()),
        prop::option::of(node()).prop_map(|node| {
            let request = v1::AddMemberRequest {
                node,
                ..Default::default()
            };
            request.encode_to_vec()
        }),
        (any::<u64>(), any::<bool>(), any::<u32>()).prop_map(|(node_id, force, partition)| {
            let request = v1::PromoteMemberRequest {
                partition,
                node_id,
                force,
            };
            request.encode_to_vec()
        }),
    ];
    prop_oneof![hunts, admin]
}

/// Every fault says where and what, in few words.
fn check_faults(refused: &InvalidRequest) -> Result<(), TestCaseError> {
    prop_assert!(!refused.0.is_empty());
    for fault in &refused.0 {
        prop_assert!(!fault.path.is_empty() && !fault.message.is_empty());
        prop_assert!(fault.message.len() <= limits::FAULT_TEXT_BYTES_MAX + 3);
    }
    Ok(())
}

/// A replica that has the log so far.
struct Replica {
    machine: Machine,
    next_index: u64,
}

impl Replica {
    fn new() -> Self {
        let mut replica = Self {
            machine: Machine::new(0, Limits::default()),
            next_index: 0,
        };
        replica.apply(&encode_raise_level(LATEST_LEVEL));
        for session in ["a", "b", "c"] {
            let request = v1::OpenSessionRequest {
                partition: 0,
                session: session.to_owned(),
                nonce: Bytes::from_static(b"8 bytes."),
                epoch: 0,
            };
            let command = open_session_command(&request).expect("sound");
            replica.apply(&command);
        }
        replica
    }

    /// Applies an entry of this command alone, which can not fail: it would
    /// stop every replica.
    fn apply(&mut self, command: &huntlog_machine::EncodedCommand) {
        let mut entry = EntryBuilder::new(1_000 + self.next_index, None);
        entry.push(command);
        let id = LogId {
            term: 1,
            node_id: 1,
            index: self.next_index,
        };
        self.next_index += 1;
        let applied = self.machine.apply(id, &entry.finish());
        assert!(applied.is_ok(), "{:?}", applied.err());
    }

    fn append(&mut self, request: v1::AppendRequest) -> Result<(), TestCaseError> {
        let Some(batch) = request.batch else {
            return Ok(());
        };
        match batch_command(batch) {
            Ok(named) => self.apply(&named.command),
            Err(refused) => check_faults(&refused)?,
        }
        Ok(())
    }
}

/// Whatever these bytes are taken for.
fn take_as_anything(bytes: &Bytes) -> Result<(), TestCaseError> {
    if let Ok(request) = v1::AppendRequest::decode(bytes.clone()) {
        Replica::new().append(request)?;
    }
    if let Ok(request) = v1::OpenSessionRequest::decode(bytes.clone()) {
        match open_session_command(&request) {
            Ok(command) => Replica::new().apply(&command),
            Err(refused) => check_faults(&refused)?,
        }
    }
    if let Ok(request) = v1::ReadRequest::decode(bytes.clone()) {
        let _ = consistency_from_proto(request.consistency);
        if let Err(refused) = filter_from_proto(request.filter) {
            check_faults(&refused)?;
        }
    }
    if let Ok(request) = v1::SubscribeRequest::decode(bytes.clone())
        && let Err(refused) = filter_from_proto(request.filter)
    {
        check_faults(&refused)?;
    }
    take_as_a_question(bytes)?;
    take_as_an_operators(bytes)
}

/// Whether what was refused says why.
fn checked<T>(taken: Result<T, InvalidRequest>) -> Result<Option<T>, TestCaseError> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(refused) => check_faults(&refused).map(|()| None),
    }
}

fn take_as_a_question(bytes: &Bytes) -> Result<(), TestCaseError> {
    if let Ok(request) = v1::GetHuntRequest::decode(bytes.clone()) {
        checked(hunt_id(&request.hunt))?;
        let _ = consistency_from_proto(request.consistency);
    }
    if let Ok(request) = v1::ListHuntsRequest::decode(bytes.clone()) {
        checked(page(request.page_size, &request.page_token))?;
        let _ = consistency_from_proto(request.consistency);
    }
    if let Ok(request) = v1::GetScoreboardRequest::decode(bytes.clone()) {
        checked(hunt_id(&request.hunt))?;
        let size = page_size_within(request.page_size, limits::SCOREBOARD_ROWS_MAX);
        if let Some(size) = checked(size)? {
            prop_assert!((1..=limits::SCOREBOARD_ROWS_MAX).contains(&size));
        }
    }
    if let Ok(request) = v1::GetPlayerRequest::decode(bytes.clone()) {
        for refused in [
            hunt_id(&request.hunt),
            player_id(&request.hunt, &request.player),
        ] {
            if let Err(refused) = refused {
                check_faults(&refused)?;
            }
        }
    }
    Ok(())
}

/// What an operator asks. Of messages without rules of their own it is enough
/// that they decode or do not.
fn take_as_an_operators(bytes: &Bytes) -> Result<(), TestCaseError> {
    if let Ok(request) = v1::ListSessionsRequest::decode(bytes.clone())
        && let Some(page) = checked(page(request.page_size, &request.page_token))?
    {
        prop_assert!((1..=limits::PAGE_ITEMS_MAX).contains(&page.size));
    }
    if let Ok(request) = v1::InitClusterRequest::decode(bytes.clone()) {
        let listed = request.members.len();
        if let Some(members) = checked(members_from_proto(request.members))? {
            prop_assert!(members.len() == listed && listed <= limits::VOTERS_MAX);
            prop_assert!(!members.contains_key(&0));
        }
    }
    if let Ok(request) = v1::AddMemberRequest::decode(bytes.clone())
        && let Some((id, node)) = checked(node_from_proto(request.node))?
    {
        prop_assert!(id != 0 && node.peer_address != node.client_address);
    }
    let _ = v1::GetStatusRequest::decode(bytes.clone());
    let _ = v1::TransferLeaderRequest::decode(bytes.clone());
    let _ = v1::TakeSnapshotRequest::decode(bytes.clone());
    let _ = v1::ListMembersRequest::decode(bytes.clone());
    let _ = v1::PromoteMemberRequest::decode(bytes.clone());
    let _ = v1::RemoveMemberRequest::decode(bytes.clone());
    let _ = v1::DrainNodeRequest::decode(bytes.clone());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..1_024)) {
        take_as_anything(&bytes.into())?;
    }

    /// Every request is refused with its faults, or ends in the log, whatever
    /// came before it.
    #[test]
    fn any_requests_are_refused_or_applied(requests in prop::collection::vec(request(), 1..6)) {
        let mut replica = Replica::new();
        for request in requests {
            replica.append(request)?;
        }
        // And what they have made can be told.
        let view = replica.machine.view();
        for hunt in view.hunts(None, 10) {
            let _ = super::hunt_to_proto(hunt);
        }
    }

    #[test]
    fn any_questions_are_taken_or_refused(
        question in question(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = question;
        for (place, byte) in edits {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        take_as_anything(&bytes.into())?;
    }

    #[test]
    fn damaged_requests_are_taken_or_refused(
        request in request(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = request.encode_to_vec();
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        take_as_anything(&bytes.into())?;
    }
}
