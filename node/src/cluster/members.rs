//! Adding, promoting and removing members.
//!
//! The leader does it, one change at a time and each on top of the membership
//! it was decided on. Every operation can be repeated: what is done already is
//! answered as done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use huntlog_machine::FIRST_LEVEL;
use huntlog_proto::peer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client_port::{ClientPort, ask_client_port, nobody_at};
use super::formation::give_cluster;
use super::hello::{Whom, greet_member, levels_told, say_hello};
use super::member_error::MemberError;
use super::peer_server::PeerState;
use super::quorum::keeps_quorum;
use crate::limits;
use crate::partition::{AdminError, Members, MembersChange, Partition, ProposeError};
use crate::raft::{LocalIdentity, MemberNode, NodeId, PROTOCOL_VERSION, member_to_proto};

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is committed.
    Made,
    /// It had been made before.
    AlreadyMade,
}

/// A member that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Whether it is new.
    pub change: Change,
    /// What is not as it should be all the same.
    pub warnings: Vec<String>,
}

/// Changes the members of this node's groups while it leads them.
pub struct MemberChanger {
    state: Arc<PeerState>,
    /// Held while a change is under way.
    one: Arc<Semaphore>,
}

impl MemberChanger {
    /// Changes members on behalf of the node of `state`.
    pub fn new(state: Arc<PeerState>) -> Self {
        Self {
            state,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// The node it works for.
    pub fn state(&self) -> &Arc<PeerState> {
        &self.state
    }

    /// Makes the waiting node `id` at `node`'s addresses a learner.
    ///
    /// # Errors
    /// When it is refused, or not finished within
    /// [`limits::MEMBER_CHANGE_TIMEOUT`].
    pub async fn add(
        &self,
        partition: &Arc<Partition>,
        id: NodeId,
        node: MemberNode,
    ) -> Result<Added, MemberError> {
        let (permit, members) = self.begin(partition).await?;
        let own = self.state.identity().local();
        if let Some(known) = members.nodes.get(&id) {
            let change = self.added_before(&own, id, known, &node).await?;
            let warnings = Vec::new();
            return Ok(Added { change, warnings });
        }
        check_new(&members, id, &node)?;
        let answer = say_hello(&own, self.state.peers(), &node.peer_address, Whom::Anyone)
            .await
            .map_err(|status| MemberError::Unreachable {
                address: node.peer_address.clone(),
                cause: status.message().to_owned(),
            })?;
        check_newcomer(&own, &members, id, &node.peer_address, &answer)?;
        self.check_newcomer_level(partition, &node.peer_address, &answer)?;
        let address = &node.client_address;
        let port = ask_client_port(self.state.peers(), address, &answer.node_uuid);
        let warnings = match port.await {
            ClientPort::Itself => Vec::new(),
            ClientPort::Another(who) => {
                return Err(MemberError::WrongNode {
                    address: address.clone(),
                    what: format!("serves clients as another node, {who}"),
                });
            }
            ClientPort::Silent(why) => vec![nobody_at(id, address, &why)],
        };
        let node = MemberNode {
            uuid: answer.node_uuid,
            ..node
        };
        let everyone = members
            .nodes
            .iter()
            .chain([(&id, &node)])
            .map(|(id, node)| member_to_proto(*id, node))
            .collect();
        let adoption = peer::AdoptRequest {
            protocol_version: PROTOCOL_VERSION,
            cluster_name: own.cluster_name,
            cluster_id: own.cluster_id,
            members: everyone,
            exists: true,
            feature_level: 0,
        };
        give_cluster(self.state.peers(), &node, &adoption)
            .await
            .map_err(|status| match status.code() {
                tonic::Code::FailedPrecondition => MemberError::WrongNode {
                    address: node.peer_address.clone(),
                    what: format!("does not take this cluster: {}", status.message()),
                },
                _ => MemberError::Unreachable {
                    address: node.peer_address.clone(),
                    cause: status.message().to_owned(),
                },
            })?;
        let change = MembersChange::AddNodes(BTreeMap::from([(id, node)]));
        self.propose(permit, partition, change, &members).await?;
        tracing::info!(node = id, ?warnings, "a learner was added");
        let change = Change::Made;
        Ok(Added { change, warnings })
    }

    /// Whether the node that answers reads the level in force, and the one at which
    /// the cluster was formed, should that not be in force yet.
    fn check_newcomer_level(
        &self,
        partition: &Partition,
        address: &str,
        answer: &peer::HelloResponse,
    ) -> Result<(), MemberError> {
        let founding = self.state.identity().founding_level();
        let level = founding.unwrap_or(FIRST_LEVEL).max(partition.level());
        let levels = levels_told(answer);
        match levels.contains(level) {
            true => Ok(()),
            false => Err(MemberError::NewcomerLevel {
                address: address.to_owned(),
                levels,
                level,
            }),
        }
    }

    /// Whether the member `known` is the node that is to be added.
    async fn added_before(
        &self,
        own: &LocalIdentity,
        id: NodeId,
        known: &MemberNode,
        wanted: &MemberNode,
    ) -> Result<Change, MemberError> {
        let at = |node: &MemberNode| (node.peer_address.clone(), node.client_address.clone());
        if at(known) != at(wanted) {
            return Err(MemberError::IdTaken {
                id,
                known: at(known),
                wanted: at(wanted),
            });
        }
        let whom = Whom::member(id, known);
        match say_hello(own, self.state.peers(), &known.peer_address, whom).await {
            Ok(answer) if answer.node_uuid != known.uuid => Err(MemberError::Emptied {
                id,
                address: known.peer_address.clone(),
                known: known.uuid.clone(),
                found: answer.node_uuid,
            }),
            _ => Ok(Change::AlreadyMade),
        }
    }

    /// Makes the learner `id` a voter, once it has caught up; with `force` even
    /// if it has not, does not answer, or the cluster loses its quorum by it.
    ///
    /// # Errors
    /// As [`Self::add`]; [`MemberError::CatchingUp`] is to be tried again.
    pub async fn promote(
        &self,
        partition: &Arc<Partition>,
        id: NodeId,
        force: bool,
    ) -> Result<Change, MemberError> {
        let (permit, members) = self.begin(partition).await?;
        if !members.nodes.contains_key(&id) {
            return Err(match members.has_removed(id) {
                true => MemberError::IdRetired(id),
                false => MemberError::NotAMember(id),
            });
        }
        if members.voters.contains(&id) {
            return Ok(Change::AlreadyMade);
        }
        if members.voters.len() >= limits::VOTERS_MAX {
            return Err(MemberError::TooMany {
                what: "voters",
                limit: limits::VOTERS_MAX,
            });
        }
        let mut voters = members.voters.clone();
        voters.insert(id);
        if !force {
            let answering = self.answering(&members).await;
            if !answering.contains(&id) {
                return Err(MemberError::Silent(id));
            }
            check_caught_up(partition, id)?;
            check_quorum(&members, &voters, &answering, || {
                format!("promoting node {id}")
            })?;
        }
        let change = MembersChange::AddVoterIds(BTreeSet::from([id]));
        self.propose(permit, partition, change, &members).await?;
        tracing::info!(node = id, "a learner was made a voter");
        Ok(Change::Made)
    }

    /// Removes the member `id` for ever; with `force` even if the cluster loses
    /// its quorum by it.
    ///
    /// # Errors
    /// As [`Self::add`]; [`MemberError::HandedOver`] when this node was to be
    /// removed: the new leader removes it.
    pub async fn remove(
        &self,
        partition: &Arc<Partition>,
        id: NodeId,
        force: bool,
    ) -> Result<Change, MemberError> {
        let (permit, members) = self.begin(partition).await?;
        if members.has_removed(id) {
            return Ok(Change::AlreadyMade);
        }
        if !members.nodes.contains_key(&id) {
            return Err(MemberError::NotAMember(id));
        }
        if members.voters.contains(&id) {
            let mut voters = members.voters.clone();
            voters.remove(&id);
            if voters.is_empty() {
                return Err(MemberError::LastVoter(id));
            }
            if !force {
                let answering = self.answering(&members).await;
                check_quorum(&members, &voters, &answering, || {
                    format!("removing node {id}")
                })?;
            }
        }
        if id == self.state.identity().local().node_id {
            return Err(hand_over(partition).await);
        }
        let change = removal(&members, id);
        self.propose(permit, partition, change, &members).await?;
        tracing::info!(node = id, "a member was removed");
        Ok(Change::Made)
    }

    /// The right to change members, and who they are once the last change is
    /// committed: a new leader learns that it is a moment later.
    pub(super) async fn begin(
        &self,
        partition: &Arc<Partition>,
    ) -> Result<(OwnedSemaphorePermit, Members), MemberError> {
        if partition.leader_view().is_none() {
            return Err(MemberError::NotLeader(partition.id()));
        }
        let settled = partition.settled_members();
        match tokio::time::timeout(limits::HELLO_TIMEOUT, settled).await {
            Ok(Some(members)) => match self.one.clone().try_acquire_owned() {
                Ok(permit) => Ok((permit, members)),
                Err(_) => Err(MemberError::InProgress),
            },
            Ok(None) => Err(MemberError::NotLeader(partition.id())),
            Err(_) => Err(MemberError::InProgress),
        }
    }

    /// Who of `members` answers now, as itself; this node does.
    async fn answering(&self, members: &Members) -> BTreeSet<NodeId> {
        let own = self.state.identity().local();
        let questions = members
            .nodes
            .iter()
            .filter(|(id, _)| **id != own.node_id)
            .map(async |(id, node)| {
                let silent = match greet_member(&own, self.state.peers(), *id, node).await {
                    Ok(_) => return Some(*id),
                    Err(silent) => silent,
                };
                let address = &node.peer_address;
                tracing::warn!(node = id, address, silent, "a member counts as silent");
                None
            });
        let answers = futures::future::join_all(questions).await;
        answers.into_iter().flatten().chain([own.node_id]).collect()
    }

    /// Proposes `change`, and sees it through even if nobody waits for it any
    /// more: until then there is no other.
    async fn propose(
        &self,
        permit: OwnedSemaphorePermit,
        partition: &Arc<Partition>,
        change: MembersChange,
        members: &Members,
    ) -> Result<(), MemberError> {
        let started = Instant::now();
        let based_on = members.log_id;
        let proposing = tokio::spawn({
            let partition = partition.clone();
            async move {
                let proposed = partition.propose_members(change, based_on).await;
                drop(permit);
                proposed
            }
        });
        let unfinished = |cause: String| MemberError::Unfinished {
            after: started.elapsed(),
            cause,
        };
        match tokio::time::timeout(limits::MEMBER_CHANGE_TIMEOUT, proposing).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(ProposeError::NotLeader))) => Err(MemberError::NotLeader(partition.id())),
            Ok(Ok(Err(ProposeError::Superseded))) => Err(MemberError::InProgress),
            Ok(Ok(Err(ProposeError::Unfinished(cause)))) => Err(unfinished(cause)),
            Ok(Err(panic)) => Err(unfinished(panic.to_string())),
            Err(_) => Err(unfinished("too few voters have acknowledged it".to_owned())),
        }
    }

    /// Finishes, while this node leads, changes whose leader did not: a change
    /// has two steps, and its leader can die between them. Ends with Raft.
    pub async fn finish_changes(self: Arc<Self>, partition: Arc<Partition>) {
        while partition.half_changed().await.is_some() {
            // Whoever holds it takes the second step itself.
            let Ok(_permit) = self.one.acquire().await else {
                return;
            };
            if !partition.effective_members().joint {
                continue;
            }
            tracing::warn!("a membership change was left half done, and is finished now");
            if let Err(error) = partition.finish_members_change().await {
                tracing::warn!(%error, "the membership change is not finished yet");
                tokio::time::sleep(limits::RETRY_DELAY_UNAVAILABLE).await;
            }
        }
    }
}

