//! Slow connections between the nodes: every connection from one node to another
//! goes through the harness, which passes the bytes on later. The kernel of a
//! test machine need not be able to delay packets.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::command::{CommandError, run_with_input};
use crate::network::Network;

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

#[derive(Debug, Clone, Copy, Default)]
struct Slowness {
    delay: Duration,
    jitter: Duration,
}

/// What all connections share.
#[derive(Debug, Default)]
struct Shared {
    slowness: Mutex<Slowness>,
    /// Pieces that were passed on later since this was last set to zero.
    delayed: AtomicU64,
}

impl Shared {
    fn slowness(&self) -> MutexGuard<'_, Slowness> {
        self.slowness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All links between the nodes.
#[derive(Debug)]
pub(crate) struct Links {
    shared: Arc<Shared>,
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    next_port: u16,
    /// By node: who takes the connections between it and those that were there
    /// before it.
    tasks: BTreeMap<u64, JoinSet<()>>,
}

impl Links {
    /// Takes the connections between `nodes` over, before they are made.
    pub(crate) fn start(network: &mut Network, nodes: &[u64]) -> Result<Self, LinkError> {
        let links = Self {
            shared: Arc::default(),
            made: Mutex::new(Made {
                next_port: FIRST_PORT,
                tasks: BTreeMap::new(),
            }),
        };
        for id in nodes {
            links.add_node(network, *id)?;
        }
        Ok(links)
    }

    /// The same of the connections between the node `new` and those that are there.
    pub(crate) fn add_node(&self, network: &mut Network, new: u64) -> Result<(), LinkError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<u64> = made.tasks.keys().copied().collect();
        let mut tasks = JoinSet::new();
        add_table(network, new)?;
        for other in others {
            for (from, to) in [(other, new), (new, other)] {
                let port = made.next_port;
                made.next_port += 1;
                // Listening without a runtime's help takes no waiting.
                let listener = std::net::TcpListener::bind((Network::HARNESS, port))?;
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                tasks.spawn(accept(listener, to, Arc::clone(&self.shared)));
                lead_through(network, from, to, port)?;
                network.relay(from, to, port);
            }
        }
        made.tasks.insert(new, tasks);
        Ok(())
    }

    /// The node has left: nobody connects to it any more, nor it to anybody.
    pub(crate) fn remove_node(&self, id: u64) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.tasks.remove(&id);
    }

    /// From now on every piece takes `delay`, and up to `jitter` more.
    pub(crate) fn set(&self, delay: Duration, jitter: Duration) {
        self.shared.delayed.store(0, Ordering::Relaxed);
        *self.shared.slowness() = Slowness { delay, jitter };
    }

    /// How many pieces were passed on later since the delay was last set.
    pub(crate) fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::Relaxed)
    }
}

/// A table for what leaves the node `id`.
fn add_table(network: &Network, id: u64) -> Result<(), CommandError> {
    nft(
        network,
        id,
        "add table ip links\n\
         add chain ip links output { type nat hook output priority -100; }\n",
    )
}

/// New connections from `from` to `to` go to this port of the harness.
fn lead_through(network: &Network, from: u64, to: u64, port: u16) -> Result<(), CommandError> {
    let rule = format!(
        "add rule ip links output ip daddr {} tcp dport {PEER_PORT} dnat to {}:{port}\n",
        Network::address(to),
        Network::HARNESS
    );
    nft(network, from, &rule)
}

fn nft(network: &Network, id: u64, script: &str) -> Result<(), CommandError> {
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", &network.namespace(id), "nft", "-f", "-"]);
    run_with_input(&mut nft, script).map(drop)
}

async fn accept(listener: TcpListener, to: u64, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connect(stream, to, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, to: u64, shared: Arc<Shared>) {
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
        () = pass(near_read, far_write, &shared) => {}
        () = pass(far_read, near_write, &shared) => {}
    }
}

/// Passes bytes on until either end is gone.
async fn pass(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, shared: &Shared) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let receive = async move {
        let mut last = Instant::now();
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let Slowness { delay, jitter } = *shared.slowness();
            if !delay.is_zero() {
                shared.delayed.fetch_add(1, Ordering::Relaxed);
            }
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::super::requirements::Requirement;
    use super::*;
    use crate::network::{Rule, path};

    /// Runs `work` in the namespace of a node, on a thread of its own.
    fn within<T: Send + 'static>(
        network: &Network,
        id: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let namespace = File::open(path(&network.namespace(id))).expect("it is there");
        let thread = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("entered");
            work()
        });
        thread.join().expect("no panic")
    }

    fn connected(network: &Network, from: u64, to: u64) -> (StdStream, StdStream) {
        let address = (Network::address(to), PEER_PORT);
        let bound = address.clone();
        let listener = within(network, to, move || StdListener::bind(bound)).expect("free");
        let near = within(network, from, move || StdStream::connect(address)).expect("listens");
        let (far, _) = listener.accept().expect("connected");
        (near, far)
    }

    fn passes(from: &mut StdStream, to: &mut StdStream) -> bool {
        let limit = Some(Duration::from_millis(250));
        to.set_read_timeout(limit).expect("not zero");
        from.write_all(b"x").expect("there is room");
        to.read_exact(&mut [0]).is_ok()
    }

    /// In the network's own namespace, with a runtime whose threads are there too.
    fn alone(work: impl FnOnce(&mut Network) + Send + 'static) {
        if let Some(why) = Requirement::Namespaces.missing() {
            println!("skipped: {why}");
            return;
        }
        // A process has one network of a name.
        static ONE: Mutex<()> = Mutex::new(());
        let _only = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::spawn(move || {
            let mut network = Network::create(2).expect("a network");
            network.enter().expect("entered");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let _entered = runtime.enter();
            work(&mut network);
        });
        thread.join().expect("no panic");
    }

    fn lost(from: u64, to: u64) -> Rule {
        Rule {
            from,
            to,
            lost_percent: 100,
        }
    }

    #[test]
    fn rules_hold_for_connections_that_go_through_the_harness() {
        alone(|network| {
            let links = Links::start(network, &[1, 2]).expect("links");
            let (mut near, mut far) = connected(network, 1, 2);
            assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
            let peer = far.peer_addr().expect("connected").ip().to_string();
            assert_eq!(peer, Network::HARNESS, "it goes through");

            for (rule, cut_from_near) in [(lost(1, 2), true), (lost(2, 1), false)] {
                network.set_rules(&[rule]).expect("set");
                let (from, to) = match cut_from_near {
                    true => (&mut near, &mut far),
                    false => (&mut far, &mut near),
                };
                assert!(!passes(from, to), "{rule:?}");
                assert!(network.dropped_frames().expect("counted") > 0, "{rule:?}");
                network.set_rules(&[]).expect("taken back");
                to.set_read_timeout(Some(Duration::from_secs(10)))
                    .expect("not zero");
                to.read_exact(&mut [0]).expect("it is sent again");
            }
            drop(links);
        });
    }

    #[test]
    fn a_node_that_comes_later_is_as_slow_as_the_others() {
        alone(|network| {
            let links = Links::start(network, &[1, 2]).expect("links");
            network.add_node(3).expect("added");
            links.add_node(network, 3).expect("led through");
            for (from, to) in [(3, 1), (2, 3)] {
                links.set(Duration::from_millis(50), Duration::ZERO);
                let (mut near, mut far) = connected(network, from, to);
                assert!(passes(&mut near, &mut far));
                assert_eq!(links.delayed(), 1, "{from} to {to}");
            }
        });
    }
}
