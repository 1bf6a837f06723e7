//! Workload `log`: producers append through the client library, batches are sent
//! again behind its back, every node is read.

use std::collections::VecDeque;
use std::sync::Arc;

use huntlog_client::Producer;
use huntlog_client::proto::{AppendRequest, Batch};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use super::super::stage::{Pace, Stage};
use super::keys::{Key, Keys, Lane, Place, value_event};
use super::{SetupError, accepted, enough_ops, unacknowledged, workers};
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
        tasks: &mut JoinSet<()>,
    ) -> Result<(), SetupError> {
        self.keys.start(stage, tasks).await?;
        let workers = workers(self.rate);
        for number in 0..workers {
            let worker = Worker {
                stage: Arc::clone(stage),
                client: stage.recorder.client(),
                random: stage.random(&format!("log-{number}")),
                name: format!("p{number}"),
                openings: 0,
                session: None,
            };
            let pace = Pace::new(self.rate, workers);
            tasks.spawn(worker.run(self.keys.lane(number), pace));
        }
        Ok(())
    }
}

struct Worker {
    stage: Arc<Stage>,
    client: Client,
    random: SmallRng,
    name: String,
    openings: u32,
    session: Option<Session>,
}

/// A producer, and what was acknowledged to it lately.
struct Session {
    producer: Producer,
    acknowledged: VecDeque<Append>,
    last: u64,
}

impl Worker {
    async fn run(mut self, lane: Arc<Lane>, mut pace: Pace) {
        while pace.next(&self.stage).await {
            let Some(key) = lane.next() else {
                return;
            };
            match (self.random.random_range(0..100), key.known()) {
                (0..15, known) => self.read(&key, known).await,
                (15..25, Some(known)) => {
                    let node = self.stage.node(&mut self.random);
                    key.stale_read(&mut self.client, &node.client, node.id, known)
                        .await;
                }
                (25..35, _) => self.resend().await,
                _ => self.append(&key).await,
            }
        }
    }

    async fn read(&mut self, key: &Key, known: Option<Place>) {
        let node = self.stage.node(&mut self.random);
        key.read(&mut self.client, &node.client, Some(node.id), known)
            .await;
    }

    /// The session, opened under a new name after one of its batches failed or
    /// is of unknown fate.
    async fn session(&mut self) -> Option<&mut Session> {
        if self.session.is_none() {
            let name = format!("{}-{}", self.name, self.openings);
            self.openings += 1;
            let producer = self.stage.client.session(&name).await.ok()?;
            self.session = Some(Session {
                producer,
                acknowledged: VecDeque::new(),
                last: 0,
            });
        }
        self.session.as_mut()
    }

    async fn append(&mut self, key: &Key) {
        let v = self.stage.value();
        let Some(session) = self.session().await else {
            return;
        };
        let mut append = Append {
            key: key.name.clone(),
            producer: session.producer.session().to_owned(),
            seq: session.last + 1,
            v,
            epoch: None,
            batch: None,
            offset: None,
        };
        let session = self.session.as_mut().expect("just opened");
        let open = self.client.invoke(Op::Append(append.clone()));
        let event = value_event(&key.name, v);
        let submitted = session
            .producer
            .append_at(append.seq, vec![event], Vec::new());
        let answer = match submitted.await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(appended) => match accepted(appended.outcomes.as_ref()) {
                Some(accepted) => {
                    let place = Place::of(accepted);
                    append.offset = Some(place.in_key);
                    session.last = append.seq;
                    session.acknowledged.push_back(append.clone());
                    if session.acknowledged.len() > RESENT_AMONG {
                        session.acknowledged.pop_front();
                    }
                    open.ok(Op::Append(append));
                    key.note(place);
                }
                None => {
                    open.info(format!("answered {:?}", appended.outcomes));
                    self.session = None;
                }
            },
            Err(error) => {
                unacknowledged(open, &error);
                self.session = None;
            }
        }
    }

    /// Sends an acknowledged batch once more, to any node, as a network does that
    /// delivers twice.
    async fn resend(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        if session.acknowledged.is_empty() {
            return;
        }
        let chosen = self.random.random_range(0..session.acknowledged.len());
        let mut append = session.acknowledged[chosen].clone();
        append.offset = None;
        let request = AppendRequest {
            partition: 0,
            batch: Some(Batch {
                session: append.producer.clone(),
                epoch: session.producer.epoch(),
                sequence: append.seq,
                events: vec![value_event(&append.key, append.v)],
                expected_revisions: Vec::new(),
            }),
        };
        let node = self.stage.node(&mut self.random);
        let open = self.client.invoke(Op::Resend(append.clone()));
        match node.events().append(request).await {
            Ok(response) => {
                let response = response.into_inner();
                match accepted(Some(&response.outcomes)) {
                    Some(accepted) => {
                        append.offset = Some(Place::of(accepted).in_key);
                        open.ok(Op::Resend(append));
                    }
                    None => open.info(format!("answered {response:?}")),
                }
            }
            Err(status) => open.info(status),
        }
    }
}
