//! A cluster of real processes.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use huntlog_proto::v1::admin_service_client::AdminServiceClient;
use huntlog_proto::v1::{GetStatusRequest, GetStatusResponse};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::config::{NodeSpec, spec, specs, toml};
use crate::disk::{DiskError, LoopDisk};
use crate::node::{NodeProcess, ProcessError};

/// Between two looks at a node's status: there is no event to await from
/// another process.
const POLL: Duration = Duration::from_millis(20);

/// How long a cluster has for what takes seconds on a slow machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Lines of a node's log that are shown with an error.
const LAST_LINES: usize = 15;

/// Why a cluster did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A process could not be handled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A disk could not be handled.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Somebody else listens where a node would.
    #[error("node {node} can not listen on {address}: {source}")]
    Port {
        /// The node.
        node: u64,
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A node ended that nobody had ended.
    #[error("node {node} has ended by itself; its last lines:\n{log}")]
    Ended {
        /// The node.
        node: u64,
        /// The end of its log.
        log: String,
    },
    /// It took too long.
    #[error("{what} did not come about within {} s; the nodes' last lines:\n{logs}", limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The end of each node's log.
        logs: String,
    },
}

/// Real nodes, with their files in a temporary directory.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<NodeProcess>,
    /// By node, if they have disks of their own; unmounted after the nodes are
    /// killed and before the directory is removed.
    disks: BTreeMap<u64, LoopDisk>,
    dir: PathBuf,
    /// Removed with the cluster.
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Writes the configurations of `count` nodes, and starts none. `extra` is
    /// appended to each; without timers in it they have more patient ones than the defaults.
    ///
    /// # Errors
    /// When the files can not be written.
    pub fn prepare(count: u64, extra: &str) -> Result<Self, ClusterError> {
        let dir = TempDir::with_prefix("huntlog-test-")
            .map_err(|source| ProcessError::io("making a temporary directory", source))?;
        let specs = specs(dir.path(), count);
        let mut cluster = Self::prepare_at(dir.path(), specs, &with_timers(extra))?;
        cluster._temporary = Some(dir);
        Ok(cluster)
    }

    /// The same with these nodes, whose files are under `dir` and stay there, and whose
    /// timers are the defaults unless `extra` has others.
    ///
    /// # Errors
    /// When the files can not be written.
    pub fn prepare_at(dir: &Path, specs: Vec<NodeSpec>, extra: &str) -> Result<Self, ClusterError> {
        for spec in &specs {
            write_files(spec, &specs, extra)?;
        }
        Ok(Self {
            nodes: specs.into_iter().map(NodeProcess::new).collect(),
            disks: BTreeMap::new(),
            dir: dir.to_owned(),
            _temporary: None,
        })
    }

    /// Gives the node `id` a disk of its own for its data, before its first
    /// start.
    ///
    /// # Errors
    /// When this machine has no such disks: [`LoopDisk::unavailable`] says why.
    pub fn add_disk(&mut self, id: u64, size_bytes: u64) -> Result<(), ClusterError> {
        let data_dir = self.node(id).spec().data_dir();
        let disk = LoopDisk::create(&data_dir, size_bytes)?;
        self.disks.insert(id, disk);
        Ok(())
    }

    /// The disk of the node `id`.
    ///
    /// # Panics
    /// When it was given none.
    pub fn disk(&self, id: u64) -> &LoopDisk {
        self.disks.get(&id).expect("a node with a disk of its own")
    }

    /// Whether the node `id` has a disk of its own.
    pub fn has_disk(&self, id: u64) -> bool {
        self.disks.contains_key(&id)
    }

    /// Cuts the power of these nodes at once, and brings it back: what was not
    /// synced is gone, and their processes have ended.
    ///
    /// # Errors
    /// When a disk or a process can not be handled.
    ///
    /// # Panics
    /// When one of them has no disk of its own.
    pub async fn cut_power(&mut self, ids: &[u64]) -> Result<(), ClusterError> {
        for id in ids {
            self.disk(*id).shut_down()?;
        }
        for id in ids {
            self.node(*id).kill().await?;
        }
        for id in ids {
            self.disk(*id).remount()?;
        }
        Ok(())
    }

    /// The same, of nodes that wait to be given a cluster.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_waiting(count: u64) -> Result<Self, ClusterError> {
        let mut cluster = Self::prepare(0, "")?;
        for id in 1..=count {
            cluster.prepare_node(id, "")?;
        }
        Ok(cluster)
    }

    /// Writes the configuration of one more node, which waits to be given a
    /// cluster, and does not start it. `extra` is as in [`Self::prepare`].
    ///
    /// # Errors
    /// When the files can not be written.
    pub fn prepare_node(&mut self, id: u64, extra: &str) -> Result<&NodeSpec, ClusterError> {
        self.prepare_spec(spec(&self.dir, id), &with_timers(extra))
    }

    /// The same of a node of which more than the id is given, and whose timers are the
    /// defaults unless `extra` has others.
    ///
    /// # Errors
    /// When the files can not be written.
    pub fn prepare_spec(&mut self, spec: NodeSpec, extra: &str) -> Result<&NodeSpec, ClusterError> {
        write_files(&spec, &[], extra)?;
        self.nodes.push(NodeProcess::new(spec));
        Ok(self.nodes.last().expect("one was pushed").spec())
    }

    /// Starts `count` nodes and waits until all are ready.
    ///
    /// # Errors
    /// When one is not within half a minute.
    pub async fn start(count: u64) -> Result<Self, ClusterError> {
        let mut cluster = Self::prepare(count, "")?;
        cluster.start_all()?;
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// When a process does not start, or somebody listens where it would.
    pub fn start_all(&mut self) -> Result<(), ClusterError> {
        for node in self.nodes.iter().filter(|node| !node.runs()) {
            ports_free(node.spec())?;
        }
        for node in self.nodes.iter_mut().filter(|node| !node.runs()) {
            node.start()?;
        }
        Ok(())
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    /// The same, to be handled.
    pub fn nodes_mut(&mut self) -> &mut [NodeProcess] {
        &mut self.nodes
    }

    /// The node `id`.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&mut self, id: u64) -> &mut NodeProcess {
        self.nodes
            .iter_mut()
            .find(|node| node.spec().id == id)
            .expect("a node of this cluster")
    }

    /// The node `id`, if it belongs to the cluster still.
    pub fn find(&mut self, id: u64) -> Option<&mut NodeProcess> {
        self.nodes.iter_mut().find(|node| node.spec().id == id)
    }

    /// Ends the node `id`, which belongs to the cluster no more, and answers what
    /// is left of it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn remove(&mut self, id: u64) -> Result<Option<NodeProcess>, ClusterError> {
        let position = self.nodes.iter().position(|node| node.spec().id == id);
        let mut removed = position.map(|position| self.nodes.remove(position));
        if let Some(node) = &mut removed {
            node.kill().await?;
        }
        self.disks.remove(&id);
        Ok(removed)
    }

    /// The client addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.spec().client_address())
            .collect()
    }

    /// What the node `id` says of itself; `None` when it does not answer.
    pub async fn status(&self, id: u64) -> Option<GetStatusResponse> {
        let node = self.nodes.iter().find(|node| node.spec().id == id)?;
        if !node.runs() {
            return None;
        }
        let channel = channel(&node.spec().client_address()).await?;
        let call = AdminServiceClient::new(channel);
        let status = tokio::time::timeout(Duration::from_secs(1), async move {
            let mut call = call;
            call.get_status(GetStatusRequest {}).await
        });
        Some(status.await.ok()?.ok()?.into_inner())
    }

    /// Waits until every running node is ready.
    ///
    /// # Errors
    /// When one is not within half a minute; at once when one ends.
    pub async fn wait_ready(&self) -> Result<(), ClusterError> {
        self.wait_ready_within(READY_LIMIT).await
    }

    /// The same, no longer than `limit`.
    ///
    /// # Errors
    /// As [`Self::wait_ready`].
    pub async fn wait_ready_within(&self, limit: Duration) -> Result<(), ClusterError> {
        let ready = async || {
            for node in self.nodes.iter().filter(|node| node.runs()) {
                if node.has_exited() {
                    return Some(Err(ClusterError::Ended {
                        node: node.spec().id,
                        log: last_lines(node),
                    }));
                }
                let status = self.status(node.spec().id).await?;
                if status.partitions.is_empty() || status.partitions.iter().any(|p| !p.ready) {
                    return None;
                }
            }
            Some(Ok(()))
        };
        self.wait_within(limit, "every running node being ready", ready)
            .await?
    }

    /// Waits until the running nodes agree on a leader among them, and answers
    /// its id.
    ///
    /// # Errors
    /// When they do not within half a minute.
    pub async fn leader(&self) -> Result<u64, ClusterError> {
        self.wait_for("a leader", async || {
            let mut leader = None;
            for node in self.nodes.iter().filter(|node| node.runs()) {
                let status = self.status(node.spec().id).await?;
                let seen = status.partitions.first()?.leader_id;
                if seen == 0 || leader.is_some_and(|leader| leader != seen) {
                    return None;
                }
                leader = Some(seen);
            }
            let leader = leader?;
            self.nodes
                .iter()
                .any(|node| node.spec().id == leader && node.runs())
                .then_some(leader)
        })
        .await
    }

    /// Waits until every running node has applied the same, and answers the log
    /// index and the digests, one for each.
    ///
    /// # Errors
    /// When they have not within half a minute.
    pub async fn settled_digests(&self) -> Result<(u64, Vec<Vec<u8>>), ClusterError> {
        self.settled_digests_within(READY_LIMIT).await
    }

    /// The same, no longer than `limit`.
    ///
    /// # Errors
    /// As [`Self::settled_digests`].
    pub async fn settled_digests_within(
        &self,
        limit: Duration,
    ) -> Result<(u64, Vec<Vec<u8>>), ClusterError> {
        self.wait_within(limit, "the same applied index on every node", async || {
            let mut index = None;
            let mut digests = Vec::new();
            for node in self.nodes.iter().filter(|node| node.runs()) {
                let status = self.status(node.spec().id).await?;
                let partition = status.partitions.first()?;
                if index.is_some_and(|index| index != partition.digest_log_index) {
                    return None;
                }
                index = Some(partition.digest_log_index);
                digests.push(partition.digest.to_vec());
            }
            Some((index?, digests))
        })
        .await
    }

    /// Waits for `condition`.
    ///
    /// # Errors
    /// When it does not come about within half a minute; with the nodes' last
    /// log lines.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        condition: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, ClusterError> {
        self.wait_within(READY_LIMIT, what, condition).await
    }

    /// Waits for `condition`, no longer than `limit`.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub async fn wait_within<T>(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, ClusterError> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(value) = condition().await {
                return Ok(value);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ClusterError::Timeout {
            what: what.to_owned(),
            limit,
            logs: self.last_lines(),
        })
    }

    /// The end of each node's log.
    pub fn last_lines(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text.push_str(&format!("--- node {}\n", node.spec().id));
            text.push_str(&last_lines(node));
        }
        text
    }
}

