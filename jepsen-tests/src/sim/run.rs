//! One run of one seed, in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use huntlog_machine::Limits;
use huntlog_node::config::RaftConfig;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::clients::{
    self, Claimer, Operator, Phase, Producer, Reader, Subscriber, Watcher, log_key,
};
use super::coverage::Coverage;
use super::deposed::is_of_a_deposed_leader;
use super::interpose;
use super::middlebox::{Middlebox, Mischief};
use super::nemesis::{NEW, Nemesis, OLD};
use super::net::Link;
use super::node::Setup;
use super::random::Random;
use super::trace::{Panic, Trace};
use super::world::World;
use crate::check::{Minimum, Outcomes, judge};
use crate::history::History;

/// Everything has to be answered so long after the last fault is healed: the
/// deadlines of clients that have one, a stalled disk's last sync, and some elections.
const RECOVERY: Duration = Duration::from_secs(40);

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Simulated time under faults.
    pub chaos: Duration,
    /// Prints the trace.
    pub shown: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub seed: u64,
    /// What must not have happened; empty when all is well.
    pub violations: Vec<String>,
    /// A hash of the trace, and its lines.
    pub trace: (u64, u64),
    pub simulated_ms: u64,
    pub nodes: u64,
    pub faults: u64,
    /// What became of the operations of each kind; every kind is there.
    pub ops: BTreeMap<String, Outcomes>,
    /// Every count of what has happened, also those of what has not.
    pub coverage: Vec<(String, u64)>,
}

/// Runs `plan`. From now on this process lives in simulated time.
pub fn run(plan: Plan) -> (Outcome, History) {
    interpose::begin(plan.seed);
    let trace = Trace::begin(plan.shown);
    let mut random = Random::new(plan.seed, 0);
    let nodes = if random.one_in(3) { 5 } else { 3 };
    let setup = Setup {
        snapshot_bytes: 20_000 << random.below(6),
        snapshot_every: Duration::from_secs(2 + random.below(20)),
        retention_bytes: random.one_in(3).then(|| 40_000 + random.below(260_000)),
        limits: limits(&mut random),
        raft: timers(&mut random),
        mixed: random.one_in(3),
    };
    let usual = Link {
        latency: Duration::from_micros(100)..Duration::from_micros(300 + random.below(3_000)),
        ..Link::default()
    };
    let middlebox = random.one_in(2).then(|| {
        let mischief = Mischief {
            repeat_per_mille: random.below(150),
            delay_per_mille: random.below(100),
            lose_per_mille: random.below(30),
        };
        Middlebox::new(Random::new(plan.seed, 4), mischief)
    });
    // Winners are read from the start, which is not there for ever.
    let treasures = setup.retention_bytes.is_none();
    let operator = operator(&mut random, treasures);
    let mut world = World::new(plan.seed, setup, usual, trace.clone(), operator, middlebox);
    let ids: Vec<u64> = (1..=nodes).collect();
    *world.shared.members.lock() = ids.clone();
    let mixed = world.setup.mixed;
    for id in &ids {
        // One at least, so that the cluster is formed at the first level.
        let old = mixed && (*id == 1 || random.one_in(2));
        world.add_node(*id, &ids, if old { OLD } else { NEW });
    }
    world.add_operator();
    let ready = world.run_until(Duration::from_secs(30), |world| world.operator.is_set_up());
    let mut stages = Stages {
        world,
        nemesis: Nemesis::new(plan.seed, nodes, mixed),
        random,
        subscribers: Vec::new(),
        readers: Vec::new(),
    };
    if ready {
        stages.populate();
        stages.chaos(plan.chaos);
        stages.recover();
    } else {
        stages.fault("no cluster formed, and nothing is broken yet".to_owned());
    }
    let mut world = stages.world;
    // A node measures itself once in a while, and the last may just have started.
    world.run_until(RECOVERY, |world| {
        world.judge_bounds();
        world.shared.coverage.lock().bounds_judged > 0
    });
    world.judge_disks();
    world.judge_removed();
    world.judge_sessions();
    world.keep_all_counts();
    let history = world.shared.recorder.history();
    let minimum = Minimum {
        ok_ops: 20,
        faults: 2,
    };
    let judgement = judge(&history, minimum);
    let mut violations = std::mem::take(&mut world.violations);
    violations.extend(judgement.violations.iter().map(ToString::to_string));
    if violations.is_empty() {
        let too_little = judgement.insufficient.into_iter();
        let too_little = too_little.chain(not_judged(&world.shared.coverage.lock()));
        violations.extend(too_little.map(|why| format!("no verdict: {why}")));
    }
    violations.extend(world.shared.seen.lock().violations.iter().cloned());
    let (excused, panics): (Vec<_>, Vec<_>) =
        trace.panics().into_iter().partition(is_of_a_deposed_leader);
    let panics = panics.into_iter();
    violations.extend(panics.map(|Panic { host, text, .. }| format!("a panic on {host}: {text}")));
    let mut coverage = world.shared.coverage.lock().clone();
    coverage.excused_panics = excused.len() as u64;
    let outcome = Outcome {
        seed: plan.seed,
        violations,
        trace: trace.digest(),
        simulated_ms: u64::try_from(world.now.as_millis()).unwrap_or(u64::MAX),
        nodes,
        faults: coverage.faults(),
        ops: outcomes_of_all(judgement.counts.ops),
        coverage: coverage.rows(),
    };
    (outcome, history)
}

