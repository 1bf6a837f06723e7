//! Accepting connections, each of which holds one of a port's places.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::{ConnectionInfo, ConnectionShare};
use crate::host::{ByteStream, Listen};
use crate::telemetry::Metrics;

/// After a failed accept (no file descriptors left), the pause before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port with so many places.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Box<dyn Listen>,
    places: Arc<Semaphore>,
    /// Where clients' connections are counted.
    clients: Option<Arc<Metrics>>,
}

impl Acceptor {
    /// Takes at most `places` connections at once; the next one waits in the
    /// kernel's backlog.
    pub(crate) fn new(listener: Box<dyn Listen>, places: usize) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
            clients: None,
        }
    }

    /// Its connections are clients': counted, each with a share of the node's
    /// appends in flight.
    pub(crate) fn for_clients(mut self, metrics: Arc<Metrics>) -> Self {
        self.clients = Some(metrics);
        self
    }

    /// The address it is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, once there is a place for it. A failed accept
    /// concerns one connection, or passes; the port stays open.
    pub(crate) async fn accept(&self) -> (Connection, SocketAddr) {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("this semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let counted = self.clients.clone().inspect(|metrics| {
                        metrics.node.client_connections.inc();
                    });
                    let connection = Connection {
                        stream,
                        read_ahead: Vec::new(),
                        silence: None,
                        share: counted.is_some().then(ConnectionShare::default),
                        counted,
                        end: watch::Sender::default(),
                        _place: place,
                    };
                    return (connection, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn free_places(&self) -> usize {
        self.places.available_permits()
    }
}

/// A connection, which holds one of its port's places.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Box<dyn ByteStream>,
    /// What was looked at and not yet taken, last byte first.
    read_ahead: Vec<u8>,
    silence: Option<Silence>,
    share: Option<ConnectionShare>,
    counted: Option<Arc<Metrics>>,
    /// Nothing is sent: whoever has a receiver learns of the connection's end.
    end: watch::Sender<()>,
    _place: OwnedSemaphorePermit,
}

/// How long a connection may go without being answered anything.
#[derive(Debug)]
struct Silence {
    max: Duration,
    over: Pin<Box<Sleep>>,
}

impl Connection {
    /// Fails reads once nothing has been written to it for `max`, `first` at the
    /// beginning: whoever sends no request, or never ends one, is given up.
    pub(super) fn or_fail_after(mut self, first: Duration, max: Duration) -> Self {
        let over = Box::pin(sleep(first));
        self.silence = Some(Silence { max, over });
        self
    }

    /// What has been read of it, to be read again.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.read_ahead.extend(bytes.iter().rev());
    }

    fn answered(&mut self, written: &Poll<io::Result<usize>>) {
        if let Some(silence) = &mut self.silence
            && matches!(written, Poll::Ready(Ok(1..)))
        {
            silence.over.as_mut().reset(Instant::now() + silence.max);
        }
    }
}

impl Acceptor {
    /// The next connection, which is given up when it has not been answered
    /// anything for `max`; `first` at the beginning.
    pub(crate) async fn accept_or_fail_after(
        &self,
        first: Duration,
        max: Duration,
    ) -> (Connection, SocketAddr) {
        let (connection, address) = self.accept().await;
        (connection.or_fail_after(first, max), address)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(metrics) = &self.counted {
            metrics.node.client_connections.dec();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo {
            share: self.share.clone(),
            end: self.end.subscribe(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            while buffer.remaining() > 0
                && let Some(byte) = self.read_ahead.pop()
            {
                buffer.put_slice(&[byte]);
            }
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(silence) = &mut self.silence
            && silence.over.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.answered(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.answered(&written);
        written
    }
}
