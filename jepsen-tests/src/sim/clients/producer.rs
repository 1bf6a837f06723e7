//! A producer: it numbers its batches itself, keeps them on its disk until they
//! are acknowledged, and after a crash finds out what became of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use huntlog_client::proto::{EventOutcome, ExpectedRevision, event_outcome};
use huntlog_client::{AppendError, Appended, Cause, Disposition, Reason, SessionOptions, event};
use parking_lot::Mutex;

use super::{Phase, Program, SETUP_EVENTS, Shared, log_key, payload};
use crate::history::{Append, Op, Open};
use crate::sim::random::Random;

/// Some give an append up after a while; the others wait for as long as a client can,
/// so that after the healing what was pending has to be acknowledged.
pub(in crate::sim) const TIMEOUTS: [Duration; 2] =
    [Duration::from_secs(8), Duration::from_secs(30 * 60)];
const PACE_HEALED: Duration = Duration::from_millis(50);

pub(in crate::sim) struct Producer {
    pub(in crate::sim) session: String,
    /// Tells apart the producers that share a session.
    pub(in crate::sim) serial: u64,
    pub(in crate::sim) keys: u64,
    /// Batches under way at once.
    pub(in crate::sim) window: usize,
    /// One of [`TIMEOUTS`].
    pub(in crate::sim) timeout: Duration,
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
    /// The first append after the healing was acknowledged, or decided otherwise by
    /// the log.
    pub(in crate::sim) alive: bool,
    pub(in crate::sim) idle: bool,
}

/// A batch: what it appends, all of it to one key.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Sent {
    appends: Vec<Append>,
    padding: usize,
    /// It expects the hunt to be empty, which none is: it is not to be applied, and
    /// whatever shares its log entry is (I9).
    expects_empty_hunt: bool,
    /// It announces its values, for which a feature level has to be in force.
    announces: bool,
}

impl Disk {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            sent: BTreeMap::new(),
            values: 0,
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
            timeout: Some(self.timeout),
            ..SessionOptions::default()
        };
        let producer = match client.session_with(&self.session, options).await {
            Ok(producer) => producer,
            Err(error) => {
                shared.judge_call(&error);
                let full = error.to_string().contains("SESSIONS_FULL");
                shared.coverage.lock().sessions_full += u64::from(full);
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
        // Whoever shares the session has opened it, or it itself in an earlier life.
        let known = !shared.opened.lock().insert(name.clone());
        let anew = known && producer.is_fresh();
        let seen = &shared.seen;
        seen.lock().sessions.opened(&self.session, epoch, anew);
        let name = match &shared.forgotten {
            Some(forgotten) if anew => {
                invoked.info("the session was forgotten, and begins anew");
                *forgotten.lock().entry(self.session.clone()).or_default() += 1;
                shared.coverage.lock().sessions_forgotten += 1;
                let name = shared.historic(&self.session);
                self.disk.lock().sent.clear();
                shared.opened.lock().insert(name.clone());
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
            match producer
                .append_at(sequence, sent.events(), sent.expected())
                .await
            {
                Ok(ticket) => under_way.push(self.outcome(shared, sent, true, ticket)),
                Err(_) => return Over::Reopen,
            }
        }
        let mut next = last + 1;
        loop {
            let phase = shared.phase();
            let full = under_way.len() >= self.window;
            // Slow ones that share a session would take it from each other for ever.
            let pace = match phase {
                Phase::Chaos => self.pace,
                Phase::Healed | Phase::Draining => self.pace.min(PACE_HEALED),
            };
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
                () = shared.pause(pace), if !full => {
                    if !wanted {
                        continue;
                    }
                    let sent = self.new_batch(&name, next, epoch);
                    if sent.expects_empty_hunt {
                        let values = sent.appends.iter().map(|append| append.v);
                        shared.never.lock().extend(values);
                    }
                    let ticket = producer.append_at(next, sent.events(), sent.expected()).await;
                    let Ok(ticket) = ticket else {
                        return Over::Reopen;
                    };
                    self.disk.lock().sent.insert(next, sent.clone());
                    under_way.push(self.outcome(shared, sent, false, ticket));
                    next += 1;
                }
            }
        }
    }

    fn new_batch(&self, name: &str, seq: u64, epoch: u64) -> Sent {
        let mut disk = self.disk.lock();
        let key = log_key(disk.random.below(self.keys));
        let padding = match disk.random.below(20) {
            0 => usize::try_from(disk.random.below(20_000)).unwrap_or(0),
            _ => usize::try_from(disk.random.below(200)).unwrap_or(0),
        };
        let count = match disk.random.below(5) {
            0 => 2 + disk.random.below(3),
            _ => 1,
        };
        let first = self.serial * 1_000_000 + disk.values + 1;
        disk.values += count;
        let append = |v| Append {
            key: key.clone(),
            producer: name.to_owned(),
            seq,
            v,
            epoch: Some(epoch),
            batch: (count > 1).then_some(count),
            offset: None,
        };
        Sent {
            appends: (first..first + count).map(append).collect(),
            padding,
            expects_empty_hunt: disk.random.one_in(16),
            announces: disk.random.one_in(16),
        }
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
        let op = if again { Op::Resend } else { Op::Append };
        let Sent {
            expects_empty_hunt,
            announces,
            ..
        } = sent;
        let mut appends = sent.appends;
        for append in &mut appends {
            append.offset = None;
        }
        let mut recordings: Vec<_> = appends.iter().map(|_| shared.recorder.client()).collect();
        Box::pin(async move {
            let appends = appends.into_iter();
            let invoked: Vec<_> = recordings
                .iter_mut()
                .zip(appends)
                .map(|(recording, append)| (recording.invoke(op(append.clone())), append))
                .collect();
            match ticket.await {
                Ok(appended) => {
                    shared.note_acknowledged(&this.session, &appended);
                    if announces {
                        shared.note_announced(appended.log_index);
                    }
                    let mut coverage = shared.coverage.lock();
                    coverage.duplicates += u64::from(appended.duplicate);
                    coverage.appends += 1;
                    coverage.batches += u64::from(invoked.len() > 1);
                    coverage.retried += u64::from(appended.attempts > 1);
                    drop(coverage);
                    if expects_empty_hunt && appended.outcomes.is_some() {
                        shared.violation("I9: a batch that expected another revision was applied");
                    }
                    let offsets = offsets_of(appended.outcomes.as_deref(), invoked.len());
                    shared.coverage.lock().outcomes_dropped += u64::from(offsets.is_none());
                    for (position, (invoked, mut append)) in invoked.into_iter().enumerate() {
                        append.offset = offsets.as_ref().map(|offsets| offsets[position]);
                        match append.offset {
                            Some(_) => invoked.ok(op(append)),
                            None => invoked.info("applied; its outcome is kept no more"),
                        }
                    }
                    true
                }
                Err(error) if expects_empty_hunt && is_mismatch(&error) => {
                    shared.coverage.lock().expectations_failed += 1;
                    shared.judge_append(&error);
                    if error.disposition() != Disposition::NotApplied {
                        shared.violation("I10: a batch that was refused may be applied after all");
                    }
                    for (invoked, _) in invoked {
                        invoked.fail(&error);
                    }
                    true
                }
                Err(error) => {
                    note(&shared, &error);
                    shared.judge_append(&error);
                    if is_mismatch(&error) {
                        shared.violation("I9: a batch without an expectation was refused for one");
                    }
                    for (invoked, append) in invoked {
                        if again {
                            // Another producer of the session has its number.
                            this.disk.lock().sent.remove(&append.seq);
                        }
                        match error.disposition() {
                            Disposition::NotApplied => invoked.fail(&error),
                            Disposition::Unknown => invoked.info(&error),
                        }
                    }
                    false
                }
            }
        })
    }
}

