//! Connections of the three ports, no more than a node can carry, and none that
//! holds its place without using it.

mod accept;
mod http2;
mod info;
mod share;

pub(crate) use accept::{Acceptor, Connection};
pub(crate) use http2::http2_connections;
pub(crate) use info::ConnectionInfo;
pub(crate) use share::{ConnectionShare, Counted, ShareUsedUp};
