//! The end of a run: after healing, the cluster has to live, to agree, and to
//! have said nothing unexpected.

use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use huntlog_client::event;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::Plan;
use super::excuses::Excuses;
use super::stage::{NodeClient, Stage};
use super::workload::{accepted, definition};
use crate::cluster::Cluster;
use crate::node::NodeProcess;

/// After healing, this is how long the cluster has to be whole again.
const LIVE_LIMIT: Duration = Duration::from_secs(60);
/// And this is how long reading everything may take at least.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// Nodes that are whole agree at once.
const AGREE_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts to append.
const PAUSE: Duration = Duration::from_millis(100);
/// Clients or keys that are named; the others are counted.
const NAMED: usize = 10;
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
    /// A node refused without saying what its client has to know (I10), or its answer
    /// breaks the contract.
    Answer(String),
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
            Self::Answer(what) => write!(f, "an answer: {what}"),
            Self::Harness(what) => write!(f, "the harness: {what}"),
        }
    }
}

/// By when, after healing, what has to have come about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// The cluster is whole again, and every client has ended what it had begun.
    pub(super) live: Instant,
    /// Everything is read.
    pub(super) read: Instant,
}

impl Deadlines {
    /// Of a run that is healed now.
    pub(super) fn from_now(plan: &Plan) -> Self {
        let live = Instant::now() + LIVE_LIMIT;
        Self {
            live,
            // A long run has much to read.
            read: live + READ_LIMIT.max(plan.time),
        }
    }
}

/// Names some of many.
pub(super) fn names(all: &[String]) -> String {
    let (named, more) = all.split_at(all.len().min(NAMED));
    let named = named.join(", ");
    match more.len() {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Until the deadline every node is ready, and acknowledges an append by a client
/// that knows this node alone.
pub(super) async fn live(stage: &Stage, cluster: &Cluster, deadline: Instant) -> Vec<Finding> {
    let nodes = stage.nodes();
    let appends = nodes.iter().map(|node| appends(stage, node, deadline));
    let left = deadline.saturating_duration_since(Instant::now());
    let (ready, appended) = tokio::join!(cluster.wait_ready_within(left), join_all(appends));
    let ready = ready.err().map(|error| error.to_string());
    let wrong = ready.into_iter().chain(appended.into_iter().flatten());
    wrong.map(Finding::NotLive).collect()
}

/// Why the node acknowledges no append, if it does not.
async fn appends(stage: &Stage, node: &NodeClient, deadline: Instant) -> Option<String> {
    let mut last = "it does not answer".to_owned();
    for attempt in 0_u32.. {
        let name = format!("after-healing-{}-{attempt}", node.id);
        match timeout_at(deadline, append(stage, node, &name)).await {
            Ok(Ok(())) => return None,
            Ok(Err(why)) => last = why,
            Err(_) => break,
        }
        sleep(PAUSE).await;
    }
    Some(format!(
        "after healing, no append through node {} is acknowledged: {last}",
        node.id
    ))
}

/// Appends the creation of a hunt, in a session of the same name.
async fn append(stage: &Stage, node: &NodeClient, name: &str) -> Result<(), String> {
    let opened = stage.heard_call(node.client.session(name).await);
    let session = opened.map_err(|error| error.to_string())?;
    let created = vec![event::hunt_created(name, definition())];
    let answer = match session.append_batch(created).await {
        Ok(ticket) => ticket.await,
        Err(error) => Err(error),
    };
    let appended = stage
        .heard_append(answer)
        .map_err(|error| error.to_string())?;
    match accepted(appended.outcomes.as_ref()) {
        Some(_) => Ok(()),
        None => Err(format!("answered {:?}", appended.outcomes)),
    }
}

/// Until the deadline every node has applied the same.
pub(super) async fn agreed(cluster: &Cluster, deadline: Instant) -> Vec<Finding> {
    // However late it is, they are asked.
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(AGREE_LIMIT);
    match cluster.settled_digests_within(left).await {
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
    let mut excuses = excuses.of_log(id);
    let unexpected = log.lines().filter(|line| excuses.is_unexpected(line));
    let lines = unexpected
        .take(LINES)
        .map(|line| Finding::UnexpectedError(format!("node {id}: {line}")));
    findings.extend(lines);
    findings
}
