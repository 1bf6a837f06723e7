//! Who looks at every node's status, again and again: it sees who leads, and
//! that nodes that have applied the same have come to the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::proto::{PartitionStatus, Role};
use parking_lot::Mutex;

use super::{Phase, Program, Shared};
use crate::sim::random::Random;

const PACE: Duration = Duration::from_millis(100);

/// What has been seen of the nodes so far.
#[derive(Debug, Default)]
pub(in crate::sim) struct Seen {
    /// The last one that said of itself that it leads.
    pub(in crate::sim) leader: Option<u64>,
    /// Who led which term.
    pub(in crate::sim) terms: BTreeMap<u64, u64>,
    /// By log index: the digest, and who said it first.
    digests: BTreeMap<u64, (Vec<u8>, u64)>,
    /// The latest status of each node.
    pub(in crate::sim) nodes: BTreeMap<u64, PartitionStatus>,
    pub(in crate::sim) violations: Vec<String>,
}

impl Seen {
    fn note(&mut self, node: u64, status: PartitionStatus) {
        if status.role() == Role::Leader {
            self.leader = Some(node);
            // Raft, figure 3: election safety.
            let first = *self.terms.entry(status.term).or_insert(node);
            if first != node {
                self.violations.push(format!(
                    "election safety: nodes {first} and {node} both led term {}",
                    status.term
                ));
            }
        }
        if !status.digest.is_empty() {
            let digest = status.digest.to_vec();
            let (first, said_by) = self
                .digests
                .entry(status.digest_log_index)
                .or_insert_with(|| (digest.clone(), node));
            if *first != digest {
                self.violations.push(format!(
                    "I7: at log index {} node {node} has another digest than node {said_by} had",
                    status.digest_log_index
                ));
            }
        }
        if let Some(before) = self.nodes.get(&node)
            && before.term > status.term
        {
            self.violations.push(format!(
                "Raft, figure 2: node {node} went back from term {} to {}",
                before.term, status.term
            ));
        }
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

    /// The members as the leader sees them; `None` when none is known.
    pub(in crate::sim) fn members(&self) -> Option<Vec<u64>> {
        let leader = self.nodes.get(&self.leader?)?;
        Some(leader.members.iter().map(|member| member.node_id).collect())
    }

    /// Whether all `nodes` are ready, agree on a leader among them, and have
    /// applied the same.
    pub(in crate::sim) fn settled(&self, nodes: &[u64]) -> bool {
        let statuses: Vec<&PartitionStatus> =
            nodes.iter().filter_map(|id| self.nodes.get(id)).collect();
        let Some(first) = statuses.first() else {
            return false;
        };
        statuses.len() == nodes.len()
            && nodes.contains(&first.leader_id)
            && statuses.iter().all(|status| {
                status.ready
                    && status.leader_id == first.leader_id
                    && status.applied_log_index == first.applied_log_index
                    && status.digest == first.digest
            })
    }
}

pub(in crate::sim) struct Watcher {
    pub(in crate::sim) random: Mutex<Random>,
}

impl Program for Watcher {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut clients = BTreeMap::new();
            loop {
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
                            seen.lock().note(node, partition);
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

    fn name(&self) -> String {
        "watcher".to_owned()
    }
}
