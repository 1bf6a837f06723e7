//! Workload `sessions`: several programs take one session from each other, crash
//! in the middle of an append, go on under epochs that are fenced. They speak the
//! wire's own messages: the client library would see to it that they do not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use huntlog_client::proto::{AppendRequest, AppendResponse, Batch, OpenSessionRequest};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::stage::{Pace, Stage};
use super::clients::Clients;
use super::key::{Key, Place, value_event};
use super::keys::{Keys, Lane};
use super::{SetupError, accepted, enough_ops, workers};
use crate::history::{Append, Client, Op, Open};

const LANES: usize = 4;
/// Programs that contend for one session.
const CONTENDERS: u32 = 2;
/// Appends under one epoch, at most.
const APPENDS_PER_OPENING: u32 = 40;
/// How long a program tries one append, or one opening.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) keys: Keys,
    rate: u32,
}

impl Sessions {
    pub(super) fn new(stage: &Stage, rate: u32) -> Self {
        Self {
            keys: Keys::new("s", LANES, enough_ops(stage, rate)),
            rate,
        }
    }

    pub(super) async fn start(
        &self,
        stage: &Arc<Stage>,
        clients: &mut Clients,
    ) -> Result<(), SetupError> {
        self.keys.start(stage, clients).await?;
        let programs = workers(self.rate).next_multiple_of(CONTENDERS);
        for number in 0..programs {
            let program = Program {
                stage: Arc::clone(stage),
                client: stage.recorder.client(),
                random: stage.random(&format!("session-{number}")),
                session: format!("shared-{}", number / CONTENDERS),
            };
            // All contenders for a session write to one lane, so that what they
            // append meets in the same keys.
            let lane = self.keys.lane(number / CONTENDERS);
            let name = format!("program {number} of {}", program.session);
            clients.spawn(name, program.run(lane, Pace::new(self.rate, programs)));
        }
        Ok(())
    }
}

struct Program {
    stage: Arc<Stage>,
    client: Client,
    random: SmallRng,
    session: String,
}

/// What became of a batch over all attempts.
enum Sent {
    Answered(AppendResponse),
    /// Refused, and no attempt before can have been applied.
    NotApplied(Status),
    Unknown(String),
}

impl Program {
    async fn run(mut self, lane: Arc<Lane>, mut pace: Pace) {
        while pace.next(&self.stage).await {
            let Some((epoch, mut last)) = self.open().await else {
                continue;
            };
            for _ in 0..self.random.random_range(1..=APPENDS_PER_OPENING) {
                let key = match lane.next(1) {
                    Some(key) if pace.next(&self.stage).await => key,
                    _ => return,
                };
                if !self.append(&key, epoch, last + 1).await {
                    break;
                }
                last += 1;
            }
        }
    }

    async fn open(&mut self) -> Option<(u64, u64)> {
        let request = OpenSessionRequest {
            partition: 0,
            session: self.session.clone(),
            nonce: Bytes::from(self.random.random::<[u8; 16]>().to_vec()),
            epoch: 0,
        };
        let mut open = Open {
            producer: self.session.clone(),
            ..Open::default()
        };
        let invoked = self.client.invoke(Op::Open(open.clone()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let node = self.stage.node(&mut self.random);
            let answer = node.events().open_session(request.clone()).await;
            match self.stage.heard_status(answer) {
                Ok(response) => {
                    let opened = response.into_inner();
                    open.epoch = Some(opened.epoch);
                    open.last = Some(opened.last_sequence);
                    open.fresh = Some(opened.fresh);
                    invoked.ok(Op::Open(open));
                    return Some((opened.epoch, opened.last_sequence));
                }
                Err(status) if Instant::now() < deadline && is_transient(&status) => {
                    sleep(Duration::from_millis(self.random.random_range(10..100))).await;
                }
                Err(status) => {
                    invoked.info(status);
                    return None;
                }
            }
        }
    }

    /// Appends a new value under this number; false when the program has to open
    /// its session again.
    async fn append(&mut self, key: &Key, epoch: u64, seq: u64) -> bool {
        let mut append = Append {
            key: key.name.clone(),
            producer: self.session.clone(),
            seq,
            v: self.stage.value(),
            epoch: Some(epoch),
            batch: None,
            offset: None,
        };
        let batch = Batch {
            session: self.session.clone(),
            epoch,
            sequence: seq,
            events: vec![value_event(&key.name, append.v)],
            expected_revisions: Vec::new(),
        };
        // One program in thirty crashes before it has its answer.
        let patience = match self.random.random_range(0..30) {
            0 => Duration::from_millis(self.random.random_range(0..20)),
            _ => PATIENCE,
        };
        let open = self.client.invoke(Op::Append(append.clone()));
        let sent = timeout(patience, send(&self.stage, &mut self.random, batch));
        match sent.await {
            Ok(Sent::Answered(response)) => match accepted(Some(&response.outcomes)) {
                Some(accepted) => {
                    let place = Place::of(accepted);
                    append.offset = Some(place.in_key);
                    open.ok(Op::Append(append));
                    key.note(place);
                    return true;
                }
                None => open.info(format!("answered {response:?}")),
            },
            Ok(Sent::NotApplied(status)) => open.fail(status),
            Ok(Sent::Unknown(why)) => open.info(why),
            Err(_) => open.info("crashed"),
        }
        false
    }
}

/// Sends a batch until it is answered for good.
async fn send(stage: &Stage, random: &mut SmallRng, batch: Batch) -> Sent {
    let deadline = Instant::now() + PATIENCE;
    let mut unknown = false;
    loop {
        let request = AppendRequest {
            partition: 0,
            batch: Some(batch.clone()),
        };
        let node = stage.node(random);
        let answer = node.events().append(request).await;
        let status = match stage.heard_status(answer) {
            Ok(response) => return Sent::Answered(response.into_inner()),
            Err(status) => status,
        };
        // A later refusal says nothing of an attempt that may have arrived.
        // A time-out says nothing at all, whoever's it is.
        unknown |= !is_not_applied(&status) || status.code() == Code::DeadlineExceeded;
        if !is_transient(&status) || Instant::now() > deadline {
            return if unknown {
                Sent::Unknown(status.to_string())
            } else {
                Sent::NotApplied(status)
            };
        }
        sleep(Duration::from_millis(random.random_range(10..100))).await;
    }
}

/// Whether the node vouches for it.
fn is_not_applied(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| {
        info.metadata
            .get("disposition")
            .is_some_and(|disposition| disposition == "NOT_APPLIED")
    })
}

fn is_transient(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::OutOfRange
    )
}
