//! Who the group's members are, and changing it.
//!
//! Whether a change is a good idea is decided elsewhere; here it is proposed,
//! and only on top of the membership that the decision was made on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Instant as _, ServerState};

use super::{AdminError, Partition};
use crate::raft::{LogId, MemberNode, NodeId, StoredMembership, TypeConfig, retired_ids};

/// A change of the membership, in openraft's terms.
pub type MembersChange = ChangeMembers<NodeId, MemberNode>;

/// The members of a group at one log id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Where the log says so; `None` before the first membership.
    pub log_id: Option<LogId>,
    /// Everyone, voters and learners.
    pub nodes: BTreeMap<NodeId, MemberNode>,
    /// Who votes, in the old or the new configuration while a change is under
    /// way.
    pub voters: BTreeSet<NodeId>,
    /// Who votes once the change that is under way is done.
    pub voters_to_be: BTreeSet<NodeId>,
    /// Ids of removed members.
    pub retired: BTreeSet<NodeId>,
    /// Between the two steps of a change (Raft, section 6).
    pub joint: bool,
}

impl Members {
    fn of(stored: &StoredMembership) -> Self {
        let configs = stored.membership().get_joint_config();
        Self {
            log_id: *stored.log_id(),
            nodes: stored
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect(),
            voters: stored.voter_ids().collect(),
            voters_to_be: configs.last().cloned().unwrap_or_default(),
            retired: retired_ids(stored.nodes().map(|(_, node)| node)),
            joint: configs.len() > 1,
        }
    }

    /// Whether `id` was a member, and is none any more.
    pub fn has_removed(&self, id: NodeId) -> bool {
        self.retired.contains(&id) && !self.nodes.contains_key(&id)
    }
}

/// How a member stands, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberProgress {
    /// The last log index it is known to have; `None` when nothing is.
    pub matched_log_index: Option<u64>,
    /// Since it last answered; `None` when it never has.
    pub since_contact: Option<Duration>,
}

/// What the leader knows of how its members stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderView {
    /// The last index of the leader's log.
    pub last_log_index: u64,
    /// Every other member.
    pub progress: BTreeMap<NodeId, MemberProgress>,
}

/// Why a proposed membership is not, or not yet, in force.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; nothing was written.
    #[error("this node does not lead")]
    NotLeader,
    /// The membership is not the one the change was based on, or is not
    /// committed yet; nothing was written.
    #[error("another membership change is under way")]
    Superseded,
    /// Something may have been written.
    #[error("{0}")]
    Unfinished(String),
}

impl Partition {
    /// The newest membership in the log here, committed or not.
    pub fn effective_members(&self) -> Members {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Members::of(&metrics.membership_config)
    }

    /// The newest membership known here to be committed.
    pub fn committed_members(&self) -> Members {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Members::of(&metrics.committed_membership_config)
    }

    /// Waits until the newest membership is committed and no step of a change is
    /// missing. `None` once Raft has stopped.
    pub async fn settled_members(&self) -> Option<Members> {
        let mut metrics = self.raft.server_metrics();
        loop {
            {
                let state = metrics.borrow_watched();
                let members = Members::of(&state.membership_config);
                if !members.joint && members.log_id == *state.committed_membership_config.log_id() {
                    return Some(members);
                }
            }
            metrics.changed().await.ok()?;
        }
    }