/// The removal of `id`, whose id is given to a member that stays, together with
/// those that `id` has kept.
fn removal(members: &Members, id: NodeId) -> MembersChange {
    let mut retired = members.retired.clone();
    retired.insert(id);
    while retired.len() > limits::RETIRED_IDS_MAX {
        retired.pop_first();
    }
    let stays = |other: &&NodeId| **other != id;
    let keeper = members
        .nodes
        .iter()
        .filter(|(other, _)| stays(other))
        .max_by_key(|(_, node)| node.retired_ids.len());
    let removed = if members.voters.contains(&id) {
        MembersChange::RemoveVoters(BTreeSet::from([id]))
    } else {
        MembersChange::RemoveNodes(BTreeSet::from([id]))
    };
    let Some((keeper, node)) = keeper else {
        return removed;
    };
    let node = MemberNode {
        retired_ids: retired,
        ..node.clone()
    };
    let kept = MembersChange::SetNodes(BTreeMap::from([(*keeper, node)]));
    MembersChange::Batch(vec![kept, removed])
}

/// Whether an id was a removed member's. Of very many only the highest are
/// kept, and every lower one counts as used.
fn is_retired(members: &Members, id: NodeId) -> bool {
    let full = members.retired.len() >= limits::RETIRED_IDS_MAX;
    members.retired.contains(&id) || full && members.retired.first().is_some_and(|low| id < *low)
}

