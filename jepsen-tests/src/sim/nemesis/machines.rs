//! Faults of machines: of their power, processes, disks and clocks.

use std::time::Duration;

use huntlog_storage::Crash;

use super::{Active, Hit, Nemesis, Scene, Undo};
use crate::sim::world::{ClockFault, World};

impl Nemesis {
    pub(super) fn crash_one(&mut self, world: &mut World, scene: &Scene, crash: Crash) -> Hit {
        let id = self.leader_or_someone(scene);
        self.crash(world, &[id], crash)
    }

    pub(super) fn kill_majority(&mut self, world: &mut World, scene: &Scene) -> Hit {
        let mut mixed = scene.running.clone();
        self.shuffle(&mut mixed);
        mixed.truncate(scene.ids.len() / 2 + 1);
        let crash = if self.random.one_in(2) {
            Crash::Process
        } else {
            Crash::Power
        };
        self.crash(world, &mixed, crash)
    }

    /// Takes down those of `ids` that are up.
    pub(super) fn crash(&mut self, world: &mut World, ids: &[u64], crash: Crash) -> Hit {
        let up = |id: &u64| {
            world
                .nodes
                .get(id)
                .is_some_and(|node| node.process.is_some())
        };
        let hit: Vec<u64> = ids.iter().copied().filter(up).collect();
        for id in &hit {
            world.crash_node(*id, crash);
            let down = self
                .random
                .within(&(Duration::from_millis(50)..Duration::from_secs(4)));
            let back_at = world.now + down;
            if let Some(node) = world.nodes.get_mut(id) {
                node.back_at = Some(back_at);
            }
        }
        Hit::Now(hit)
    }

    pub(super) fn torn_write(&mut self, world: &mut World, name: &'static str, ids: &[u64]) -> Hit {
        for id in ids {
            let after = 1 + self.random.below(12);
            world.tear_a_write(*id, name, after);
        }
        Hit::Later(ids.to_vec())
    }

    pub(super) fn pause(&mut self, world: &mut World, name: &'static str, id: u64) -> Option<Hit> {
        let now = world.now;
        let node = world.nodes.get_mut(&id)?;
        node.process.as_mut()?.pause(now);
        let life = node.life;
        self.later(world, name, vec![id], Undo::Resume { node: id, life });
        Some(Hit::Now(vec![id]))
    }

    pub(super) fn slow_disk(
        &mut self,
        world: &World,
        name: &'static str,
        id: u64,
        most: Duration,
    ) -> Option<Hit> {
        let fault = self.number();
        let disk = &world.nodes.get(&id)?.disk;
        disk.slow_down(fault, most / 2..most);
        self.later(world, name, vec![id], Undo::SpeedUp { node: id, fault });
        Some(Hit::Now(vec![id]))
    }

    pub(super) fn failed_sync(&mut self, world: &World, id: u64) -> Option<Hit> {
        let after = self.random.below(20);
        world.nodes.get(&id)?.disk.fail_a_sync(after);
        Some(Hit::Later(vec![id]))
    }

    pub(super) fn clock_jump(
        &mut self,
        world: &mut World,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let wall_ahead_ms = match self.random.below(3) {
            0 => 3_600_000,
            1 => -3_600_000,
            _ => i64::try_from(self.random.below(20_000)).ok()? - 10_000,
        };
        let id = scene.leader.unwrap_or(scene.someone);
        let wrong = ClockFault {
            wall_ahead_ms,
            drift_ppm: 0,
        };
        self.clock(world, name, id, wrong)
    }

    pub(super) fn clock_drift(
        &mut self,
        world: &mut World,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let drift_ppm = i64::try_from(self.random.below(200_000)).ok()? - 100_000;
        // The leader is who stamps the log.
        let id = self.leader_or_someone(scene);
        let wrong = ClockFault {
            wall_ahead_ms: 0,
            drift_ppm,
        };
        self.clock(world, name, id, wrong)
    }

    fn clock(
        &mut self,
        world: &mut World,
        name: &'static str,
        id: u64,
        wrong: ClockFault,
    ) -> Option<Hit> {
        // When most clocks have been wrong, the log's time can stand still for longer
        // than a run; nobody becomes idle then, and whoever waits for a session waits.
        let is_of_another =
            |fault: &Active| matches!(fault.undo, Undo::SetRight { node, .. } if node != id);
        if world.setup.has_few_sessions() && self.active.iter().any(is_of_another) {
            return None;
        }
        let fault = self.number();
        world.set_clock_wrong(id, fault, wrong);
        self.later(world, name, vec![id], Undo::SetRight { node: id, fault });
        Some(Hit::Now(vec![id]))
    }

    /// Crashes a client's process. It is started again later.
    pub(super) fn crash_client(&mut self, world: &mut World) -> Option<Hit> {
        let crashable: Vec<u64> = world
            .clients
            .iter()
            .filter(|(number, client)| {
                client.process.is_some() && **number != world.operator_number
            })
            .map(|(number, _)| *number)
            .collect();
        if crashable.is_empty() {
            return None;
        }
        let number = *self.random.pick(&crashable);
        world.crash_client(number);
        let back = self
            .random
            .within(&(Duration::from_millis(1)..Duration::from_secs(3)));
        let back_at = world.now + back;
        world.clients.get_mut(&number)?.back_at = Some(back_at);
        Some(Hit::Now(Vec::new()))
    }

    pub(super) fn leader_or_someone(&mut self, scene: &Scene) -> u64 {
        if self.random.one_in(2) {
            scene.leader.unwrap_or(scene.someone)
        } else {
            scene.someone
        }
    }
}
