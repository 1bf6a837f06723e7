//! Whole nodes in one process, over real sockets and disks, where a test has to
//! reach into one of them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use huntlog_machine::{
    CommandResult, EncodedCommand, Event, EventKind, LogId, Machine, encode_batch,
    encode_open_session,
};
use tempfile::TempDir;

use super::*;
use crate::config::Sources;
use crate::limits;
use crate::partition::{Leadership, WriteError};

mod digests;
mod levels;
mod members;
mod snapshots;
mod stopping;
mod succession;
mod transfer;

/// Everything that is waited for happens well within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes of one cluster, by id from 1.
pub(super) struct Nodes {
    dir: TempDir,
    running: BTreeMap<NodeId, Node>,
    /// What the configuration of every node has beside the usual.
    adjust: fn(&mut Config),
    /// What nodes run on, where it is not this machine as it is.
    hosts: BTreeMap<NodeId, Arc<dyn Host>>,
}

/// A loopback address for each node: those of tests at the same time differ.
fn address(id: NodeId, of: &TempDir) -> IpAddr {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of.path());
    let [b, c, ..] = hash.to_le_bytes();
    // 127.128.0.0/9; the last byte tells the nodes of a cluster apart.
    IpAddr::from([127, 128 | b, c, u8::try_from(id).expect("few nodes")])
}

impl Nodes {
    /// A cluster of `count`, which has a leader.
    pub(super) async fn start(count: NodeId) -> Self {
        Self::start_with(count, |_| {}).await
    }

    /// As [`Self::start`], with another configuration.
    pub(super) async fn start_with(count: NodeId, adjust: fn(&mut Config)) -> Self {
        Self::start_all(count, adjust, BTreeMap::new()).await
    }

    /// As [`Self::start`], each node on its own host.
    pub(super) async fn start_on(hosts: BTreeMap<NodeId, Arc<dyn Host>>) -> Self {
        Self::start_all(hosts.len() as NodeId, |_| {}, hosts).await
    }

    async fn start_all(
        count: NodeId,
        adjust: fn(&mut Config),
        hosts: BTreeMap<NodeId, Arc<dyn Host>>,
    ) -> Self {
        let mut nodes = Self {
            dir: tempfile::tempdir().expect("a directory"),
            running: BTreeMap::new(),
            adjust,
            hosts,
        };
        for id in 1..=count {
            nodes.start_node(id, count).await;
        }
        for id in 1..=count {
            nodes.ready(id).await;
            nodes.founded(id).await;
        }
        nodes
    }

    pub(super) async fn start_node(&mut self, id: NodeId, count: NodeId) {
        let (config, metrics) = self.configuration(id, count);
        let node = match self.hosts.get(&id) {
            Some(host) => Node::start_on(host.clone(), config, metrics).await,
            None => Node::start(config, metrics).await,
        };
        self.running.insert(id, node.expect("it starts"));
    }

    /// What `id` of `count` nodes is started with.
    fn configuration(&self, id: NodeId, count: NodeId) -> (Config, Arc<Metrics>) {
        let node_dir = self.dir.path().join(format!("node{id}"));
        std::fs::create_dir_all(&node_dir).expect("a directory");
        let mut text = format!(
            "[node]\nid = {id}\ndata_dir = \"{}\"\n\n[listen]\n",
            node_dir.join("data").display()
        );
        let own = address(id, &self.dir);
        for (port, name) in [(7650, "client"), (7651, "peer"), (7652, "admin")] {
            let _ = writeln!(text, "{name} = \"{own}:{port}\"");
        }
        // Longer than a busy machine's pauses: the leader stays the same.
        text.push_str(
            "\n[raft]\nheartbeat_ms = 100\nelection_min_ms = 1000\nelection_max_ms = 1500\n",
        );
        text.push_str("\n[cluster]\nname = \"test\"\n");
        for member in 1..=count {
            let ip = address(member, &self.dir);
            let _ = writeln!(
                text,
                "\n[[cluster.initial_members]]\nid = {member}\npeer_address = \"{ip}:7651\"\nclient_address = \"{ip}:7650\""
            );
        }
        let file = node_dir.join("node.toml");
        std::fs::write(&file, text).expect("a file");
        let sources = Sources {
            file,
            environment: Vec::new(),
            flags: Vec::new(),
        };
        let mut config = Config::load(&sources)
            .expect("a sound configuration")
            .config;
        (self.adjust)(&mut config);
        (config, Arc::new(Metrics::new("test", id, "test")))
    }

