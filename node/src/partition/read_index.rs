//! Linearizable reads: one question to the leader serves all who wait.

use std::sync::Arc;

use huntlog_planted::{Bug, is_planted};
use huntlog_proto::peer;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::limits;
use crate::raft::{NodeId, PeerRaft, Peers, Purpose, Raft};

/// Why a read can not be made linearizable now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadIndexError {
    /// Nobody is known to lead.
    #[error("no leader is known; retry, or ask for a stale read")]
    NoLeader,
    /// The leader did not answer, or does not lead any more.
    #[error("the leader gave no read index: {0}; retry, or ask for a stale read")]
    Leader(String),
    /// The node did not apply the log up to the read index in time.
    #[error(
        "this node has applied the log up to {applied} and the read needs {wanted}; retry, or ask another node"
    )]
    Behind {
        /// The last index applied here.
        applied: u64,
        /// The read index.
        wanted: u64,
    },
    /// Too many wait already.
    #[error("too many reads wait for the leader; retry later, or ask for a stale read")]
    Crowded,
    /// The node is shutting down.
    #[error("this node is shutting down; ask another")]
    Draining,
}

type Answer = Result<u64, ReadIndexError>;

/// Collects those who wait for a read index.
#[derive(Clone, Default)]
pub struct ReadIndex {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    callers: Vec<oneshot::Sender<Answer>>,
    closed: bool,
}

impl ReadIndex {
    /// A log index confirmed by the leader after this call began: whoever has
    /// applied it sees everything acknowledged before the call.
    ///
    /// # Errors
    /// When no leader confirms one.
    pub async fn get(&self) -> Answer {
        let (answer, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.closed {
                return Err(ReadIndexError::Draining);
            }
            if waiting.callers.len() >= limits::READ_INDEX_WAITERS_MAX {
                return Err(ReadIndexError::Crowded);
            }
            waiting.callers.push(answer);
        }
        self.shared.wake.notify_one();
        receiver.await.unwrap_or(Err(ReadIndexError::Draining))
    }

    /// Ends [`Self::run`]; those who wait, and come later, get
    /// [`ReadIndexError::Draining`].
    pub fn close(&self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.closed = true;
        waiting.callers.clear();
        drop(waiting);
        self.shared.wake.notify_one();
    }

    /// Asks by `ask` for as long as somebody waits; who comes while a question
    /// is under way waits for the next, since that one began too early for
    /// them.
    pub(super) async fn run<F>(self, ask: impl Fn() -> F)
    where
        F: Future<Output = Answer>,
    {
        loop {
            let wake = self.shared.wake.notified();
            let callers = {
                let mut waiting = self.shared.waiting.lock();
                if waiting.closed {
                    return;
                }
                std::mem::take(&mut waiting.callers)
            };
            if callers.is_empty() {
                wake.await;
                continue;
            }
            let limit = limits::READ_INDEX_TIMEOUT;
            let answer = tokio::time::timeout(limit, ask())
                .await
                .unwrap_or_else(|_| {
                    Err(ReadIndexError::Leader(format!(
                        "no answer within {} ms",
                        limit.as_millis()
                    )))
                });
            for caller in callers {
                // A caller that went away does not want to know.
                let _ = caller.send(answer.clone());
            }
        }
    }
}

/// Asks the leader for its read index, wherever it is.
#[derive(Clone)]
pub(super) struct Asker {
    pub peer_raft: PeerRaft,
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub partition: u32,
    pub node_id: NodeId,
}

impl Asker {
    pub(super) async fn ask(self) -> Answer {
        if is_planted(Bug::NoReadIndex) {
            return Ok(0);
        }
        let (leader, node) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader.ok_or(ReadIndexError::NoLeader)?;
            let node = metrics.membership_config.get_node(&leader).cloned();
            (leader, node.ok_or(ReadIndexError::NoLeader)?)
        };
        let response = if leader == self.node_id {
            self.peer_raft.read_index().await
        } else {
            let request = peer::ReadIndexRequest {
                header: Some(self.peers.header(leader, &node)),
                partition: self.partition,
            };
            let mut client = self
                .peers
                .client(&node.peer_address, Purpose::Control)
                .map_err(|error| ReadIndexError::Leader(error.to_string()))?;
            client
                .read_index(request)
                .await
                .map(tonic::Response::into_inner)
        };
        let response = response.map_err(|status| {
            tracing::debug!(leader, message = status.message(), "no read index");
            ReadIndexError::Leader(obstacle(leader, &status))
        })?;
        let log_id = response
            .read_log_id
            .ok_or_else(|| ReadIndexError::Leader("its answer names no log id".to_owned()))?;
        Ok(log_id.index)
    }
}

/// What stands in the way, in this project's words: Raft's own speak of its
/// insides.
fn obstacle(leader: NodeId, status: &tonic::Status) -> String {
    let transport = std::error::Error::source(status).is_some();
    match status.code() {
        _ if transport => format!("node {leader} was not reached: {}", status.message()),
        tonic::Code::FailedPrecondition => status.message().to_owned(),
        _ => format!(
            "node {leader} could not confirm that it still leads: too few voters answer it, or another was elected"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_raft_says_of_its_insides_stays_inside() {
        let inner = "no read index: not enough for a quorum, cluster: {voters:[{2:MemberNode { uuid: .. }}]}; retry";
        let words = obstacle(2, &tonic::Status::unavailable(inner));
        assert!(words.starts_with("node 2 could not confirm"), "{words}");
        assert!(!words.contains("MemberNode"), "{words}");
        let meant = "the request is for node 2 (a), this is node 3 (b)";
        let words = obstacle(2, &tonic::Status::failed_precondition(meant));
        assert_eq!(words, meant);
    }
}
