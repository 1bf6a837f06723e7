//! How much happened in a history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Minimum;
use crate::history::{History, Kind, Op, Phase, Process};

/// What became of the operations of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Happened.
    pub ok: u64,
    /// Did not happen.
    pub fail: u64,
    /// Unknown.
    pub info: u64,
}

impl Outcomes {
    /// Those of another history besides.
    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.fail += other.fail;
        self.info += other.info;
    }
}

/// The operations and faults of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// By `f`.
    pub ops: BTreeMap<String, Outcomes>,
    /// Faults that were injected, by name.
    pub faults: BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn new(history: &History) -> Self {
        let mut counts = Self::default();
        for event in history.events() {
            match (&event.op, event.process) {
                (Op::Fault(fault), _) => {
                    if fault.phase == Phase::Start {
                        *counts.faults.entry(fault.name.clone()).or_default() += 1;
                    }
                }
                (op, Process::Client(_)) => {
                    let outcomes = counts.ops.entry(op.f().to_owned()).or_default();
                    match event.kind {
                        Kind::Invoke => {}
                        Kind::Ok => outcomes.ok += 1,
                        Kind::Fail => outcomes.fail += 1,
                        Kind::Info => outcomes.info += 1,
                    }
                }
                (_, Process::Nemesis) => {}
            }
        }
        counts
    }

    /// Of all kinds together.
    #[must_use]
    pub fn total(&self) -> Outcomes {
        let mut total = Outcomes::default();
        for outcomes in self.ops.values() {
            total.add(*outcomes);
        }
        total
    }

    /// All faults that were injected.
    #[must_use]
    pub fn faults_landed(&self) -> u64 {
        self.faults.values().sum()
    }

    pub(super) fn below(&self, minimum: Minimum) -> Vec<String> {
        let mut reasons = Vec::new();
        for (what, is, needed) in [
            ("ok operations", self.total().ok, minimum.ok_ops),
            ("landed faults", self.faults_landed(), minimum.faults),
        ] {
            if is < needed {
                reasons.push(format!("{is} {what}, where at least {needed} are needed"));
            }
        }
        reasons
    }
}
