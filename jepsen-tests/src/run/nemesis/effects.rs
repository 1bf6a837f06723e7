//! Whether a fault has an effect: one that has none did not land.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Injector;
use super::faults::{FaultError, Hold, Injected};
use crate::metrics::gauge;

/// Between two looks: nobody tells when it has come about.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to answer for its metrics.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How far a clock is from the others', as the node finds it.
const SKEW: &str = "huntlog_clock_skew_seconds";
/// How much that may differ from what the harness has set it to.
const SKEW_SLACK_SECONDS: f64 = 5.0;

impl Injector {
    /// Waits until its effect shows; false if it does not until then.
    pub(super) async fn has_effect(
        &mut self,
        injected: &Injected,
        until: Instant,
    ) -> Result<bool, FaultError> {
        if let Hold::Empty(_) = injected.hold {
            return Ok(self.meets_the_others(injected.nodes[0]).await);
        }
        loop {
            if self.shows(injected).await? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }

    async fn shows(&self, injected: &Injected) -> Result<bool, FaultError> {
        match &injected.hold {
            // They are seen to their end, or seen when they are taken back.
            Hold::Nothing
            | Hold::Restarting
            | Hold::Ended
            | Hold::Paused
            | Hold::Empty(_)
            | Hold::Flipped { named: true, .. } => Ok(true),
            Hold::Rules | Hold::Flapping => Ok(self.dropped_frames()? > 0),
            Hold::SlowLinks => Ok(self.links.as_ref().is_some_and(|links| links.delayed() > 0)),
            Hold::Clock(_, seconds) => Ok(self.clock_is_off(injected.nodes[0], *seconds).await),
            Hold::Slow(injection) => Ok(injection.count() > 0),
            Hold::Lie(injections) => Ok(injections.iter().any(|one| one.count() > 0)),
            // The damage is either named or keeps the node from running.
            Hold::Failing(_) | Hold::Ballast(_) | Hold::Flipped { named: false, .. } => {
                let mut cluster = self.cluster.lock().await;
                let node = cluster.find(injected.nodes[0]);
                Ok(node.is_some_and(|node| node.has_ended()))
            }
        }
    }

    async fn clock_is_off(&self, id: u64, by_seconds: i32) -> bool {
        let address = {
            let mut cluster = self.cluster.lock().await;
            cluster.find(id).map(|node| node.spec().admin_address())
        };
        let Some(address) = address else {
            return false;
        };
        // A node that does not answer shows nothing.
        let metrics = timeout(ANSWER_LIMIT, metrics(&address)).await;
        let metrics = metrics.ok().and_then(Result::ok).unwrap_or_default();
        gauge(&metrics, SKEW)
            .is_some_and(|seconds| (seconds - f64::from(by_seconds)).abs() <= SKEW_SLACK_SECONDS)
    }
}

/// What a node measures, as text.
async fn metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
