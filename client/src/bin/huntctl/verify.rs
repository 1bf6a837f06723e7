//! Comparing what every node holds with what a ledger says was acknowledged.
//!
//! Each node is read on its own, from its own copy (a stale read that waits
//! for the end the cluster has reached). Checked for each:
//!
//! - every acknowledged event is at its offset, unchanged (I2);
//! - no batch occurs twice: a session's events come in sequence order, each
//!   batch within one log entry, with as many events as were accepted (I3, I5);
//! - what was said not to be applied is not there (I10);
//! - offsets have no gaps (I5; the reader sees to that);
//! - and between the nodes: the same content, and equal digests at an equal
//!   applied index (I7).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use huntlog_client::{Client, ClientOptions, proto};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::cluster::{NodeReport, only, survey};
use crate::failure::Failure;
use crate::ledger::{self, AcknowledgedBatch, Record, fingerprint};
use crate::output::{self, Format};
use crate::progress;

/// Faults told one by one, for each node.
const TOLD: usize = 10;

/// The ledger, indexed for comparison.
struct Ledger {
    hunt: String,
    partition: u32,
    /// By offset: the batch and the fingerprint of the event.
    events: BTreeMap<u64, (usize, String)>,
    batches: Vec<AcknowledgedBatch>,
    by_name: HashMap<(String, u64), usize>,
    not_applied: HashSet<(String, u64)>,
}

impl Ledger {
    fn read(path: &Path) -> Result<Self, Failure> {
        let mut ledger = Self {
            hunt: String::new(),
            partition: 0,
            events: BTreeMap::new(),
            batches: Vec::new(),
            by_name: HashMap::new(),
            not_applied: HashSet::new(),
        };
        for record in ledger::read(path)? {
            match record {
                Record::Run {
                    hunt, partition, ..
                } => {
                    ledger.hunt = hunt;
                    ledger.partition = partition;
                }
                Record::Batch(batch) => {
                    let index = ledger.batches.len();
                    for (offset, print) in &batch.accepted {
                        ledger.events.insert(*offset, (index, print.clone()));
                    }
                    let name = (batch.session.clone(), batch.sequence);
                    ledger.by_name.insert(name, index);
                    ledger.batches.push(batch);
                }
                Record::Failed {
                    session,
                    sequence,
                    not_applied,
                } => {
                    if not_applied {
                        ledger.not_applied.insert((session, sequence));
                    }
                }
            }
        }
        Ok(ledger)
    }

    fn acknowledged(&self) -> u64 {
        self.batches.iter().map(|batch| batch.events as u64).sum()
    }
}

/// What one node's copy is like.
#[derive(Debug, Default)]
struct Findings {
    events: u64,
    lost: u64,
    duplicated: u64,
    unexpected: u64,
    content: String,
    faults: Vec<String>,
}

impl Findings {
    fn tell(&mut self, fault: String) {
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        }
    }
}

pub async fn run(
    client: &Client,
    options: &ClientOptions,
    format: Format,
    path: &Path,
) -> Result<(), Failure> {
    let ledger = Ledger::read(path)?;
    let reports = survey(client, options).await?;
    for report in &reports {
        if let Err(error) = &report.status {
            return Err(Failure::Unavailable(format!("{}: {error}", report.address)));
        }
    }
    let end = common_end(client, &ledger).await?;
    let mut nodes = Vec::new();
    for report in &reports {
        let findings = examine(&report.address, options, &ledger, end).await?;
        nodes.push((report, findings));
    }
    let digests = compare_digests(client, options, ledger.partition).await?;
    report(format, &ledger, end, &nodes, &digests)
}

