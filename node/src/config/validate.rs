//! From the raw configuration to the validated one: types, ranges, and how the
//! values go together. Nothing stops at the first fault.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use super::{
    Address, ClusterConfig, Config, ListenConfig, LogConfig, LogFormat, LogLevel, Member,
    NodeConfig, RaftConfig, RetentionConfig, SnapshotConfig,
    fault::{Fault, Origin, Problem},
    layers::{Layers, Located, Raw, with_article},
    members, schema,
    schema::{Key, Kind},
};

use crate::limits;

/// Reads keys, and collects what is wrong with them.
pub(super) struct Validator<'a> {
    layers: &'a Layers,
    faults: &'a mut Vec<Fault>,
}

/// The three timers of Raft, in milliseconds.
struct Timers {
    heartbeat: Located<u64>,
    election_min: Located<u64>,
    election_max: Located<u64>,
}

impl<'a> Validator<'a> {
    pub(super) fn new(layers: &'a Layers, faults: &'a mut Vec<Fault>) -> Self {
        Self { layers, faults }
    }

    /// The configuration; None when a value is missing or of no use, which the
    /// faults then tell.
    pub(super) fn config(mut self) -> Option<Config> {
        // Everything is read before anything is given up.
        let id = self.integer(&schema::NODE_ID);
        let data_dir = self.text(&schema::NODE_DATA_DIR);
        let name = self.cluster_name();
        let members = self.members();
        let client = self.listen_address(&schema::LISTEN_CLIENT);
        let peer = self.listen_address(&schema::LISTEN_PEER);
        let admin = self.listen_address(&schema::LISTEN_ADMIN);
        let timers = self.timers();
        let ignore_digests_through = self.integer(&schema::RAFT_IGNORE_DIGESTS_THROUGH);
        let every_bytes = self.integer(&schema::SNAPSHOT_EVERY_BYTES);
        let every_seconds = self.integer(&schema::SNAPSHOT_EVERY_SECONDS);
        let max_age_seconds = self.integer(&schema::RETENTION_MAX_AGE_SECONDS);
        let retention_bytes = self.retention_bytes();
        let level = self.log_level();
        let format = self.log_format();

        self.check_listeners([
            (&schema::LISTEN_CLIENT, client.as_ref()),
            (&schema::LISTEN_PEER, peer.as_ref()),
            (&schema::LISTEN_ADMIN, admin.as_ref()),
        ]);
        if let (Some(id), Some(Some(members))) = (&id, &members)
            && let Some(this) = self.find_this_node(id, members)
        {
            self.check_reachable(
                &schema::LISTEN_CLIENT,
                client.as_ref(),
                &this.client_address,
            );
            self.check_reachable(&schema::LISTEN_PEER, peer.as_ref(), &this.peer_address);
        }

        let timers = timers?;
        Some(Config {
            node: NodeConfig {
                id: id?.value,
                data_dir: PathBuf::from(data_dir?.value),
            },
            cluster: ClusterConfig {
                name: name?,
                initial_members: members?.map(|members| members.value).unwrap_or_default(),
            },
            listen: ListenConfig {
                client: client?.value,
                peer: peer?.value,
                admin: admin?.value,
            },
            raft: RaftConfig {
                heartbeat: Duration::from_millis(timers.heartbeat.value),
                election_min: Duration::from_millis(timers.election_min.value),
                election_max: Duration::from_millis(timers.election_max.value),
                ignore_digests_through: ignore_digests_through?.value,
            },
            snapshot: SnapshotConfig {
                every_bytes: every_bytes?.value,
                every: Duration::from_secs(every_seconds?.value),
            },
            retention: RetentionConfig {
                max_age: Some(max_age_seconds?.value)
                    .filter(|seconds| *seconds > 0)
                    .map(Duration::from_secs),
                max_bytes: retention_bytes,
            },
            log: LogConfig {
                level: level?,
                format: format?,
            },
        })
    }

    pub(super) fn fault(&mut self, origin: Origin, problem: Problem) {
        self.faults.push(Fault { origin, problem });
    }

    fn missing(&mut self, key: &Key) {
        let problem = Problem::Missing {
            key: key.path.to_owned(),
            hint: missing_hint(key),
        };
        self.fault(self.layers.place_for(key), problem);
    }

