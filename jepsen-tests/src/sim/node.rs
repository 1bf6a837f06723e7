//! A node of the simulated cluster: huntlog's own, on a simulated machine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_machine::{LevelRange, Limits};
use huntlog_node::config::{
    BindError, ClusterConfig, Config, ListenConfig, LogConfig, LogFormat, Member, NodeConfig,
    Port as NodePort, RaftConfig, RetentionConfig, SnapshotConfig,
};
use huntlog_node::host::{ByteStream, Dial, Host, HostStorageError, Listen};
use huntlog_node::server::Node;
use huntlog_node::telemetry::Metrics;
use huntlog_storage::{OpenReport, Options, Storage};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::disk::Disk;
use super::middlebox::Middlebox;
use super::net::{Net, Port, Socket};

/// Clients' port.
pub(super) const CLIENT_PORT: u16 = 7650;
const PEER_PORT: u16 = 7651;
const ADMIN_PORT: u16 = 7652;

/// How all nodes of a world are configured.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) snapshot_bytes: u64,
    pub(super) snapshot_every: Duration,
    pub(super) retention_bytes: Option<u64>,
    /// The bounds of the machine.
    pub(super) limits: Limits,
    pub(super) raft: RaftConfig,
    /// Some nodes begin under a release that reads the first feature level alone.
    pub(super) mixed: bool,
}

impl Setup {
    /// Whether sessions are forgotten within a run.
    pub(super) fn expires_sessions(&self) -> bool {
        self.limits.session_idle_ms < Limits::default().session_idle_ms
    }

    /// Whether there can be fewer sessions than clients, which make room for each other
    /// then.
    pub(super) fn has_few_sessions(&self) -> bool {
        self.limits.max_sessions < Limits::default().max_sessions
    }

    /// How long a session must have been idle to be forgotten: where there can be
    /// too many of them, they make room for each other sooner.
    pub(super) fn forgotten_after_ms(&self) -> u64 {
        if self.has_few_sessions() {
            self.limits.evictable_idle_ms
        } else {
            self.limits.session_idle_ms
        }
    }
}

/// The address of the node `id`.
pub(super) fn node_ip(id: u64) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(id).expect("few nodes")])
}

/// Where clients reach the node `id`.
pub(super) fn client_address(id: u64) -> String {
    format!("{}:{CLIENT_PORT}", node_ip(id))
}

/// Where peers reach the node `id`.
pub(super) fn peer_address(id: u64) -> String {
    format!("{}:{PEER_PORT}", node_ip(id))
}

/// The configuration of the node `id`, with `initial` for its first members.
pub(super) fn config(id: u64, initial: &[u64], setup: &Setup) -> Config {
    let ip = node_ip(id);
    let address = |text: String| text.parse().expect("an address of a node");
    Config {
        node: NodeConfig {
            id,
            data_dir: PathBuf::from("/simulated"),
        },
        cluster: ClusterConfig {
            name: "simulated".to_owned(),
            initial_members: initial
                .iter()
                .map(|id| Member {
                    id: *id,
                    peer_address: address(peer_address(*id)),
                    client_address: address(client_address(*id)),
                })
                .collect(),
        },
        listen: ListenConfig {
            client: SocketAddr::new(ip, CLIENT_PORT),
            peer: SocketAddr::new(ip, PEER_PORT),
            admin: SocketAddr::new(ip, ADMIN_PORT),
        },
        raft: setup.raft.clone(),
        snapshot: SnapshotConfig {
            every_bytes: setup.snapshot_bytes,
            every: setup.snapshot_every,
        },
        retention: RetentionConfig {
            max_age: None,
            max_bytes: setup.retention_bytes,
        },
        log: LogConfig {
            level: "info".parse().expect("a level"),
            format: LogFormat::Human,
        },
    }
}

/// The machine that a node is given.
struct SimHost {
    ip: IpAddr,
    way: Way,
    disk: Disk,
    limits: Limits,
    levels: LevelRange,
}

impl Host for SimHost {
    fn bind<'a>(
        &'a self,
        listen: &'a ListenConfig,
        port: NodePort,
    ) -> BoxFuture<'a, Result<Box<dyn Listen>, BindError>> {
        let port: Box<dyn Listen> = Box::new(self.way.net.listen(listen.address(port)));
        Box::pin(async { Ok(port) })
    }

    fn dialer(&self) -> Option<Arc<dyn Dial>> {
        Some(Arc::new(SimDialer {
            ip: self.ip,
            way: self.way.clone(),
        }))
    }

    fn machine_limits(&self) -> Limits {
        self.limits.clone()
    }

    fn feature_levels(&self) -> LevelRange {
        self.levels
    }

    fn open_storage(
        &self,
        _node: &NodeConfig,
        options: Options,
    ) -> Result<(Storage, OpenReport), HostStorageError> {
        Ok(self.disk.open(options)?)
    }
}

