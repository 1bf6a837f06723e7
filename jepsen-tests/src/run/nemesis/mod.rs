//! What is done to the cluster while clients use it: one fault at a time, drawn
//! by the run's seed, held for a while, healed; under `all`, at times, beside one
//! that leaves every node able to work.

mod disks;
mod effects;
mod expected;
mod faults;
mod partitions;
mod processes;
mod stored;
mod victims;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

pub(crate) use expected::{MEMBER_LEAVES, MEMBERS_CHANGE};
pub(crate) use faults::{Fault, FaultError};

use super::excuses::Excuses;
use super::finale::Finding;
use super::journal::Journal;
use super::requirements::Requirement;
use super::stage::Stage;
use crate::cluster::{Cluster, ClusterError};
use crate::history::{self, Phase};
use crate::network::Network;
use faults::Injected;

/// Without a fault before the first and after each, in milliseconds.
const QUIET_MS: std::ops::Range<u64> = 1_500..4_000;
/// How often a fault of `all` has a light one beside it.
const BESIDE: f64 = 1.0 / 3.0;
/// How long the effect of a light fault is waited for before the other begins.
const LIGHT_LIMIT: Duration = Duration::from_secs(4);

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Nemesis {
    /// Nothing.
    None,
    /// SIGKILL to the leader.
    KillLeader,
    /// SIGKILL to as many nodes as may fail.
    KillMinority,
    /// SIGKILL to one more than may fail.
    KillMajority,
    /// SIGKILL to every node at once.
    KillAll,
    /// One of the four kills each time.
    Kill,
    /// SIGSTOP to the leader, SIGCONT later.
    PauseLeader,
    /// SIGSTOP to as many nodes as may fail.
    PauseMinority,
    /// One of the two pauses each time.
    Pause,
    /// The leader can not reach the others, nor they it.
    PartitionLeader,
    /// Two halves, the smaller one with or without the leader.
    PartitionHalves,
    /// Frames go one way only between the leader and the others.
    PartitionOneWay,
    /// The leader is cut off and joined again several times a second.
    PartitionFlapping,
    /// One node reaches all, the others only it and their own half.
    PartitionBridge,
    /// One of the five partitions each time.
    Partition,
    /// A tenth to a third of all frames between nodes are lost.
    PacketLoss,
    /// Peers' connections get latency and jitter.
    Delay,
    /// A node's wall clock jumps, by up to an hour either way.
    ClockJump,
    /// The power of some nodes is cut: what was not synced is gone.
    PowerCut,
    /// The power of all nodes is cut at once.
    PowerCutAll,
    /// A node's disk fills up.
    DiskFull,
    /// Every fdatasync of a node takes a fifth of a second longer.
    DiskSlow,
    /// fdatasync fails on a node.
    DiskFailing,
    /// fdatasync does nothing on any node and says that it did; then the power of
    /// all is cut. No cluster survives that: a run that is valid has seen nothing.
    DiskLying,
    /// A byte of a node's log is changed while it is down.
    Damage,
    /// A node comes back with an empty data directory under its old id, which
    /// has to be refused.
    Emptied,
    /// Every node is stopped in good order and started again, one after another.
    RollingRestart,
    /// Leadership is handed over.
    Transfer,
    /// One of all these each time, but not a disk that lies; one time in three beside
    /// lost packets, delays, a clock that jumps or a slow disk.
    All,
}

impl Nemesis {
    /// What it draws from.
    pub(crate) fn faults(self) -> Vec<Fault> {
        use Fault as F;
        match self {
            Self::None => vec![],
            Self::KillLeader => vec![F::KillLeader],
            Self::KillMinority => vec![F::KillMinority],
            Self::KillMajority => vec![F::KillMajority],
            Self::KillAll => vec![F::KillAll],
            Self::Kill => vec![F::KillLeader, F::KillMinority, F::KillMajority, F::KillAll],
            Self::PauseLeader => vec![F::PauseLeader],
            Self::PauseMinority => vec![F::PauseMinority],
            Self::Pause => vec![F::PauseLeader, F::PauseMinority],
            Self::PartitionLeader => vec![F::PartitionLeader],
            Self::PartitionHalves => vec![F::PartitionHalves],
            Self::PartitionOneWay => vec![F::PartitionOneWay],
            Self::PartitionFlapping => vec![F::PartitionFlapping],
            Self::PartitionBridge => vec![F::PartitionBridge],
            Self::Partition => F::PARTITIONS.to_vec(),
            Self::PacketLoss => vec![F::PacketLoss],
            Self::Delay => vec![F::Delay],
            Self::ClockJump => vec![F::ClockJump],
            Self::PowerCut => vec![F::PowerCut],
            Self::PowerCutAll => vec![F::PowerCutAll],
            Self::DiskFull => vec![F::DiskFull],
            Self::DiskSlow => vec![F::DiskSlow],
            Self::DiskFailing => vec![F::DiskFailing],
            Self::DiskLying => vec![F::DiskLying],
            Self::Damage => vec![F::Damage],
            Self::Emptied => vec![F::Emptied],
            Self::RollingRestart => vec![F::RollingRestart],
            Self::Transfer => vec![F::Transfer],
            Self::All => F::ALL.to_vec(),
        }
    }

