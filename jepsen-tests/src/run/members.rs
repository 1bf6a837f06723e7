//! Workload `membership`: while clients append and nodes fail, members are
//! replaced by new nodes, one after another.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use huntlog_client::proto::NodeAddress;
use huntlog_client::{CallError, Client};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::finale::Finding;
use super::journal::Journal;
use super::minimum::REPLACED;
use super::prepare::spec;
use super::stage::{NodeClient, Stage};
use crate::cluster::Cluster;
use crate::history::{Fault, Phase};
use crate::network::Network;

/// Between two changes, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 1_000..4_000;
/// Attempts at one step of a replacement. The client library repeats each of them
/// for as long as its time-out.
const ATTEMPTS: u32 = 6;

/// Replaces members until the load stops.
pub(super) struct Replacer {
    pub(super) stage: Arc<Stage>,
    /// One that gives nodes the time that a change of the members takes.
    pub(super) client: Client,
    pub(super) cluster: Arc<Mutex<Cluster>>,
    pub(super) network: Option<Arc<std::sync::Mutex<Network>>>,
    pub(super) journal: Arc<Journal>,
    pub(super) random: SmallRng,
    pub(super) next_id: u64,
}

impl Replacer {
    pub(super) async fn run(mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        loop {
            let pause = Duration::from_millis(self.random.random_range(PAUSE_MS));
            tokio::select! {
                () = self.stage.until_stopped() => return findings,
                () = sleep(pause) => {}
            }
            if let Err(why) = self.replace().await {
                self.journal.note(format!("replacing a member: {why}"));
                findings.push(Finding::NotLive(format!("replacing a member: {why}")));
            }
        }
    }

    async fn replace(&mut self) -> Result<(), String> {
        let new = self.next_id;
        self.next_id += 1;
        let address = self.start(new).await?;
        let client = self.client.clone();
        repeat(|| client.add_member(address.clone())).await?;
        repeat(|| client.promote_member(new, false)).await?;
        let old = self.oldest().await;
        repeat(|| client.remove_member(old, false)).await?;
        let node = NodeClient::new(new, &address.client_address).map_err(|e| e.to_string())?;
        self.stage.replace_node(old, node);
        let mut cluster = self.cluster.lock().await;
        cluster.remove(old).await.map_err(|e| e.to_string())?;
        drop(cluster);
        self.journal
            .note(format!("node {new} has taken the place of {old}"));
        self.stage.recorder.fault(Fault {
            name: REPLACED.to_owned(),
            phase: Phase::Start,
            nodes: vec![old, new],
            detail: None,
        });
        Ok(())
    }

    /// Starts a node that waits to be added.
    async fn start(&self, id: u64) -> Result<NodeAddress, String> {
        let mut cluster = self.cluster.lock().await;
        let dir = cluster.dir().to_owned();
        let spec = match &self.network {
            None => spec(None, &dir, id),
            Some(network) => {
                let mut network = network.lock().unwrap_or_else(PoisonError::into_inner);
                network.add_node(id).map_err(|e| e.to_string())?;
                spec(Some(&network), &dir, id)
            }
        };
        let address = NodeAddress {
            node_id: id,
            peer_address: spec.peer_address(),
            client_address: spec.client_address(),
        };
        cluster.prepare_spec(spec, "").map_err(|e| e.to_string())?;
        cluster.node(id).start().map_err(|e| e.to_string())?;
        Ok(address)
    }

    async fn oldest(&self) -> u64 {
        let cluster = self.cluster.lock().await;
        let ids = cluster.nodes().iter().map(|node| node.spec().id);
        ids.min().unwrap_or_default()
    }
}

/// Changes wait for nodes that are dead, and are refused while another is not
/// finished; all of them can be repeated.
async fn repeat<T, F>(mut change: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut attempts = 0;
    loop {
        attempts += 1;
        match change().await {
            Ok(done) => return Ok(done),
            Err(error) if attempts >= ATTEMPTS => return Err(error.to_string()),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}