fn check_new(members: &Members, id: NodeId, node: &MemberNode) -> Result<(), MemberError> {
    if is_retired(members, id) {
        return Err(MemberError::IdRetired(id));
    }
    let wanted = [&node.peer_address, &node.client_address];
    for (by, member) in &members.nodes {
        for address in wanted {
            if [&member.peer_address, &member.client_address].contains(&address) {
                return Err(MemberError::AddressTaken {
                    address: address.clone(),
                    by: *by,
                });
            }
        }
    }
    if members.nodes.len() >= limits::MEMBERS_MAX {
        return Err(MemberError::TooMany {
            what: "members",
            limit: limits::MEMBERS_MAX,
        });
    }
    Ok(())
}

/// Whether the node that answers can be added as `id`.
fn check_newcomer(
    own: &LocalIdentity,
    members: &Members,
    id: NodeId,
    address: &str,
    answer: &peer::HelloResponse,
) -> Result<(), MemberError> {
    let wrong = |what: String| {
        Err(MemberError::WrongNode {
            address: address.to_owned(),
            what,
        })
    };
    if answer.protocol_version != PROTOCOL_VERSION {
        return wrong(format!(
            "speaks peer protocol {}, this cluster speaks {PROTOCOL_VERSION}",
            answer.protocol_version
        ));
    }
    if answer.cluster_name != own.cluster_name {
        return wrong(format!(
            "is configured for cluster `{}`, this one is `{}`",
            answer.cluster_name, own.cluster_name
        ));
    }
    if answer.node_id != id {
        return wrong(format!("is node {}, not node {id}", answer.node_id));
    }
    if !answer.cluster_id.is_empty() && answer.cluster_id != own.cluster_id {
        return wrong(format!(
            "belongs to cluster {} already, this one is {}",
            answer.cluster_id, own.cluster_id
        ));
    }
    let same = |(_, node): &(&NodeId, &MemberNode)| node.uuid == answer.node_uuid;
    if let Some((by, _)) = members.nodes.iter().find(same) {
        return Err(MemberError::DirectoryTaken {
            address: address.to_owned(),
            by: *by,
        });
    }
    Ok(())
}

