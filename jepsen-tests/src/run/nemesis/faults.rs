//! The faults, and how each begins and ends.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt as _;
use tokio::time::sleep;

use super::super::finale::Finding;
use super::super::requirements::Requirement;
use super::Injector;
use crate::cluster::ClusterError;
use crate::disk::DiskError;
use crate::injection::Injection;
use crate::network::NetworkError;
use crate::node::ProcessError;

/// One fault; `Nemesis` says what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Fault {
    KillLeader,
    KillMinority,
    KillMajority,
    KillAll,
    PauseLeader,
    PauseMinority,
    PartitionLeader,
    PartitionHalves,
    PartitionOneWay,
    PartitionFlapping,
    PartitionBridge,
    PacketLoss,
    Delay,
    ClockJump,
    PowerCut,
    PowerCutAll,
    DiskFull,
    DiskSlow,
    DiskFailing,
    DiskLying,
    Damage,
    Emptied,
    RollingRestart,
    Transfer,
}

/// Why a fault could not be injected or healed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FaultError {
    #[error("there is nothing to hit: {0}")]
    NoTarget(String),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error("it was prepared without what this needs")]
    Unprepared,
}

impl FaultError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A fault that holds.
pub(super) struct Injected {
    pub(super) nodes: Vec<u64>,
    pub(super) detail: Option<String>,
    pub(super) hold: Hold,
}

/// What has to be undone.
pub(super) enum Hold {
    /// It was over as soon as it was done, or is healed like everything.
    Nothing,
    /// These have ended, or are about to, and are started again.
    Ended,
    /// These are stopped in their tracks.
    Paused,
    /// The bridge drops frames.
    Rules,
    /// The leader is cut off and joined again all the time.
    Flapping,
    /// Connections between peers are slow.
    SlowLinks,
    /// This file says how far off the node's clock is.
    Clock(PathBuf),
    /// strace is attached.
    Strace(Injection),
    /// strace is attached, and nothing is synced; the power goes in the end.
    Lie(Vec<Injection>),
    /// This file takes the disk's room.
    Ballast(PathBuf),
    /// A bit of this byte of the node's file was changed.
    Flipped(PathBuf, usize),
    /// The node was started on this empty directory.
    Empty(PathBuf),
}

impl Fault {
    pub(super) const PARTITIONS: [Self; 5] = [
        Self::PartitionLeader,
        Self::PartitionHalves,
        Self::PartitionOneWay,
        Self::PartitionFlapping,
        Self::PartitionBridge,
    ];

    pub(super) const ALL: [Self; 23] = [
        Self::KillLeader,
        Self::KillMinority,
        Self::KillMajority,
        Self::KillAll,
        Self::PauseLeader,
        Self::PauseMinority,
        Self::PartitionLeader,
        Self::PartitionHalves,
        Self::PartitionOneWay,
        Self::PartitionFlapping,
        Self::PartitionBridge,
        Self::PacketLoss,
        Self::Delay,
        Self::ClockJump,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::DiskFull,
        Self::DiskSlow,
        Self::DiskFailing,
        Self::Damage,
        Self::Emptied,
        Self::RollingRestart,
        Self::Transfer,
    ];

    /// What it is called in histories.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    pub(super) fn requirements(self) -> &'static [Requirement] {
        match self {
            Self::PartitionLeader
            | Self::PartitionHalves
            | Self::PartitionOneWay
            | Self::PartitionFlapping
            | Self::PartitionBridge
            | Self::PacketLoss
            | Self::Delay => &[Requirement::Namespaces],
            Self::PowerCut | Self::PowerCutAll | Self::DiskFull => &[Requirement::LoopDisks],
            Self::DiskSlow | Self::DiskFailing => &[Requirement::Strace],
            Self::DiskLying => &[Requirement::LoopDisks, Requirement::Strace],
            Self::ClockJump => &[Requirement::Faketime],
            _ => &[],
        }
    }

    /// How long it is held.
    pub(super) fn hold_ms(self) -> Range<u64> {
        match self {
            Self::KillMajority | Self::KillAll | Self::PowerCut | Self::PowerCutAll => 200..2_000,
            Self::Transfer | Self::RollingRestart => 100..1_000,
            Self::PacketLoss | Self::Delay | Self::DiskSlow | Self::ClockJump => 4_000..8_000,
            _ => 1_500..5_000,
        }
    }

    /// What nodes may say at level ERROR because of it.
    pub(crate) fn expected_errors(self) -> &'static [&'static str] {
        match self {
            Self::PowerCut
            | Self::PowerCutAll
            | Self::DiskFull
            | Self::DiskFailing
            | Self::DiskLying => &[
                "the storage has failed",
                "the node stops",
                "the storage did not close cleanly",
                "could not be marked for a rebuild",
                "raft did not stop cleanly",
                "the disk is full",
                // What was not synced is gone: the index is built anew.
                "the index is damaged; building it anew",
                "the index has blobs",
                "the index did not close cleanly",
                // The scrub is refused what it reads, before the log's writer is.
                "a segment is damaged",
                "a snapshot is damaged and set aside",
                "snapshot's header is damaged",
                STOPPING,
            ],
            Self::Damage => &[
                "the storage has failed",
                "the node stops",
                "a segment is damaged",
                "the index is damaged; building it anew",
                STOPPING,
            ],
            Self::Emptied => &["the node stops", "a peer refuses this node"],
            Self::RollingRestart => &[STOPPING],
            _ => &[],
        }
    }
}

/// openraft calls it an error that it is asked for something while it stops.
const STOPPING: &str = r#""target":"openraft::"#;

