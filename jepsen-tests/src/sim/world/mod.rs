//! The world: machines, their disks, the network between them, and time.

mod faults;
mod judge;
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use huntlog_machine::LevelRange;
use huntlog_storage::Crash;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clients::{Operator, Phase, Program, Seen, Shared};
use super::coverage::Coverage;
use super::disk::Disk;
use super::host::Process;
use super::interpose;
use super::invariants::{Explained, Held, loud};
use super::middlebox::Middlebox;
use super::nemesis::{OTHER_RELEASE, RESTART};
use super::net::{Link, Net};
use super::node::{Ending, Setup, Way, config, node_ip, node_process};
use super::random::Random;
use super::trace::{Trace, set_place};
use crate::history::{Phase as FaultPhase, Recorder};
pub(super) use machine::ClockFault;
use machine::{ClientMachine, NodeMachine};

/// What the world moves on by. Nothing crosses the network in less.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Clients' machines have numbers from here on.
const CLIENTS_FROM: u64 = 100;

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
    pub(super) setup: Setup,
    clock: Arc<Mutex<Duration>>,
    /// The highest acknowledged log index that was looked at, and when disks were
    /// last held against one.
    judged: (u64, Duration),
    /// What the disks had of acknowledged entries.
    disks_seen: Vec<(u64, BTreeMap<u64, Held>)>,
    /// Nodes of which it was said that they are no members any more.
    said_removed: BTreeSet<u64>,
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
        let recorder = Recorder::observed(
            {
                let clock = clock.clone();
                move || u64::try_from(clock.lock().as_nanos()).unwrap_or(u64::MAX)
            },
            {
                let trace = trace.clone();
                move |event| trace.line(&format!("history: {event}"))
            },
        );
        let shared = Shared {
            way: Way {
                net: net.clone(),
                middlebox,
            },
            recorder,
            phase: phase_seen,
            coverage: Arc::new(Mutex::new(Coverage::new())),
            members: Arc::default(),
            seen: Arc::new(Mutex::new(Seen::default())),
            acknowledged: Arc::default(),
            hit: Arc::default(),
            never: Arc::default(),
            opened: Arc::default(),
            gives_up: setup.retention_bytes.is_some(),
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
            said_removed: BTreeSet::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a machine for the node `id`, with a fresh disk, and starts it under a
    /// release that reads `levels`.
    pub(super) fn add_node(&mut self, id: u64, initial: &[u64], levels: LevelRange) {
        let disk_seed = Random::new(self.seed, 1_000 + id).next();
        let disk = Disk::new(disk_seed, Random::new(self.seed, 2_000 + id));
        self.nodes
            .insert(id, NodeMachine::new(disk, initial, levels));
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
        let changed = machine.next_levels.take();
        machine.levels = changed.unwrap_or(machine.levels);
        let config = config(id, &machine.initial, &self.setup);
        let (main, handle) = node_process(
            config,
            self.setup.limits.clone(),
            machine.levels,
            self.shared.way.clone(),
            machine.disk.clone(),
        );
        let process = Process::start(main);
        machine.process = Some(process);
        machine.handle = Some(handle);
        machine.life += 1;
        machine.syncs_failed_before = machine.disk.syncs_failed();
        machine.set_clock();
        let levels = machine.levels;
        self.trace.line(&format!(
            "world: node {id} starts, and reads level {levels}"
        ));
        if changed.is_some() {
            self.shared.fault(OTHER_RELEASE, FaultPhase::Start, &[id]);
        }
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
        // What it says at its end is its own.
        set_place(self.now, id);
        drop(process);
        self.place(0);
        let machine = self.nodes.get_mut(&id).expect("looked up");
        machine.handle = None;
        machine.to_tear = None;
        machine.disk.crash(crash);
    }

    /// Starts the operator's client.
    pub(super) fn add_operator(&mut self) {
        self.operator_number = self.add_client(self.operator.clone());
    }

    /// The nodes that have to come to the same in the end.
    pub(super) fn members(&self) -> Vec<u64> {
        let operator = self.operator.state.lock();
        let stays = |id: &u64| {
            let here = self.nodes.get(id).is_some_and(|node| !node.retired);
            here && !operator.removed.contains(id)
        };
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

    /// The machines of the clients that do the work. What the network does to
    /// clients it does to them: who watches and operates the run it leaves alone.
    pub(super) fn workload(&self) -> Vec<IpAddr> {
        let works = |client: &&ClientMachine| client.program.is_workload();
        let clients = self.clients.values().filter(works);
        clients.map(|client| client.ip).collect()
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
        if self
            .now
            .as_millis()
            .is_multiple_of(judge::JUDGE.as_millis())
        {
            self.judge_bounds();
        }
        self.judge_errors();
        self.note_failed_syncs();
        self.darken_broken();
        self.bury_ended();
        self.bring_back();
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
            let judged = match &ending {
                Ending::Stopped => {
                    self.shared.fault(RESTART, FaultPhase::Start, &[id]);
                    None
                }
                Ending::Failed(reason) => Some(loud(reason, &self.known(id))),
            };
            self.crash_node(id, Crash::Process);
            let machine = self.nodes.get_mut(&id).expect("it has just ended");
            match judged {
                None | Some(Ok(Explained::Disk)) => {}
                Some(Ok(Explained::Removed)) => {
                    machine.retired = true;
                    self.said_removed.insert(id);
                }
                Some(Err(unexplained)) => self
                    .violations
                    .push(format!("I12: node {id} stopped: {unexplained}")),
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
