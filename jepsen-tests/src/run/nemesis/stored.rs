//! Faults of what a node has stored: a byte that changes, a directory that is empty.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rand::RngExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::super::finale::Finding;
use super::Injector;
use super::disks::{found, replaced};
use super::faults::{FaultError, Hold, Injected};
use crate::cluster::Cluster;

/// How long a node may take to refuse to start.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at whether it has.
const REFUSAL_POLL: Duration = Duration::from_millis(50);

impl Injector {
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
        // It reads old entries when somebody asks for them, which need not happen
        // while the damage is there.
        let inspected = node.inspect().await;
        if inspected.is_err() {
            flip(&file, at)?;
        }
        node.start()?;
        Ok(Injected {
            detail: Some(format!("byte {at} of {}", file.display())),
            hold: Hold::Flipped {
                named: is_damaged(&inspected?, &file),
                file,
                at,
            },
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
            "it did not run with it"
        } else {
            node.kill().await?;
            "it ran with what an inspection names"
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
        // Until the cluster knows it, a node may change its directory.
        if ready(&cluster, id).await != Some(true) {
            return Err(FaultError::NoTarget(format!("node {id} is not in service")));
        }
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

    /// Waits until the node that was started empty is refused, which it has to be. False
    /// if it meets nobody who could: one that finds no others asks for ever.
    pub(super) async fn meets_the_others(&mut self, id: u64) -> bool {
        let cluster = Arc::clone(&self.cluster);
        let deadline = Instant::now() + REFUSAL_LIMIT;
        let mut others_were_there = true;
        while Instant::now() < deadline {
            let mut cluster = cluster.lock().await;
            let Some(node) = cluster.find(id) else {
                // It was replaced meanwhile.
                return false;
            };
            if node.has_ended() {
                return true;
            }
            if ready(&cluster, id).await == Some(true) {
                self.find(Finding::Accepted(format!(
                    "node {id} came back empty under its old id and was taken in"
                )));
                return true;
            }
            others_were_there &= most_others_ready(&cluster, id).await;
            drop(cluster);
            sleep(REFUSAL_POLL).await;
        }
        if others_were_there {
            self.find(Finding::Accepted(format!(
                "node {id} came back empty under its old id and was not refused within {} s, \
                 though most of the others were there all the time",
                REFUSAL_LIMIT.as_secs()
            )));
        }
        others_were_there
    }

    /// Gives the node its data back.
    pub(super) async fn end_emptied(
        &mut self,
        id: u64,
        dir: &Path,
    ) -> Result<Option<String>, FaultError> {
        let mut cluster = self.cluster.lock().await;
        let Some(node) = cluster.find(id) else {
            return Ok(replaced());
        };
        let told = match node.has_ended() {
            true => "it was refused",
            false => "it was not refused",
        };
        node.kill().await?;
        fs::remove_dir_all(dir).map_err(FaultError::io("removing an empty directory"))?;
        node.start()?;
        Ok(Some(told.to_owned()))
    }
}

/// Whether more than half of the nodes beside `id` are in service.
async fn most_others_ready(cluster: &Cluster, id: u64) -> bool {
    let ids = cluster.nodes().iter().map(|node| node.spec().id);
    let others: Vec<u64> = ids.filter(|other| *other != id).collect();
    let ready = join_all(others.iter().map(|other| ready(cluster, *other))).await;
    let there = ready.iter().filter(|ready| **ready == Some(true)).count();
    there > others.len() / 2
}

/// Whether an inspection has found `file` to be damaged; what a crash leaves behind
/// is no damage.
fn is_damaged(inspection: &Value, file: &Path) -> bool {
    let file = file.display().to_string();
    let findings = inspection["findings"].as_array().into_iter().flatten();
    let mut of_it = findings.filter(|finding| finding["file"] == file);
    of_it.any(|finding| finding["severity"] != "note")
}

/// Whether the node `id` is in service, if it answers.
async fn ready(cluster: &Cluster, id: u64) -> Option<bool> {
    let status = cluster.status(id).await?;
    Some(status.partitions.first()?.ready)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn damage_is_named_with_its_file_and_a_torn_tail_is_none() {
        let (file, other) = ("1.segment", "2.segment");
        let named = |severity: &str, of: &str| {
            let found = json!({"findings": [{"severity": severity, "file": of}]});
            is_damaged(&found, Path::new(file))
        };
        assert!(named("refused", file));
        assert!(!named("refused", other) && !named("note", file));
        assert!(!is_damaged(&json!({"findings": []}), Path::new(file)));
    }
}
