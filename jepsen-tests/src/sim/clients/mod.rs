//! The clients of the simulated cluster: huntlog's own client library, in
//! processes that can crash, with what they keep on their own disks.

mod claimer;
mod kept;
mod operator;
mod producer;
mod reader;
mod subscriber;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::proto::{CommittedEvent, event::Kind};
use huntlog_client::{AppendError, Appended, ByteStream, CallError, Client, ClientOptions, Dialer};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use claimer::{Claimer, Disk as ClaimerDisk};
pub(super) use operator::{Operator, Order, State as OperatorState};
pub(super) use producer::{Disk as ProducerDisk, Producer, TIMEOUTS as PRODUCER_TIMEOUTS};
pub(super) use reader::{Disk as ReaderDisk, Reader};
pub(super) use subscriber::{Disk as SubscriberDisk, Subscriber};
pub(super) use watcher::{Seen, Watcher};

use super::coverage::Coverage;
use super::node::{Dialed, Way, client_address};
use super::random::Random;
use crate::answers::{fault_of_append, fault_of_call};
use crate::history::{Fault, Phase as FaultPhase, Recorder};

/// The events of a hunt before the first that counts: created, opened, started.
const SETUP_EVENTS: u64 = 3;

/// Clients wait so long, most of them.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Faults happen.
    Chaos,
    /// They are over, and everything has to be answered.
    Healed,
    /// Nothing new is appended; what there is is read to its end.
    Draining,
}

/// What all clients of a world share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) way: Way,
    pub(super) recorder: Arc<Recorder>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) coverage: Arc<Mutex<Coverage>>,
    /// The members that clients are told of.
    pub(super) members: Arc<Mutex<Vec<u64>>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// The highest log index that a client was told of as applied.
    pub(super) acknowledged: Arc<AtomicU64>,
    /// The node that a fault has hit last, 0 before the first.
    pub(super) hit: Arc<AtomicU64>,
    /// Whether history is given up in this world.
    pub(super) gives_up: bool,
    /// Whether this world's sessions are forgotten within a run, and then begin
    /// anew: how often each has.
    pub(super) forgotten: Option<Arc<Mutex<BTreeMap<String, u64>>>>,
    /// Values that must not be in the log (I9).
    pub(super) never: Arc<Mutex<BTreeSet<u64>>>,
    /// Under which names of the history sessions have been opened.
    pub(super) opened: Arc<Mutex<BTreeSet<String>>>,
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Takes down that a client of `session` was told that it has something in the
    /// log.
    fn note_acknowledged(&self, session: &str, appended: &Appended) {
        let index = appended.log_index;
        if index == 0 {
            // It was applied so long ago that it is not kept where.
            return;
        }
        self.acknowledged.fetch_max(index, Ordering::Relaxed);
        let sessions = &mut self.seen.lock().sessions;
        sessions.applied(session, index);
        if let Some(time) = &appended.committed_at {
            sessions.time(index, millis(time));
        }
    }

    /// Takes down that the log has, at `index`, what no log may have before a
    /// feature level brings it.
    fn note_announced(&self, index: u64) {
        self.coverage.lock().announced += 1;
        if index == 0 {
            // As with every acknowledgement: it is not kept where.
            return;
        }
        let mut seen = self.seen.lock();
        let judged = seen.levels.needed(2, index);
        seen.violations.extend(judged.err());
    }

    /// Takes down that a fault has taken effect on these nodes, or has ended.
    pub(super) fn fault(&self, name: &'static str, phase: FaultPhase, nodes: &[u64]) {
        if phase == FaultPhase::Start {
            *self.coverage.lock().faults.entry(name).or_default() += 1;
        }
        self.recorder.fault(Fault {
            name: name.to_owned(),
            phase,
            nodes: nodes.to_vec(),
            detail: None,
        });
    }

    /// Takes down what must not be.
    fn violation(&self, what: impl Into<String>) {
        self.seen.lock().violations.push(what.into());
    }

    /// (offset, value) of those of the events that count.
    fn entries_of(&self, events: &[CommittedEvent]) -> Vec<(u64, u64)> {
        let entries: Vec<(u64, u64)> = events.iter().filter_map(entry_of).collect();
        let never = self.never.lock();
        for (offset, value) in entries.iter().filter(|(_, value)| never.contains(value)) {
            self.violation(format!(
                "I9: {value}, at offset {offset}, is of a batch that expected another revision"
            ));
        }
        drop(never);
        entries
    }

    /// What an append ended with has to say why, and in the right words (I10).
    fn judge_append(&self, error: &AppendError) {
        self.seen.lock().violations.extend(fault_of_append(error));
    }

    /// The same of any other call.
    fn judge_call(&self, error: &CallError) {
        self.seen.lock().violations.extend(fault_of_call(error));
    }

    /// Takes down that a node keeps nothing before some offset; in a world where
    /// everything is kept that must not be.
    fn note_given_up(&self, error: &CallError) {
        self.coverage.lock().given_up += 1;
        if !self.gives_up {
            self.violation(format!("everything is to be kept, and it is not: {error}"));
        }
    }

    /// What a session is called in the history: one that was forgotten and has
    /// begun anew is another.
    fn historic(&self, session: &str) -> String {
        let times = self.forgotten.as_ref().map_or(0, |forgotten| {
            forgotten.lock().get(session).copied().unwrap_or_default()
        });
        format!("{session}.{times}")
    }

    /// Sleeps, no longer than into the next phase.
    async fn pause(&self, time: Duration) {
        let mut phase = self.phase.clone();
        let now = *phase.borrow_and_update();
        // The world outlives its clients.
        let _ = tokio::time::timeout(time, phase.wait_for(|phase| *phase != now)).await;
    }

    /// A client on the machine `ip`, of all members or of one node alone.
    fn connect(&self, ip: IpAddr, node: Option<u64>, random: &mut Random) -> Client {
        self.connect_for(TIMEOUT, ip, node, random)
    }

    /// The same; it waits no longer than `timeout` for anything.
    fn connect_for(
        &self,
        timeout: Duration,
        ip: IpAddr,
        node: Option<u64>,
        random: &mut Random,
    ) -> Client {
        let way = self.way.clone();
        let dialer = Dialer::new(move |uri| {
            let dialed = way.dial(ip, &uri);
            Box::pin(async move {
                Ok(match dialed.await? {
                    Dialed::Straight(socket) => Box::new(socket) as Box<dyn ByteStream>,
                    Dialed::Through(stream) => Box::new(stream),
                })
            })
        });
        let follow_leader = node.is_none();
        // The impatient are the first at a new leader, while the old one does not
        // know yet.
        let answer_timeout = match follow_leader && random.one_in(2) {
            true => Duration::from_millis(60 + random.below(300)),
            false => Duration::from_secs(2).min(timeout),
        };
        let options = ClientOptions {
            timeout,
            answer_timeout,
            follow_leader,
            seed: Some(random.next()),
            dialer: Some(dialer),
            ..ClientOptions::default()
        };
        let nodes = match node {
            Some(node) => vec![node],
            None => self.members.lock().clone(),
        };
        let endpoints: Vec<String> = nodes.into_iter().map(client_address).collect();
        Client::connect(endpoints, options).expect("sound options")
    }
}

