//! The world: machines, their disks, the network between them, and time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use huntlog_storage::Crash;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clients::{Operator, Phase, Program, Seen, Shared};
use super::coverage::Coverage;
use super::disk::Disk;
use super::host::Process;
use super::interpose;
use super::invariants::{Held, Stop, bounded, durable, loud};
use super::middlebox::Middlebox;
use super::net::{Link, Net};
use super::node::{Ending, NodeHandle, Setup, Way, config, node_ip, node_process};
use super::random::Random;
use super::trace::{Trace, set_place};
use crate::history::Recorder;

/// What the world moves on by. Nothing crosses the network in less.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Disks and bounds are judged this often,
const JUDGE: Duration = Duration::from_millis(2_500);
/// and disks this often while one is slow.
const JUDGE_SLOW: Duration = Duration::from_millis(400);

/// Clients' machines have numbers from here on.
const CLIENTS_FROM: u64 = 100;

/// A machine of the cluster.
pub(super) struct NodeMachine {
    pub(super) process: Option<Process>,
    pub(super) handle: Option<NodeHandle>,
    pub(super) disk: Disk,
    /// Who it was given for its first members.
    initial: Vec<u64>,
    wall_ahead_ms: i64,
    drift_ppm: i64,
    /// It has ended and is not to be started again.
    pub(super) retired: bool,
    /// When its process is started again, if it is down.
    pub(super) back_at: Option<Duration>,
}

/// A client's machine.
pub(super) struct ClientMachine {
    pub(super) process: Option<Process>,
    pub(super) program: Arc<dyn Program>,
    ip: IpAddr,
    pub(super) back_at: Option<Duration>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Duration,
    pub(super) net: Net,
    pub(super) nodes: BTreeMap<u64, NodeMachine>,
    pub(super) clients: BTreeMap<u64, ClientMachine>,
    pub(super) shared: Shared,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) trace: Trace,
    pub(super) operator: Arc<Operator>,
    /// The operator's machine.
    pub(super) operator_number: u64,
    setup: Setup,
    clock: Arc<Mutex<Duration>>,
    /// The highest acknowledged log index that was looked at, and when disks were
    /// last held against one.
    judged: (u64, Duration),
    /// What the disks had of acknowledged entries.
    disks_seen: Vec<(u64, BTreeMap<u64, Held>)>,
    /// What must not have happened.
    pub(super) violations: Vec<String>,
}

