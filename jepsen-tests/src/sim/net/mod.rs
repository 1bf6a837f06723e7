//! The network: byte streams between hosts, with the faults that TCP shows.
//!
//! What is sent over a link that is cut, or lost on it, is sent again once the
//! link works, as TCP does it; so a connection stalls, and goes on or is given up
//! by whoever waits for it. A connection can be lost to whoever has made it while
//! what it has sent still arrives, later. A machine without power answers nothing; a process
//! that is gone is answered for by its machine.

mod link;
mod socket;
mod state;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use link::Links;
pub(super) use link::{Effect, Impairment, Link, Pair};
pub(super) use socket::{Dial, Port, Socket};
pub(super) use state::PipeId;
use state::{Event, Listener, State};

use super::random::Random;

/// The network; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

/// What has happened on the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) segments: u64,
    pub(super) lost: u64,
    pub(super) stalled: u64,
    pub(super) reset: u64,
    /// Arrived after whoever had sent them had lost the connection.
    pub(super) late: u64,
}

impl Net {
    pub(super) fn new(random: Random, usual: Link) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            random,
            dark: BTreeSet::new(),
            links: Links::new(usual),
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

    /// Does something to the links of `pairs`, until it is lifted.
    pub(super) fn impair(&self, pairs: &[Pair], effect: &Effect) -> Impairment {
        self.0.lock().links.impair(pairs, effect)
    }

    /// Ends one impairment; what others do to the same links goes on.
    pub(super) fn lift(&self, impairment: Impairment) {
        let mut state = self.0.lock();
        let pairs = state.links.lift(impairment);
        state.resume(|pipe| pairs.contains(&(pipe.from, pipe.to)));
    }

    /// Keeps back what is sent from now on over connections that one of `pairs`
    /// has made to the other, each with a chance; those it is done to.
    pub(super) fn hold_some(&self, pairs: &[Pair], chance_per_mille: u64) -> Vec<PipeId> {
        let mut state = self.0.lock();
        let made: Vec<PipeId> = state
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.dialed && !pipe.held && !pipe.severed && !pipe.reset)
            .filter(|(_, pipe)| pairs.contains(&(pipe.from, pipe.to)))
            .map(|(id, _)| *id)
            .collect();
        let held = made.into_iter().filter(|id| {
            let held = state.random.per_mille(chance_per_mille);
            if held && let Some(pipe) = state.pipes.get_mut(id) {
                pipe.held = true;
            }
            held
        });
        held.collect()
    }

    /// Takes connections that were held from those who had made them. What was
    /// kept back arrives all the same, later by `late`: what a socket has handed to
    /// the network is not called back. The hosts it arrives at.
    pub(super) fn sever(&self, held: &[PipeId], late: &Range<Duration>) -> BTreeSet<IpAddr> {
        let mut wakers = Vec::new();
        let mut state = self.0.lock();
        let arrives = held
            .iter()
            .filter_map(|id| state.sever(*id, late, &mut wakers))
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        arrives
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

    /// Resets each connection between the two with a chance; how many there were.
    pub(super) fn reset_some(&self, a: IpAddr, b: IpAddr, chance_per_mille: u64) -> u64 {
        let mut wakers = Vec::new();
        let mut count = 0;
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
                    count += 1;
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        count
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
