//! The configuration of one node of a test cluster.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// One node: who it is, where it listens, where its files are.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its id, from 1.
    pub id: u64,
    /// Its loopback address: every node of every cluster has its own, so that
    /// clusters of parallel tests never meet.
    pub ip: String,
    /// Its configuration, data and log.
    pub dir: PathBuf,
    /// The network namespace it runs in; none: the harness's own.
    pub namespace: Option<String>,
}

impl NodeSpec {
    /// `host:port` for clients.
    pub fn client_address(&self) -> String {
        format!("{}:7650", self.ip)
    }

    /// `host:port` for peers.
    pub fn peer_address(&self) -> String {
        format!("{}:7651", self.ip)
    }

    /// `host:port` for metrics and probes.
    pub fn admin_address(&self) -> String {
        format!("{}:7652", self.ip)
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the process prints.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("node.log")
    }
}

/// `count` nodes with files under `dir`.
pub fn specs(dir: &Path, count: u64) -> Vec<NodeSpec> {
    (1..=count).map(|id| spec(dir, id)).collect()
}

/// The node `id` with files under `dir`.
pub fn spec(dir: &Path, id: u64) -> NodeSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    // 127.64.0.0/10, spread by process and node: 22 bits.
    let serial = (pid.wrapping_mul(64)).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let [_, b, c, d] = (serial & 0x3f_ffff).to_be_bytes();
    NodeSpec {
        id,
        ip: format!("127.{}.{c}.{d}", 64 + (b & 0x3f)),
        dir: dir.join(format!("node{id}")),
        namespace: None,
    }
}

/// The configuration of `spec` in a cluster of `all`, with `extra` sections;
/// with nobody in `all` the node waits to be given a cluster.
pub fn toml(spec: &NodeSpec, all: &[NodeSpec], extra: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "[node]\nid = {}\ndata_dir = \"{}\"\n\n[listen]\nclient = \"{}\"\npeer = \"{}\"\nadmin = \"{}\"\n\n[cluster]\nname = \"test\"\n",
        spec.id,
        spec.data_dir().display(),
        spec.client_address(),
        spec.peer_address(),
        spec.admin_address(),
    );
    for member in all {
        let _ = write!(
            text,
            "\n[[cluster.initial_members]]\nid = {}\npeer_address = \"{}\"\nclient_address = \"{}\"\n",
            member.id,
            member.peer_address(),
            member.client_address(),
        );
    }
    text.push('\n');
    text.push_str(extra);
    text
}
