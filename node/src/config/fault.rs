//! What can be wrong with a configuration, where, and what to do about it.

use std::{fmt, path::Path, sync::Arc};

use crate::limits;

/// Where a value, or its absence, comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file, and the place in it when there is one.
    File {
        /// As given on the command line.
        path: Arc<Path>,
        /// None when the file as a whole is meant.
        position: Option<Position>,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// A flag, by its name without the dashes.
    Flag(&'static str),
    /// Nobody set it.
    Default,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset` of `text`.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position } => {
                write!(f, "{}", path.display())?;
                position.map_or(Ok(()), |at| write!(f, ":{}:{}", at.line, at.column))
            }
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The node runs, but the operator should know.
    Warning,
    /// The node does not start.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing wrong with a configuration. Displayed on one line, as compilers
/// do: `FILE:LINE:COLUMN: error: what, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where to look.
    pub origin: Origin,
    /// What is wrong there.
    pub problem: Problem,
}

impl Fault {
    /// Whether the node can start in spite of it.
    pub fn severity(&self) -> Severity {
        match self.problem {
            Problem::EvenVoters { .. }
            | Problem::SingleVoter
            | Problem::PortDiffers { .. }
            | Problem::LoopbackUnreachable { .. }
            | Problem::ClusterDiffers { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.severity(), self.problem)
    }
}

/// Everything wrong with a configuration, in the order of the file; at least
/// one of them is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read ({0}); check the path and its permissions")]
    Unreadable(String),
    /// The file is far too long to be meant.
    #[error(
        "is larger than {} bytes, which no configuration is; check the path",
        limits::CONFIG_FILE_BYTES_MAX
    )]
    TooLarge,
    /// Not UTF-8.
    #[error("is not UTF-8; save it as UTF-8")]
    NotUnicode,
    /// Not TOML; the message is the parser's.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No such section.
    #[error("there is no section [{section}]; {hint}")]
    UnknownSection {
        /// As written.
        section: String,
        /// What to write instead.
        hint: Hint,
    },
    /// No such key.
    #[error("there is no key {key}; {hint}")]
    UnknownKey {
        /// As written, with its section.
        key: String,
        /// What to write instead.
        hint: Hint,
    },
    /// No such environment variable.
    #[error("no key has this environment variable; {hint}")]
    UnknownVariable {
        /// What to set instead.
        hint: Hint,
    },
    /// A key that must be set is not.
    #[error("{key} is not set; {hint}")]
    Missing {
        /// The key, with its section.
        key: String,
        /// What to write.
        hint: &'static str,
    },
    /// A value of another type.
    #[error("{key} must be {expected}, not {found}")]
    WrongType {
        /// The key, with its section.
        key: String,
        /// The type it takes.
        expected: &'static str,
        /// The type, or the text, that was given.
        found: String,
    },
    /// A number too low or too high.
    #[error("{key} must be from {min} to {max}, not {actual}")]
    OutOfRange {
        /// The key, with its section.
        key: String,
        /// The number given.
        actual: String,
        /// The lowest number taken.
        min: u64,
        /// The highest number taken.
        max: u64,
    },
    /// An empty string.
    #[error("{key} is empty; {hint}")]
    Empty {
        /// The key, with its section.
        key: String,
        /// What to write.
        hint: &'static str,
    },
    /// A name that could not be used in paths, labels and messages.
    #[error(
        "{key} must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit, not {actual:?}"
    )]
    InvalidName {
        /// The key, with its section.
        key: &'static str,
        /// As written.
        actual: String,
    },
    /// One of a few words, and it is none of them.
    #[error("{key} must be one of {choices}, not {actual:?}")]
    NotAChoice {
        /// The key, with its section.
        key: &'static str,
        /// The words, comma separated.
        choices: String,
        /// As written.
        actual: String,
    },
    /// Not a level, and not a filter either.
    #[error(
        "log.level must be error, warn, info, debug, trace, or a filter such as info,openraft=debug, not {actual:?} ({reason})"
    )]
    InvalidLogLevel {
        /// As written.
        actual: String,
        /// What the filter's parser says.
        reason: String,
    },
    /// Not an IP address with a port.
    #[error(
        "{key} must be an IP address and a port such as 127.0.0.1:7650, 0.0.0.0:7650 or [::1]:7650, not {actual:?}"
    )]
    InvalidListenAddress {
        /// The key, with its section.
        key: &'static str,
        /// As written.
        actual: String,
    },
    /// Not a host with a port.
    #[error(
        "{key} must be host:port, where other machines reach the node, not {actual:?} ({reason})"
    )]
    InvalidAddress {
        /// The key, with its section.
        key: String,
        /// As written.
        actual: String,
        /// What is wrong with it.
        reason: super::AddressError,
    },
    /// Two listeners want the same port.
    #[error("{key} and {other} are both {address}; give each its own port")]
    SamePort {
        /// The key at which the fault is shown.
        key: &'static str,
        /// The other one.
        other: &'static str,
        /// The address of this one.
        address: String,
    },
    /// Two addresses of the members are the same.
    #[error("{key} is {address}, as is {other}; each needs its own")]
    SameAddress {
        /// The field at which the fault is shown.
        key: String,
        /// The field that has it already.
        other: String,
        /// The address.
        address: String,
    },
    /// Two members have the same id.
    #[error("{key} is {id}, as is {other}; each member needs its own id")]
    SameMemberId {
        /// The member at which the fault is shown.
        key: String,
        /// The member that has it already.
        other: String,
        /// The id.
        id: u64,
    },
    /// Election timers the wrong way round.
    #[error(
        "raft.election_min_ms ({min}) must be below raft.election_max_ms ({max}): the draw between them keeps candidates apart"
    )]
    ElectionRange {
        /// `election_min_ms`.
        min: u64,
        /// `election_max_ms`.
        max: u64,
    },
    /// A lost heartbeat would start an election.
    #[error(
        "raft.election_min_ms ({election_min}) must be at least twice raft.heartbeat_ms ({heartbeat}), or one late heartbeat starts an election; use {} or more", 2 * .heartbeat
    )]
    ElectionTooShort {
        /// `election_min_ms`.
        election_min: u64,
        /// `heartbeat_ms`.
        heartbeat: u64,
    },
    /// This node is not among those that form the cluster.
    #[error(
        "node.id is {id}, but cluster.initial_members has {members}; set node.id to one of them, add the node to a cluster that is still to be formed, or leave cluster.initial_members out for a node that `huntctl member add` adds"
    )]
    NotAMember {
        /// `node.id`.
        id: u64,
        /// The ids there are, comma separated.
        members: String,
    },
    /// More voters than help.
    #[error(
        "cluster.initial_members has {members} nodes, at most {} are taken: every further one makes each write wait for more disks; 3 or 5 are usual",
        limits::VOTERS_MAX
    )]
    TooManyMembers {
        /// How many there are.
        members: usize,
    },
    /// An even number of voters.
    #[error(
        "cluster.initial_members has {members} nodes: that survives no more failures than {}, and costs more; use an odd number, 3 or 5",
        .members - 1
    )]
    EvenVoters {
        /// How many there are.
        members: usize,
    },
    /// A cluster of one.
    #[error(
        "cluster.initial_members has a single node: nothing survives the loss of its disk; use 3 or 5 for more than a trial"
    )]
    SingleVoter,
    /// The advertised port is not the one listened on.
    #[error(
        "{key} is {listen}, but other machines are told {advertised}: right only if something forwards that port"
    )]
    PortDiffers {
        /// The listen key.
        key: &'static str,
        /// What it says.
        listen: String,
        /// What `cluster.initial_members` says of this node.
        advertised: String,
    },
    /// Listening on loopback, advertised elsewhere.
    #[error(
        "{key} is {listen}, which only this machine reaches, but other machines are told {advertised}: listen on that address, or on 0.0.0.0"
    )]
    LoopbackUnreachable {
        /// The listen key.
        key: &'static str,
        /// What it says.
        listen: String,
        /// What `cluster.initial_members` says of this node.
        advertised: String,
    },
    /// Two files of one cluster claim the same node.
    #[error("node.id is {id}, as in {other}; each node of a cluster needs its own id")]
    SameNodeId {
        /// The id.
        id: u64,
        /// The other file.
        other: String,
    },
    /// Two files of one cluster disagree on its members.
    #[error(
        "cluster.initial_members differs from {other}, of the same cluster; all nodes must form it with the same list"
    )]
    MembersDiffer {
        /// The other file.
        other: String,
    },
    /// Two files of one cluster disagree on something that should be equal.
    #[error(
        "the timers of [raft] differ from {other}, of the same cluster; use the same on all nodes"
    )]
    ClusterDiffers {
        /// The other file.
        other: String,
    },
}

/// What an unknown name may be meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Probably this one.
    DidYouMean(String),
    /// Nothing is like it; these are known.
    Known(String),
    /// Nothing is like it, and it can only be removed.
    Remove,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DidYouMean(name) => write!(f, "did you mean {name}?"),
            Self::Known(names) => write!(f, "there are {names}"),
            Self::Remove => f.write_str("remove it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\nü = \"é\" # x\n";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        let hash = text.find('#').expect("there is one");
        assert_eq!(Position::of(text, hash), Position { line: 2, column: 9 });
        assert_eq!(
            Position::of(text, text.len()),
            Position { line: 3, column: 1 }
        );
    }
}
