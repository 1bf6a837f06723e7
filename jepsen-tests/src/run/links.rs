//! Slow connections between the nodes: every connection from one node to another
//! goes through the harness, which passes the bytes on later. The kernel of a
//! test machine need not be able to delay packets.

use std::collections::BTreeSet;
use std::io;
use std::process::Command;
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::command::{CommandError, run_with_input};
use crate::network::{Network, Rule};

/// The nodes' peer port, as in their configurations.
const PEER_PORT: u16 = 7651;
/// Where the links' ports begin.
const FIRST_PORT: u16 = 20_000;
/// Pieces under way in one direction of a connection; then its sender waits, as
/// at a full window.
const PIECES: usize = 256;
const PIECE_BYTES: usize = 16 << 10;

/// Why connections can not be made slow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("listening for a link: {0}")]
    Listen(#[from] io::Error),
}

#[derive(Debug, Clone, Default)]
struct State {
    delay: Duration,
    jitter: Duration,
    /// Directions in which nothing passes.
    cut: BTreeSet<(u64, u64)>,
}

/// All links between the nodes.
#[derive(Debug)]
pub(crate) struct Links {
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Links {
    /// Takes the connections between `nodes` over, before they are made.
    pub(crate) async fn start(network: &Network, nodes: &[u64]) -> Result<Self, LinkError> {
        let state = watch::Sender::new(State::default());
        let mut tasks = JoinSet::new();
        let mut port = FIRST_PORT;
        for from in nodes {
            let mut script = String::from(
                "add table ip links\n\
                 add chain ip links output { type nat hook output priority -100; }\n",
            );
            for to in nodes.iter().filter(|to| *to != from) {
                port += 1;
                let listener = TcpListener::bind((Network::HARNESS, port)).await?;
                tasks.spawn(accept(listener, *from, *to, state.subscribe()));
                script.push_str(&format!(
                    "add rule ip links output ip daddr {} tcp dport {PEER_PORT} dnat to {}:{port}\n",
                    Network::address(*to),
                    Network::HARNESS
                ));
            }
            let mut nft = Command::new("ip");
            nft.args(["netns", "exec", &network.namespace(*from), "nft", "-f", "-"]);
            run_with_input(&mut nft, &script)?;
        }
        Ok(Self {
            state,
            _tasks: tasks,
        })
    }

    /// From now on every piece takes `delay`, and up to `jitter` more.
    pub(crate) fn set(&self, delay: Duration, jitter: Duration) {
        self.state.send_modify(|state| {
            state.delay = delay;
            state.jitter = jitter;
        });
    }

    /// The bridge's rules do not see what goes through the harness.
    pub(crate) fn cut(&self, rules: &[Rule]) {
        let total = rules.iter().filter(|rule| rule.lost_percent >= 100);
        let cut = total.map(|rule| (rule.from, rule.to)).collect();
        self.state.send_modify(|state| state.cut = cut);
    }
}

async fn accept(listener: TcpListener, from: u64, to: u64, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connect(stream, from, to, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, from: u64, to: u64, state: watch::Receiver<State>) {
    let Ok(far) = TcpStream::connect((Network::address(to), PEER_PORT)).await else {
        return;
    };
    // Without it small frames wait for each other; if it can not be set, they do.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // When one direction ends, the connection does.
    tokio::select! {
        () = pass(near_read, far_write, (from, to), state.clone()) => {}
        () = pass(far_read, near_write, (to, from), state) => {}
    }
}

/// Passes bytes on until either end is gone.
async fn pass(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    direction: (u64, u64),
    mut state: watch::Receiver<State>,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reading = state.clone();
    let receive = async move {
        let mut last = Instant::now();
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let (delay, jitter) = {
                let state = reading.borrow();
                (state.delay, state.jitter)
            };
            let extra = jitter.mul_f64(rand::rng().random());
            // In order: this is a stream.
            last = last.max(Instant::now() + delay + extra);
            if sender
                .send((last, buffer[..length].to_vec()))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let send = async move {
        while let Some((due, bytes)) = pieces.recv().await {
            sleep_until(due).await;
            if state
                .wait_for(|state| !state.cut.contains(&direction))
                .await
                .is_err()
            {
                return;
            }
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    // Whichever ends first: what is under way when a connection breaks is lost.
    tokio::select! {
        () = receive => {}
        () = send => {}
    }
}
