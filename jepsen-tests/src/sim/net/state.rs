//! What the network holds, and what happens on it when it is due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::link::Links;
use super::{Counts, Net, Socket};
use crate::sim::random::Random;

/// What one direction of a connection holds before its writer has to wait.
pub(super) const PIPE_BYTES: usize = 256 * 1024;
/// After a loss, the time until it is sent again (RFC 6298's minimum is a second;
/// Linux has 200 ms).
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The same for the opening of a connection.
const RETRANSMIT_OPENING: Duration = Duration::from_secs(1);
/// A host learns so long after the last late bytes that the other end is gone.
const LATE_END: Duration = Duration::from_millis(500);

/// One direction of a connection.
pub(in crate::sim) type PipeId = u64;
pub(super) type DialId = u64;

pub(super) struct State {
    pub(super) now: Duration,
    pub(super) random: Random,
    /// Machines without power.
    pub(super) dark: BTreeSet<IpAddr>,
    pub(super) links: Links,
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    pub(super) pipes: BTreeMap<PipeId, Pipe>,
    pub(super) dials: BTreeMap<DialId, Dialing>,
    pub(super) events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    pub(super) counter: u64,
    pub(super) counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Deliver(PipeId),
    Open(DialId),
    Opened(DialId),
}

pub(super) struct Listener {
    pub(super) id: u64,
    pub(super) queue: VecDeque<Socket>,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Dialing {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) outcome: Option<io::Result<Socket>>,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Pipe {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// The other direction.
    pub(super) back: PipeId,
    pub(super) in_flight: VecDeque<(Duration, Segment)>,
    /// Arrived, and not read.
    pub(super) ready: VecDeque<Bytes>,
    pub(super) bytes: usize,
    pub(super) ended: bool,
    pub(super) reset: bool,
    /// Nobody reads any more.
    pub(super) deaf: bool,
    /// Waits for the link to come back.
    pub(super) stalled: bool,
    /// Its sender is who made the connection.
    pub(super) dialed: bool,
    /// What is sent is kept back, until the connection is severed or released.
    pub(super) held: bool,
    /// Who made the connection has lost it; the other end does not know.
    pub(super) severed: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Pipe {
    /// Whoever reads from it has lost the connection.
    pub(super) fn is_lost_to_reader(&self) -> bool {
        self.reset || (self.severed && !self.dialed)
    }

    /// Whoever writes to it has lost the connection. Who does not know that the
    /// other end has writes on, and it is lost.
    pub(super) fn is_lost_to_writer(&self) -> bool {
        self.reset || (self.severed && self.dialed)
    }
}

pub(super) enum Segment {
    Bytes(Bytes),
    End,
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn at(&mut self, moment: Duration, event: Event) {
        let number = self.number();
        self.events.push(Reverse((moment, number, event)));
    }

    /// Whether anything gets from one host to another.
    pub(super) fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.links.of(from, to).cut && !self.dark.contains(&to) && !self.dark.contains(&from)
    }

    /// When what is sent now arrives, if the link holds.
    pub(super) fn arrival(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let link = self.links.of(from, to);
        let mut arrival = self.now + self.random.within(&link.latency);
        if link.loss_per_mille > 0 && self.random.per_mille(link.loss_per_mille) {
            self.counts.lost += 1;
            arrival += RETRANSMIT;
        }
        arrival
    }

    pub(super) fn deliver(&mut self, id: PipeId, wakers: &mut Vec<Waker>) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        let Some((due, _)) = pipe.in_flight.front() else {
            return;
        };
        if *due > self.now || pipe.stalled || pipe.held {
            return;
        }
        if !self.passes(from, to) {
            self.counts.stalled += 1;
            self.pipes.get_mut(&id).expect("looked up").stalled = true;
            return;
        }
        if pipe.deaf {
            self.reset(id, wakers);
            return;
        }
        let now = self.now;
        let pipe = self.pipes.get_mut(&id).expect("looked up");
        while let Some((due, _)) = pipe.in_flight.front()
            && *due <= now
        {
            match pipe.in_flight.pop_front() {
                Some((_, Segment::Bytes(bytes))) => {
                    self.counts.late += u64::from(pipe.severed);
                    pipe.ready.push_back(bytes);
                }
                _ => pipe.ended = true,
            }
            self.counts.segments += 1;
        }
        wakers.extend(pipe.reader.take());
    }

