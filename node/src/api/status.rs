//! The one place that maps what went wrong to what the caller is told: a
//! [`tonic::Status`] with `google.rpc` details, or a `Failure` within a stream.
//!
//! Codes follow ARCHITECTURE.md's table of answers. A message says what happened, for
//! writes whether it was applied, and what to do next; programs read the stable
//! reason and the metadata instead.

use std::collections::HashMap;
use std::time::Duration;

use huntlog_machine::{Refusal, SessionRefusal};
use huntlog_proto::{ERROR_DOMAIN, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::error::ApiError;
use crate::cluster::{FormationError, InitError, MemberError};
use crate::limits;
use crate::partition::{AdminError, ReadEventsError, ReadIndexError, WriteError};
use crate::raft::NodeId;
use crate::wire::FieldFault;

/// The key of the metadata under which a write's disposition stands.
pub const DISPOSITION: &str = "disposition";

/// What a request does: only of a write is it told whether it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It asks.
    Read,
    /// It changes something.
    Write,
}

/// Whether a failed write has been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    NotApplied,
    Unknown,
}

impl Disposition {
    fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "NOT_APPLIED",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotApplied => "; nothing was applied",
            Self::Unknown => "; it may or may not be applied",
        }
    }
}

impl From<Disposition> for v1::Disposition {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::NotApplied => Self::NotApplied,
            Disposition::Unknown => Self::Unknown,
        }
    }
}

/// What the caller is told.
struct Answer {
    code: Code,
    /// Stable, upper snake case.
    reason: &'static str,
    message: String,
    disposition: Option<Disposition>,
    retry_after: Option<Duration>,
    metadata: HashMap<String, String>,
    faults: Vec<FieldFault>,
}

impl ApiError {
    /// The status of a call that failed.
    pub fn into_status(self, operation: Operation) -> Status {
        let answer = Answer::new(self, operation);
        let mut details = ErrorDetails::new();
        let mut metadata = answer.metadata;
        if let Some(disposition) = answer.disposition {
            metadata.insert(DISPOSITION.to_owned(), disposition.name().to_owned());
        }
        details.set_error_info(answer.reason, ERROR_DOMAIN, metadata);
        if answer.retry_after.is_some() {
            details.set_retry_info(answer.retry_after);
        }
        if !answer.faults.is_empty() {
            details.set_bad_request(violations(answer.faults));
        }
        Status::with_error_details(answer.code, answer.message, details)
    }

    /// The failure of a write within a stream.
    pub fn into_failure(self) -> v1::Failure {
        let answer = Answer::new(self, Operation::Write);
        v1::Failure {
            code: answer.code.into(),
            message: answer.message,
            reason: answer.reason.to_owned(),
            disposition: answer
                .disposition
                .map_or(v1::Disposition::Unspecified, Into::into)
                .into(),
            retry_after: answer.retry_after.map(|delay| {
                prost_types::Duration::try_from(delay).expect("retry delays are short")
            }),
            metadata: answer.metadata,
            field_violations: violations(answer.faults)
                .into_iter()
                .map(|violation| v1::FieldViolation {
                    field: violation.field,
                    description: violation.description,
                })
                .collect(),
        }
    }
}

/// The faults as far as they fit into an answer's headers, and how many more
/// there are.
fn violations(faults: Vec<FieldFault>) -> Vec<FieldViolation> {
    let mut bytes = 0;
    let mut violations = Vec::new();
    let count = faults.len();
    for fault in faults {
        bytes += fault.path.len() + fault.message.len();
        if bytes > limits::FAULT_DETAILS_BYTES_MAX && !violations.is_empty() {
            let more = count - violations.len();
            violations.push(FieldViolation::new(
                "...",
                format!("{more} further faults are left out; correct these first"),
            ));
            break;
        }
        violations.push(FieldViolation::new(fault.path, fault.message));
    }
    violations
}

/// An answer as the table has it, before its message is put together.
struct Row {
    code: Code,
    reason: &'static str,
    disposition: Disposition,
    retry_after: Option<Duration>,
    metadata: Vec<(&'static str, String)>,
    /// What the caller is to do; empty when the error itself says all.
    next: &'static str,
}

impl Row {
    fn new(code: Code, reason: &'static str, disposition: Disposition) -> Self {
        Self {
            code,
            reason,
            disposition,
            retry_after: None,
            metadata: Vec::new(),
            next: "",
        }
    }

