//! What the services work on, and whether they serve.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::{ApiError, Resource};
use super::forward::Leader;
use super::message_budget::MessageBudget;
use super::replica_status::{LeaderContact, watch_leader};
use crate::admin_http::{Health, Trouble, TroubleKind};
use crate::cluster::MemberChanger;
use crate::limits;
use crate::partition::{Leadership, Partition};
use crate::raft::Peers;
use crate::telemetry::{Metrics, PartitionMetrics};

/// What a node tells of itself beside its identity.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The release that runs.
    pub version: String,
}

/// How far a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// Its partitions have not started.
    Starting,
    /// It serves.
    Serving,
    /// It is stopping, or out of service, and takes nothing new.
    Draining,
}

/// What the services work on.
pub struct NodeContext {
    info: NodeInfo,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
    health: Health,
    state: watch::Sender<ServingState>,
    partitions: OnceLock<BTreeMap<u32, ServedPartition>>,
    changer: OnceLock<Arc<MemberChanger>>,
    /// It drains because it stops: there is no way back.
    stopping: AtomicBool,
    append_budget: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    read_budget: MessageBudget,
    subscribers: Arc<Semaphore>,
    subscriber_budget: MessageBudget,
    forwarded_reads: Arc<Semaphore>,
}

/// A partition with what the services need beside it.
pub(super) struct ServedPartition {
    pub(super) partition: Arc<Partition>,
    pub(super) metrics: PartitionMetrics,
    pub(super) contact: Arc<LeaderContact>,
}

/// Where a write goes.
pub(super) enum Route {
    /// This node leads.
    Local,
    /// Another does.
    Forward(Leader),
}

impl NodeContext {
    /// A node that is starting.
    pub fn new(info: NodeInfo, peers: Arc<Peers>, metrics: Arc<Metrics>, health: Health) -> Self {
        Self {
            info,
            peers,
            metrics,
            health,
            state: watch::Sender::new(ServingState::Starting),
            partitions: OnceLock::new(),
            changer: OnceLock::new(),
            stopping: AtomicBool::new(false),
            append_budget: Arc::new(Semaphore::new(limits::IN_FLIGHT_APPENDS_MAX)),
            reads: Arc::new(Semaphore::new(limits::READS_MAX)),
            read_budget: MessageBudget::new(limits::READ_BUFFERS_BYTES_MAX),
            subscribers: Arc::new(Semaphore::new(limits::SUBSCRIBERS_MAX)),
            subscriber_budget: MessageBudget::new(limits::SUBSCRIBER_BUFFERS_BYTES_MAX),
            forwarded_reads: Arc::new(Semaphore::new(limits::FORWARDED_READS_MAX)),
        }
    }

    /// From now on requests for `partitions` are taken.
    ///
    /// # Panics
    /// When called twice, or outside of a runtime.
    pub fn serve(&self, partitions: BTreeMap<u32, Arc<Partition>>) {
        let served = partitions
            .into_iter()
            .map(|(id, partition)| {
                let contact = Arc::<LeaderContact>::default();
                tokio::spawn(watch_leader(
                    Arc::downgrade(&partition),
                    contact.clone(),
                    self.health.clone(),
                ));
                let served = ServedPartition {
                    metrics: self.metrics.partition(id),
                    contact,
                    partition,
                };
                (id, served)
            })
            .collect();
        assert!(
            self.partitions.set(served).is_ok(),
            "partitions are started once"
        );
        self.state.send_if_modified(|state| {
            let starting = *state == ServingState::Starting;
            if starting {
                *state = ServingState::Serving;
            }
            starting
        });
    }

    /// From now on members can be changed, by `changer`.
    ///
    /// # Panics
    /// When called twice.
    pub fn administer(&self, changer: Arc<MemberChanger>) {
        assert!(self.changer.set(changer).is_ok(), "called once");
    }

    /// Who changes members.
    pub(crate) fn changer(&self) -> Result<&Arc<MemberChanger>, ApiError> {
        self.changer.get().ok_or(ApiError::Starting)
    }

