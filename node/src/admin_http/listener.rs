//! A listener whose connections are bounded in number and in idleness.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

use crate::limits;

/// Takes at most [`limits::ADMIN_CONNECTIONS_MAX`] connections at once; further
/// ones wait in the kernel's backlog.
#[derive(Debug)]
pub(super) struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle_timeout: Duration,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX)),
            idle_timeout: limits::ADMIN_IDLE_TIMEOUT,
        }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            idle: Box::pin(sleep(self.idle_timeout)),
            idle_timeout: self.idle_timeout,
            _permit: permit.expect("the semaphore is never closed"),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once nothing has come in for
/// [`limits::ADMIN_IDLE_TIMEOUT`].
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                let deadline = Instant::now() + self.idle_timeout;
                self.idle.as_mut().reset(deadline);
                Poll::Ready(result)
            }
            Poll::Pending => {
                let timed_out = self.idle.as_mut().poll(context);
                timed_out.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_silent_connection_is_given_up_and_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut listener = BoundedListener {
            idle_timeout: Duration::from_millis(20),
            ..BoundedListener::new(listener)
        };
        let address = listener.local_addr().expect("bound");
        let _silent = TcpStream::connect(address).await.expect("connects");
        let (mut connection, _) = listener.accept().await;
        assert_eq!(
            listener.permits.available_permits(),
            limits::ADMIN_CONNECTIONS_MAX - 1
        );
        let error = connection.read(&mut [0]).await.expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(
            listener.permits.available_permits(),
            limits::ADMIN_CONNECTIONS_MAX
        );
    }
}