    pub(super) fn reset(&mut self, id: PipeId, wakers: &mut Vec<Waker>) {
        let Some(back) = self.pipes.get(&id).map(|pipe| pipe.back) else {
            return;
        };
        self.counts.reset += 1;
        for id in [id, back] {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.reset = true;
                pipe.in_flight.clear();
                pipe.ready.clear();
                wakers.extend(pipe.reader.take());
                wakers.extend(pipe.writer.take());
            }
        }
    }

    /// What a held connection has in flight arrives, and nothing else any more;
    /// where, if it has anything.
    pub(super) fn sever(
        &mut self,
        id: PipeId,
        late: &Range<Duration>,
        wakers: &mut Vec<Waker>,
    ) -> Option<IpAddr> {
        let pipe = self.pipes.get_mut(&id)?;
        pipe.held = false;
        let is_late = |(_, segment): &(Duration, Segment)| matches!(segment, Segment::Bytes(_));
        if pipe.reset || !pipe.in_flight.iter().any(is_late) {
            self.reset(id, wakers);
            return None;
        }
        let due = self.now + self.random.within(late);
        pipe.severed = true;
        pipe.in_flight.retain(is_late);
        for (at, _) in &mut pipe.in_flight {
            *at = due;
        }
        pipe.in_flight.push_back((due + LATE_END, Segment::End));
        wakers.extend(pipe.writer.take());
        let (to, back) = (pipe.to, pipe.back);
        if let Some(back) = self.pipes.get_mut(&back) {
            back.severed = true;
            back.in_flight.clear();
            back.ready.clear();
            back.bytes = 0;
            wakers.extend(back.reader.take());
            wakers.extend(back.writer.take());
        }
        self.at(due, Event::Deliver(id));
        self.at(due + LATE_END, Event::Deliver(id));
        Some(to)
    }

    /// What waits on these pipes is sent again.
    pub(super) fn resume(&mut self, which: impl Fn(&Pipe) -> bool) {
        let stalled: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.stalled && which(pipe))
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            let again = self
                .random
                .within(&(Duration::from_millis(1)..RETRANSMIT * 2));
            let now = self.now + again;
            let pipe = self.pipes.get_mut(&id).expect("looked up");
            pipe.stalled = false;
            for (due, _) in &mut pipe.in_flight {
                *due = (*due).max(now);
            }
            self.at(now, Event::Deliver(id));
        }
    }

    pub(super) fn open(&mut self, net: &Net, id: DialId, wakers: &mut Vec<Waker>) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        let (from, to) = (dial.from, dial.to);
        if !self.passes(from.ip(), to.ip()) {
            self.at(self.now + RETRANSMIT_OPENING, Event::Open(id));
            return;
        }
        let outcome = if self.listeners.contains_key(&to) {
            self.counts.connections += 1;
            let (near, far) = self.connect(net, from, to);
            let listener = self.listeners.get_mut(&to).expect("looked up");
            listener.queue.push_back(far);
            wakers.extend(listener.waker.take());
            Ok(near)
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        };
        self.dials.get_mut(&id).expect("looked up").outcome = Some(outcome);
        let back = self.arrival(to.ip(), from.ip());
        self.at(back, Event::Opened(id));
    }

    pub(super) fn opened(&mut self, id: DialId, wakers: &mut Vec<Waker>) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        let (from, to) = (dial.from.ip(), dial.to.ip());
        if self.passes(to, from) {
            let dial = self.dials.get_mut(&id).expect("looked up");
            wakers.extend(dial.waker.take());
        } else {
            self.at(self.now + RETRANSMIT_OPENING, Event::Opened(id));
        }
    }

    pub(super) fn connect(
        &mut self,
        net: &Net,
        from: SocketAddr,
        to: SocketAddr,
    ) -> (Socket, Socket) {
        let (there, back) = (self.number(), self.number());
        for (id, from, to, back, dialed) in [
            (there, from, to, back, true),
            (back, to, from, there, false),
        ] {
            self.pipes.insert(
                id,
                Pipe {
                    from: from.ip(),
                    to: to.ip(),
                    back,
                    in_flight: VecDeque::new(),
                    ready: VecDeque::new(),
                    bytes: 0,
                    ended: false,
                    reset: false,
                    deaf: false,
                    stalled: false,
                    dialed,
                    held: false,
                    severed: false,
                    reader: None,
                    writer: None,
                },
            );
        }
        let socket = |write, read, peer| Socket {
            net: net.clone(),
            write,
            read,
            peer,
            ended: false,
        };
        (socket(there, back, to), socket(back, there, from))
    }

    pub(super) fn send(&mut self, id: PipeId, segment: Segment) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        if self.dark.contains(&from) || pipe.severed {
            return;
        }
        let mut due = self.arrival(from, to);
        let pipe = self.pipes.get_mut(&id).expect("looked up");
        if let Some((last, _)) = pipe.in_flight.back() {
            due = due.max(*last);
        }
        if let Segment::Bytes(bytes) = &segment {
            pipe.bytes += bytes.len();
        }
        pipe.in_flight.push_back((due, segment));
        self.at(due, Event::Deliver(id));
    }

    /// Forgets a connection that both ends have let go of.
    pub(super) fn forget(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let back = pipe.back;
        let deaf = |state: &Self, id| state.pipes.get(&id).is_none_or(|pipe| pipe.deaf);
        if deaf(self, id) && deaf(self, back) {
            self.pipes.remove(&id);
            self.pipes.remove(&back);
        }
    }
}
