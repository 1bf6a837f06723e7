//! A rolling upgrade of a real cluster under load, from the binaries of an earlier
//! release to those of this one: node by node, the leader last; one node back and
//! forth; finalize; and what must not be possible before and after.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::cluster::{Cluster, ClusterError};
use crate::config::specs;
use crate::node::{ProcessError, binary};

/// What the load appends in a second.
const RATE: u64 = 20_000;
/// The longest time without an acknowledgement.
const STALL_MAX: Duration = Duration::from_secs(1);
/// The same where processes are killed: an election, and a node that starts.
const STALL_MAX_KILLED: Duration = Duration::from_secs(3);
/// How long a refusal may take to turn into a yes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the nodes work as they are after each step.
const WORK: Duration = Duration::from_secs(3);
/// Snapshots of each release are started from by the other.
const SNAPSHOTS: &str = "[snapshot]\nevery_bytes = 16777216\nevery_seconds = 2\n";
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// `huntlog-node`'s exit status for data that it can not use.
const EXIT_DATA: i32 = 4;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `huntlog-node` of the earlier release.
    pub old: PathBuf,
    /// How long the load goes on; the steps have to end before it.
    pub time: Duration,
    /// Kills the node that is taken instead of stopping it, and others besides,
    /// drawn by this seed.
    pub kills: Option<u64>,
}

/// Why an upgrade is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The cluster did not do as asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A process could not be handled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something else happened than must.
    #[error("{0}")]
    Wrong(String),
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Each step, and how long it took.
    pub steps: Vec<(String, Duration)>,
    /// What the load says of itself.
    pub load: Value,
    /// The longest time without an acknowledgement, once the load had begun.
    pub stall: Duration,
    /// What was read back and compared, in the words of `huntctl verify`.
    pub verified: String,
    /// Processes that were killed.
    pub kills: u32,
}

struct Upgrade {
    cluster: Cluster,
    old: PathBuf,
    new: PathBuf,
    huntctl: PathBuf,
    random: Option<StdRng>,
    kills: u32,
    steps: Vec<(String, Duration)>,
    _dir: TempDir,
}

/// Runs `plan`.
///
/// # Errors
/// With the first thing that is not as it must be.
pub async fn execute(plan: &Plan) -> Result<Report, UpgradeError> {
    let mut upgrade = Upgrade::prepare(plan)?;
    let ledger = upgrade.cluster.dir().join("ledger");
    for node in upgrade.cluster.nodes_mut() {
        node.set_program(&plan.old);
    }
    upgrade.cluster.start_all()?;
    upgrade.cluster.wait_ready().await?;
    let began = Instant::now();
    let (load, flowing_ns) = upgrade.begin_load(plan.time, &ledger).await?;
    upgrade.roll().await?;
    upgrade.finalize().await?;
    upgrade.refuse_old().await?;
    if began.elapsed() > plan.time {
        return Err(wrong("the load ended before the steps; give it more time"));
    }
    let load = end_load(load).await?;
    let stall = longest_stall(&ledger, flowing_ns)?;
    let limit = match plan.kills {
        None => STALL_MAX,
        Some(_) => STALL_MAX_KILLED,
    };
    if stall > limit {
        return Err(wrong(format!(
            "nothing was acknowledged for {} ms, {} are possible; {load}",
            stall.as_millis(),
            limit.as_millis()
        )));
    }
    let verified = upgrade.verify(&ledger).await?;
    Ok(Report {
        steps: upgrade.steps,
        load,
        stall,
        verified,
        kills: upgrade.kills,
    })
}

/// What the load says of itself in the end.
async fn end_load(load: Child) -> Result<Value, UpgradeError> {
    let output = load
        .wait_with_output()
        .await
        .map_err(|source| ProcessError::io("waiting for huntctl", source))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(wrong(format!("the load failed: {said}")));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| wrong(format!("the load's summary is no JSON: {error}")))
}

/// The longest time between two acknowledgements of the ledger, from `from_ns` on.
fn longest_stall(ledger: &Path, from_ns: u64) -> Result<Duration, UpgradeError> {
    let text = std::fs::read_to_string(ledger)
        .map_err(|source| ProcessError::io("reading the ledger", source))?;
    let acked = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["acked_ns"].as_u64()
    });
    let mut acked: Vec<u64> = acked.filter(|acked| *acked >= from_ns).collect();
    acked.sort_unstable();
    let longest = acked.windows(2).map(|pair| pair[1] - pair[0]).max();
    match longest {
        Some(longest) => Ok(Duration::from_nanos(longest)),
        None => Err(wrong("the ledger has no acknowledgements")),
    }
}