impl Injector {
    pub(super) async fn inject(&mut self, fault: Fault) -> Result<Injected, FaultError> {
        match fault {
            Fault::KillLeader => self.kill(Who::Leader).await,
            Fault::KillMinority => self.kill(Who::Minority).await,
            Fault::KillMajority => self.kill(Who::Majority).await,
            Fault::KillAll => self.kill(Who::All).await,
            Fault::PauseLeader => self.pause(Who::Leader).await,
            Fault::PauseMinority => self.pause(Who::Minority).await,
            Fault::PartitionLeader => self.isolate_leader().await,
            Fault::PartitionHalves => self.halve().await,
            Fault::PartitionOneWay => self.one_way().await,
            Fault::PartitionFlapping => self.flap().await,
            Fault::PartitionBridge => self.bridge().await,
            Fault::PacketLoss => self.lose_packets().await,
            Fault::Delay => self.delay().await,
            Fault::ClockJump => self.jump_clock().await,
            Fault::PowerCut => self.cut_power(Who::Some).await,
            Fault::PowerCutAll => self.cut_power(Who::All).await,
            Fault::DiskFull => self.fill_disk().await,
            Fault::DiskSlow => self.strace("fdatasync:delay_enter=200000").await,
            Fault::DiskFailing => self.strace("fdatasync:error=EIO:when=2").await,
            Fault::DiskLying => self.lie().await,
            Fault::Damage => self.damage().await,
            Fault::Emptied => self.empty().await,
            Fault::RollingRestart => self.restart_all().await,
            Fault::Transfer => self.transfer().await,
        }
    }

    /// Holds it for a while and takes it back; answers what there is to tell.
    pub(super) async fn hold_and_heal(
        &mut self,
        fault: Fault,
        injected: Injected,
        hold: Duration,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<String>, FaultError> {
        let Injected {
            nodes, hold: held, ..
        } = injected;
        match &held {
            Hold::Flapping => self.keep_flapping(nodes[0], hold).await?,
            _ => sleep(hold).await,
        }
        match held {
            Hold::Nothing => Ok(None),
            Hold::Flapping | Hold::Rules => self.set_rules(&[]).map(|()| None),
            Hold::Ended => self.start(&nodes).await.map(|()| None),
            Hold::Paused => self.resume(&nodes).await.map(|()| None),
            Hold::SlowLinks => {
                if let Some(links) = &self.links {
                    links.set(Duration::ZERO, Duration::ZERO);
                }
                Ok(None)
            }
            Hold::Clock(file) => std::fs::write(&file, "+0")
                .map(|()| None)
                .map_err(FaultError::io("setting a clock right")),
            Hold::Strace(injection) => {
                drop(injection);
                self.restart_ended(&nodes).await
            }
            Hold::Lie(injections) => {
                self.cluster.lock().await.cut_power(&nodes).await?;
                drop(injections);
                self.start(&nodes).await.map(|()| None)
            }
            Hold::Ballast(file) => {
                std::fs::remove_file(file).map_err(FaultError::io("making room"))?;
                self.restart_ended(&nodes).await
            }
            Hold::Flipped(file, at) => self.undo_damage(nodes[0], &file, at).await.map(Some),
            Hold::Empty(dir) => {
                let told = self.end_emptied(nodes[0], &dir).await?;
                if told.is_none() {
                    findings.push(Finding::Accepted(format!(
                        "{}: node {} came back empty under its old id and was not refused",
                        fault.name(),
                        nodes[0]
                    )));
                }
                Ok(told)
            }
        }
    }

    /// Some of the nodes.
    pub(super) async fn victims(&mut self, who: Who) -> Result<Vec<u64>, FaultError> {
        if who == Who::Leader {
            return Ok(vec![self.leader().await?]);
        }
        let mut ids = self.running().await;
        let minority = ids.len().saturating_sub(1) / 2;
        let count = match who {
            Who::Leader | Who::Minority => minority,
            Who::Majority => minority + 1,
            Who::All => ids.len(),
            Who::Some => self.random.random_range(1..=ids.len().max(1)),
        };
        while ids.len() > count {
            ids.swap_remove(self.random.random_range(0..ids.len()));
        }
        if ids.is_empty() {
            return Err(FaultError::NoTarget("no node runs".to_owned()));
        }
        Ok(ids)
    }

    pub(super) async fn running(&self) -> Vec<u64> {
        let cluster = self.cluster.lock().await;
        let running = cluster.nodes().iter().filter(|node| node.runs());
        running.map(|node| node.spec().id).collect()
    }

    /// Who leads: the node that says so in the highest term.
    pub(super) async fn leader(&self) -> Result<u64, FaultError> {
        let cluster = self.cluster.lock().await;
        let limit = Duration::from_secs(5);
        let leader = cluster.wait_within(limit, "a leader", async || {
            let mut leading = None;
            for node in cluster.nodes() {
                let id = node.spec().id;
                let Some(status) = cluster.status(id).await else {
                    continue;
                };
                let partition = status.partitions.first();
                if let Some(partition) = partition.filter(|p| p.leader_id == id) {
                    leading = leading.max(Some((partition.term, id)));
                }
            }
            leading.map(|(_, id)| id)
        });
        leader
            .await
            .map_err(|_| FaultError::NoTarget("nobody leads".to_owned()))
    }

    /// Somebody that does not lead.
    pub(super) async fn follower(&mut self) -> Result<u64, FaultError> {
        let leader = self.leader().await?;
        let mut others = self.running().await;
        others.retain(|id| *id != leader);
        if others.is_empty() {
            return Err(FaultError::NoTarget("only the leader runs".to_owned()));
        }
        Ok(others[self.random.random_range(0..others.len())])
    }
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Leader,
    Minority,
    Majority,
    All,
    /// Any number.
    Some,
}
