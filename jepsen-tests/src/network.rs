//! A network of our own: each node in a network namespace, joined by a bridge in
//! another, in which the harness and its clients are. Nothing of it can be
//! reached from outside, and nothing outside from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::command::{CommandError, run, run_with_input};
use crate::lock::LockFile;

/// What every namespace of ours is called, followed by its owner: the harness's
/// process id and a number; nothing else is ever removed as left over.
const PREFIX: &str = "huntlog-jepsen-";
/// Where `ip netns` keeps them.
const NAMESPACES: &str = "/run/netns";
/// Where each network's lock is, held as long as it is in use.
const LOCKS: &str = "/run";

/// The rules' table, in the bridge's namespace.
const TABLE: &str = "bridge faults";

/// Why a network could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file that says that it is in use could not be made.
    #[error("locking {path}: {source}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
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
    owner: String,
    nodes: BTreeSet<u64>,
    /// Another harness tells by it that this is no leftover.
    _lock: LockFile,
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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let owner = format!("{}-{number}", std::process::id());
        let path = lock_path(&owner);
        let mut network = Self {
            _lock: LockFile::hold(&path).map_err(|source| NetworkError::Lock { path, source })?,
            owner,
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
        // Half a namespace is removed as well.
        self.nodes.insert(id);
        ip(&["netns", "add", &node])?;
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
        format!("{PREFIX}{}-n{id}", self.owner)
    }

    fn bridge(&self) -> String {
        format!("{PREFIX}{}-bridge", self.owner)
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
    /// still run in them. A harness is dead when nobody holds its network's lock.
    pub fn remove_leftovers() {
        let owned = [NAMESPACES, LOCKS].into_iter().flat_map(entries);
        let owners: BTreeSet<String> = owned.filter_map(|name| owner(&name)).collect();
        for dead in owners {
            // Held until all is removed, so that nobody is given its name meanwhile.
            let path = lock_path(&dead);
            let lock = match LockFile::take_over(&path) {
                // It is there before the first namespace, and goes after the last.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    LockFile::hold(&path).map(Some)
                }
                lock => lock,
            };
            let Ok(Some(_lock)) = lock else {
                continue;
            };
            for name in entries(NAMESPACES) {
                if owner(&name).as_ref() == Some(&dead) {
                    remove(&name);
                }
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

fn lock_path(owner: &str) -> PathBuf {
    Path::new(LOCKS).join(format!("{PREFIX}{owner}.lock"))
}

/// Whose the namespace or the lock of this name is, if it is one of ours.
fn owner(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(".lock").unwrap_or(rest);
    let mut parts = rest.split('-');
    let (pid, number) = (parts.next()?, parts.next()?);
    pid.parse::<u32>().ok()?;
    number.parse::<u32>().ok()?;
    Some(format!("{pid}-{number}"))
}

/// The names of what is in the directory.
fn entries(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Removes a namespace with whatever still runs in it.
fn remove(name: &str) {
    if let Ok(output) = run(Command::new("ip").args(["netns", "pids", name])) {
        let pids = String::from_utf8_lossy(&output.stdout).into_owned();
        let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in pids.filter_map(Pid::from_raw) {
            // The harness itself is in the bridge's; it leaves by ending.
            if pid != rustix::process::getpid() {
                // One that has ended meanwhile needs no killing.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ = ip(&["netns", "delete", name]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_called_like_ours_is_ours() {
        for name in ["huntlog-jepsen-12-3-bridge", "huntlog-jepsen-12-3-n1"] {
            assert_eq!(owner(name).as_deref(), Some("12-3"), "{name}");
        }
        let lock = lock_path("12-3");
        let lock = lock.file_name().expect("a file").to_string_lossy();
        assert_eq!(owner(&lock).as_deref(), Some("12-3"));
        for name in ["huntlog-jepsen-x-3-n1", "huntlog-jepsen-12", "other-12-3"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn a_network_in_use_is_no_leftover_and_one_that_was_let_go_is() {
        let network = match Network::create(1) {
            Ok(network) => network,
            Err(why) => {
                println!("skipped: no network namespaces here: {why}");
                return;
            }
        };
        let (bridge, node) = (path(&network.bridge()), path(&network.namespace(1)));
        Network::remove_leftovers();
        assert!(bridge.exists() && node.exists(), "it is in use");
        let lock = lock_path(&network.owner);
        let unlocked = network._lock.file().unlock();
        unlocked.expect("unlocked, as when a process ends");
        std::mem::forget(network);
        Network::remove_leftovers();
        assert!(!bridge.exists() && !node.exists() && !lock.exists());
    }
}