    /// From now on nothing new is taken: writes are refused, subscriptions end
    /// with the offset to resume from, and append streams end once what they
    /// have taken is answered.
    pub fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.state.send_replace(ServingState::Draining);
    }

    /// The same, until [`Self::return_to_service`].
    pub(super) fn leave_service(&self) -> Result<(), ApiError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ApiError::Draining);
        }
        if *self.state.borrow() == ServingState::Starting {
            return Err(ApiError::Starting);
        }
        self.state.send_replace(ServingState::Draining);
        Ok(())
    }

    /// Takes what is new again, unless the node is stopping.
    pub(super) fn return_to_service(&self) -> Result<(), ApiError> {
        self.state.send_if_modified(|state| {
            let back = *state == ServingState::Draining && !self.stopping.load(Ordering::Relaxed);
            if back {
                *state = ServingState::Serving;
            }
            back
        });
        match self.is_draining() {
            true => Err(ApiError::Draining),
            false => Ok(()),
        }
    }

    /// Follows how far the node is in its life.
    pub fn serving(&self) -> watch::Receiver<ServingState> {
        self.state.subscribe()
    }

    /// How the node is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The node's budget for appends in flight, forwarded ones included, in
    /// units of [`limits::IN_FLIGHT_BYTES_PER_APPEND_MIN`].
    pub fn append_budget(&self) -> &Arc<Semaphore> {
        &self.append_budget
    }

    pub(super) fn info(&self) -> &NodeInfo {
        &self.info
    }

    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.state.borrow() == ServingState::Draining
    }

    /// Completes once the node drains.
    pub(super) async fn drained(&self) {
        // The sender is part of the context.
        let _ = self
            .serving()
            .wait_for(|state| *state == ServingState::Draining)
            .await;
    }

    /// All partitions; none while the node starts.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &ServedPartition> {
        self.partitions.get().into_iter().flat_map(BTreeMap::values)
    }

    /// A partition to read from.
    pub(super) fn to_read(&self, id: u32) -> Result<&ServedPartition, ApiError> {
        self.partitions
            .get()
            .ok_or_else(|| self.why_starting())?
            .get(&id)
            .ok_or(ApiError::UnknownPartition(id))
    }

    /// A partition to write to. A drained node takes writes while it leads: then
    /// no node in service can.
    pub(super) fn to_write(&self, id: u32) -> Result<&ServedPartition, ApiError> {
        if !self.is_draining() {
            return self.to_read(id);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ApiError::Draining);
        }
        let served = self.to_read(id)?;
        match served.partition.leadership() {
            Leadership::Local => Ok(served),
            _ => Err(ApiError::Drained),
        }
    }

    /// Why this node serves nothing yet.
    fn why_starting(&self) -> ApiError {
        let forming = Trouble {
            kind: TroubleKind::Forming,
            partition: None,
        };
        match self.health.state().troubles.remove(&forming) {
            Some(waiting) => ApiError::Waiting(waiting),
            None => ApiError::Starting,
        }
    }

    /// Whether a stream of appends is worth keeping: anything that comes would be
    /// refused by a node that stops, and by one that is drained and does not lead.
    pub(super) fn takes_appends(&self) -> bool {
        let leads = |served: &ServedPartition| served.partition.leadership() == Leadership::Local;
        !self.is_draining()
            || !self.stopping.load(Ordering::Relaxed) && self.partitions().any(leads)
    }

    /// Why this node, which drains, takes nothing new.
    pub(super) fn why_draining(&self) -> ApiError {
        match self.stopping.load(Ordering::Relaxed) {
            true => ApiError::Draining,
            false => ApiError::Drained,
        }
    }

    /// Room for an append of `bytes` that another node will answer.
    pub(super) fn reserve_append(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = bytes
            .div_ceil(limits::IN_FLIGHT_BYTES_PER_APPEND_MIN)
            .max(1);
        u32::try_from(units)
            .ok()
            .and_then(|units| {
                self.append_budget
                    .clone()
                    .try_acquire_many_owned(units)
                    .ok()
            })
            .ok_or(ApiError::TooMuch {
                resource: Resource::AppendBytes,
            })
    }

    pub(super) fn reserve_read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.reads
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::TooMuch {
                resource: Resource::Reads,
            })
    }

    pub(super) fn reserve_subscriber(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.subscribers
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::TooMuch {
                resource: Resource::Subscribers,
            })
    }

    /// A place for a stream of another node that this one passes on.
    pub(super) fn reserve_forwarded_read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.forwarded_reads
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::TooMuch {
                resource: Resource::ForwardedReads,
            })
    }

    /// What is prepared for all readers together.
    pub(super) fn read_budget(&self) -> &MessageBudget {
        &self.read_budget
    }

    /// What is prepared for all subscribers together.
    pub(super) fn subscriber_budget(&self) -> &MessageBudget {
        &self.subscriber_budget
    }
}

impl ServedPartition {
    /// Where a write goes; `forwarded` ones go no further.
    pub(super) fn route(&self, forwarded: bool) -> Result<Route, ApiError> {
        match self.partition.leadership() {
            Leadership::Local => Ok(Route::Local),
            Leadership::Remote { .. } if self.contact.is_silent() => Err(ApiError::NoLeader),
            Leadership::Remote { id, node } if forwarded => Err(ApiError::NotLeader {
                leader: id,
                address: Some(node.client_address),
            }),
            Leadership::Remote { id, node } => Ok(Route::Forward(Leader { id, node })),
            Leadership::Unknown => Err(ApiError::NoLeader),
        }
    }
}
