//! The end of a run: after healing, the cluster has to live, to agree, and to
//! have said nothing unexpected.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::excuses::Excuses;
use super::stage::Stage;
use crate::cluster::Cluster;
use crate::node::NodeProcess;

/// After healing, this is how long the cluster has to be whole again.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Unexpected lines of one node that are reported; the first ones tell.
const LINES: usize = 5;

/// Something that is wrong beside what the history shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "what", rename_all = "kebab-case")]
pub enum Finding {
    /// After healing, something did not come about in time.
    NotLive(String),
    /// Nodes differ in what they have applied (I7).
    Diverged(String),
    /// A node said something at level ERROR that no fault explains.
    UnexpectedError(String),
    /// A node ended in a way that no fault explains.
    Ended(String),
    /// Something was taken in, or passed over, that has to be refused (I12).
    Accepted(String),
    /// The harness did not do its work.
    Harness(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLive(what) => write!(f, "not live: {what}"),
            Self::Diverged(what) => write!(f, "I7 deterministic: {what}"),
            Self::UnexpectedError(what) => write!(f, "unexpected error: {what}"),
            Self::Ended(what) => write!(f, "ended by itself: {what}"),
            Self::Accepted(what) => write!(f, "I12 loud: {what}"),
            Self::Harness(what) => write!(f, "the harness: {what}"),
        }
    }
}

/// Within the deadline every node is ready and an append is acknowledged.
pub(super) async fn live(stage: &Stage, cluster: &Cluster) -> Vec<Finding> {
    let ready = cluster.wait_within(DEADLINE, "every node being ready", async || {
        for node in cluster.nodes() {
            let status = cluster.status(node.spec().id).await?;
            if status.partitions.is_empty() || status.partitions.iter().any(|p| !p.ready) {
                return None;
            }
        }
        Some(())
    });
    let ready = ready.await;
    let opened = tokio::time::timeout(DEADLINE, stage.client.session("after-healing"));
    let mut findings = Vec::new();
    if let Err(error) = ready {
        findings.push(Finding::NotLive(error.to_string()));
    }
    match opened.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => findings.push(Finding::NotLive(format!("opening a session: {error}"))),
        Err(_) => findings.push(Finding::NotLive(
            "opening a session takes too long".to_owned(),
        )),
    }
    findings
}

/// Every node has applied the same.
pub(super) async fn agreed(cluster: &Cluster) -> Vec<Finding> {
    match cluster.settled_digests().await {
        Ok((_, digests)) if digests.windows(2).all(|pair| pair[0] == pair[1]) => Vec::new(),
        Ok((index, _)) => vec![Finding::Diverged(format!(
            "the nodes' digests differ at log index {index}"
        ))],
        Err(error) => vec![Finding::NotLive(error.to_string())],
    }
}

/// How the node has ended by itself, and what it said at level ERROR, unless
/// something explains it.
pub(super) fn loud(node: &mut NodeProcess, excuses: &Excuses) -> Vec<Finding> {
    let id = node.spec().id;
    let mut findings = Vec::new();
    if let Some(status) = node.take_own_end()
        && !excuses.explain_end(id, status)
    {
        findings.push(Finding::Ended(format!("node {id}: {status}")));
    }
    let log = node.log();
    let unexpected = log.lines().filter(|line| excuses.is_unexpected(id, line));
    let lines = unexpected
        .take(LINES)
        .map(|line| Finding::UnexpectedError(format!("node {id}: {line}")));
    findings.extend(lines);
    findings
}