/// A client's program and what it keeps on its disk: it can be run again after
/// its process has died.
pub(super) trait Program: Send + Sync + 'static {
    /// The process, on the machine `ip`.
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()>;
    /// Whether everything that it has to do in this phase is done.
    fn done(&self, phase: Phase) -> bool;
    /// Whether it has nothing under way that could still be applied.
    fn quiet(&self) -> bool {
        true
    }
    /// Whether it does the run's work, and does not only watch or operate it.
    fn is_workload(&self) -> bool {
        true
    }
    /// What it is, for people.
    fn name(&self) -> String;
}

/// The keys of the log workload.
pub(super) fn log_key(index: u64) -> String {
    format!("log-{index}")
}

/// The keys of the claim workload; each has one treasure of that name.
pub(super) fn claim_key(index: u64) -> String {
    format!("claim-{index}")
}

/// (offset, value) of a key's event, or nothing for those of its setup.
fn entry_of(event: &CommittedEvent) -> Option<(u64, u64)> {
    let offset = event.revision.checked_sub(SETUP_EVENTS + 1)?;
    let value = match event.event.as_ref()?.kind.as_ref()? {
        Kind::Custom(custom) => u64::from_le_bytes(custom.payload.get(..8)?.try_into().ok()?),
        Kind::Announced(announced) => announced.text.parse().ok()?,
        _ => return None,
    };
    Some((offset, value))
}

fn payload(value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + padding, 0x5a);
    bytes
}

fn only(key: &str) -> Option<huntlog_client::proto::Filter> {
    Some(huntlog_client::proto::Filter {
        hunts: vec![key.to_owned()],
        ..huntlog_client::proto::Filter::default()
    })
}

/// How far a key has been read: where the next event can be, and how many
/// entries come before it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    offset: u64,
    entries: u64,
}

type Places = BTreeMap<String, Place>;

fn millis(time: &prost_types::Timestamp) -> u64 {
    u64::try_from(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000).unwrap_or(0)
}

/// The earliest offset that is kept, when that was the trouble.
fn earliest_kept(error: &CallError) -> Option<u64> {
    let CallError::Refused(refusal) = error else {
        return None;
    };
    refusal.metadata.get("earliest")?.parse().ok()
}
