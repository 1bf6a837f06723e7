//! A producer: it numbers its batches itself, keeps them on its disk until they
//! are acknowledged, and after a crash finds out what became of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use huntlog_client::proto::{EventOutcome, event_outcome};
use huntlog_client::{AppendError, Appended, Cause, Disposition, SessionOptions, event};
use parking_lot::Mutex;

use super::{Phase, Program, SETUP_EVENTS, Shared, log_key, payload};
use crate::history::{Append, Op, Open};
use crate::sim::random::Random;

const TIMEOUT: Duration = Duration::from_secs(8);

pub(in crate::sim) struct Producer {
    pub(in crate::sim) session: String,
    /// Tells apart the producers that share a session.
    pub(in crate::sim) serial: u64,
    pub(in crate::sim) keys: u64,
    /// Batches under way at once.
    pub(in crate::sim) window: usize,
    /// Between two appends.
    pub(in crate::sim) pace: Duration,
    /// Appends of one key at most: a judge looks at each.
    pub(in crate::sim) values_max: u64,
    pub(in crate::sim) disk: Mutex<Disk>,
}

/// What survives the process.
pub(in crate::sim) struct Disk {
    pub(in crate::sim) random: Random,
    /// By sequence: what was sent and may have been applied.
    pub(in crate::sim) sent: BTreeMap<u64, Sent>,
    pub(in crate::sim) values: u64,
    /// Under which name the session was last opened.
    opened: Option<String>,
    /// The first append after the healing was acknowledged.
    pub(in crate::sim) alive: bool,
    pub(in crate::sim) idle: bool,
}

#[derive(Debug, Clone)]
pub(in crate::sim) struct Sent {
    append: Append,
    padding: usize,
}

impl Disk {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            sent: BTreeMap::new(),
            values: 0,
            opened: None,
            alive: false,
            idle: true,
        }
    }
}

/// How a life with one epoch ended.
enum Over {
    /// Another epoch is needed.
    Reopen,
    /// There is nothing more to do.
    Done,
}

impl Program for Producer {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.disk.lock().idle = false;
            while let Over::Reopen = self.live(&shared, ip).await {
                let pause = Duration::from_millis(self.disk.lock().random.below(200));
                tokio::time::sleep(pause).await;
            }
            self.disk.lock().idle = true;
        })
    }

    fn done(&self, phase: Phase) -> bool {
        let disk = self.disk.lock();
        match phase {
            Phase::Chaos => true,
            Phase::Healed => disk.alive,
            Phase::Draining => disk.idle,
        }
    }

    fn quiet(&self) -> bool {
        self.disk.lock().idle
    }

    fn name(&self) -> String {
        format!("producer {} of {}", self.serial, self.session)
    }
}

impl Producer {
    async fn live(self: &Arc<Self>, shared: &Shared, ip: IpAddr) -> Over {
        if shared.phase() == Phase::Draining {
            return Over::Done;
        }
        let client = {
            let mut disk = self.disk.lock();
            shared.connect(ip, None, &mut disk.random)
        };
        let name = shared.historic(&self.session);
        let mut recording = shared.recorder.client();
        let invoked = recording.invoke(Op::Open(Open {
            producer: name.clone(),
            ..Open::default()
        }));
        let options = SessionOptions {
            timeout: Some(TIMEOUT),
            ..SessionOptions::default()
        };
        let producer = match client.session_with(&self.session, options).await {
            Ok(producer) => producer,
            Err(error) => {
                invoked.info(error);
                return Over::Reopen;
            }
        };
        let (epoch, last) = (producer.epoch(), producer.last_sequence());
        let opened = |name| {
            Op::Open(Open {
                producer: name,
                epoch: Some(epoch),
                last: Some(last),
                fresh: Some(producer.is_fresh()),
            })
        };
        shared.coverage.lock().sessions_opened += 1;
        let known = self.disk.lock().opened.replace(name.clone()) == Some(name.clone());
        let name = match &shared.forgotten {
            Some(forgotten) if known && producer.is_fresh() => {
                invoked.info("the session was forgotten, and begins anew");
                *forgotten.lock().entry(self.session.clone()).or_default() += 1;
                shared.coverage.lock().sessions_forgotten += 1;
                let name = shared.historic(&self.session);
                self.disk.lock().sent.clear();
                self.disk.lock().opened = Some(name.clone());
                let again = recording.invoke(opened(name.clone()));
                again.ok(opened(name.clone()));
                name
            }
            _ => {
                invoked.ok(opened(name.clone()));
                name
            }
        };

        let mut under_way = FuturesUnordered::new();
        // What was sent and is below the last one was applied: by whom else?
        // Some of it is asked for again.
        let again: Vec<(u64, Sent)> = {
            let mut disk = self.disk.lock();
            disk.sent.retain(|sequence, _| *sequence <= last);
            let count = disk.sent.len();
            let from = count.saturating_sub(1 + usize::try_from(disk.random.below(6)).unwrap_or(0));
            disk.sent
                .iter()
                .skip(from)
                .map(|(sequence, sent)| (*sequence, sent.clone()))
                .collect()
        };
        for (sequence, sent) in again {
            let events = vec![self.event(&sent)];
            match producer.append_at(sequence, events, Vec::new()).await {
                Ok(ticket) => under_way.push(self.outcome(shared, sent, true, ticket)),
                Err(_) => return Over::Reopen,
            }
        }
        let mut next = last + 1;
        loop {
            let phase = shared.phase();
            let full = under_way.len() >= self.window;
            let wanted = phase != Phase::Draining
                && !(phase == Phase::Healed && self.disk.lock().alive)
                && !(phase == Phase::Chaos && self.disk.lock().values >= self.values_max);
            if under_way.is_empty() && phase == Phase::Draining {
                return Over::Done;
            }
            tokio::select! {
                biased;
                Some(went_on) = under_way.next() => {
                    if !went_on {
                        // Nothing after it is applied either; learn that of each.
                        while under_way.next().await.is_some() {}
                        return Over::Reopen;
                    }
                    if phase == Phase::Healed {
                        self.disk.lock().alive = true;
                    }
                }
                () = shared.pause(self.pace), if !full => {
                    if !wanted {
                        continue;
                    }
                    let sent = self.new_value(&name, next, epoch);
                    let events = vec![self.event(&sent)];
                    let Ok(ticket) = producer.append_at(next, events, Vec::new()).await else {
                        return Over::Reopen;
                    };
                    self.disk.lock().sent.insert(next, sent.clone());
                    under_way.push(self.outcome(shared, sent, false, ticket));
                    next += 1;
                }
            }
        }
    }

