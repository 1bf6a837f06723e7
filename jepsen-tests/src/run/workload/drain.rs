//! The end of a key: read whole, from every node's own copy as well, and the
//! subscription to it drained. Without that loss can not be seen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use huntlog_client::{CallError, Client};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::finale::{Finding, names};
use super::super::stage::Stage;
use super::key::Key;
use super::keys::Keys;
use crate::history;

/// Keys that are read at once.
const READERS: usize = 8;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(150);

/// What did not come to its end.
enum Stuck {
    /// A node refuses, and will again.
    Refused(String),
    /// The time was up.
    Late(String),
}

/// Reads every key that was used.
pub(super) async fn drain(keys: &Keys, stage: &Stage, deadline: Instant) -> Vec<Finding> {
    let used = keys.used();
    let next = AtomicUsize::new(0);
    let readers = (0..READERS).map(async |number| {
        let mut random = stage.random(&format!("drain-{number}"));
        let mut stuck = Vec::new();
        while let Some(key) = used.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut reader = Reader {
                key,
                stage,
                client: stage.recorder.client(),
                deadline,
            };
            let node = stage.node(&mut random).client.clone();
            stuck.extend(reader.read_all(node).await.err());
        }
        stuck
    });
    findings(join_all(readers).await.into_iter().flatten().collect())
}

/// What is late is one finding, however many keys are.
fn findings(stuck: Vec<Stuck>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut late = Vec::new();
    for stuck in stuck {
        match stuck {
            Stuck::Refused(what) => findings.push(Finding::NotLive(what)),
            Stuck::Late(what) => late.push(what),
        }
    }
    if !late.is_empty() {
        late.sort();
        findings.push(Finding::NotLive(format!(
            "after healing, these did not come to their end: {}",
            names(&late)
        )));
    }
    findings
}

struct Reader<'a> {
    key: &'a Key,
    stage: &'a Stage,
    client: history::Client,
    deadline: Instant,
}

impl Reader<'_> {
    /// `node` serves the subscription, as long as it answers.
    async fn read_all(&mut self, node: Client) -> Result<(), Stuck> {
        let (key, stage) = (self.key, self.stage);
        let whole = format!("reading {}", key.name);
        let read = async |client: &mut _| key.read(client, &stage.client, None, None).await;
        // What was acknowledged and is not in this read is lost, which the checkers
        // see; nobody waits for it to appear elsewhere.
        let end = self.until_read(&whole, read).await?;
        let mut subscription = key.subscription(&node);
        let polling = format!("the subscription to {}", key.name);
        while key.delivered() < end.map_or(0, |place| place.in_key + 1) {
            // A poll that finds nothing new comes back within a second.
            let poll = key.poll(&mut self.client, &mut subscription);
            match timeout_at(self.deadline, poll).await {
                Ok(answered) => match stage.heard_call(answered) {
                    Ok(()) => {}
                    Err(error @ CallError::Refused(_)) => {
                        return Err(Stuck::Refused(format!("{polling}: {error}")));
                    }
                    Err(_) => {
                        sleep(PAUSE).await;
                        subscription = key.subscription(&stage.client);
                    }
                },
                Err(_) => return Err(Stuck::Late(polling)),
            }
        }
        // Last, so that a node that does not answer keeps nothing else from its end.
        for node in stage.nodes() {
            let own = format!("reading {} from node {}'s own copy", key.name, node.id);
            let read = async |client: &mut _| key.stale_read(client, &node, None, end).await;
            self.until_read(&own, read).await?;
        }
        Ok(())
    }

    /// Tries until it is answered or refused for good, or the time is up.
    async fn until_read<T>(
        &mut self,
        what: &str,
        mut read: impl AsyncFnMut(&mut history::Client) -> Result<T, CallError>,
    ) -> Result<T, Stuck> {
        loop {
            let answer = timeout_at(self.deadline, read(&mut self.client)).await;
            let answer = answer.map(|answer| self.stage.heard_call(answer));
            match answer {
                Ok(Ok(read)) => return Ok(read),
                Ok(Err(error @ CallError::Refused(_))) => {
                    return Err(Stuck::Refused(format!("{what}: {error}")));
                }
                Ok(Err(_)) => sleep(PAUSE).await,
                Err(_) => return Err(Stuck::Late(what.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_named_in_one_finding() {
        let late = |key: u32| Stuck::Late(format!("reading h0-{key}"));
        let mut stuck: Vec<Stuck> = (0..100).map(late).collect();
        stuck.push(Stuck::Refused("reading h1-0: DAMAGED".to_owned()));
        let findings = findings(stuck);
        assert_eq!(findings.len(), 2, "{findings:?}");
        let said = findings[1].to_string();
        assert!(
            said.contains("reading h0-0") && said.contains("more"),
            "{said}"
        );
    }
}
