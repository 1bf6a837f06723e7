//! Whether a node is alive and ready, and if not, why not.
//!
//! Those who know report to a [`Health`], and take back what they reported once
//! it is over; the admin port, the gRPC health service and the shutdown watch
//! it.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// Why a node does not serve for now. Each is reported by one part of the node,
/// for the whole node or for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TroubleKind {
    /// The parts are being set up, and storage opened and checked.
    Starting,
    /// The node belongs to no cluster yet: it forms one, or waits to be added.
    Forming,
    /// No leader is known, so that nothing can be read or written.
    NoLeader,
    /// The leader this node knows has not been heard of for a while.
    LeaderSilent,
    /// What was committed when the node started is not all applied yet.
    CatchingUp,
    /// A snapshot from the leader is being installed.
    InstallingSnapshot,
    /// The node is stopping; use another one.
    Draining,
}

impl TroubleKind {
    /// A stable code, for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Forming => "forming",
            Self::NoLeader => "no_leader",
            Self::LeaderSilent => "leader_silent",
            Self::CatchingUp => "catching_up",
            Self::InstallingSnapshot => "installing_snapshot",
            Self::Draining => "draining",
        }
    }
}

/// What an operator should know of a node that serves all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Warning {
    /// Its clock is further from the voters' median than
    /// [`CLOCK_SKEW_MAX`](crate::limits::CLOCK_SKEW_MAX).
    ClockSkew,
    /// The disk is nearly full.
    DiskNearlyFull,
    /// A segment of the log is damaged: what it holds is read from other nodes.
    SegmentDamaged,
}

impl Warning {
    /// A stable code, for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::ClockSkew => "clock_skew",
            Self::DiskNearlyFull => "disk_nearly_full",
            Self::SegmentDamaged => "segment_damaged",
        }
    }
}

/// A reason not to be ready, and of which partition; none means the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trouble {
    /// What it is.
    pub kind: TroubleKind,
    /// The partition concerned.
    pub partition: Option<u32>,
}

/// Everything reported and not taken back, each with a message for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    /// Why the node has failed for good. It must be stopped.
    pub failure: Option<String>,
    /// Why it does not serve for now.
    pub troubles: BTreeMap<Trouble, String>,
    /// What should be known although it serves.
    pub warnings: BTreeMap<Warning, String>,
}

impl HealthState {
    /// Whether the process is worth keeping.
    pub fn is_live(&self) -> bool {
        self.failure.is_none()
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.troubles.is_empty()
    }
}

/// Where a node's parts report how they are. Clones share one state.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<HealthState>>,
}

impl Health {
    /// A node that is starting, and says so until `starting` is taken back.
    pub fn starting() -> Self {
        let health = Self {
            state: Arc::new(watch::Sender::new(HealthState::default())),
        };
        health.report(TroubleKind::Starting, None, "the node is starting");
        health
    }

    /// Reports trouble, or gives trouble already reported another message.
    pub fn report(&self, kind: TroubleKind, partition: Option<u32>, message: impl Into<String>) {
        let trouble = Trouble { kind, partition };
        let message = message.into();
        self.change(|state| state.troubles.insert(trouble, message.clone()) != Some(message));
    }

    /// Takes back trouble that is over.
    pub fn resolve(&self, kind: TroubleKind, partition: Option<u32>) {
        let trouble = Trouble { kind, partition };
        self.change(|state| state.troubles.remove(&trouble).is_some());
    }

    /// Reports a warning, or gives it another message.
    pub fn warn(&self, warning: Warning, message: impl Into<String>) {
        let message = message.into();
        self.change(|state| state.warnings.insert(warning, message.clone()) != Some(message));
    }

    /// Takes back a warning.
    pub fn calm(&self, warning: Warning) {
        self.change(|state| state.warnings.remove(&warning).is_some());
    }

    /// Reports that the node has failed for good. The first failure stays: what
    /// follows is usually its consequence.
    pub fn fail(&self, message: impl Into<String>) {
        let message = message.into();
        self.change(|state| {
            let first = state.failure.is_none();
            state.failure.get_or_insert(message);
            first
        });
    }

    /// How the node is now.
    pub fn state(&self) -> HealthState {
        self.state.borrow().clone()
    }

    /// Follows every change.
    pub fn watch(&self) -> watch::Receiver<HealthState> {
        self.state.subscribe()
    }

    /// Changes the state, waking those who watch only if it is another now.
    fn change(&self, change: impl FnOnce(&mut HealthState) -> bool) {
        self.state.send_if_modified(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watchers_hear_of_changes_only() {
        let health = Health::starting();
        let mut watch = health.watch();
        assert!(!watch.borrow_and_update().is_ready());

        health.report(TroubleKind::Starting, None, "the node is starting");
        health.resolve(TroubleKind::NoLeader, Some(0));
        assert!(!watch.has_changed().expect("the sender lives"));

        health.report(TroubleKind::NoLeader, Some(0), "an election is on");
        health.resolve(TroubleKind::Starting, None);
        watch.changed().await.expect("the sender lives");
        assert!(!watch.borrow_and_update().is_ready());

        health.resolve(TroubleKind::NoLeader, Some(0));
        watch.changed().await.expect("the sender lives");
        assert!(watch.borrow_and_update().is_ready());
    }

    #[test]
    fn the_first_failure_stays() {
        let health = Health::starting();
        health.resolve(TroubleKind::Starting, None);
        health.fail("fsync failed");
        health.fail("raft stopped");
        let state = health.state();
        assert_eq!(state.failure.as_deref(), Some("fsync failed"));
        assert!(!state.is_live() && !state.is_ready());
    }

    #[test]
    fn a_partition_in_trouble_makes_the_node_unready() {
        let health = Health::starting();
        health.resolve(TroubleKind::Starting, None);
        health.report(TroubleKind::CatchingUp, Some(0), "applied 5 of 9");
        health.report(TroubleKind::CatchingUp, Some(1), "applied 1 of 9");
        health.resolve(TroubleKind::CatchingUp, Some(0));
        assert!(!health.state().is_ready());
        health.resolve(TroubleKind::CatchingUp, Some(1));
        assert!(health.state().is_ready());
    }
}