fn wrong(what: impl Into<String>) -> UpgradeError {
    UpgradeError::Wrong(what.into())
}

impl Upgrade {
    fn prepare(plan: &Plan) -> Result<Self, UpgradeError> {
        let dir = TempDir::with_prefix("huntlog-upgrade-")
            .map_err(|source| ProcessError::io("making a temporary directory", source))?;
        let specs = specs(dir.path(), 3);
        Ok(Self {
            cluster: Cluster::prepare_at(dir.path(), specs, SNAPSHOTS)?,
            old: plan.old.clone(),
            new: binary("huntlog-node")?,
            huntctl: binary("huntctl")?,
            random: plan.kills.map(StdRng::seed_from_u64),
            kills: 0,
            steps: Vec::new(),
            _dir: dir,
        })
    }

    fn huntctl(&self) -> Command {
        let mut command = Command::new(&self.huntctl);
        command
            .arg("--endpoints")
            .arg(self.cluster.endpoints().join(","))
            .stdin(Stdio::null());
        command
    }

    /// What a command of huntctl prints; the error has what it complains of.
    async fn ask(&self, arguments: &[&str]) -> Result<String, UpgradeError> {
        let output = self
            .huntctl()
            .args(arguments)
            .output()
            .await
            .map_err(|source| ProcessError::io("running huntctl", source))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(wrong(format!(
                "huntctl {}: {}{}",
                arguments.join(" "),
                text(&output.stdout),
                text(&output.stderr)
            ))),
        }
    }

    /// The same, repeated until it succeeds: a cluster in which a node has just
    /// started refuses for a while.
    async fn ask_patiently(&self, arguments: &[&str]) -> Result<String, UpgradeError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(arguments).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                answered => return answered,
            }
        }
    }

    /// Starts the load, and answers it, and the wall time (ns since 1970) from which
    /// on it flows: it plans everything before its first event.
    async fn begin_load(
        &self,
        time: Duration,
        ledger: &Path,
    ) -> Result<(Child, u64), UpgradeError> {
        let events = RATE * time.as_secs();
        let flowing = self.cluster.dir().join("flowing");
        let mut load = self.huntctl();
        load.args(["-o", "json", "play", "--hunt", "upgraded"])
            .args(["--sessions", "8", "--batch", "32"])
            .args(["--rate", &RATE.to_string()])
            .args(["--events", &events.to_string()])
            .arg("--ledger")
            .arg(ledger)
            .args(["--signal-at", "1%", "--signal-file"])
            .arg(&flowing)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let load = load
            .spawn()
            .map_err(|source| ProcessError::io("starting huntctl", source))?;
        let signal = self
            .cluster
            .wait_for("the load", async || std::fs::read(&flowing).ok())
            .await?;
        let signal: Value = serde_json::from_slice(&signal).unwrap_or_default();
        let flowing_ns = signal["wall_ns"].as_u64();
        let flowing_ns = flowing_ns.ok_or_else(|| wrong("the load does not say when"))?;
        Ok((load, flowing_ns))
    }

    /// Takes every node to this release, one of them back and forth.
    async fn roll(&mut self) -> Result<(), UpgradeError> {
        let mut taken = Vec::new();
        while taken.len() < self.cluster.nodes().len() {
            let text = self
                .ask_patiently(&["-o", "json", "cluster", "upgrade-check"])
                .await?;
            let check: Value = serde_json::from_str(&text)
                .map_err(|error| wrong(format!("upgrade-check is no JSON: {error}")))?;
            let next = check["next_node_id"]
                .as_u64()
                .filter(|id| !taken.contains(id));
            let Some(next) = next else {
                return Err(wrong(format!(
                    "{taken:?} are upgraded, and next is: {check}"
                )));
            };
            if taken.len() < 2 && check["leader_id"] == next {
                return Err(wrong(format!("the leader goes last, and is next: {check}")));
            }
            let new = self.new.clone();
            self.take(next, &new, "upgraded").await?;
            taken.push(next);
            // Two of three are new: what only the new release knows is refused.
            if taken.len() == 2 {
                self.refuse_early().await?;
                let old = self.old.clone();
                self.take(next, &old, "downgraded").await?;
                self.ask_patiently(&["cluster", "upgrade-check"]).await?;
                self.take(next, &new, "upgraded again").await?;
            }
        }
        Ok(())
    }

    /// Swaps the program of a node.
    async fn take(&mut self, id: u64, program: &Path, what: &str) -> Result<(), UpgradeError> {
        let began = Instant::now();
        let dies = self.random.as_mut().is_some_and(|random| random.random());
        let node = self.cluster.node(id);
        match dies {
            true => {
                self.kills += 1;
                node.kill().await?;
            }
            false => drop(node.stop().await?),
        }
        node.set_program(program);
        node.start()?;
        self.kill_somebody().await?;
        self.cluster.wait_ready().await?;
        self.steps
            .push((format!("node {id} {what}"), began.elapsed()));
        tokio::time::sleep(WORK).await;
        Ok(())
    }

    /// In the middle of a step, where that was asked for: kills the node that has
    /// just been started, or the leader, and starts it again.
    async fn kill_somebody(&mut self) -> Result<(), UpgradeError> {
        let Some(random) = &mut self.random else {
            return Ok(());
        };
        if !random.random::<bool>() {
            return Ok(());
        }
        let pause = Duration::from_millis(random.random_range(0..400));
        tokio::time::sleep(pause).await;
        let victim = match random.random::<bool>() {
            true => self.cluster.leader().await?,
            false => random.random_range(1..=3),
        };
        let node = self.cluster.node(victim);
        node.kill().await?;
        node.start()?;
        self.kills += 1;
        Ok(())
    }

    /// What finalize and announcements answer while a node is of the old release.
    async fn refuse_early(&self) -> Result<(), UpgradeError> {
        self.refused(&["cluster", "finalize"], &["feature level"])
            .await?;
        let announced = r#"{"hunt":"upgraded","announced":{"text":"early"}}"#;
        self.refused(&["event", "append", announced], &["nothing was applied"])
            .await
    }

    async fn refused(&self, arguments: &[&str], words: &[&str]) -> Result<(), UpgradeError> {
        let told = match self.ask(arguments).await {
            Err(UpgradeError::Wrong(told)) => told,
            Err(other) => return Err(other),
            Ok(text) => return Err(wrong(format!("{arguments:?} was done: {text}"))),
        };
        match words.iter().all(|word| told.contains(word)) {
            true => Ok(()),
            false => Err(wrong(format!("{words:?} are not in: {told}"))),
        }
    }

    async fn finalize(&mut self) -> Result<(), UpgradeError> {
        let began = Instant::now();
        self.ask_patiently(&["cluster", "finalize"]).await?;
        let took = began.elapsed();
        self.ask(&["cluster", "finalize"]).await?;
        let told = self.ask(&["cluster", "status"]).await?;
        let wanted = format!(
            "feature level {} is in force",
            huntlog_machine::LATEST_LEVEL
        );
        if !told.contains(&wanted) {
            return Err(wrong(format!("no `{wanted}` in: {told}")));
        }
        let announced = r#"{"hunt":"upgraded","announced":{"text":"upgraded"}}"#;
        self.ask_patiently(&["event", "append", announced]).await?;
        self.steps.push(("finalized".to_owned(), took));
        Ok(())
    }

    /// A node of the old release does not start any more, and says so.
    async fn refuse_old(&mut self) -> Result<(), UpgradeError> {
        let began = Instant::now();
        let leader = self.cluster.leader().await?;
        let id = (1..=3).find(|id| *id != leader).expect("two of three");
        let node = self.cluster.node(id);
        node.stop().await?;
        let before = node.log().len();
        let (old, new) = (self.old.clone(), self.new.clone());
        node.set_program(&old);
        node.start()?;
        let status = tokio::time::timeout(PATIENCE, node.wait())
            .await
            .map_err(|_| wrong(format!("node {id} of the old release runs")))??;
        let told = node.log().split_off(before);
        // That it complains is right; the rest of its log is held against it.
        node.forget_log_from(before)?;
        node.set_program(&new);
        node.start()?;
        if status.and_then(|status| status.code()) != Some(EXIT_DATA)
            || !told.contains("data version")
        {
            return Err(wrong(format!(
                "the old release ended with {status:?} on a finalized directory: {told}"
            )));
        }
        self.cluster.wait_ready().await?;
        self.steps.push((
            format!("node {id} refused to the old release"),
            began.elapsed(),
        ));
        Ok(())
    }

    async fn verify(&self, ledger: &Path) -> Result<String, UpgradeError> {
        let (index, digests) = self.cluster.settled_digests().await?;
        if digests.iter().any(|digest| *digest != digests[0]) {
            return Err(wrong(format!("the digests differ at log index {index}")));
        }
        for node in self.cluster.nodes() {
            let log = node.log();
            if let Some(line) = log.lines().find(|line| line.contains(" ERROR ")) {
                return Err(wrong(format!("node {} has logged: {line}", node.spec().id)));
            }
        }
        let ledger = ledger.display().to_string();
        self.ask(&["verify", "--ledger", &ledger]).await
    }
}
