//! A whole node: its storage, its ports, its partitions, from start to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::ApplyError;
use huntlog_storage::{FatalError, OpenError, OpenReport, OpenStep, Options, Storage};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin_http::{AdminServer, Health, TroubleKind};
use crate::api::{NodeContext, NodeInfo};
use crate::cluster::{
    DiffersFromLeader, FollowMembersError, FormationError, IdentityFault, MemberChanger,
    NodeIdentity, PeerState, RemovedFromCluster, StaleDirectory, exchange_hellos, finish_forming,
    follow_members, form, load_or_mint, raise_to_founding_level, refuse_stale_directory,
    remember_peers,
};
use crate::config::{BindError, Config, DataDirError, Port};
use crate::host::{Host, HostStorageError, Machine};
use crate::limits;
use crate::listeners::{GrpcServers, ListenError};
use crate::partition::{
    LogClock, Partition, PartitionParts, PartitionStartError, QuorumContradicts, Retention,
    SnapshotEvery,
};
use crate::raft::{MachineRules, MemberNode, NodeId, Peers, RaftTimings};
use crate::storage_metrics::StorageObserver;
use crate::telemetry::Metrics;
use watchers::{
    become_ready, sample, watch_clock, watch_digests, watch_disk, watch_raft, watch_tasks,
};

mod scrub;
#[cfg(test)]
mod tests;
mod watchers;

/// The only partition of this release. Its number is in peer messages, storage
/// keys and requests, so that there can be more.
const PARTITIONS: [u32; 1] = [0];

