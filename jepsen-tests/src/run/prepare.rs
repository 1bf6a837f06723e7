//! A cluster that has what its nemesis needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::links::Links;
use super::nemesis::{Fault, Nemesis};
use super::requirements::{Requirement, faketime};
use super::{Plan, RunError};
use crate::cluster::{Cluster, ClusterError};
use crate::config::{NodeSpec, specs};
use crate::network::Network;

/// Room for a few segments of 64 MiB, the index and snapshots; sparse.
const DISK_BYTES: u64 = 1 << 30;

/// Room on the disk of a node under the nemesis `disk-full` until a fault takes it:
/// less than a segment, so that a segment has no room set aside and every write of
/// the log needs some.
pub(super) const SCARCE_BYTES: u64 = 48 << 20;

/// Says how far off the clock of the node with files in `dir` is.
pub(super) fn clock_file(dir: &Path) -> PathBuf {
    dir.join("clock")
}

/// Everything that is made before the first node starts.
pub(super) struct Prepared {
    pub(super) cluster: Cluster,
    pub(super) network: Option<Arc<Mutex<Network>>>,
    pub(super) links: Option<Arc<Links>>,
}

/// The node `id` with files under `dir`, in the network if there is one.
pub(super) fn spec(network: Option<&Network>, dir: &Path, id: u64) -> NodeSpec {
    match network {
        None => crate::config::spec(dir, id),
        Some(network) => NodeSpec {
            id,
            ip: Network::address(id),
            dir: dir.join(format!("node{id}")),
            namespace: Some(network.namespace(id)),
        },
    }
}

pub(super) fn prepare(plan: &Plan, mut network: Option<Network>) -> Result<Prepared, RunError> {
    let specs = match &network {
        None => specs(&plan.out, plan.nodes),
        Some(network) => (1..=plan.nodes)
            .map(|id| spec(Some(network), &plan.out, id))
            .collect(),
    };
    let ids: Vec<u64> = specs.iter().map(|spec| spec.id).collect();
    let mut cluster = Cluster::prepare_at(&plan.out, specs, "")?;
    for id in &ids {
        equip(&mut cluster, plan.nemesis, *id)?;
    }
    let links = match &mut network {
        Some(network) if plan.nemesis.faults().contains(&Fault::Delay) => {
            Some(Arc::new(Links::start(network, &ids)?))
        }
        _ => None,
    };
    Ok(Prepared {
        cluster,
        network: network.map(|network| Arc::new(Mutex::new(network))),
        links,
    })
}

/// Gives the node `id` the disk and the clock that the nemesis needs, before its
/// first start.
pub(super) fn equip(cluster: &mut Cluster, nemesis: Nemesis, id: u64) -> Result<(), RunError> {
    let needed = nemesis.requirements();
    if needed.contains(&Requirement::LoopDisks) {
        cluster.add_disk(id, DISK_BYTES)?;
    }
    if nemesis == Nemesis::DiskFull {
        let disk = cluster.disk(id);
        disk.fill(SCARCE_BYTES).map_err(ClusterError::from)?;
    }
    if needed.contains(&Requirement::Faketime) {
        let library = faketime().map_err(RunError::Requirement)?;
        let node = cluster.node(id);
        let file = clock_file(&node.spec().dir);
        fs::write(&file, "+0").map_err(RunError::io("writing a clock file"))?;
        node.set_env("LD_PRELOAD", &library.display().to_string());
        node.set_env("FAKETIME_TIMESTAMP_FILE", &file.display().to_string());
        node.set_env("FAKETIME_NO_CACHE", "1");
        node.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    Ok(())
}
