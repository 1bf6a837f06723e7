//! One partition: a Raft group, its machine, and the ways in and out of it.
//!
//! Nothing in here assumes that there is only one.

mod aside;
mod bring_forward;
mod clock;
mod contradiction;
mod histories;
mod membership;
mod proposer;
mod read_index;
mod reader;
mod recorded;
mod rederive;
mod replica;
mod retention;
mod schedule;
mod succession;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use huntlog_machine::{Digest, DigestCheck, EncodedCommand, FIRST_LEVEL, LevelRange};
use huntlog_planted::{Bug, is_planted};
use huntlog_storage::{SnapshotStore, Storage};
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

pub use clock::{ClockSkew, LogClock, wall_clock_ms};
pub use contradiction::{Contradiction, QuorumContradicts};
pub use histories::HistoryElsewhere;
pub use membership::{
    LeaderView, MemberProgress, Members, MembersChange, MembersSeen, ProposeError,
};
pub use proposer::{Committed, Proposer, WriteError, WriteResult};
pub use read_index::{ReadIndex, ReadIndexError};
pub use reader::{EventReader, Flow, ReadEventsError};
pub use rederive::RederiveError;
pub use replica::Replica;
pub use retention::Retention;
pub use tail::{AppliedMark, Tail, TailLookup};

use contradiction::Contradictions;
use histories::Histories;

use crate::limits;
use crate::raft::{
    LogStore, MachineRules, MemberNode, NodeId, PeerNetwork, PeerRaft, Peers, Raft, RaftTimings,
    SnapshotLevel, StateMachine, raft_options,
};
use crate::telemetry::{Metrics, PartitionMetrics};

/// What a partition is started with.
pub struct PartitionParts {
    /// Its number.
    pub id: u32,
    /// This node's id.
    pub node_id: NodeId,
    /// The cluster's name.
    pub cluster_name: String,
    /// Raft's timers.
    pub timings: RaftTimings,
    /// When snapshots are taken.
    pub snapshot_every: SnapshotEvery,
    /// How much history is kept.
    pub retention: Retention,
    /// What the machine is made with.
    pub rules: MachineRules,
    /// The node's storage.
    pub storage: Storage,
    /// The connections to the peers.
    pub peers: Arc<Peers>,
    /// The node's budget for appends in flight, in units of
    /// [`limits::IN_FLIGHT_BYTES_PER_APPEND_MIN`].
    pub append_budget: Arc<Semaphore>,
    /// Where the stamps of this partition's entries come from.
    pub clock: Arc<LogClock>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
}

/// After how much new log, or time with anything new, a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEvery {
    /// Payload bytes.
    pub bytes: u64,
    /// Time.
    pub interval: Duration,
}

/// Why a partition does not start.
#[derive(Debug, thiserror::Error)]
pub enum PartitionStartError {
    /// The timers contradict each other.
    #[error("the raft timers do not fit together: {0}; correct the [raft] section")]
    Timings(#[from] openraft::ConfigError),
    /// What apply derives could not be derived again.
    #[error(transparent)]
    Rederive(#[from] RederiveError),
    /// The newest snapshot is of a level that this release does not read.
    #[error(
        "the newest snapshot of partition {partition} is of feature level {level}, and this release reads level {supported}; run {} on this node",
        newer_release(release)
    )]
    LevelUnknown {
        /// The partition.
        partition: u32,
        /// The snapshot's level.
        level: u32,
        /// The first release that reads it; empty when the snapshot does not say.
        release: String,
        /// The levels that this release reads.
        supported: LevelRange,
    },
    /// Raft does not start on what is stored.
    #[error("partition {partition} does not start: {reason}")]
    Raft {
        /// The partition.
        partition: u32,
        /// What openraft says.
        reason: String,
    },
}

impl PartitionStartError {
    /// Whether starting again would meet the same: what is stored is damaged, or
    /// of a later release.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::LevelUnknown { .. } => true,
            Self::Rederive(error) => error.is_lasting(),
            Self::Timings(_) | Self::Raft { .. } => false,
        }
    }
}

