//! The table of answers, a test for each row.

use huntlog_machine::{ExpectedRevision, LevelRange};

use super::*;
use crate::api::error::Resource;
use crate::raft::MemberNode;
use crate::wire::InvalidRequest;

/// What a client sees of a status.
struct Seen {
    code: Code,
    reason: String,
    disposition: Option<String>,
    retries: bool,
    metadata: HashMap<String, String>,
    message: String,
}

fn seen(error: ApiError, operation: Operation) -> Seen {
    let status = error.into_status(operation);
    let details = status.get_error_details();
    let info = details.error_info().expect("every failure has a reason");
    assert_eq!(info.domain, "huntlog");
    let documented = format!("ERROR_REASON_{}", info.reason);
    assert!(
        v1::ErrorReason::from_str_name(&documented).is_some(),
        "error.proto does not list {documented}"
    );
    let mut metadata = info.metadata.clone();
    Seen {
        code: status.code(),
        reason: info.reason.clone(),
        disposition: metadata.remove(DISPOSITION),
        retries: details
            .retry_info()
            .is_some_and(|info| info.retry_delay.is_some()),
        metadata,
        message: status.message().to_owned(),
    }
}

/// Checks a write's status, and that a stream's failure says the same.
fn write(
    error: impl Fn() -> ApiError,
    (code, reason, disposition, retries): (Code, &str, &str, bool),
    metadata: &[(&str, &str)],
) -> String {
    let status = seen(error(), Operation::Write);
    assert_eq!(status.code, code);
    assert_eq!(status.reason, reason);
    assert_eq!(status.disposition.as_deref(), Some(disposition));
    assert_eq!(status.retries, retries, "whether a retry can help");
    let expected: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(status.metadata, expected);
    assert!(!status.message.is_empty());

    let failure = error().into_failure();
    assert_eq!(Code::from_i32(failure.code), code);
    assert_eq!(failure.reason, reason);
    assert_eq!(
        failure.disposition().as_str_name(),
        format!("DISPOSITION_{disposition}")
    );
    assert_eq!(failure.retry_after.is_some(), retries);
    assert_eq!(failure.metadata, expected);
    assert_eq!(failure.message, status.message);
    status.message
}

/// Checks a read's status; a read says nothing of what was applied.
fn read(error: ApiError, code: Code, reason: &str, retries: bool, metadata: &[(&str, &str)]) {
    let status = seen(error, Operation::Read);
    assert_eq!(status.code, code);
    assert_eq!(status.reason, reason);
    assert_eq!(status.disposition, None);
    assert!(!status.message.contains("applied;"), "{}", status.message);
    assert_eq!(status.retries, retries, "whether a retry can help");
    for (key, value) in metadata {
        assert_eq!(status.metadata.get(*key).map(String::as_str), Some(*value));
    }
}

fn leader() -> Option<MemberNode> {
    Some(MemberNode {
        uuid: String::new(),
        peer_address: "10.0.0.2:7651".to_owned(),
        client_address: "10.0.0.2:7650".to_owned(),
        ..MemberNode::default()
    })
}

const LEADER: [(&str, &str); 2] = [("leader_id", "2"), ("leader_address", "10.0.0.2:7650")];

#[test]
fn malformed_requests_name_every_field() {
    let error = || {
        let fault = |path: &str| FieldFault {
            path: path.to_owned(),
            message: "wrong".to_owned(),
        };
        ApiError::Invalid(InvalidRequest(vec![
            fault("batch.session"),
            fault("batch.events[3].player"),
        ]))
    };
    let status = error().into_status(Operation::Write);
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    assert_eq!(info.reason, "INVALID");
    assert_eq!(info.metadata[DISPOSITION], "NOT_APPLIED");
    assert!(details.retry_info().is_none());
    let violations = &details.bad_request().expect("the fields").field_violations;
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["batch.session", "batch.events[3].player"]);

    let failure = error().into_failure();
    let in_band = |fault: &v1::FieldViolation| (fault.field.clone(), fault.description.clone());
    let in_status = |fault: &FieldViolation| (fault.field.clone(), fault.description.clone());
    assert!(
        failure
            .field_violations
            .iter()
            .map(in_band)
            .eq(violations.iter().map(in_status))
    );
}

