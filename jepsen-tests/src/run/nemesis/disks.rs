//! Faults of disks.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::super::finale::Finding;
use super::super::prepare::SCARCE_BYTES;
use super::faults::{FaultError, Hold, Injected};
use super::victims::Who;
use super::{Injector, Nemesis};
use crate::cluster::Cluster;
use crate::injection::Injection;
use crate::node::NodeProcess;

/// What a disk has left before the rest of it is written full, piece by piece: to
/// set all of it aside at once, a file system has to have room for its own notes.
const LAST_BYTES: u64 = 64 << 10;
const PIECE_BYTES: usize = 4 << 10;

impl Injector {
    pub(super) async fn cut_power(&mut self, who: Who) -> Result<Injected, FaultError> {
        let mut nodes = self.victims(who).await?;
        let mut cluster = self.cluster.lock().await;
        nodes.retain(|id| cluster.has_disk(*id));
        if nodes.is_empty() {
            let why = "none of them has a disk of its own";
            return Err(FaultError::NoTarget(why.to_owned()));
        }
        cluster.cut_power(&nodes).await?;
        Ok(Injected {
            hold: Hold::Ended,
            ..Injected::of(nodes)
        })
    }

    pub(super) async fn fill_disk(&mut self) -> Result<Injected, FaultError> {
        let node = self.leader().await?;
        let cluster = self.cluster.lock().await;
        if !cluster.has_disk(node) {
            return Err(FaultError::NoTarget(format!(
                "node {node} has no disk of its own"
            )));
        }
        if self.stage.plan.nemesis == Nemesis::DiskFull {
            // What was written since the last fault is not to fill them by itself.
            for other in cluster.nodes().iter().map(|node| node.spec().id) {
                cluster.disk(other).fill(SCARCE_BYTES)?;
            }
        }
        let ballast = cluster.disk(node).fill(LAST_BYTES)?;
        write_full(&ballast)?;
        Ok(Injected {
            hold: Hold::Ballast(ballast),
            ..Injected::of(vec![node])
        })
    }

    pub(super) async fn slow_disk(&mut self) -> Result<Injected, FaultError> {
        self.strace("fdatasync:delay_enter=200000", Hold::Slow)
            .await
    }

    pub(super) async fn fail_disk(&mut self) -> Result<Injected, FaultError> {
        self.strace("fdatasync:error=EIO:when=2", Hold::Failing)
            .await
    }

    async fn strace(
        &mut self,
        fault: &str,
        hold: impl FnOnce(Injection) -> Hold,
    ) -> Result<Injected, FaultError> {
        let node = self.leader().await?;
        let mut cluster = self.cluster.lock().await;
        let injection = Injection::attach(found(&mut cluster, node)?, fault, &[]).await?;
        Ok(Injected {
            detail: Some(fault.to_owned()),
            hold: hold(injection),
            ..Injected::of(vec![node])
        })
    }

    /// Detaches strace, and starts the node again, which has to have ended if a
    /// sync has failed.
    pub(super) async fn end_failing(
        &mut self,
        id: u64,
        injection: Injection,
    ) -> Result<Option<String>, FaultError> {
        let failed = injection.count();
        drop(injection);
        let told = self.start(&[id]).await?;
        let is_member = self.cluster.lock().await.find(id).is_some();
        if failed > 0 && told.is_none() && is_member {
            self.find(Finding::Accepted(format!(
                "node {id} goes on although {failed} of its syncs failed"
            )));
        }
        Ok(told)
    }

    /// Makes room on the disk, and starts the node again if it has ended.
    pub(super) async fn make_room(
        &mut self,
        id: u64,
        ballast: &Path,
    ) -> Result<Option<String>, FaultError> {
        {
            let cluster = self.cluster.lock().await;
            // A node that was replaced meanwhile has taken its disk with it.
            if !cluster.has_disk(id) {
                return Ok(replaced());
            }
            if self.stage.plan.nemesis == Nemesis::DiskFull {
                cluster.disk(id).fill(SCARCE_BYTES)?;
            } else {
                fs::remove_file(ballast).map_err(FaultError::io("making room"))?;
            }
        }
        self.start(&[id]).await
    }

    /// Lets every fdatasync of every node do nothing and say that it did.
    pub(super) async fn lie(&mut self) -> Result<Injected, FaultError> {
        let mut cluster = self.cluster.lock().await;
        let ids: Vec<u64> = cluster.nodes().iter().map(|node| node.spec().id).collect();
        let mut injections = Vec::new();
        for id in &ids {
            let node = found(&mut cluster, *id)?;
            injections.push(Injection::attach(node, "fdatasync:retval=0", &[]).await?);
        }
        Ok(Injected {
            hold: Hold::Lie(injections),
            ..Injected::of(ids)
        })
    }
}

/// What is told of a node that left the members while it was held.
pub(super) fn replaced() -> Option<String> {
    Some("it was replaced meanwhile".to_owned())
}

/// The node `id`, unless it was replaced meanwhile.
pub(super) fn found(cluster: &mut Cluster, id: u64) -> Result<&mut NodeProcess, FaultError> {
    cluster
        .find(id)
        .ok_or_else(|| FaultError::NoTarget(format!("node {id} is no member any more")))
}

/// Appends to the file until the disk is full.
fn write_full(ballast: &Path) -> Result<(), FaultError> {
    let filled = File::options()
        .append(true)
        .open(ballast)
        .and_then(|mut file| {
            loop {
                match file.write_all(&[0; PIECE_BYTES]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
            file.sync_all()
        });
    if filled.is_err() {
        // Nobody else knows of it yet.
        let _ = fs::remove_file(ballast);
    }
    filled.map_err(FaultError::io("filling a disk"))
}
