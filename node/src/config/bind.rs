//! Taking the ports a node listens on.

use std::{fmt, io, net::SocketAddr};

use tokio::net::TcpListener;

use super::{
    ListenConfig,
    schema::{self, Key},
};

/// One of a node's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// gRPC for clients.
    Client,
    /// gRPC for the other nodes.
    Peer,
    /// HTTP for metrics and probes.
    Admin,
}

impl Port {
    fn key(self) -> &'static Key {
        match self {
            Self::Client => &schema::LISTEN_CLIENT,
            Self::Peer => &schema::LISTEN_PEER,
            Self::Admin => &schema::LISTEN_ADMIN,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "clients",
            Self::Peer => "peers",
            Self::Admin => "the admin port",
        })
    }
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {port}: {source}; {advice} {key} (--{flag})",
    advice = advice(source),
    key = .port.key().path,
    flag = .port.key().flag,
)]
pub struct BindError {
    /// What it is for.
    pub port: Port,
    /// As configured.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the process that has it (perhaps this node, running already), or change"
        }
        io::ErrorKind::AddrNotAvailable => "use an address of this machine in",
        io::ErrorKind::PermissionDenied => {
            "use a port from 1024 up, or give the process CAP_NET_BIND_SERVICE; the port is set by"
        }
        _ => "check",
    }
}

impl ListenConfig {
    /// The configured address of `port`.
    pub fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Client => self.client,
            Port::Peer => self.peer,
            Port::Admin => self.admin,
        }
    }

    /// Listens on `port`.
    ///
    /// # Errors
    /// When the system does not let us; see [`BindError`].
    pub async fn bind(&self, port: Port) -> Result<TcpListener, BindError> {
        let address = self.address(port);
        TcpListener::bind(address)
            .await
            .map_err(|source| BindError {
                port,
                address,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen_on(admin: SocketAddr) -> ListenConfig {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        ListenConfig {
            client: any,
            peer: any,
            admin,
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_key() {
        let taken = listen_on(SocketAddr::from(([127, 0, 0, 1], 0)));
        let holder = taken.bind(Port::Admin).await.expect("a free port");
        let address = holder.local_addr().expect("bound");

        let error = listen_on(address).bind(Port::Admin).await;
        let error = error.expect_err("the port is taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        for part in [
            address.to_string().as_str(),
            "listen.admin",
            "--listen-admin",
            "stop the process",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        // TEST-NET-1 (RFC 5737) is nobody's.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 7652));
        let error = listen_on(elsewhere).bind(Port::Admin).await;
        let text = error.expect_err("not ours").to_string();
        assert!(text.contains("an address of this machine"), "{text}");
    }

    #[test]
    fn a_privileged_port_says_what_to_do() {
        let error = BindError {
            port: Port::Client,
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        let text = error.to_string();
        assert!(text.contains("from 1024 up"), "{text}");
        assert!(text.contains("--listen-client"), "{text}");
    }
}