/// The kinds of operations that clients have here, as histories call them.
const OPS: [&str; 8] = [
    "append", "resend", "read", "stale", "poll", "open", "claim", "who",
];

/// The kinds that did not come up have come to nothing.
fn outcomes_of_all(mut ops: BTreeMap<String, Outcomes>) -> BTreeMap<String, Outcomes> {
    for f in OPS {
        ops.entry(f.to_owned()).or_default();
    }
    ops
}

/// What every run has to judge at some time, and this one has not.
fn not_judged(coverage: &Coverage) -> Vec<String> {
    [
        (
            "no disk was held against what is acknowledged (I1)",
            coverage.disks_judged,
        ),
        (
            "no digest of one node was that of another (I7)",
            coverage.states_compared,
        ),
        (
            "no node was held against its limits (I11)",
            coverage.bounds_judged,
        ),
    ]
    .into_iter()
    .filter(|(_, count)| *count == 0)
    .map(|(what, _)| what.to_owned())
    .collect()
}

/// Timers as nodes have them by default, or slower ones.
fn timers(random: &mut Random) -> RaftConfig {
    let [heartbeat, election_min, election_max] = match random.one_in(3) {
        true => [50, 150, 300],
        false => [30, 100, 200],
    }
    .map(Duration::from_millis);
    RaftConfig {
        heartbeat,
        election_min,
        election_max,
        ignore_digests_through: 0,
    }
}

/// Bounds that a short run reaches, in some worlds.
fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    if random.one_in(3) {
        limits.session_idle_ms = 2_000 + random.below(6_000);
        limits.idle_step_ms_max = 1_000;
        if random.one_in(2) {
            // Fewer than there are clients: they make room for each other.
            limits.max_sessions = 3 + u32::try_from(random.below(5)).expect("a few");
            limits.evictable_idle_ms = limits.idle_step_ms_max + 100 + random.below(800);
        }
    }
    if random.one_in(3) {
        limits.result_budget_bytes = 500 + random.below(20_000);
        limits.results_per_session = 1 + u32::try_from(random.below(8)).expect("a few");
    }
    limits
}

fn operator(random: &mut Random, treasures: bool) -> Arc<Operator> {
    let count = if treasures { random.below(4) } else { 0 };
    let limits = (0..count).map(|_| 1 + random.below(2)).collect();
    Arc::new(Operator {
        keys: 1 + random.below(3),
        limits,
        players: 2 + random.below(4),
        state: Mutex::new(clients::OperatorState::new(Random::new(random.next(), 0))),
        ordered: Notify::new(),
    })
}

struct Stages {
    world: World,
    nemesis: Nemesis,
    random: Random,
    subscribers: Vec<Arc<Subscriber>>,
    readers: Vec<(u64, Arc<Reader>)>,
}

impl Stages {
    fn fault(&mut self, what: String) {
        self.world.trace.line(&format!("violation: {what}"));
        self.world.violations.push(what);
    }

    fn own(&mut self) -> Random {
        Random::new(self.random.next(), 0)
    }

