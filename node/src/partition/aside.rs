//! Nodes that an operator has taken out of service: they replicate and vote,
//! and lead only while nobody else can.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{AdminError, Leadership, Partition};
use crate::limits;
use crate::raft::NodeId;

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

    /// Everyone who stands aside, as far as this node knows.
    pub fn those_aside(&self) -> BTreeSet<NodeId> {
        let mut aside = self.aside.others();
        if self.is_aside() {
            aside.insert(self.node_id);
        }
        aside
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

    /// Hands leadership to one of `successors`, if this node has it, and does not
    /// stand for election any more while another leads.
    ///
    /// # Errors
    /// When nobody takes leadership over: everything is then as before.
    pub async fn step_aside(&self, successors: &BTreeSet<NodeId>) -> Result<(), AdminError> {
        self.set_aside(true);
        match self.transfer_leader(successors).await {
            // Whoever leads now, it is not this node.
            Ok(_) | Err(AdminError::NotLeader(_) | AdminError::OtherLeads { .. }) => Ok(()),
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

    /// While this node stands aside: hands leadership on to a node in service,
    /// keeps it while there is none, and stands for election once there has been
    /// no leader for so long that nobody in service is left to become one. Ends
    /// with Raft.
    pub async fn stay_aside(&self) {
        let mut metrics = self.raft.server_metrics();
        let mut keeps = false;
        let mut led = Instant::now();
        loop {
            if !self.is_aside() {
                (keeps, led) = (false, Instant::now());
            } else if self.leadership() == Leadership::Local {
                led = Instant::now();
                self.hand_on(&mut keeps).await;
            } else {
                keeps = false;
                let contact = self.leader_contact_age().await;
                let contact = contact.and_then(|age| Instant::now().checked_sub(age));
                led = contact.map_or(led, |contact| contact.max(led));
                let alone = led.elapsed() > limits::ASIDE_SILENCE_MAX;
                // It may have been taken back meanwhile.
                self.raft.runtime_config().elect(alone || !self.is_aside());
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                // Silence changes nothing in the metrics.
                () = tokio::time::sleep(limits::RETRY_DELAY_UNAVAILABLE) => {}
            }
        }
    }

    /// Hands leadership on, if there is somebody in service, and says once that
    /// this node `keeps` it, if there is not.
    async fn hand_on(&self, keeps: &mut bool) {
        let error = match self.in_service() {
            successors if successors.is_empty() => AdminError::NoOtherVoter,
            successors => match self.transfer_leader(&successors).await {
                Ok(_) | Err(AdminError::OtherLeads { .. }) => return,
                Err(error) => error,
            },
        };
        if !std::mem::replace(keeps, true) {
            tracing::warn!(
                partition = self.id,
                %error,
                "this node is drained, and leads and takes writes since no node in service can"
            );
        }
    }

    /// The other voters that answer this leader and do not stand aside, as far as
    /// it knows.
    fn in_service(&self) -> BTreeSet<NodeId> {
        let aside = self.aside.others();
        let mut others = self.voters();
        let view = self.leader_view().unwrap_or_default();
        others.retain(|id| {
            let progress = view.progress.get(id);
            let contact = progress.and_then(|progress| progress.since_contact);
            !aside.contains(id) && contact.is_some_and(|ago| ago < limits::PEER_CONNECT_TIMEOUT)
        });
        others
    }

    /// Since this node last heard from a leader; `None` when it has not since it
    /// started, or an election came after.
    pub(crate) async fn leader_contact_age(&self) -> Option<Duration> {
        let raft = self.raft.clone();
        // On a task of its own, which outlives a caller that goes away: openraft
        // logs an error when nobody waits for its answer.
        let age = tokio::spawn(async move {
            let age = raft.with_raft_state(|state| {
                // A vote that is not committed is an election's.
                let led = state.vote_ref().committed;
                state
                    .vote_last_modified()
                    .filter(|_| led)
                    .map(|at| at.elapsed())
            });
            age.await
        });
        match age.await {
            Ok(Ok(age)) => age,
            _ => None,
        }
    }
}