    /// UNAVAILABLE: the same request, later or elsewhere.
    fn unavailable(reason: &'static str, disposition: Disposition, delay: Duration) -> Self {
        Self::new(Code::Unavailable, reason, disposition).retry(delay)
    }

    fn precondition(reason: &'static str) -> Self {
        Self::new(Code::FailedPrecondition, reason, Disposition::NotApplied)
    }

    fn retry(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.next = match self.disposition {
            Disposition::NotApplied => "retry, here or on another node",
            Disposition::Unknown => "sending the same sequence again is safe, and finds out",
        };
        self
    }

    fn next(mut self, next: &'static str) -> Self {
        self.next = next;
        self
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }
}

impl Answer {
    fn new(error: ApiError, operation: Operation) -> Self {
        let row = row(&error);
        let disposition = (operation == Operation::Write).then_some(row.disposition);
        let mut message = what_happened(&error);
        if !tells_all(&error) {
            if let Some(disposition) = disposition {
                message.push_str(disposition.words());
            }
            let next = match (operation, row.disposition) {
                (Operation::Read, Disposition::Unknown) if row.retry_after.is_some() => "retry",
                _ => row.next,
            };
            if !next.is_empty() {
                message.push_str("; ");
                message.push_str(next);
            }
        }
        Self {
            code: row.code,
            reason: row.reason,
            message,
            disposition,
            retry_after: row.retry_after,
            metadata: row
                .metadata
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            faults: match error {
                ApiError::Invalid(request) => request.0,
                ApiError::Admin(AdminError::NoVoter(node)) => vec![FieldFault {
                    path: "to_node_id".to_owned(),
                    message: format!("node {node} is no voter"),
                }],
                _ => Vec::new(),
            },
        }
    }
}

/// The machine's refusals say by themselves whether anything was applied and
/// what to do; so does leadership that went elsewhere.
fn tells_all(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Refused(_)
            | ApiError::SessionRefused(_)
            | ApiError::Admin(AdminError::OtherLeads { .. })
    )
}

/// The first part of the message. The partition's errors are put in the words
/// of the others here, so that each says once what was applied.
fn what_happened(error: &ApiError) -> String {
    match error {
        ApiError::Write(WriteError::NotLeader { leader, .. }) => {
            format!("node {leader} leads, not this node")
        }
        ApiError::Write(WriteError::NoLeader) | ApiError::ReadIndex(ReadIndexError::NoLeader) => {
            ApiError::NoLeader.to_string()
        }
        ApiError::Write(WriteError::Draining) | ApiError::ReadIndex(ReadIndexError::Draining) => {
            ApiError::Draining.to_string()
        }
        ApiError::Write(WriteError::Overloaded { in_flight_bytes }) => {
            format!("this node has {in_flight_bytes} bytes of appends in flight, its limit")
        }
        ApiError::Write(WriteError::FeatureLevel { have, need }) => {
            format!("the request needs feature level {need}, and level {have} is in force")
        }
        ApiError::Write(WriteError::LeadershipLost) => {
            "this node lost its leadership while the request was in flight".to_owned()
        }
        ApiError::Write(WriteError::NodeFailed) => {
            "this node failed while the request was in flight".to_owned()
        }
        ApiError::ReadIndex(ReadIndexError::Leader(cause)) => {
            format!("the leader gave no read index: {cause}")
        }
        ApiError::ReadIndex(ReadIndexError::Behind { applied, wanted }) => format!(
            "this node has applied the log up to index {applied}, and the read needs {wanted}"
        ),
        ApiError::Admin(AdminError::NotLeader(partition)) => {
            format!("this node does not lead partition {partition}")
        }
        ApiError::Admin(AdminError::NoVoter(node)) => format!("node {node} is no voter"),
        ApiError::Admin(AdminError::Aside(node)) => format!("node {node} is drained"),
        ApiError::Admin(AdminError::Silent(node)) => format!("node {node} does not answer"),
        ApiError::Admin(AdminError::NoSuccessor(unfit)) => {
            format!("no other voter can lead: {}", unfit.join(", "))
        }
        ApiError::Admin(AdminError::NoQuorum { answering, voters }) => {
            format!("of {voters} voters only {answering} answer, too few to elect a leader")
        }
        ApiError::Admin(AdminError::LastInService(unfit)) => {
            let mut message = "no other voter is in service".to_owned();
            if !unfit.is_empty() {
                message = format!("{message}: {}", unfit.join(", "));
            }
            message
        }
        ApiError::Admin(AdminError::Timeout(limit)) => {
            format!("it was not done within {} ms", limit.as_millis())
        }
        error => error.to_string(),
    }
}

