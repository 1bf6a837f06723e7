//! Why a change of the members is refused, or not known to be done.

use std::time::Duration;

use huntlog_machine::LevelRange;

use super::quorum::QuorumLoss;
use crate::raft::{MemberNode, NodeId};

/// Why a member was not added, promoted or removed. Nothing was changed, unless
/// it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Only the leader does this.
    #[error("this node does not lead partition {0}")]
    NotLeader(u32),
    /// The leader was to be removed, and has handed leadership over: the new
    /// leader does the rest.
    #[error("node {leader} leads now")]
    HandedOver {
        /// The new leader.
        leader: NodeId,
        /// Where it is.
        node: MemberNode,
    },
    /// The leader was to be removed, and could not hand leadership over.
    #[error("leadership was not handed over before the removal: {0}")]
    NotHandedOver(String),
    /// One change at a time.
    #[error("another membership change is under way")]
    InProgress,
    /// The id is a member's.
    #[error(
        "node {id} is a member already, at {} for nodes and {} for clients, and was to be added at {} and {}",
        known.0, known.1, wanted.0, wanted.1
    )]
    IdTaken {
        /// The id.
        id: NodeId,
        /// The member's addresses, for nodes and for clients.
        known: (String, String),
        /// Those asked for.
        wanted: (String, String),
    },
    /// The id was a removed member's.
    #[error("node id {0} was a removed member's")]
    IdRetired(NodeId),
    /// The address is a member's.
    #[error("{address} is the address of node {by}")]
    AddressTaken {
        /// The address asked for.
        address: String,
        /// Whose it is.
        by: NodeId,
    },
    /// The directory is a member's.
    #[error("the node at {address} has the data directory of node {by}, copied")]
    DirectoryTaken {
        /// Where it answered.
        address: String,
        /// Whose directory it is.
        by: NodeId,
    },
    /// A member whose data directory is another than the cluster knows.
    #[error(
        "node {id} is known with data directory {known}, the one at {address} has {found}: it was emptied or replaced"
    )]
    Emptied {
        /// The member.
        id: NodeId,
        /// Where it answered.
        address: String,
        /// The uuid the cluster knows.
        known: String,
        /// The uuid it has.
        found: String,
    },
    /// There is no such member.
    #[error("node {0} is no member")]
    NotAMember(NodeId),
    /// The last voter can not go.
    #[error("node {0} is the only voter")]
    LastVoter(NodeId),
    /// There are as many as there can be.
    #[error("the cluster has {limit} {what}, its limit")]
    TooMany {
        /// Voters or members.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The node to be added does not answer.
    #[error("no node answers at {address}: {cause}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What went wrong.
        cause: String,
    },
    /// The node that answers is not the one meant.
    #[error("the node at {address} {what}")]
    WrongNode {
        /// Where it answered.
        address: String,
        /// What is not as it must be.
        what: String,
    },
    /// The member does not answer.
    #[error("node {0} does not answer")]
    Silent(NodeId),
    /// The node to be added does not read the level in force.
    #[error(
        "the node at {address} reads feature level {levels}, and level {level} is in force in this cluster"
    )]
    NewcomerLevel {
        /// Where it answered.
        address: String,
        /// The levels that it reads.
        levels: LevelRange,
        /// The level in force, or about to be.
        level: u32,
    },
    /// A level can not be put in force while a member does not read it.
    #[error(
        "feature level {need} can not be put in force in place of {have}: {}",
        in_words(unable)
    )]
    LevelsDiffer {
        /// The level in force.
        have: u32,
        /// The level that was to be.
        need: u32,
        /// Who does not read it: id, release, levels.
        unable: Vec<(NodeId, String, LevelRange)>,
    },
    /// A level can not be put in force while a member does not answer.
    #[error(
        "a feature level in place of {have} can not be put in force while members do not answer: {}",
        silent.iter().map(|(id, why)| format!("node {id}, {why}")).collect::<Vec<_>>().join("; ")
    )]
    LevelSilent {
        /// The level in force.
        have: u32,
        /// Who does not answer, and why.
        silent: Vec<(NodeId, String)>,
    },
    /// A learner that lacks too much to vote.
    #[error("node {id} has the log up to {matched} of {last}")]
    CatchingUp {
        /// The learner.
        id: NodeId,
        /// The last index it is known to have; 0 for none.
        matched: u64,
        /// The leader's last index.
        last: u64,
    },
    /// Too few voters would answer.
    #[error("{change} would leave too few who answer: {loss}")]
    QuorumLoss {
        /// What was to be done.
        change: String,
        /// What would be lost.
        loss: QuorumLoss,
    },
    /// It is written and not known to be committed.
    #[error("the change was not finished within {} ms{}", .after.as_millis(), if .cause.is_empty() { String::new() } else { format!(": {cause}") })]
    Unfinished {
        /// How long it was waited for.
        after: Duration,
        /// What is known of why.
        cause: String,
    },
}

fn in_words(unable: &[(NodeId, String, LevelRange)]) -> String {
    let words = unable
        .iter()
        .map(|(id, release, levels)| match release.as_str() {
            "" => format!("node {id} reads level {levels}"),
            release => format!("node {id}, of release {release}, reads level {levels}"),
        });
    words.collect::<Vec<_>>().join("; ")
}
