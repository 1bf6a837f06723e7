//! What this node remembers of the others, for as long as it runs.
//!
//! A node that starts asks its peers what they remember of it, and refuses to
//! run on a directory that has less: it would be an older copy. So that a
//! change of leader does not wipe the memory, it is kept apart from Raft's own
//! view, which knows only the present term.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use huntlog_proto::peer;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;

use crate::partition::Partition;
use crate::raft::{LogId, MemberNode, NodeId, Vote, log_id_to_proto, vote_to_proto};

/// How often a leader notes what its followers have.
const NOTE_INTERVAL: Duration = Duration::from_millis(100);

/// What is known of one node in one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Committed, and acknowledged by the node: no later leader cuts it off.
    log_id: Option<LogId>,
    /// The highest vote that the node must have stored.
    vote: Option<Vote>,
}

impl Known {
    fn note_vote(&mut self, vote: Vote) {
        // Committed votes are totally ordered.
        if self.vote.is_none_or(|known| known < vote) {
            self.vote = Some(vote);
        }
    }
}

/// What is remembered, by partition and node.
#[derive(Default)]
pub struct PeerMemory {
    known: Mutex<BTreeMap<(u32, NodeId), Known>>,
}

impl PeerMemory {
    /// What is remembered of `node`.
    pub(super) fn of(&self, node: NodeId) -> Vec<peer::Remembered> {
        self.known
            .lock()
            .iter()
            .filter(|((_, id), _)| *id == node)
            .map(|((partition, _), known)| peer::Remembered {
                partition: *partition,
                log_id: known.log_id.as_ref().map(log_id_to_proto),
                vote: known.vote.as_ref().map(vote_to_proto),
            })
            .collect()
    }

    /// Forgets those who are no members of `partition` any more.
    pub(super) fn keep_only(&self, partition: u32, members: &BTreeMap<NodeId, MemberNode>) {
        self.known
            .lock()
            .retain(|(of, id), _| *of != partition || members.contains_key(id));
    }

    fn note(&self, partition: &Partition) {
        let metrics = partition.raft().metrics();
        let metrics = metrics.borrow_watched();
        let mut known = self.known.lock();
        // Whoever leads had stored its own vote before it led.
        if metrics.vote.committed {
            let leader = metrics.vote.leader_id.node_id;
            let known = known.entry((partition.id(), leader)).or_default();
            known.note_vote(metrics.vote);
        }
        for (node, matched) in metrics.replication.iter().flatten() {
            let Some(matched) = *matched else { continue };
            let known = known.entry((partition.id(), *node)).or_default();
            // Whoever acknowledged entries of this leader has stored its vote.
            known.note_vote(metrics.vote);
            let certain = metrics
                .local_committed
                .map(|committed| committed.min(matched));
            known.log_id = known.log_id.max(certain);
        }
    }
}

/// Takes note of what the members of `partition` have, again and again.
pub async fn remember_peers(partition: Arc<Partition>, memory: Arc<PeerMemory>) {
    let mut server = partition.raft().server_metrics();
    loop {
        memory.note(&partition);
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(NOTE_INTERVAL) => {}
        }
    }
}
