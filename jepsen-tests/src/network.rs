//! A network of our own: each node in a network namespace, joined by a bridge in
//! another, in which the harness and its clients are. Nothing of it can be
//! reached from outside, and nothing outside from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::command::{CommandError, run, run_with_input};

/// What every namespace of ours is called, followed by the harness's process id;
/// nothing else is ever removed as left over.
const PREFIX: &str = "huntlog-jepsen-";
/// Where `ip netns` keeps them.
const NAMESPACES: &str = "/run/netns";

/// The rules' table, in the bridge's namespace.
const TABLE: &str = "bridge faults";

/// Why a network could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The namespace could not be entered.
    #[error("entering {namespace}: {source}")]
    Enter {
        /// Its name.
        namespace: String,
        /// What the kernel says.
        source: std::io::Error,
    },
}

/// What the bridge does with frames from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Who sends.
    pub from: u64,
    /// Who does not receive.
    pub to: u64,
    /// How many of a hundred frames are lost.
    pub lost_percent: u8,
}

/// The namespaces and the bridge, removed when dropped.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: BTreeSet<u64>,
    /// Connections from one node to another that go through this port of the
    /// harness: the bridge does not see them as frames from the one to the other.
    relays: BTreeMap<(u64, u64), u16>,
}

/// Where the namespace `name` is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

impl Network {
    /// The harness's own address.
    pub const HARNESS: &str = "10.77.255.254";

    /// Makes a bridge and `nodes` namespaces.
    ///
    /// # Errors
    /// When a step of it is refused.
    pub fn create(nodes: u64) -> Result<Self, NetworkError> {
        let mut network = Self {
            prefix: format!("{PREFIX}{}-", std::process::id()),
            nodes: BTreeSet::new(),
            relays: BTreeMap::new(),
        };
        let bridge = network.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "set", "lo", "up"])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        let address = format!("{}/16", Self::HARNESS);
        ip(&["-n", &bridge, "address", "add", &address, "dev", "br0"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for id in 1..=nodes {
            network.add_node(id)?;
        }
        Ok(network)
    }

    /// Adds a namespace for the node `id`.
    ///
    /// # Errors
    /// When a step of it is refused.
    pub fn add_node(&mut self, id: u64) -> Result<(), NetworkError> {
        let (bridge, node, port) = (self.bridge(), self.namespace(id), port(id));
        ip(&["netns", "add", &node])?;
        self.nodes.insert(id);
        ip(&["-n", &node, "link", "set", "lo", "up"])?;
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &node];
        let own = ["link", "add", "name", &port, "netns", &bridge];
        ip(&[&own[..], &peer[..]].concat())?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
        let address = format!("{}/16", Self::address(id));
        ip(&["-n", &node, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &node, "link", "set", "eth0", "up"])?;
        Ok(())
    }

    /// The address of the node `id`.
    pub fn address(id: u64) -> String {
        let [.., high, low] = id.to_be_bytes();
        format!("10.77.{high}.{low}")
    }

    /// The namespace of the node `id`.
    pub fn namespace(&self, id: u64) -> String {
        format!("{}n{id}", self.prefix)
    }

    fn bridge(&self) -> String {
        format!("{}bridge", self.prefix)
    }

    /// Moves the calling thread, and the threads that it starts from now on, into
    /// the bridge's namespace, from which all nodes are reached, whatever the
    /// rules between them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<(), NetworkError> {
        let namespace = self.bridge();
        let network = Some(LinkNameSpaceType::Network);
        File::open(path(&namespace))
            .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), network)?))
            .map_err(|source| NetworkError::Enter { namespace, source })
    }

    /// From now on these rules hold between the nodes, and no others.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn set_rules(&self, rules: &[Rule]) -> Result<(), NetworkError> {
        // One transaction: there is no moment in which half of them hold.
        let mut script = format!("add table {TABLE}\nflush table {TABLE}\n");
        for hook in ["forward", "input", "output"] {
            script.push_str(&format!(
                "add chain {TABLE} {hook} {{ type filter hook {hook} priority 0; }}\n"
            ));
        }
        for rule in rules {
            self.add_rule(&mut script, *rule);
        }
        run_with_input(self.nft().args(["-f", "-"]), &script)?;
        Ok(())
    }

    /// On the bridge; and of connections that go through the harness on their way
    /// to it, or from it, whichever of the two nodes has made them.
    fn add_rule(&self, script: &mut String, rule: Rule) {
        let chance = match rule.lost_percent {
            100.. => String::new(),
            percent => format!("numgen random mod 100 < {percent} "),
        };
        let (from, to) = (port(rule.from), port(rule.to));
        let mut add = |chain: &str, frames: String| {
            script.push_str(&format!(
                "add rule {TABLE} {chain} {frames} {chance}counter drop\n"
            ));
        };
        add("forward", format!("iifname \"{from}\" oifname \"{to}\""));
        if let Some(relay) = self.relays.get(&(rule.from, rule.to)) {
            add("input", format!("iifname \"{from}\" tcp dport {relay}"));
        }
        if let Some(relay) = self.relays.get(&(rule.to, rule.from)) {
            add("output", format!("oifname \"{to}\" tcp sport {relay}"));
        }
    }

    /// How many frames the rules have dropped since they were set.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn dropped_frames(&self) -> Result<u64, NetworkError> {
        let output = run(self
            .nft()
            .args(["-j", "list", "table"])
            .args(TABLE.split(' ')))?;
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let objects = listed["nftables"].as_array().into_iter().flatten();
        let expressions = objects.flat_map(|object| object["rule"]["expr"].as_array());
        let packets = expressions
            .flatten()
            .filter_map(|expression| expression["counter"]["packets"].as_u64());
        Ok(packets.sum())
    }

    /// Connections from `from` to `to` go through this port of the harness; rules
    /// that are set from now on hold for them as well.
    pub(crate) fn relay(&mut self, from: u64, to: u64, port: u16) {
        self.relays.insert((from, to), port);
    }

    /// nft in the bridge's namespace.
    fn nft(&self) -> Command {
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &self.bridge(), "nft"]);
        nft
    }

    /// Removes the namespaces that dead harnesses left behind, and the nodes that
    /// still run in them. A harness is dead when its process id belongs to none.
    pub fn remove_leftovers() {
        let Ok(entries) = fs::read_dir(NAMESPACES) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next())
                .and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !is_harness(pid)) {
                remove(&name);
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for id in &self.nodes {
            remove(&self.namespace(*id));
        }
        remove(&self.bridge());
    }
}

/// The bridge's end of a node's link.
fn port(id: u64) -> String {
    format!("n{id}")
}

fn ip(arguments: &[&str]) -> Result<(), CommandError> {
    run(Command::new("ip").args(arguments)).map(drop)
}

/// Whether the process is a harness, or a test that uses one.
fn is_harness(pid: u32) -> bool {
    pid == std::process::id()
        || fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .and_then(|exe| Some(exe.file_name()?.to_string_lossy().starts_with("huntlog")))
            .unwrap_or_default()
}

/// Removes a namespace with whatever still runs in it.
fn remove(name: &str) {
    if let Ok(output) = run(Command::new("ip").args(["netns", "pids", name])) {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            // The harness itself is in the bridge's; it leaves by ending.
            if pid.parse() != Ok(std::process::id()) {
                let _ = run(Command::new("kill").args(["-KILL", pid]));
            }
        }
    }
    let _ = ip(&["netns", "delete", name]);
}