    /// How the members stand; `None` unless this node leads.
    pub fn leader_view(&self) -> Option<LeaderView> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let contact = |id: &NodeId| {
            let acked = metrics.heartbeat.as_ref().and_then(|acked| *acked.get(id)?);
            acked.map(|at| at.elapsed())
        };
        let progress = replication
            .iter()
            .filter(|(id, _)| **id != self.node_id)
            .map(|(id, matched)| {
                let progress = MemberProgress {
                    matched_log_index: matched.map(|log_id| log_id.index),
                    since_contact: contact(id),
                };
                (*id, progress)
            })
            .collect();
        Some(LeaderView {
            last_log_index: metrics.last_log_index.unwrap_or(0),
            progress,
        })
    }

    /// Proposes `change` on top of the membership at `based_on`, and answers
    /// when the last of its steps is committed. Members that neither vote nor
    /// learn afterwards are gone.
    ///
    /// # Errors
    /// When it was not written, or is not known to be committed.
    pub async fn propose_members(
        &self,
        change: MembersChange,
        based_on: Option<LogId>,
    ) -> Result<(), ProposeError> {
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: based_on,
        };
        let failed = match self
            .raft
            .change_membership_if(change, false, [unchanged])
            .await
        {
            Ok(_) => return Ok(()),
            Err(failed) => failed,
        };
        // The first of two steps may be in the log while the second failed.
        if self.effective_members().log_id != based_on {
            return Err(match &failed {
                RaftError::APIError(ClientWriteError::PreconditionFailed(_))
                    if !self.effective_members().joint =>
                {
                    ProposeError::Superseded
                }
                _ => ProposeError::Unfinished(in_words(&failed)),
            });
        }
        Err(match failed {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ProposeError::NotLeader,
            RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => ProposeError::Superseded,
            other => ProposeError::Unfinished(in_words(&other)),
        })
    }

    /// Takes the second step of a change whose first is committed, if this node
    /// leads and nobody else does; hands leadership over when the change
    /// removes this node.
    ///
    /// # Errors
    /// When it was not, or not yet, done.
    pub async fn finish_members_change(&self) -> Result<(), ProposeError> {
        let members = self.effective_members();
        if !members.joint {
            return Ok(());
        }
        if !members.voters_to_be.contains(&self.node_id) {
            let handed = match self.successor(&members.voters_to_be) {
                Ok(successor) => self.hand_leadership_to(successor).await,
                Err(error) => Err(error),
            };
            return match handed {
                Ok(_) | Err(AdminError::OtherLeads { .. }) => Ok(()),
                Err(error) => Err(ProposeError::Unfinished(error.to_string())),
            };
        }
        let nobody = MembersChange::AddVoterIds(BTreeSet::new());
        self.propose_members(nobody, members.log_id).await
    }

    /// Waits until this node leads. `None` once Raft has stopped.
    pub async fn led_here(&self) -> Option<()> {
        let mut metrics = self.raft.server_metrics();
        loop {
            if metrics.borrow_watched().state == ServerState::Leader {
                return Some(());
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Waits until this node leads and the first of a change's two steps is
    /// committed: the second is to be taken. `None` once Raft has stopped.
    pub async fn half_changed(&self) -> Option<()> {
        let mut metrics = self.raft.server_metrics();
        loop {
            {
                let state = metrics.borrow_watched();
                let effective = &state.membership_config;
                if state.state == ServerState::Leader
                    && effective.membership().get_joint_config().len() > 1
                    && effective.log_id() == state.committed_membership_config.log_id()
                {
                    return Some(());
                }
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Waits until the membership in the log is another than at `seen`, or that
    /// one is committed when it was not. `None` once Raft has stopped.
    pub async fn members_changed(&self, seen: &MembersSeen) -> Option<MembersSeen> {
        let mut metrics = self.raft.server_metrics();
        loop {
            {
                let state = metrics.borrow_watched();
                let now = MembersSeen {
                    effective: *state.membership_config.log_id(),
                    committed: *state.committed_membership_config.log_id(),
                };
                if now != *seen {
                    return Some(now);
                }
            }
            metrics.changed().await.ok()?;
        }
    }
}

/// Why a change is not finished, without Raft's insides.
fn in_words(failed: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> String {
    let words = match failed {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            "this node lost its leadership meanwhile"
        }
        RaftError::APIError(_) => "another change came between its steps",
        RaftError::Fatal(_) => "this node's Raft has stopped",
    };
    words.to_owned()
}

/// Which memberships somebody has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembersSeen {
    effective: Option<LogId>,
    committed: Option<LogId>,
}