fn newer_release(release: &str) -> String {
    match release {
        "" => "a newer release".to_owned(),
        release => format!("release {release} or a newer one"),
    }
}

/// Why an operation on a partition failed. Unless it says otherwise, nothing has
/// changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    /// Only the leader does this.
    #[error("this node does not lead partition {0}; ask its leader")]
    NotLeader(u32),
    /// The node named is no voter.
    #[error("node {0} is no voter of the cluster; nothing was changed")]
    NoVoter(NodeId),
    /// The node named is drained.
    #[error("node {0} is drained; nothing was changed")]
    Aside(NodeId),
    /// The node named does not answer.
    #[error("node {0} does not answer; nothing was changed")]
    Silent(NodeId),
    /// No other voter can take over.
    #[error("no other voter can lead: {}; nothing was changed", .0.join(", "))]
    NoSuccessor(Vec<String>),
    /// Too few voters answer to elect anybody.
    #[error(
        "of {voters} voters only {answering} answer, too few to elect a leader; nothing was changed"
    )]
    NoQuorum {
        /// Those that answer, this node included.
        answering: usize,
        /// All.
        voters: usize,
    },
    /// The node is the last one that can lead.
    #[error("no other voter is in service: {}; nothing was changed", .0.join(", "))]
    LastInService(Vec<String>),
    /// Leadership has moved, to another node than was meant.
    #[error(
        "node {leader} leads now, not node {wanted}, which did not take over in time: leadership did move; look at the status, then repeat the request if that node is still to lead"
    )]
    OtherLeads {
        /// Who was to lead.
        wanted: NodeId,
        /// Who does.
        leader: NodeId,
    },
    /// There is nobody to hand leadership to.
    #[error("this node is the only voter: there is nobody to hand leadership to")]
    NoOtherVoter,
    /// It took too long; it may still happen.
    #[error("it was not done within {} ms; it may still happen: look at the status", .0.as_millis())]
    Timeout(Duration),
    /// There is nothing applied yet.
    #[error("there is nothing in the log yet")]
    Empty,
    /// Raft has stopped.
    #[error("this node's Raft has stopped: {0}")]
    Stopped(String),
}

/// Whether the newest snapshot is of a level that this node reads: the state
/// begins with it.
fn check_snapshot_level(
    partition: u32,
    snapshots: &SnapshotStore,
    supported: LevelRange,
) -> Result<(), PartitionStartError> {
    let Some(info) = snapshots.newest(partition) else {
        return Ok(());
    };
    let meta = |error| RederiveError::Meta(error);
    let reader = snapshots.open(&info).map_err(RederiveError::from)?;
    let SnapshotLevel { level, release } = SnapshotLevel::of(reader.meta()).map_err(meta)?;
    if supported.contains(level) {
        return Ok(());
    }
    Err(PartitionStartError::LevelUnknown {
        partition,
        level,
        release,
        supported,
    })
}

/// Who leads a partition, as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This node.
    Local,
    /// Another.
    Remote {
        /// Its id.
        id: NodeId,
        /// Where it is.
        node: MemberNode,
    },
    /// Nobody is known to.
    Unknown,
}

/// A snapshot that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// The last log index in it.
    pub log_index: u64,
    /// The size of its file.
    pub size_bytes: u64,
}

/// A running partition.
pub struct Partition {
    id: u32,
    node_id: NodeId,
    raft: Raft,
    replica: Arc<Replica>,
    proposer: Proposer,
    read_index: ReadIndex,
    peer_raft: PeerRaft,
    storage: Storage,
    contradictions: Contradictions,
    aside: aside::Aside,
    succession: succession::SuccessionTimings,
    successions_begun: Counter,
    histories: parking_lot::Mutex<Histories>,
    /// The feature levels that other members read, as they last told.
    levels: parking_lot::Mutex<BTreeMap<NodeId, LevelRange>>,
    tasks: parking_lot::Mutex<JoinSet<()>>,
}

