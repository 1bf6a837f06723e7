//! Who leads, and who may: decided after asking everyone who would have to take
//! part, since handing leadership to a node that is not there deposes the leader
//! and elects nobody in particular.

use std::collections::BTreeSet;

use super::hello::greet_member;
use crate::partition::{AdminError, Leadership, Partition};
use crate::raft::{NodeId, Peers};

/// The other voters, as they answered just now.
#[derive(Debug, Default)]
struct Others {
    in_service: BTreeSet<NodeId>,
    drained: BTreeSet<NodeId>,
    silent: BTreeSet<NodeId>,
}

impl Others {
    async fn ask(partition: &Partition, peers: &Peers) -> Self {
        let own = peers.identity();
        let members = partition.effective_members();
        let questions = members
            .nodes
            .iter()
            .filter(|(id, _)| **id != own.node_id && members.voters.contains(id))
            .map(async |(id, node)| (*id, greet_member(&own, peers, *id, node).await));
        let mut others = Self::default();
        for (id, answer) in futures::future::join_all(questions).await {
            let kind = match answer {
                Ok(answer) => {
                    partition.note_aside(id, answer.draining);
                    match answer.draining {
                        true => &mut others.drained,
                        false => &mut others.in_service,
                    }
                }
                Err(_) => &mut others.silent,
            };
            kind.insert(id);
        }
        others
    }

    /// Whether those who answer, and this node, can elect a leader.
    fn check_quorum(&self) -> Result<(), AdminError> {
        let answering = 1 + self.in_service.len() + self.drained.len();
        let voters = answering + self.silent.len();
        match 2 * answering > voters {
            true => Ok(()),
            false => Err(AdminError::NoQuorum { answering, voters }),
        }
    }

    /// Why none of them can lead.
    fn unfit(&self) -> Vec<String> {
        let drained = self
            .drained
            .iter()
            .map(|id| format!("node {id} is drained"));
        let silent = self.silent.iter();
        let silent = silent.map(|id| format!("node {id} does not answer"));
        drained.chain(silent).collect()
    }
}

/// Hands leadership to `to`, or to the voter in service that is most up to date.
/// Whoever is to lead has answered just before.
///
/// # Errors
/// When `to` can not lead, nobody can, or another node leads in the end.
pub async fn transfer_leader(
    partition: &Partition,
    peers: &Peers,
    to: Option<NodeId>,
) -> Result<NodeId, AdminError> {
    if partition.leadership() != Leadership::Local {
        return Err(AdminError::NotLeader(partition.id()));
    }
    if let Some(to) = to {
        if to == peers.identity().node_id {
            return Ok(to);
        }
        if !partition.voters().contains(&to) {
            return Err(AdminError::NoVoter(to));
        }
    }
    let others = Others::ask(partition, peers).await;
    let successors = match to {
        Some(to) if others.drained.contains(&to) => return Err(AdminError::Aside(to)),
        Some(to) if others.in_service.contains(&to) => BTreeSet::from([to]),
        Some(to) => return Err(AdminError::Silent(to)),
        None => others.in_service.clone(),
    };
    if successors.is_empty() {
        return Err(match others.unfit() {
            unfit if unfit.is_empty() => AdminError::NoOtherVoter,
            unfit => AdminError::NoSuccessor(unfit),
        });
    }
    others.check_quorum()?;
    partition.transfer_leader(&successors).await
}

/// The voters in service beside this node: those it may stand aside for.
///
/// # Errors
/// When there is none, and this node votes.
pub async fn others_in_service(
    partition: &Partition,
    peers: &Peers,
) -> Result<BTreeSet<NodeId>, AdminError> {
    let others = Others::ask(partition, peers).await;
    let votes = partition.voters().contains(&peers.identity().node_id);
    if votes && others.in_service.is_empty() {
        return Err(AdminError::LastInService(others.unfit()));
    }
    Ok(others.in_service)
}