/// The table of answers, row by row.
fn row(error: &ApiError) -> Row {
    use Disposition::{NotApplied, Unknown};
    match error {
        ApiError::Starting | ApiError::Waiting(_) => {
            Row::unavailable("STARTING", NotApplied, limits::RETRY_DELAY_UNAVAILABLE)
        }
        ApiError::Draining | ApiError::Drained => draining(),
        ApiError::UnknownPartition(partition) => {
            Row::new(Code::NotFound, "UNKNOWN_PARTITION", NotApplied)
                .with("partition", partition)
                .next("AdminService.GetStatus lists the partitions")
        }
        ApiError::Invalid(_) => {
            Row::new(Code::InvalidArgument, "INVALID", NotApplied).next("correct the request")
        }
        ApiError::NoLeader => no_leader(),
        ApiError::NotLeader { leader, address } => not_leader(*leader, address.as_deref()),
        ApiError::Write(error) => write_row(error),
        ApiError::Refused(refusal) => refusal_row(refusal),
        ApiError::SessionRefused(SessionRefusal::TableFull { max_sessions }) => {
            Row::new(Code::ResourceExhausted, "SESSIONS_FULL", NotApplied)
                .retry(limits::RETRY_DELAY_SESSIONS_FULL)
                .with("limit", max_sessions)
        }
        ApiError::SessionRefused(SessionRefusal::Contended) => {
            Row::new(Code::Aborted, "SESSION_CONTENDED", NotApplied)
                .retry(limits::RETRY_DELAY_NO_LEADER)
        }
        ApiError::SessionRefused(SessionRefusal::Fenced { epoch, current }) => {
            fenced(*epoch, *current)
        }
        ApiError::Unreachable {
            leader,
            address,
            sent,
            ..
        } => {
            let disposition = if *sent { Unknown } else { NotApplied };
            Row::unavailable("UNREACHABLE", disposition, limits::RETRY_DELAY_NO_LEADER)
                .with("leader_id", leader)
                .with("leader_address", address)
        }
        ApiError::KeptElsewhere { .. } => Row::unavailable(
            "NOT_READABLE_HERE",
            NotApplied,
            limits::RETRY_DELAY_UNAVAILABLE,
        )
        .next("retry here, or use another node"),
        ApiError::HolderLost { .. } => {
            Row::unavailable("UNREACHABLE", NotApplied, limits::RETRY_DELAY_UNAVAILABLE)
                .next("resume from the last offset seen, on any node")
        }
        ApiError::Deadline => Row::new(Code::DeadlineExceeded, "DEADLINE", Unknown)
            .retry(limits::RETRY_DELAY_NO_LEADER),
        ApiError::ReadIndex(error) => read_index_row(error),
        ApiError::Behind { asked, end } => Row::new(Code::DeadlineExceeded, "DEADLINE", NotApplied)
            .retry(limits::RETRY_DELAY_UNAVAILABLE)
            .with("expected", asked)
            .with("actual", end),
        ApiError::ReadEvents(error) => read_events_row(error),
        ApiError::BeyondEnd { asked, end } => {
            Row::new(Code::OutOfRange, "OUT_OF_RANGE", NotApplied)
                .with("asked", asked)
                .with("end", end)
                .next("ask for an offset up to the end")
        }
        ApiError::HuntUnknown(hunt) => not_found("hunt").with("hunt", hunt),
        ApiError::PlayerUnknown { hunt, player } => not_found("player")
            .with("hunt", hunt)
            .with("player", player),
        ApiError::TooMuch { .. } => overloaded(),
        ApiError::Stalled { next_offset } => {
            Row::new(Code::ResourceExhausted, "STALLED", NotApplied)
                .retry(limits::RETRY_DELAY_OVERLOADED)
                .with("next_offset", next_offset)
                .next("resume at `next_offset`, and take messages faster")
        }
        ApiError::Admin(error) => admin_row(error),
        ApiError::Member(error) => member_row(error),
        ApiError::Init(error) => init_row(error),
        ApiError::WrongCluster { wanted, own, .. } => Row::precondition("WRONG_CLUSTER")
            .with("expected", wanted)
            .with("actual", own)
            .next("use a node of the cluster meant"),
        ApiError::MembersDiffer { listed, present } => {
            Row::new(Code::AlreadyExists, "MEMBERS_DIFFER", NotApplied)
                .with("expected", listed)
                .with("actual", present)
                .next("list the members there are, or add and remove members instead")
        }
        ApiError::NotFormed => Row::precondition("NOT_FORMED")
            .next("name the members of a new cluster, or add this node to one that exists"),
        ApiError::Dropped => node_failed(),
    }
}

