//! I11: tables have limits, and what is in them is unharmed at the limit.

use huntlog_machine::{BatchResult, EventOutcome, Limits, RejectReason};

use crate::support::{Replica, batch, create, small_definition};

#[test]
fn hunts_are_bounded() {
    let limits = Limits {
        hunts_max: 2,
        ..Limits::default()
    };
    let mut replica = Replica::with_limits(limits);
    let epoch = replica.epoch("s", "first");
    let hunts = ["a", "b", "c", "a"]
        .map(|hunt| create(hunt, small_definition()))
        .into();
    let BatchResult::Applied(outcome) = replica.append(1_000, &batch("s", epoch, 1, hunts)) else {
        panic!("its sequence is the next");
    };
    let rejected: Vec<_> = outcome
        .iter()
        .map(|outcome| match outcome {
            EventOutcome::Accepted { .. } => None,
            EventOutcome::Rejected(reason) => Some(reason),
        })
        .collect();
    assert_eq!(
        rejected,
        [
            None,
            None,
            Some(RejectReason::HuntsFull),
            Some(RejectReason::HuntExists)
        ]
    );
    assert_eq!(replica.machine.hunt_count(), 2);
}
