//! The network: byte streams between hosts, with the faults that TCP shows.
//!
//! What is sent over a link that is cut, or lost on it, is sent again once the
//! link works, as TCP does it; so a connection stalls, and goes on or is given up
//! by whoever waits for it. A machine without power answers nothing; a process
//! that is gone is answered for by its machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::random::Random;

/// What one direction of a connection holds before its writer has to wait.
const PIPE_BYTES: usize = 256 * 1024;
/// After a loss, the time until it is sent again (RFC 6298's minimum is a second;
/// Linux has 200 ms).
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The same for the opening of a connection.
const RETRANSMIT_OPENING: Duration = Duration::from_secs(1);

type PipeId = u64;
type DialId = u64;

/// How one direction between two hosts is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) cut: bool,
    pub(super) latency: Range<Duration>,
    pub(super) loss_per_mille: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            latency: Duration::from_micros(200)..Duration::from_millis(1),
            loss_per_mille: 0,
        }
    }
}

/// The network; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    now: Duration,
    random: Random,
    /// Machines without power.
    dark: BTreeSet<IpAddr>,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    usual: Link,
    listeners: BTreeMap<SocketAddr, Listener>,
    pipes: BTreeMap<PipeId, Pipe>,
    dials: BTreeMap<DialId, Dialing>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    counter: u64,
    counts: Counts,
}

/// What has happened on the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) segments: u64,
    pub(super) lost: u64,
    pub(super) stalled: u64,
    pub(super) reset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Deliver(PipeId),
    Open(DialId),
    Opened(DialId),
}

struct Listener {
    id: u64,
    queue: VecDeque<Socket>,
    waker: Option<Waker>,
}

struct Dialing {
    from: SocketAddr,
    to: SocketAddr,
    outcome: Option<io::Result<Socket>>,
    waker: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: IpAddr,
    to: IpAddr,
    /// The other direction.
    back: PipeId,
    in_flight: VecDeque<(Duration, Segment)>,
    /// Arrived, and not read.
    ready: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    reset: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// Waits for the link to come back.
    stalled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Bytes(Bytes),
    End,
}