/// Whether the learner lacks so little that it does not hold up commits.
fn check_caught_up(partition: &Partition, id: NodeId) -> Result<(), MemberError> {
    let view = partition
        .leader_view()
        .ok_or(MemberError::NotLeader(partition.id()))?;
    let matched = view
        .progress
        .get(&id)
        .and_then(|progress| progress.matched_log_index);
    let last = view.last_log_index;
    // One that has nothing yet may never get anything.
    if matched.is_some_and(|matched| lags_little(matched, last)) {
        return Ok(());
    }
    let matched = matched.unwrap_or(0);
    Err(MemberError::CatchingUp { id, matched, last })
}

fn lags_little(matched: u64, last: u64) -> bool {
    last.saturating_sub(matched) <= limits::PROMOTE_LAG_ENTRIES_MAX
}

fn check_quorum(
    members: &Members,
    after: &BTreeSet<NodeId>,
    answering: &BTreeSet<NodeId>,
    change: impl FnOnce() -> String,
) -> Result<(), MemberError> {
    keeps_quorum(&members.voters, after, answering).map_err(|loss| MemberError::QuorumLoss {
        change: change(),
        loss,
    })
}

/// Hands leadership to another voter, so that it can remove this node.
///
/// Raft lets a leader commit its own removal, but then nobody leads until an
/// election: handing over first takes some milliseconds instead.
async fn hand_over(partition: &Partition) -> MemberError {
    match partition.give_up_leadership().await {
        Ok(leader) | Err(AdminError::OtherLeads { leader, .. }) => {
            match partition.effective_members().nodes.remove(&leader) {
                Some(node) => MemberError::HandedOver { leader, node },
                None => MemberError::NotLeader(partition.id()),
            }
        }
        Err(AdminError::NotLeader(id)) => MemberError::NotLeader(id),
        Err(error) => MemberError::NotHandedOver(error.to_string()),
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