/// Everything below it is to be on every node.
async fn common_end(client: &Client, ledger: &Ledger) -> Result<u64, Failure> {
    let acknowledged = ledger
        .events
        .last_key_value()
        .map_or(0, |(last, _)| last + 1);
    // The end the leader confirms with a quorum, not what a node believes.
    let mut reader = client.read(proto::ReadRequest {
        from_offset: acknowledged,
        max_events: 1,
        ..Default::default()
    });
    match reader.next_page().await {
        Ok(_) => Ok(reader
            .end_offset()
            .unwrap_or(acknowledged)
            .max(acknowledged)),
        // The cluster ends before what was acknowledged: each node is to be
        // read as far as it goes, and will be found lacking.
        Err(huntlog_client::CallError::Refused(refusal))
            if refusal.reason == huntlog_client::Reason::OutOfRange =>
        {
            Ok(acknowledged)
        }
        Err(error) => Err(error.into()),
    }
}

async fn examine(
    address: &str,
    options: &ClientOptions,
    ledger: &Ledger,
    end: u64,
) -> Result<Findings, Failure> {
    let mut findings = Findings::default();
    if end == 0 {
        return Ok(findings);
    }
    let node = only(address, options)?;
    let stale = proto::Stale { min_offset: end };
    let mut reader = node.read(proto::ReadRequest {
        max_events: end,
        consistency: Some(proto::Consistency {
            level: Some(proto::consistency::Level::Stale(stale)),
        }),
        ..Default::default()
    });
    let bar = progress::bar(end, "verify");
    let mut content = Sha256::new();
    let mut sessions: HashMap<String, (u64, u64)> = HashMap::new();
    let mut seen = vec![0_usize; ledger.batches.len()];
    loop {
        let page = reader.next_page().await;
        let page = page.map_err(|error| Failure::from(error).during(address))?;
        let Some(page) = page else {
            break;
        };
        bar.inc(page.len() as u64);
        for event in page {
            findings.events += 1;
            content.update(event.encode_to_vec());
            compare(ledger, &event, &mut seen, &mut sessions, &mut findings);
        }
    }
    bar.finish_and_clear();
    for (offset, _) in ledger.events.range(findings.events..) {
        findings.lost += 1;
        findings.tell(format!("offset {offset}: lost, the node ends before it"));
    }
    for (batch, seen) in ledger.batches.iter().zip(seen) {
        let most = if batch.outcomes_known {
            batch.accepted.len()
        } else {
            batch.events
        };
        if seen > most {
            findings.duplicated += (seen - most) as u64;
            findings.tell(format!(
                "session {}, batch {}: {seen} events in the log, {most} accepted",
                batch.session, batch.sequence
            ));
        }
    }
    findings.content = hex::encode(content.finalize());
    Ok(findings)
}

fn compare(
    ledger: &Ledger,
    event: &proto::CommittedEvent,
    seen: &mut [usize],
    sessions: &mut HashMap<String, (u64, u64)>,
    findings: &mut Findings,
) {
    let (session, sequence, offset) = (&event.session, event.sequence, event.offset);
    if let Some((batch, print)) = ledger.events.get(&offset) {
        let batch = &ledger.batches[*batch];
        let same = batch.session == *session
            && batch.sequence == sequence
            && event.event.as_ref().map(fingerprint).as_ref() == Some(print);
        if !same {
            findings.lost += 1;
            findings.tell(format!(
                "offset {offset}: acknowledged as of session {}, batch {}; the log has another event of session {session}, batch {sequence}",
                batch.session, batch.sequence
            ));
        }
    }
    if session.is_empty() {
        return;
    }
    let place = (sequence, event.log_index);
    match sessions.get_mut(session) {
        // The same batch again, or one that came before: applied twice.
        Some(last) if sequence <= last.0 && place != *last => {
            findings.duplicated += 1;
            findings.tell(format!(
                "offset {offset}: session {session}, batch {sequence} after batch {}",
                last.0
            ));
        }
        Some(last) => *last = place,
        None => {
            sessions.insert(session.clone(), place);
        }
    }
    let name = (session.clone(), sequence);
    if let Some(batch) = ledger.by_name.get(&name) {
        seen[*batch] += 1;
    } else if ledger.not_applied.contains(&name) {
        findings.unexpected += 1;
        findings.tell(format!(
            "offset {offset}: session {session}, batch {sequence} was said not to be applied"
        ));
    }
}

