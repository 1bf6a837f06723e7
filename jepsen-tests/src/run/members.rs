//! Workload `membership`: while clients append and nodes fail, members are
//! replaced by new nodes, one after another.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use huntlog_client::proto::NodeAddress;
use huntlog_client::{CallError, Client};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::excuses::Excuses;
use super::finale::{Finding, loud};
use super::journal::Journal;
use super::links::Links;
use super::minimum::REPLACED;
use super::nemesis::{MEMBER_LEAVES, MEMBERS_CHANGE};
use super::prepare::{equip, spec};
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
    /// Of the connections between nodes, where they can be made slow.
    pub(super) links: Option<Arc<Links>>,
    pub(super) excuses: Arc<Excuses>,
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
            let new = self.next_id;
            self.next_id += 1;
            let mut everybody = self.everybody().await;
            everybody.push(new);
            let since = SystemTime::now();
            self.excuses.begin(&everybody, &MEMBERS_CHANGE, since);
            self.record(Phase::Start, vec![new]);
            match self.replace(new).await {
                Ok((old, said)) => {
                    self.record(Phase::Stop, vec![old, new]);
                    findings.extend(said);
                }
                Err(why) => {
                    self.journal.note(format!("replacing a member: {why}"));
                    findings.push(Finding::NotLive(format!("replacing a member: {why}")));
                }
            }
            self.excuses.end(&everybody, &MEMBERS_CHANGE);
        }
    }

    /// Answers the node whose place `new` has taken, and what was wrong with it.
    async fn replace(&mut self, new: u64) -> Result<(u64, Vec<Finding>), String> {
        let address = self.start(new).await?;
        let client = self.client.clone();
        repeat(|| client.add_member(address.clone())).await?;
        repeat(|| client.promote_member(new, false)).await?;
        let old = self.everybody().await.into_iter().min();
        let old = old.ok_or("there are no members")?;
        // From the moment that it knows, and that may be before this is answered.
        self.excuses
            .begin(&[old], &MEMBER_LEAVES, SystemTime::now());
        repeat(|| client.remove_member(old, false)).await?;
        let node = NodeClient::new(new, &address.client_address).map_err(|e| e.to_string())?;
        self.stage.replace_node(old, node);
        let mut cluster = self.cluster.lock().await;
        let removed = cluster.remove(old).await.map_err(|e| e.to_string())?;
        drop(cluster);
        if let Some(links) = &self.links {
            links.remove_node(old);
        }
        self.journal
            .note(format!("node {new} has taken the place of {old}"));
        let said = removed.map(|mut node| loud(&mut node, &self.excuses));
        Ok((old, said.unwrap_or_default()))
    }

    fn record(&self, phase: Phase, nodes: Vec<u64>) {
        self.stage.recorder.fault(Fault {
            name: REPLACED.to_owned(),
            phase,
            nodes,
            detail: None,
        });
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
                if let Some(links) = &self.links {
                    let taken = links.add_node(&mut network, id);
                    taken.map_err(|e| e.to_string())?;
                }
                spec(Some(&network), &dir, id)
            }
        };
        let address = NodeAddress {
            node_id: id,
            peer_address: spec.peer_address(),
            client_address: spec.client_address(),
        };
        cluster.prepare_spec(spec, "").map_err(|e| e.to_string())?;
        let nemesis = self.stage.plan.nemesis;
        equip(&mut cluster, nemesis, id).map_err(|e| e.to_string())?;
        cluster.node(id).start().map_err(|e| e.to_string())?;
        Ok(address)
    }

    async fn everybody(&self) -> Vec<u64> {
        let cluster = self.cluster.lock().await;
        let ids = cluster.nodes().iter().map(|node| node.spec().id);
        ids.collect()
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