impl Listen for Port {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async move {
            let (socket, peer) = self.accept().await;
            Ok((Box::new(socket) as Box<dyn ByteStream>, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address())
    }
}

struct SimDialer {
    ip: IpAddr,
    way: Way,
}

impl Dial for SimDialer {
    fn dial(&self, uri: http::Uri) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        let dialed = self.way.dial(self.ip, &uri);
        Box::pin(async move {
            Ok(match dialed.await? {
                Dialed::Straight(socket) => Box::new(socket) as Box<dyn ByteStream>,
                Dialed::Through(stream) => Box::new(stream),
            })
        })
    }
}

/// How machines reach each other: over the network, and perhaps through somebody
/// in the middle.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) net: Net,
    pub(super) middlebox: Option<Middlebox>,
}

/// A connection that was made.
pub(super) enum Dialed {
    Straight(Socket),
    Through(tokio::io::DuplexStream),
}

impl Way {
    /// A connection from the machine `from` to what `uri` names.
    pub(super) fn dial(
        &self,
        from: IpAddr,
        uri: &http::Uri,
    ) -> impl Future<Output = io::Result<Dialed>> + Send + 'static {
        let dialed = target(uri).map(|to| self.net.dial(from, to));
        let middlebox = self.middlebox.clone();
        async move {
            let socket = dialed?.await?;
            Ok(match middlebox {
                None => Dialed::Straight(socket),
                Some(middlebox) => Dialed::Through(middlebox.stand_between(socket)),
            })
        }
    }
}

/// The address that a URI names.
fn target(uri: &http::Uri) -> io::Result<SocketAddr> {
    uri.authority()
        .and_then(|authority| authority.as_str().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// What a process has counted, and is gone with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) snapshots_built: u64,
    pub(super) snapshots_installed: u64,
    /// Batches proposed that had been applied before, whoever had sent them again.
    pub(super) duplicates: u64,
}

impl Counted {
    /// By a node's metrics, in Prometheus' text format.
    pub(super) fn of(metrics: &str) -> Self {
        let mut counted = Self::default();
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let count = if name.starts_with("huntlog_snapshots_total") {
                if name.contains("\"installed\"") {
                    &mut counted.snapshots_installed
                } else {
                    &mut counted.snapshots_built
                }
            } else if name.starts_with("huntlog_proposals_total") && name.contains("\"duplicate\"")
            {
                &mut counted.duplicates
            } else {
                continue;
            };
            *count += value.parse::<u64>().unwrap_or(0);
        }
        counted
    }
}

/// How a node's process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was told to stop, and has.
    Stopped,
    /// It ended by itself, for this reason.
    Failed(String),
}

/// A started node, as its world sees it.
#[derive(Clone)]
pub(super) struct NodeHandle {
    stop: Arc<Notify>,
    ending: Arc<Mutex<Option<Ending>>>,
    pub(super) metrics: Arc<Metrics>,
}

impl NodeHandle {
    /// Tells it to stop in good order.
    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }

    /// How it has ended, if it has.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending.lock().clone()
    }
}

/// The process of a node, and the handle to it.
pub(super) fn node_process(
    config: Config,
    limits: Limits,
    levels: LevelRange,
    way: Way,
    disk: Disk,
) -> (impl Future<Output = ()> + Send + 'static, NodeHandle) {
    let handle = NodeHandle {
        stop: Arc::default(),
        ending: Arc::default(),
        metrics: Arc::new(Metrics::new(
            "simulated",
            config.node.id,
            &config.cluster.name,
        )),
    };
    let ours = handle.clone();
    let id = config.node.id;
    let main = async move {
        let host = Arc::new(SimHost {
            ip: node_ip(id),
            way,
            disk,
            limits,
            levels,
        });
        let ending = match Node::start_on(host, config, ours.metrics.clone()).await {
            Err(error) => Ending::Failed(error.to_string()),
            Ok(mut node) => {
                let failed = tokio::select! {
                    error = node.failed() => Some(error),
                    () = ours.stop.notified() => None,
                };
                match failed {
                    Some(error) => Ending::Failed(error.to_string()),
                    None => {
                        node.shutdown().await;
                        Ending::Stopped
                    }
                }
            }
        };
        *ours.ending.lock() = Some(ending);
    };
    (main, handle)
}

#[cfg(test)]
mod tests {
    use huntlog_node::telemetry::{ProposalResult, SnapshotKind};

    use super::*;

    #[test]
    fn what_a_node_counts_is_found() {
        let metrics = Metrics::new("simulated", 1, "simulated");
        let partition = metrics.partition(0);
        partition.snapshot(SnapshotKind::Built).inc_by(2);
        partition.snapshot(SnapshotKind::Installed).inc_by(3);
        partition.proposal(ProposalResult::Applied).inc_by(5);
        partition.proposal(ProposalResult::Duplicate).inc_by(7);
        let counted = Counted {
            snapshots_built: 2,
            snapshots_installed: 3,
            duplicates: 7,
        };
        assert_eq!(Counted::of(&metrics.encode()), counted);
    }
}