impl World {
    pub(super) fn new(
        seed: u64,
        setup: Setup,
        usual: Link,
        trace: Trace,
        operator: Arc<Operator>,
        middlebox: Option<Middlebox>,
    ) -> Self {
        let net = Net::new(Random::new(seed, 1), usual);
        let (phase, phase_seen) = watch::channel(Phase::Chaos);
        let clock = Arc::new(Mutex::new(Duration::ZERO));
        let recorder = Recorder::new({
            let clock = clock.clone();
            move || u64::try_from(clock.lock().as_nanos()).unwrap_or(u64::MAX)
        });
        let shared = Shared {
            way: Way {
                net: net.clone(),
                middlebox,
            },
            recorder,
            phase: phase_seen,
            coverage: Arc::new(Mutex::new(Coverage::default())),
            members: Arc::default(),
            seen: Arc::new(Mutex::new(Seen::default())),
            acknowledged: Arc::default(),
            hit: Arc::default(),
            opened: Arc::default(),
            opening: Arc::default(),
            forgotten: setup.expires_sessions().then(Arc::default),
        };
        Self {
            seed,
            now: Duration::ZERO,
            net,
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            shared,
            phase,
            trace,
            operator,
            operator_number: 0,
            setup,
            clock,
            judged: (0, Duration::ZERO),
            disks_seen: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a machine for the node `id`, with a fresh disk, and starts it.
    pub(super) fn add_node(&mut self, id: u64, initial: &[u64]) {
        let disk_seed = Random::new(self.seed, 1_000 + id).next();
        let disk = Disk::new(disk_seed, Random::new(self.seed, 2_000 + id));
        self.nodes.insert(
            id,
            NodeMachine {
                process: None,
                handle: None,
                disk,
                initial: initial.to_vec(),
                wall_ahead_ms: 0,
                drift_ppm: 0,
                retired: false,
                back_at: None,
            },
        );
        self.start_node(id);
    }

    /// Starts the node's process, if its machine stands still.
    pub(super) fn start_node(&mut self, id: u64) {
        self.place(0);
        let Some(machine) = self.nodes.get_mut(&id) else {
            return;
        };
        machine.back_at = None;
        if machine.process.is_some() || machine.retired {
            return;
        }
        self.net.light_up(node_ip(id));
        let config = config(id, &machine.initial, &self.setup);
        let (main, handle) = node_process(
            config,
            self.setup.limits.clone(),
            self.shared.way.clone(),
            machine.disk.clone(),
        );
        let mut process = Process::start(main);
        process.set_wall_ahead_ms(machine.wall_ahead_ms);
        process.set_drift_ppm(machine.drift_ppm);
        machine.process = Some(process);
        machine.handle = Some(handle);
        self.trace.line(&format!("world: node {id} starts"));
    }

    /// Ends the node's process without a word; with its machine's power, if
    /// that is the crash.
    pub(super) fn crash_node(&mut self, id: u64, crash: Crash) {
        self.place(0);
        let Some(machine) = self.nodes.get_mut(&id) else {
            return;
        };
        let Some(process) = machine.process.take() else {
            return;
        };
        self.trace
            .line(&format!("world: node {id} goes down: {crash:?}"));
        if crash == Crash::Power {
            self.net.darken(node_ip(id));
        }
        self.keep_counts(id);
        drop(process);
        let machine = self.nodes.get_mut(&id).expect("looked up");
        machine.handle = None;
        machine.disk.crash(crash);
    }

    /// What a process has counted is gone with it.
    fn keep_counts(&mut self, id: u64) {
        let Some(handle) = self
            .nodes
            .get(&id)
            .and_then(|machine| machine.handle.as_ref())
        else {
            return;
        };
        let text = handle.metrics.encode();
        let mut coverage = self.shared.coverage.lock();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let value = value.parse::<f64>().unwrap_or(0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of a short run"
            )]
            let value = value as u64;
            if name.starts_with("huntlog_snapshots_total") {
                if name.contains("installed") || name.contains("received") {
                    coverage.snapshots_installed += value;
                } else {
                    coverage.snapshots_taken += value;
                }
            }
        }
    }

