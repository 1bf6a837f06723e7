//! Comparing the configurations of one cluster's nodes, as `check` does when it
//! is given several files.

use std::path::{Path, PathBuf};

use super::{Config, Fault, Origin, Problem};

/// What the files of one cluster (those with the same `cluster.name`) do not
/// agree on. Each file is compared with the first one of its cluster, and its
/// node id with all before it; faults are shown at the later file.
pub fn disagreements(files: &[(PathBuf, Config)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, (path, config)) in files.iter().enumerate() {
        let earlier: Vec<_> = files[..index]
            .iter()
            .filter(|(_, other)| other.cluster.name == config.cluster.name)
            .collect();
        let mut fault = |problem| {
            let origin = Origin::File {
                path: path.as_path().into(),
                position: None,
            };
            faults.push(Fault { origin, problem });
        };
        let name = |path: &Path| path.display().to_string();
        let same_id = earlier
            .iter()
            .find(|(_, other)| other.node.id == config.node.id);
        if let Some((other, _)) = same_id {
            fault(Problem::SameNodeId {
                id: config.node.id,
                other: name(other),
            });
        }
        let Some((other, first)) = earlier.first() else {
            continue;
        };
        // A node that was added later has no list.
        let both = [first, config].map(sorted_members);
        if both.iter().all(|members| !members.is_empty()) && both[0] != both[1] {
            fault(Problem::MembersDiffer { other: name(other) });
        }
        if first.raft != config.raft {
            fault(Problem::ClusterDiffers { other: name(other) });
        }
    }
    faults
}

fn sorted_members(config: &Config) -> Vec<&super::Member> {
    let mut members: Vec<_> = config.cluster.initial_members.iter().collect();
    members.sort_unstable_by_key(|member| member.id);
    members
}