impl Partition {
    /// Starts the partition on what is stored: restores the newest snapshot,
    /// applies again what was committed after it, and joins its group.
    ///
    /// # Errors
    /// When the stored state can not be brought back.
    pub async fn start(parts: PartitionParts) -> Result<Arc<Self>, PartitionStartError> {
        let metrics = parts.metrics.partition(parts.id);
        let options = raft_options(&parts.cluster_name, parts.timings)?;
        let log = parts.storage.partition(parts.id);
        let snapshots = parts.storage.snapshots();
        rederive::set_damaged_snapshots_aside(parts.id, snapshots.clone()).await?;
        check_snapshot_level(parts.id, &snapshots, parts.rules.levels)?;
        bring_forward::to_the_log(log.clone(), snapshots.clone(), &parts.rules).await?;
        rederive::missing_records(log.clone(), snapshots.clone(), &parts.rules).await?;

        let machine = Arc::new(RwLock::new(parts.rules.empty(parts.id)));
        let replica = Arc::new(Replica::new(
            machine.clone(),
            log.clone(),
            parts.clock.clone(),
            metrics.clone(),
        ));
        let state_machine = StateMachine::new(
            machine,
            parts.id,
            parts.storage.clone(),
            replica.clone(),
            parts.rules,
        );
        let term = log.vote().map_or(0, |vote| vote.term);
        let raft = Raft::new(
            parts.node_id,
            options,
            PeerNetwork::new(parts.peers.clone(), parts.id),
            LogStore::new(log),
            state_machine,
        )
        .await
        .map_err(|fatal| PartitionStartError::Raft {
            partition: parts.id,
            reason: fatal.to_string(),
        })?;
        // Until its core has run for the first time Raft speaks of term 0, as if
        // the node had forgotten its vote.
        raft.wait(None)
            .metrics(|metrics| metrics.current_term >= term, "the term is known")
            .await
            .map_err(|error| PartitionStartError::Raft {
                partition: parts.id,
                reason: error.to_string(),
            })?;

        let partition = Arc::new(Self {
            id: parts.id,
            node_id: parts.node_id,
            peer_raft: PeerRaft::new(raft.clone(), snapshots, parts.id),
            proposer: Proposer::new(parts.append_budget, metrics.clone()),
            read_index: ReadIndex::default(),
            raft,
            replica,
            storage: parts.storage,
            contradictions: Contradictions::default(),
            aside: aside::Aside::default(),
            succession: parts.timings.into(),
            successions_begun: metrics.replica.successions_begun.clone(),
            histories: parking_lot::Mutex::default(),
            levels: parking_lot::Mutex::default(),
            tasks: parking_lot::Mutex::default(),
        });
        partition.spawn_tasks(&parts.peers, &parts.clock, parts.snapshot_every, metrics);
        let keeper = retention::Keeper {
            raft: partition.raft.clone(),
            replica: partition.replica.clone(),
            clock: parts.clock,
            snapshots: partition.storage.snapshots(),
            retention: parts.retention,
        };
        partition.tasks.lock().spawn(keeper.run());
        Ok(partition)
    }

    fn spawn_tasks(
        self: &Arc<Self>,
        peers: &Arc<Peers>,
        clock: &Arc<LogClock>,
        snapshot_every: SnapshotEvery,
        metrics: PartitionMetrics,
    ) {
        let mut tasks = self.tasks.lock();
        tasks.spawn(self.proposer.clone().run(proposer::ProposerParts {
            raft: self.raft.clone(),
            replica: self.replica.clone(),
            clock: clock.clone(),
        }));
        let asker = read_index::Asker {
            peer_raft: self.peer_raft.clone(),
            raft: self.raft.clone(),
            peers: peers.clone(),
            partition: self.id,
            node_id: self.node_id,
        };
        tasks.spawn(self.read_index.clone().run(move || asker.clone().ask()));
        tasks.spawn(schedule::ticks(
            self.raft.clone(),
            self.replica.clone(),
            clock.clone(),
        ));
        tasks.spawn(schedule::snapshots(
            self.raft.clone(),
            self.replica.clone(),
            snapshot_every,
        ));
        tasks.spawn(schedule::follow_raft(
            self.raft.clone(),
            self.replica.clone(),
            clock.clone(),
            metrics,
        ));
    }

