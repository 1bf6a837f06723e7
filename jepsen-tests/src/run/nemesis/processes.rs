//! Faults of processes and of their clocks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::timeout;

use crate::cluster::ClusterError;

use super::super::finale::Finding;
use super::super::prepare::clock_file;
use super::Injector;
use super::faults::{FaultError, Hold, Injected};
use super::victims::Who;

/// How long a node may take to stop in good order.
const STOP_LIMIT: Duration = Duration::from_secs(20);

impl Injector {
    pub(super) async fn kill(&mut self, who: Who) -> Result<Injected, FaultError> {
        let nodes = self.victims(who).await?;
        let mut cluster = self.cluster.lock().await;
        for id in &nodes {
            if let Some(node) = cluster.find(*id) {
                node.kill().await?;
            }
        }
        Ok(Injected {
            hold: Hold::Ended,
            ..Injected::of(nodes)
        })
    }

    pub(super) async fn pause(&mut self, who: Who) -> Result<Injected, FaultError> {
        let nodes = self.victims(who).await?;
        let mut cluster = self.cluster.lock().await;
        for id in &nodes {
            if let Some(node) = cluster.find(*id) {
                node.pause()?;
            }
        }
        Ok(Injected {
            hold: Hold::Paused,
            ..Injected::of(nodes)
        })
    }

    pub(super) async fn resume(&self, nodes: &[u64]) -> Result<(), FaultError> {
        let mut cluster = self.cluster.lock().await;
        for id in nodes {
            if let Some(node) = cluster.find(*id) {
                node.resume()?;
            }
        }
        Ok(())
    }

    /// Starts those that do not run; tells which had ended, of those that were
    /// replaced meanwhile none.
    pub(super) async fn start(&self, nodes: &[u64]) -> Result<Option<String>, FaultError> {
        let mut cluster = self.cluster.lock().await;
        let mut ended = Vec::new();
        for id in nodes {
            let Some(node) = cluster.find(*id) else {
                continue;
            };
            if node.has_ended() {
                node.start()?;
                ended.push(*id);
            }
        }
        Ok((!ended.is_empty()).then(|| format!("{ended:?} had ended")))
    }

    pub(super) async fn jump_clock(&mut self) -> Result<Injected, FaultError> {
        // A leader that stamps the log, as often as not.
        let node = if self.random.random_bool(0.5) {
            self.leader().await?
        } else {
            self.follower().await?
        };
        let minutes: i32 = self.random.random_range(1..60);
        let seconds = match self.random.random_bool(0.5) {
            true => minutes * 60,
            false => -minutes * 60,
        };
        let dir = self.cluster.lock().await.dir().join(format!("node{node}"));
        let file = clock_file(&dir);
        if !file.exists() {
            return Err(FaultError::NoTarget(format!(
                "node {node} has no clock of its own"
            )));
        }
        self.excuses.clock_goes_wrong(node, seconds);
        std::fs::write(&file, format!("{seconds:+}"))
            .map_err(FaultError::io("setting a clock wrong"))?;
        Ok(Injected {
            detail: Some(format!("by {seconds} s")),
            hold: Hold::Clock(file, seconds),
            ..Injected::of(vec![node])
        })
    }

    pub(super) fn set_clock_right(&self, node: u64, file: &Path) -> Result<(), FaultError> {
        std::fs::write(file, "+0").map_err(FaultError::io("setting a clock right"))?;
        self.excuses.clock_is_right(node);
        Ok(())
    }

    /// Stops every node in good order and starts it again, one after another.
    pub(super) async fn restart_all(&mut self) -> Injected {
        Injected {
            hold: Hold::Restarting,
            ..Injected::of(self.running().await)
        }
    }

    /// Stops and starts them. One that takes too long does not hold the others up.
    pub(super) async fn restart_each(&mut self, nodes: &[u64]) -> Result<(), FaultError> {
        let cluster = Arc::clone(&self.cluster);
        for id in nodes {
            let mut cluster = cluster.lock().await;
            let Some(node) = cluster.find(*id) else {
                continue;
            };
            match timeout(STOP_LIMIT, node.stop()).await.ok().transpose()? {
                Some(None) => {}
                Some(Some(status)) if status.success() => {}
                Some(Some(status)) => self
                    .findings
                    .push(Finding::Ended(format!("node {id}, told to stop: {status}"))),
                None => {
                    self.find(Finding::NotLive(format!(
                        "node {id} does not stop within {} s of SIGTERM",
                        STOP_LIMIT.as_secs()
                    )));
                    node.kill().await?;
                }
            }
            node.start()?;
            match cluster.wait_ready().await {
                // Ends are judged where all are: a member may have been removed
                // while it was down, and says so.
                Ok(()) | Err(ClusterError::Ended { .. }) => {}
                Err(late) => {
                    let what = format!("after the restart of node {id}: {late}");
                    self.find(Finding::NotLive(what));
                }
            }
        }
        Ok(())
    }

    pub(super) async fn transfer(&mut self) -> Result<Injected, FaultError> {
        let to = self.follower().await?;
        match self.stage.client.transfer_leader(to).await {
            Ok(done) => Ok(Injected {
                detail: Some(format!(
                    "node {} leads in term {}",
                    done.leader_id, done.term
                )),
                ..Injected::of(vec![to])
            }),
            Err(error) => Err(FaultError::NoTarget(error.to_string())),
        }
    }
}
