//! What a request knows of the connection it came on.

use tokio::sync::watch;
use tonic::Extensions;

use super::ConnectionShare;

/// In the extensions of every request on the client and peer ports.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    pub(super) share: Option<ConnectionShare>,
    /// Its sender is dropped with the connection.
    pub(super) end: watch::Receiver<()>,
}

impl ConnectionInfo {
    /// The share of appends in flight that the connection of a request has; what
    /// other nodes forward comes on the peer port and has none.
    pub(crate) fn share_in(extensions: &Extensions) -> Option<ConnectionShare> {
        extensions.get::<Self>()?.share.clone()
    }

    /// What ends with the connection that a request came on.
    pub(crate) fn end_in(extensions: &Extensions) -> Option<watch::Receiver<()>> {
        Some(extensions.get::<Self>()?.end.clone())
    }
}