    fn integer(&mut self, key: &'static Key) -> Option<Located<u64>> {
        let Kind::Integer { min, max } = key.kind else {
            unreachable!("{} is declared as a number", key.path)
        };
        match self.layers.get(key) {
            Some(raw) => self.number(key.path, raw, min, max),
            None => self.default_of(key),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(
        &mut self,
        key: &str,
        raw: &Located<Raw>,
        min: u64,
        max: u64,
    ) -> Option<Located<u64>> {
        let number = match &raw.value {
            Raw::Integer(number) => Some(*number),
            Raw::Word(word) => word.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            let problem = wrong_type(key, "a whole number", &raw.value);
            self.fault(raw.origin.clone(), problem);
            return None;
        };
        match u64::try_from(number) {
            Ok(value) if (min..=max).contains(&value) => Some(Located {
                value,
                origin: raw.origin.clone(),
            }),
            _ => {
                let problem = Problem::OutOfRange {
                    key: key.to_owned(),
                    actual: number.to_string(),
                    min,
                    max,
                };
                self.fault(raw.origin.clone(), problem);
                None
            }
        }
    }

    /// `retention.max_bytes`: none when it is 0, which means any amount.
    fn retention_bytes(&mut self) -> Option<u64> {
        let key = &schema::RETENTION_MAX_BYTES;
        let Kind::Integer { max, .. } = key.kind else {
            unreachable!("{} is declared as a number", key.path)
        };
        let bytes = self.integer(key).filter(|bytes| bytes.value > 0)?;
        let min = limits::RETENTION_BYTES_MIN;
        if bytes.value < min {
            let problem = Problem::OutOfRange {
                key: key.path.to_owned(),
                actual: bytes.value.to_string(),
                min,
                max,
            };
            self.fault(bytes.origin, problem);
        }
        Some(bytes.value)
    }

    fn text(&mut self, key: &'static Key) -> Option<Located<String>> {
        match self.layers.get(key) {
            Some(raw) => self.string(key.path, raw, missing_hint(key)),
            None => self.default_of(key),
        }
    }

    /// A string that is not empty.
    pub(super) fn string(
        &mut self,
        key: &str,
        raw: &Located<Raw>,
        hint: &'static str,
    ) -> Option<Located<String>> {
        let problem = match &raw.value {
            Raw::Text(text) | Raw::Word(text) if !text.trim().is_empty() => {
                return Some(Located {
                    value: text.clone(),
                    origin: raw.origin.clone(),
                });
            }
            Raw::Text(_) | Raw::Word(_) => Problem::Empty {
                key: key.to_owned(),
                hint,
            },
            other => wrong_type(key, "a string in quotes", other),
        };
        self.fault(raw.origin.clone(), problem);
        None
    }

    /// The default of a key nobody set, or the fault that it has none.
    fn default_of<T: FromStr>(&mut self, key: &'static Key) -> Option<Located<T>> {
        let Some(default) = key.default else {
            self.missing(key);
            return None;
        };
        let value = default.trim_matches('"').parse().ok();
        Some(Located {
            value: value.expect("the defaults of the schema are of its types"),
            origin: Origin::Default,
        })
    }

    fn cluster_name(&mut self) -> Option<String> {
        let name = self.text(&schema::CLUSTER_NAME)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = name.value.as_bytes().first();
        if name.value.len() <= 64
            && name.value.bytes().all(allowed)
            && first.is_some_and(u8::is_ascii_alphanumeric)
        {
            return Some(name.value);
        }
        let problem = Problem::InvalidName {
            key: schema::CLUSTER_NAME.path,
            actual: name.value,
        };
        self.fault(name.origin, problem);
        None
    }

    /// The initial members; `Some(None)` when the node is to wait for a cluster.
    fn members(&mut self) -> Option<Option<Located<Vec<Member>>>> {
        let key = &schema::CLUSTER_INITIAL_MEMBERS;
        let Some(raw) = self.layers.get(key) else {
            return Some(None);
        };
        let value = match &raw.value {
            Raw::Array(items) => members::read(self, raw, items)?,
            other => {
                let problem = wrong_type(key.path, "an array of members", other);
                self.fault(raw.origin.clone(), problem);
                return None;
            }
        };
        Some(Some(Located {
            value,
            origin: raw.origin.clone(),
        }))
    }

    fn listen_address(&mut self, key: &'static Key) -> Option<Located<SocketAddr>> {
        let text = self.text(key)?;
        match text.value.parse() {
            Ok(value) => Some(Located {
                value,
                origin: text.origin,
            }),
            Err(_) => {
                let problem = Problem::InvalidListenAddress {
                    key: key.path,
                    actual: text.value,
                };
                self.fault(text.origin, problem);
                None
            }
        }
    }

    fn timers(&mut self) -> Option<Timers> {
        let heartbeat = self.integer(&schema::RAFT_HEARTBEAT_MS);
        let election_min = self.integer(&schema::RAFT_ELECTION_MIN_MS);
        let election_max = self.integer(&schema::RAFT_ELECTION_MAX_MS);
        let timers = Timers {
            heartbeat: heartbeat?,
            election_min: election_min?,
            election_max: election_max?,
        };
        if timers.election_min.value >= timers.election_max.value {
            let problem = Problem::ElectionRange {
                min: timers.election_min.value,
                max: timers.election_max.value,
            };
            self.fault(
                set_one([&timers.election_min, &timers.election_max]),
                problem,
            );
        }
        if timers.election_min.value < 2 * timers.heartbeat.value {
            let problem = Problem::ElectionTooShort {
                election_min: timers.election_min.value,
                heartbeat: timers.heartbeat.value,
            };
            self.fault(set_one([&timers.election_min, &timers.heartbeat]), problem);
        }
        Some(timers)
    }

    fn log_level(&mut self) -> Option<LogLevel> {
        let text = self.text(&schema::LOG_LEVEL)?;
        match text.value.parse() {
            Ok(level) => Some(level),
            Err(reason) => {
                let problem = Problem::InvalidLogLevel {
                    actual: text.value,
                    reason: ToString::to_string(&reason),
                };
                self.fault(text.origin, problem);
                None
            }
        }
    }

    fn log_format(&mut self) -> Option<LogFormat> {
        let text = self.text(&schema::LOG_FORMAT)?;
        let format = LogFormat::ALL
            .into_iter()
            .find(|format| format.name() == text.value);
        if format.is_none() {
            let names = LogFormat::ALL.map(LogFormat::name);
            let problem = Problem::NotAChoice {
                key: schema::LOG_FORMAT.path,
                choices: names.join(", "),
                actual: text.value,
            };
            self.fault(text.origin, problem);
        }
        format
    }

    /// No two listeners on one port, unless on different addresses. Port 0 is
    /// whatever the system finds free.
    fn check_listeners(&mut self, listeners: [(&'static Key, Option<&Located<SocketAddr>>); 3]) {
        for (index, (key, address)) in listeners.iter().enumerate() {
            let Some(address) = address else { continue };
            let clash = listeners[..index].iter().find(|(_, other)| {
                other.is_some_and(|other| {
                    let (a, b) = (address.value, other.value);
                    let overlap =
                        a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                    a.port() == b.port() && a.port() != 0 && overlap
                })
            });
            if let Some((other, other_address)) = clash {
                let problem = Problem::SamePort {
                    key: key.path,
                    other: other.path,
                    address: address.value.to_string(),
                };
                let other_address = other_address.expect("a clash is between two addresses");
                self.fault(set_one([address, other_address]), problem);
            }
        }
    }

    fn find_this_node<'m>(
        &mut self,
        id: &Located<u64>,
        members: &'m Located<Vec<Member>>,
    ) -> Option<&'m Member> {
        let this = members.value.iter().find(|member| member.id == id.value);
        // An empty list is a fault of its own.
        if this.is_none() && !members.value.is_empty() {
            let ids: Vec<_> = members.value.iter().map(|m| m.id.to_string()).collect();
            let problem = Problem::NotAMember {
                id: id.value,
                members: ids.join(", "),
            };
            self.fault(id.origin.clone(), problem);
        }
        this
    }

    /// Warns when what other machines are told can hardly be what this node
    /// listens on.
    fn check_reachable(
        &mut self,
        key: &'static Key,
        listen: Option<&Located<SocketAddr>>,
        advertised: &Address,
    ) {
        let Some(listen) = listen else { return };
        let (address, told) = (listen.value.to_string(), advertised.to_string());
        if listen.value.ip().is_loopback() && !advertised.is_loopback() {
            let problem = Problem::LoopbackUnreachable {
                key: key.path,
                listen: address,
                advertised: told,
            };
            self.fault(self.place_of(key, listen), problem);
        } else if listen.value.port() != 0 && listen.value.port() != advertised.port() {
            let problem = Problem::PortDiffers {
                key: key.path,
                listen: address,
                advertised: told,
            };
            self.fault(self.place_of(key, listen), problem);
        }
    }

    fn place_of<T>(&self, key: &Key, value: &Located<T>) -> Origin {
        match &value.origin {
            Origin::Default => self.layers.place_for(key),
            origin => origin.clone(),
        }
    }
}

/// Of two values that do not go together, the place of one that somebody set.
fn set_one<T>(values: [&Located<T>; 2]) -> Origin {
    let [first, second] = values;
    match &first.origin {
        Origin::Default => second.origin.clone(),
        origin => origin.clone(),
    }
}

pub(super) fn wrong_type(key: &str, expected: &'static str, found: &Raw) -> Problem {
    Problem::WrongType {
        key: key.to_owned(),
        expected,
        found: match found {
            Raw::Word(word) => format!("{word:?}"),
            Raw::Integer(_) => "an integer".to_owned(),
            Raw::Text(text) => format!("the string {text:?}"),
            Raw::Array(_) => "an array".to_owned(),
            Raw::Table(_) => "a table".to_owned(),
            Raw::Other(name) => with_article(name),
        },
    }
}

fn missing_hint(key: &Key) -> &'static str {
    match key.path {
        "node.id" => "write this node's number, never used for another node of the cluster",
        "node.data_dir" => "write the directory this node alone keeps its data in",
        "cluster.name" => "write the name that all nodes of the cluster share",
        _ => "leave it out to use the default",
    }
}
