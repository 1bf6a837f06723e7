//! What has to have happened in a run for a verdict. A run in which some of its
//! workload never happened shows nothing of it, however much of the rest there was.

use std::collections::BTreeMap;

use super::workload::Workload;
use super::{Nemesis, Plan};
use crate::check::{Counts, Minimum};

/// What how often a kind of operation is done depends on.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// What a workload is for: a quarter of all that is needed.
    Write,
    /// Done at a share of the rate.
    Paced,
    /// Done every now and then, whatever the rate.
    Timed,
}

/// What the replacement of a member is called in a history.
pub(super) const REPLACED: &str = "replace-member";
/// Of each kind, however short or slow a run is.
const LEAST: u64 = 2;

fn kinds(workload: Workload) -> Vec<(&'static str, Kind)> {
    let log = [
        ("append", Kind::Write),
        ("resend", Kind::Paced),
        ("read", Kind::Paced),
        ("stale", Kind::Paced),
        ("poll", Kind::Timed),
    ];
    let claim = [("claim", Kind::Write), ("who", Kind::Paced)];
    let sessions = [
        ("append", Kind::Write),
        ("open", Kind::Paced),
        ("poll", Kind::Timed),
    ];
    match workload {
        Workload::Log | Workload::Membership => log.to_vec(),
        Workload::Claim => claim.to_vec(),
        Workload::Sessions => sessions.to_vec(),
        Workload::Mixed => [&log[..], &claim, &[("open", Kind::Paced)]].concat(),
    }
}

impl Plan {
    /// Below this there is no verdict: a twentieth of the operations offered, and
    /// a fault every twenty seconds.
    #[must_use]
    pub fn minimum(&self) -> Minimum {
        let seconds = self.time.as_secs();
        Minimum {
            ok_ops: (u64::from(self.rate) * seconds / 20).max(100),
            faults: match self.nemesis {
                Nemesis::None => 0,
                _ => (seconds / 20).max(1),
            },
        }
    }

    /// How many of them are needed of each kind, by its name in a history.
    #[must_use]
    pub fn minimum_of_kinds(&self) -> BTreeMap<&'static str, u64> {
        let all = self.minimum().ok_ops;
        let of = |kind| match kind {
            Kind::Write => all / 4,
            Kind::Paced => (all / 100).max(LEAST),
            Kind::Timed => (self.time.as_secs() / 4).max(LEAST),
        };
        let kinds = kinds(self.workload).into_iter();
        kinds.map(|(name, kind)| (name, of(kind))).collect()
    }

    /// What else than a minimum of everything is missing for a verdict.
    pub(super) fn lacking(&self, counts: &Counts) -> Vec<String> {
        let mut reasons = Vec::new();
        for (name, needed) in self.minimum_of_kinds() {
            let ok = counts.ops.get(name).map_or(0, |outcomes| outcomes.ok);
            if ok < needed {
                reasons.push(format!(
                    "{ok} ok operations {name}, where at least {needed} are needed"
                ));
            }
        }
        // The replacements of members are in the history as faults as well.
        let landed = |name: &str| counts.faults.get(name).copied().unwrap_or_default();
        let faults = self.nemesis.faults();
        let injected: u64 = faults.iter().map(|fault| landed(&fault.name())).sum();
        let needed = self.minimum().faults;
        if injected < needed {
            reasons.push(format!(
                "{injected} faults of the nemesis {}, where at least {needed} are needed",
                self.nemesis.name()
            ));
        }
        if self.workload == Workload::Membership && landed(REPLACED) == 0 {
            reasons.push("no member was replaced".to_owned());
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::Outcomes;

    fn plan(workload: Workload, nemesis: Nemesis) -> Plan {
        Plan {
            workload,
            nemesis,
            time: Duration::from_secs(60),
            rate: 500,
            nodes: 3,
            seed: 1,
            out: "out".into(),
            namespaces: false,
        }
    }

    fn counts(ops: &[&str], faults: &[&str]) -> Counts {
        let many = Outcomes {
            ok: 10_000,
            ..Outcomes::default()
        };
        Counts {
            ops: ops.iter().map(|f| ((*f).to_owned(), many)).collect(),
            faults: faults.iter().map(|name| ((*name).to_owned(), 3)).collect(),
        }
    }

    #[test]
    fn a_kind_that_did_not_happen_is_named() {
        let plan = plan(Workload::Mixed, Nemesis::None);
        let kinds: Vec<&str> = plan.minimum_of_kinds().into_keys().collect();
        assert_eq!(plan.lacking(&counts(&kinds, &[])), [""; 0]);
        for kind in &kinds {
            let others: Vec<&str> = kinds
                .iter()
                .copied()
                .filter(|other| other != kind)
                .collect();
            let reasons = plan.lacking(&counts(&others, &[]));
            let [reason] = &reasons[..] else {
                panic!("{kind}: {reasons:?}");
            };
            assert!(reason.contains(kind), "{reason}");
        }
    }

    #[test]
    fn a_replaced_member_is_no_fault_of_the_nemesis() {
        let plan = plan(Workload::Membership, Nemesis::KillLeader);
        let kinds: Vec<&str> = plan.minimum_of_kinds().into_keys().collect();
        let lacking = |faults: &[&str]| plan.lacking(&counts(&kinds, faults));
        assert_eq!(lacking(&["kill-leader", REPLACED]), [""; 0]);
        let reasons = lacking(&[REPLACED]);
        assert!(reasons[0].contains("kill-leader"), "{reasons:?}");
        assert_eq!(lacking(&["kill-leader"]), ["no member was replaced"]);
    }
}