/// The digests of all nodes at one applied index that all have reached.
async fn compare_digests(
    client: &Client,
    options: &ClientOptions,
    partition: u32,
) -> Result<Value, Failure> {
    let deadline = Instant::now() + options.timeout;
    let mut observed: BTreeMap<u64, BTreeMap<u64, String>> = BTreeMap::new();
    loop {
        let reports = survey(client, options).await?;
        for report in &reports {
            if let Some((node, index, digest)) = digest_of(report, partition) {
                observed.entry(index).or_default().insert(node, digest);
            }
        }
        let complete = observed
            .iter()
            .rev()
            .find(|(_, nodes)| nodes.len() == reports.len());
        if let Some((index, nodes)) = complete {
            let first = nodes.values().next();
            let equal = nodes.values().all(|digest| Some(digest) == first);
            return Ok(json!({"log_index": index, "equal": equal, "nodes": nodes}));
        }
        if Instant::now() >= deadline {
            return Err(Failure::Unavailable(
                "the nodes were not seen at one applied index in time; is something still writing?"
                    .to_owned(),
            ));
        }
        // A follower learns of the last commit with the next heartbeat.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn digest_of(report: &NodeReport, partition: u32) -> Option<(u64, u64, String)> {
    let node = report.status.as_ref().ok()?.node_id;
    let partition = report.partition(partition)?;
    let digest = hex::encode(&partition.digest);
    Some((node, partition.digest_log_index, digest))
}

fn report(
    format: Format,
    ledger: &Ledger,
    end: u64,
    nodes: &[(&NodeReport, Findings)],
    digests: &Value,
) -> Result<(), Failure> {
    let sum = |of: fn(&Findings) -> u64| nodes.iter().map(|(_, f)| of(f)).sum::<u64>();
    let (lost, duplicated) = (sum(|f| f.lost), sum(|f| f.duplicated));
    let unexpected = sum(|f| f.unexpected);
    let first = nodes.first().map(|(_, findings)| &findings.content);
    let same_content = nodes.iter().all(|(_, f)| Some(&f.content) == first);
    let digests_equal = digests["equal"] == true;
    match format {
        Format::Json => {
            let nodes = nodes.iter().map(|(node, f)| {
                json!({
                    "address": node.address,
                    "events": f.events,
                    "lost": f.lost,
                    "duplicated": f.duplicated,
                    "unexpected": f.unexpected,
                    "content_sha256": f.content,
                    "faults": f.faults,
                })
            });
            output::json(&json!({
                "hunt": ledger.hunt,
                "acknowledged": ledger.acknowledged(),
                "end_offset": end,
                "lost": lost,
                "duplicated": duplicated,
                "unexpected": unexpected,
                "same_content": same_content,
                "digests": digests,
                "nodes": nodes.collect::<Vec<_>>(),
            }))?;
        }
        Format::Table => {
            for (node, findings) in nodes {
                output::line(&format!(
                    "{}: {} events read back, lost = {}, duplicated = {}",
                    node.address, findings.events, findings.lost, findings.duplicated
                ))?;
                for fault in &findings.faults {
                    output::line(&format!("  {}", output::printable(fault)))?;
                }
            }
            output::line(&format!(
                "acknowledged {}, lost = {lost}, duplicated = {duplicated}, unexpected = {unexpected}",
                ledger.acknowledged()
            ))?;
            output::line(&format!(
                "content {}, digests {} at log index {}",
                if same_content { "equal" } else { "DIFFERENT" },
                if digests_equal { "equal" } else { "DIFFERENT" },
                digests["log_index"]
            ))?;
        }
    }
    if lost + duplicated + unexpected > 0 || !same_content || !digests_equal {
        return Err(Failure::Refused(
            "the nodes do not hold exactly what was acknowledged".to_owned(),
        ));
    }
    Ok(())
}