/// Clients take 8 KiB of headers, and refuse the whole answer beyond.
#[test]
fn however_many_faults_there_are_the_answer_can_be_received() {
    let faults = (0..4_096)
        .map(|position| FieldFault {
            path: format!("batch.events[{position}].custom.type"),
            message: "an id is needed".to_owned(),
        })
        .collect();
    let status = ApiError::Invalid(InvalidRequest(faults)).into_status(Operation::Write);
    let headers = status.clone().into_http::<()>();
    let bytes: usize = headers
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    assert!(bytes < 8 * 1024, "{bytes} bytes of headers");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("the fields").field_violations;
    let last = violations.last().expect("some");
    assert_eq!(
        last.description,
        format!(
            "{} further faults are left out; correct these first",
            4_096 - (violations.len() - 1)
        )
    );
}

#[test]
fn no_leader_draining_and_starting_are_unavailable_and_not_applied() {
    for (error, reason) in [
        ((|| ApiError::NoLeader) as fn() -> ApiError, "NO_LEADER"),
        (|| ApiError::Write(WriteError::NoLeader), "NO_LEADER"),
        (|| ApiError::Draining, "DRAINING"),
        (|| ApiError::Write(WriteError::Draining), "DRAINING"),
        (|| ApiError::Starting, "STARTING"),
    ] {
        let message = write(error, (Code::Unavailable, reason, "NOT_APPLIED", true), &[]);
        assert!(message.contains("; nothing was applied; "), "{message}");
    }
    read(
        ApiError::NoLeader,
        Code::Unavailable,
        "NO_LEADER",
        true,
        &[],
    );
}

#[test]
fn another_leader_is_named() {
    let row = (Code::Unavailable, "NOT_LEADER", "NOT_APPLIED", true);
    let forwarded = || ApiError::NotLeader {
        leader: 2,
        address: Some("10.0.0.2:7650".to_owned()),
    };
    let refused = || {
        ApiError::Write(WriteError::NotLeader {
            leader: 2,
            node: leader(),
        })
    };
    assert_eq!(write(forwarded, row, &LEADER), write(refused, row, &LEADER));
    let unknown = || {
        ApiError::Write(WriteError::NotLeader {
            leader: 2,
            node: None,
        })
    };
    write(unknown, row, &LEADER[..1]);
}

#[test]
fn overload_is_not_applied_and_can_be_retried() {
    let row = (Code::ResourceExhausted, "OVERLOADED", "NOT_APPLIED", true);
    write(
        || {
            ApiError::Write(WriteError::Overloaded {
                in_flight_bytes: 64,
            })
        },
        row,
        &[],
    );
    for resource in [
        Resource::AppendBytes,
        Resource::Reads,
        Resource::Subscribers,
    ] {
        write(move || ApiError::TooMuch { resource }, row, &[]);
    }
}

/// I10: nobody here knows what becomes of it.
#[test]
fn what_is_lost_sight_of_is_unknown() {
    let deadline = (Code::DeadlineExceeded, "DEADLINE", "UNKNOWN", true);
    let message = write(|| ApiError::Deadline, deadline, &[]);
    assert_eq!(
        message,
        "the deadline has passed; it may or may not be applied; sending the same sequence again is safe, and finds out"
    );
    write(
        || ApiError::Write(WriteError::LeadershipLost),
        (Code::Unavailable, "LEADERSHIP_LOST", "UNKNOWN", true),
        &[],
    );
    write(
        || ApiError::Write(WriteError::NodeFailed),
        (Code::Unavailable, "NODE_FAILED", "UNKNOWN", true),
        &[],
    );
    read(
        ApiError::Deadline,
        Code::DeadlineExceeded,
        "DEADLINE",
        true,
        &[],
    );
}

