//! Runs against real processes: a workload, a nemesis, and a verdict.

mod data;
mod excuses;
mod finale;
mod journal;
mod links;
mod members;
mod minimum;
mod nemesis;
mod prepare;
mod report;
mod requirements;
mod stage;
mod workload;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use huntlog_client::{Client, ClientOptions, ConfigError};
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use finale::Finding;
pub use nemesis::Nemesis;
pub use report::{Outcome, Spread, Summary};
pub use workload::{SetupError, Workload};

use crate::check::judge;
use crate::cluster::ClusterError;
use crate::disk::LoopDisk;
use crate::interrupt::{Interrupted, Interrupts};
use crate::network::{Network, NetworkError};
use data::NodeData;
use excuses::Excuses;
use finale::Deadlines;
use journal::Journal;
use members::Replacer;
use nemesis::Injector;
use prepare::Prepared;
use requirements::Requirement;
use stage::Stage;
use workload::Load;

/// A change of the members waits for disks, and for nodes that may be dead.
const MEMBER_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What clients do.
    pub workload: Workload,
    /// What is done to the cluster.
    pub nemesis: Nemesis,
    /// For how long.
    pub time: Duration,
    /// Operations a second, all clients together.
    pub rate: u32,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// Decides what is done when, as far as real processes allow.
    pub seed: u64,
    /// Where everything is written.
    pub out: PathBuf,
    /// Each node in a network namespace of its own; otherwise all are on the
    /// loopback interface, and nothing can come between them.
    pub namespaces: bool,
}

impl Plan {
    /// Why it can not be carried out on this machine, if it can not:
    /// [`RunError::Requirement`] or [`RunError::Loopback`].
    #[must_use]
    pub fn missing(&self) -> Option<RunError> {
        let mut needed = self.nemesis.requirements();
        if self.namespaces {
            needed.push(Requirement::Namespaces);
        } else if needed.contains(&Requirement::Namespaces) {
            let unsuited = RunError::Loopback(self.nemesis.name());
            return Some(match Requirement::Namespaces.missing() {
                Some(why) => RunError::Requirement(format!("{why}; {unsuited}")),
                None => unsuited,
            });
        }
        let missing = needed.into_iter().find_map(Requirement::missing);
        missing.map(RunError::Requirement)
    }

