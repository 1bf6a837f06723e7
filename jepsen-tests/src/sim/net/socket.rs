//! What hosts hold of the network: ports they listen on, and ends of connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Net;
use super::state::{DialId, Dialing, Event, PIPE_BYTES, PipeId, Segment};

/// A listened-on address; given up when dropped.
pub(in crate::sim) struct Port {
    pub(super) net: Net,
    pub(super) address: SocketAddr,
    pub(super) id: u64,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({})", self.address)
    }
}

impl Port {
    pub(in crate::sim) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::sim) async fn accept(&self) -> (Socket, SocketAddr) {
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
pub(in crate::sim) struct Dial {
    pub(super) net: Net,
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    pub(super) id: Option<DialId>,
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
pub(in crate::sim) struct Socket {
    pub(super) net: Net,
    pub(super) write: PipeId,
    pub(super) read: PipeId,
    pub(super) peer: SocketAddr,
    pub(super) ended: bool,
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
        if pipe.is_lost_to_reader() {
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
        if pipe.is_lost_to_writer() {
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