    /// The partition's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The group's Raft handle.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// How its peers reach the group.
    pub fn peer_raft(&self) -> &PeerRaft {
        &self.peer_raft
    }

    /// The state on this node.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Proposes `command`, if this node leads.
    ///
    /// # Errors
    /// At once, when it was not taken; later through the receiver.
    pub fn submit(
        &self,
        command: EncodedCommand,
    ) -> Result<oneshot::Receiver<WriteResult>, WriteError> {
        self.check_level(command.level())?;
        self.proposer.submit(command)
    }

    /// The feature level in force, as far as this node has applied the log.
    pub fn level(&self) -> u32 {
        self.replica.level()
    }

    /// Whether the log may hold what needs the level `need`.
    ///
    /// # Errors
    /// [`WriteError::FeatureLevel`], when a lower one is in force.
    pub fn check_level(&self, need: u32) -> Result<(), WriteError> {
        if need == FIRST_LEVEL || is_planted(Bug::AppliedBelowLevel) {
            return Ok(());
        }
        let have = self.level();
        if need <= have {
            return Ok(());
        }
        // A leader that has applied nothing of its own term may lack what an
        // earlier one has put in force.
        let applied = self.replica.machine().last_applied();
        let term = self
            .raft
            .server_metrics()
            .borrow_watched()
            .vote
            .leader_id
            .term;
        match applied.is_some_and(|applied| applied.term >= term) {
            true => Err(WriteError::FeatureLevel { have, need }),
            false => Err(WriteError::NoLeader),
        }
    }

    /// Takes note of the feature levels that the other members read, those that
    /// have just told.
    pub fn note_levels(&self, levels: BTreeMap<NodeId, LevelRange>) {
        *self.levels.lock() = levels;
    }

    /// Whether the leader `id` understands what needs the level `need`; one that
    /// does not, would take it for something else.
    ///
    /// # Errors
    /// [`WriteError::FeatureLevel`], when it is known not to.
    pub fn check_leaders_level(&self, id: NodeId, need: u32) -> Result<(), WriteError> {
        match self.levels.lock().get(&id) {
            Some(levels) if levels.max < need => {
                let have = self.level();
                Err(WriteError::FeatureLevel { have, need })
            }
            _ => Ok(()),
        }
    }

