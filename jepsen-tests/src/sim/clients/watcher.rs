//! Who looks at every node's status, again and again: it sees who leads, and
//! that nodes that have applied the same have come to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::proto::{PartitionStatus, Role};
use parking_lot::Mutex;

use super::{Phase, Program, Shared, millis};
use crate::sim::invariants::{LeadersRise, LevelsRise, Remembered, Said, SameState, covered};
use crate::sim::random::Random;

const PACE: Duration = Duration::from_millis(100);

/// What has been seen of the nodes so far.
#[derive(Debug, Default)]
pub(in crate::sim) struct Seen {
    /// The last one that said of itself that it leads.
    pub(in crate::sim) leader: Option<u64>,
    pub(in crate::sim) leaders: LeadersRise,
    pub(in crate::sim) states: SameState,
    pub(in crate::sim) levels: LevelsRise,
    pub(in crate::sim) sessions: Remembered,
    /// Every set of voters that a node has spoken of.
    pub(in crate::sim) voters: BTreeSet<BTreeSet<u64>>,
    /// The latest status of each node.
    nodes: BTreeMap<u64, PartitionStatus>,
    /// The number of the latest question that each has answered.
    answered: BTreeMap<u64, u64>,
    pub(in crate::sim) violations: Vec<String>,
}

impl Seen {
    /// What `node` answered to the question `number`. Answers that were overtaken
    /// tell nothing about now.
    fn note(&mut self, node: u64, number: u64, status: PartitionStatus) {
        let latest = self.answered.entry(node).or_default();
        if number <= *latest {
            return;
        }
        *latest = number;
        let said = Said {
            node,
            term: status.term,
            leader: status.leader_id,
            applied: status.digest_log_index,
            digest: status.digest.to_vec(),
            level: status.feature_level,
        };
        let voters = status.members.iter().filter(|member| member.voter);
        let voters: BTreeSet<u64> = voters.map(|member| member.node_id).collect();
        if !voters.is_empty() {
            self.voters.insert(voters);
        }
        if status.role() == Role::Leader {
            self.leader = Some(node);
        }
        if let Some(time) = &status.log_time {
            self.sessions.time(status.applied_log_index, millis(time));
        }
        let covered = match status.ready {
            true => covered(node, status.first_log_index, status.snapshot_log_index),
            false => Ok(()),
        };
        let judged = [
            self.leaders.see(&said),
            self.states.see(&said),
            self.levels.see(&said),
            covered,
        ];
        self.violations
            .extend(judged.into_iter().filter_map(Result::err));
        self.nodes.insert(node, status);
    }

    /// How the nodes stand, for people.
    pub(in crate::sim) fn brief(&self) -> Vec<String> {
        let brief = |(id, status): (&u64, &PartitionStatus)| {
            format!(
                "{id}: {} term {} leader {} applied {} of {} ready {}",
                status.role().as_str_name(),
                status.term,
                status.leader_id,
                status.applied_log_index,
                status.last_log_index,
                status.ready
            )
        };
        self.nodes.iter().map(brief).collect()
    }

    /// The end of the log, as the node that is furthest sees it.
    pub(in crate::sim) fn end_offset(&self) -> u64 {
        let ends = self.nodes.values().map(|status| status.end_offset);
        ends.max().unwrap_or_default()
    }

    /// The members as the node that is furthest sees them; `None` when nobody has
    /// said anything.
    pub(in crate::sim) fn members(&self) -> Option<Vec<u64>> {
        let furthest = self
            .nodes
            .values()
            .max_by_key(|status| (status.applied_log_index, status.term))?;
        let members = furthest.members.iter();
        Some(members.map(|member| member.node_id).collect())
    }

    /// Whether all `nodes` are ready, agree on a leader among them, and have
    /// applied the same: everything up to the log index `acknowledged`.
    pub(in crate::sim) fn settled(&self, nodes: &[u64], acknowledged: u64) -> bool {
        let statuses: Vec<&PartitionStatus> =
            nodes.iter().filter_map(|id| self.nodes.get(id)).collect();
        let Some(first) = statuses.first() else {
            return false;
        };
        statuses.len() == nodes.len()
            && nodes.contains(&first.leader_id)
            && statuses.iter().all(|status| {
                status.ready
                    && status.applied_log_index >= acknowledged
                    && status.leader_id == first.leader_id
                    && status.applied_log_index == first.applied_log_index
                    && !status.digest.is_empty()
                    && status.digest == first.digest
            })
    }
}

pub(in crate::sim) struct Watcher {
    pub(in crate::sim) random: Mutex<Random>,
    /// Asked so far, by all lives of the process.
    pub(in crate::sim) questions: AtomicU64,
}

impl Program for Watcher {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut clients = BTreeMap::new();
            loop {
                let number = self.questions.fetch_add(1, Ordering::Relaxed);
                let members = shared.members.lock().clone();
                for node in members {
                    let client = clients
                        .entry(node)
                        .or_insert_with(|| shared.connect(ip, Some(node), &mut self.random.lock()))
                        .clone();
                    let seen = shared.seen.clone();
                    tokio::spawn(async move {
                        let asked = tokio::time::timeout(PACE * 2, client.status());
                        if let Ok(Ok(status)) = asked.await
                            && let Some(partition) = status.partitions.into_iter().next()
                        {
                            seen.lock().note(node, number, partition);
                        }
                    });
                }
                tokio::time::sleep(PACE).await;
            }
        })
    }

    fn done(&self, _: Phase) -> bool {
        true
    }

    fn is_workload(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        "watcher".to_owned()
    }
}
