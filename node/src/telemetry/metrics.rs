//! Every metric of a node: name, unit and help stand together in this file.
//!
//! The registry is a value, not a global, because several nodes live in one
//! process in tests and simulations. Handles are resolved once and kept by those
//! who observe; observing is then an atomic operation, or for a histogram a
//! short, uncontended lock.
//!
//! Names are `huntlog_<what>[_<unit>]`, counters end in `_total` (which the
//! encoder adds). All metrics of a partition carry the label `partition`.

use std::{fmt::Debug, hash::Hash, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    labels::{ForwardResult, ProposalResult, SnapshotKind},
    measures::{Seconds, Sizes},
    process::ProcessCollector,
    rpc::RpcMetrics,
};

/// A gauge of indexes, offsets and sizes.
type Level = Gauge<u64, AtomicU64>;
/// A gauge of a quantity that can be negative or fractional.
type Real = Gauge<f64, AtomicU64>;

/// Declares a set of metrics: the struct of their handles, and their
/// registration. With `labels`, each is a family, and the handles of one set of
/// labels are resolved together.
macro_rules! metric_set {
    (
        $(#[$doc:meta])*
        $set:ident {
            $( $field:ident: $metric:ty = $name:literal $(in $unit:expr)?, $help:literal; )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $set {
            $( #[doc = concat!($help, ".")] pub $field: $metric, )*
        }

        impl $set {
            fn register(registry: &mut Registry) -> Self {
                let set = Self::default();
                $( register(registry, $name, $help, unit!($($unit)?), set.$field.clone()); )*
                set
            }
        }
    };
    (
        $(#[$doc:meta])*
        $set:ident of $families:ident by $labels:ty {
            $( $field:ident: $metric:ty = $name:literal $(in $unit:expr)?, $help:literal; )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $set {
            $( #[doc = concat!($help, ".")] pub $field: $metric, )*
        }

        #[derive(Debug, Default)]
        struct $families {
            $( $field: Family<$labels, $metric>, )*
        }

        impl $families {
            fn register(registry: &mut Registry) -> Self {
                let families = Self::default();
                $( register(registry, $name, $help, unit!($($unit)?), families.$field.clone()); )*
                families
            }

            fn handles(&self, labels: &$labels) -> $set {
                $set { $( $field: self.$field.get_or_create_owned(labels), )* }
            }
        }
    };
}

macro_rules! unit {
    () => {
        None
    };
    ($unit:expr) => {
        Some($unit)
    };
}

fn register(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    metric: impl prometheus_client::registry::Metric,
) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

metric_set! {
    /// What belongs to the node as a whole.
    NodeMetrics {
        in_flight_bytes: Level = "in_flight" in Unit::Bytes,
            "Appends taken and not answered yet, at their cost";
        client_connections: Level = "client_connections",
            "Open connections on the client port";
        reads: Level = "reads",
            "Open Read streams";
        subscribers: Level = "subscribers",
            "Open Subscribe streams";
        subscribers_dropped: Counter = "subscribers_dropped",
            "Subscribers disconnected because they did not keep up";
        clock_skew_seconds: Real = "clock_skew" in Unit::Seconds,
            "This node's clock minus the median of the voters' clocks";
        feature_level_max: Level = "feature_level_max",
            "The highest feature level that this node's release reads";
        ready: Level = "ready",
            "1 while the node is ready to serve, else 0";
        log_warnings: Counter = "log_warnings",
            "Warnings logged";
        log_errors: Counter = "log_errors",
            "Errors logged";
    }
}

metric_set! {
    /// What belongs to the storage engine, which all partitions share.
    StorageMetrics {
        sync_seconds: Seconds = "storage_sync" in Unit::Seconds,
            "One fdatasync of the log";
        sync_bytes: Sizes = "storage_sync_written" in Unit::Bytes,
            "Log bytes made durable by one fdatasync";
        sync_writes: Sizes = "storage_sync_writes",
            "Writes (entries, votes, truncations) made durable by one fdatasync";
        queue_writes: Level = "storage_queue_writes",
            "Writes waiting for the log writer";
        segments: Level = "storage_segments",
            "Log segments on disk";
        segment_bytes: Level = "storage_segments" in Unit::Bytes,
            "Log segments on disk, by size";
        scrubbed_bytes: Counter = "storage_scrubbed" in Unit::Bytes,
            "Bytes of sealed segments read again to verify them";
        scrub_passes: Counter = "storage_scrub_passes",
            "Times all sealed segments were read again";
        damaged_segments: Level = "storage_damaged_segments",
            "Segments found damaged since the node started, by the scrub or by readers";
    }
}

/// The label of everything that belongs to a partition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

metric_set! {
    /// What the leader of a partition does to get batches into the log.
    ProposerMetrics of ProposerFamilies by PartitionLabel {
        queue_batches: Level = "proposer_queue_batches",
            "Batches waiting to be put into an entry";
        entry_bytes: Sizes = "entry" in Unit::Bytes,
            "Size of the entries proposed here";
        entry_events: Sizes = "entry_events",
            "Events of the entries proposed here";
        entry_batches: Sizes = "entry_batches",
            "Batches of the entries proposed here";
        queue_seconds: Seconds = "proposer_queue" in Unit::Seconds,
            "How long the oldest append of an entry waited to be proposed";
        commit_seconds: Seconds = "commit" in Unit::Seconds,
            "From the proposal of an entry here to its commitment by a quorum";
        append_seconds: Seconds = "append" in Unit::Seconds,
            "From taking an append here, as leader, to its outcome";
    }
}

metric_set! {
    /// What every replica of a partition knows of itself.
    ReplicaMetrics of ReplicaFamilies by PartitionLabel {
        term: Level = "term",
            "The Raft term";
        leader_id: Level = "leader_id",
            "The node that leads, 0 when none is known";
        is_leader: Level = "is_leader",
            "1 while this node leads, else 0";
        voters: Level = "voters",
            "Members that vote, in the newest membership here";
        learners: Level = "learners",
            "Members that receive the log and do not vote";
        leader_changes: Counter = "leader_changes",
            "Times this replica saw another leader than before";
        successions_begun: Counter = "successions_begun",
            "Times this replica asked for votes because its leader's connection broke";
        last_log_index: Level = "last_log_index",
            "The last entry of the log here";
        durable_log_index: Level = "durable_log_index",
            "The last entry that is synced to disk here";
        committed_log_index: Level = "committed_log_index",
            "The last entry known here to be committed";
        applied_log_index: Level = "applied_log_index",
            "The last entry applied here";
        snapshot_log_index: Level = "snapshot_log_index",
            "The last entry that the newest snapshot here covers";
        first_log_index: Level = "first_log_index",
            "The first entry of the history kept here";
        end_offset: Level = "end_offset",
            "Accepted events: one past the last offset applied here";
        apply_seconds: Seconds = "apply" in Unit::Seconds,
            "Applying one entry to the state machine";
        feature_level: Level = "feature_level",
            "The feature level in force, as far as the log is applied here";
        events_accepted: Counter = "events_accepted",
            "Events applied and accepted since the node started";
        sessions: Level = "sessions",
            "Sessions the partition knows";
        hunts: Level = "hunts",
            "Hunts the partition knows";
        snapshot_bytes: Level = "snapshot" in Unit::Bytes,
            "Size of the newest snapshot here";
        snapshot_build_seconds: Seconds = "snapshot_build" in Unit::Seconds,
            "Taking a snapshot, from the view of the state to its file on disk";
        digests_uncomparable: Counter = "digests_uncomparable",
            "Digests of the leader that are too old, or too new, to be compared here";
    }
}

/// A partition, and what became of something there.
type ResultLabels<V> = (PartitionLabel, [(&'static str, V); 1]);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PeerLabels {
    partition: u32,
    peer: u64,
}

/// The handles of one partition's metrics.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    partition: u32,
    /// Getting batches into the log, as leader.
    pub proposer: ProposerMetrics,
    /// The replica itself.
    pub replica: ReplicaMetrics,
    proposals: Vec<Counter>,
    forwards: Vec<Counter>,
    snapshots: Vec<Counter>,
    matched_log_index: Family<PeerLabels, Level>,
}

impl PartitionMetrics {
    /// Counts a batch by what became of it.
    pub fn proposal(&self, result: ProposalResult) -> &Counter {
        &self.proposals[result as usize]
    }

    /// Counts a request forwarded to this partition's leader.
    pub fn forward(&self, result: ForwardResult) -> &Counter {
        &self.forwards[result as usize]
    }

    /// Counts a snapshot by how it came to be here.
    pub fn snapshot(&self, kind: SnapshotKind) -> &Counter {
        &self.snapshots[kind as usize]
    }

    /// Tells, while this node leads, the last entry that `peer` is known to
    /// have.
    pub fn set_matched_log_index(&self, peer: u64, index: u64) {
        let partition = self.partition;
        self.matched_log_index
            .get_or_create(&PeerLabels { partition, peer })
            .set(index);
    }

    /// Forgets what `peer` has: this node leads no more, or the peer is no
    /// member any more.
    pub fn clear_matched_log_index(&self, peer: u64) {
        let partition = self.partition;
        self.matched_log_index
            .remove(&PeerLabels { partition, peer });
    }
}

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The node as a whole.
    pub node: NodeMetrics,
    /// The storage engine.
    pub storage: StorageMetrics,
    /// Requests, on both ports.
    pub rpc: RpcMetrics,
    proposers: ProposerFamilies,
    replicas: ReplicaFamilies,
    proposals: Family<ResultLabels<ProposalResult>, Counter>,
    forwards: Family<ResultLabels<ForwardResult>, Counter>,
    snapshots: Family<ResultLabels<SnapshotKind>, Counter>,
    matched_log_index: Family<PeerLabels, Level>,
}

impl Metrics {
    /// Registers every metric. `version`, `node_id` and `cluster_name` become
    /// the labels of `huntlog_build_info`.
    pub fn new(version: &str, node_id: u64, cluster_name: &str) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(ProcessCollector));
        let registry = root.sub_registry_with_prefix("huntlog");
        let build = Info::new(vec![
            ("version", version.to_owned()),
            ("node_id", node_id.to_string()),
            ("cluster", cluster_name.to_owned()),
        ]);
        registry.register("build", "The release that runs, and as which node", build);
        let node = NodeMetrics::register(registry);
        let storage = StorageMetrics::register(registry);
        let rpc = RpcMetrics::register(registry);
        let proposers = ProposerFamilies::register(registry);
        let replicas = ReplicaFamilies::register(registry);
        let proposals = Family::default();
        registry.register(
            "proposals",
            "Batches proposed here, by what became of them",
            proposals.clone(),
        );
        let forwards = Family::default();
        registry.register(
            "forwarded_requests",
            "Requests forwarded to the leader, by what became of them",
            forwards.clone(),
        );
        let snapshots = Family::default();
        registry.register(
            "snapshots",
            "Snapshots, by how they came to be here",
            snapshots.clone(),
        );
        let matched_log_index = Family::default();
        registry.register(
            "peer_matched_log_index",
            "The last entry a peer is known to have; told by the leader",
            matched_log_index.clone(),
        );
        Self {
            registry: root,
            node,
            storage,
            rpc,
            proposers,
            replicas,
            proposals,
            forwards,
            snapshots,
            matched_log_index,
        }
    }

    /// The handles of one partition's metrics, at 0 from now on.
    pub fn partition(&self, partition: u32) -> PartitionMetrics {
        PartitionMetrics {
            partition,
            proposer: self.proposers.handles(&PartitionLabel { partition }),
            replica: self.replicas.handles(&PartitionLabel { partition }),
            proposals: counters(&self.proposals, partition, ProposalResult::ALL),
            forwards: counters(&self.forwards, partition, ForwardResult::ALL),
            snapshots: counters(&self.snapshots, partition, SnapshotKind::ALL),
            matched_log_index: self.matched_log_index.clone(),
        }
    }

    /// All metrics in the OpenMetrics text format, version 1.0.0.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }

    /// The content type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/// One counter for each value of a label, at the value's position.
fn counters<V>(
    family: &Family<ResultLabels<V>, Counter>,
    partition: u32,
    values: &[V],
) -> Vec<Counter>
where
    V: EncodeLabelValue + Copy + Debug + Hash + Eq + Send + Sync + 'static,
{
    values
        .iter()
        .map(|&value| {
            let labels = (PartitionLabel { partition }, [("result", value)]);
            family.get_or_create_owned(&labels)
        })
        .collect()
}