    /// Waits until `id` has joined and caught up.
    pub(super) async fn ready(&self, id: NodeId) {
        let ready = async {
            loop {
                let partition = self.running[&id].partitions.lock().first().cloned();
                if let Some(partition) = partition
                    && partition
                        .linearizable(Instant::now() + PATIENCE)
                        .await
                        .is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, ready).await;
        waited.unwrap_or_else(|_| panic!("node {id} is not ready"));
    }

    /// Waits until the level at which the cluster is formed is in force on `id`:
    /// nobody writes anything then but who is told to.
    async fn founded(&self, id: NodeId) {
        let changer = self.running[&id].context.changer().expect("it is set");
        let founding = changer.state().identity().founding_level();
        let replica = self.partition(id).replica().clone();
        let level = founding.expect("it decodes");
        assert!(replica.wait_level(level, Instant::now() + PATIENCE).await);
    }

    pub(super) fn partition(&self, id: NodeId) -> Arc<Partition> {
        self.running[&id].partitions.lock()[0].clone()
    }

    pub(super) fn leader(&self) -> NodeId {
        let leads = |id: &&NodeId| self.partition(**id).leadership() == Leadership::Local;
        *self.running.keys().find(leads).expect("one leads")
    }

    pub(super) fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader();
        self.running
            .keys()
            .copied()
            .filter(|id| *id != leader)
            .collect()
    }

    /// Stops `id` in good order.
    pub(super) async fn stop(&mut self, id: NodeId) {
        let node = self.running.remove(&id).expect("it runs");
        node.shutdown().await;
    }

    /// Why `id` fails, which it must.
    pub(super) async fn failure(&mut self, id: NodeId) -> NodeError {
        let node = self.running.get_mut(&id).expect("it runs");
        tokio::time::timeout(PATIENCE, node.failed())
            .await
            .unwrap_or_else(|_| panic!("node {id} goes on"))
    }

    /// Has the leader commit and apply `command`.
    pub(super) async fn write(&self, command: EncodedCommand) -> Result<CommandResult, WriteError> {
        let receiver = self.partition(self.leader()).submit(command)?;
        let written = tokio::time::timeout(PATIENCE, receiver).await;
        let answer = written.expect("in time").expect("an answer");
        answer.map(|committed| committed.result)
    }

    pub(super) async fn stop_all(self) {
        futures::future::join_all(self.running.into_values().map(Node::shutdown)).await;
    }
}

/// Opens a session that is not known yet.
pub(super) fn opening(name: &str) -> EncodedCommand {
    encode_open_session(name, b"a nonce of ours")
}

/// A batch of events that no hunt takes: they are decided upon all the same.
pub(super) fn batch(session: &str, epoch: u64, sequence: u64) -> EncodedCommand {
    encode_batch(&huntlog_machine::Batch {
        session: session.to_owned(),
        epoch,
        sequence,
        expected: Vec::new(),
        events: vec![Event {
            hunt: "nowhere".to_owned(),
            player: String::new(),
            occurred_at: None,
            kind: EventKind::HuntOpened,
        }],
    })
}

/// A machine as far as `like`, that came to something else.
pub(super) fn diverged(like: &Machine) -> Machine {
    let last = like.last_applied().expect("something is applied");
    let mut other = Machine::new(0, huntlog_machine::Limits::default());
    for index in 0..=last.index {
        let id = LogId { index, ..last };
        other.apply_blank(id).expect("the next one");
    }
    other
}
