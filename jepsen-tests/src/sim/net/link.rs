//! How the links between hosts are at the moment: as usual, but for what each
//! fault does to them. A fault that ends takes back its own, and no other's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// One direction between two hosts.
pub(in crate::sim) type Pair = (IpAddr, IpAddr);

/// How one direction between two hosts is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct Link {
    pub(in crate::sim) cut: bool,
    pub(in crate::sim) latency: Range<Duration>,
    pub(in crate::sim) loss_per_mille: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            latency: Duration::from_micros(200)..Duration::from_millis(1),
            loss_per_mille: 0,
        }
    }
}

/// What a fault does to links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Effect {
    Cut,
    LossPerMille(u64),
    Latency(Range<Duration>),
}

/// A fault of the network, until it is lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) struct Impairment(u64);

/// All links.
pub(super) struct Links {
    usual: Link,
    /// The effects on each link that is not as usual, by fault.
    impaired: BTreeMap<Pair, BTreeMap<Impairment, Effect>>,
    impairments: u64,
}

impl Links {
    pub(super) fn new(usual: Link) -> Self {
        Self {
            usual,
            impaired: BTreeMap::new(),
            impairments: 0,
        }
    }

    /// Does this to all `pairs`.
    pub(super) fn impair(&mut self, pairs: &[Pair], effect: &Effect) -> Impairment {
        self.impairments += 1;
        let impairment = Impairment(self.impairments);
        for pair in pairs {
            let effects = self.impaired.entry(*pair).or_default();
            effects.insert(impairment, effect.clone());
        }
        impairment
    }

    /// Ends one impairment; the pairs that it was of.
    pub(super) fn lift(&mut self, impairment: Impairment) -> BTreeSet<Pair> {
        let mut of = BTreeSet::new();
        self.impaired.retain(|pair, effects| {
            if effects.remove(&impairment).is_some() {
                of.insert(*pair);
            }
            !effects.is_empty()
        });
        of
    }

    /// How the link from one host to another is: of several effects the worst
    /// holds.
    pub(super) fn of(&self, from: IpAddr, to: IpAddr) -> Link {
        let mut link = self.usual.clone();
        for effect in self.impaired.get(&(from, to)).into_iter().flatten() {
            match effect.1 {
                Effect::Cut => link.cut = true,
                Effect::LossPerMille(loss) => link.loss_per_mille = link.loss_per_mille.max(*loss),
                Effect::Latency(latency) if latency.end > link.latency.end => {
                    link.latency = latency.clone();
                }
                Effect::Latency(_) => {}
            }
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_ends_leaves_the_others() {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut links = Links::new(Link::default());
        let latency = Duration::from_millis(50)..Duration::from_millis(90);
        let cut = links.impair(&[(a, b)], &Effect::Cut);
        let also_cut = links.impair(&[(a, b), (b, a)], &Effect::Cut);
        let slow = links.impair(&[(a, b)], &Effect::Latency(latency.clone()));
        let lossy = links.impair(&[(a, b)], &Effect::LossPerMille(30));
        assert_eq!(links.lift(also_cut), BTreeSet::from([(a, b), (b, a)]));
        assert_eq!(links.of(b, a), Link::default());
        let all = Link {
            cut: true,
            latency,
            loss_per_mille: 30,
        };
        assert_eq!(links.of(a, b), all);
        links.lift(cut);
        assert_eq!(links.of(a, b), Link { cut: false, ..all });
        links.lift(slow);
        links.lift(lossy);
        assert_eq!(links.of(a, b), Link::default());
        assert_eq!(links.lift(lossy), BTreeSet::new());
    }
}
