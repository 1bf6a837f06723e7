//! Faults of the network between the nodes. Clients reach every node throughout.

use std::sync::PoisonError;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep};

use super::Injector;
use super::faults::{FaultError, Hold, Injected};
use crate::network::Rule;

/// How long the leader is cut off, and joined, at a time, in milliseconds.
const FLAP_MS: std::ops::Range<u64> = 100..600;

/// Nothing from `from` reaches `to`.
fn cut(from: u64, to: u64) -> Rule {
    Rule {
        from,
        to,
        lost_percent: 100,
    }
}

/// Nothing passes between the two sides.
fn between(one: &[u64], other: &[u64]) -> Vec<Rule> {
    one.iter()
        .flat_map(|a| other.iter().flat_map(|b| [cut(*a, *b), cut(*b, *a)]))
        .collect()
}

impl Injector {
    pub(super) fn set_rules(&self, rules: &[Rule]) -> Result<(), FaultError> {
        let Some(network) = &self.network else {
            return match rules {
                [] => Ok(()),
                _ => Err(FaultError::Unprepared),
            };
        };
        let network = network.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(network.set_rules(rules)?)
    }

    /// How many frames the rules have dropped that hold now.
    pub(super) fn dropped_frames(&self) -> Result<u64, FaultError> {
        let Some(network) = &self.network else {
            return Ok(0);
        };
        let network = network.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(network.dropped_frames()?)
    }

    async fn others(&self, than: u64) -> Vec<u64> {
        let cluster = self.cluster.lock().await;
        let ids = cluster.nodes().iter().map(|node| node.spec().id);
        ids.filter(|id| *id != than).collect()
    }

    fn held(
        &self,
        nodes: Vec<u64>,
        rules: &[Rule],
        detail: String,
    ) -> Result<Injected, FaultError> {
        self.set_rules(rules)?;
        Ok(Injected {
            detail: Some(detail),
            hold: Hold::Rules,
            ..Injected::of(nodes)
        })
    }

    pub(super) async fn isolate_leader(&mut self) -> Result<Injected, FaultError> {
        let leader = self.leader().await?;
        let others = self.others(leader).await;
        let rules = between(&[leader], &others);
        self.held(vec![leader], &rules, format!("{leader} | {others:?}"))
    }

    pub(super) async fn halve(&mut self) -> Result<Injected, FaultError> {
        let mut ids = self.others(0).await;
        ids.shuffle(&mut self.random);
        let (small, large) = ids.split_at(ids.len() / 2);
        let rules = between(small, large);
        self.held(small.to_vec(), &rules, format!("{small:?} | {large:?}"))
    }

    pub(super) async fn one_way(&mut self) -> Result<Injected, FaultError> {
        let leader = self.leader().await?;
        let others = self.others(leader).await;
        // A leader that is not heard, or one that does not hear.
        let deaf = self.random.random_bool(0.5);
        let rules: Vec<Rule> = others
            .iter()
            .map(|other| {
                if deaf {
                    cut(*other, leader)
                } else {
                    cut(leader, *other)
                }
            })
            .collect();
        let what = if deaf { "hears nobody" } else { "is not heard" };
        self.held(vec![leader], &rules, format!("{leader} {what}"))
    }

    pub(super) async fn bridge(&mut self) -> Result<Injected, FaultError> {
        let mut ids = self.others(0).await;
        ids.shuffle(&mut self.random);
        let middle = ids.pop().unwrap_or_default();
        let (one, other) = ids.split_at(ids.len() / 2);
        let rules = between(one, other);
        self.held(
            ids.clone(),
            &rules,
            format!("{one:?} - {middle} - {other:?}"),
        )
    }

    pub(super) async fn flap(&mut self) -> Result<Injected, FaultError> {
        let leader = self.leader().await?;
        let others = self.others(leader).await;
        self.set_rules(&between(&[leader], &others))?;
        Ok(Injected {
            hold: Hold::Flapping,
            ..Injected::of(vec![leader])
        })
    }

    pub(super) async fn keep_flapping(
        &mut self,
        node: u64,
        until: Instant,
    ) -> Result<(), FaultError> {
        let others = self.others(node).await;
        while Instant::now() < until {
            for rules in [Vec::new(), between(&[node], &others)] {
                self.set_rules(&rules)?;
                sleep(Duration::from_millis(self.random.random_range(FLAP_MS))).await;
            }
        }
        Ok(())
    }

    pub(super) async fn lose_packets(&mut self) -> Result<Injected, FaultError> {
        let ids = self.others(0).await;
        let percent: u8 = self.random.random_range(10..33);
        let rules: Vec<Rule> = ids
            .iter()
            .flat_map(|from| ids.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to)
            .map(|(from, to)| Rule {
                from,
                to,
                lost_percent: percent,
            })
            .collect();
        self.held(ids, &rules, format!("{percent} % of frames"))
    }

    pub(super) async fn delay(&mut self) -> Result<Injected, FaultError> {
        let delay = Duration::from_millis(self.random.random_range(5..60));
        let jitter = Duration::from_millis(self.random.random_range(1..60));
        let links = self.links.as_ref().ok_or(FaultError::Unprepared)?;
        links.set(delay, jitter);
        Ok(Injected {
            detail: Some(format!(
                "{} ms and up to {} ms",
                delay.as_millis(),
                jitter.as_millis()
            )),
            hold: Hold::SlowLinks,
            ..Injected::of(self.others(0).await)
        })
    }
}
