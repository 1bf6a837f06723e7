//! The lane's connection: to which node, when it is changed, and how much may be
//! sent over it.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Lane;
use super::slot::SlotId;
use super::stream::{self, AppendStream};
use crate::error::Refusal;
use crate::limits;
use crate::sequencer::Moment;

/// Whether the cluster takes appends at the moment, as far as this lane knows.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    /// After an outage: nothing before the moment, then one batch at a time
    /// until one is answered. Thousands of sessions must not hammer nodes that
    /// are electing a leader.
    Probing(Moment),
}

pub(super) struct Link {
    pub(super) stream: AppendStream,
    pub(super) address: Arc<str>,
    pub(super) connected: bool,
    /// It has answered something.
    pub(super) useful: bool,
    /// Nothing more is sent; once all is answered, another node is tried.
    pub(super) leaving: bool,
}

/// The answer to a question; never ready without one.
pub(super) async fn answer<T>(question: Option<&mut BoxFuture<'static, T>>) -> T {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// Hints followed in a row before a node that merely forwards is good enough.
const HOPS: u32 = 3;

impl Lane {
    pub(super) fn close_gate(&mut self, refusal: &Refusal) {
        let now = self.cluster.now();
        let Some(link) = self.link.as_mut() else {
            return;
        };
        if link.leaving || matches!(self.gate, Gate::Probing(until) if until > now) {
            return;
        }
        let delay = self.backoff.next(refusal.retry_after);
        self.gate = Gate::Probing(now + delay);
        let address = Arc::clone(&link.address);
        tracing::debug!(node = %address, %refusal, ?delay, "appends pause");
        self.cluster.note_refusal(&address, refusal);
        link.leaving = self.cluster.target() != address;
    }

    pub(super) fn leave_if_better(&mut self, address: &str) {
        if let Some(link) = self.link.as_mut()
            && self.hops < HOPS
            && *self.cluster.target() != *address
        {
            self.hops += 1;
            link.leaving = true;
        }
        self.change_node_when_quiet();
    }

    pub(super) fn change_node_when_quiet(&mut self) {
        if self.in_flight == 0 && self.link.as_ref().is_some_and(|link| link.leaving) {
            self.link = None;
        }
    }

    pub(super) fn lose_link(&mut self, why: &str) {
        let Some(link) = self.link.take() else {
            return;
        };
        tracing::info!(node = %link.address, why, in_flight = self.in_flight, "append stream lost");
        self.cluster.failed(&link.address);
        let now = self.cluster.now();
        if !link.useful {
            self.reconnect_at = now + self.backoff.next(None);
        }
        self.gate = Gate::Probing(now);
        self.in_flight = 0;
        self.in_flight_bytes = 0;
        let ids: Vec<SlotId> = self
            .slots
            .iter_mut()
            .filter(|(_, slot)| slot.sequencer.pending() > 0)
            .map(|(id, slot)| {
                slot.sent.clear();
                slot.sequencer.stream_lost();
                *id
            })
            .collect();
        for id in ids {
            self.after(id);
        }
    }

    pub(super) fn connect_if_needed(&mut self) {
        let now = self.cluster.now();
        if self.link.is_some() || now < self.reconnect_at || self.ready.is_empty() {
            return;
        }
        let address = self.cluster.target();
        self.link = Some(Link {
            stream: AppendStream::open(&self.cluster, &address),
            address,
            connected: false,
            useful: false,
            leaving: false,
        });
    }

    /// When the node is doubted, unless it answers before that. Whoever is told
    /// to stay with one node has nothing to ask.
    pub(super) fn doubts_at(&self) -> Option<Moment> {
        let owes = self.in_flight > 0 && self.link.is_some();
        let asks = owes && self.question.is_none() && self.cluster.options.follow_leader;
        asks.then_some(self.trusted_until)
    }

    pub(super) fn ask_if_silent(&mut self) {
        if self.doubts_at().is_some_and(|at| at <= self.cluster.now()) {
            let cluster = Arc::clone(&self.cluster);
            self.question = Some(Box::pin(async move { cluster.ask_who_leads().await }));
        }
    }

    /// Leaves a node that is silent when another one leads: what it owes is sent
    /// to that one again.
    pub(super) fn on_leader_named(&mut self, leader: Option<Arc<str>>) {
        self.question = None;
        let now = self.cluster.now();
        let has_answered = now < self.trusted_until;
        self.trusted_until = now + limits::STREAM_DOUBT;
        if let (Some(leader), Some(link)) = (leader, &self.link)
            && !has_answered
            && *leader != *link.address
        {
            self.lose_link("it does not answer, and another node leads");
            self.cluster.note_leader(&leader);
        }
    }

    /// How many batches may be in flight now.
    pub(super) fn allowance(&self) -> usize {
        match self.gate {
            Gate::Open => self.window.limit(),
            Gate::Probing(until) if until <= self.cluster.now() => 1,
            Gate::Probing(_) => 0,
        }
    }

    /// The queue that has to get room before anything more can be sent.
    pub(super) fn awaited_room(&self) -> Option<stream::Requests> {
        let link = self.link.as_ref()?;
        let blocked = !self.ready.is_empty()
            && self.in_flight < self.allowance()
            && self.in_flight_bytes < limits::IN_FLIGHT_BYTES_PER_CONNECTION
            && link.connected
            && !link.leaving
            && !link.stream.has_room();
        blocked.then(|| link.stream.requests())
    }
}
