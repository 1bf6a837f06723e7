//! Upgrading a cluster: whether the next node may be taken, and the end of it.

use std::collections::{BTreeMap, BTreeSet};

use huntlog_client::{CallError, Client, proto};
use serde_json::json;
use tonic::Code;

use super::cluster::NodeReport;
use crate::failure::Failure;
use crate::output::{self, Format};

/// The most log entries that a voter may lack while another one is taken.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// The lowest feature level, and that of a node which tells none.
const FIRST_LEVEL: u32 = 1;

/// How far the nodes are with their releases, as far as they answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The level in force, where it is highest: the others follow.
    in_force: u32,
    /// The highest level that any of them reads.
    highest: u32,
    /// Those that do not read the highest, with what they read.
    below: Vec<String>,
    /// Those that do not answer.
    silent: Vec<String>,
}

/// The feature levels that the node reads.
pub fn range(node: &proto::GetStatusResponse) -> (u32, u32) {
    let max = node.feature_level_max.max(FIRST_LEVEL);
    (node.feature_level_min.clamp(FIRST_LEVEL, max), max)
}

/// A range of levels, for people.
pub fn in_words((min, max): (u32, u32)) -> String {
    match min == max {
        true => min.to_string(),
        false => format!("{min}-{max}"),
    }
}

/// The level in force in a partition, as a node tells.
pub fn level(partition: &proto::PartitionStatus) -> u32 {
    partition.feature_level.max(FIRST_LEVEL)
}

impl Levels {
    /// What the nodes say.
    pub fn of(partition: u32, reports: &[NodeReport]) -> Self {
        let answers = || {
            reports
                .iter()
                .filter_map(|report| report.status.as_ref().ok())
        };
        let in_force = reports
            .iter()
            .filter_map(|report| report.partition(partition));
        let highest = answers().map(|node| range(node).1).max();
        let highest = highest.unwrap_or(FIRST_LEVEL);
        let below = answers()
            .filter(|node| range(node).1 < highest)
            .map(|node| {
                let levels = in_words(range(node));
                format!("node {} ({}) reads {levels}", node.node_id, node.version)
            });
        let silent = reports.iter().filter(|report| report.status.is_err());
        Self {
            in_force: in_force.map(level).max().unwrap_or(FIRST_LEVEL),
            highest,
            below: below.collect(),
            silent: silent.map(|report| report.address.clone()).collect(),
        }
    }

    /// The level that finalize would put in force, if it would.
    fn finalize_to(&self) -> Option<u32> {
        let possible = self.highest > self.in_force && self.obstacles().is_empty();
        possible.then_some(self.highest)
    }

    fn obstacles(&self) -> Vec<String> {
        let silent = self
            .silent
            .iter()
            .map(|address| format!("{address} does not answer"));
        self.below.iter().cloned().chain(silent).collect()
    }

    /// The level in force, and whether finalize is possible.
    pub fn line(&self) -> String {
        let Self {
            in_force, highest, ..
        } = self;
        let then = match self.finalize_to() {
            Some(level) => {
                format!("all nodes read level {level}: `huntctl cluster finalize` puts it in force")
            }
            None if highest == in_force => "no node reads a higher one".to_owned(),
            None => format!(
                "finalize to level {highest} is not possible yet: {}",
                self.obstacles().join("; ")
            ),
        };
        format!("feature level {in_force} is in force; {then}")
    }
}

/// Puts the highest level in force that any member reads.
pub async fn finalize(client: &Client, format: Format) -> Result<(), Failure> {
    let answer = client.finalize_upgrade().await.map_err(|error| match error {
        CallError::Refused(refusal) if refusal.code == Code::Unimplemented => {
            Failure::Refused(
                "the leader's release knows no feature levels; nothing was changed; upgrade every node, the leader too, and repeat the command".to_owned(),
            )
        }
        error => error.into(),
    })?;
    let behind = &answer.behind_node_ids;
    match format {
        Format::Json => output::json(&json!({
            "feature_level": answer.feature_level,
            "already_done": answer.already_done,
            "behind_node_ids": behind,
        })),
        Format::Table => {
            let level = answer.feature_level;
            output::line(&match answer.already_done {
                true => format!("feature level {level} was in force already"),
                false => format!("feature level {level} is in force; there is no way back"),
            })?;
            match behind.is_empty() {
                true => Ok(()),
                false => output::line(&format!("nodes that have not applied it yet: {behind:?}")),
            }
        }
    }
}

/// Whether another node may be taken down and started under another release.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// What speaks against it.
    faults: Vec<String>,
    /// The nodes in the order in which they are to be taken.
    order: Vec<u64>,
    /// The nodes of each release.
    releases: BTreeMap<String, Vec<u64>>,
    leader: u64,
}