    /// What the machine needs for it.
    pub(crate) fn requirements(self) -> Vec<Requirement> {
        let faults = self.faults().into_iter();
        let mut needed: Vec<Requirement> = faults.flat_map(Fault::requirements).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Injects and heals.
pub(crate) struct Injector {
    pub(crate) stage: Arc<Stage>,
    pub(crate) cluster: Arc<Mutex<Cluster>>,
    pub(crate) network: Option<Arc<std::sync::Mutex<Network>>>,
    pub(crate) links: Option<Arc<super::links::Links>>,
    pub(crate) excuses: Arc<Excuses>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) random: SmallRng,
    pub(crate) findings: Vec<Finding>,
}

impl Injector {
    /// Injects one fault after another until `end`, by which all are healed. Beside
    /// one that keeps nodes from working there is never another that does.
    pub(crate) async fn run(mut self, end: Instant) -> Vec<Finding> {
        let faults = self.stage.plan.nemesis.faults();
        while !faults.is_empty() {
            let quiet = Duration::from_millis(self.random.random_range(QUIET_MS));
            let fault = faults[self.random.random_range(0..faults.len())];
            let hold = Duration::from_millis(self.random.random_range(fault.hold_ms()));
            let light = self.light(fault);
            let waits = light.map_or(Duration::ZERO, |_| LIGHT_LIMIT);
            if Instant::now() + quiet + waits + hold > end {
                break;
            }
            sleep(quiet).await;
            self.look(&[]).await;
            if !self.act(fault, hold, light).await {
                break;
            }
        }
        tokio::time::sleep_until(end).await;
        self.look(&[]).await;
        self.healed().await;
        self.findings
    }

    /// A light fault to have beside `fault`, at times and under `all` alone.
    fn light(&mut self, fault: Fault) -> Option<Fault> {
        if self.stage.plan.nemesis != Nemesis::All || !self.random.random_bool(BESIDE) {
            return None;
        }
        let suited = Fault::LIGHT.into_iter().filter(|one| one.goes_with(fault));
        let suited: Vec<Fault> = suited.collect();
        (!suited.is_empty()).then(|| suited[self.random.random_range(0..suited.len())])
    }

    /// Injects `fault` and heals it, all of it while `light` holds if there is one;
    /// false when something can not be healed.
    async fn act(&mut self, fault: Fault, hold: Duration, light: Option<Fault>) -> bool {
        let mut beside = None;
        if let Some(light) = light {
            match self.begin(light, Instant::now() + LIGHT_LIMIT).await {
                Ok(begun) => beside = begun.map(|injected| (light, injected)),
                Err(error) => {
                    if !self.failed(light, error).await {
                        return false;
                    }
                }
            }
        }
        let ended = self.one(fault, hold).await;
        let mut healed = true;
        // Before a failure is taken down, which lets go of everything.
        if let Some((light, injected)) = beside
            && let Err(error) = self.end(light, injected).await
        {
            healed = self.failed(light, error).await;
        }
        if let Err(error) = ended {
            healed &= self.failed(fault, error).await;
        }
        healed
    }

    async fn one(&mut self, fault: Fault, hold: Duration) -> Result<(), FaultError> {
        let until = Instant::now() + hold;
        if let Some(injected) = self.begin(fault, until).await? {
            self.hold(&injected, until).await?;
            self.end(fault, injected).await?;
        }
        Ok(())
    }

