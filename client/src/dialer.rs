//! Ways to the nodes other than plain TCP.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Error};

/// A connection's two directions of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// Makes the connections of a [`Client`](crate::Client) in place of plain TCP:
/// through a proxy, a tunnel, or a simulated network.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(Uri) -> Dialing + Send + Sync>);

impl Dialer {
    /// Connects with `dial`, which is given the node's `http://host:port`.
    pub fn new(dial: impl Fn(Uri) -> Dialing + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }

    fn connector(
        self,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<Box<dyn ByteStream>>,
        Error = io::Error,
        Future = impl Future<Output = io::Result<TokioIo<Box<dyn ByteStream>>>> + Send,
    > + Send
    + 'static {
        tower::service_fn(move |uri: Uri| {
            let dialed = (self.0)(uri);
            async { dialed.await.map(TokioIo::new) }
        })
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// How to reach one node.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) endpoint: Endpoint,
    pub(crate) dialer: Option<Dialer>,
}

impl Way {
    /// A channel that connects, and reconnects, when it is used.
    pub(crate) fn connect_lazy(self) -> Channel {
        match self.dialer {
            None => self.endpoint.connect_lazy(),
            Some(dialer) => self
                .endpoint
                .connect_with_connector_lazy(dialer.connector()),
        }
    }

    /// A connected channel.
    pub(crate) async fn connect(self) -> Result<Channel, Error> {
        match self.dialer {
            None => self.endpoint.connect().await,
            Some(dialer) => {
                self.endpoint
                    .connect_with_connector(dialer.connector())
                    .await
            }
        }
    }
}