fn judge(partition: u32, reports: &[NodeReport]) -> Verdict {
    let mut faults = Vec::new();
    let mut releases = BTreeMap::<String, Vec<u64>>::new();
    let mut leaders = BTreeSet::new();
    let mut digests = BTreeMap::<u64, BTreeSet<&[u8]>>::new();
    for report in reports {
        let node = match &report.status {
            Ok(node) => node,
            Err(error) => {
                faults.push(format!("{}: {error}", report.address));
                continue;
            }
        };
        let id = node.node_id;
        releases.entry(node.version.clone()).or_default().push(id);
        let Some(part) = report.partition(partition) else {
            faults.push(format!("node {id} has no partition {partition}"));
            continue;
        };
        leaders.insert(part.leader_id);
        digests
            .entry(part.digest_log_index)
            .or_default()
            .insert(&part.digest);
        if node.draining {
            faults.push(format!("node {id} is drained: take it back into service"));
        } else if !part.ready {
            faults.push(format!("node {id} is not ready"));
        }
        let (min, max) = range(node);
        if !(min..=max).contains(&level(part)) {
            let levels = in_words((min, max));
            let level = level(part);
            faults.push(format!(
                "node {id} reads {levels}, and level {level} is in force"
            ));
        }
    }
    if releases.len() > 2 {
        let names: Vec<_> = releases.keys().cloned().collect();
        faults.push(format!("more than two releases run: {}", names.join(", ")));
    }
    if digests.values().any(|found| found.len() > 1) {
        faults.push("the nodes' digests differ at the same log index".to_owned());
    }
    let leader = match leaders.len() {
        1 => leaders.first().copied().unwrap_or_default(),
        _ => 0,
    };
    match leader {
        0 => faults.push("the nodes name no leader, or not the same one".to_owned()),
        leader => faults.extend(spare_voter(partition, leader, reports)),
    }
    Verdict {
        faults,
        order: order(reports, leader),
        releases,
        leader,
    }
}

/// What is wrong with one voter less, as the leader knows.
fn spare_voter(partition: u32, leader: u64, reports: &[NodeReport]) -> Vec<String> {
    let leads = |report: &&NodeReport| report.status.as_ref().is_ok_and(|s| s.node_id == leader);
    let Some(part) = reports
        .iter()
        .find(leads)
        .and_then(|report| report.partition(partition))
    else {
        return vec![format!("the leader, node {leader}, does not answer")];
    };
    let voters: Vec<_> = part.members.iter().filter(|member| member.voter).collect();
    let mut faults = Vec::new();
    if voters.len() < 3 {
        faults.push(format!(
            "there are {} voters: without one of them nothing is acknowledged; expect an outage, or add voters first",
            voters.len()
        ));
    }
    for voter in voters.iter().filter(|voter| voter.node_id != leader) {
        let lacks = part
            .last_log_index
            .saturating_sub(voter.matched_log_index());
        if lacks > LAG_ENTRIES_MAX {
            let id = voter.node_id;
            faults.push(format!(
                "node {id} lacks {lacks} log entries: wait until it has them"
            ));
        }
    }
    faults
}

/// The nodes that run the older of the releases, or all where there is only one;
/// the leader last, so that leadership moves once.
fn order(reports: &[NodeReport], leader: u64) -> Vec<u64> {
    let nodes: Vec<_> = reports
        .iter()
        .filter_map(|r| r.status.as_ref().ok())
        .collect();
    let release = |node: &proto::GetStatusResponse| {
        let numbers: Vec<u64> = node
            .version
            .split('.')
            .map(|n| n.parse().unwrap_or(0))
            .collect();
        (range(node).1, numbers)
    };
    let newest = nodes.iter().map(|node| release(node)).max();
    let oldest = nodes.iter().map(|node| release(node)).min();
    let left = |node: &&&proto::GetStatusResponse| newest == oldest || Some(release(node)) < newest;
    let mut left: Vec<u64> = nodes.iter().filter(left).map(|node| node.node_id).collect();
    left.sort_by_key(|id| (*id == leader, *id));
    left
}

