//! What goes wrong, and when: all of it follows from the seed.
//!
//! Faults overlap, and each takes back its own when it ends. One counts, and is
//! in the history, when it has taken effect: what a disk or the operator was only
//! asked for may come to nothing.

mod kinds;
mod machines;
mod network;
mod releases;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use huntlog_storage::Crash;

use super::clients::{Order, Seen};
use super::net::{Effect, Impairment, Pair, PipeId};
use super::node::node_ip;
use super::random::Random;
use super::world::World;
use crate::history::Phase as FaultPhase;
pub(super) use kinds::{
    DRAIN, FAILED_SYNC, FINALIZE, MEMBER, OTHER_RELEASE, RESTART, SNAPSHOT, TRANSFER_LEADER, names,
};
use kinds::{ISOLATE_LEADER, KINDS, Kind};
use releases::upgrade_all;
pub(super) use releases::{NEW, OLD};

/// Between two faults.
const PACE: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(2_500);
/// So long a fault lasts.
const LASTS: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(5);
/// What is still kept back when everything is healed arrives within this.
const LATE_AT_HEALING: std::ops::Range<Duration> =
    Duration::from_millis(1)..Duration::from_millis(50);

/// A fault that ends later.
struct Active {
    until: Duration,
    name: &'static str,
    nodes: Vec<u64>,
    undo: Undo,
}

/// How a fault ends.
enum Undo {
    Lift(Impairment),
    Sever(Vec<PipeId>),
    /// In the life of the process that was paused, if it still lives.
    Resume {
        node: u64,
        life: u64,
    },
    SpeedUp {
        node: u64,
        fault: u64,
    },
    SetRight {
        node: u64,
        fault: u64,
    },
    Undrain(u64),
    Flap {
        left: u64,
        pairs: Vec<Pair>,
        cut: Option<Impairment>,
    },
}

/// What has come of injecting a fault: the nodes that it concerns.
enum Hit {
    /// It has taken effect.
    Now(Vec<u64>),
    /// It is asked for. Whoever sees it take effect counts it.
    Later(Vec<u64>),
}

/// Who there is when a fault is injected.
struct Scene {
    ids: Vec<u64>,
    running: Vec<u64>,
    leader: Option<u64>,
    someone: u64,
}

impl Scene {
    fn others(&self, than: u64) -> Vec<u64> {
        self.ids.iter().copied().filter(|id| *id != than).collect()
    }
}