/// The dispositions agree with what the partition says of its own errors.
#[test]
fn dispositions_are_the_partitions() {
    for error in [
        WriteError::NotLeader {
            leader: 1,
            node: None,
        },
        WriteError::NoLeader,
        WriteError::Overloaded { in_flight_bytes: 1 },
        WriteError::Draining,
        WriteError::LeadershipLost,
        WriteError::NodeFailed,
    ] {
        let expected = if error.not_applied() {
            "NOT_APPLIED"
        } else {
            "UNKNOWN"
        };
        let status = seen(ApiError::Write(error), Operation::Write);
        assert_eq!(status.disposition.as_deref(), Some(expected));
    }
}

/// I10: only what was certainly never sent is not applied.
#[test]
fn an_unreached_leader_is_unknown_unless_nothing_was_sent() {
    for (sent, disposition) in [(true, "UNKNOWN"), (false, "NOT_APPLIED")] {
        write(
            || ApiError::Unreachable {
                leader: 2,
                address: "10.0.0.2:7650".to_owned(),
                sent,
                cause: "connection reset".to_owned(),
            },
            (Code::Unavailable, "UNREACHABLE", disposition, true),
            &LEADER,
        );
    }
}

#[test]
fn failed_preconditions_tell_the_actual_value() {
    let row = |reason| (Code::FailedPrecondition, reason, "NOT_APPLIED", false);
    write(
        || {
            ApiError::Refused(Refusal::SequenceGap {
                expected: 4,
                actual: 6,
            })
        },
        row("SEQUENCE_GAP"),
        &[("expected", "4"), ("sequence", "6")],
    );
    write(
        || {
            ApiError::Refused(Refusal::Fenced {
                epoch: 9,
                actual: 3,
            })
        },
        row("FENCED"),
        &[("epoch", "3"), ("actual", "9")],
    );
    write(
        || ApiError::Refused(Refusal::SessionUnknown),
        row("SESSION_UNKNOWN"),
        &[],
    );
    write(
        || ApiError::Refused(Refusal::PayloadMismatch { sequence: 5 }),
        row("PAYLOAD_MISMATCH"),
        &[("sequence", "5")],
    );
    let mismatch = |expected| {
        move || {
            ApiError::Refused(Refusal::RevisionMismatch {
                hunt: "h".to_owned(),
                expected,
                actual: 2,
            })
        }
    };
    write(
        mismatch(ExpectedRevision::Exactly(1)),
        row("REVISION_MISMATCH"),
        &[("hunt", "h"), ("expected", "1"), ("actual", "2")],
    );
    write(
        mismatch(ExpectedRevision::None),
        row("REVISION_MISMATCH"),
        &[("hunt", "h"), ("expected", "0"), ("actual", "2")],
    );
}

#[test]
fn sessions_that_can_not_be_opened_can_be_later() {
    write(
        || ApiError::SessionRefused(SessionRefusal::TableFull { max_sessions: 7 }),
        (
            Code::ResourceExhausted,
            "SESSIONS_FULL",
            "NOT_APPLIED",
            true,
        ),
        &[("limit", "7")],
    );
    write(
        || ApiError::SessionRefused(SessionRefusal::Contended),
        (Code::Aborted, "SESSION_CONTENDED", "NOT_APPLIED", true),
        &[],
    );
    write(
        || {
            ApiError::SessionRefused(SessionRefusal::Fenced {
                epoch: 5,
                current: 9,
            })
        },
        (Code::FailedPrecondition, "FENCED", "NOT_APPLIED", false),
        &[("epoch", "5"), ("actual", "9")],
    );
}

