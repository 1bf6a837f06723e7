//! A double of the remote cluster, for faults that a real one shows only by
//! chance: nodes on real sockets in this process over one shared state, each on
//! a runtime of its own, so that killing one breaks its connections as SIGKILL
//! does.

mod hunt;
mod service;
mod state;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use huntlog_client::proto::admin_service_server::AdminServiceServer;
use huntlog_client::proto::event_service_server::EventServiceServer;
use huntlog_client::proto::hunt_service_server::HuntServiceServer;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use service::Service;
pub use state::{Fault, State, Tamper, failure, refuse};

pub struct Peers {
    shared: Arc<Shared>,
    nodes: Vec<Node>,
}

/// What all nodes share.
pub struct Shared {
    pub addresses: Vec<SocketAddr>,
    state: Mutex<State>,
    /// Told of every change of the state.
    changed: tokio::sync::watch::Sender<u64>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds it")
    }

    pub fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

struct Node {
    runtime: Option<Runtime>,
}

impl Peers {
    /// So many nodes, the first of which leads.
    pub fn start(nodes: usize) -> Self {
        let listeners: Vec<std::net::TcpListener> = (0..nodes)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound"))
            .collect();
        let shared = Arc::new(Shared {
            addresses,
            state: Mutex::new(State::new()),
            changed: tokio::sync::watch::Sender::new(0),
        });
        let mut peers = Self {
            shared,
            nodes: Vec::new(),
        };
        for (index, listener) in listeners.into_iter().enumerate() {
            let runtime = Some(peers.serve(index, listener));
            peers.nodes.push(Node { runtime });
        }
        peers
    }

    fn serve(&self, index: usize, listener: std::net::TcpListener) -> Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        listener.set_nonblocking(true).expect("a socket");
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("within a runtime");
            let counter = Arc::clone(&shared);
            let incoming = TcpListenerStream::new(listener).map(move |connection| {
                counter.state().connections += 1;
                counter.touch();
                connection
            });
            let service = Service { shared, index };
            Server::builder()
                .add_service(EventServiceServer::new(service.clone()))
                .add_service(HuntServiceServer::new(service.clone()))
                .add_service(AdminServiceServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .expect("serves until killed");
        });
        runtime
    }

    /// Drops everything of this node at once.
    pub fn kill(&mut self, index: usize) {
        if let Some(runtime) = self.nodes[index].runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts a killed node again at its address.
    pub fn restart(&mut self, index: usize) {
        let address = self.shared.addresses[index];
        let listener = loop {
            // The killed runtime closes its listener in the background.
            match std::net::TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{address}: {error}"),
            }
        };
        self.nodes[index].runtime = Some(self.serve(index, listener));
    }

    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.shared.addresses.iter();
        addresses.map(ToString::to_string).collect()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Elects this node, or nobody.
    pub fn elect(&self, leader: Option<usize>) {
        self.state().leader = leader;
        self.shared.touch();
    }

    /// Waits until the state is like this.
    pub async fn until(&self, what: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        let wait = async {
            while !what(&self.state()) {
                changes.changed().await.expect("the sender lives on");
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), wait)
            .await
            .expect("the state comes to be within 30 s");
    }

    /// Lets answers that are held back go, and holds none any more.
    pub fn release(&self) {
        self.state().hold = false;
        self.shared.touch();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            self.kill(index);
        }
    }
}
