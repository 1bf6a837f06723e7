//! The nodes and how they are.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use huntlog_client::{CallError, Client, ClientOptions, ConfigError, proto};
use serde_json::{Value, json};

use super::member::member_json;
use super::upgrade;
use crate::args::{ClusterCommand, NewNode};
use crate::document::short_name;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::time::format_time_if;

/// How many columns the table of nodes has.
const COLUMNS: usize = 16;

/// What one node says of itself, or why it does not.
pub struct NodeReport {
    /// Its address as host:port.
    pub address: String,
    /// Its answer.
    pub status: Result<proto::GetStatusResponse, CallError>,
}

impl NodeReport {
    /// The cluster it belongs to, if it answers and belongs to any.
    fn cluster_id(&self) -> Option<&str> {
        let status = self.status.as_ref().ok()?;
        Some(status.cluster_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Its state in this partition.
    pub fn partition(&self, partition: u32) -> Option<&proto::PartitionStatus> {
        let status = self.status.as_ref().ok()?;
        status.partitions.iter().find(|p| p.partition == partition)
    }
}

/// A client of this node alone.
pub fn only(address: &str, options: &ClientOptions) -> Result<Client, ConfigError> {
    let options = ClientOptions {
        follow_leader: false,
        ..options.clone()
    };
    Client::connect([address], options)
}

/// Asks every node given and every member they name.
pub async fn survey(client: &Client, options: &ClientOptions) -> Result<Vec<NodeReport>, Failure> {
    // A dead node is told as such soon, not after the whole time-out.
    let options = ClientOptions {
        timeout: options.timeout.min(Duration::from_secs(1)),
        ..options.clone()
    };
    let mut asked = BTreeSet::new();
    let mut reports = Vec::new();
    let mut wanted: BTreeSet<String> = client.known_nodes().into_iter().collect();
    while !wanted.is_empty() {
        let clients = wanted
            .iter()
            .map(|address| Ok((address.clone(), only(address, &options)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let answers = clients
            .into_iter()
            .map(async |(address, client)| NodeReport {
                address,
                status: client.status().await,
            });
        asked.append(&mut wanted);
        for report in join_all(answers).await {
            for member in report
                .partition(client.partition())
                .into_iter()
                .flat_map(|p| &p.members)
            {
                let address = member.client_address.clone();
                if !address.is_empty() && !asked.contains(&address) {
                    wanted.insert(address);
                }
            }
            reports.push(report);
        }
    }
    Ok(without_aliases(reports))
}

/// One report for each node, though it may be known under several addresses.
fn without_aliases(mut reports: Vec<NodeReport>) -> Vec<NodeReport> {
    let mut seen = BTreeSet::new();
    reports.retain(|report| match &report.status {
        Ok(status) => seen.insert(status.node_uuid.clone()),
        Err(_) => true,
    });
    reports.sort_by_key(|report| report.status.as_ref().map_or(u64::MAX, |s| s.node_id));
    reports
}

pub async fn run(
    client: &Client,
    options: &ClientOptions,
    format: Format,
    command: ClusterCommand,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status => {
            let reports = survey(client, options).await?;
            status(client.partition(), format, &reports)
        }
        ClusterCommand::Health => {
            let given = client.known_nodes();
            let reports = survey(client, options).await?;
            let meant = given.iter().find_map(|address| {
                let report = reports.iter().find(|report| report.address == *address)?;
                Some(report.cluster_id()?.to_owned())
            });
            health(client.partition(), format, &reports, meant.as_deref())
        }
        ClusterCommand::Init { members } => init(client, format, members).await,
        ClusterCommand::UpgradeCheck => {
            let reports = survey(client, options).await?;
            upgrade::check(client.partition(), format, &reports)
        }
        ClusterCommand::Finalize => upgrade::finalize(client, format).await,
    }
}

async fn init(client: &Client, format: Format, members: Vec<NewNode>) -> Result<(), Failure> {
    let members = members
        .into_iter()
        .map(|node| proto::NodeAddress {
            node_id: node.id,
            peer_address: node.peer_address,
            client_address: node.client_address,
        })
        .collect();
    let answer = client.init_cluster(members).await?;
    output::warn(&answer.warnings);
    match format {
        Format::Json => output::json(&json!({
            "cluster_id": answer.cluster_id,
            "already_formed": answer.already_formed,
            "warnings": answer.warnings,
            "members": answer.members.iter().map(member_json).collect::<Vec<_>>(),
        })),
        Format::Table => output::line(&format!(
            "cluster {} of {} nodes {}",
            answer.cluster_id,
            answer.members.len(),
            if answer.already_formed {
                "was there already"
            } else {
                "is formed"
            }
        )),
    }
}

fn status(partition: u32, format: Format, reports: &[NodeReport]) -> Result<(), Failure> {
    if format == Format::Json {
        output::json(&Value::Array(reports.iter().map(node_json).collect()))?;
    } else {
        let rows = reports.iter().map(|report| status_row(partition, report));
        let columns: [&str; COLUMNS] = [
            "NODE#",
            "ADDRESS",
            "ROLE",
            "TERM#",
            "LEADER#",
            "READY",
            "DRAINED",
            "LAST#",
            "COMMITTED#",
            "APPLIED#",
            "SNAPSHOT#",
            "EVENTS#",
            "SESSIONS#",
            "LEVEL#",
            "READS",
            "VERSION",
        ];
        output::table(&columns, rows)?;
        output::line(&upgrade::Levels::of(partition, reports).line())?;
    }
    if reports.iter().all(|report| report.status.is_err()) {
        return Err(Failure::Unavailable("no node answers".to_owned()));
    }
    Ok(())
}

fn status_row(partition: u32, report: &NodeReport) -> Vec<String> {
    let dash = || "-".to_owned();
    let Ok(node) = &report.status else {
        let mut row = vec![dash(), report.address.clone(), "unreachable".to_owned()];
        row.resize_with(COLUMNS, dash);
        return row;
    };
    let Some(p) = report.partition(partition) else {
        let mut row = vec![
            node.node_id.to_string(),
            report.address.clone(),
            "no partition".into(),
        ];
        row.resize_with(COLUMNS, dash);
        return row;
    };
    vec![
        node.node_id.to_string(),
        report.address.clone(),
        role(p),
        p.term.to_string(),
        p.leader_id.to_string(),
        output::yes_or_no(p.ready),
        output::yes_or_no(node.draining),
        p.last_log_index.to_string(),
        p.committed_log_index.to_string(),
        p.applied_log_index.to_string(),
        p.snapshot_log_index.to_string(),
        p.end_offset.to_string(),
        p.sessions.to_string(),
        upgrade::level(p).to_string(),
        upgrade::in_words(upgrade::range(node)),
        node.version.clone(),
    ]
}

fn role(partition: &proto::PartitionStatus) -> String {
    short_name(partition.role().as_str_name(), "ROLE_")
}

fn node_json(report: &NodeReport) -> Value {
    let node = match &report.status {
        Ok(node) => node,
        Err(error) => return json!({"address": report.address, "error": error.to_string()}),
    };
    let partitions = node.partitions.iter().map(|p| {
        let members = p.members.iter().map(member_json);
        json!({
            "partition": p.partition,
            "role": role(p),
            "term": p.term,
            "leader_id": p.leader_id,
            "ready": p.ready,
            "members": members.collect::<Vec<_>>(),
            "first_log_index": p.first_log_index,
            "last_log_index": p.last_log_index,
            "durable_log_index": p.durable_log_index,
            "committed_log_index": p.committed_log_index,
            "applied_log_index": p.applied_log_index,
            "snapshot_log_index": p.snapshot_log_index,
            "end_offset": p.end_offset,
            "log_time": format_time_if(p.log_time.as_ref()),
            "sessions": p.sessions,
            "feature_level": upgrade::level(p),
            "hunts": p.hunts,
            "digest": hex::encode(&p.digest),
            "digest_log_index": p.digest_log_index,
        })
    });
    json!({
        "address": report.address,
        "node_id": node.node_id,
        "node_uuid": node.node_uuid,
        "cluster_name": node.cluster_name,
        "cluster_id": node.cluster_id,
        "version": node.version,
        "feature_level_min": upgrade::range(node).0,
        "feature_level_max": upgrade::range(node).1,
        "draining": node.draining,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// Whether the nodes of the cluster that is `meant`, that of the first endpoint
/// which belongs to any, are well, and whether there are others among them.
fn health(
    partition: u32,
    format: Format,
    reports: &[NodeReport],
    meant: Option<&str>,
) -> Result<(), Failure> {
    let mut faults = Vec::new();
    let mut leaders = BTreeSet::new();
    for report in reports {
        match (&report.status, report.partition(partition)) {
            (Err(error), _) => faults.push(format!("{}: {error}", report.address)),
            (Ok(status), _) if report.cluster_id().is_some_and(|id| Some(id) != meant) => {
                faults.push(format!(
                    "{}: node {} belongs to another cluster, {}; this one is {}",
                    report.address,
                    status.node_id,
                    status.cluster_id,
                    meant.unwrap_or_default()
                ));
            }
            (Ok(_), None) => faults.push(format!("{}: has no partition", report.address)),
            (Ok(_), Some(p)) => {
                if report.status.as_ref().is_ok_and(|status| status.draining) {
                    faults.push(format!("{}: drained", report.address));
                } else if !p.ready {
                    faults.push(format!("{}: not ready", report.address));
                }
                leaders.insert(p.leader_id);
            }
        }
    }
    if leaders.len() > 1 {
        faults.push(format!("the nodes disagree on the leader: {leaders:?}"));
    } else if leaders.first().is_none_or(|leader| *leader == 0) {
        faults.push("no leader".to_owned());
    }
    let leader = leaders.first().copied().filter(|_| leaders.len() == 1);
    match format {
        Format::Json => output::json(&json!({
            "healthy": faults.is_empty(),
            "nodes": reports.len(),
            "leader_id": leader,
            "faults": faults,
        }))?,
        Format::Table if faults.is_empty() => output::line(&format!(
            "healthy: {} nodes, node {} leads",
            reports.len(),
            leader.unwrap_or_default()
        ))?,
        Format::Table => {
            for fault in &faults {
                output::line(&output::printable(fault))?;
            }
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::Unavailable(format!("{} faults", faults.len())))
    }
}