#[test]
fn before_the_history_the_earliest_offset_is_told() {
    let error = ReadEventsError::BeforeHistory {
        asked: 3,
        earliest: 100,
    };
    read(
        ApiError::ReadEvents(error),
        Code::OutOfRange,
        "OUT_OF_RANGE",
        false,
        &[("earliest", "100"), ("asked", "3")],
    );
}

#[test]
fn beyond_the_end_the_end_is_told() {
    read(
        ApiError::BeyondEnd { asked: 9, end: 5 },
        Code::OutOfRange,
        "OUT_OF_RANGE",
        false,
        &[("asked", "9"), ("end", "5")],
    );
}

#[test]
fn a_stalled_client_is_told_where_to_resume() {
    read(
        ApiError::Stalled { next_offset: 42 },
        Code::ResourceExhausted,
        "STALLED",
        true,
        &[("next_offset", "42")],
    );
}

#[test]
fn what_is_missing_is_named() {
    read(
        ApiError::HuntUnknown("h".to_owned()),
        Code::NotFound,
        "NOT_FOUND",
        false,
        &[("missing", "hunt"), ("hunt", "h")],
    );
    read(
        ApiError::PlayerUnknown {
            hunt: "h".to_owned(),
            player: "p".to_owned(),
        },
        Code::NotFound,
        "NOT_FOUND",
        false,
        &[("missing", "player"), ("hunt", "h"), ("player", "p")],
    );
    write(
        || ApiError::UnknownPartition(7),
        (Code::NotFound, "UNKNOWN_PARTITION", "NOT_APPLIED", false),
        &[("partition", "7")],
    );
}

#[test]
fn reads_that_can_not_be_linearizable_now_can_be_retried() {
    read(
        ApiError::ReadIndex(ReadIndexError::NoLeader),
        Code::Unavailable,
        "NO_LEADER",
        true,
        &[],
    );
    read(
        ApiError::ReadIndex(ReadIndexError::Leader("no quorum".to_owned())),
        Code::Unavailable,
        "UNREACHABLE",
        true,
        &[],
    );
    read(
        ApiError::ReadIndex(ReadIndexError::Behind {
            applied: 4,
            wanted: 6,
        }),
        Code::DeadlineExceeded,
        "DEADLINE",
        true,
        &[("expected", "6"), ("actual", "4")],
    );
    read(
        ApiError::Behind { asked: 9, end: 5 },
        Code::DeadlineExceeded,
        "DEADLINE",
        true,
        &[("expected", "9"), ("actual", "5")],
    );
    read(
        ApiError::ReadIndex(ReadIndexError::Draining),
        Code::Unavailable,
        "DRAINING",
        true,
        &[],
    );
}

#[test]
fn what_this_node_can_not_read_another_may() {
    read(
        ApiError::ReadEvents(ReadEventsError::NoRecord { index: 3 }),
        Code::Unavailable,
        "NOT_READABLE_HERE",
        true,
        &[],
    );
    read(
        ApiError::ReadEvents(ReadEventsError::Decode {
            index: 3,
            source: huntlog_machine::DecodeError::Truncated { what: "event" },
        }),
        Code::DataLoss,
        "DAMAGED",
        false,
        &[],
    );
}

