//! Faults of disks, and of what is on them.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

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
/// How long a node may take to refuse to start.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

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

    /// Changes a byte of a follower's log while it is down, and starts it.
    pub(super) async fn damage(&mut self) -> Result<Injected, FaultError> {
        let id = self.follower().await?;
        let mut cluster = self.cluster.lock().await;
        let node = found(&mut cluster, id)?;
        let file = oldest_segment(&node.spec().data_dir())?;
        node.kill().await?;
        let bytes = fs::read(&file).map_err(FaultError::io("reading a segment"))?;
        // What has not been written yet is zero. The later half may be what the
        // kill tore.
        let written = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .unwrap_or_default();
        let at = self.random.random_range(0..=written / 2);
        flip(&file, at)?;
        node.start()?;
        Ok(Injected {
            detail: Some(format!("byte {at} of {}", file.display())),
            hold: Hold::Flipped(file, at),
            ..Injected::of(vec![id])
        })
    }

    /// Sets the byte right and starts the node again; tells what it did with the
    /// damage.
    pub(super) async fn undo_damage(
        &mut self,
        id: u64,
        file: &Path,
        at: usize,
    ) -> Result<Option<String>, FaultError> {
        let mut cluster = self.cluster.lock().await;
        let Some(node) = cluster.find(id) else {
            return Ok(replaced());
        };
        let told = if node.has_ended() {
            "it refused to start"
        } else {
            node.kill().await?;
            "it ran with it"
        };
        // Unless it has given the segment up meanwhile.
        if file.exists() {
            flip(file, at)?;
        }
        node.start()?;
        Ok(Some(told.to_owned()))
    }

    /// Starts a follower on an empty directory.
    pub(super) async fn empty(&mut self) -> Result<Injected, FaultError> {
        let id = self.follower().await?;
        let mut cluster = self.cluster.lock().await;
        let node = found(&mut cluster, id)?;
        node.kill().await?;
        let dir = node.spec().dir.join("empty");
        let data_dir = dir.display().to_string();
        node.start_with(&[("HUNTLOG_NODE__DATA_DIR", &data_dir)])?;
        Ok(Injected {
            hold: Hold::Empty(dir),
            ..Injected::of(vec![id])
        })
    }

    /// Gives the node its data back. It has to have refused to run without.
    pub(super) async fn end_emptied(
        &mut self,
        id: u64,
        dir: &Path,
    ) -> Result<Option<String>, FaultError> {
        let cluster = Arc::clone(&self.cluster);
        let mut cluster = cluster.lock().await;
        let deadline = tokio::time::Instant::now() + REFUSAL_LIMIT;
        let ready = async |cluster: &Cluster| {
            let status = cluster.status(id).await?;
            Some(status.partitions.first()?.ready)
        };
        let told = loop {
            let Some(node) = cluster.find(id) else {
                return Ok(replaced());
            };
            if node.has_ended() {
                break "it was refused";
            }
            if ready(&cluster).await == Some(true) {
                self.find(Finding::Accepted(format!(
                    "node {id} came back empty under its old id and was not refused"
                )));
                break "it was taken in";
            }
            // One that asks its peers for ever is not taken in either.
            if tokio::time::Instant::now() > deadline {
                break "it was not taken in";
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let node = found(&mut cluster, id)?;
        node.kill().await?;
        fs::remove_dir_all(dir).map_err(FaultError::io("removing an empty directory"))?;
        node.start()?;
        Ok(Some(told.to_owned()))
    }
}

/// What is told of a node that left the members while it was held.
fn replaced() -> Option<String> {
    Some("it was replaced meanwhile".to_owned())
}

/// The node `id`, unless it was replaced meanwhile.
fn found(cluster: &mut Cluster, id: u64) -> Result<&mut NodeProcess, FaultError> {
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

/// Changes one bit, or changes it back.
fn flip(file: &Path, at: usize) -> Result<(), FaultError> {
    let mut byte = [0];
    File::options()
        .read(true)
        .write(true)
        .open(file)
        .and_then(|file| {
            file.read_exact_at(&mut byte, at as u64)?;
            file.write_all_at(&[byte[0] ^ 0x10], at as u64)?;
            file.sync_all()
        })
        .map_err(FaultError::io("changing a byte of a segment"))
}

/// The log file that was begun first.
fn oldest_segment(data_dir: &Path) -> Result<PathBuf, FaultError> {
    let dir = data_dir.join("segments");
    let entries = fs::read_dir(&dir).map_err(FaultError::io(dir.display().to_string()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
        .into_iter()
        .next()
        .ok_or_else(|| FaultError::NoTarget("it has no segments".to_owned()))
}