impl Sent {
    fn events(&self) -> Vec<huntlog_client::proto::Event> {
        let event = |append: &Append| match self.announces {
            true => event::announced(&append.key, "", &append.v.to_string()),
            false => event::custom(&append.key, "", "value", payload(append.v, self.padding)),
        };
        self.appends.iter().map(event).collect()
    }

    fn expected(&self) -> Vec<ExpectedRevision> {
        let first = self.appends.first().filter(|_| self.expects_empty_hunt);
        first
            .map(|append| event::expect_no_event(&append.key))
            .into_iter()
            .collect()
    }
}

fn is_mismatch(error: &AppendError) -> bool {
    matches!(error.cause(), Cause::Refused(refusal) if refusal.reason == Reason::RevisionMismatch)
}

fn note(shared: &Shared, error: &AppendError) {
    let mut coverage = shared.coverage.lock();
    match error.cause() {
        Cause::Fenced => coverage.fenced += 1,
        Cause::SessionForgotten => coverage.batches_of_forgotten += 1,
        Cause::Refused(refusal) if refusal.reason == Reason::FeatureLevel => {
            coverage.levels_refused += 1;
        }
        _ => {}
    }
    match error.disposition() {
        Disposition::NotApplied => coverage.not_applied += 1,
        Disposition::Unknown => coverage.unknown += 1,
    }
}

/// Where each of `count` events of a batch is; `None` when that is kept no more.
fn offsets_of(outcomes: Option<&[EventOutcome]>, count: usize) -> Option<Vec<u64>> {
    let offset = |outcome: &EventOutcome| match outcome.outcome.as_ref()? {
        event_outcome::Outcome::Accepted(accepted) => {
            accepted.revision.checked_sub(SETUP_EVENTS + 1)
        }
        event_outcome::Outcome::Rejected(_) => None,
    };
    let offsets: Vec<u64> = outcomes?.iter().filter_map(offset).collect();
    (offsets.len() == count).then_some(offsets)
}