    /// Who leads, as this node knows.
    pub fn leadership(&self) -> Leadership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.current_leader {
            Some(leader) if leader == self.node_id => Leadership::Local,
            Some(leader) => match metrics.membership_config.get_node(&leader) {
                Some(node) => Leadership::Remote {
                    id: leader,
                    node: node.clone(),
                },
                None => Leadership::Unknown,
            },
            None => Leadership::Unknown,
        }
    }

    /// Waits until this node has applied everything that was acknowledged
    /// before the call.
    ///
    /// # Errors
    /// When no leader confirms a read index, or this node does not get there
    /// before `deadline`.
    pub async fn linearizable(&self, deadline: Instant) -> Result<AppliedMark, ReadIndexError> {
        let wanted = self.read_index.get().await?;
        self.replica
            .wait_applied(wanted, deadline)
            .await
            .map_err(|next_index| ReadIndexError::Behind {
                applied: next_index.saturating_sub(1),
                wanted,
            })
    }

    /// The members of the group, voters and learners.
    pub fn members(&self) -> BTreeMap<NodeId, MemberNode> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .nodes()
            .map(|(id, node)| (*id, node.clone()))
            .collect()
    }

    /// The member `id`, voter or learner.
    ///
    /// What the metrics lend is given back here: whoever borrows them a second
    /// time waits for Raft, if it is about to write them, which waits for the
    /// first.
    pub fn member(&self, id: NodeId) -> Option<MemberNode> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&id).cloned()
    }

    /// Hands leadership to the one of `successors` that is most up to date, and
    /// answers once this node sees it lead. What is in flight is applied first, and
    /// what comes meanwhile held, and then refused as not appended: a successor
    /// that lacks something would leave leadership to an election.
    ///
    /// # Errors
    /// When this node does not lead, none of `successors` is another voter, another
    /// node leads in the end, or none does within
    /// [`limits::LEADER_TRANSFER_TIMEOUT`].
    pub async fn transfer_leader(
        &self,
        successors: &BTreeSet<NodeId>,
    ) -> Result<NodeId, AdminError> {
        let voters = self.voters();
        let successors = successors.intersection(&voters).copied().collect();
        let target = self.successor(&successors)?;
        self.hand_leadership_to(target).await
    }

    /// Hands leadership to whoever is most fit for it, a node that stands aside
    /// rather than nobody: for a leader that goes in any case.
    ///
    /// # Errors
    /// As [`Self::transfer_leader`].
    pub async fn give_up_leadership(&self) -> Result<NodeId, AdminError> {
        let target = self.successor(&self.voters())?;
        self.hand_leadership_to(target).await
    }

    /// Who of `candidates` is to lead instead of this node: one that answers,
    /// before one that has as much and is dead; one that stands aside only if
    /// there is no other.
    fn successor(&self, candidates: &BTreeSet<NodeId>) -> Result<NodeId, AdminError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Err(AdminError::NotLeader(self.id));
        }
        let aside = self.aside.others();
        let answers = |id: &NodeId| {
            let acked = metrics.heartbeat.as_ref().and_then(|acked| *acked.get(id)?);
            acked.is_some_and(|at| at.elapsed() < limits::PEER_CONNECT_TIMEOUT)
        };
        metrics
            .replication
            .iter()
            .flatten()
            .filter(|(id, _)| **id != self.node_id && candidates.contains(id))
            .max_by_key(|(id, matched)| (answers(id), !aside.contains(id), **matched))
            .map(|(id, _)| *id)
            .ok_or(AdminError::NoOtherVoter)
    }

    async fn hand_leadership_to(&self, target: NodeId) -> Result<NodeId, AdminError> {
        let mut metrics = self.raft.metrics();
        let term = metrics.borrow_watched().current_term;
        // Until another leads: openraft takes nothing more in any case.
        let held = self.hold_appends().await;
        if held.is_none() {
            tracing::warn!(
                partition = self.id,
                target,
                "appends in flight take long; another node may be elected instead of the one named"
            );
        }
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|fatal| AdminError::Stopped(fatal.to_string()))?;
        let limit = limits::LEADER_TRANSFER_TIMEOUT;
        let changed = async {
            loop {
                {
                    let state = metrics.borrow_watched();
                    // This node itself may be elected again.
                    if let Some(leader) = state.current_leader
                        && (leader != self.node_id || state.current_term > term)
                    {
                        return Ok(leader);
                    }
                }
                metrics
                    .changed()
                    .await
                    .map_err(|error| AdminError::Stopped(format!("{error:?}")))?;
            }
        };
        let leader = tokio::time::timeout(limit, changed)
            .await
            .map_err(|_| AdminError::Timeout(limit))??;
        match leader == target {
            true => Ok(leader),
            false => Err(AdminError::OtherLeads {
                wanted: target,
                leader,
            }),
        }
    }

    /// Holds back what is submitted from now on as long as the answer is kept, once
    /// what is in flight is applied; `None` when that takes longer than
    /// [`limits::HELD_APPENDS_WAIT_MAX`].
    pub(crate) async fn hold_appends(&self) -> Option<proposer::HeldAppends> {
        self.proposer.hold().await
    }

    /// Takes a snapshot of what is applied now, and answers when it is on disk.
    ///
    /// # Errors
    /// When nothing is applied yet, or it takes longer than `limit`.
    pub async fn take_snapshot(&self, limit: Duration) -> Result<SnapshotTaken, AdminError> {
        let Some(wanted) = self.replica.machine().last_applied().map(|id| id.index) else {
            return Err(AdminError::Empty);
        };
        let mut metrics = self.raft.metrics();
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|fatal| AdminError::Stopped(fatal.to_string()))?;
        let done = async {
            loop {
                let newest = metrics.borrow_watched().snapshot;
                if newest.is_some_and(|id| id.index >= wanted) {
                    return Ok(());
                }
                // openraft drops the request while another snapshot is being
                // built, which may be an older one: ask again.
                tokio::select! {
                    changed = metrics.changed() => {
                        changed.map_err(|error| AdminError::Stopped(format!("{error:?}")))?;
                    }
                    () = tokio::time::sleep(schedule::SNAPSHOT_CHECK_INTERVAL) => {
                        self.raft
                            .trigger()
                            .snapshot()
                            .await
                            .map_err(|fatal| AdminError::Stopped(fatal.to_string()))?;
                    }
                }
            }
        };
        tokio::time::timeout(limit, done)
            .await
            .map_err(|_| AdminError::Timeout(limit))??;
        let info = self
            .storage
            .snapshots()
            .newest(self.id)
            .ok_or(AdminError::Empty)?;
        Ok(SnapshotTaken {
            log_index: info.log_id.index,
            size_bytes: info.size_bytes,
        })
    }

    /// Forms the group of `members`; repeatable.
    ///
    /// # Errors
    /// What openraft says.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, MemberNode>,
    ) -> Result<(), AdminError> {
        use openraft::errors::{InitializeError, RaftError};
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Somebody was faster.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(AdminError::Stopped(error.to_string())),
        }
    }

    /// The members that vote.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().collect()
    }

    /// Takes note of what the replica on `node` has come to, and tells what this
    /// one had come to at the same log index, if that is known.
    pub fn compare_digest(&self, node: NodeId, theirs: DigestCheck) -> Option<Digest> {
        let ours = self.replica.machine().digest_at(theirs.index);
        self.contradictions.compare(node, theirs, ours);
        ours
    }

    /// The first offset whose event can be read on this node.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn earliest_offset(&self) -> Result<u64, ReadEventsError> {
        reader::earliest_offset(&self.replica).await
    }

    /// Takes note of how far back the history of another member reaches.
    pub fn note_history(&self, id: NodeId, earliest_offset: u64) {
        self.histories
            .lock()
            .note(id, earliest_offset, Instant::now());
    }

    /// Where the events from `offset` on can be read, when this node does not
    /// keep them.
    pub fn history_elsewhere(&self, offset: u64) -> HistoryElsewhere {
        let mut others = self.members();
        others.remove(&self.node_id);
        self.histories.lock().find(offset, &others)
    }

    /// Waits until a quorum of the voters has come to another state than this
    /// node (I7).
    pub async fn contradicted(&self) -> QuorumContradicts {
        self.contradictions
            .by_quorum(self.id, || self.voters())
            .await
    }

    /// Waits until one of the partition's own tasks panics, and says which way.
    pub async fn failed(&self) -> String {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        loop {
            match tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => return error.to_string(),
                // Tasks end when Raft does, and Raft says why itself.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Stops: refuses what is new, sees through what is queued, hands leadership
    /// over, and ends.
    pub async fn shutdown(&self) {
        self.proposer.close();
        let limit = limits::LEADER_TRANSFER_TIMEOUT;
        if tokio::time::timeout(limit, self.proposer.drained())
            .await
            .is_err()
        {
            tracing::warn!(
                partition = self.id,
                "some appends were still in flight; their outcome is unknown to their callers"
            );
        }
        match self.give_up_leadership().await {
            Ok(leader) | Err(AdminError::OtherLeads { leader, .. }) => {
                tracing::info!(partition = self.id, leader, "leadership handed over");
            }
            Err(AdminError::NotLeader(_) | AdminError::NoOtherVoter) => {}
            Err(error) => {
                tracing::warn!(partition = self.id, %error, "leadership was not handed over");
            }
        }
        self.read_index.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(partition = self.id, ?error, "raft did not stop cleanly");
        }
        self.proposer.refuse_queued();
    }
}
