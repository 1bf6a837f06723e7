//! What all clients of a run share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_client::{AppendError, CallError, Client, ClientOptions, ConfigError};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::Plan;
use super::finale::Finding;
use crate::answers::{fault_of_append, fault_of_call, fault_of_status};
use crate::history::Recorder;

/// How long an append may take over all its attempts: longer than any fault that
/// leaves a quorum, so that most retries end in an answer.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one node may take to answer for itself. A node that is dead or cut
/// off holds a worker up for as long.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Faults of answers that are kept; the first ones tell.
const FAULTS: usize = 20;

/// One node, asked for its own answers.
#[derive(Debug)]
pub(crate) struct NodeClient {
    pub(crate) id: u64,
    /// Uses this node alone.
    pub(crate) client: Client,
    channel: Channel,
}

impl NodeClient {
    pub(crate) fn new(id: u64, address: &str) -> Result<Self, ConfigError> {
        let options = ClientOptions {
            timeout: NODE_TIMEOUT,
            connect_timeout: Duration::from_secs(1),
            answer_timeout: NODE_TIMEOUT,
            follow_leader: false,
            ..ClientOptions::default()
        };
        let client = Client::connect([address], options)?;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("the client has taken it as an address")
            .connect_timeout(Duration::from_secs(1))
            .timeout(NODE_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .connect_lazy();
        Ok(Self {
            id,
            client,
            channel,
        })
    }

    /// Its service, without the library's retries.
    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }
}

/// The recorder, the connections, and when to stop.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) recorder: Arc<Recorder>,
    /// Follows the leader.
    pub(crate) client: Client,
    pub(crate) plan: Plan,
    nodes: RwLock<Vec<Arc<NodeClient>>>,
    next_value: AtomicU64,
    /// What was wrong with answers, each once.
    faults: Mutex<BTreeSet<String>>,
    stop: watch::Sender<bool>,
}

impl Stage {
    pub(crate) fn new(
        plan: Plan,
        nodes: &[(u64, String)],
        started: Instant,
    ) -> Result<Arc<Self>, ConfigError> {
        let options = ClientOptions {
            timeout: APPEND_TIMEOUT,
            answer_timeout: Duration::from_secs(2),
            ..ClientOptions::default()
        };
        Ok(Arc::new(Self {
            recorder: Recorder::new(move || {
                u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }),
            client: Client::connect(nodes.iter().map(|(_, address)| address), options)?,
            plan,
            nodes: RwLock::new(
                nodes
                    .iter()
                    .map(|(id, address)| NodeClient::new(*id, address).map(Arc::new))
                    .collect::<Result<_, _>>()?,
            ),
            next_value: AtomicU64::new(1),
            faults: Mutex::default(),
            stop: watch::Sender::new(false),
        }))
    }

    /// A value that nobody else is given.
    pub(crate) fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// One of the nodes.
    pub(crate) fn node(&self, random: &mut SmallRng) -> Arc<NodeClient> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&nodes[random.random_range(0..nodes.len())])
    }

    /// All of them.
    pub(crate) fn nodes(&self) -> Vec<Arc<NodeClient>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.clone()
    }

    /// Takes note of what is wrong with the status of a write.
    pub(crate) fn heard_status<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| self.note(fault_of_status(status)))
    }

    /// The same of an append by the library.
    pub(crate) fn heard_append<T>(&self, answer: Result<T, AppendError>) -> Result<T, AppendError> {
        answer.inspect_err(|error| self.note(fault_of_append(error)))
    }

    /// The same of any other call by the library.
    pub(crate) fn heard_call<T>(&self, answer: Result<T, CallError>) -> Result<T, CallError> {
        answer.inspect_err(|error| self.note(fault_of_call(error)))
    }

    fn note(&self, fault: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS {
            faults.extend(fault);
        }
    }

    /// What was wrong with answers so far.
    pub(crate) fn wrong_answers(&self) -> Vec<Finding> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().cloned().map(Finding::Answer).collect()
    }

    /// From now on `new` is asked as well, and `old` is not.
    pub(crate) fn replace_node(&self, old: u64, new: NodeClient) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|node| node.id != old);
        nodes.push(Arc::new(new));
    }

    /// A source of choices for the worker `name`, the same for the same seed.
    pub(crate) fn random(&self, name: &str) -> SmallRng {
        // FNV-1a: one stream of choices for each name.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        SmallRng::seed_from_u64(self.plan.seed ^ hash)
    }

    /// Tells the workers to end what they have begun and begin nothing more.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the workers are told to stop.
    pub(crate) async fn until_stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as the stage.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }
}

/// Begins operations at a worker's share of the rate. One that falls behind, as
/// in a fault, does not catch up.
pub(crate) struct Pace(tokio::time::Interval);

impl Pace {
    pub(crate) fn new(rate: u32, workers: u32) -> Self {
        let period = Duration::from_secs(1) * workers / rate.max(1);
        let mut interval = interval(period.max(Duration::from_micros(100)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }

    /// This turn was for `ops` operations, and is followed by as long a pause.
    pub(crate) fn took(&mut self, ops: usize) {
        let ops = u32::try_from(ops).unwrap_or(u32::MAX);
        if ops > 1 {
            self.0.reset_after(self.0.period() * ops);
        }
    }

    /// Waits for the next turn; false once there is none.
    pub(crate) async fn next(&mut self, stage: &Stage) -> bool {
        tokio::select! {
            biased;
            () = stage.until_stopped() => false,
            _ = self.0.tick() => true,
        }
    }
}
