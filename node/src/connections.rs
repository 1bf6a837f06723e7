//! Client connections, no more than a node can carry.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::api::ConnectionShare;
use crate::limits;
use crate::telemetry::Metrics;

/// After a failed accept (no file descriptors left), the pause before the next.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A client's connection, which holds one of the places there are.
pub(crate) struct ClientConnection {
    stream: TcpStream,
    metrics: Arc<Metrics>,
    share: ConnectionShare,
    _place: OwnedSemaphorePermit,
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.metrics.node.client_connections.dec();
    }
}

/// Accepts connections on `listener`, at most
/// [`limits::CLIENT_CONNECTIONS_MAX`] at once; the next one waits in the
/// kernel's backlog.
pub(crate) fn client_connections(
    listener: TcpListener,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<ClientConnection>> + Send {
    let places = Arc::new(Semaphore::new(limits::CLIENT_CONNECTIONS_MAX));
    stream::unfold(
        (listener, places, metrics),
        |(listener, places, metrics)| async move {
            let place = places.clone().acquire_owned().await.ok()?;
            let stream = accept(&listener).await;
            metrics.node.client_connections.inc();
            let connection = ClientConnection {
                stream,
                metrics: metrics.clone(),
                share: ConnectionShare::default(),
                _place: place,
            };
            Some((Ok(connection), (listener, places, metrics)))
        },
    )
}

/// The next connection. A failed accept concerns one client, or passes; the
/// port stays open.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a client went away while it was accepted");
                    continue;
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connected for ClientConnection {
    type ConnectInfo = ConnectionShare;

    fn connect_info(&self) -> ConnectionShare {
        self.share.clone()
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientConnection {
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

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
