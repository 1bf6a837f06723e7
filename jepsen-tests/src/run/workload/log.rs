//! Workload `log`: producers append through the client library, batches are sent
//! again behind its back, every node is read.

use std::collections::VecDeque;
use std::sync::Arc;

use huntlog_client::Producer;
use huntlog_client::proto::{self, AppendRequest};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::super::stage::{Pace, Stage};
use super::batch::{BATCH_MAX, Batch, events};
use super::clients::Clients;
use super::key::{Key, Place};
use super::keys::{Keys, Lane};
use super::{SetupError, enough_ops, workers};
use crate::history::{Append, Client, Op};

/// Keys that are in use at once.
const LANES: usize = 4;
/// Acknowledged batches of a producer that may be sent again: fewer than the
/// cluster keeps outcomes of.
const RESENT_AMONG: usize = 16;

#[derive(Debug)]
pub(super) struct Log {
    pub(super) keys: Keys,
    rate: u32,
}

impl Log {
    pub(super) fn new(stage: &Stage, rate: u32) -> Self {
        Self {
            keys: Keys::new("h", LANES, enough_ops(stage, rate)),
            rate,
        }
    }

    pub(super) async fn start(
        &self,
        stage: &Arc<Stage>,
        clients: &mut Clients,
    ) -> Result<(), SetupError> {
        self.keys.start(stage, clients).await?;
        let workers = workers(self.rate);
        for number in 0..workers {
            let worker = Worker {
                stage: Arc::clone(stage),
                clients: (0..BATCH_MAX).map(|_| stage.recorder.client()).collect(),
                random: stage.random(&format!("log-{number}")),
                name: format!("p{number}"),
                openings: 0,
                session: None,
            };
            let pace = Pace::new(self.rate, workers);
            let name = worker.name.clone();
            clients.spawn(name, worker.run(self.keys.lane(number), pace));
        }
        Ok(())
    }
}

struct Worker {
    stage: Arc<Stage>,
    /// As many as a batch has values; the first reads as well.
    clients: Vec<Client>,
    random: SmallRng,
    name: String,
    openings: u32,
    session: Option<Session>,
}

/// A producer, and what was acknowledged to it lately.
struct Session {
    producer: Producer,
    acknowledged: VecDeque<Vec<Append>>,
    last: u64,
}

impl Worker {
    async fn run(mut self, lane: Arc<Lane>, mut pace: Pace) {
        while pace.next(&self.stage).await {
            let turn = self.random.random_range(0..100);
            let count = match turn {
                35.. => self.batch_size(),
                _ => 1,
            };
            let Some(key) = lane.next(count) else {
                return;
            };
            match turn {
                0..15 => self.read(&key).await,
                15..25 => self.stale_read(&key).await,
                25..35 => self.resend(&mut pace).await,
                _ => {
                    self.append(&key, count).await;
                    pace.took(count);
                }
            }
        }
    }

    /// One value more often than not, so that not all wait for large batches.
    fn batch_size(&mut self) -> usize {
        match self.random.random_range(0..4) {
            0 => self.random.random_range(2..=BATCH_MAX),
            _ => 1,
        }
    }

    /// Where a read begins: near the end as a rule, and now and then it is whole.
    fn start(&mut self, known: Option<Place>) -> Option<Place> {
        known.filter(|_| self.random.random_range(0..4) > 0)
    }

    async fn read(&mut self, key: &Key) {
        let node = self.stage.node(&mut self.random);
        let from = self.start(key.known());
        let client = &mut self.clients[0];
        let read = key.read(client, &node.client, Some(node.id), from).await;
        // What came of it is in the history.
        let _ = self.stage.heard_call(read);
    }

    async fn stale_read(&mut self, key: &Key) {
        let node = self.stage.node(&mut self.random);
        let known = key.known();
        let from = self.start(known);
        let client = &mut self.clients[0];
        let read = key.stale_read(client, &node, from, known).await;
        // As above.
        let _ = self.stage.heard_call(read);
    }

    /// The session, opened under a new name after one of its batches failed or
    /// is of unknown fate.
    async fn session(&mut self) -> Option<&mut Session> {
        if self.session.is_none() {
            let name = format!("{}-{}", self.name, self.openings);
            self.openings += 1;
            let opened = self.stage.client.session(&name).await;
            let producer = self.stage.heard_call(opened).ok()?;
            self.session = Some(Session {
                producer,
                acknowledged: VecDeque::new(),
                last: 0,
            });
        }
        self.session.as_mut()
    }

    /// Appends a batch of `count` new values.
    async fn append(&mut self, key: &Key, count: usize) {
        if self.session().await.is_none() {
            return;
        }
        let session = self.session.as_mut().expect("just opened");
        let seq = session.last + 1;
        let append = |_| Append {
            key: key.name.clone(),
            producer: session.producer.session().to_owned(),
            seq,
            v: self.stage.value(),
            epoch: None,
            batch: (count > 1).then_some(count as u64),
            offset: None,
        };
        let appends: Vec<Append> = (0..count).map(append).collect();
        let events = events(&appends);
        let batch = Batch::invoke(&mut self.clients, appends, Op::Append);
        let answer = match session.producer.append_at(seq, events, Vec::new()).await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        match self.stage.heard_append(answer) {
            Ok(appended) => {
                let Some((appends, last)) = batch.answered(appended.outcomes.as_ref()) else {
                    self.session = None;
                    return;
                };
                session.last = seq;
                session.acknowledged.push_back(appends);
                if session.acknowledged.len() > RESENT_AMONG {
                    session.acknowledged.pop_front();
                }
                key.note(last);
            }
            Err(error) => {
                batch.unacknowledged(&error);
                self.session = None;
            }
        }
    }

    /// Sends an acknowledged batch once more, whole, to any node, as a network does
    /// that delivers twice.
    async fn resend(&mut self, pace: &mut Pace) {
        let Some(session) = &self.session else {
            return;
        };
        if session.acknowledged.is_empty() {
            return;
        }
        let chosen = self.random.random_range(0..session.acknowledged.len());
        let mut appends = session.acknowledged[chosen].clone();
        for append in &mut appends {
            append.offset = None;
        }
        pace.took(appends.len());
        let request = AppendRequest {
            partition: 0,
            batch: Some(proto::Batch {
                session: appends[0].producer.clone(),
                epoch: session.producer.epoch(),
                sequence: appends[0].seq,
                events: events(&appends),
                expected_revisions: Vec::new(),
            }),
        };
        let node = self.stage.node(&mut self.random);
        let batch = Batch::invoke(&mut self.clients, appends, Op::Resend);
        let answer = node.events().append(request).await;
        match self.stage.heard_status(answer) {
            // What it was answered is in the history.
            Ok(response) => drop(batch.answered(Some(&response.into_inner().outcomes))),
            Err(status) => batch.unknown(status),
        }
    }
}
