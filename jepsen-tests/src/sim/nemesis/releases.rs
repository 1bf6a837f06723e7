//! Nodes of two releases, and the end of an upgrade.

use huntlog_machine::LevelRange;
use huntlog_storage::Crash;

use super::{Hit, Nemesis};
use crate::sim::clients::Order;
use crate::sim::world::World;

/// What the release before levels reads. Its nodes are this release's, told to
/// read no more: `scripts/upgrade` has the real one.
pub(in crate::sim) const OLD: LevelRange = LevelRange::UNTOLD;
/// What this release reads.
pub(in crate::sim) const NEW: LevelRange = LevelRange::SUPPORTED;

impl Nemesis {
    /// What a node that is added reads.
    pub(super) fn levels_of_newcomer(&mut self, world: &World) -> LevelRange {
        match world.setup.mixed && !self.finalizing && self.random.one_in(2) {
            true => OLD,
            false => NEW,
        }
    }

    /// Takes a node down, and starts it under the other release: an upgrade, or,
    /// before anybody is told to finalize, the way back.
    pub(super) fn other_release(&mut self, world: &mut World, id: u64) -> Option<Hit> {
        let other = match world.nodes.get(&id)?.levels == OLD {
            true => NEW,
            false if self.finalizing => return None,
            false => OLD,
        };
        self.swap(world, id, other)
    }

    /// Upgrades a node that is left, or has the operator finalize; now and then he
    /// does not wait for the last.
    pub(super) fn finalize(&mut self, world: &mut World) -> Option<Hit> {
        self.finalizing = true;
        let old = |id: &&u64| world.nodes[*id].levels == OLD && !world.nodes[*id].retired;
        let left: Vec<u64> = world.nodes.keys().filter(old).copied().collect();
        if !left.is_empty() && !self.random.one_in(4) {
            let id = *self.random.pick(&left);
            return self.swap(world, id, NEW);
        }
        world.operator.order(Order::Finalize);
        Some(Hit::Later(left))
    }

    fn swap(&mut self, world: &mut World, id: u64, to: LevelRange) -> Option<Hit> {
        world.nodes.get_mut(&id)?.next_levels = Some(to);
        if self.random.one_in(2) {
            let hit = self.crash(world, &[id], Crash::Process);
            let (Hit::Now(nodes) | Hit::Later(nodes)) = hit;
            return Some(Hit::Later(nodes));
        }
        // It stands still already, or ends in good order.
        if let Some(handle) = &world.nodes.get(&id)?.handle {
            handle.stop();
        }
        Some(Hit::Later(vec![id]))
    }
}

/// Has every node read everything from its next start on, and that be now; then
/// the operator finalizes.
pub(super) fn upgrade_all(world: &mut World) {
    for node in world.nodes.values_mut().filter(|node| node.levels == OLD) {
        node.next_levels = Some(NEW);
        if let Some(handle) = &node.handle {
            handle.stop();
        }
    }
    world.operator.order(Order::Finalize);
}