pub(super) struct Nemesis {
    random: Random,
    next_at: Duration,
    active: Vec<Active>,
    /// The kinds of this run: a few at a time, so that each gets on.
    kinds: Vec<(Kind, &'static str)>,
    /// Nodes that are added later have ids from here on.
    next_id: u64,
    /// Faults of machines so far: each takes back its own.
    faults: u64,
    /// What is being done to the members: two steps of one change.
    spare: Option<u64>,
    /// From the first time on that the operator was told to finalize: nobody goes
    /// back to the release before.
    finalizing: bool,
    /// Whether everybody is upgraded in the end.
    ends_upgraded: bool,
}

impl Nemesis {
    pub(super) fn new(seed: u64, nodes: u64, mixed: bool) -> Self {
        let mut random = Random::new(seed, 3);
        let possible = KINDS.into_iter().filter(|(kind, _)| !kind.upgrades());
        let possible: Vec<(Kind, &'static str)> = possible.collect();
        let drawn = possible.iter().copied().filter(|_| random.one_in(3));
        let mut kinds: Vec<(Kind, &'static str)> = drawn.collect();
        // A deposed leader that does not know is made by few, and needs its time.
        if random.one_in(2) && !kinds.contains(&ISOLATE_LEADER) {
            kinds.push(ISOLATE_LEADER);
        }
        while kinds.len() < 3 {
            kinds.push(*random.pick(&possible));
        }
        if mixed {
            kinds.extend(KINDS.into_iter().filter(|(kind, _)| kind.upgrades()));
        }
        let ends_upgraded = mixed && random.one_in(2);
        Self {
            random,
            next_at: Duration::from_millis(500),
            active: Vec::new(),
            kinds,
            next_id: nodes + 1,
            faults: 0,
            spare: None,
            finalizing: false,
            ends_upgraded,
        }
    }

    /// Called at each tick of the chaos.
    pub(super) fn act(&mut self, world: &mut World) {
        let (due, later) = self
            .active
            .drain(..)
            .partition(|fault| fault.until <= world.now);
        self.active = later;
        let due: Vec<Active> = due;
        for fault in due {
            self.end(world, fault);
        }
        if world.now >= self.next_at {
            self.next_at = world.now + self.random.within(&PACE);
            let (kind, name) = *self.random.pick(&self.kinds);
            self.inject(world, kind, name);
        }
    }

    /// Ends every fault, and brings everybody back.
    pub(super) fn heal(&mut self, world: &mut World) {
        for mut fault in std::mem::take(&mut self.active) {
            if let Undo::Flap { left, .. } = &mut fault.undo {
                *left = 0;
            }
            if let Undo::Sever(held) = &fault.undo {
                let late = world.net.sever(held, &LATE_AT_HEALING);
                landed_late(world, fault.name, &late);
                continue;
            }
            self.end(world, fault);
        }
        let ids: Vec<u64> = world.nodes.keys().copied().collect();
        for id in ids {
            let now = world.now;
            let node = world.nodes.get_mut(&id).expect("a node of the world");
            node.disk.disarm();
            if node.process.is_none() {
                node.back_at = Some(now);
            }
            world.operator.order(Order::Drain {
                node: id,
                undo: true,
            });
        }
        let clients: Vec<u64> = world.clients.keys().copied().collect();
        for number in clients {
            if world.clients[&number].process.is_none() {
                world.start_client(number);
            }
        }
        if self.ends_upgraded {
            upgrade_all(world);
        }
        world.shared.fault("all", FaultPhase::Stop, &[]);
    }

    fn number(&mut self) -> u64 {
        self.faults += 1;
        self.faults
    }

    fn later(&mut self, world: &World, name: &'static str, nodes: Vec<u64>, undo: Undo) {
        let after = self.random.within(&LASTS);
        self.at(world.now + after, name, nodes, undo);
    }

    fn at(&mut self, until: Duration, name: &'static str, nodes: Vec<u64>, undo: Undo) {
        self.active.push(Active {
            until,
            name,
            nodes,
            undo,
        });
    }

    fn end(&mut self, world: &mut World, fault: Active) {
        let Active {
            name, nodes, undo, ..
        } = fault;
        match undo {
            Undo::Lift(impairment) => world.net.lift(impairment),
            Undo::Sever(held) => {
                let late = world.net.sever(&held, &network::LATE);
                landed_late(world, name, &late);
                return;
            }
            Undo::Resume { node, life } => world.resume_node(node, life),
            Undo::SpeedUp { node, fault } => {
                if let Some(node) = world.nodes.get(&node) {
                    node.disk.speed_up(fault);
                }
            }
            Undo::SetRight { node, fault } => world.set_clock_right(node, fault),
            Undo::Undrain(node) => {
                // It has ended when the operator has come to it.
                world.operator.order(Order::Drain { node, undo: true });
                return;
            }
            Undo::Flap { left, pairs, cut } => {
                if let Some(cut) = cut {
                    world.net.lift(cut);
                }
                if left > 0 {
                    let cut = match cut {
                        Some(_) => None,
                        None => Some(world.net.impair(&pairs, &Effect::Cut)),
                    };
                    let after = self
                        .random
                        .within(&(Duration::from_millis(30)..Duration::from_millis(400)));
                    let left = left - 1;
                    let undo = Undo::Flap { left, pairs, cut };
                    self.at(world.now + after, name, nodes, undo);
                    return;
                }
            }
        }
        world.shared.fault(name, FaultPhase::Stop, &nodes);
    }

    fn inject(&mut self, world: &mut World, kind: Kind, name: &'static str) {
        let Some(scene) = self.scene(world) else {
            return;
        };
        let Some(hit) = self.try_inject(world, kind, name, &scene) else {
            return;
        };
        let (Hit::Now(nodes) | Hit::Later(nodes)) = &hit;
        if let Some(first) = nodes.first() {
            world.shared.hit.store(*first, Ordering::Relaxed);
        }
        match hit {
            Hit::Now(nodes) => world.shared.fault(name, FaultPhase::Start, &nodes),
            Hit::Later(nodes) => {
                let line = format!("nemesis: {name} is asked for on {nodes:?}");
                world.trace.line(&line);
            }
        }
    }

    /// None when nobody runs that a fault could hit.
    fn scene(&mut self, world: &World) -> Option<Scene> {
        let ids: Vec<u64> = world
            .nodes
            .iter()
            .filter(|(_, node)| !node.retired)
            .map(|(id, _)| *id)
            .collect();
        let running = world.running();
        running.first()?;
        Some(Scene {
            leader: leader_of(&world.shared.seen.lock(), &running),
            someone: *self.random.pick(&running),
            ids,
            running,
        })
    }

    /// What it has hit; `None` when it could not be injected.
    fn try_inject(
        &mut self,
        world: &mut World,
        kind: Kind,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let Scene {
            leader, someone, ..
        } = *scene;
        Some(match kind {
            Kind::Halves => self.halves(world, name, scene),
            Kind::IsolateLeader => self.isolate_leader(world, name, scene)?,
            Kind::Asymmetric => self.asymmetric(world, name, scene),
            Kind::Bridge => self.bridge(world, name, scene)?,
            Kind::Flapping => self.flapping(world, name, scene),
            Kind::Loss => self.loss(world, name, scene),
            Kind::Delay => self.delay(world, name, scene),
            Kind::ResetConnections => self.reset_connections(world, scene)?,
            Kind::LateBytes => self.late_bytes(world, name, scene)?,
            Kind::Kill => self.crash_one(world, scene, Crash::Process),
            Kind::PowerCut => self.crash_one(world, scene, Crash::Power),
            Kind::TornWrite => self.torn_write(world, name, &[leader.unwrap_or(someone)]),
            Kind::TornWriteAll => self.torn_write(world, name, &scene.running),
            Kind::KillMajority => self.kill_majority(world, scene),
            Kind::PowerCutAll => self.crash(world, &scene.ids, Crash::Power),
            Kind::KillAll => self.crash(world, &scene.ids, Crash::Process),
            Kind::Pause => self.pause(world, name, someone)?,
            Kind::PauseLeader => self.pause(world, name, leader?)?,
            Kind::SlowDisk => {
                let most = Duration::from_millis(10 + self.random.below(150));
                self.slow_disk(world, name, someone, most)?
            }
            Kind::StalledDisk => {
                let most = Duration::from_millis(1_000 + self.random.below(9_000));
                self.slow_disk(world, name, someone, most)?
            }
            Kind::FailedSync => self.failed_sync(world, someone)?,
            Kind::ClockJump => self.clock_jump(world, name, scene)?,
            Kind::ClockDrift => self.clock_drift(world, name, scene)?,
            Kind::Restart => {
                world.nodes.get(&someone)?.handle.as_ref()?.stop();
                Hit::Later(vec![someone])
            }
            Kind::TransferLeader => {
                world.operator.order(Order::TransferLeader);
                Hit::Later(leader.into_iter().collect())
            }
            Kind::Snapshot => {
                world.operator.order(Order::Snapshot { node: someone });
                Hit::Later(vec![someone])
            }
            Kind::Drain => self.drain(world, name, someone)?,
            Kind::ClientCrash => self.crash_client(world)?,
            Kind::Member => self.change_members(world, &scene.ids)?,
            Kind::OtherRelease => self.other_release(world, someone)?,
            Kind::Finalize => self.finalize(world)?,
        })
    }

    fn drain(&mut self, world: &World, name: &'static str, node: u64) -> Option<Hit> {
        let is_out = |fault: &Active| matches!(fault.undo, Undo::Undrain(out) if out == node);
        if self.active.iter().any(is_out) {
            return None;
        }
        world.operator.order(Order::Drain { node, undo: false });
        self.later(world, name, vec![node], Undo::Undrain(node));
        Some(Hit::Later(vec![node]))
    }

    /// Adds a node and promotes it, or removes one, in turn.
    fn change_members(&mut self, world: &mut World, ids: &[u64]) -> Option<Hit> {
        if world.operator.state.lock().busy {
            return None;
        }
        match self.spare.take() {
            None if ids.len() < 6 => {
                let id = self.next_id;
                self.next_id += 1;
                let levels = self.levels_of_newcomer(world);
                world.add_node(id, &[], levels);
                world.operator.order(Order::Add { node: id });
                world.operator.order(Order::Promote { node: id });
                world.shared.members.lock().push(id);
                self.spare = Some(id);
                Some(Hit::Later(vec![id]))
            }
            _ => {
                let id = *self.random.pick(ids);
                if ids.len() <= 3 {
                    return None;
                }
                world.operator.order(Order::Remove { node: id });
                Some(Hit::Later(vec![id]))
            }
        }
    }

    fn shuffle(&mut self, ids: &mut [u64]) {
        for at in (1..ids.len()).rev() {
            let other = usize::try_from(self.random.below(at as u64 + 1)).expect("an index");
            ids.swap(at, other);
        }
    }
}

/// Takes down that bytes of lost connections are on their way to these hosts.
fn landed_late(world: &World, name: &'static str, hosts: &BTreeSet<IpAddr>) {
    if !hosts.is_empty() {
        let at = |id: &u64| hosts.contains(&node_ip(*id));
        let nodes: Vec<u64> = world.nodes.keys().copied().filter(at).collect();
        world.shared.fault(name, FaultPhase::Start, &nodes);
    }
}

fn leader_of(seen: &Seen, running: &[u64]) -> Option<u64> {
    seen.leader.filter(|leader| running.contains(leader))
}