fn last_lines(node: &NodeProcess) -> String {
    let log = node.log();
    let lines: Vec<&str> = log.lines().collect();
    let start = lines.len().saturating_sub(LAST_LINES);
    let lines = lines[start..].iter();
    lines.flat_map(|line| [*line, "\n"]).collect()
}

/// A node in a namespace of its own has it for itself.
fn ports_free(spec: &NodeSpec) -> Result<(), ClusterError> {
    if spec.namespace.is_some() {
        return Ok(());
    }
    for address in [
        spec.client_address(),
        spec.peer_address(),
        spec.admin_address(),
    ] {
        TcpListener::bind(&address).map_err(|source| ClusterError::Port {
            node: spec.id,
            address,
            source,
        })?;
    }
    Ok(())
}

/// `extra` with timers for tests: several clusters of unoptimised nodes share the cores
/// there, and a node that gets none for a while is not to be taken for dead. The runs
/// of `huntlog-jepsen run` and its matrix have the defaults.
fn with_timers(extra: &str) -> String {
    const PATIENT: &str =
        "[raft]\nheartbeat_ms = 50\nelection_min_ms = 150\nelection_max_ms = 300\n";
    match extra.contains("[raft]") {
        true => extra.to_owned(),
        false => format!("{extra}\n{PATIENT}"),
    }
}

fn write_files(spec: &NodeSpec, members: &[NodeSpec], extra: &str) -> Result<(), ClusterError> {
    fs::create_dir_all(&spec.dir)
        .and_then(|()| fs::write(spec.config_file(), toml(spec, members, extra)))
        .map_err(|source| ProcessError::io("writing a configuration", source).into())
}

/// A connection to `address`; `None` when nobody listens.
pub async fn channel(address: &str) -> Option<Channel> {
    Endpoint::from_shared(format!("http://{address}"))
        .ok()?
        .connect_timeout(Duration::from_millis(500))
        .connect()
        .await
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let mut cluster = Cluster::prepare(1, "").expect("prepared");
        let address = cluster.nodes()[0].spec().peer_address();
        let _taken = TcpListener::bind(&address).expect("free");
        let error = cluster.start_all().expect_err("it is in use");
        let said = error.to_string();
        assert!(said.contains(&address) && said.contains("node 1"), "{said}");
        assert!(!cluster.nodes()[0].runs(), "nothing was started");
    }
}