/// Says whether the next node may be taken, and which one.
pub fn check(partition: u32, format: Format, reports: &[NodeReport]) -> Result<(), Failure> {
    let levels = Levels::of(partition, reports);
    let Verdict {
        faults,
        order,
        releases,
        leader,
    } = judge(partition, reports);
    let next = order.first().filter(|_| faults.is_empty());
    match format {
        Format::Json => output::json(&json!({
            "may_take": faults.is_empty(),
            "next_node_id": next,
            "order": order,
            "leader_id": leader,
            "releases": releases,
            "faults": faults,
            "feature_level": levels.in_force,
            "finalize_to": levels.finalize_to(),
        }))?,
        Format::Table => {
            for fault in &faults {
                output::line(&output::printable(fault))?;
            }
            for (release, nodes) in &releases {
                output::line(&format!(
                    "release {}: nodes {nodes:?}",
                    output::printable(release)
                ))?;
            }
            if let Some(next) = next {
                let last = match (*next == leader, releases.len()) {
                    (true, _) => "; it leads, and hands leadership over when it stops",
                    (false, 1) => "; the leader goes last",
                    (false, _) => "",
                };
                output::line(&format!("node {next} may be taken next{last}"))?;
            }
            output::line(&levels.line())?;
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(format!(
            "no node may be taken now: {} faults",
            faults.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: u64, version: &str, levels: (u32, u32)) -> NodeReport {
        let member = |node_id| proto::Member {
            node_id,
            voter: true,
            matched_log_index: Some(90),
            ..proto::Member::default()
        };
        NodeReport {
            address: format!("node{id}:7650"),
            status: Ok(proto::GetStatusResponse {
                node_id: id,
                version: version.to_owned(),
                feature_level_min: levels.0,
                feature_level_max: levels.1,
                partitions: vec![proto::PartitionStatus {
                    leader_id: 1,
                    ready: true,
                    last_log_index: 100,
                    members: (1..=3).map(member).collect(),
                    ..proto::PartitionStatus::default()
                }],
                ..proto::GetStatusResponse::default()
            }),
        }
    }

    fn cluster(versions: [(&str, (u32, u32)); 3]) -> Vec<NodeReport> {
        let nodes = (1..).zip(versions);
        nodes
            .map(|(id, (version, levels))| report(id, version, levels))
            .collect()
    }

    const OLD: (&str, (u32, u32)) = ("0.1.0", (0, 0));
    const NEW: (&str, (u32, u32)) = ("0.2.0", (1, 2));

    #[test]
    fn the_leader_goes_last_and_what_is_upgraded_is_not_taken_again() {
        for (versions, order) in [
            ([OLD, OLD, OLD], &[2, 3, 1][..]),
            ([OLD, NEW, OLD], &[3, 1]),
            ([OLD, NEW, NEW], &[1]),
            ([NEW, NEW, NEW], &[2, 3, 1]),
        ] {
            let verdict = judge(0, &cluster(versions));
            assert_eq!((&verdict.faults[..], &verdict.order[..]), (&[][..], order));
        }
        let later = [("0.9.0", (1, 2)), ("0.10.0", (1, 2)), ("0.9.0", (1, 2))];
        assert_eq!(judge(0, &cluster(later)).order, [3, 1]);
    }

    #[test]
    fn finalize_waits_for_everybody() {
        let line = |reports: &[NodeReport]| Levels::of(0, reports).line();
        let told = line(&cluster([NEW, OLD, NEW]));
        assert!(
            told.contains("level 2 is not possible yet: node 2 (0.1.0) reads 1"),
            "{told}"
        );
        let mut reports = cluster([NEW, NEW, NEW]);
        assert_eq!(Levels::of(0, &reports).finalize_to(), Some(2));
        for report in &mut reports {
            if let Ok(node) = &mut report.status {
                node.partitions[0].feature_level = 2;
            }
        }
        assert!(line(&reports).contains("level 2 is in force; no node reads a higher one"));
        reports[2].status = Err(CallError::Closed);
        reports[0] = report(1, "0.3.0", (2, 3));
        let told = line(&reports);
        assert!(told.contains("node3:7650 does not answer"), "{told}");
        assert!(told.contains("node 2 (0.2.0) reads 1-2"), "{told}");
    }

    #[test]
    fn what_speaks_against_taking_a_node_is_named() {
        let fault = |change: fn(&mut Vec<NodeReport>)| {
            let mut reports = cluster([OLD, NEW, OLD]);
            change(&mut reports);
            judge(0, &reports).faults.join("; ")
        };
        for (change, words) in [
            (
                (|r: &mut Vec<NodeReport>| r[2].status = Err(CallError::Closed)) as fn(&mut _),
                "node3:7650",
            ),
            (
                |r| r[2].status.as_mut().expect("it answers").draining = true,
                "node 3 is drained",
            ),
            (
                |r| r[2].status.as_mut().expect("it answers").partitions[0].ready = false,
                "node 3 is not ready",
            ),
            (
                |r| r[2].status.as_mut().expect("it answers").partitions[0].leader_id = 2,
                "not the same one",
            ),
            (
                |r| r[2].status.as_mut().expect("it answers").version = "0.0.9".to_owned(),
                "more than two releases",
            ),
            (
                |r| {
                    let node = r[2].status.as_mut().expect("it answers");
                    node.partitions[0].digest = vec![1].into();
                },
                "digests differ",
            ),
            (
                |r| {
                    let node = r[0].status.as_mut().expect("it answers");
                    node.partitions[0].last_log_index = 5_000;
                },
                "node 2 lacks 4910 log entries",
            ),
            (
                |r| {
                    let node = r[0].status.as_mut().expect("it answers");
                    node.partitions[0].members.pop();
                },
                "there are 2 voters",
            ),
            (
                |r| {
                    let node = r[2].status.as_mut().expect("it answers");
                    node.partitions[0].feature_level = 2;
                },
                "node 3 reads 1, and level 2 is in force",
            ),
        ] {
            let told = fault(change);
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