impl Net {
    pub(super) fn new(random: Random, usual: Link) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            random,
            dark: BTreeSet::new(),
            links: BTreeMap::new(),
            usual,
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            dials: BTreeMap::new(),
            events: BinaryHeap::new(),
            counter: 0,
            counts: Counts::default(),
        })))
    }

    /// Moves the network's time on, and delivers what is due by then.
    pub(super) fn advance(&self, now: Duration) {
        let mut wakers = Vec::new();
        {
            let mut state = self.0.lock();
            state.now = now;
            while let Some(Reverse((at, _, _))) = state.events.peek()
                && *at <= now
            {
                let Some(Reverse((_, _, event))) = state.events.pop() else {
                    break;
                };
                match event {
                    Event::Deliver(pipe) => state.deliver(pipe, &mut wakers),
                    Event::Open(dial) => state.open(self, dial, &mut wakers),
                    Event::Opened(dial) => state.opened(dial, &mut wakers),
                }
            }
        }
        // Never while the lock is held: a waker may drop a task, and so a socket.
        for waker in wakers {
            waker.wake();
        }
    }

    /// Changes the link from one host to another.
    pub(super) fn change_link(&self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut Link)) {
        let mut state = self.0.lock();
        let usual = state.usual.clone();
        change(state.links.entry((from, to)).or_insert(usual));
        state.resume(|pipe| pipe.from == from && pipe.to == to);
    }

    /// All links are as usual again.
    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.links.clear();
        state.resume(|_| true);
    }

    /// Takes the power from a machine, before its processes are dropped.
    pub(super) fn darken(&self, ip: IpAddr) {
        let mut state = self.0.lock();
        state.dark.insert(ip);
        for pipe in state.pipes.values_mut().filter(|pipe| pipe.from == ip) {
            pipe.in_flight.clear();
        }
    }

    /// Gives it back. Connections of before are not known to the machine.
    pub(super) fn light_up(&self, ip: IpAddr) {
        let mut state = self.0.lock();
        state.dark.remove(&ip);
        state.resume(|pipe| pipe.to == ip);
    }

    /// Resets each connection between the two with a chance.
    pub(super) fn reset_some(&self, a: IpAddr, b: IpAddr, chance_per_mille: u64) {
        let mut wakers = Vec::new();
        {
            let mut state = self.0.lock();
            let between: Vec<PipeId> = state
                .pipes
                .iter()
                .filter(|(_, pipe)| pipe.from == a && pipe.to == b)
                .map(|(id, _)| *id)
                .collect();
            for id in between {
                if state.random.per_mille(chance_per_mille) {
                    state.reset(id, &mut wakers);
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// Listens, in place of whoever did before.
    pub(super) fn listen(&self, address: SocketAddr) -> Port {
        let mut state = self.0.lock();
        let id = state.number();
        let listener = Listener {
            id,
            queue: VecDeque::new(),
            waker: None,
        };
        let before = state.listeners.insert(address, listener);
        drop(state);
        drop(before);
        Port {
            net: self.clone(),
            address,
            id,
        }
    }

    /// A connection from `from` to `to`.
    pub(super) fn dial(&self, from: IpAddr, to: SocketAddr) -> Dial {
        Dial {
            net: self.clone(),
            from,
            to,
            id: None,
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn at(&mut self, moment: Duration, event: Event) {
        let number = self.number();
        self.events.push(Reverse((moment, number, event)));
    }

    fn link(&self, from: IpAddr, to: IpAddr) -> &Link {
        self.links.get(&(from, to)).unwrap_or(&self.usual)
    }

    /// Whether anything gets from one host to another.
    fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.link(from, to).cut && !self.dark.contains(&to) && !self.dark.contains(&from)
    }

    /// When what is sent now arrives, if the link holds.
    fn arrival(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let link = self.link(from, to).clone();
        let mut arrival = self.now + self.random.within(&link.latency);
        if link.loss_per_mille > 0 && self.random.per_mille(link.loss_per_mille) {
            self.counts.lost += 1;
            arrival += RETRANSMIT;
        }
        arrival
    }

    fn deliver(&mut self, id: PipeId, wakers: &mut Vec<Waker>) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        let Some((due, _)) = pipe.in_flight.front() else {
            return;
        };
        if *due > self.now || pipe.stalled {
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
                Some((_, Segment::Bytes(bytes))) => pipe.ready.push_back(bytes),
                _ => pipe.ended = true,
            }
            self.counts.segments += 1;
        }
        wakers.extend(pipe.reader.take());
    }

    fn reset(&mut self, id: PipeId, wakers: &mut Vec<Waker>) {
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

    /// What waits on these pipes is sent again.
    fn resume(&mut self, which: impl Fn(&Pipe) -> bool) {
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

    fn open(&mut self, net: &Net, id: DialId, wakers: &mut Vec<Waker>) {
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

    fn opened(&mut self, id: DialId, wakers: &mut Vec<Waker>) {
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

    fn connect(&mut self, net: &Net, from: SocketAddr, to: SocketAddr) -> (Socket, Socket) {
        let (there, back) = (self.number(), self.number());
        for (id, from, to, back) in [(there, from, to, back), (back, to, from, there)] {
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

    fn send(&mut self, id: PipeId, segment: Segment) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        if self.dark.contains(&from) {
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
    fn forget(&mut self, id: PipeId) {
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

/// A listened-on address; given up when dropped.
pub(super) struct Port {
    net: Net,
    address: SocketAddr,
    id: u64,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({})", self.address)
    }
}

impl Port {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn accept(&self) -> (Socket, SocketAddr) {
        let socket = std::future::poll_fn(|context| {
            let mut state = self.net.0.lock();
            match state.listeners.get_mut(&self.address) {
                Some(listener) if listener.id == self.id => match listener.queue.pop_front() {
                    Some(socket) => Poll::Ready(socket),
                    None => {
                        listener.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                },
                _ => Poll::Pending,
            }
        })
        .await;
        let peer = socket.peer;
        (socket, peer)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut state = self.net.0.lock();
        let ours = state
            .listeners
            .get(&self.address)
            .is_some_and(|listener| listener.id == self.id);
        let gone = ours.then(|| state.listeners.remove(&self.address));
        drop(state);
        drop(gone);
    }
}

/// A connection that is being opened.
pub(super) struct Dial {
    net: Net,
    from: IpAddr,
    to: SocketAddr,
    id: Option<DialId>,
}

impl Future for Dial {
    type Output = io::Result<Socket>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.net.0.lock();
        let Some(id) = this.id else {
            let id = state.number();
            let [low, high, ..] = id.to_le_bytes();
            // Whatever port: nobody looks at it.
            let from = SocketAddr::new(this.from, u16::from_le_bytes([low, high]) | 0x8000);
            state.dials.insert(
                id,
                Dialing {
                    from,
                    to: this.to,
                    outcome: None,
                    waker: Some(context.waker().clone()),
                },
            );
            let arrival = state.arrival(this.from, this.to.ip());
            state.at(arrival, Event::Open(id));
            this.id = Some(id);
            return Poll::Pending;
        };
        let dial = state.dials.get_mut(&id).expect("removed when dropped");
        if dial.waker.is_none()
            && let Some(outcome) = dial.outcome.take()
        {
            return Poll::Ready(outcome);
        }
        dial.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let gone = self.net.0.lock().dials.remove(&id);
            drop(gone);
        }
    }
}

/// One end of a connection.
pub(super) struct Socket {
    net: Net,
    write: PipeId,
    read: PipeId,
    peer: SocketAddr,
    ended: bool,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket(to {})", self.peer)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.net.0.lock();
        let Some(pipe) = state.pipes.get_mut(&self.read) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut read = false;
        while buffer.remaining() > 0
            && let Some(bytes) = pipe.ready.front_mut()
        {
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            bytes.advance(count);
            pipe.bytes -= count;
            read = true;
            if bytes.is_empty() {
                pipe.ready.pop_front();
            }
        }
        if read {
            let writer = pipe.writer.take();
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.0.lock();
        let Some(pipe) = state.pipes.get_mut(&self.write) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = PIPE_BYTES.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        let segment = Segment::Bytes(Bytes::copy_from_slice(&bytes[..count]));
        state.send(self.write, segment);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// Nothing more is written.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.net.0.lock().send(self.write, Segment::End);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A machine without power says no farewell; `send` keeps it back.
        self.end();
        let mut state = self.net.0.lock();
        if let Some(pipe) = state.pipes.get_mut(&self.read) {
            pipe.deaf = true;
            pipe.reader = None;
        }
        if let Some(pipe) = state.pipes.get_mut(&self.write) {
            pipe.writer = None;
        }
        let read = self.read;
        state.forget(read);
    }
}
