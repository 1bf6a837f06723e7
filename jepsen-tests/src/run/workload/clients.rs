//! The running clients of a workload, by name.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::super::finale::{Finding, names};

/// Clients that run until they are told to stop.
#[derive(Debug, Default)]
pub(super) struct Clients {
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Clients {
    /// Starts the client `name`.
    pub(super) fn spawn(
        &mut self,
        name: impl Into<String>,
        client: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(client);
        self.names.insert(task.id(), name.into());
    }

    /// Lets each end what it has begun. Those that have not by the deadline are
    /// named and ended: what they had begun is of unknown fate.
    pub(super) async fn finish(&mut self, deadline: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        while let Ok(Some(ended)) = timeout_at(deadline, self.tasks.join_next_with_id()).await {
            let id = match &ended {
                Ok((id, ())) => *id,
                Err(error) => error.id(),
            };
            let name = self.names.remove(&id).unwrap_or_default();
            if let Err(error) = ended {
                findings.push(Finding::Harness(format!("{name} ended badly: {error}")));
            }
        }
        if !self.tasks.is_empty() {
            let mut left: Vec<String> = self.names.drain().map(|(_, name)| name).collect();
            left.sort();
            findings.push(Finding::NotLive(format!(
                "after healing, these did not come to the end of what they had begun: {}",
                names(&left)
            )));
            self.tasks.shutdown().await;
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Kind, Op, Read, Recorder};

    #[tokio::test(start_paused = true)]
    async fn one_that_never_ends_is_named_at_the_deadline_and_ended() {
        let recorder = Recorder::new(|| 0);
        let mut client = recorder.client();
        let mut clients = Clients::default();
        clients.spawn("quick", async {});
        clients.spawn("stuck", async move {
            let _open = client.invoke(Op::Read(Read::default()));
            std::future::pending().await
        });
        let findings = clients
            .finish(Instant::now() + Duration::from_secs(60))
            .await;
        let [Finding::NotLive(what)] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert!(what.contains("stuck") && !what.contains("quick"), "{what}");
        let history = recorder.history();
        let last = history.events().last().expect("an end");
        assert_eq!(last.kind, Kind::Info, "its operation is of unknown fate");
    }
}