    /// The clients of the run.
    fn populate(&mut self) {
        let operator = self.world.operator.clone();
        let (keys, claims) = (operator.keys, operator.limits.len() as u64);
        let random = Mutex::new(self.own());
        self.world.add_client(Arc::new(Watcher {
            random,
            questions: 1.into(),
        }));
        let producers = 2 + self.random.below(4);
        let mut sessions = 0;
        let forgets = self.world.shared.forgotten.is_some();
        for serial in 0..producers {
            // Some share a session, and fence each other. Not where sessions are
            // forgotten: one of them may then begin it anew without a word (its
            // library does, where nothing of its own was applied yet), and the
            // others can not tell whether what they are told is of the life that
            // they know.
            if serial == 0 || forgets || !self.random.one_in(4) {
                sessions += 1;
            }
            let producer = Producer {
                session: format!("producer-{sessions}"),
                serial,
                keys,
                window: 1 + usize::try_from(self.random.below(8)).expect("a few"),
                timeout: {
                    let drawn = *self.random.pick(&clients::PRODUCER_TIMEOUTS);
                    if self.world.setup.has_few_sessions() {
                        // Whoever is forgotten there may have to wait for its turn.
                        clients::PRODUCER_TIMEOUTS[0]
                    } else {
                        drawn
                    }
                },
                pace: match self.random.below(4) {
                    // Now and then longer than sessions are kept.
                    0 => Duration::from_millis(1_000 + self.random.below(6_000)),
                    _ => Duration::from_millis(5 + self.random.below(200)),
                },
                values_max: 900 * keys / producers,
                disk: Mutex::new(clients::ProducerDisk::new(self.own())),
            };
            self.world.add_client(Arc::new(producer));
        }
        for serial in 0..1 + self.random.below(3) {
            let reader = Arc::new(Reader {
                serial,
                keys,
                claims,
                pace: Duration::from_millis(20 + self.random.below(400)),
                patience: match self.random.one_in(3) {
                    true => clients::TIMEOUT,
                    false => Duration::from_millis(100 + self.random.below(500)),
                },
                disk: Mutex::new(clients::ReaderDisk::new(self.own())),
            });
            let number = self.world.add_client(reader.clone());
            self.readers.push((number, reader));
        }
        for index in 0..keys {
            let subscriber = Arc::new(Subscriber {
                serial: index,
                key: log_key(index),
                disk: Mutex::new(clients::SubscriberDisk::new(self.own())),
            });
            self.world.add_client(subscriber.clone());
            self.subscribers.push(subscriber);
        }
        for serial in 0..operator.players.min(if claims > 0 { u64::MAX } else { 0 }) {
            let claimer = Claimer {
                serial,
                limits: operator.limits.clone(),
                disk: Mutex::new(clients::ClaimerDisk::new(self.own())),
            };
            self.world.add_client(Arc::new(claimer));
        }
    }

    fn chaos(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.nemesis.act(&mut self.world);
            self.world.tick();
        }
    }

    /// Heals everything, and proves that the cluster lives.
    fn recover(&mut self) {
        self.nemesis.heal(&mut self.world);
        self.world.phase.send_replace(Phase::Healed);
        let answered = |world: &mut World| {
            world
                .clients
                .values()
                .all(|client| client.program.done(Phase::Healed))
        };
        if !self.world.run_until(RECOVERY, answered) {
            let waiting = self.waiting(Phase::Healed);
            self.fault(format!(
                "liveness: {} s after everything was healed nothing is acknowledged to {waiting}",
                RECOVERY.as_secs()
            ));
            return;
        }
        self.world.phase.send_replace(Phase::Draining);
        let settled = |world: &mut World| {
            let members = world.members();
            let acknowledged = world.shared.acknowledged.load(Ordering::Relaxed);
            world.operator.leaves_members()
                && world.operator.is_finalized()
                && world.shared.seen.lock().settled(&members, acknowledged)
                && world
                    .clients
                    .values()
                    .all(|client| client.process.is_some() && client.program.quiet())
        };
        if !self.world.run_until(RECOVERY, settled) {
            let waiting = self.waiting(Phase::Draining);
            let nodes = format!("{:?}", self.world.shared.seen.lock().brief());
            self.fault(format!(
                "liveness: nodes do not come to the same: {nodes}; waiting: {waiting}"
            ));
            return;
        }
        self.drain();
    }

    /// Reads everything to its end.
    fn drain(&mut self) {
        let end = self.world.shared.seen.lock().end_offset();
        for subscriber in &self.subscribers {
            subscriber.drain_to(end);
        }
        let readers = self.readers.clone();
        let subscribers = self.subscribers.clone();
        let mut asked = Vec::new();
        let drained = move |world: &mut World| {
            // A removal that was asked for under faults can still come about, and
            // who was removed answers no more.
            let members = world.members();
            if members != asked {
                asked.clone_from(&members);
                let (number, reader) = readers[0].clone();
                world.run_client(number, move |shared, ip| {
                    reader.finish(shared, ip, members).boxed()
                });
            }
            readers[0].1.finished()
                && subscribers
                    .iter()
                    .all(|subscriber| clients::Program::done(&**subscriber, Phase::Draining))
        };
        if !self.world.run_until(RECOVERY, drained) {
            let waiting = self.waiting(Phase::Draining);
            self.fault(format!(
                "liveness: not everything is read to its end by {waiting}"
            ));
        }
    }

    fn waiting(&self, phase: Phase) -> String {
        let waiting: Vec<String> = self
            .world
            .clients
            .values()
            .filter(|client| !client.program.done(phase))
            .map(|client| client.program.name())
            .collect();
        waiting.join(", ")
    }
}