#[test]
fn an_operators_failures_say_what_may_still_happen() {
    write(
        || ApiError::Admin(AdminError::NotLeader(0)),
        (Code::Unavailable, "NOT_LEADER", "NOT_APPLIED", true),
        &[],
    );
    write(
        || ApiError::Admin(AdminError::Timeout(Duration::from_secs(2))),
        (Code::DeadlineExceeded, "DEADLINE", "UNKNOWN", true),
        &[],
    );
    write(
        || ApiError::Admin(AdminError::NoOtherVoter),
        (
            Code::FailedPrecondition,
            "NO_OTHER_VOTER",
            "NOT_APPLIED",
            false,
        ),
        &[],
    );
    let node: &[_] = &[("node_id", "2")];
    for (error, reason, metadata) in [
        (AdminError::Silent(2), "NODE_SILENT", node),
        (AdminError::Aside(2), "NODE_DRAINED", node),
        (
            AdminError::NoSuccessor(vec!["node 2 is drained".to_owned()]),
            "NO_SUCCESSOR",
            &[],
        ),
        (
            AdminError::NoQuorum {
                answering: 2,
                voters: 5,
            },
            "NO_QUORUM",
            &[("answering", "2"), ("needed", "3")],
        ),
        (
            AdminError::LastInService(Vec::new()),
            "LAST_IN_SERVICE",
            &[],
        ),
    ] {
        write(
            || ApiError::Admin(error.clone()),
            (Code::FailedPrecondition, reason, "NOT_APPLIED", false),
            metadata,
        );
    }
    let moved = AdminError::OtherLeads {
        wanted: 2,
        leader: 3,
    };
    let status = ApiError::Admin(moved).into_status(Operation::Write);
    let message = status.message();
    assert!(
        message.starts_with("node 3 leads now, not node 2"),
        "{message}"
    );
    assert!(message.contains("leadership did move"), "{message}");
    assert!(!message.contains("nothing was applied"), "{message}");
    write(
        || ApiError::Admin(AdminError::Empty),
        (Code::FailedPrecondition, "LOG_EMPTY", "NOT_APPLIED", false),
        &[],
    );
    write(
        || ApiError::Admin(AdminError::Stopped("x".to_owned())),
        (Code::Unavailable, "NODE_FAILED", "UNKNOWN", true),
        &[],
    );
    let status = ApiError::Admin(AdminError::NoVoter(9)).into_status(Operation::Write);
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("the field").field_violations;
    assert_eq!(violations[0].field, "to_node_id");
}

/// Every refusal of a change of the members says that nothing was applied; only
/// what is in the log and not committed is unknown.
#[test]
fn refused_changes_of_members_say_that_nothing_was_applied() {
    use std::collections::BTreeSet;

    use crate::cluster::keeps_quorum;

    let address = || "a:1".to_owned();
    let set = |ids: &[NodeId]| -> BTreeSet<NodeId> { ids.iter().copied().collect() };
    let loss =
        || keeps_quorum(&set(&[1, 2, 3]), &set(&[1, 3]), &set(&[1, 2])).expect_err("2 is needed");
    let member = |error: MemberError| ApiError::Member(error);
    let message = write(
        || {
            member(MemberError::QuorumLoss {
                change: "removing node 2".to_owned(),
                loss: loss(),
            })
        },
        (
            Code::FailedPrecondition,
            "QUORUM_AT_RISK",
            "NOT_APPLIED",
            false,
        ),
        &[("answering", "1"), ("needed", "2")],
    );
    assert!(
        message.starts_with("removing node 2 would leave too few who answer: of the voters 1, 3"),
        "{message}"
    );
    write(
        || {
            member(MemberError::CatchingUp {
                id: 4,
                matched: 10,
                last: 5_000,
            })
        },
        (Code::Unavailable, "CATCHING_UP", "NOT_APPLIED", true),
        &[("node_id", "4"), ("actual", "10"), ("expected", "5000")],
    );
    write(
        || member(MemberError::IdRetired(4)),
        (Code::AlreadyExists, "ID_RETIRED", "NOT_APPLIED", false),
        &[("node_id", "4")],
    );
    write(
        || {
            member(MemberError::Unfinished {
                after: Duration::from_secs(5),
                cause: String::new(),
            })
        },
        (
            Code::DeadlineExceeded,
            "CHANGE_UNFINISHED",
            "UNKNOWN",
            false,
        ),
        &[],
    );
    for (error, code, reason) in [
        (
            MemberError::InProgress,
            Code::FailedPrecondition,
            "CHANGE_IN_PROGRESS",
        ),
        (
            MemberError::IdTaken {
                id: 2,
                known: (address(), address()),
                wanted: (address(), address()),
            },
            Code::AlreadyExists,
            "MEMBER_EXISTS",
        ),
        (
            MemberError::AddressTaken {
                address: address(),
                by: 2,
            },
            Code::AlreadyExists,
            "ADDRESS_TAKEN",
        ),
        (
            MemberError::Emptied {
                id: 2,
                address: address(),
                known: "1".repeat(32),
                found: "2".repeat(32),
            },
            Code::FailedPrecondition,
            "NODE_EMPTIED",
        ),
        (MemberError::NotAMember(9), Code::NotFound, "NOT_FOUND"),
        (
            MemberError::LastVoter(1),
            Code::FailedPrecondition,
            "LAST_VOTER",
        ),
        (
            MemberError::Silent(4),
            Code::FailedPrecondition,
            "NODE_SILENT",
        ),
        (
            MemberError::Unreachable {
                address: address(),
                cause: "refused".to_owned(),
            },
            Code::FailedPrecondition,
            "NODE_UNREACHABLE",
        ),
        (
            MemberError::WrongNode {
                address: address(),
                what: "is node 5, not node 4".to_owned(),
            },
            Code::FailedPrecondition,
            "WRONG_NODE",
        ),
    ] {
        let status = seen(member(error), Operation::Write);
        assert_eq!((status.code, &*status.reason), (code, reason));
        assert_eq!(status.disposition.as_deref(), Some("NOT_APPLIED"));
        assert!(!status.retries, "{reason}");
        assert!(
            status.message.contains("; nothing was applied; "),
            "{}",
            status.message
        );
    }
}