/// Why a node does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A port can not be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The listeners could not be set up.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory can not be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is stored can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The directory is another node's.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// The cluster can not be formed.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The directory is older than what peers remember.
    #[error(transparent)]
    Stale(#[from] StaleDirectory),
    /// A partition does not start.
    #[error(transparent)]
    Partition(#[from] PartitionStartError),
    /// Storage failed while running.
    #[error("storage failed, the node stops: {0}")]
    Storage(#[from] FatalError),
    /// Raft stopped while running.
    #[error("partition {partition} stopped, and the node with it: {reason}; restart the node")]
    Raft {
        /// The partition.
        partition: u32,
        /// What openraft says.
        reason: String,
    },
    /// An entry of the log can not be applied to this node's state.
    #[error("partition {partition} can not go on: {source}")]
    Apply {
        /// The partition.
        partition: u32,
        /// Why.
        source: ApplyError,
    },
    /// This node's state differs from its leader's.
    #[error(transparent)]
    Differs(#[from] DiffersFromLeader),
    /// This node's state differs from that of a quorum.
    #[error(transparent)]
    Contradicted(#[from] QuorumContradicts),
    /// The cluster has removed this node.
    #[error(transparent)]
    Removed(#[from] RemovedFromCluster),
    /// A part of the node panicked.
    #[error("a part of the node panicked: {0}; restart the node")]
    Panicked(String),
}

impl From<HostStorageError> for NodeError {
    fn from(error: HostStorageError) -> Self {
        match error {
            HostStorageError::DataDir(error) => error.into(),
            HostStorageError::Open(error) => error.into(),
        }
    }
}

impl From<FollowMembersError> for NodeError {
    fn from(error: FollowMembersError) -> Self {
        match error {
            FollowMembersError::Removed(removed) => removed.into(),
            FollowMembersError::Identity(fault) => fault.into(),
        }
    }
}

/// A running node.
pub struct Node {
    health: Health,
    context: Arc<NodeContext>,
    partitions: Arc<Mutex<Vec<Arc<Partition>>>>,
    storage: Storage,
    /// Serving, bringing up, watching.
    tasks: JoinSet<Result<(), NodeError>>,
    fatal: watch::Receiver<Option<FatalError>>,
    stop: watch::Sender<bool>,
    servers: GrpcServers,
}

/// What bringing a node up works on.
struct BringUp {
    host: Arc<dyn Host>,
    config: Config,
    identity: Arc<NodeIdentity>,
    peers: Arc<Peers>,
    peer_state: Arc<PeerState>,
    storage: Storage,
    health: Health,
    context: Arc<NodeContext>,
    metrics: Arc<Metrics>,
    clock: Arc<LogClock>,
    partitions: Arc<Mutex<Vec<Arc<Partition>>>>,
    changer: Arc<MemberChanger>,
}

impl Node {
    /// Takes the ports, opens the data directory and begins to serve; forming
    /// the cluster, recovering and catching up go on behind it, and readiness
    /// tells how far they are.
    ///
    /// # Errors
    /// When a port, the directory or what is in it can not be used.
    pub async fn start(config: Config, metrics: Arc<Metrics>) -> Result<Self, NodeError> {
        Self::start_on(Arc::new(Machine), config, metrics).await
    }

    /// As [`Self::start`], on another machine than the one this process runs on.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(
        host: Arc<dyn Host>,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Result<Self, NodeError> {
        let health = Health::starting();
        let client_port = host.bind(&config.listen, Port::Client).await?;
        let peer_port = host.bind(&config.listen, Port::Peer).await?;
        let admin_port = host.bind(&config.listen, Port::Admin).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let admin = AdminServer::new(admin_port, metrics.clone(), health.clone());
        tasks.spawn({
            let stopped = stopped.clone();
            async move {
                admin.serve(until(stopped)).await;
                Ok(())
            }
        });

        let (fatal_seen, fatal) = watch::channel(None);
        let storage = open_storage(host.clone(), &config, &metrics, fatal_seen).await?;
        let identity = Arc::new(load_or_mint(
            &storage,
            &config.cluster.name,
            config.node.id,
            host.feature_levels(),
        )?);
        metrics
            .node
            .feature_level_max
            .set(host.feature_levels().max.into());
        let peers = Arc::new(Peers::new(identity.local(), host.dialer()));
        let context = Arc::new(NodeContext::new(
            NodeInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            peers.clone(),
            metrics.clone(),
            health.clone(),
        ));
        let peer_state = Arc::new(PeerState::new(
            identity.clone(),
            peers.clone(),
            stopped.clone(),
        ));
        let changer = Arc::new(MemberChanger::new(peer_state.clone()));
        context.administer(changer.clone());
        let servers = GrpcServers::start(
            client_port,
            peer_port,
            context.clone(),
            peer_state.clone(),
            stopped,
            &mut tasks,
        )?;

        let partitions = Arc::<Mutex<Vec<Arc<Partition>>>>::default();
        tasks.spawn(
            BringUp {
                host,
                clock: Arc::new(LogClock::new(config.node.id)),
                config,
                identity,
                peers,
                peer_state,
                storage: storage.clone(),
                health: health.clone(),
                context: context.clone(),
                metrics,
                partitions: partitions.clone(),
                changer,
            }
            .run(),
        );
        Ok(Self {
            health,
            context,
            partitions,
            storage,
            tasks,
            fatal,
            stop,
            servers,
        })
    }

    /// Waits until the node fails. Does not end while all is well.
    pub async fn failed(&mut self) -> NodeError {
        let error = loop {
            tokio::select! {
                biased;
                changed = self.fatal.changed() => {
                    let fatal = self.fatal.borrow_and_update().clone();
                    if let (Ok(()), Some(fatal)) = (changed, fatal) {
                        break NodeError::Storage(fatal);
                    }
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break error,
                    Err(panic) => break NodeError::Panicked(panic.to_string()),
                },
            }
        };
        self.health.fail(error.to_string());
        error
    }

    /// Stops in good order: refuses what is new, hands leadership over, answers
    /// what is in flight, and closes the storage.
    pub async fn shutdown(mut self) {
        self.context.drain();
        self.health
            .report(TroubleKind::Draining, None, "the node is stopping");
        let partitions = std::mem::take(&mut *self.partitions.lock());
        for partition in &partitions {
            partition.shutdown().await;
        }
        self.stop.send_replace(true);
        self.servers.drained().await;
        self.tasks.shutdown().await;
        drop(partitions);
        let storage = self.storage;
        match crate::blocking::spawn_blocking(move || storage.close()).await {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(error)) => tracing::error!(%error, "the storage did not close cleanly"),
            Err(error) => tracing::error!(%error, "closing the storage panicked"),
        }
    }
}

/// Completes once the node is told to stop.
pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    // The sender is gone only when the node is.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn open_storage(
    host: Arc<dyn Host>,
    config: &Config,
    metrics: &Arc<Metrics>,
    fatal_seen: watch::Sender<Option<FatalError>>,
) -> Result<Storage, NodeError> {
    let options = Options {
        metrics: Arc::new(StorageObserver::new(metrics.clone())),
        on_fatal: Some(Arc::new(move |error: &FatalError| {
            fatal_seen.send_replace(Some(error.clone()));
        })),
        on_progress: Some(Arc::new(log_progress)),
        tail_bytes: limits::TAIL_CACHE_BYTES,
        data_version_max: host.feature_levels().max,
        ..Options::default()
    };
    let node = config.node.clone();
    let opening = move || host.open_storage(&node, options);
    let (storage, report) = crate::blocking::spawn_blocking(opening)
        .await
        .map_err(|panic| NodeError::Panicked(panic.to_string()))??;
    log_report(&report);
    metrics.storage.segments.set(report.segments as u64);
    metrics.storage.segment_bytes.set(report.log_bytes);
    Ok(storage)
}

fn log_progress(step: OpenStep, done_bytes: u64, all_bytes: u64) {
    tracing::info!(?step, done_bytes, all_bytes, "opening the data directory");
}

fn log_report(report: &OpenReport) {
    if let Some(cut) = &report.cut {
        tracing::warn!(
            file = cut.file,
            position = cut.position,
            reason = cut.reason,
            "a torn tail was cut off; nothing in it was acknowledged"
        );
    }
    tracing::info!(
        fresh = report.fresh,
        segments = report.segments,
        log_bytes = report.log_bytes,
        frames_rewritten = report.frames_rewritten,
        index = ?report.index,
        seconds = report.took.as_secs_f64(),
        "the data directory is open"
    );
}

impl BringUp {
    async fn run(self) -> Result<(), NodeError> {
        let formed_before = self.identity.formed();
        let initial = initial_members(&self.config);
        if !formed_before {
            let waiting = if initial.is_empty() {
                "this node belongs to no cluster: waiting for `huntctl cluster init`, or for `huntctl member add` on a cluster"
            } else {
                "waiting for the initial members of the cluster"
            };
            tracing::info!("{waiting}");
            self.health.report(TroubleKind::Forming, None, waiting);
        }
        form(
            &self.identity,
            &self.peers,
            &initial,
            self.peer_state.adopted(),
            self.peer_state.known_otherwise(),
        )
        .await?;
        self.health.resolve(TroubleKind::Forming, None);
        if formed_before {
            refuse_stale_directory(&self.identity, &self.peers, &initial, &self.storage).await?;
        }

        let budget = self.context.append_budget().clone();
        let mut started = BTreeMap::new();
        for id in PARTITIONS {
            let parts = self.partition_parts(id, budget.clone());
            let partition = Partition::start(parts).await?;
            self.partitions.lock().push(partition.clone());
            started.insert(id, partition);
        }
        self.peer_state.serve(started.clone());
        self.context.serve(started.clone());
        for id in started.keys() {
            self.health.report(
                TroubleKind::CatchingUp,
                Some(*id),
                "what was committed before the start is not all applied yet",
            );
        }
        self.health.resolve(TroubleKind::Starting, None);

        let mut watchers = JoinSet::new();
        for partition in started.values() {
            watchers.spawn(become_ready(
                partition.clone(),
                self.identity.clone(),
                self.health.clone(),
            ));
            watchers.spawn(watch_raft(
                partition.clone(),
                self.peers.clone(),
                self.health.clone(),
            ));
            watchers.spawn(watch_digests(partition.clone(), self.peers.clone()));
            watchers.spawn(watch_tasks(partition.clone()));
            watchers.spawn({
                let memory = self.peer_state.memory().clone();
                let remembering = remember_peers(partition.clone(), memory);
                async {
                    remembering.await;
                    Ok(())
                }
            });
            watchers.spawn({
                let clocks = exchange_hellos(
                    self.identity.clone(),
                    self.peers.clone(),
                    partition.clone(),
                    self.clock.clone(),
                    self.metrics.clone(),
                );
                async { Err(clocks.await.into()) }
            });
            watchers.spawn({
                let following = follow_members(
                    self.identity.clone(),
                    self.peers.clone(),
                    self.peer_state.memory().clone(),
                    partition.clone(),
                );
                async { following.await.map_err(NodeError::from) }
            });
            watchers.spawn({
                let partition = partition.clone();
                async move {
                    partition.stay_aside().await;
                    Ok(())
                }
            });
            watchers.spawn({
                let partition = partition.clone();
                async move {
                    partition.succeed_leaders().await;
                    Ok(())
                }
            });
            watchers.spawn({
                let raising = raise_to_founding_level(self.changer.clone(), partition.clone());
                async {
                    raising.await;
                    Ok(())
                }
            });
            watchers.spawn({
                let finishing = self.changer.clone().finish_changes(partition.clone());
                async {
                    finishing.await;
                    Ok(())
                }
            });
        }
        watchers.spawn(watch_clock(self.clock.clone(), self.health.clone()));
        watchers.spawn(sample(budget, self.health.clone(), self.metrics.clone()));
        watchers.spawn(watch_disk(self.storage.clone(), self.health.clone()));
        watchers.spawn(scrub::scrub(self.storage.clone(), self.metrics.clone()));
        watchers.spawn(scrub::watch_segments(
            self.storage.clone(),
            self.health.clone(),
            self.metrics.clone(),
        ));
        watchers.spawn({
            let forming = finish_forming(
                self.identity.clone(),
                self.peers.clone(),
                started.into_values().collect(),
            );
            async { forming.await.map_err(NodeError::from) }
        });
        while let Some(ended) = watchers.join_next().await {
            ended.map_err(|panic| NodeError::Panicked(panic.to_string()))??;
        }
        Ok(())
    }

    fn partition_parts(&self, id: u32, append_budget: Arc<Semaphore>) -> PartitionParts {
        let millis = |duration: Duration| {
            u64::try_from(duration.as_millis()).expect("validated timers are short")
        };
        PartitionParts {
            id,
            node_id: self.config.node.id,
            cluster_name: self.config.cluster.name.clone(),
            timings: RaftTimings {
                heartbeat_ms: millis(self.config.raft.heartbeat),
                election_min_ms: millis(self.config.raft.election_min),
                election_max_ms: millis(self.config.raft.election_max),
            },
            snapshot_every: SnapshotEvery {
                bytes: self.config.snapshot.every_bytes,
                interval: self.config.snapshot.every,
            },
            rules: MachineRules {
                limits: self.host.machine_limits(),
                ignore_digests_through: self.config.raft.ignore_digests_through,
                levels: self.host.feature_levels(),
            },
            retention: Retention {
                max_age: self.config.retention.max_age,
                max_bytes: self.config.retention.max_bytes,
            },
            storage: self.storage.clone(),
            peers: self.peers.clone(),
            append_budget,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

fn initial_members(config: &Config) -> BTreeMap<NodeId, MemberNode> {
    config
        .cluster
        .initial_members
        .iter()
        .map(|member| {
            (
                member.id,
                MemberNode {
                    uuid: String::new(),
                    peer_address: member.peer_address.to_string(),
                    client_address: member.client_address.to_string(),
                    ..MemberNode::default()
                },
            )
        })
        .collect()
}
