//! Faults between machines: of the nodes' links, and of those between the nodes
//! and the clients that do the work.

use std::net::IpAddr;
use std::time::Duration;

use super::{Hit, LASTS, Nemesis, Scene, Undo};
use crate::sim::net::{Effect, Pair};
use crate::sim::node::node_ip;
use crate::sim::world::World;

/// For so long what is sent is kept back, before its connection is lost.
const HELD: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_millis(500);
/// An isolated leader is left so for long enough that the others elect another,
/// and go on.
const ISOLATED: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);
/// What was kept back arrives so long after that.
pub(super) const LATE: std::ops::Range<Duration> =
    Duration::from_millis(10)..Duration::from_secs(4);

impl Nemesis {
    pub(super) fn halves(&mut self, world: &World, name: &'static str, scene: &Scene) -> Hit {
        let mut mixed = scene.ids.clone();
        self.shuffle(&mut mixed);
        // The smaller half is of the most interest with the leader in it: it is
        // deposed, does not know, and is asked first of all.
        if self.random.one_in(2)
            && let Some(at) = mixed.iter().position(|id| Some(*id) == scene.leader)
        {
            mixed.swap(0, at);
        }
        let (a, b) = mixed.split_at(mixed.len() / 2);
        let lasts = self.random.within(&LASTS);
        self.part(world, name, a, b, lasts);
        Hit::Now(a.to_vec())
    }

    pub(super) fn isolate_leader(
        &mut self,
        world: &World,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let leader = scene.leader?;
        let lasts = self.random.within(&ISOLATED);
        self.part(world, name, &[leader], &scene.others(leader), lasts);
        Some(Hit::Now(vec![leader]))
    }

    /// Two parts that a node in the middle can reach, and each other not.
    pub(super) fn bridge(
        &mut self,
        world: &World,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let mut mixed = scene.ids.clone();
        self.shuffle(&mut mixed);
        let (middle, rest) = mixed.split_first()?;
        let (a, b) = rest.split_at(rest.len() / 2);
        let lasts = self.random.within(&LASTS);
        self.part(world, name, a, b, lasts);
        Some(Hit::Now(vec![*middle]))
    }

    /// Someone hears nobody, or nobody hears it.
    pub(super) fn asymmetric(&mut self, world: &World, name: &'static str, scene: &Scene) -> Hit {
        let id = self.leader_or_someone(scene);
        let one = [node_ip(id)];
        let mut others = ips(&scene.others(id));
        if self.random.one_in(2) {
            others.extend(world.workload());
        }
        let pairs = if self.random.one_in(2) {
            pairs(&one, &others)
        } else {
            pairs(&others, &one)
        };
        self.impair(world, name, vec![id], &pairs, &Effect::Cut);
        Hit::Now(vec![id])
    }

    pub(super) fn flapping(&mut self, world: &World, name: &'static str, scene: &Scene) -> Hit {
        let id = self.leader_or_someone(scene);
        let undo = Undo::Flap {
            left: 2 + self.random.below(12),
            pairs: both_ways(&[node_ip(id)], &ips(&scene.others(id))),
            cut: None,
        };
        self.at(world.now, name, vec![id], undo);
        Hit::Now(vec![id])
    }

    pub(super) fn loss(&mut self, world: &World, name: &'static str, scene: &Scene) -> Hit {
        let loss = Effect::LossPerMille(20 + self.random.below(300));
        self.worsen(world, name, scene, &loss)
    }

    pub(super) fn delay(&mut self, world: &World, name: &'static str, scene: &Scene) -> Hit {
        let most = Duration::from_millis(5 + self.random.below(200));
        self.worsen(world, name, scene, &Effect::Latency(most / 10..most))
    }

    pub(super) fn reset_connections(&mut self, world: &World, scene: &Scene) -> Option<Hit> {
        let nodes = ips(&scene.ids);
        let mut ends = nodes.clone();
        ends.extend(world.workload());
        let resets = pairs(&ends, &nodes).into_iter();
        let reset: u64 = resets.map(|(a, b)| world.net.reset_some(a, b, 300)).sum();
        (reset > 0).then(|| Hit::Now(scene.ids.clone()))
    }

    /// Connections break for whoever has made them, while the last of what was
    /// sent over them arrives later: when it was sent again over others, perhaps.
    pub(super) fn late_bytes(
        &mut self,
        world: &World,
        name: &'static str,
        scene: &Scene,
    ) -> Option<Hit> {
        let nodes = ips(&scene.ids);
        let from = if self.random.one_in(3) {
            nodes.clone()
        } else {
            world.workload()
        };
        let held = world.net.hold_some(&pairs(&from, &nodes), 500);
        if held.is_empty() {
            return None;
        }
        let at = world.now + self.random.within(&HELD);
        self.at(at, name, Vec::new(), Undo::Sever(held));
        Some(Hit::Later(scene.ids.clone()))
    }

    /// Two groups of nodes do not reach each other. A client is with one of them,
    /// or reaches both.
    fn part(&mut self, world: &World, name: &'static str, a: &[u64], b: &[u64], lasts: Duration) {
        let (hit, a, b) = (a.to_vec(), ips(a), ips(b));
        let mut cut = both_ways(&a, &b);
        for client in world.workload() {
            match self.random.below(3) {
                0 => cut.extend(both_ways(&[client], &a)),
                1 => cut.extend(both_ways(&[client], &b)),
                _ => {}
            }
        }
        let impairment = world.net.impair(&cut, &Effect::Cut);
        self.at(world.now + lasts, name, hit, Undo::Lift(impairment));
    }

    /// Does this to the links between nodes, or to those of clients, or to all.
    fn worsen(&mut self, world: &World, name: &'static str, scene: &Scene, effect: &Effect) -> Hit {
        let nodes = ips(&scene.ids);
        let which = self.random.below(4);
        let mut links = Vec::new();
        if which != 0 {
            links.extend(pairs(&nodes, &nodes));
        }
        if which < 2 {
            links.extend(both_ways(&world.workload(), &nodes));
        }
        self.impair(world, name, scene.ids.clone(), &links, effect);
        Hit::Now(scene.ids.clone())
    }

    fn impair(
        &mut self,
        world: &World,
        name: &'static str,
        nodes: Vec<u64>,
        pairs: &[Pair],
        effect: &Effect,
    ) {
        let impairment = world.net.impair(pairs, effect);
        self.later(world, name, nodes, Undo::Lift(impairment));
    }
}

fn ips(ids: &[u64]) -> Vec<IpAddr> {
    ids.iter().map(|id| node_ip(*id)).collect()
}

fn pairs(from: &[IpAddr], to: &[IpAddr]) -> Vec<Pair> {
    let of = |a: &IpAddr| {
        let a = *a;
        to.iter().filter(move |b| **b != a).map(move |b| (a, *b))
    };
    from.iter().flat_map(of).collect()
}

fn both_ways(a: &[IpAddr], b: &[IpAddr]) -> Vec<Pair> {
    let mut both = pairs(a, b);
    both.extend(pairs(b, a));
    both
}
