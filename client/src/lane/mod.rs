//! One connection's task: it owns the sequencers of its sessions, feeds their
//! batches into one append stream, and hands the answers back. All state is
//! this task's own; producers talk to it over channels.

mod congestion;
mod link;
mod slot;
mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use huntlog_proto::v1;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::cluster::{Cluster, Repeat};
use crate::error::{CallError, Cause};
use crate::limits;
use crate::sequencer::{Advice, Moment};
use crate::status::{Handling, handling, refusal_of_failure};

pub(crate) use congestion::CongestionWindow;
use link::{Gate, Link};
use slot::Slot;
pub(crate) use slot::{Callers, Command, Control, EncodedEvent, Opened, Payload, SlotId, Work};
use stream::StreamEvent;

/// How producers reach a lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneHandle {
    /// Openings and closings, at most one each for every producer.
    pub(crate) control: mpsc::UnboundedSender<Control>,
    pub(crate) commands: mpsc::Sender<Command>,
}

pub(crate) struct Lane {
    cluster: Arc<Cluster>,
    control: mpsc::UnboundedReceiver<Control>,
    commands: mpsc::Receiver<Command>,
    /// Becomes true when nobody can send commands any more.
    orphaned: bool,
    /// Ordered, so that a simulation repeats.
    slots: BTreeMap<SlotId, Slot>,
    by_name: HashMap<Arc<str>, SlotId>,
    next_slot: SlotId,
    /// Slots that may have something to send.
    ready: VecDeque<SlotId>,
    timers: BTreeSet<(Moment, SlotId)>,
    openings: FuturesUnordered<BoxFuture<'static, (SlotId, Result<Opened, CallError>)>>,
    link: Option<Link>,
    reconnect_at: Moment,
    gate: Gate,
    /// Of all lanes of this client.
    window: Arc<CongestionWindow>,
    backoff: Backoff,
    in_flight: usize,
    in_flight_bytes: usize,
    /// Times in a row that a hint led to another node without a success.
    hops: u32,
    /// The node is not doubted before then: it has answered, or owed nothing.
    trusted_until: Moment,
    /// Who leads: asked while it is doubted.
    question: Option<BoxFuture<'static, Option<Arc<str>>>>,
}

/// Commands and answers taken in one go.
const BURST: usize = 256;

impl Lane {
    pub(crate) fn spawn(cluster: Arc<Cluster>, window: Arc<CongestionWindow>) -> LaneHandle {
        let (control_sender, control) = mpsc::unbounded_channel();
        let (command_sender, commands) = mpsc::channel(limits::COMMAND_QUEUE);
        let backoff = cluster.backoff();
        let lane = Self {
            cluster,
            control,
            commands,
            orphaned: false,
            slots: BTreeMap::new(),
            by_name: HashMap::new(),
            next_slot: 0,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            openings: FuturesUnordered::new(),
            link: None,
            reconnect_at: Moment::ZERO,
            gate: Gate::Open,
            window,
            backoff,
            in_flight: 0,
            in_flight_bytes: 0,
            hops: 0,
            trusted_until: Moment::ZERO,
            question: None,
        };
        tokio::spawn(lane.run());
        LaneHandle {
            control: control_sender,
            commands: command_sender,
        }
    }

    async fn run(mut self) {
        let mut burst = Vec::with_capacity(BURST);
        while !(self.orphaned && self.slots.is_empty()) {
            self.connect_if_needed();
            self.pump();
            self.ask_if_silent();
            let wake = self.next_wake();
            let room = self.awaited_room();
            let waits_for_room = room.is_some();
            tokio::select! {
                event = stream::next(self.link.as_mut().map(|link| &mut link.stream)) => {
                    self.on_stream(event);
                    for _ in 1..BURST {
                        match self.link.as_mut().and_then(|link| link.stream.try_next()) {
                            Some(event) => self.on_stream(event),
                            None => break,
                        }
                    }
                }
                received = self.commands.recv_many(&mut burst, BURST), if !self.orphaned => {
                    if received == 0 {
                        self.orphan().await;
                    }
                    for command in burst.drain(..) {
                        self.on_command(command);
                    }
                }
                Some(control) = self.control.recv() => self.on_control(control),
                Some((slot, result)) = self.openings.next() => self.on_opened(slot, result),
                leader = link::answer(self.question.as_mut()) => self.on_leader_named(leader),
                () = stream::room(room), if waits_for_room => {}
                () = tokio::time::sleep_until(self.cluster.at(wake.unwrap_or_default())),
                    if wake.is_some() => self.on_timers(),
            }
        }
    }

