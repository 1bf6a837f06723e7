//! The keys of the configuration: what the file, the environment and the
//! command line may set. Everything that names a key (validation, flags, help,
//! suggestions, the test of the sample files) reads this table.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The TOML table it stands in.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// `section.name`, as faults spell it.
    pub path: &'static str,
    /// Its flag, without the leading dashes.
    pub flag: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The value when nobody sets it, as TOML would spell it; none when it must
    /// be set.
    pub default: Option<&'static str>,
    /// One sentence for `--help`.
    pub help: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number from `min` to `max`, both included.
    Integer {
        /// The lowest value taken.
        min: u64,
        /// The highest value taken.
        max: u64,
    },
    /// A string.
    Text,
    /// An array of tables, each with [`MEMBER_FIELDS`].
    Members,
}

impl Kind {
    /// What `--help` shows as the flag's value.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Integer { .. } => "NUMBER",
            Self::Text => "TEXT",
            Self::Members => "TOML",
        }
    }
}

/// The fields of one entry of `cluster.initial_members`.
pub const MEMBER_FIELDS: [&str; 3] = ["id", "peer_address", "client_address"];

/// What every environment variable of the configuration starts with. The ones
/// without a double underscore (such as `HUNTLOG_CONFIG`) are not keys.
pub const VARIABLE_PREFIX: &str = "HUNTLOG_";

/// Defines one key, deriving its path.
macro_rules! key {
    ($section:literal . $name:literal, $flag:literal, $variable:literal, $kind:expr, $default:expr, $help:literal) => {
        Key {
            section: $section,
            name: $name,
            path: concat!($section, ".", $name),
            flag: $flag,
            variable: $variable,
            kind: $kind,
            default: $default,
            help: $help,
        }
    };
}

/// Milliseconds of Raft's timers: under a minute, or an outage goes unnoticed.
const TIMER_MS: Kind = Kind::Integer {
    min: crate::limits::RAFT_TIMER_MIN_MS,
    max: 60_000,
};

/// `node.id`.
pub static NODE_ID: Key = key!(
    "node"."id",
    "node-id",
    "HUNTLOG_NODE__ID",
    Kind::Integer { min: 1, max: i64::MAX as u64 },
    None,
    "This node's number, never used for another node of the cluster"
);

/// `node.data_dir`.
pub static NODE_DATA_DIR: Key = key!(
    "node"."data_dir",
    "node-data-dir",
    "HUNTLOG_NODE__DATA_DIR",
    Kind::Text,
    None,
    "Where the log, its index and the snapshots are kept; relative to the working directory"
);

/// `cluster.name`.
pub static CLUSTER_NAME: Key = key!(
    "cluster"."name",
    "cluster-name",
    "HUNTLOG_CLUSTER__NAME",
    Kind::Text,
    None,
    "The cluster's name, the same on all its nodes"
);

/// `cluster.initial_members`.
pub static CLUSTER_INITIAL_MEMBERS: Key = key!(
    "cluster"."initial_members",
    "cluster-initial-members",
    "HUNTLOG_CLUSTER__INITIAL_MEMBERS",
    Kind::Members,
    None,
    "The nodes that form the cluster; without it the node waits for `huntctl cluster init` or `huntctl member add`"
);

/// `listen.client`.
pub static LISTEN_CLIENT: Key = key!(
    "listen"."client",
    "listen-client",
    "HUNTLOG_LISTEN__CLIENT",
    Kind::Text,
    Some("\"127.0.0.1:7650\""),
    "IP address and port for clients (gRPC)"
);

/// `listen.peer`.
pub static LISTEN_PEER: Key = key!(
    "listen"."peer",
    "listen-peer",
    "HUNTLOG_LISTEN__PEER",
    Kind::Text,
    Some("\"127.0.0.1:7651\""),
    "IP address and port for the cluster's other nodes (gRPC)"
);

/// `listen.admin`.
pub static LISTEN_ADMIN: Key = key!(
    "listen"."admin",
    "listen-admin",
    "HUNTLOG_LISTEN__ADMIN",
    Kind::Text,
    Some("\"127.0.0.1:7652\""),
    "IP address and port for /metrics, /livez and /readyz (HTTP)"
);

/// `raft.heartbeat_ms`.
pub static RAFT_HEARTBEAT_MS: Key = key!(
    "raft"."heartbeat_ms",
    "raft-heartbeat-ms",
    "HUNTLOG_RAFT__HEARTBEAT_MS",
    TIMER_MS,
    Some("30"),
    "Milliseconds between the leader's heartbeats"
);

/// `raft.election_min_ms`.
pub static RAFT_ELECTION_MIN_MS: Key = key!(
    "raft"."election_min_ms",
    "raft-election-min-ms",
    "HUNTLOG_RAFT__ELECTION_MIN_MS",
    TIMER_MS,
    Some("100"),
    "A follower stands for election after election_max_ms of silence, the leader's lease, and a random time from this many milliseconds on"
);