    fn new_value(&self, name: &str, seq: u64, epoch: u64) -> Sent {
        let mut disk = self.disk.lock();
        disk.values += 1;
        let key = log_key(disk.random.below(self.keys));
        let padding = match disk.random.below(20) {
            0 => usize::try_from(disk.random.below(20_000)).unwrap_or(0),
            _ => usize::try_from(disk.random.below(200)).unwrap_or(0),
        };
        Sent {
            append: Append {
                key,
                producer: name.to_owned(),
                seq,
                v: self.serial * 1_000_000 + disk.values,
                epoch: Some(epoch),
                offset: None,
            },
            padding,
        }
    }

    fn event(&self, sent: &Sent) -> huntlog_client::proto::Event {
        let bytes = payload(sent.append.v, sent.padding);
        event::custom(&sent.append.key, "", "value", bytes)
    }

    /// Waits for what becomes of a batch, and takes it down; whether the session
    /// can go on.
    fn outcome(
        self: &Arc<Self>,
        shared: &Shared,
        sent: Sent,
        again: bool,
        ticket: huntlog_client::Ticket<Appended>,
    ) -> BoxFuture<'static, bool> {
        let (shared, this) = (shared.clone(), Arc::clone(self));
        let mut recording = shared.recorder.client();
        let op = if again { Op::Resend } else { Op::Append };
        let mut append = sent.append;
        append.offset = None;
        Box::pin(async move {
            let invoked = recording.invoke(op(append.clone()));
            match ticket.await {
                Ok(appended) => {
                    let mut coverage = shared.coverage.lock();
                    coverage.duplicates += u64::from(appended.duplicate);
                    coverage.appends += 1;
                    coverage.retried += u64::from(appended.attempts > 1);
                    drop(coverage);
                    match offset_of(appended.outcomes.as_deref()) {
                        Some(offset) => {
                            append.offset = Some(offset);
                            invoked.ok(op(append));
                        }
                        None => {
                            shared.coverage.lock().outcomes_dropped += 1;
                            invoked.info("applied; its outcome is kept no more");
                        }
                    }
                    true
                }
                Err(error) => {
                    note(&shared, &error);
                    if again {
                        // Another producer of the session has its number.
                        this.disk.lock().sent.remove(&append.seq);
                    }
                    match error.disposition() {
                        Disposition::NotApplied => invoked.fail(error),
                        Disposition::Unknown => invoked.info(error),
                    }
                    false
                }
            }
        })
    }
}

fn note(shared: &Shared, error: &AppendError) {
    let mut coverage = shared.coverage.lock();
    match error.cause() {
        Cause::Fenced => coverage.fenced += 1,
        Cause::SessionForgotten => coverage.batches_of_forgotten += 1,
        _ => {}
    }
    match error.disposition() {
        Disposition::NotApplied => coverage.not_applied += 1,
        Disposition::Unknown => coverage.unknown += 1,
    }
}

fn offset_of(outcomes: Option<&[EventOutcome]>) -> Option<u64> {
    match outcomes?.first()?.outcome.as_ref()? {
        event_outcome::Outcome::Accepted(accepted) => {
            accepted.revision.checked_sub(SETUP_EVENTS + 1)
        }
        event_outcome::Outcome::Rejected(_) => None,
    }
}
