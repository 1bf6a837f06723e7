//! Connections of the gRPC ports: those that begin as HTTP/2 does. The others
//! are told what this port is, and give their places back.

use std::io;
use std::time::{Duration, Instant};

use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{Acceptor, Connection};
use crate::limits;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's header follows it: the client's settings.
const BEGINNING_BYTES: usize = PREFACE.len() + 9;
/// A TLS record of a handshake, whatever the version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
/// TLS's fatal alert "protocol_version" (RFC 8446, section 6).
const TLS_ALERT: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];
const HTTP1_METHODS: [&[u8]; 8] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
];
const HTTP1_ANSWER: &str = "HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Type: text/plain\r\nContent-Length: 91\r\nConnection: close\r\n\r\n\
    This port speaks gRPC: HTTP/2 without TLS. Metrics and probes are on the node's admin port\n";
/// Wrong beginnings are warned of at most this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// What is read of a connection that is told off, so that closing it does not
/// take the answer back.
const DRAINED_BYTES_MAX: u64 = 64 * 1024;

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Http2,
    Http1,
    Tls,
    Other,
}

/// The connections of `acceptor` that speak HTTP/2.
pub(crate) fn http2_connections(
    acceptor: Acceptor,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let state = Port {
        acceptor,
        beginning: FuturesUnordered::new(),
        warned: None,
    };
    stream::unfold(state, |mut port| async move {
        loop {
            tokio::select! {
                (connection, _) = port.acceptor.accept() => {
                    port.beginning.push(timeout(limits::HANDSHAKE_TIMEOUT, begin(connection)));
                }
                Some(begun) = port.beginning.next() => match begun {
                    Ok((Some(connection), _)) => return Some((Ok(connection), port)),
                    Ok((None, beginning)) => port.warn(beginning),
                    Err(_) => tracing::debug!("a connection did not begin in time"),
                }
            }
        }
    })
}

struct Port<F> {
    acceptor: Acceptor,
    beginning: FuturesUnordered<F>,
    warned: Option<Instant>,
}

impl<F> Port<F> {
    /// Who scrapes the wrong port does so every few seconds.
    fn warn(&mut self, beginning: Option<Beginning>) {
        let what = match beginning {
            Some(Beginning::Http1) => "HTTP/1",
            Some(Beginning::Tls) => "TLS",
            Some(Beginning::Other) => "something else",
            Some(Beginning::Http2) | None => return,
        };
        if self.warned.is_none_or(|at| at.elapsed() > WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            let port = self
                .acceptor
                .local_addr()
                .map_or(0, |address| address.port());
            tracing::warn!(
                port,
                "a connection to a gRPC port began as {what}, not as HTTP/2 without TLS, and was closed"
            );
        }
    }
}

/// Reads how `connection` begins. One that does not begin as HTTP/2 is told so,
/// and gone.
async fn begin(mut connection: Connection) -> (Option<Connection>, Option<Beginning>) {
    let mut bytes = [0; BEGINNING_BYTES];
    let mut read = 0;
    while read < BEGINNING_BYTES {
        match connection.read(&mut bytes[read..]).await {
            Ok(0) | Err(_) => return (None, None),
            Ok(count) => read += count,
        }
        let Some(beginning) = beginning_of(&bytes[..read]) else {
            continue;
        };
        if beginning != Beginning::Http2 {
            tell_off(connection, beginning).await;
            return (None, Some(beginning));
        }
    }
    connection.put_back(&bytes);
    (Some(connection), Some(Beginning::Http2))
}

/// How a connection begins, as soon as its first bytes tell.
fn beginning_of(bytes: &[u8]) -> Option<Beginning> {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return (common == PREFACE.len()).then_some(Beginning::Http2);
    }
    if bytes.starts_with(&TLS_HANDSHAKE) {
        return Some(Beginning::Tls);
    }
    let (mut is_http1, mut can_be) = (false, TLS_HANDSHAKE.starts_with(bytes));
    for method in HTTP1_METHODS {
        is_http1 |= bytes.starts_with(method);
        can_be |= method.starts_with(bytes);
    }
    match (is_http1, can_be) {
        (true, _) => Some(Beginning::Http1),
        (false, true) => None,
        (false, false) => Some(Beginning::Other),
    }
}