    /// Injects it; one that has no effect until then is taken back.
    async fn begin(
        &mut self,
        fault: Fault,
        until: Instant,
    ) -> Result<Option<Injected>, FaultError> {
        let since = SystemTime::now();
        let injected = self.inject(fault).await?;
        let nodes = injected.nodes.clone();
        self.excuses.begin(&nodes, fault.expected(), since);
        if self.has_effect(&injected, until).await? {
            self.record(fault, Phase::Start, &nodes, injected.detail.clone());
            return Ok(Some(injected));
        }
        self.take_back(fault, injected).await?;
        self.did_not_land(fault, &format!("nothing shows it on {nodes:?}"));
        Ok(None)
    }

    async fn end(&mut self, fault: Fault, injected: Injected) -> Result<(), FaultError> {
        let nodes = injected.nodes.clone();
        let told = self.take_back(fault, injected).await?;
        self.record(fault, Phase::Stop, &nodes, told);
        Ok(())
    }

    async fn take_back(
        &mut self,
        fault: Fault,
        injected: Injected,
    ) -> Result<Option<String>, FaultError> {
        let nodes = injected.nodes.clone();
        self.look(&nodes).await;
        let told = self.heal(injected).await;
        self.excuses.end(&nodes, fault.expected());
        told
    }

    /// Takes down why a fault could not be injected or healed, and takes back whatever
    /// half of it holds; whether that worked.
    async fn failed(&mut self, fault: Fault, error: FaultError) -> bool {
        let name = fault.name();
        match error {
            // Between two leaders there is none to hit.
            FaultError::NoTarget(why) => self.did_not_land(fault, &why),
            FaultError::Cluster(late @ ClusterError::Timeout { .. }) => {
                self.find(Finding::NotLive(format!("{name}: {late}")));
            }
            error => self.find(Finding::Harness(format!("{name}: {error}"))),
        }
        self.healed().await
    }

    fn did_not_land(&self, fault: Fault, why: &str) {
        self.journal
            .note(format!("{} did not land: {why}", fault.name()));
    }

    fn find(&mut self, finding: Finding) {
        self.journal.note(finding.to_string());
        self.findings.push(finding);
    }

    /// Finds nodes that have ended since the last look in a way that nothing
    /// explains, and starts those of them again that no fault holds.
    async fn look(&mut self, held: &[u64]) {
        let cluster = Arc::clone(&self.cluster);
        let mut cluster = cluster.lock().await;
        for node in cluster.nodes_mut() {
            let id = node.spec().id;
            let Some(status) = node.take_own_end() else {
                continue;
            };
            if self.excuses.explain_end(id, status) {
                self.journal.note(format!("node {id} has ended: {status}"));
            } else {
                self.find(Finding::Ended(format!("node {id}: {status}")));
            }
            if !held.contains(&id)
                && node.has_ended()
                && let Err(error) = node.start()
            {
                self.find(Finding::Harness(format!("starting node {id}: {error}")));
            }
        }
    }

    fn record(&self, fault: Fault, phase: Phase, nodes: &[u64], detail: Option<String>) {
        let word = match phase {
            Phase::Start => "injected",
            Phase::Stop => "healed",
        };
        let more = detail.as_deref().unwrap_or_default();
        let name = fault.name();
        self.journal
            .note(format!("{name} {word}: nodes {nodes:?} {more}"));
        self.stage.recorder.fault(history::Fault {
            name,
            phase,
            nodes: nodes.to_vec(),
            detail,
        });
    }

    /// Lets everything go that any fault can hold; whether that worked.
    async fn healed(&mut self) -> bool {
        let healed = self.heal_everything().await;
        if let Err(error) = &healed {
            self.find(Finding::Harness(format!("healing: {error}")));
        }
        healed.is_ok()
    }

    /// Lets everything go that any fault can hold.
    async fn heal_everything(&mut self) -> Result<(), FaultError> {
        self.set_rules(&[])?;
        if let Some(links) = &self.links {
            links.set(Duration::ZERO, Duration::ZERO);
        }
        let mut cluster = self.cluster.lock().await;
        for node in cluster.nodes_mut() {
            node.resume()?;
            if node.has_ended() {
                node.start()?;
            }
        }
        Ok(())
    }
}

impl Injected {
    fn of(nodes: Vec<u64>) -> Self {
        Self {
            nodes,
            detail: None,
            hold: faults::Hold::Nothing,
        }
    }
}
