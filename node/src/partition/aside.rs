//! Nodes that an operator has taken out of service: they replicate and vote,
//! and lead only if nobody else can.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{AdminError, Leadership, Partition};
use crate::limits;
use crate::raft::NodeId;
use openraft::async_runtime::WatchReceiver as _;

/// Who stands aside, as far as this node knows.
#[derive(Debug, Default)]
pub(super) struct Aside {
    own: AtomicBool,
    others: Mutex<BTreeSet<NodeId>>,
}

impl Aside {
    pub(super) fn others(&self) -> BTreeSet<NodeId> {
        self.others.lock().clone()
    }
}

impl Partition {
    /// Whether this node stands aside.
    pub fn is_aside(&self) -> bool {
        self.aside.own.load(Ordering::Relaxed)
    }

    /// Takes note of what another node says of itself.
    pub fn note_aside(&self, node: NodeId, aside: bool) {
        let mut others = self.aside.others.lock();
        if aside {
            others.insert(node);
        } else {
            others.remove(&node);
        }
    }

    /// Hands leadership over, if this node has it, and does not stand for
    /// election any more.
    ///
    /// # Errors
    /// When nobody takes leadership over: everything is then as before.
    pub async fn step_aside(&self) -> Result<(), AdminError> {
        self.set_aside(true);
        match self.transfer_leader(None).await {
            Ok(_) | Err(AdminError::NotLeader(_)) => Ok(()),
            Err(error) => {
                self.set_aside(false);
                Err(error)
            }
        }
    }

    /// Ends what [`Self::step_aside`] began.
    pub fn step_back(&self) {
        self.set_aside(false);
    }

    fn set_aside(&self, aside: bool) {
        self.aside.own.store(aside, Ordering::Relaxed);
        self.raft.runtime_config().elect(!aside);
    }

    /// Hands leadership on whenever another node has handed it to this one while
    /// it stands aside: that one had not heard of it yet. Ends with Raft.
    pub async fn stay_aside(&self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            if self.is_aside() && self.leadership() == Leadership::Local {
                if let Err(error) = self.transfer_leader(None).await {
                    tracing::warn!(
                        partition = self.id,
                        %error,
                        "this node is drained, and leads since nobody else takes over"
                    );
                }
                tokio::time::sleep(limits::RETRY_DELAY_UNAVAILABLE).await;
            } else if metrics.changed().await.is_err() {
                return;
            }
        }
    }
}