#[test]
fn who_forms_a_cluster_is_named() {
    write(
        || {
            ApiError::Init(InitError::NotCoordinator {
                id: 1,
                client_address: "a:7650".to_owned(),
            })
        },
        (Code::Unavailable, "NOT_COORDINATOR", "NOT_APPLIED", true),
        &[("leader_id", "1"), ("leader_address", "a:7650")],
    );
}

#[test]
fn what_a_level_is_missing_for_has_both_numbers() {
    let precondition = (
        Code::FailedPrecondition,
        "FEATURE_LEVEL",
        "NOT_APPLIED",
        false,
    );
    let message = write(
        || ApiError::Write(WriteError::FeatureLevel { have: 1, need: 2 }),
        precondition,
        &[("have", "1"), ("need", "2")],
    );
    for part in ["needs feature level 2", "level 1 is in force", "finalize"] {
        assert!(message.contains(part), "{message}");
    }
    let reads = |max| LevelRange { min: 1, max };
    let unable = || {
        vec![
            (2, String::new(), reads(1)),
            (3, "0.2.0".to_owned(), reads(2)),
        ]
    };
    let message = write(
        || {
            ApiError::Member(MemberError::LevelsDiffer {
                have: 1,
                need: 3,
                unable: unable(),
            })
        },
        precondition,
        &[("have", "1"), ("need", "3"), ("nodes", "2,3")],
    );
    for part in [
        "node 2 reads level 1",
        "node 3, of release 0.2.0, reads level 1 to 2",
        "upgrade these nodes",
    ] {
        assert!(message.contains(part), "{message}");
    }
    write(
        || {
            ApiError::Member(MemberError::LevelSilent {
                have: 1,
                silent: vec![(2, "no answer".to_owned())],
            })
        },
        (
            Code::FailedPrecondition,
            "NODE_SILENT",
            "NOT_APPLIED",
            false,
        ),
        &[("have", "1"), ("nodes", "2")],
    );
    write(
        || {
            ApiError::Member(MemberError::NewcomerLevel {
                address: "h:7651".to_owned(),
                levels: reads(1),
                level: 2,
            })
        },
        precondition,
        &[("have", "1"), ("need", "2"), ("address", "h:7651")],
    );
}