fn draining() -> Row {
    Row::unavailable(
        "DRAINING",
        Disposition::NotApplied,
        limits::RETRY_DELAY_UNAVAILABLE,
    )
    .next("use another node")
}

fn no_leader() -> Row {
    Row::unavailable(
        "NO_LEADER",
        Disposition::NotApplied,
        limits::RETRY_DELAY_NO_LEADER,
    )
}

fn not_leader(leader: NodeId, address: Option<&str>) -> Row {
    let row = Row::unavailable(
        "NOT_LEADER",
        Disposition::NotApplied,
        limits::RETRY_DELAY_NO_LEADER,
    )
    .with("leader_id", leader);
    match address {
        Some(address) => row.with("leader_address", address),
        None => row,
    }
}

fn overloaded() -> Row {
    Row::new(
        Code::ResourceExhausted,
        "OVERLOADED",
        Disposition::NotApplied,
    )
    .retry(limits::RETRY_DELAY_OVERLOADED)
}

fn node_failed() -> Row {
    Row::unavailable(
        "NODE_FAILED",
        Disposition::Unknown,
        limits::RETRY_DELAY_UNAVAILABLE,
    )
}

fn not_found(missing: &'static str) -> Row {
    Row::new(Code::NotFound, "NOT_FOUND", Disposition::NotApplied).with("missing", missing)
}

fn write_row(error: &WriteError) -> Row {
    match error {
        WriteError::NotLeader { leader, node } => not_leader(
            *leader,
            node.as_ref().map(|node| node.client_address.as_str()),
        ),
        WriteError::NoLeader => no_leader(),
        WriteError::Overloaded { .. } => overloaded(),
        WriteError::Draining => draining(),
        WriteError::FeatureLevel { have, need } => feature_level(*have, *need).next(
            "upgrade every node, then put the level in force with `huntctl cluster finalize`",
        ),
        WriteError::LeadershipLost => Row::unavailable(
            "LEADERSHIP_LOST",
            Disposition::Unknown,
            limits::RETRY_DELAY_NO_LEADER,
        ),
        WriteError::NodeFailed => node_failed(),
    }
}

fn feature_level(have: u32, need: u32) -> Row {
    Row::precondition("FEATURE_LEVEL")
        .with("have", have)
        .with("need", need)
}

/// Somebody holds the `epoch` of a session that is at `current` now.
fn fenced(epoch: u64, current: u64) -> Row {
    Row::precondition("FENCED")
        .with("epoch", epoch)
        .with("actual", current)
}

fn refusal_row(refusal: &Refusal) -> Row {
    match refusal {
        Refusal::SequenceGap { expected, actual } => Row::precondition("SEQUENCE_GAP")
            .with("expected", expected)
            .with("sequence", actual),
        Refusal::PayloadMismatch { sequence } => {
            Row::precondition("PAYLOAD_MISMATCH").with("sequence", sequence)
        }
        Refusal::Fenced { epoch, actual } => fenced(*actual, *epoch),
        Refusal::SessionUnknown => Row::precondition("SESSION_UNKNOWN"),
        Refusal::RevisionMismatch {
            hunt,
            expected,
            actual,
        } => Row::precondition("REVISION_MISMATCH")
            .with("hunt", hunt)
            .with("expected", expected.revision())
            .with("actual", actual),
    }
}

fn read_index_row(error: &ReadIndexError) -> Row {
    match error {
        ReadIndexError::NoLeader => no_leader().next("retry, or ask for a stale read"),
        ReadIndexError::Leader(_) => Row::unavailable(
            "UNREACHABLE",
            Disposition::NotApplied,
            limits::RETRY_DELAY_NO_LEADER,
        )
        .next("retry, or ask for a stale read"),
        ReadIndexError::Behind { applied, wanted } => {
            Row::new(Code::DeadlineExceeded, "DEADLINE", Disposition::NotApplied)
                .retry(limits::RETRY_DELAY_UNAVAILABLE)
                .with("expected", wanted)
                .with("actual", applied)
        }
        ReadIndexError::Crowded => Row::new(
            Code::ResourceExhausted,
            "OVERLOADED",
            Disposition::NotApplied,
        )
        .retry(limits::RETRY_DELAY_OVERLOADED),
        ReadIndexError::Draining => draining(),
    }
}

