//! What is done to the machines of the nodes, and when it has taken effect.

use std::time::Duration;

use huntlog_storage::Crash;

use super::{ClockFault, World};
use crate::history::Phase as FaultPhase;
use crate::sim::nemesis::FAILED_SYNC;

impl World {
    /// Makes the node's clocks wrong, because of `fault`.
    pub(in crate::sim) fn set_clock_wrong(&mut self, id: u64, fault: u64, wrong: ClockFault) {
        if let Some(machine) = self.nodes.get_mut(&id) {
            machine.clock_faults.insert(fault, wrong);
            machine.set_clock();
        }
    }

    /// The fault of its clocks is over.
    pub(in crate::sim) fn set_clock_right(&mut self, id: u64, fault: u64) {
        if let Some(machine) = self.nodes.get_mut(&id) {
            machine.clock_faults.remove(&fault);
            machine.set_clock();
        }
    }

    /// Lets a paused process go on, if it still is the node's: in that life.
    pub(in crate::sim) fn resume_node(&mut self, id: u64, life: u64) {
        if let Some(machine) = self.nodes.get_mut(&id)
            && machine.life == life
            && let Some(process) = &mut machine.process
        {
            process.resume(self.now);
        }
    }

    /// The power of the node's machine goes in the middle of one of the next
    /// operations of its disk. The fault counts when it has.
    pub(in crate::sim) fn tear_a_write(&mut self, id: u64, fault: &'static str, after: u64) {
        if let Some(machine) = self.nodes.get_mut(&id) {
            machine.disk.stop_after(after);
            machine.to_tear = Some(fault);
        }
    }

    /// A machine whose disk has stopped in the middle of something has no power.
    pub(super) fn darken_broken(&mut self) {
        let broken: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, machine)| machine.process.is_some() && machine.disk.is_down())
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            let torn = self.nodes.get_mut(&id).and_then(|node| node.to_tear.take());
            if let Some(fault) = torn {
                self.shared.fault(fault, FaultPhase::Start, &[id]);
            }
            self.crash_node(id, Crash::Power);
            if let Some(machine) = self.nodes.get_mut(&id) {
                machine
                    .back_at
                    .get_or_insert(self.now + Duration::from_secs(1));
            }
        }
    }

    /// Counts the faults of syncs that were to fail, once they have.
    pub(super) fn note_failed_syncs(&mut self) {
        for (id, machine) in &mut self.nodes {
            let failed = machine.disk.syncs_failed();
            for _ in machine.syncs_failed_counted..failed {
                self.shared.fault(FAILED_SYNC, FaultPhase::Start, &[*id]);
            }
            machine.syncs_failed_counted = failed;
        }
    }
}