/// Says in the other's own words that this is the wrong port. Nothing depends
/// on its arriving.
async fn tell_off(mut connection: Connection, beginning: Beginning) {
    let answer = match beginning {
        Beginning::Http1 => HTTP1_ANSWER.as_bytes(),
        Beginning::Tls => &TLS_ALERT,
        Beginning::Other | Beginning::Http2 => &[],
    };
    if connection.write_all(answer).await.is_ok() && connection.shutdown().await.is_ok() {
        let mut rest = connection.take(DRAINED_BYTES_MAX);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn acceptor(places: usize) -> (Acceptor, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (Acceptor::new(Box::new(listener), places), address)
    }

    #[test]
    fn beginnings_are_told_as_soon_as_they_can_be() {
        for (bytes, beginning) in [
            (&b""[..], None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Beginning::Http2)),
            (b"PRI * HTTP/3", Some(Beginning::Other)),
            (b"PO", None),
            (b"POST /metrics", Some(Beginning::Http1)),
            (b"GET / HTTP/1.1\r\n", Some(Beginning::Http1)),
            (b"\x16", None),
            (b"\x16\x03\x01\x02\x00", Some(Beginning::Tls)),
            (b"\x16\x02", Some(Beginning::Other)),
            (b"SSH-2.0-OpenSSH", Some(Beginning::Other)),
            (b"\x00", Some(Beginning::Other)),
        ] {
            assert_eq!(beginning_of(bytes), beginning, "{bytes:?}");
        }
    }

    #[test]
    fn the_answer_to_http1_is_as_long_as_it_says() {
        let (head, body) = HTTP1_ANSWER.split_once("\r\n\r\n").expect("a head");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.contains(&length), "{length} is not in {head}");
    }

    #[tokio::test]
    async fn http2_passes_unchanged_whatever_comes_beside_it() {
        let (acceptor, address) = acceptor(8).await;
        let mut connections = Box::pin(http2_connections(acceptor));
        let client = async {
            let _silent = TcpStream::connect(address).await.expect("it listens");
            let mut garbage = TcpStream::connect(address).await.expect("it listens");
            garbage.write_all(&[0xff; 100]).await.expect("sent");
            let mut good = TcpStream::connect(address).await.expect("it listens");
            // In pieces, as a network may deliver it.
            for piece in [
                &PREFACE[..5],
                &PREFACE[5..],
                b"\0\0\0\x04\0\0\0\0\0",
                b"more",
            ] {
                good.write_all(piece).await.expect("sent");
                good.flush().await.expect("sent");
                tokio::task::yield_now().await;
            }
            good.shutdown().await.expect("sent");
            (_silent, garbage, good)
        };
        let (connection, _held) = tokio::join!(connections.next(), client);
        let mut connection = connection.expect("one").expect("it is accepted");
        let mut received = Vec::new();
        connection.read_to_end(&mut received).await.expect("read");
        assert_eq!(
            received,
            [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0more"].concat()
        );
    }

    /// Whoever begins wrongly is answered in its own words; whoever does not
    /// begin at all gives its place back.
    #[tokio::test]
    async fn what_is_not_http2_is_told_so_and_makes_room() {
        let (acceptor, address) = acceptor(1).await;
        let serving = tokio::spawn(async move {
            let mut connections = Box::pin(http2_connections(acceptor));
            while connections.next().await.is_some() {}
        });
        let answer_to = async |sent: &[u8]| {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(sent).await.expect("sent");
            let mut answer = Vec::new();
            stream
                .read_to_end(&mut answer)
                .await
                .expect("closed in order");
            answer
        };
        let http1 = answer_to(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(String::from_utf8_lossy(&http1), HTTP1_ANSWER);
        assert_eq!(answer_to(b"\x16\x03\x01\x00\xa5").await, TLS_ALERT);
        assert_eq!(answer_to(b"SSH-2.0").await, b"");
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_beginning_that_drags_on_is_given_up() {
        let (acceptor, address) = acceptor(1).await;
        let serving = tokio::spawn(async move {
            let mut connections = Box::pin(http2_connections(acceptor));
            while connections.next().await.is_some() {}
        });
        let began = tokio::time::Instant::now();
        let mut slow = TcpStream::connect(address).await.expect("it listens");
        slow.write_all(&PREFACE[..20]).await.expect("sent");
        let mut waiting = TcpStream::connect(address).await.expect("the backlog");
        waiting.write_all(b"SSH-2.0").await.expect("sent");
        let ended = slow.read(&mut [0; 64]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(began.elapsed() >= limits::HANDSHAKE_TIMEOUT);
        // The next one has the place.
        let ended = waiting.read(&mut [0; 64]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        serving.abort();
    }
}
