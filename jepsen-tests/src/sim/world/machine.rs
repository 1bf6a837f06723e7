//! The machines of a world, and what is wrong with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::LevelRange;

use crate::sim::clients::Program;
use crate::sim::disk::Disk;
use crate::sim::host::Process;
use crate::sim::node::NodeHandle;

/// How a machine's clocks are wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sim) struct ClockFault {
    /// How far its wall clock is ahead.
    pub(in crate::sim) wall_ahead_ms: i64,
    /// How much all its clocks gain, in millionths.
    pub(in crate::sim) drift_ppm: i64,
}

/// A machine of the cluster.
pub(in crate::sim) struct NodeMachine {
    pub(in crate::sim) process: Option<Process>,
    pub(in crate::sim) handle: Option<NodeHandle>,
    pub(in crate::sim) disk: Disk,
    /// Who it was given for its first members.
    pub(super) initial: Vec<u64>,
    pub(super) clock_faults: BTreeMap<u64, ClockFault>,
    /// What its process reads, and what the next one is to read, where that is
    /// another release.
    pub(in crate::sim) levels: LevelRange,
    pub(in crate::sim) next_levels: Option<LevelRange>,
    /// Processes it has had.
    pub(in crate::sim) life: u64,
    /// The fault that has told its disk to stop in the middle of a write.
    pub(super) to_tear: Option<&'static str>,
    /// Syncs that had failed when its process was started, and those counted.
    pub(super) syncs_failed_before: u64,
    pub(super) syncs_failed_counted: u64,
    /// It has ended and is not to be started again.
    pub(in crate::sim) retired: bool,
    /// When its process is started again, if it is down.
    pub(in crate::sim) back_at: Option<Duration>,
}

impl NodeMachine {
    pub(super) fn new(disk: Disk, initial: &[u64], levels: LevelRange) -> Self {
        Self {
            process: None,
            handle: None,
            disk,
            initial: initial.to_vec(),
            clock_faults: BTreeMap::new(),
            levels,
            next_levels: None,
            life: 0,
            to_tear: None,
            syncs_failed_before: 0,
            syncs_failed_counted: 0,
            retired: false,
            back_at: None,
        }
    }

    /// How wrong its clocks are, by all that is done to them.
    fn clock(&self) -> ClockFault {
        let sum = |sum: ClockFault, fault: &ClockFault| ClockFault {
            wall_ahead_ms: sum.wall_ahead_ms + fault.wall_ahead_ms,
            drift_ppm: sum.drift_ppm + fault.drift_ppm,
        };
        self.clock_faults.values().fold(ClockFault::default(), sum)
    }

    /// Has its process go by its clocks.
    pub(super) fn set_clock(&mut self) {
        let clock = self.clock();
        if let Some(process) = &mut self.process {
            process.set_wall_ahead_ms(clock.wall_ahead_ms);
            process.set_drift_ppm(clock.drift_ppm);
        }
    }
}

/// A client's machine.
pub(in crate::sim) struct ClientMachine {
    pub(in crate::sim) process: Option<Process>,
    pub(in crate::sim) program: Arc<dyn Program>,
    pub(super) ip: IpAddr,
    pub(in crate::sim) back_at: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    #[test]
    fn each_fault_of_a_clock_takes_back_its_own() {
        let mut machine =
            NodeMachine::new(Disk::new(1, Random::new(1, 1)), &[], LevelRange::SUPPORTED);
        let jump = ClockFault {
            wall_ahead_ms: 3_600_000,
            drift_ppm: 0,
        };
        let drift = ClockFault {
            wall_ahead_ms: 0,
            drift_ppm: -70_000,
        };
        machine.clock_faults.insert(1, jump);
        machine.clock_faults.insert(2, drift);
        let both = ClockFault {
            wall_ahead_ms: 3_600_000,
            drift_ppm: -70_000,
        };
        assert_eq!(machine.clock(), both);
        machine.clock_faults.remove(&1);
        assert_eq!(machine.clock(), drift);
        machine.clock_faults.remove(&2);
        assert_eq!(machine.clock(), ClockFault::default());
    }
}