    /// Counts what running processes have counted so far; once, at the end.
    pub(super) fn keep_all_counts(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.keep_counts(id);
        }
        let net = self.net.counts();
        let middle = self.shared.way.middlebox.as_ref();
        let done = middle.map(Middlebox::done).unwrap_or_default();
        let disks: Vec<_> = self.nodes.values().map(|node| node.disk.counts()).collect();
        let mut coverage = self.shared.coverage.lock();
        coverage.leaders = self.shared.seen.lock().leaders.leaderships();
        coverage.requests_repeated = done.repeated;
        coverage.requests_delayed = done.delayed;
        coverage.requests_lost = done.lost;
        coverage.log_truncated = self.trace.seen("cutting off entries of a leader");
        coverage.segments_lost = net.lost;
        coverage.segments_stalled = net.stalled;
        coverage.connections_reset = net.reset;
        coverage.torn_tails = disks.iter().map(|disk| disk.torn_tails).sum();
        coverage.frames_rewritten = disks.iter().map(|disk| disk.frames_rewritten).sum();
    }

    /// Sets how far the node's wall clock is ahead, and how much its clocks gain.
    pub(super) fn set_clock(&mut self, id: u64, wall_ahead_ms: i64, drift_ppm: i64) {
        let Some(machine) = self.nodes.get_mut(&id) else {
            return;
        };
        machine.wall_ahead_ms = wall_ahead_ms;
        machine.drift_ppm = drift_ppm;
        if let Some(process) = &mut machine.process {
            process.set_wall_ahead_ms(wall_ahead_ms);
            process.set_drift_ppm(drift_ppm);
        }
    }

    pub(super) fn clocks_right(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.set_clock(id, 0, 0);
        }
    }

    /// Starts the operator's client.
    pub(super) fn add_operator(&mut self) {
        self.operator_number = self.add_client(self.operator.clone());
    }

    /// The nodes that have to come to the same in the end.
    pub(super) fn members(&self) -> Vec<u64> {
        let stays = |id: &u64| self.nodes.get(id).is_some_and(|node| !node.retired);
        let members = self.shared.seen.lock().members();
        let members = members.unwrap_or_else(|| self.nodes.keys().copied().collect());
        members.into_iter().filter(stays).collect()
    }

    /// Adds a client on a machine of its own, and starts it.
    pub(super) fn add_client(&mut self, program: Arc<dyn Program>) -> u64 {
        let number = CLIENTS_FROM + self.clients.len() as u64;
        let [low, high, ..] = (number - CLIENTS_FROM + 1).to_le_bytes();
        let ip = IpAddr::from([10, 1, high, low]);
        self.clients.insert(
            number,
            ClientMachine {
                process: None,
                program,
                ip,
                back_at: None,
            },
        );
        self.start_client(number);
        number
    }

    pub(super) fn start_client(&mut self, number: u64) {
        self.place(0);
        if let Some(client) = self.clients.get_mut(&number)
            && client.process.is_none()
        {
            client.back_at = None;
            let main = client.program.clone().run(self.shared.clone(), client.ip);
            client.process = Some(Process::start(main));
        }
    }

    /// Runs something else on a client's machine, when its program has ended.
    pub(super) fn run_client(
        &mut self,
        number: u64,
        main: impl FnOnce(Shared, IpAddr) -> futures::future::BoxFuture<'static, ()>,
    ) {
        self.place(0);
        if let Some(client) = self.clients.get_mut(&number) {
            client.process = None;
            client.process = Some(Process::start(main(self.shared.clone(), client.ip)));
        }
    }

    pub(super) fn crash_client(&mut self, number: u64) {
        self.place(0);
        if let Some(client) = self.clients.get_mut(&number)
            && let Some(process) = client.process.take()
        {
            self.trace
                .line(&format!("world: {} crashes", client.program.name()));
            drop(process);
        }
    }

    /// Nodes whose processes run and are not paused.
    pub(super) fn running(&self) -> Vec<u64> {
        let runs = |machine: &NodeMachine| {
            machine
                .process
                .as_ref()
                .is_some_and(|process| !process.is_paused())
        };
        self.nodes
            .iter()
            .filter(|(_, machine)| runs(machine))
            .map(|(id, _)| *id)
            .collect()
    }

    fn place(&self, host: u64) {
        set_place(self.now, host);
        interpose::set_world_time(self.now);
    }

    /// One tick: the network delivers, then every process runs.
    pub(super) fn tick(&mut self) {
        self.now += TICK;
        *self.clock.lock() = self.now;
        self.place(0);
        self.net.advance(self.now);
        for (id, machine) in &mut self.nodes {
            set_place(self.now, *id);
            if let Some(process) = &mut machine.process {
                process.run(TICK);
            }
        }
        for (number, client) in &mut self.clients {
            set_place(self.now, *number);
            if let Some(process) = &mut client.process {
                process.run(TICK);
            }
        }
        self.place(0);
        self.judge_acknowledged();
        self.judge_bounds();
        self.darken_broken();
        self.bury_ended();
        self.bring_back();
    }

    /// Holds what was acknowledged in this tick against the disks, from time to
    /// time; more often while a disk takes its time, because that tells more.
    fn judge_acknowledged(&mut self) {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        if acknowledged <= self.judged.0 {
            return;
        }
        let slow = self.nodes.values().any(|node| node.disk.is_slow());
        let pause = if slow { JUDGE_SLOW } else { JUDGE };
        let (_, at) = self.judged;
        self.judged.0 = acknowledged;
        if self.now < at + pause {
            return;
        }
        self.judged.1 = self.now;
        let mut disks = BTreeMap::new();
        for (id, node) in &self.nodes {
            match node.disk.would_hold(acknowledged) {
                Ok(held) => {
                    disks.insert(*id, held);
                }
                Err(error) => self.violations.push(format!(
                    "I12: what a power cut would leave of node {id} is refused: {error}"
                )),
            }
        }
        let mut coverage = self.shared.coverage.lock();
        coverage.disks_judged += 1;
        drop(coverage);
        // Of voters that have just changed nobody has spoken yet.
        self.disks_seen.push((acknowledged, disks));
    }

    /// What the disks seen so far say of I1.
    pub(super) fn judge_disks(&mut self) {
        let voters = &self.shared.seen.lock().voters;
        for (index, disks) in self.disks_seen.drain(..) {
            self.violations.extend(durable(index, &disks, voters).err());
        }
    }

    /// Holds what the nodes measure against their limits.
    fn judge_bounds(&mut self) {
        if !self.now.as_millis().is_multiple_of(JUDGE.as_millis()) {
            return;
        }
        for (id, node) in &self.nodes {
            let metrics = node.handle.as_ref().map(|handle| handle.metrics.encode());
            let judged = metrics.map(|text| bounded(*id, &text, &self.setup.limits));
            self.violations.extend(judged.and_then(Result::err));
        }
    }

    /// A machine whose disk has stopped in the middle of something has no power.
    fn darken_broken(&mut self) {
        let broken: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, machine)| machine.process.is_some() && machine.disk.is_down())
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            self.crash_node(id, Crash::Power);
            if let Some(machine) = self.nodes.get_mut(&id) {
                machine
                    .back_at
                    .get_or_insert(self.now + Duration::from_secs(1));
            }
        }
    }

    /// A process that has ended leaves its machine.
    fn bury_ended(&mut self) {
        let ended: Vec<(u64, Ending)> = self
            .nodes
            .iter()
            .filter_map(|(id, machine)| Some((*id, machine.handle.as_ref()?.ending()?)))
            .collect();
        for (id, ending) in ended {
            self.trace
                .line(&format!("world: node {id} has ended: {ending:?}"));
            self.crash_node(id, Crash::Process);
            let machine = self.nodes.get_mut(&id).expect("it has just ended");
            if let Ending::Failed(reason) = ending {
                match loud(id, &reason) {
                    Ok(Stop::Removed) => machine.retired = true,
                    Ok(Stop::Explained) => {}
                    Err(violation) => self.violations.push(violation),
                }
            }
            // As a supervisor does.
            machine
                .back_at
                .get_or_insert(self.now + Duration::from_secs(1));
        }
    }

    fn bring_back(&mut self) {
        let due = |at: Option<Duration>, now| at.is_some_and(|at| at <= now);
        let nodes: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, machine)| due(machine.back_at, self.now))
            .map(|(id, _)| *id)
            .collect();
        nodes.into_iter().for_each(|id| self.start_node(id));
        let clients: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| due(client.back_at, self.now))
            .map(|(number, _)| *number)
            .collect();
        clients
            .into_iter()
            .for_each(|number| self.start_client(number));
    }

    /// Ticks until `done`, no longer than `limit`; whether it was done.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let deadline = self.now + limit;
        while self.now < deadline {
            if done(self) {
                return true;
            }
            self.tick();
        }
        done(self)
    }
}
