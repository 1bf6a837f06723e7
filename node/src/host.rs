//! The machine a node runs on: its ports, its ways to other machines, its disk.
//!
//! Production runs on [`Machine`]. The simulation has another, so that it drives
//! every other line of a node as it is.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Uri;
use huntlog_machine::{LevelRange, Limits};
use huntlog_storage::{OpenError, OpenReport, Options, Storage};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use crate::config::{BindError, DataDirError, ListenConfig, NodeConfig, Port};

/// A connection's two directions of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> ByteStream for T {}

/// A port that is listened on.
pub trait Listen: fmt::Debug + Send + Sync + 'static {
    /// The next connection, and where it comes from.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>>;
    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A way to other machines that is not TCP.
pub trait Dial: Send + Sync + 'static {
    /// A connection to the `host:port` in `uri`.
    fn dial(&self, uri: Uri) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>>;
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HostStorageError {
    /// It can not be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is in it can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What a node needs of the machine it runs on.
pub trait Host: Send + Sync + 'static {
    /// Listens on `port`.
    fn bind<'a>(
        &'a self,
        listen: &'a ListenConfig,
        port: Port,
    ) -> BoxFuture<'a, Result<Box<dyn Listen>, BindError>>;

    /// The way to other machines; `None` is TCP.
    fn dialer(&self) -> Option<Arc<dyn Dial>>;

    /// The bounds within which this cluster's machines decide, the same on all
    /// its nodes and for ever.
    fn machine_limits(&self) -> Limits {
        Limits::default()
    }

    /// The feature levels that the node reads: those of its release.
    fn feature_levels(&self) -> LevelRange {
        LevelRange::SUPPORTED
    }

    /// Makes the data directory if it is not there, and opens it. Blocks.
    ///
    /// # Errors
    /// When the directory, or what is in it, can not be used.
    fn open_storage(
        &self,
        node: &NodeConfig,
        options: Options,
    ) -> Result<(Storage, OpenReport), HostStorageError>;
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Host for Machine {
    fn bind<'a>(
        &'a self,
        listen: &'a ListenConfig,
        port: Port,
    ) -> BoxFuture<'a, Result<Box<dyn Listen>, BindError>> {
        Box::pin(async move {
            let listener = listen.bind(port).await?;
            Ok(Box::new(listener) as Box<dyn Listen>)
        })
    }

    fn dialer(&self) -> Option<Arc<dyn Dial>> {
        None
    }

    fn open_storage(
        &self,
        node: &NodeConfig,
        options: Options,
    ) -> Result<(Storage, OpenReport), HostStorageError> {
        node.prepare_data_dir()?;
        Ok(Storage::open(&node.data_dir, options)?)
    }
}

impl Listen for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async move {
            loop {
                let (stream, address) = TcpListener::accept(self).await?;
                match stream.set_nodelay(true) {
                    Ok(()) => return Ok((Box::new(stream) as Box<dyn ByteStream>, address)),
                    Err(error) => {
                        tracing::debug!(%error, "a connection was gone before it was taken");
                    }
                }
            }
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// A channel to `endpoint` that connects, and reconnects, when it is used.
pub(crate) fn connect_lazy(endpoint: &Endpoint, dialer: Option<&Arc<dyn Dial>>) -> Channel {
    let Some(dialer) = dialer.cloned() else {
        return endpoint.connect_lazy();
    };
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let dialed = dialer.dial(uri);
        async { dialed.await.map(TokioIo::new) }
    }))
}
