//! The faults, and how each begins and ends.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep_until};

use super::super::requirements::Requirement;
use super::Injector;
use super::victims::Who;
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
    /// They are stopped and started again, one after another.
    Restarting,
    /// Connections between peers are slow.
    SlowLinks,
    /// This file says how far off the node's clock is, by these seconds.
    Clock(PathBuf, i32),
    /// strace is attached, and calls take longer.
    Slow(Injection),
    /// strace is attached, and calls fail: the node has to end.
    Failing(Injection),
    /// strace is attached, and nothing is synced; the power goes in the end.
    Lie(Vec<Injection>),
    /// This file takes the disk's room.
    Ballast(PathBuf),
    /// A bit of the byte `at` of the node's file was changed.
    Flipped {
        file: PathBuf,
        at: usize,
        /// `huntlog-node inspect --verify` says that the file is damaged.
        named: bool,
    },
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

    /// Those that leave every node able to work.
    pub(super) const LIGHT: [Self; 4] = [
        Self::PacketLoss,
        Self::Delay,
        Self::ClockJump,
        Self::DiskSlow,
    ];

    /// Whether `self`, a light one, can hold while `other` comes and goes: neither
    /// takes the other back, nor lets it miss a deadline.
    pub(super) fn goes_with(self, other: Self) -> bool {
        let of_the_bridge = Self::PARTITIONS.contains(&other) || other == Self::PacketLoss;
        match self {
            // The bridge has one set of rules. A restart, and a refusal, have
            // deadlines that are meant for a network that loses nothing.
            Self::PacketLoss => {
                !of_the_bridge && !matches!(other, Self::RollingRestart | Self::Emptied)
            }
            Self::Delay | Self::ClockJump => other != self,
            // strace goes with the process, and no second one can be attached.
            Self::DiskSlow => {
                of_the_bridge
                    || matches!(
                        other,
                        Self::Delay
                            | Self::ClockJump
                            | Self::PauseLeader
                            | Self::PauseMinority
                            | Self::Transfer
                    )
            }
            _ => false,
        }
    }

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

    /// How long it is held; of a rolling restart, about how long it takes.
    pub(super) fn hold_ms(self) -> Range<u64> {
        match self {
            Self::KillMajority | Self::KillAll | Self::PowerCut | Self::PowerCutAll => 200..2_000,
            Self::Transfer => 100..1_000,
            Self::PacketLoss
            | Self::Delay
            | Self::DiskSlow
            | Self::DiskFull
            | Self::ClockJump
            | Self::RollingRestart => 4_000..8_000,
            _ => 1_500..5_000,
        }
    }
}

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
            Fault::DiskSlow => self.slow_disk().await,
            Fault::DiskFailing => self.fail_disk().await,
            Fault::DiskLying => self.lie().await,
            Fault::Damage => self.damage().await,
            Fault::Emptied => self.empty().await,
            Fault::RollingRestart => Ok(self.restart_all().await),
            Fault::Transfer => self.transfer().await,
        }
    }

    /// Holds it until then.
    pub(super) async fn hold(
        &mut self,
        injected: &Injected,
        until: Instant,
    ) -> Result<(), FaultError> {
        match injected.hold {
            Hold::Flapping => self.keep_flapping(injected.nodes[0], until).await,
            Hold::Restarting => self.restart_each(&injected.nodes).await,
            _ => {
                sleep_until(until).await;
                Ok(())
            }
        }
    }

    /// Takes it back; answers what there is to tell.
    pub(super) async fn heal(&mut self, injected: Injected) -> Result<Option<String>, FaultError> {
        let Injected { nodes, hold, .. } = injected;
        match hold {
            Hold::Nothing | Hold::Restarting => Ok(None),
            Hold::Flapping | Hold::Rules => self.set_rules(&[]).map(|()| None),
            Hold::Ended => self.start(&nodes).await,
            Hold::Paused => self.resume(&nodes).await.map(|()| None),
            Hold::SlowLinks => {
                if let Some(links) = &self.links {
                    links.set(Duration::ZERO, Duration::ZERO);
                }
                Ok(None)
            }
            Hold::Clock(file, _) => self.set_clock_right(nodes[0], &file).map(|()| None),
            Hold::Slow(injection) => {
                drop(injection);
                Ok(None)
            }
            Hold::Failing(injection) => self.end_failing(nodes[0], injection).await,
            Hold::Lie(injections) => {
                self.cluster.lock().await.cut_power(&nodes).await?;
                drop(injections);
                self.start(&nodes).await
            }
            Hold::Ballast(file) => self.make_room(nodes[0], &file).await,
            Hold::Flipped { file, at, .. } => self.undo_damage(nodes[0], &file, at).await,
            Hold::Empty(dir) => self.end_emptied(nodes[0], &dir).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_light_fault_goes_with_what_does_not_take_it_back() {
        let beside = |light: Fault| Fault::ALL.into_iter().filter(move |f| light.goes_with(*f));
        for light in Fault::LIGHT {
            assert!(!light.goes_with(light), "{light:?}");
            assert!(beside(light).count() > 5, "{light:?}");
        }
        for fault in Fault::ALL {
            let some = Fault::LIGHT.iter().any(|light| light.goes_with(fault));
            assert!(some, "{fault:?} is always alone");
        }
        // Only one of the two can be attached, or hold the rules.
        assert!(!Fault::DiskSlow.goes_with(Fault::DiskFailing));
        assert!(!Fault::PacketLoss.goes_with(Fault::PartitionFlapping));
        let heavy = Fault::ALL.into_iter().filter(|f| !Fault::LIGHT.contains(f));
        for (one, other) in heavy.flat_map(|f| Fault::ALL.map(|other| (f, other))) {
            assert!(!one.goes_with(other), "{one:?} beside {other:?}");
        }
    }
}
