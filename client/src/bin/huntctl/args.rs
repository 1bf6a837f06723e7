//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bench::args::BenchCommand;
use crate::failure::EXIT_CODES;
use crate::output::Format;
use crate::time::parse_duration;

/// Operates a huntlog cluster: hunts, events, nodes.
#[derive(Debug, Parser)]
#[command(name = "huntctl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// Nodes to start from, as host:port,host:port; the others are learned.
    #[arg(
        long,
        global = true,
        env = "HUNTLOG_ENDPOINTS",
        default_value = "127.0.0.1:7650",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    pub endpoints: Vec<String>,
    /// How long a request may take over all its attempts, such as 500ms or 2m
    /// [default: 10s; replay and play: 5m].
    #[arg(long, global = true, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Reads the command line, or tells what is wrong with it and ends the
    /// process. Also whether it names endpoints: those of the environment may be
    /// meant for other commands.
    pub fn parse_with_endpoints_given() -> (Self, bool) {
        let matches = Self::command().get_matches();
        let mut innermost = &matches;
        while let Some((_, matches)) = innermost.subcommand() {
            innermost = matches;
        }
        let given = innermost.value_source("endpoints") == Some(ValueSource::CommandLine);
        let arguments = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        (arguments, given)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Append, read and follow events.
    #[command(subcommand)]
    Event(EventCommand),
    /// Create hunts, drive them, and see how they stand.
    #[command(subcommand)]
    Hunt(HuntCommand),
    /// Register players and see how they stand.
    #[command(subcommand)]
    Player(PlayerCommand),
    /// The producers the cluster knows.
    #[command(subcommand)]
    Session(SessionCommand),
    /// The nodes and how they are.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Who belongs to the cluster.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Who leads.
    #[command(subcommand)]
    Leader(LeaderCommand),
    /// Take a node out of service, and back.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Take a snapshot on a node now.
    Snapshot {
        /// The node, as host:port; the first endpoint when not given.
        #[arg(long)]
        node: Option<String>,
    },
    /// Play a recorded hunt and compare every outcome with its verdict.
    Replay(ReplayArguments),
    /// Play a generated hunt and check every outcome that can be foreseen.
    Play(PlayArguments),
    /// Measure how much a cluster takes, how long it takes, and what it costs.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Read everything back from each node and compare it with a ledger.
    Verify {
        /// What `replay` or `play` wrote with --ledger.
        #[arg(long)]
        ledger: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Append events, each a JSON object such as
    /// {"hunt":"h","player":"p","clue_attempted":{"clue":"c","answer":"a"}}.
    Append {
        /// One event; otherwise one per line is read from --file.
        event: Option<String>,
        /// Where to read events from; - is standard input.
        #[arg(long, conflicts_with = "event", default_value = "-")]
        file: PathBuf,
        /// The session to append under; a new one when not given.
        #[arg(long)]
        session: Option<String>,
        /// Append all of them as one batch.
        #[arg(long)]
        atomic: bool,
    },
    /// Read committed events.
    Read {
        /// The first offset wanted.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many events; 0 is all.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        filter: FilterArguments,
        /// Read what the node has, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Follow the log until interrupted.
    Tail {
        /// The first offset wanted; otherwise from the end on.
        #[arg(long)]
        from: Option<u64>,
        /// Stop after this many events.
        #[arg(long)]
        limit: Option<u64>,
        #[command(flatten)]
        filter: FilterArguments,
    },
}

#[derive(Debug, Args)]
pub struct FilterArguments {
    /// Only events of these hunts.
    #[arg(long)]
    pub hunt: Vec<String>,
    /// Only events of these players.
    #[arg(long)]
    pub player: Vec<String>,
    /// Only events of these kinds, such as clue_attempted.
    #[arg(long = "type", value_name = "KIND")]
    pub kind: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum HuntCommand {
    /// Create a hunt from its definition, in state draft.
    Create {
        hunt: String,
        /// The definition, .json or .toml.
        #[arg(long)]
        file: PathBuf,
    },
    /// A hunt's state, clues and treasures.
    Get { hunt: String },
    /// All hunts.
    List,
    /// Who stands where.
    Scoreboard {
        hunt: String,
        /// At most this many rows; 0 is all.
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// Open registration.
    Open { hunt: String },
    /// Start play.
    Start { hunt: String },
    /// Pause play.
    Pause { hunt: String },
    /// Go on after a pause.
    Resume { hunt: String },
    /// End the hunt.
    Finish { hunt: String },
    /// Call the hunt off.
    Cancel {
        hunt: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum PlayerCommand {
    /// A player's points, clues and treasures.
    Get { hunt: String, player: String },
    /// Register a player.
    Register {
        hunt: String,
        player: String,
        /// The name to show.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Withdraw a player.
    Withdraw { hunt: String, player: String },
    /// Disqualify a player.
    Disqualify {
        hunt: String,
        player: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// All sessions, with their last sequence.
    List,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// What each node says of itself.
    Status,
    /// Whether all nodes are reachable, ready, and agree on the leader.
    Health,
    /// Form a cluster of nodes whose configurations name no initial members.
    /// Safe to repeat.
    Init {
        /// A node, as ID=PEER_ADDRESS,CLIENT_ADDRESS, such as
        /// 1=10.0.0.1:7651,10.0.0.1:7650; once for each node. Without any, wait
        /// for the cluster that the configurations name.
        #[arg(long = "member", value_parser = parse_member, value_name = "MEMBER")]
        members: Vec<NewNode>,
    },
    /// Whether the next node may be taken down and started under another
    /// release, and which one.
    UpgradeCheck,
    /// End an upgrade: put the highest feature level in force that any node
    /// reads. Refused while a node does not read it, or does not answer. Earlier
    /// releases can not be run any more afterwards. Safe to repeat.
    Finalize,
}

/// A node, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NewNode {
    /// Its id, never used before in this cluster.
    pub id: u64,
    /// host:port where the other nodes reach it.
    #[arg(long)]
    pub peer_address: String,
    /// host:port where clients reach it.
    #[arg(long)]
    pub client_address: String,
}

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// The members, voters and learners.
    List,
    /// Make a running node that belongs to no cluster a learner: it receives
    /// the log and does not vote.
    Add {
        #[command(flatten)]
        node: NewNode,
    },
    /// Make a learner a voter, once it has caught up.
    Promote {
        id: u64,
        /// Even if it does not answer, or too few voters would be left that do.
        #[arg(long)]
        force: bool,
    },
    /// Remove a member for ever: its id is not used again.
    Remove {
        id: u64,
        /// Even if too few voters would be left that answer.
        #[arg(long)]
        force: bool,
    },
    /// Add a node, promote it, and remove another, which may be dead. Safe to
    /// repeat.
    Replace {
        /// The node to be removed.
        old: u64,
        #[command(flatten)]
        node: NewNode,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Take a node out of service: it hands leadership over, refuses writes and
    /// subscriptions, and does not lead; it goes on replicating. A restart
    /// takes it back.
    Drain {
        /// The node, as host:port; the first endpoint when not given.
        #[arg(long)]
        node: Option<String>,
    },
    /// Take a drained node back into service.
    Undrain {
        /// The node, as host:port; the first endpoint when not given.
        #[arg(long)]
        node: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum LeaderCommand {
    /// Hand leadership over.
    Transfer {
        /// The node's id; the most up-to-date follower when not given.
        #[arg(long, default_value_t = 0)]
        to: u64,
    },
}

/// What replay and play have in common.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// How many named sessions to submit with.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub sessions: u16,
    /// Events in a batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub batch: u16,
    /// Events submitted in a second at most; otherwise as fast as possible.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Record here what was acknowledged, for `verify`.
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// Create --signal-file once this share of the events is acknowledged,
    /// such as 50%.
    #[arg(long, value_parser = parse_percent, requires = "signal_file")]
    pub signal_at: Option<f64>,
    /// A script can wait for this file, to break something in the middle. With
    /// --mark-file, the run goes slowly from then on until the script has
    /// written that, for ten seconds at most.
    #[arg(long, requires = "signal_at")]
    pub signal_file: Option<PathBuf>,
    /// Read at the end: the wall times, in nanoseconds since 1970, from just
    /// before and just after something was broken. The summary then tells how
    /// long after the first an append was acknowledged that was sent after the
    /// second. One number stands for both.
    #[arg(long)]
    pub mark_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// CSV with the columns time, team, puzzle, guess, verdict.
    pub file: PathBuf,
    /// The hunt to create.
    #[arg(long)]
    pub hunt: String,
    #[command(flatten)]
    pub run: RunArguments,
}

#[derive(Debug, Args)]
pub struct PlayArguments {
    /// The hunt to create.
    #[arg(long, default_value = "demo")]
    pub hunt: String,
    /// Everything generated follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Teams that play.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub teams: u32,
    /// Clues to solve.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clues: u32,
    /// Treasures to win, fewer than want them.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub treasures: u32,
    /// Events of the teams.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub events: u64,
    #[command(flatten)]
    pub run: RunArguments,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| "give a percentage, such as 50%".to_owned())?;
    if (0.0..=100.0).contains(&number) {
        Ok(number / 100.0)
    } else {
        Err("it must be between 0% and 100%".to_owned())
    }
}

fn parse_member(text: &str) -> Result<NewNode, String> {
    let parts = text
        .split_once('=')
        .and_then(|(id, addresses)| Some((id.parse().ok()?, addresses.split_once(',')?)));
    let Some((id, (peer_address, client_address))) = parts else {
        return Err("give ID=PEER_ADDRESS,CLIENT_ADDRESS".to_owned());
    };
    Ok(NewNode {
        id,
        peer_address: peer_address.to_owned(),
        client_address: client_address.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn members_are_an_id_and_two_addresses() {
        let member = parse_member("3=a:1,b:2").expect("a member");
        assert_eq!(
            (member.id, &*member.peer_address, &*member.client_address),
            (3, "a:1", "b:2")
        );
        for wrong in ["3", "3=a:1", "x=a:1,b:2", "a:1,b:2"] {
            assert!(parse_member(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentages_are_within_bounds() {
        assert_eq!(parse_percent("50%"), Ok(0.5));
        assert_eq!(parse_percent("12.5"), Ok(0.125));
        assert!(parse_percent("101%").is_err());
        assert!(parse_percent("half").is_err());
    }
}
