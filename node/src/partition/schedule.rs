//! What a partition does by itself: ticks when a hunt's start or end is due,
//! snapshots, and following who leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use huntlog_machine::EntryBuilder;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;

use super::SnapshotEvery;
use super::clock::LogClock;
use super::replica::Replica;
use crate::raft::{EntryData, NodeId, Raft};
use crate::telemetry::PartitionMetrics;

/// The longest a tick waits before it looks at the clock again: the clock may
/// be corrected meanwhile.
const DUE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the gauges are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the size of the log is compared with the snapshot policy.
pub(super) const SNAPSHOT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// While this node leads, proposes an empty entry whenever a hunt's start or
/// end is due and no other entry has made it happen.
pub(super) async fn ticks(raft: Raft, replica: Arc<Replica>, clock: Arc<LogClock>) {
    let mut server = raft.server_metrics();
    let mut marks = replica.tail().watch();
    loop {
        let leads = server.borrow_watched().state == ServerState::Leader;
        let due_ms = replica.machine().next_due_ms();
        let Some(due_ms) = due_ms.filter(|_| leads) else {
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                changed = marks.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let now_ms = clock.stamp_ms();
        if now_ms < due_ms {
            let wait = Duration::from_millis(due_ms - now_ms).min(DUE_CHECK_INTERVAL);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = server.changed() => if changed.is_err() { return },
                changed = marks.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let entry = EntryBuilder::new(now_ms, replica.digest_check()).finish();
        // Applied, refused or lost: the next look at the machine tells.
        if let Err(error) = raft.client_write(EntryData(entry)).await {
            tracing::debug!(%error, "a tick was not applied");
            tokio::select! {
                () = tokio::time::sleep(DUE_CHECK_INTERVAL) => {}
                changed = server.changed() => if changed.is_err() { return },
                changed = marks.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Takes a snapshot after so many bytes, or so much time with anything new.
pub(super) async fn snapshots(raft: Raft, replica: Arc<Replica>, every: SnapshotEvery) {
    let mut last_taken = Instant::now();
    let mut progress = raft.metrics();
    let mut pause = tokio::time::interval(SNAPSHOT_CHECK_INTERVAL);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let bytes = replica.bytes_since_snapshot();
        let due = bytes >= every.bytes || (bytes > 0 && last_taken.elapsed() >= every.interval);
        let Some(applied) = replica.machine().last_applied().filter(|_| due) else {
            continue;
        };
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        // One at a time. openraft drops the request while another is being
        // built, which may be an older one: ask again.
        while progress
            .borrow_watched()
            .snapshot
            .is_none_or(|id| id.index < applied.index)
        {
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return },
                _ = pause.tick() => if raft.trigger().snapshot().await.is_err() { return },
            }
        }
        last_taken = Instant::now();
    }
}

/// Tells the clock whose clocks count, and the metrics how the replica stands.
pub(super) async fn follow_raft(
    raft: Raft,
    replica: Arc<Replica>,
    clock: Arc<LogClock>,
    metrics: PartitionMetrics,
) {
    let mut server = raft.server_metrics();
    let mut leader = None;
    let mut last_leader = None;
    let mut peers = BTreeSet::new();
    let mut sample = tokio::time::interval(METRICS_INTERVAL);
    sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        {
            let state = server.borrow_watched();
            clock.set_voters(state.membership_config.voter_ids().collect());
            if state.current_leader != leader {
                leader = state.current_leader;
                if leader.is_some() && leader != last_leader {
                    metrics.replica.leader_changes.inc();
                    last_leader = leader;
                }
                tracing::info!(
                    term = state.vote.leader_id.term,
                    leader,
                    "the leader changed"
                );
            }
        }
        record(&raft, &replica, &metrics);
        record_peers(&raft, &mut peers, &metrics);
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return },
            _ = sample.tick() => {}
        }
    }
}

/// Writes down how the replica stands.
fn record(raft: &Raft, replica: &Replica, metrics: &PartitionMetrics) {
    let state = raft.metrics();
    let state = state.borrow_watched();
    let gauges = &metrics.replica;
    gauges.term.set(state.current_term);
    gauges.leader_id.set(state.current_leader.unwrap_or(0));
    gauges
        .is_leader
        .set(u64::from(state.state == ServerState::Leader));
    let voters = state.membership_config.voter_ids().count();
    let members = state.membership_config.nodes().count();
    gauges.voters.set(voters as u64);
    gauges.learners.set(members.saturating_sub(voters) as u64);
    gauges.last_log_index.set(state.last_log_index.unwrap_or(0));
    gauges
        .committed_log_index
        .set(state.local_committed.map_or(0, |id| id.index));
    gauges
        .snapshot_log_index
        .set(state.snapshot.map_or(0, |id| id.index));
    drop(state);
    let log = replica.log();
    gauges
        .durable_log_index
        .set(log.durable_index().unwrap_or(0));
    gauges.first_log_index.set(log.history_start());
    let mark = replica.tail().mark();
    gauges
        .applied_log_index
        .set(mark.next_index.saturating_sub(1));
    gauges.end_offset.set(mark.end_offset);
    gauges.feature_level.set(replica.level().into());
    let counters = replica.machine().counters();
    gauges.sessions.set(counters.sessions);
    gauges.hunts.set(counters.hunts);
    let counted = gauges.digests_uncomparable.get();
    gauges
        .digests_uncomparable
        .inc_by(counters.digests_uncomparable.saturating_sub(counted));
}

/// Writes down what the peers have, which only the leader knows, and takes back
/// what was written of those in `peers` that it knows of no more.
fn record_peers(raft: &Raft, peers: &mut BTreeSet<NodeId>, metrics: &PartitionMetrics) {
    let state = raft.metrics();
    let state = state.borrow_watched();
    let known: BTreeSet<NodeId> = state
        .replication
        .iter()
        .flat_map(|known| known.keys().copied())
        .collect();
    for gone in peers.difference(&known) {
        metrics.clear_matched_log_index(*gone);
    }
    for (peer, matched) in state.replication.iter().flatten() {
        metrics.set_matched_log_index(*peer, matched.map_or(0, |id| id.index));
    }
    *peers = known;
}
