//! A cluster of its own for a benchmark: real processes on loopback, their
//! files in a temporary directory, both gone at the end.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use huntlog_client::{Client, ClientOptions};
use tempfile::TempDir;

use super::args::CommonArguments;
use super::exposition::is_ready;
use crate::command::cluster::only;
use crate::failure::Failure;

/// How long nodes may take until they are ready, and to agree on a leader.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at another process: there is no event to await.
const POLL: Duration = Duration::from_millis(5);

/// A cluster that is killed and removed when this is dropped.
#[derive(Debug)]
pub struct Spawned {
    nodes: Vec<Node>,
    // After the nodes: their files go when they are gone.
    _directory: TempDir,
}

#[derive(Debug)]
struct Node {
    id: u64,
    client: String,
    peer: String,
    admin: String,
    directory: PathBuf,
    binary: PathBuf,
    process: Option<Child>,
}

impl Spawned {
    /// Starts the cluster that the flags ask for, and waits until it is ready.
    pub async fn start(count: u16, arguments: &CommonArguments) -> Result<Self, Failure> {
        let binary = node_binary()?;
        let directory = match &arguments.spawn_dir {
            Some(parent) => TempDir::with_prefix_in("huntlog-bench-", parent),
            None => TempDir::with_prefix("huntlog-bench-"),
        };
        let directory = directory.map_err(Failure::io("making the cluster's directory"))?;
        let addresses: Vec<String> = ports(count * 3, arguments.spawn_port)?
            .into_iter()
            .map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST))
            .collect();
        let nodes = (1..).zip(addresses.chunks(3)).map(|(id, addresses)| Node {
            id,
            client: addresses[0].clone(),
            peer: addresses[1].clone(),
            admin: addresses[2].clone(),
            directory: directory.path().join(format!("node{id}")),
            binary: binary.clone(),
            process: None,
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            _directory: directory,
        };
        for node in &cluster.nodes {
            let text = configuration(node, &cluster.nodes);
            fs::create_dir(&node.directory)
                .and_then(|()| fs::write(node.file("node.toml"), text))
                .map_err(Failure::io("writing a node's configuration"))?;
        }
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Where clients reach the nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Where their metrics are.
    pub fn admin_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.admin.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Waits until all are ready; how long that took.
    pub async fn wait_ready(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        for node in &mut self.nodes {
            while !is_ready(&node.admin).await {
                node.must_run()?;
                if began.elapsed() > PATIENCE {
                    let id = node.id;
                    return Err(node.failed(&format!("node {id} is not ready after 2 minutes")));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(began.elapsed())
    }

    /// The position of the node that all say is the leader.
    pub async fn leader(&mut self, options: &ClientOptions) -> Result<usize, Failure> {
        let clients = self.nodes.iter().map(|node| only(&node.client, options));
        let clients: Vec<Client> = clients.collect::<Result<_, _>>()?;
        let began = Instant::now();
        loop {
            let mut said = Vec::new();
            for client in &clients {
                let status = client.status().await?;
                let partition = client.partition();
                let of = status.partitions.iter().find(|p| p.partition == partition);
                said.push(of.map_or(0, |partition| partition.leader_id));
            }
            let agreed = said.iter().all(|leader| *leader == said[0]);
            let leader = self.nodes.iter().position(|node| node.id == said[0]);
            if let Some(leader) = leader.filter(|_| agreed) {
                return Ok(leader);
            }
            for node in &mut self.nodes {
                node.must_run()?;
            }
            if began.elapsed() > PATIENCE {
                let words = format!("the nodes do not agree on a leader: they name {said:?}");
                return Err(Failure::Unavailable(words));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills the node at this position: SIGKILL.
    pub fn kill(&mut self, position: usize) -> Result<(), Failure> {
        self.nodes[position].kill()
    }

    /// Starts it again.
    pub fn restart(&mut self, position: usize) -> Result<(), Failure> {
        self.nodes[position].start()
    }
}

impl Node {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("node.log"))
            .map_err(Failure::io("opening a node's log"))?;
        let process = Command::new(&self.binary)
            .arg("run")
            .arg("--config")
            .arg(self.file("node.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C at the terminal is for this process, which then kills
            // the nodes itself.
            .process_group(0)
            .spawn()
            .map_err(Failure::io(format!("starting {}", self.binary.display())))?;
        self.process = Some(process);
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process
            .kill()
            .and_then(|()| process.wait())
            .map(drop)
            .map_err(Failure::io(format!("killing node {}", self.id)))
    }

    fn must_run(&mut self) -> Result<(), Failure> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("node {} ended: {status}", self.id))),
            Err(error) => Err(Failure::io(format!("watching node {}", self.id))(error)),
        }
    }

    /// A failure with what the node said last.
    fn failed(&self, words: &str) -> Failure {
        let log = fs::read_to_string(self.file("node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        Failure::Unavailable(format!("{words}; its last lines:\n  {last}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that is gone already needs no killing.
        let _ = self.kill();
    }
}

/// The server beside this binary: of the same build.
fn node_binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::io("looking for the own binary"))?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let binary = directory.join("huntlog-node");
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(Failure::Usage(format!(
            "--spawn needs {}, which is not there; build or install it beside huntctl",
            binary.display()
        )))
    }
}

/// So many free ports, from `first` on if it is given. They are held together
/// while they are looked for, so that none comes twice.
fn ports(count: u16, first: Option<u16>) -> Result<Vec<u16>, Failure> {
    let mut held = Vec::new();
    for number in 0..count {
        let port = first.map_or(0, |first| first + number);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            Failure::Usage(format!(
                "port {port} can not be taken ({error}); choose another --spawn-port, or leave it out"
            ))
        })?;
        held.push(listener);
    }
    let ports = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()));
    ports
        .collect::<std::io::Result<_>>()
        .map_err(Failure::io("looking for free ports"))
}

fn configuration(node: &Node, members: &[Node]) -> String {
    let data_dir = toml::Value::from(node.file("data").to_string_lossy().into_owned());
    let mut text = format!(
        "[node]\nid = {}\ndata_dir = {data_dir}\n\n[listen]\nclient = \"{}\"\npeer = \"{}\"\nadmin = \"{}\"\n\n[cluster]\nname = \"bench\"\n",
        node.id, node.client, node.peer, node.admin
    );
    for member in members {
        let _ = write!(
            text,
            "\n[[cluster.initial_members]]\nid = {}\npeer_address = \"{}\"\nclient_address = \"{}\"\n",
            member.id, member.peer, member.client
        );
    }
    text
}