fn read_events_row(error: &ReadEventsError) -> Row {
    match error {
        ReadEventsError::BeforeHistory { asked, earliest } => {
            Row::new(Code::OutOfRange, "OUT_OF_RANGE", Disposition::NotApplied)
                .with("asked", asked)
                .with("earliest", earliest)
                .next("ask from the earliest offset on, or another node, which may keep more")
        }
        ReadEventsError::NoRecord { .. } | ReadEventsError::Storage(_) => Row::unavailable(
            "NOT_READABLE_HERE",
            Disposition::NotApplied,
            limits::RETRY_DELAY_UNAVAILABLE,
        )
        .next("use another node"),
        ReadEventsError::Decode { .. } | ReadEventsError::Format(_) => {
            Row::new(Code::DataLoss, "DAMAGED", Disposition::NotApplied)
                .next("use another node, and replace this one's data")
        }
        ReadEventsError::Interrupted(_) => node_failed(),
    }
}

fn admin_row(error: &AdminError) -> Row {
    match error {
        AdminError::NotLeader(_) => Row::unavailable(
            "NOT_LEADER",
            Disposition::NotApplied,
            limits::RETRY_DELAY_NO_LEADER,
        ),
        AdminError::NoVoter(_) => {
            Row::new(Code::InvalidArgument, "INVALID", Disposition::NotApplied)
                .next("name a voter, or none")
        }
        AdminError::Aside(node) => Row::precondition("NODE_DRAINED")
            .with("node_id", node)
            .next("name another, or take that node back into service first"),
        AdminError::Silent(node) => Row::precondition("NODE_SILENT")
            .with("node_id", node)
            .next("name another, or start that node first"),
        AdminError::NoSuccessor(_) => Row::precondition("NO_SUCCESSOR")
            .next("start another voter, or take it back into service, first"),
        AdminError::NoQuorum { answering, voters } => Row::precondition("NO_QUORUM")
            .with("answering", answering)
            .with("needed", voters / 2 + 1)
            .next("bring silent nodes back first"),
        AdminError::LastInService(_) => Row::precondition("LAST_IN_SERVICE")
            .next("start another voter, or take it back into service, before you drain this one"),
        AdminError::OtherLeads { wanted, leader } => Row::new(
            Code::FailedPrecondition,
            "OTHER_LEADS",
            Disposition::Unknown,
        )
        .with("node_id", wanted)
        .with("leader_id", leader),
        AdminError::NoOtherVoter => Row::precondition("NO_OTHER_VOTER").next("add a voter first"),
        AdminError::Timeout(_) => {
            Row::new(Code::DeadlineExceeded, "DEADLINE", Disposition::Unknown)
                .retry(limits::RETRY_DELAY_UNAVAILABLE)
                .next("look at the status before you retry")
        }
        AdminError::Empty => Row::precondition("LOG_EMPTY").next("append something first"),
        AdminError::Stopped(_) => node_failed(),
    }
}

fn init_row(error: &InitError) -> Row {
    match error {
        InitError::NotListed(_) => {
            Row::new(Code::InvalidArgument, "INVALID", Disposition::NotApplied)
                .next("ask a node that is on the list, or put this one on it")
        }
        InitError::NotCoordinator { id, client_address } => Row::unavailable(
            "NOT_COORDINATOR",
            Disposition::NotApplied,
            limits::RETRY_DELAY_UNAVAILABLE,
        )
        .with("leader_id", id)
        .with("leader_address", client_address)
        .next("ask that node"),
        InitError::Silent(_) => Row::unavailable(
            "NODE_UNREACHABLE",
            Disposition::NotApplied,
            limits::RETRY_DELAY_UNAVAILABLE,
        )
        .next("start them, or correct their addresses, and repeat the request"),
        InitError::ClientAddresses(_) => Row::precondition("WRONG_NODE").next("correct the list"),
        InitError::Formation(FormationError::Identity(_)) => node_failed(),
        InitError::Formation(_) => {
            Row::precondition("WRONG_NODE").next("correct the list, or those nodes' configurations")
        }
    }
}

