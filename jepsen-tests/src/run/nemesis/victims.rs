//! Whom a fault hits.

use std::time::Duration;

use rand::RngExt as _;

use super::Injector;
use super::faults::FaultError;

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Leader,
    Minority,
    Majority,
    All,
    /// Any number.
    Some,
}

impl Injector {
    /// Some of the nodes.
    pub(super) async fn victims(&mut self, who: Who) -> Result<Vec<u64>, FaultError> {
        if who == Who::Leader {
            return Ok(vec![self.leader().await?]);
        }
        let mut ids = self.running().await;
        let minority = ids.len().saturating_sub(1) / 2;
        let count = match who {
            Who::Leader | Who::Minority => minority,
            Who::Majority => minority + 1,
            Who::All => ids.len(),
            Who::Some => self.random.random_range(1..=ids.len().max(1)),
        };
        while ids.len() > count {
            ids.swap_remove(self.random.random_range(0..ids.len()));
        }
        if ids.is_empty() {
            return Err(FaultError::NoTarget("no node runs".to_owned()));
        }
        Ok(ids)
    }

    pub(super) async fn running(&self) -> Vec<u64> {
        let cluster = self.cluster.lock().await;
        let running = cluster.nodes().iter().filter(|node| node.runs());
        running.map(|node| node.spec().id).collect()
    }

    /// Who leads: the node that says so in the highest term.
    pub(super) async fn leader(&self) -> Result<u64, FaultError> {
        let cluster = self.cluster.lock().await;
        let limit = Duration::from_secs(5);
        let leader = cluster.wait_within(limit, "a leader", async || {
            let mut leading = None;
            for node in cluster.nodes() {
                let id = node.spec().id;
                let Some(status) = cluster.status(id).await else {
                    continue;
                };
                let partition = status.partitions.first();
                if let Some(partition) = partition.filter(|p| p.leader_id == id) {
                    leading = leading.max(Some((partition.term, id)));
                }
            }
            leading.map(|(_, id)| id)
        });
        leader
            .await
            .map_err(|_| FaultError::NoTarget("nobody leads".to_owned()))
    }

    /// Somebody that does not lead.
    pub(super) async fn follower(&mut self) -> Result<u64, FaultError> {
        let leader = self.leader().await?;
        let mut others = self.running().await;
        others.retain(|id| *id != leader);
        if others.is_empty() {
            return Err(FaultError::NoTarget("only the leader runs".to_owned()));
        }
        Ok(others[self.random.random_range(0..others.len())])
    }
}