/// `raft.election_max_ms`.
pub static RAFT_ELECTION_MAX_MS: Key = key!(
    "raft"."election_max_ms",
    "raft-election-max-ms",
    "HUNTLOG_RAFT__ELECTION_MAX_MS",
    TIMER_MS,
    Some("200"),
    "The longest such time, and the leader's lease, in milliseconds"
);

/// `raft.ignore_digests_through`.
pub static RAFT_IGNORE_DIGESTS_THROUGH: Key = key!(
    "raft"."ignore_digests_through",
    "raft-ignore-digests-through",
    "HUNTLOG_RAFT__IGNORE_DIGESTS_THROUGH",
    Kind::Integer { min: 0, max: i64::MAX as u64 },
    Some("0"),
    "Apply entries through this log index whatever digest of the leader they carry; 0 compares all"
);

/// `snapshot.every_bytes`.
pub static SNAPSHOT_EVERY_BYTES: Key = key!(
    "snapshot"."every_bytes",
    "snapshot-every-bytes",
    "HUNTLOG_SNAPSHOT__EVERY_BYTES",
    Kind::Integer { min: 1 << 20, max: 1 << 40 },
    Some("268435456"),
    "A snapshot is taken after this many bytes of log"
);

/// `snapshot.every_seconds`.
pub static SNAPSHOT_EVERY_SECONDS: Key = key!(
    "snapshot"."every_seconds",
    "snapshot-every-seconds",
    "HUNTLOG_SNAPSHOT__EVERY_SECONDS",
    Kind::Integer { min: 1, max: 7 * 24 * 3600 },
    Some("600"),
    "And after this many seconds, if there are new entries"
);

/// `retention.max_age_seconds`.
pub static RETENTION_MAX_AGE_SECONDS: Key = key!(
    "retention"."max_age_seconds",
    "retention-max-age-seconds",
    "HUNTLOG_RETENTION__MAX_AGE_SECONDS",
    Kind::Integer { min: 0, max: 100 * 366 * 24 * 3600 },
    Some("0"),
    "Events older than this many seconds may be given up; 0 keeps them for ever"
);

/// `retention.max_bytes`.
pub static RETENTION_MAX_BYTES: Key = key!(
    "retention"."max_bytes",
    "retention-max-bytes",
    "HUNTLOG_RETENTION__MAX_BYTES",
    Kind::Integer { min: 0, max: 1 << 50 },
    Some("0"),
    "The oldest events of more bytes of log than this may be given up, at least 134217728; 0 keeps any amount"
);

/// `log.level`.
pub static LOG_LEVEL: Key = key!(
    "log"."level",
    "log-level",
    "HUNTLOG_LOG__LEVEL",
    Kind::Text,
    Some("\"info\""),
    "error, warn, info, debug or trace, or a filter such as info,openraft=debug; RUST_LOG overrides it"
);

/// `log.format`.
pub static LOG_FORMAT: Key = key!(
    "log"."format",
    "log-format",
    "HUNTLOG_LOG__FORMAT",
    Kind::Text,
    Some("\"auto\""),
    "human, json, or auto: human when standard error is a terminal, else json"
);

/// Every key, in the order of the sample files.
pub static KEYS: [&Key; 17] = [
    &NODE_ID,
    &NODE_DATA_DIR,
    &CLUSTER_NAME,
    &CLUSTER_INITIAL_MEMBERS,
    &LISTEN_CLIENT,
    &LISTEN_PEER,
    &LISTEN_ADMIN,
    &RAFT_HEARTBEAT_MS,
    &RAFT_ELECTION_MIN_MS,
    &RAFT_ELECTION_MAX_MS,
    &RAFT_IGNORE_DIGESTS_THROUGH,
    &SNAPSHOT_EVERY_BYTES,
    &SNAPSHOT_EVERY_SECONDS,
    &RETENTION_MAX_AGE_SECONDS,
    &RETENTION_MAX_BYTES,
    &LOG_LEVEL,
    &LOG_FORMAT,
];

/// The key `section.name`.
pub fn key(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.into_iter()
        .find(|key| key.section == section && key.name == name)
}

/// Whether any key stands in `section`.
pub fn is_section(section: &str) -> bool {
    KEYS.iter().any(|key| key.section == section)
}

/// The names of the keys in `section`.
pub fn names_in(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.into_iter()
        .filter(move |key| key.section == section)
        .map(|key| key.name)
}

/// The candidate most like `word`, when one is close enough to be meant.
pub fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_variables_follow_from_the_path() {
        for key in KEYS {
            let flag = key.path.replace(['.', '_'], "-");
            assert_eq!(key.flag, flag, "{}", key.path);
            let variable = format!("{}__{}", key.section, key.name).to_uppercase();
            assert_eq!(key.variable, format!("{VARIABLE_PREFIX}{variable}"));
        }
    }

    #[test]
    fn paths_are_unique() {
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn suggestions_are_close_or_absent() {
        assert_eq!(
            closest("hartbeat_ms", names_in("raft")),
            Some("heartbeat_ms")
        );
        assert_eq!(closest("colour", names_in("raft")), None);
    }
}
