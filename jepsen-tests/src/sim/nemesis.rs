//! What goes wrong, and when: all of it follows from the seed.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use huntlog_storage::Crash;

use super::clients::{Order, Seen};
use super::node::node_ip;
use super::random::Random;
use super::world::World;
use crate::history::{Fault, Phase as FaultPhase};

/// Between two faults.
const PACE: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(2_500);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Halves,
    IsolateLeader,
    Asymmetric,
    Bridge,
    Flapping,
    Loss,
    Delay,
    ResetConnections,
    Kill,
    PowerCut,
    TornWrite,
    TornWriteAll,
    KillMajority,
    PowerCutAll,
    KillAll,
    Pause,
    PauseLeader,
    SlowDisk,
    StalledDisk,
    FailedSync,
    ClockJump,
    ClockDrift,
    Restart,
    TransferLeader,
    Snapshot,
    Drain,
    ClientCrash,
    Member,
}

const KINDS: [(Kind, &str); 28] = [
    (Kind::Halves, "halves"),
    (Kind::IsolateLeader, "isolate_leader"),
    (Kind::Asymmetric, "asymmetric"),
    (Kind::Bridge, "bridge"),
    (Kind::Flapping, "flapping"),
    (Kind::Loss, "loss"),
    (Kind::Delay, "delay"),
    (Kind::ResetConnections, "reset_connections"),
    (Kind::Kill, "kill"),
    (Kind::PowerCut, "power_cut"),
    (Kind::TornWrite, "torn_write"),
    (Kind::TornWriteAll, "torn_write_all"),
    (Kind::KillMajority, "kill_majority"),
    (Kind::PowerCutAll, "power_cut_all"),
    (Kind::KillAll, "kill_all"),
    (Kind::Pause, "pause"),
    (Kind::PauseLeader, "pause_leader"),
    (Kind::SlowDisk, "slow_disk"),
    (Kind::StalledDisk, "stalled_disk"),
    (Kind::FailedSync, "failed_sync"),
    (Kind::ClockJump, "clock_jump"),
    (Kind::ClockDrift, "clock_drift"),
    (Kind::Restart, "restart"),
    (Kind::TransferLeader, "transfer_leader"),
    (Kind::Snapshot, "snapshot"),
    (Kind::Drain, "drain"),
    (Kind::ClientCrash, "client_crash"),
    (Kind::Member, "member"),
];

/// Something that is undone later.
enum Undo {
    HealNetwork,
    Resume(u64),
    HealDisk(u64),
    ClocksRight,
    Undrain(u64),
    Flap {
        left: u64,
        pairs: Vec<(IpAddr, IpAddr)>,
        cut: bool,
    },
}