/// Node ids, separated by commas.
fn ids<'a>(ids: impl Iterator<Item = &'a NodeId>) -> String {
    ids.map(NodeId::to_string).collect::<Vec<_>>().join(",")
}

fn member_row(error: &MemberError) -> Row {
    let taken = |reason| Row::new(Code::AlreadyExists, reason, Disposition::NotApplied);
    let unavailable = |reason| {
        Row::unavailable(
            reason,
            Disposition::NotApplied,
            limits::RETRY_DELAY_UNAVAILABLE,
        )
    };
    match error {
        MemberError::NotLeader(_) => unavailable("NOT_LEADER"),
        MemberError::HandedOver { leader, node } => {
            not_leader(*leader, Some(&node.client_address))
        }
        MemberError::NotHandedOver(_) => unavailable("NOT_HANDED_OVER"),
        MemberError::InProgress => Row::precondition("CHANGE_IN_PROGRESS")
            .next("wait until the list of members shows it done, then repeat the request"),
        MemberError::IdTaken { id, known, .. } => taken("MEMBER_EXISTS")
            .with("node_id", id)
            .with("address", &known.0)
            .with("client_address", &known.1)
            .next("name the addresses that it has, or choose an id never used before"),
        MemberError::IdRetired(id) => taken("ID_RETIRED")
            .with("node_id", id)
            .next("choose an id never used before"),
        MemberError::AddressTaken { address, by } => taken("ADDRESS_TAKEN")
            .with("address", address)
            .with("node_id", by)
            .next("choose another, or remove that node first"),
        MemberError::DirectoryTaken { by, .. } => Row::precondition("WRONG_NODE")
            .with("node_id", by)
            .next("give the new node an empty data directory of its own"),
        MemberError::Emptied { id, .. } => Row::precondition("NODE_EMPTIED")
            .with("node_id", id)
            .next("restore its directory, or remove it and add it again, emptied, under an id never used before"),
        MemberError::NotAMember(id) => not_found("member")
            .with("node_id", id)
            .next("the list of members names those there are"),
        MemberError::LastVoter(_) => {
            Row::precondition("LAST_VOTER").next("add and promote another one first")
        }
        MemberError::TooMany { limit, .. } => Row::precondition("TOO_MANY_MEMBERS")
            .with("limit", limit)
            .next("remove one first"),
        MemberError::Unreachable { address, .. } => Row::precondition("NODE_UNREACHABLE")
            .with("address", address)
            .next("start the node without cluster.initial_members, or correct the address, and repeat the request"),
        MemberError::WrongNode { address, .. } => Row::precondition("WRONG_NODE")
            .with("address", address)
            .next("correct the address or that node's configuration; a node of another cluster needs an empty data directory"),
        MemberError::Silent(id) => Row::precondition("NODE_SILENT")
            .with("node_id", id)
            .next("start it, and repeat the request; a silent voter is one failure the cluster does not survive any more, force makes it one all the same"),
        MemberError::NewcomerLevel { address, levels, level } => feature_level(levels.max, *level)
            .with("address", address)
            .next("run a release on it that reads that level, and repeat the request"),
        MemberError::LevelsDiffer { have, need, unable } => feature_level(*have, *need)
            .with("nodes", ids(unable.iter().map(|(id, ..)| id)))
            .next("upgrade these nodes, and repeat the request"),
        MemberError::LevelSilent { have, silent } => Row::precondition("NODE_SILENT")
            .with("have", have)
            .with("nodes", ids(silent.iter().map(|(id, _)| id)))
            .next("start them, or remove them from the cluster, and repeat the request"),
        MemberError::CatchingUp { id, matched, last } => unavailable("CATCHING_UP")
            .with("node_id", id)
            .with("actual", matched)
            .with("expected", last)
            .next("repeat the request until it has caught up"),
        MemberError::QuorumLoss { loss, .. } => Row::precondition("QUORUM_AT_RISK")
            .with("answering", loss.answering())
            .with("needed", loss.needed)
            .next("bring silent nodes back, or remove them first; force does it all the same, at that price"),
        MemberError::Unfinished { .. } => {
            Row::new(Code::DeadlineExceeded, "CHANGE_UNFINISHED", Disposition::Unknown)
                .next("it goes on once enough voters answer: look at the list of members, or at the level in force, before you repeat it")
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
