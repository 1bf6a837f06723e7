//! What the world itself judges while it goes on, and counts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::World;
use crate::sim::disk::SEGMENT_BYTES;
use crate::sim::invariants::{Explained, Kept, Known, bounded, durable, loud, retained};
use crate::sim::middlebox::Middlebox;
use crate::sim::node::Counted;
use crate::sim::trace::LOG_IS_CUT;

/// Disks and bounds are judged this often,
pub(super) const JUDGE: Duration = Duration::from_millis(2_500);
/// and disks this often while one is slow.
const JUDGE_SLOW: Duration = Duration::from_millis(400);

impl World {
    /// Holds what was acknowledged in this tick against the disks, from time to
    /// time; more often while a disk takes its time, because that tells more.
    pub(super) fn judge_acknowledged(&mut self) {
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
        self.hold_against_disks(acknowledged);
    }

    /// Holds what is acknowledged up to this log index against what a power cut
    /// now would leave.
    fn hold_against_disks(&mut self, acknowledged: u64) {
        let mut disks = BTreeMap::new();
        let mut most: Option<(u64, Kept)> = None;
        for (id, node) in &self.nodes {
            match node.disk.would_hold(acknowledged) {
                Ok((held, kept)) => {
                    disks.insert(*id, held);
                    most = most
                        .into_iter()
                        .chain([(*id, kept)])
                        .min_by_key(|(_, kept)| kept.from);
                }
                Err(error) => self.violations.push(format!(
                    "I12: what a power cut would leave of node {id} is refused: {error}"
                )),
            }
        }
        let mut coverage = self.shared.coverage.lock();
        coverage.disks_judged += 1;
        if let Some((id, kept)) = most {
            coverage.retention_judged += u64::from(kept.from > 1);
            let judged = retained(id, kept, SEGMENT_BYTES, self.setup.retention_bytes);
            self.violations.extend(judged.err());
        }
        drop(coverage);
        // Of voters that have just changed nobody has spoken yet.
        self.disks_seen.push((acknowledged, disks));
    }

    /// What the disks seen so far say of I1, and those of now, in the end.
    pub(in crate::sim) fn judge_disks(&mut self) {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        if acknowledged > 0 {
            self.hold_against_disks(acknowledged);
        }
        let voters = &self.shared.seen.lock().voters;
        for (index, disks) in self.disks_seen.drain(..) {
            self.violations.extend(durable(index, &disks, voters).err());
        }
    }

    /// Holds what the nodes measure against their limits.
    pub(in crate::sim) fn judge_bounds(&mut self) {
        for (id, node) in &self.nodes {
            let metrics = node.handle.as_ref().map(|handle| handle.metrics.encode());
            match metrics.map(|text| bounded(*id, &text, &self.setup.limits)) {
                None => {}
                Some(Ok(judged)) => {
                    self.shared.coverage.lock().bounds_judged += u64::from(judged);
                }
                Some(Err(violation)) => self.violations.push(violation),
            }
        }
    }

    /// What hosts have logged as errors must follow from what was done to them.
    pub(super) fn judge_errors(&mut self) {
        for (host, text) in self.trace.take_errors() {
            match loud(&text, &self.known(host)) {
                Ok(Explained::Disk) => {}
                Ok(Explained::Removed) => {
                    self.said_removed.insert(host);
                }
                Err(text) => self
                    .violations
                    .push(format!("an error in the log of host {host}: {text}")),
            }
        }
    }

    /// What is known of the node `id`, by which it is judged what it says.
    pub(super) fn known(&self, id: u64) -> Known {
        let machine = self.nodes.get(&id);
        Known {
            node: id,
            sync_failed: machine
                .is_some_and(|node| node.disk.syncs_failed() > node.syncs_failed_before),
            down: machine.is_some_and(|node| node.disk.is_down() || node.process.is_none()),
            removal_asked: self.operator.state.lock().removals.contains(&id),
        }
    }

    /// Who was said to be no member any more must be none, as the members say once
    /// everything is settled.
    pub(in crate::sim) fn judge_removed(&mut self) {
        let members = self.shared.seen.lock().members().unwrap_or_default();
        for id in members.iter().filter(|id| self.said_removed.contains(id)) {
            self.violations.push(format!(
                "I12: node {id} was told that it is no member, and it is one"
            ));
        }
    }

    /// What is judged by all that has been seen of sessions.
    pub(in crate::sim) fn judge_sessions(&mut self) {
        let idle_ms = self.setup.forgotten_after_ms();
        let (judged, violations) = self.shared.seen.lock().sessions.judge(idle_ms);
        self.shared.coverage.lock().forgettings_judged = judged;
        self.violations.extend(violations);
    }

    /// What a process has counted is gone with it.
    pub(super) fn keep_counts(&mut self, id: u64) {
        let Some(handle) = self
            .nodes
            .get(&id)
            .and_then(|machine| machine.handle.as_ref())
        else {
            return;
        };
        let counted = Counted::of(&handle.metrics.encode());
        let mut coverage = self.shared.coverage.lock();
        coverage.snapshots_installed += counted.snapshots_installed;
        coverage.snapshots_taken += counted.snapshots_built;
        coverage.duplicates_proposed += counted.duplicates;
    }

    /// Counts what running processes have counted so far; once, at the end.
    pub(in crate::sim) fn keep_all_counts(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.keep_counts(id);
        }
        let net = self.net.counts();
        let middle = self.shared.way.middlebox.as_ref();
        let done = middle.map(Middlebox::done).unwrap_or_default();
        let disks: Vec<_> = self.nodes.values().map(|node| node.disk.counts()).collect();
        let mut coverage = self.shared.coverage.lock();
        let seen = self.shared.seen.lock();
        coverage.leader_changes = seen.leaders.leaderships().saturating_sub(1);
        coverage.successions = self.trace.seen("the leader's connection broke");
        coverage.states_compared = seen.states.compared();
        drop(seen);
        coverage.requests_repeated = done.repeated;
        coverage.requests_delayed = done.delayed;
        coverage.requests_lost = done.lost;
        coverage.log_truncated = self.trace.seen(LOG_IS_CUT);
        coverage.segments_lost = net.lost;
        coverage.segments_stalled = net.stalled;
        coverage.segments_late = net.late;
        coverage.connections_reset = net.reset;
        coverage.torn_tails = disks.iter().map(|disk| disk.torn_tails).sum();
        coverage.frames_rewritten = disks.iter().map(|disk| disk.frames_rewritten).sum();
    }
}