pub(super) struct Nemesis {
    random: Random,
    next_at: Duration,
    undo: Vec<(Duration, &'static str, Undo)>,
    /// The kinds of this run: a few at a time, so that each gets on.
    kinds: Vec<(Kind, &'static str)>,
    /// Nodes that are added later have ids from here on.
    next_id: u64,
    landed: u64,
    /// What is being done to the members: two steps of one change.
    spare: Option<u64>,
}

impl Nemesis {
    pub(super) fn new(seed: u64, nodes: u64) -> Self {
        let mut random = Random::new(seed, 3);
        let mut kinds: Vec<(Kind, &'static str)> =
            KINDS.into_iter().filter(|_| random.one_in(3)).collect();
        while kinds.len() < 3 {
            kinds.push(*random.pick(&KINDS));
        }
        Self {
            random,
            next_at: Duration::from_millis(500),
            undo: Vec::new(),
            kinds,
            next_id: nodes + 1,
            landed: 0,
            spare: None,
        }
    }

    /// Faults that have been injected.
    pub(super) fn landed(&self) -> u64 {
        self.landed
    }

    /// Called at each tick of the chaos.
    pub(super) fn act(&mut self, world: &mut World) {
        let due: Vec<(Duration, &'static str, Undo)> = {
            let now = world.now;
            let (due, later) = self.undo.drain(..).partition(|(at, ..)| *at <= now);
            self.undo = later;
            due
        };
        for (_, name, undo) in due {
            self.undo(world, name, undo);
        }
        if world.now >= self.next_at {
            self.next_at = world.now + self.random.within(&PACE);
            let (kind, name) = *self.random.pick(&self.kinds);
            self.inject(world, kind, name);
        }
    }

    /// Ends every fault, and brings everybody back.
    pub(super) fn heal(&mut self, world: &mut World) {
        self.undo.clear();
        world.net.heal();
        world.clocks_right();
        let ids: Vec<u64> = world.nodes.keys().copied().collect();
        for id in ids {
            let now = world.now;
            let node = world.nodes.get_mut(&id).expect("a node of the world");
            node.disk.heal();
            if let Some(process) = &mut node.process {
                process.resume(now);
            } else {
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
        record(world, "all", FaultPhase::Stop, &[]);
    }

    fn later(&mut self, world: &World, name: &'static str, undo: Undo) {
        let after = self
            .random
            .within(&(Duration::from_millis(200)..Duration::from_secs(5)));
        self.undo.push((world.now + after, name, undo));
    }

    fn undo(&mut self, world: &mut World, name: &'static str, undo: Undo) {
        match undo {
            Undo::HealNetwork => world.net.heal(),
            Undo::Resume(id) => {
                let now = world.now;
                if let Some(process) = world
                    .nodes
                    .get_mut(&id)
                    .and_then(|node| node.process.as_mut())
                {
                    process.resume(now);
                }
            }
            Undo::HealDisk(id) => {
                if let Some(node) = world.nodes.get(&id) {
                    node.disk.heal();
                }
            }
            Undo::ClocksRight => world.clocks_right(),
            Undo::Undrain(node) => world.operator.order(Order::Drain { node, undo: true }),
            Undo::Flap { left: 0, .. } => world.net.heal(),
            Undo::Flap { left, pairs, cut } => {
                for (from, to) in &pairs {
                    world.net.change_link(*from, *to, |link| link.cut = cut);
                }
                let after = self
                    .random
                    .within(&(Duration::from_millis(30)..Duration::from_millis(400)));
                let undo = Undo::Flap {
                    left: left - 1,
                    pairs,
                    cut: !cut,
                };
                self.undo.push((world.now + after, name, undo));
                return;
            }
        }
        record(world, name, FaultPhase::Stop, &[]);
    }

    fn inject(&mut self, world: &mut World, kind: Kind, name: &'static str) {
        let Some(hit) = self.try_inject(world, kind, name) else {
            return;
        };
        self.landed += 1;
        *world.shared.coverage.lock().faults.entry(name).or_default() += 1;
        if let Some(first) = hit.first() {
            world.shared.hit.store(*first, Ordering::Relaxed);
        }
        record(world, name, FaultPhase::Start, &hit);
    }

    /// The nodes that the fault has hit; `None` when it could not be injected.
    fn try_inject(
        &mut self,
        world: &mut World,
        kind: Kind,
        name: &'static str,
    ) -> Option<Vec<u64>> {
        let ids: Vec<u64> = world
            .nodes
            .iter()
            .filter(|(_, node)| !node.retired)
            .map(|(id, _)| *id)
            .collect();
        let running = world.running();
        let leader = leader_of(&world.shared.seen.lock(), &running);
        let one = || -> Option<u64> { (!running.is_empty()).then(|| running[0]) };
        one()?;
        let someone = *self.random.pick(&running);
        match kind {
            Kind::Halves => {
                let mut mixed = ids.clone();
                self.shuffle(&mut mixed);
                let (a, b) = mixed.split_at(mixed.len() / 2);
                self.cut(world, name, &pairs(a, b, true));
                Some(a.to_vec())
            }
            Kind::IsolateLeader => {
                let leader = leader?;
                let others: Vec<u64> = ids.iter().copied().filter(|id| *id != leader).collect();
                self.cut(world, name, &pairs(&[leader], &others, true));
                Some(vec![leader])
            }
            Kind::Asymmetric => {
                let others: Vec<u64> = ids.iter().copied().filter(|id| *id != someone).collect();
                // It hears nobody, or nobody hears it.
                let cut = if self.random.one_in(2) {
                    pairs(&[someone], &others, false)
                } else {
                    pairs(&others, &[someone], false)
                };
                self.cut(world, name, &cut);
                Some(vec![someone])
            }
            Kind::Bridge => {
                let mut mixed = ids.clone();
                self.shuffle(&mut mixed);
                let (middle, rest) = mixed.split_first()?;
                let (a, b) = rest.split_at(rest.len() / 2);
                self.cut(world, name, &pairs(a, b, true));
                Some(vec![*middle])
            }
            Kind::Flapping => {
                let others: Vec<u64> = ids.iter().copied().filter(|id| *id != someone).collect();
                let flap = Undo::Flap {
                    left: 2 + self.random.below(12),
                    pairs: pairs(&[someone], &others, true),
                    cut: true,
                };
                self.undo.push((world.now, name, flap));
                Some(vec![someone])
            }
            Kind::Loss => {
                let loss = 20 + self.random.below(300);
                self.change_links(world, name, &ids, |link| link.loss_per_mille = loss);
                Some(ids)
            }
            Kind::Delay => {
                let most = Duration::from_millis(5 + self.random.below(200));
                self.change_links(world, name, &ids, |link| link.latency = most / 10..most);
                Some(ids)
            }
            Kind::ResetConnections => {
                for (a, b) in pairs(&ids, &ids, false) {
                    world.net.reset_some(a, b, 300);
                }
                Some(ids)
            }
            Kind::Kill => {
                let id = if self.random.one_in(2) {
                    leader.unwrap_or(someone)
                } else {
                    someone
                };
                self.crash(world, &[id], Crash::Process);
                Some(vec![id])
            }
            Kind::PowerCut => {
                let id = if self.random.one_in(2) {
                    leader.unwrap_or(someone)
                } else {
                    someone
                };
                self.crash(world, &[id], Crash::Power);
                Some(vec![id])
            }
            Kind::TornWrite | Kind::TornWriteAll => {
                let hit = if kind == Kind::TornWrite {
                    vec![leader.unwrap_or(someone)]
                } else {
                    running.clone()
                };
                for id in &hit {
                    let after = 1 + self.random.below(12);
                    world.nodes.get(id)?.disk.stop_after(after);
                }
                Some(hit)
            }
            Kind::KillMajority => {
                let mut mixed = running.clone();
                self.shuffle(&mut mixed);
                mixed.truncate(ids.len() / 2 + 1);
                let crash = if self.random.one_in(2) {
                    Crash::Process
                } else {
                    Crash::Power
                };
                self.crash(world, &mixed, crash);
                Some(mixed)
            }
            Kind::PowerCutAll => {
                self.crash(world, &ids, Crash::Power);
                Some(ids)
            }
            Kind::KillAll => {
                self.crash(world, &ids, Crash::Process);
                Some(ids)
            }
            Kind::Pause | Kind::PauseLeader => {
                let id = if kind == Kind::PauseLeader {
                    leader?
                } else {
                    someone
                };
                let now = world.now;
                world.nodes.get_mut(&id)?.process.as_mut()?.pause(now);
                self.later(world, name, Undo::Resume(id));
                Some(vec![id])
            }
            Kind::SlowDisk | Kind::StalledDisk => {
                let most = if kind == Kind::SlowDisk {
                    Duration::from_millis(10 + self.random.below(150))
                } else {
                    Duration::from_millis(1_000 + self.random.below(9_000))
                };
                world.nodes.get(&someone)?.disk.set_sync(most / 2..most);
                self.later(world, name, Undo::HealDisk(someone));
                Some(vec![someone])
            }
            Kind::FailedSync => {
                let after = self.random.below(20);
                world.nodes.get(&someone)?.disk.fail_a_sync(after);
                Some(vec![someone])
            }
            Kind::ClockJump => {
                let ahead = match self.random.below(3) {
                    0 => 3_600_000,
                    1 => -3_600_000,
                    _ => i64::try_from(self.random.below(20_000)).ok()? - 10_000,
                };
                let id = leader.unwrap_or(someone);
                world.set_clock(id, ahead, 0);
                self.later(world, name, Undo::ClocksRight);
                Some(vec![id])
            }
            Kind::ClockDrift => {
                let drift = i64::try_from(self.random.below(200_000)).ok()? - 100_000;
                world.set_clock(someone, 0, drift);
                self.later(world, name, Undo::ClocksRight);
                Some(vec![someone])
            }
            Kind::Restart => {
                world.nodes.get(&someone)?.handle.as_ref()?.stop();
                Some(vec![someone])
            }
            Kind::TransferLeader => {
                world.operator.order(Order::TransferLeader);
                Some(leader.into_iter().collect())
            }
            Kind::Snapshot => {
                world.operator.order(Order::Snapshot { node: someone });
                Some(vec![someone])
            }
            Kind::Drain => {
                world.operator.order(Order::Drain {
                    node: someone,
                    undo: false,
                });
                self.later(world, name, Undo::Undrain(someone));
                Some(vec![someone])
            }
            Kind::ClientCrash => {
                let crashable: Vec<u64> = world
                    .clients
                    .iter()
                    .filter(|(number, client)| {
                        client.process.is_some() && **number != world.operator_number
                    })
                    .map(|(number, _)| *number)
                    .collect();
                let number = *self.random.pick(&crashable);
                world.crash_client(number);
                let back = self
                    .random
                    .within(&(Duration::from_millis(1)..Duration::from_secs(3)));
                let back_at = world.now + back;
                world.clients.get_mut(&number)?.back_at = Some(back_at);
                Some(Vec::new())
            }
            Kind::Member => self.change_members(world, &ids),
        }
    }

    /// Adds a node, promotes it, or removes one, in turn.
    fn change_members(&mut self, world: &mut World, ids: &[u64]) -> Option<Vec<u64>> {
        if world.operator.state.lock().busy {
            return None;
        }
        match self.spare.take() {
            None if ids.len() < 6 => {
                let id = self.next_id;
                self.next_id += 1;
                world.add_node(id, &[]);
                world.operator.order(Order::Add { node: id });
                world.operator.order(Order::Promote { node: id });
                world.shared.members.lock().push(id);
                self.spare = Some(id);
                Some(vec![id])
            }
            _ => {
                let id = *self.random.pick(ids);
                if ids.len() <= 3 {
                    return None;
                }
                world.operator.order(Order::Remove { node: id });
                Some(vec![id])
            }
        }
    }

    fn crash(&mut self, world: &mut World, ids: &[u64], crash: Crash) {
        for id in ids {
            world.crash_node(*id, crash);
            let down = self
                .random
                .within(&(Duration::from_millis(50)..Duration::from_secs(4)));
            let back_at = world.now + down;
            if let Some(node) = world.nodes.get_mut(id) {
                node.back_at = Some(back_at);
            }
        }
    }

    fn cut(&mut self, world: &World, name: &'static str, cut: &[(IpAddr, IpAddr)]) {
        for (from, to) in cut {
            world.net.change_link(*from, *to, |link| link.cut = true);
        }
        self.later(world, name, Undo::HealNetwork);
    }

    fn change_links(
        &mut self,
        world: &World,
        name: &'static str,
        ids: &[u64],
        change: impl Fn(&mut super::net::Link),
    ) {
        for (from, to) in pairs(ids, ids, false) {
            world.net.change_link(from, to, &change);
        }
        self.later(world, name, Undo::HealNetwork);
    }

    fn shuffle(&mut self, ids: &mut [u64]) {
        for at in (1..ids.len()).rev() {
            let other = usize::try_from(self.random.below(at as u64 + 1)).expect("an index");
            ids.swap(at, other);
        }
    }
}

fn leader_of(seen: &Seen, running: &[u64]) -> Option<u64> {
    seen.leader.filter(|leader| running.contains(leader))
}

fn pairs(from: &[u64], to: &[u64], both: bool) -> Vec<(IpAddr, IpAddr)> {
    let mut pairs = Vec::new();
    for a in from {
        for b in to.iter().filter(|b| *b != a) {
            pairs.push((node_ip(*a), node_ip(*b)));
            if both {
                pairs.push((node_ip(*b), node_ip(*a)));
            }
        }
    }
    pairs
}

fn record(world: &World, name: &str, phase: FaultPhase, nodes: &[u64]) {
    world
        .trace
        .line(&format!("nemesis: {phase:?} {name} {nodes:?}"));
    world.shared.recorder.fault(Fault {
        name: name.to_owned(),
        phase,
        nodes: nodes.to_vec(),
        detail: None,
    });
}
