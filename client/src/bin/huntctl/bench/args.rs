//! The command line of `huntctl bench`, and what of it can not be.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use huntlog_client::limits;

use super::assertion::{Assertions, parse_assertions};
use super::figures::{self, Kind};
use super::payload::STAMP_BYTES;
use crate::failure::Failure;
use crate::time::parse_duration;

/// What appends may be under way at most, in all: what a generator keeps in
/// memory for them.
const OUTSTANDING_BYTES_MAX: u64 = 1 << 30;
/// Players that are registered before the load begins, of all hunts.
const PLAYERS_MAX: u64 = 10_000_000;

/// What the client library may hold for an open loop.
const OPEN_LOOP_BUFFER_BYTES: usize = 64 << 20;

/// Ports a spawned node takes: clients, peers, metrics.
const PORTS_PER_NODE: u16 = 3;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// Write to this machine's disk as a node's log does, and time each fdatasync:
    /// an append waits for those of a quorum. Needs no cluster.
    Disk(DiskArguments),
}

/// What is measured of a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Append events and time their acknowledgements.
    Append(AppendArguments),
    /// Read history in sequence.
    Read(ReadArguments),
    /// Append events and time how they reach subscribers.
    E2e(DeliveryArguments),
    /// Append, read history and follow the log, all at once.
    Mix(MixArguments),
    /// Kill the leader of a spawned cluster again and again, and time until the
    /// next append is acknowledged.
    Failover(FailoverArguments),
    /// Fill a spawned cluster, then kill a node and time until it is ready
    /// again.
    Restart(RestartArguments),
}

/// Which cluster, and what is to be held.
#[derive(Debug, Args)]
pub struct CommonArguments {
    /// Start a cluster of so many nodes for this, with the huntlog-node beside
    /// this binary, and remove it at the end. Environment variables such as
    /// HUNTLOG_RAFT__HEARTBEAT_MS reach its nodes.
    #[arg(long, value_parser = parse_nodes, value_name = "NODES")]
    pub spawn: Option<u16>,
    /// The first of the ports the spawned nodes take, three each; otherwise
    /// free ones are looked for.
    #[arg(long, requires = "spawn", value_name = "PORT")]
    pub spawn_port: Option<u16>,
    /// Where the spawned nodes' files are kept, in a directory that is removed
    /// at the end. Only a real disk gives real figures
    /// [default: the system's directory for temporary files].
    #[arg(long, requires = "spawn", value_name = "DIRECTORY")]
    pub spawn_dir: Option<PathBuf>,
    /// The nodes' admin addresses, where /metrics is read
    /// [default: each member's host, at its client port + 2].
    #[arg(
        long,
        conflicts_with = "spawn",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    pub metrics: Vec<String>,
    /// Measure so many times; the median of each figure counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,
    /// What has to hold, such as 'p99<50ms,rate>100000'; any figure by its name.
    /// If it does not, the exit status is 3.
    #[arg(long, value_name = "CONDITIONS")]
    pub assert: Option<String>,
}

/// What is appended, and how.
#[derive(Debug, Clone, Args)]
pub struct LoadArguments {
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256, value_parser = event_bytes())]
    pub event_bytes: u32,
    /// Events of a request.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub batch: u16,
    /// Sessions to append under.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// Requests of each session under way at once: each answer makes the next
    /// (a closed loop) [default: 16].
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub in_flight: Option<u16>,
    /// Connections that carry the sessions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub connections: u16,
    /// Events offered in a second, whatever the answers do (an open loop).
    /// Times then count from when a request was due, so that a stall shows.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Hunts the events are spread over.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hunts: u32,
    /// Players to register in each hunt first; 0 is none, and the events then
    /// name players that nobody knows.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub players: u32,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long to append before measuring; 0s is not at all.
    #[arg(long, default_value = "2s", value_parser = parse_warm_up)]
    pub warm_up: Duration,
    /// Tell of every second what it was like, by when requests were answered.
    #[arg(long)]
    pub timeline: bool,
    /// Read everything back afterwards: nothing acknowledged may be missing,
    /// out of order, or twice.
    #[arg(long)]
    pub verify: bool,
}

#[derive(Debug, Args)]
pub struct AppendArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[command(flatten)]
    pub load: LoadArguments,
}

#[derive(Debug, Args)]
pub struct DeliveryArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[command(flatten)]
    pub load: LoadArguments,
    /// Subscribers, each of which receives everything.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub subscribers: u16,
}

