//! The admin port's connections, bounded in number and in how long they may go
//! without a request that ends.

use std::{io, net::SocketAddr};

use axum::serve::Listener;

use crate::connections::{Acceptor, Connection};
use crate::host::Listen;
use crate::limits;

/// Takes at most [`limits::ADMIN_CONNECTIONS_MAX`] connections at once; further
/// ones wait in the kernel's backlog.
#[derive(Debug)]
pub(super) struct BoundedListener(Acceptor);

impl BoundedListener {
    pub(super) fn new(listener: Box<dyn Listen>) -> Self {
        Self(Acceptor::new(listener, limits::ADMIN_CONNECTIONS_MAX))
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (first, later) = (limits::HANDSHAKE_TIMEOUT, limits::ADMIN_IDLE_TIMEOUT);
        self.0.accept_or_fail_after(first, later).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    /// Bytes that never make up a request do not keep a connection open.
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_given_up_and_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut listener = BoundedListener::new(Box::new(listener));
        let address = listener.local_addr().expect("bound");
        let mut slow = TcpStream::connect(address).await.expect("connects");
        let (mut connection, _) = listener.accept().await;
        assert_eq!(listener.0.free_places(), limits::ADMIN_CONNECTIONS_MAX - 1);

        let began = Instant::now();
        let error = loop {
            slow.write_all(b"G").await.expect("sent");
            tokio::time::sleep(limits::HANDSHAKE_TIMEOUT / 10).await;
            match connection.read(&mut [0]).await {
                Ok(count) => assert_eq!(count, 1),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < 2 * limits::HANDSHAKE_TIMEOUT);
        drop(connection);
        assert_eq!(listener.0.free_places(), limits::ADMIN_CONNECTIONS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_connection_may_stay_until_it_is_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut listener = BoundedListener::new(Box::new(listener));
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).await.expect("connects");
        let (mut connection, _) = listener.accept().await;
        connection.write_all(b"an answer").await.expect("sent");
        let answered = Instant::now();
        let error = connection.read(&mut [0]).await.expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(answered.elapsed() >= limits::ADMIN_IDLE_TIMEOUT);
    }
}
