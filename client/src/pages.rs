//! Streams of answers, made again at another node where one breaks off.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Response, Status, Streaming};

use crate::backoff::Backoff;
use crate::cluster::{Attempt, Cluster};
use crate::error::{CallError, Refusal};
use crate::limits;
use crate::status::{is_transient, transport_refusal};

#[derive(Debug)]
pub(crate) enum Page<M> {
    Message(M),
    /// The node ended the stream as agreed.
    End,
}

async fn in_time<T>(
    cluster: &Cluster,
    address: &str,
    wait: Duration,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(wait, future).await {
        Ok(result) => result.map_err(|status| cluster.refusal_of(address, &status)),
        Err(_) => {
            let wait = wait.as_millis();
            Err(transport_refusal(format!(
                "{address} sent nothing for {wait} ms"
            )))
        }
    }
}

#[derive(Debug)]
pub(crate) struct Pages<M> {
    cluster: Arc<Cluster>,
    stream: Option<Streaming<M>>,
    address: Arc<str>,
    backoff: Backoff,
    attempts: u32,
}

impl<M> Pages<M> {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            address: cluster.target(),
            backoff: cluster.backoff(),
            cluster,
            stream: None,
            attempts: 0,
        }
    }

    /// The next message, from a stream made by `make` where there is none.
    /// Gives up when no message has come for the client's time-out.
    pub(crate) async fn next<F>(
        &mut self,
        make: impl Fn(Attempt) -> F,
    ) -> Result<Page<M>, CallError>
    where
        F: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let deadline = self.cluster.now() + self.cluster.options.timeout;
        loop {
            match self.step(&make).await {
                Ok(page) => {
                    self.attempts = 0;
                    self.backoff.reset();
                    return Ok(page);
                }
                Err(refusal) => self.recover(refusal, deadline).await?,
            }
        }
    }

    async fn step<F>(&mut self, make: &impl Fn(Attempt) -> F) -> Result<Page<M>, Refusal>
    where
        F: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let wait = self.cluster.options.answer_timeout;
        if self.stream.is_none() {
            self.address = self.cluster.target();
            self.attempts += 1;
            let (cluster, address) = (&self.cluster, &self.address);
            let made = async {
                cluster.introduce(address, wait).await?;
                make(cluster.attempt(address, wait)).await
            };
            let response = in_time(cluster, address, wait, made).await?;
            let checked = cluster.check_headers(address, response.metadata());
            checked.map_err(|foreign| *foreign)?;
            // Where the leader is does not matter to a read: any node serves.
            self.stream = Some(response.into_inner());
        }
        let stream = self.stream.as_mut().expect("made above");
        // A stream that has nothing to bring says so every second.
        let wait = wait.max(limits::STREAM_SILENCE_MIN);
        let message = in_time(&self.cluster, &self.address, wait, stream.message()).await?;
        self.cluster.succeeded(&self.address);
        Ok(message.map_or_else(
            || {
                self.stream = None;
                Page::End
            },
            Page::Message,
        ))
    }

    async fn recover(&mut self, refusal: Refusal, deadline: Duration) -> Result<(), CallError> {
        self.stream = None;
        self.cluster.judge_failure(&self.address, &refusal);
        if !is_transient(&refusal) || self.cluster.is_final(&refusal) {
            return Err(CallError::Refused(Arc::new(refusal)));
        }
        let delay = self.backoff.next(refusal.retry_after);
        if self.cluster.now() + delay >= deadline {
            return Err(CallError::Unavailable {
                timeout: self.cluster.options.timeout,
                attempts: self.attempts,
                last: self.cluster.last_word(refusal),
            });
        }
        tracing::debug!(node = %self.address, %refusal, ?delay, "stream of events broken off");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// The error for a message that breaks the contract.
    pub(crate) fn broken(&mut self, fault: String) -> CallError {
        self.stream = None;
        CallError::Protocol {
            node: self.address.to_string(),
            fault,
        }
    }
}

impl<M> Pages<M> {
    /// Waits a little before a stream that ended is made again, so that a node
    /// which ends each at once is not called in a loop.
    pub(crate) async fn pause(&mut self) {
        self.cluster.pass_over(&self.address);
        let delay = self.backoff.next(None);
        tokio::time::sleep(delay).await;
    }
}
