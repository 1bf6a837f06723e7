//! What a node tells about itself: log lines and metrics.

pub use self::{
    labels::{ForwardResult, ProposalResult, Side, SnapshotKind},
    logs::{LogError, init_logs},
    measures::{Seconds, Sizes},
    metrics::{
        Metrics, NodeMetrics, PartitionMetrics, ProposerMetrics, ReplicaMetrics, StorageMetrics,
    },
    rpc::{Method, RpcMetrics},
};

mod labels;
mod logs;
mod measures;
mod metrics;
mod process;
mod rpc;
#[cfg(test)]
mod tests;