    /// All producers and the client are gone; what they submitted is seen
    /// through to the end.
    async fn orphan(&mut self) {
        self.orphaned = true;
        while let Some(control) = self.control.recv().await {
            self.on_control(control);
        }
        let left: Vec<SlotId> = self.slots.keys().copied().collect();
        for slot in left {
            self.remove_if_done(slot);
        }
    }

    fn on_control(&mut self, control: Control) {
        match control {
            Control::Open {
                name,
                options,
                reply,
            } => {
                if self.by_name.contains_key(&name) {
                    let _ = reply.send(Err(CallError::AlreadyOpen(name.to_string())));
                    return;
                }
                let id = self.next_slot;
                self.next_slot += 1;
                let slot = Slot::new(&self.cluster, Arc::clone(&name), options, reply);
                self.by_name.insert(name, id);
                self.slots.insert(id, slot);
                self.open_session(id);
            }
            Control::Close { slot, submitted } => {
                if let Some(entry) = self.slots.get_mut(&slot) {
                    entry.closing = Some(submitted);
                    self.remove_if_done(slot);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let id = command.slot;
        if let Some(slot) = self.slots.get_mut(&id) {
            let now = self.cluster.now();
            slot.take(command.work, now);
            self.after(id);
        }
    }

    fn open_session(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let request = v1::OpenSessionRequest {
            partition: self.cluster.options.partition,
            session: slot.name.to_string(),
            nonce: slot.begin_opening(&self.cluster),
            // Whoever has been fenced does not take the session back.
            epoch: slot.sequencer.epoch(),
        };
        let timeout = slot.timeout;
        let cluster = Arc::clone(&self.cluster);
        self.openings.push(Box::pin(async move {
            let answer = cluster
                .call(timeout, Repeat::Idempotent, |attempt| {
                    let request = attempt.request(request.clone());
                    async move { attempt.events().open_session(request).await }
                })
                .await;
            (id, answer.map(Opened::from))
        }));
    }

    fn on_opened(&mut self, id: SlotId, result: Result<Opened, CallError>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let first = slot.reply.take();
        match result {
            Ok(opened) => {
                slot.opened(opened);
                if let Some(reply) = first
                    && reply.send(Ok((id, opened))).is_err()
                {
                    slot.closing = Some(0);
                }
                self.after(id);
            }
            Err(error) => {
                slot.opening = false;
                if let Some(reply) = first {
                    let _ = reply.send(Err(error));
                    self.by_name.remove(&slot.name);
                    self.slots.remove(&id);
                    return;
                }
                if let CallError::Refused(refusal) = error {
                    slot.sequencer.open_refused(refusal);
                }
                // Otherwise `after` tries again, as long as it is wanted.
                self.after(id);
            }
        }
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        match event {
            StreamEvent::Connected => link.connected = true,
            StreamEvent::Leader(leader) => {
                let address = Arc::clone(&link.address);
                self.cluster.note_leader(&leader);
                self.leave_if_better(&address);
            }
            StreamEvent::Answer(answer) => self.on_answer(answer),
            StreamEvent::Ended(why) => self.lose_link(&why),
        }
    }

    fn on_answer(&mut self, answer: v1::AppendStreamResponse) {
        let Some(&id) = self.by_name.get(answer.session.as_str()) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let (epoch, sequence) = (answer.epoch, answer.sequence);
        let result = match answer.result {
            Some(v1::append_stream_response::Result::Appended(appended)) => Ok(appended),
            Some(v1::append_stream_response::Result::Failure(failure)) => {
                Err(refusal_of_failure(failure))
            }
            None => {
                self.lose_link("an answer without a result");
                return;
            }
        };
        let now = self.cluster.now();
        let sent = (epoch == slot.sequencer.epoch())
            .then(|| slot.sent.pop_front())
            .flatten();
        if let Some(sent) = &sent {
            self.in_flight -= 1;
            self.in_flight_bytes -= sent.bytes;
        }
        if let Some(link) = self.link.as_mut() {
            link.useful = true;
        }
        let refused_as = result.as_ref().err().map(handling);
        self.trusted_until = now + limits::STREAM_DOUBT;
        let advice = slot.sequencer.answered(epoch, sequence, result, now);
        tracing::trace!(session = %slot.name, sequence, ?refused_as, "batch answered");
        if refused_as.is_none() {
            self.gate = Gate::Open;
            self.backoff.reset();
            self.hops = 0;
        }
        match (refused_as, sent) {
            (None, Some(sent)) => self.window.acknowledged(self.in_flight, now - sent.at),
            (Some(Handling::Overloaded), Some(sent)) => self.window.refused(sent.at, now),
            _ => {}
        }
        match advice {
            Advice::Continue => {}
            Advice::Unavailable(refusal) => self.close_gate(&refusal),
            Advice::BreakStream => self.lose_link("answers out of order"),
        }
        self.after(id);
        self.change_node_when_quiet();
    }

    /// Sends what may be sent, one batch of each session in turn.
    fn pump(&mut self) {
        let allowance = self.allowance();
        let now = self.cluster.now();
        while self.in_flight < allowance
            && self.in_flight_bytes < limits::IN_FLIGHT_BYTES_PER_CONNECTION
        {
            let Some(link) = self.link.as_mut() else {
                return;
            };
            if !link.connected || link.leaving || !link.stream.has_room() {
                return;
            }
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            match slot.next_request(self.cluster.options.partition, now) {
                Some((request, bytes)) => {
                    link.stream.send(request);
                    if self.in_flight == 0 {
                        self.trusted_until = now + limits::STREAM_DOUBT;
                    }
                    self.in_flight += 1;
                    self.in_flight_bytes += bytes;
                    self.ready.push_back(id);
                    self.set_timer(id);
                }
                None => slot.queued = false,
            }
        }
    }

    fn next_wake(&self) -> Option<Moment> {
        let timer = self.timers.first().map(|(moment, _)| *moment);
        let doubt = self.doubts_at();
        if self.ready.is_empty() {
            return [timer, doubt].into_iter().flatten().min();
        }
        let reconnect = self.link.is_none().then_some(self.reconnect_at);
        let gate = match (&self.gate, &self.link) {
            (Gate::Probing(until), Some(link)) if link.connected && self.in_flight == 0 => {
                Some(*until)
            }
            _ => None,
        };
        [timer, doubt, reconnect, gate].into_iter().flatten().min()
    }

    fn on_timers(&mut self) {
        let now = self.cluster.now();
        while let Some(&(moment, id)) = self.timers.first()
            && moment <= now
        {
            self.timers.pop_first();
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.timer = None;
            slot.seal_if_due(now);
            let stuck = slot.sequencer.tick(now);
            if stuck {
                self.lose_link("no answer in time");
            }
            self.after(id);
        }
    }

    /// What every change of a slot may lead to.
    fn after(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let broken = slot.deliver(&self.cluster);
        if slot.sequencer.wants_opening() && !slot.opening && slot.is_wanted() {
            self.open_session(id);
        }
        let slot = self.slots.get_mut(&id).expect("found above");
        if !slot.queued && slot.has_work() {
            slot.queued = true;
            self.ready.push_back(id);
        }
        self.set_timer(id);
        self.remove_if_done(id);
        if broken {
            self.lose_link("an answer without the outcome of each event");
        }
    }

    /// Wakes in time for the slot's next timer. One that fires early is only
    /// looked at again, which is cheaper than moving it with every answer.
    fn set_timer(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let Some(wanted) = slot.next_timer() else {
            return;
        };
        if slot.timer.is_none_or(|set| wanted < set) {
            if let Some(set) = slot.timer.replace(wanted) {
                self.timers.remove(&(set, id));
            }
            self.timers.insert((wanted, id));
        }
    }

    fn remove_if_done(&mut self, id: SlotId) {
        let orphaned = self.orphaned;
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.is_done(orphaned)
        {
            slot.sequencer.die(Cause::Closed);
            if let Some(set) = slot.timer {
                self.timers.remove(&(set, id));
            }
            self.by_name.remove(&slot.name);
            self.slots.remove(&id);
        }
    }
}