#[derive(Debug, Clone, Args)]
pub struct HistoryArguments {
    /// Events to read. A spawned cluster is filled with them first; another one
    /// has to have them.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub events: u64,
    /// Bytes of the payload of each event a cluster is filled with.
    #[arg(long, requires = "spawn", default_value_t = 256, value_parser = event_bytes())]
    pub event_bytes: u32,
}

#[derive(Debug, Args)]
pub struct ReadArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[command(flatten)]
    pub history: HistoryArguments,
    /// Readers at once, each of which reads all of it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub readers: u16,
    /// The first offset to read.
    #[arg(long, conflicts_with = "spawn", default_value_t = 0)]
    pub from: u64,
    /// Read what the node has, without asking the leader.
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Args)]
pub struct MixArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[command(flatten)]
    pub load: LoadArguments,
    /// Subscribers, each of which receives everything.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub subscribers: u16,
    /// Readers, each of which reads the log from its start, again and again.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub readers: u16,
}

#[derive(Debug, Args)]
pub struct FailoverArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub kills: u16,
    /// Events of a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub batch: u16,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256, value_parser = event_bytes())]
    pub event_bytes: u32,
    /// Requests under way at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub in_flight: u16,
}

#[derive(Debug, Args)]
pub struct RestartArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[command(flatten)]
    pub history: HistoryArguments,
}

#[derive(Debug, Args)]
pub struct DiskArguments {
    /// A directory on the disk, such as a node's data_dir. It needs 128 MiB for a
    /// moment: two files of half of it, the next before the last is removed.
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// Bytes written before each fdatasync.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub bytes: u32,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Measure so many times; the median of each figure counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,
    /// What has to hold, such as 'p99<10ms,max<100ms'; any figure by its name.
    /// If it does not, the exit status is 3.
    #[arg(long, value_name = "CONDITIONS")]
    pub assert: Option<String>,
}

impl BenchCommand {
    /// The figures it gives.
    pub fn kinds(&self) -> Vec<&'static Kind> {
        match self {
            Self::Cluster(command) => command.kinds(),
            Self::Disk(_) => figures::SYNCS.iter().collect(),
        }
    }

    /// Checks all that can be checked before anything is started.
    pub fn check(&self, endpoints_given: bool) -> Result<Assertions, Failure> {
        let asserted = match self {
            Self::Cluster(command) => {
                command.check(endpoints_given)?;
                &command.common().assert
            }
            Self::Disk(_) if endpoints_given => {
                return usage("disk measures this machine's own: leave --endpoints out");
            }
            Self::Disk(arguments) => &arguments.assert,
        };
        match asserted {
            Some(text) => parse_assertions(text, &self.kinds())
                .map_err(|error| Failure::Usage(format!("--assert: {error}"))),
            None => Ok(Assertions::default()),
        }
    }
}

impl ClusterCommand {
    /// What all of them have.
    pub fn common(&self) -> &CommonArguments {
        match self {
            Self::Append(arguments) => &arguments.common,
            Self::Read(arguments) => &arguments.common,
            Self::E2e(arguments) => &arguments.common,
            Self::Mix(arguments) => &arguments.common,
            Self::Failover(arguments) => &arguments.common,
            Self::Restart(arguments) => &arguments.common,
        }
    }

    /// What it appends while it measures.
    pub fn load(&self) -> Option<&LoadArguments> {
        match self {
            Self::Append(arguments) => Some(&arguments.load),
            Self::E2e(arguments) => Some(&arguments.load),
            Self::Mix(arguments) => Some(&arguments.load),
            Self::Read(_) | Self::Failover(_) | Self::Restart(_) => None,
        }
    }

    fn kinds(&self) -> Vec<&'static Kind> {
        let sets: &[&'static [Kind]] = match self {
            Self::Append(_) => &[figures::APPENDS, figures::NODES],
            Self::Read(_) => &[figures::READS, figures::NODES],
            Self::E2e(_) => &[figures::APPENDS, figures::DELIVERIES, figures::NODES],
            Self::Mix(_) => &[
                figures::APPENDS,
                figures::DELIVERIES,
                figures::READS,
                figures::NODES,
            ],
            Self::Failover(_) => &[figures::FAILOVERS],
            Self::Restart(_) => &[figures::RESTARTS],
        };
        sets.iter().copied().flatten().collect()
    }

    fn check(&self, endpoints_given: bool) -> Result<(), Failure> {
        let common = self.common();
        if common.spawn.is_some() && endpoints_given {
            return usage("--spawn starts a cluster of its own: leave --endpoints out");
        }
        if let (Some(port), Some(nodes)) = (common.spawn_port, common.spawn)
            && (port == 0 || port.checked_add(nodes * PORTS_PER_NODE - 1).is_none())
        {
            return usage("--spawn-port leaves no room for three ports a node up to 65535");
        }
        match self {
            Self::Append(arguments) => arguments.load.check(0)?,
            Self::E2e(arguments) => arguments.load.check(STAMP_BYTES)?,
            Self::Mix(arguments) => arguments.load.check(STAMP_BYTES)?,
            Self::Failover(arguments) => {
                if common.runs > 1 {
                    return usage("failover is repeated by --kills, not by --runs");
                }
                check_batch(arguments.batch, arguments.event_bytes)?;
                need_spawn("failover kills leaders", common, 3)?;
            }
            Self::Restart(_) => need_spawn("restart kills nodes", common, 3)?,
            Self::Read(_) => {}
        }
        Ok(())
    }
}