    /// Why this machine can not give each node a network namespace, if it can not.
    #[must_use]
    pub fn namespaces_missing() -> Option<String> {
        Requirement::Namespaces.missing()
    }
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The machine lacks something.
    #[error("this machine lacks something: {0}")]
    Requirement(String),
    /// All nodes are to be on loopback addresses, and this nemesis comes between them.
    #[error("the nemesis {0} comes between nodes, which needs each in a network namespace")]
    Loopback(String),
    /// There are files already where the run's would be written.
    #[error("{0} is not empty; name a directory that is, or that does not exist")]
    NotEmpty(PathBuf),
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The nodes could not be handled.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The connections between nodes could not be taken over.
    #[error("making the links between the nodes: {0}")]
    Links(String),
    /// The clients could not be made.
    #[error(transparent)]
    Client(#[from] ConfigError),
    /// The clients could not begin.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A file could not be written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The results could not be drawn.
    #[error("drawing the plot: {0}")]
    Plot(String),
    /// Somebody stopped it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl RunError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<links::LinkError> for RunError {
    fn from(error: links::LinkError) -> Self {
        Self::Links(error.to_string())
    }
}

/// Carries `plan` out and writes what came of it. Whatever it makes but its results
/// is gone when it ends, be it by one of the `interrupts`.
///
/// # Errors
/// When the machine lacks something, or the run could not be carried out; what
/// the run found is in the summary.
///
/// # Panics
/// When the run does.
pub fn execute(plan: Plan, interrupts: &Interrupts) -> Result<Summary, RunError> {
    interrupts.check()?;
    if let Some(missing) = plan.missing() {
        return Err(missing);
    }
    // A thread of its own, since it enters a namespace, and all it starts does.
    let interrupts = interrupts.clone();
    std::thread::spawn(move || on_own_thread(plan, &interrupts))
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn on_own_thread(plan: Plan, interrupts: &Interrupts) -> Result<Summary, RunError> {
    // What probing takes is taken whole.
    interrupts.check()?;
    fs::create_dir_all(&plan.out)
        .map_err(RunError::io(format!("making {}", plan.out.display())))?;
    let mut entries =
        fs::read_dir(&plan.out).map_err(RunError::io(format!("reading {}", plan.out.display())))?;
    if entries.next().is_some() {
        return Err(RunError::NotEmpty(plan.out));
    }
    let _data = NodeData::under(plan.out.clone());
    LoopDisk::remove_leftovers();
    Network::remove_leftovers();
    interrupts.check()?;
    let network = match plan.namespaces {
        true => Some(Network::create(plan.nodes)?),
        false => None,
    };
    if let Some(network) = &network {
        network.enter()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RunError::io("starting the runtime"))?;
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = interrupts.wait() => Err(interrupted.into()),
            result = perform(plan, network) => result,
        }
    });
    // Tasks that were left hold nodes, disks and the network.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn perform(plan: Plan, network: Option<Network>) -> Result<Summary, RunError> {
    let started = Instant::now();
    let journal = Journal::create(&plan.out.join("nemesis.log"), started);
    let journal = Arc::new(journal.map_err(RunError::io("creating nemesis.log"))?);
    // In this order, so that the nodes end before what they run in is removed.
    let Prepared {
        network,
        links,
        mut cluster,
    } = prepare::prepare(&plan, network)?;
    cluster.start_all()?;
    cluster.wait_ready().await?;
    let nodes = cluster.nodes().iter().map(crate::node::NodeProcess::spec);
    let nodes: Vec<(u64, String)> = nodes.map(|spec| (spec.id, spec.client_address())).collect();
    let stage = Stage::new(plan.clone(), &nodes, started)?;
    let mut load = Load::start(&stage).await?;
    let cluster = Arc::new(Mutex::new(cluster));
    let excuses = Arc::new(Excuses::default());
    let injector = Injector {
        stage: Arc::clone(&stage),
        cluster: Arc::clone(&cluster),
        network: network.clone(),
        // They carry the connections until the end, not only while there are faults.
        links: links.clone(),
        excuses: Arc::clone(&excuses),
        journal: Arc::clone(&journal),
        random: stage.random("nemesis"),
        findings: Vec::new(),
    };
    let replacer = replacer(&stage, &injector)?;
    let end = Instant::now() + plan.time;
    let (mut findings, of_members) = tokio::join!(
        async {
            let findings = injector.run(end).await;
            stage.stop();
            findings
        },
        async {
            match replacer {
                Some(replacer) => replacer.run().await,
                None => Vec::new(),
            }
        }
    );
    findings.extend(of_members);
    journal.note("everything is healed");
    let deadlines = Deadlines::from_now(&plan);
    {
        let mut cluster = cluster.lock().await;
        let (of_clients, of_nodes) = tokio::join!(
            load.finish(&stage, deadlines.live),
            finale::live(&stage, &cluster, deadlines.live)
        );
        findings.extend(of_clients);
        findings.extend(of_nodes);
        journal.note("reading everything");
        findings.extend(load.drain(&stage, deadlines.read).await);
        findings.extend(finale::agreed(&cluster, deadlines.read).await);
        for node in cluster.nodes_mut() {
            findings.extend(finale::loud(node, &excuses));
        }
    }
    findings.extend(stage.wrong_answers());
    let history = stage.recorder.history();
    let mut judgement = judge(&history, plan.minimum());
    let lacking = plan.lacking(&judgement.counts);
    judgement.insufficient.extend(lacking);
    let summary = Summary::new(&plan, &history, judgement, findings);
    report::write(&plan.out, &summary, &history)?;
    Ok(summary)
}

fn replacer(stage: &Arc<Stage>, injector: &Injector) -> Result<Option<Replacer>, RunError> {
    if stage.plan.workload != Workload::Membership {
        return Ok(None);
    }
    let options = ClientOptions {
        timeout: MEMBER_ANSWER_TIMEOUT * 2,
        answer_timeout: MEMBER_ANSWER_TIMEOUT,
        ..ClientOptions::default()
    };
    Ok(Some(Replacer {
        client: Client::connect(stage.client.known_nodes(), options)?,
        stage: Arc::clone(stage),
        cluster: Arc::clone(&injector.cluster),
        network: injector.network.clone(),
        links: injector.links.clone(),
        excuses: Arc::clone(&injector.excuses),
        journal: Arc::clone(&injector.journal),
        random: stage.random("members"),
        next_id: stage.plan.nodes + 1,
    }))
}