impl LoadArguments {
    /// Requests of a session under way in a closed loop.
    pub fn in_flight(&self) -> u16 {
        self.in_flight.unwrap_or(16)
    }

    fn check(&self, least_event_bytes: usize) -> Result<(), Failure> {
        check_batch(self.batch, self.event_bytes)?;
        if (self.event_bytes as usize) < least_event_bytes {
            return usage(&format!(
                "--event-bytes must be at least {least_event_bytes} here: each event carries when it was due"
            ));
        }
        if u32::from(self.connections) > self.sessions {
            return usage("--connections is above --sessions: some would carry nothing");
        }
        if u64::from(self.hunts) * u64::from(self.players) > PLAYERS_MAX {
            return usage("--hunts x --players is above 10,000,000 players to register first");
        }
        if let Some(rate) = self.rate {
            if (rate as f64) * self.duration.as_secs_f64() < f64::from(self.batch) {
                return usage("at this --rate not one --batch is due within --duration");
            }
        } else if self.outstanding_bytes() > OUTSTANDING_BYTES_MAX {
            return usage(
                "--sessions x --in-flight x --batch x --event-bytes is above 1 GiB under way at once",
            );
        }
        Ok(())
    }

    /// What the client library is to hold at most: twice what a closed loop has
    /// under way; in an open loop what a stall of a second or so leaves behind.
    pub fn buffer_bytes(&self) -> usize {
        let wanted = match self.rate {
            Some(_) => 0,
            None => usize::try_from(self.outstanding_bytes() * 2).unwrap_or(usize::MAX),
        };
        wanted.max(OPEN_LOOP_BUFFER_BYTES)
    }

    /// Bytes under way at once in a closed loop.
    fn outstanding_bytes(&self) -> u64 {
        u64::from(self.sessions)
            * u64::from(self.in_flight())
            * u64::from(self.batch)
            * (u64::from(self.event_bytes) + limits::EVENT_OVERHEAD_BYTES as u64)
    }
}

fn usage<T>(words: &str) -> Result<T, Failure> {
    Err(Failure::Usage(words.to_owned()))
}

fn check_batch(batch: u16, event_bytes: u32) -> Result<(), Failure> {
    if batch > most_in_a_batch(event_bytes) {
        return usage("--batch x --event-bytes is above 4 MiB, the most a request may have");
    }
    Ok(())
}

/// How many events with such a payload a request may have.
pub fn most_in_a_batch(event_bytes: u32) -> u16 {
    // Ids and framing of an event come on top of its payload.
    let event_bytes = event_bytes as usize + limits::EVENT_OVERHEAD_BYTES;
    u16::try_from(limits::BATCH_BYTES / event_bytes).unwrap_or(u16::MAX)
}

fn need_spawn(what: &str, common: &CommonArguments, least: u16) -> Result<(), Failure> {
    match common.spawn {
        None => usage(&format!(
            "{what}, so only with --spawn, of a cluster of its own"
        )),
        Some(nodes) if nodes < least => {
            usage(&format!("{what}, so --spawn needs at least {least} nodes"))
        }
        Some(_) => Ok(()),
    }
}

/// Of a payload: the ids and the framing of its event come on top.
fn event_bytes() -> RangedU64ValueParser<u32> {
    let most = limits::EVENT_BYTES - 2 * limits::EVENT_OVERHEAD_BYTES;
    RangedU64ValueParser::new().range(1..=most as u64)
}

fn parse_nodes(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(nodes @ (1 | 3 | 5)) => Ok(nodes),
        _ => Err("a cluster of 1, 3 or 5 nodes can be spawned".to_owned()),
    }
}

fn parse_warm_up(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        Ok(Duration::ZERO)
    } else {
        parse_duration(text)
    }
}
